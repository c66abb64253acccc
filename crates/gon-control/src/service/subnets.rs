//! Subnets: inside their VPC, beside each other, in a zone that exists.

use gon_api::Applied;
use gon_api::page::{NoQuery, Page, Wait};
use gon_api::subnets::{CreateSubnet, ListSubnets, ListVpcSubnets, Subnet, UpdateSubnet};
use gon_core::subnet::{BlockError, block, usable};
use gon_store::events::Watched;
use gon_store::journal::Entry;
use gon_store::reference::Ref;
use gon_store::subnets::{self, Filter, NewSubnet, SubnetRow};
use gon_store::{StoreError, vpcs};
use gon_types::id::{NetworkAclId, RouteTableId, SubnetId, VpcId};
use uuid::Uuid;

use super::cx::show_applied;
use super::error::{Refusal, Result};
use super::vpcs::shown_blocker;
use super::{Cx, parse};
use crate::api::{Json, One};

type Kind = gon_types::id::Subnet;
type VpcKind = gon_types::id::Vpc;

/// A row as users see it.
pub fn show(row: SubnetRow) -> Subnet {
    Subnet {
        id: SubnetId::from_uuid(row.id).to_string(),
        uuid: row.id,
        vpc_id: VpcId::from_uuid(row.vpc_id).to_string(),
        name: row.name,
        cidr_block: row.cidr_block.0.to_string(),
        availability_zone: row.availability_zone,
        subnet_type: if row.public { "public" } else { "private" }.to_owned(),
        route_table_id: RouteTableId::from_uuid(row.route_table_id).to_string(),
        network_acl_id: NetworkAclId::from_uuid(row.network_acl_id).to_string(),
        map_public_ip_on_launch: row.map_public_ip_on_launch,
        default_for_az: row.default_for_az,
        available_ip_address_count: i64::from(usable(row.cidr_block.0)) - row.used,
        applied: None,
        generation: None,
        created_at: row.created_at,
        updated_at: row.updated_at,
    }
}

fn with_applied(mut subnet: Subnet, applied: Applied) -> Subnet {
    subnet.generation = Some(applied.generation);
    subnet.applied = Some(applied);
    subnet
}

/// The site's zones, the oldest first; there is always one.
pub async fn zones(cx: &Cx, conn: &mut gon_store::Conn) -> Result<Vec<String>> {
    let mut zones = subnets::zones(conn).await?;
    if zones.is_empty() {
        zones.push(cx.app.config.default_zone.clone());
    }
    Ok(zones)
}

/// The zone asked for, if there is such a zone; the site's first if none is.
async fn zone(cx: &Cx, conn: &mut gon_store::Conn, asked: Option<&str>) -> Result<String> {
    let mut zones = zones(cx, conn).await?;
    match asked {
        None => Ok(zones.swap_remove(0)),
        Some(zone) if zones.iter().any(|z| z == zone) => Ok(zone.to_owned()),
        Some(_) => Err(Refusal::invalid("availability_zone", format!("must be one of {}", zones.join(", ")))),
    }
}

/// Creates a subnet.
pub async fn create(
    cx: Cx,
    One(vpc_id): One<VpcKind>,
    wait: Wait,
    Json(body): Json<CreateSubnet>,
) -> Result<Subnet> {
    let until = cx.until_applied(&wait)?;
    let name = parse::name("name", &body.name)?;
    let mut tx = cx.begin().await?;
    // Held: one that is deleted meanwhile would have no blocks, and the subnet would lie outside of them.
    let vpc = Cx::found(vpcs::hold(&mut tx, cx.account(), &Ref::from(&vpc_id)).await, &vpc_id)?;
    let blocks: Vec<_> =
        vpcs::blocks(&mut tx, vpc.id).await?.into_iter().map(|row| row.cidr_block.0).collect();
    let (cidr_block, vpc_cidr) = block(&body.cidr_block, &blocks).map_err(|error| {
        let code = match error {
            BlockError::Malformed => "InvalidParameterValue",
            BlockError::Size | BlockError::Outside(_) => "InvalidSubnet.Range",
        };
        Refusal::of_field(code, "cidr_block", error.to_string())
    })?;
    let zone = zone(&cx, &mut tx, body.availability_zone.as_deref()).await?;
    let new = NewSubnet {
        id: Uuid::now_v7(),
        vpc: vpc.id,
        vpc_cidr,
        name: &name,
        cidr_block,
        availability_zone: &zone,
        map_public_ip_on_launch: body.map_public_ip_on_launch.unwrap_or(false),
        default_for_az: false,
    };
    subnets::create(&mut tx, cx.account(), &new).await?;
    let applied = show_applied(vpcs::bump(&mut tx, vpc.id).await?);
    let subnet = with_applied(show(subnets::get(&mut tx, cx.account(), &new.id.into()).await?), applied);
    let entry = Entry::new("CreateSubnet", new.id)
        .detail(serde_json::json!({ "name": name, "cidr_block": cidr_block, "vpc_id": subnet.vpc_id }))
        .vpc(vpc.id)
        .event(Watched::Subnet, new.id, None, Some("available"));
    cx.commit(tx, entry, &subnet).await?;
    let applied = cx.settle(vpc.id, applied, until).await?;
    Ok(with_applied(subnet, applied))
}

/// Lists subnets.
pub async fn list(cx: Cx, (): (), query: ListSubnets, (): ()) -> Result<Page<Subnet>> {
    let window = cx.window("subnets", query.window())?;
    let mut conn = cx.conn().await?;
    let mut filter = Filter { vpc: None, name: query.name, availability_zone: query.availability_zone };
    if let Some(text) = &query.vpc_id {
        match in_vpc(&cx, &mut conn, text).await? {
            Some(vpc) => filter.vpc = Some(vpc),
            None => return Ok(Page { items: vec![], next_cursor: None }),
        }
    }
    let rows = subnets::list(&mut conn, cx.account(), &filter, window).await?;
    Ok(cx.page("subnets", window, rows, |r| r.id, show))
}

/// The VPC a filter names; `None` when there is none such, which nothing is in.
pub async fn in_vpc(cx: &Cx, conn: &mut gon_store::Conn, text: &str) -> Result<Option<Uuid>> {
    let id = parse::reference::<VpcKind>("vpc_id", text)?;
    match vpcs::head(conn, cx.account(), &id).await {
        Ok(head) => Ok(Some(head.id)),
        Err(StoreError::NotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Lists the subnets of a VPC.
pub async fn list_of_vpc(
    cx: Cx,
    One(vpc_id): One<VpcKind>,
    query: ListVpcSubnets,
    (): (),
) -> Result<Page<Subnet>> {
    let window = cx.window("subnets", query.window())?;
    let mut conn = cx.conn().await?;
    let vpc = Cx::found(vpcs::head(&mut conn, cx.account(), &Ref::from(&vpc_id)).await, &vpc_id)?;
    let filter = Filter { vpc: Some(vpc.id), name: query.name, availability_zone: query.availability_zone };
    let rows = subnets::list(&mut conn, cx.account(), &filter, window).await?;
    Ok(cx.page("subnets", window, rows, |r| r.id, show))
}

/// Describes a subnet.
pub async fn get(cx: Cx, One(id): One<Kind>, wait: Wait, (): ()) -> Result<Subnet> {
    let until = cx.until_applied(&wait)?;
    let mut conn = cx.conn().await?;
    let row = Cx::found(subnets::get(&mut conn, cx.account(), &Ref::from(&id)).await, &id)?;
    let vpc = row.vpc_id;
    let applied = show_applied(vpcs::applied(&mut conn, vpc).await?);
    drop(conn);
    let applied = cx.settle(vpc, applied, until).await?;
    Ok(with_applied(show(row), applied))
}

/// Changes a subnet. Neither its name nor its default alters packets.
pub async fn update(
    cx: Cx,
    One(id): One<Kind>,
    _: NoQuery,
    Json(body): Json<UpdateSubnet>,
) -> Result<Subnet> {
    parse::some_change(body.name.is_some() || body.map_public_ip_on_launch.is_some())?;
    let name = body.name.as_deref().map(|name| parse::name("name", name)).transpose()?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(subnets::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let changed = subnets::modify(
        &mut tx,
        cx.account(),
        row.id,
        name.as_deref(),
        body.map_public_ip_on_launch,
        cx.unless_changed_since,
    );
    if !changed.await? {
        return Err(Refusal::changed());
    }
    let subnet = show(subnets::get(&mut tx, cx.account(), &row.id.into()).await?);
    let entry = Entry::new("ModifySubnetAttribute", row.id)
        .detail(serde_json::json!({ "name": name, "map_public_ip_on_launch": body.map_public_ip_on_launch }))
        .event(Watched::Subnet, row.id, Some("available"), Some("available"));
    cx.commit(tx, entry, &subnet).await?;
    Ok(subnet)
}

/// Deletes a subnet, unless interfaces are in it.
pub async fn delete(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<()> {
    let mut tx = cx.begin().await?;
    let row = Cx::found(subnets::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    if let Err(error) = subnets::delete(&mut tx, cx.account(), row.id).await {
        if error.constraint().is_none() {
            return Cx::found(Err(error), &id);
        }
        gon_store::rollback(tx).await?;
        let mut conn = cx.conn().await?;
        let blockers = subnets::blockers(&mut conn, row.id).await?;
        return Err(Refusal::dependency(
            format!("the subnet '{}' has dependencies and cannot be deleted", SubnetId::from_uuid(row.id)),
            blockers.into_iter().map(|(kind, id)| shown_blocker(&kind, id)).collect(),
        ));
    }
    vpcs::bump(&mut tx, row.vpc_id).await?;
    let entry = Entry::new("DeleteSubnet", row.id).vpc(row.vpc_id).event(
        Watched::Subnet,
        row.id,
        Some("available"),
        None,
    );
    cx.commit(tx, entry, &()).await
}
