//! Internet gateways: one per VPC; one that public addresses are mapped through stays attached.

use gon_api::Applied;
use gon_api::internet_gateways::{
    AttachInternetGateway, CreateInternetGateway, DetachInternetGateway, InternetGateway,
    ListInternetGateways, UpdateInternetGateway,
};
use gon_api::page::{NoQuery, Page, Wait};
use gon_store::events::Watched;
use gon_store::internet_gateways::{self as gateways, Filter, InternetGatewayRow};
use gon_store::journal::Entry;
use gon_store::reference::Ref;
use gon_store::vpcs;
use gon_types::id::{InternetGatewayId, NetworkInterfaceId, VpcId};
use uuid::Uuid;

use super::cx::show_applied;
use super::error::{Refusal, Result};
use super::subnets::in_vpc;
use super::{Cx, parse};
use crate::api::{Json, One, Optional};

type Kind = gon_types::id::InternetGateway;
type VpcKind = gon_types::id::Vpc;

fn show(row: InternetGatewayRow) -> InternetGateway {
    InternetGateway {
        id: InternetGatewayId::from_uuid(row.id).to_string(),
        uuid: row.id,
        name: row.name,
        state: if row.vpc_id.is_some() { "attached" } else { "detached" }.to_owned(),
        vpc_id: row.vpc_id.map(|id| VpcId::from_uuid(id).to_string()),
        applied: None,
        generation: None,
        created_at: row.created_at,
        updated_at: row.updated_at,
    }
}

fn with_applied(mut gateway: InternetGateway, applied: Applied) -> InternetGateway {
    gateway.generation = Some(applied.generation);
    gateway.applied = Some(applied);
    gateway
}

/// Creates a gateway, attached to nothing.
pub async fn create(
    cx: Cx,
    (): (),
    _: NoQuery,
    Optional(body): Optional<CreateInternetGateway>,
) -> Result<InternetGateway> {
    let id = InternetGatewayId::new();
    let name = parse::name_or("name", body.name.as_deref(), || id.to_string())?;
    let mut tx = cx.begin().await?;
    gateways::create(&mut tx, cx.account(), id.uuid(), &name).await?;
    let gateway = show(gateways::get(&mut tx, cx.account(), &id.into()).await?);
    let entry = Entry::new("CreateInternetGateway", id.uuid())
        .detail(serde_json::json!({ "name": name }))
        .event(Watched::InternetGateway, id.uuid(), None, Some("detached"));
    cx.commit(tx, entry, &gateway).await?;
    Ok(gateway)
}

/// Lists gateways.
pub async fn list(cx: Cx, (): (), query: ListInternetGateways, (): ()) -> Result<Page<InternetGateway>> {
    let window = cx.window("internet-gateways", query.window())?;
    let mut conn = cx.conn().await?;
    let mut filter = Filter { vpc: None, name: query.name };
    if let Some(text) = &query.vpc_id {
        match in_vpc(&cx, &mut conn, text).await? {
            Some(vpc) => filter.vpc = Some(vpc),
            None => return Ok(Page { items: vec![], next_cursor: None }),
        }
    }
    let rows = gateways::list(&mut conn, cx.account(), &filter, window).await?;
    Ok(cx.page("internet-gateways", window, rows, |r| r.id, show))
}

/// Describes a gateway.
pub async fn get(cx: Cx, One(id): One<Kind>, wait: Wait, (): ()) -> Result<InternetGateway> {
    let until = cx.until_applied(&wait)?;
    let mut conn = cx.conn().await?;
    let row = Cx::found(gateways::get(&mut conn, cx.account(), &Ref::from(&id)).await, &id)?;
    let Some(vpc) = row.vpc_id else { return Ok(show(row)) };
    let applied = show_applied(vpcs::applied(&mut conn, vpc).await?);
    drop(conn);
    let applied = cx.settle(vpc, applied, until).await?;
    Ok(with_applied(show(row), applied))
}

/// Renames a gateway.
pub async fn update(
    cx: Cx,
    One(id): One<Kind>,
    _: NoQuery,
    Json(body): Json<UpdateInternetGateway>,
) -> Result<InternetGateway> {
    let name = parse::name("name", &body.name)?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(gateways::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    if !gateways::rename(&mut tx, cx.account(), row.id, &name, cx.unless_changed_since).await? {
        return Err(Refusal::changed());
    }
    let gateway = show(gateways::get(&mut tx, cx.account(), &row.id.into()).await?);
    let state = gateway.state.clone();
    let entry = Entry::new("ModifyInternetGateway", row.id)
        .detail(serde_json::json!({ "name": name }))
        .event(Watched::InternetGateway, row.id, Some(&state), Some(&state));
    cx.commit(tx, entry, &gateway).await?;
    Ok(gateway)
}

/// Attaches a gateway to a VPC that has none.
pub async fn attach(
    cx: Cx,
    One(id): One<Kind>,
    wait: Wait,
    Json(body): Json<AttachInternetGateway>,
) -> Result<InternetGateway> {
    let until = cx.until_applied(&wait)?;
    let vpc_id = parse::id::<VpcKind>("vpc_id", &body.vpc_id)?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(gateways::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let vpc = Cx::found(vpcs::head(&mut tx, cx.account(), &Ref::from(&vpc_id)).await, &vpc_id)
        .map_err(|refusal| refusal.field("vpc_id"))?;
    if !gateways::attach(&mut tx, cx.account(), row.id, vpc.id).await? {
        return Err(Refusal::conflict(
            "Resource.AlreadyAssociated",
            "the internet gateway is attached already",
        ));
    }
    let applied = show_applied(vpcs::bump(&mut tx, vpc.id).await?);
    let gateway = with_applied(show(gateways::get(&mut tx, cx.account(), &row.id.into()).await?), applied);
    let entry = Entry::new("AttachInternetGateway", row.id)
        .detail(serde_json::json!({ "vpc_id": gateway.vpc_id }))
        .vpc(vpc.id)
        .event(Watched::InternetGateway, row.id, Some("detached"), Some("attached"));
    cx.commit(tx, entry, &gateway).await?;
    let applied = cx.settle(vpc.id, applied, until).await?;
    Ok(with_applied(gateway, applied))
}

/// Detaches a gateway that no public address is mapped through.
pub async fn detach(
    cx: Cx,
    One(id): One<Kind>,
    wait: Wait,
    Optional(body): Optional<DetachInternetGateway>,
) -> Result<InternetGateway> {
    let until = cx.until_applied(&wait)?;
    let named = body.vpc_id.as_deref().map(|text| parse::id::<VpcKind>("vpc_id", text)).transpose()?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(gateways::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let not_attached = || {
        Refusal::conflict(
            "Gateway.NotAttached",
            format!("the internet gateway '{}' is not attached there", InternetGatewayId::from_uuid(row.id)),
        )
    };
    let vpc: Uuid = match &named {
        Some(named) => {
            Cx::found(vpcs::head(&mut tx, cx.account(), &Ref::from(named)).await, named)
                .map_err(|refusal| refusal.field("vpc_id"))?
                .id
        }
        None => row.vpc_id.ok_or_else(not_attached)?,
    };
    if !gateways::detach(&mut tx, cx.account(), row.id, vpc).await? {
        return Err(not_attached());
    }
    // The VPC's row is ours from here on: nobody maps an address behind our back.
    let applied = show_applied(vpcs::bump(&mut tx, vpc).await?);
    let mapped = gateways::mapped_interfaces(&mut tx, vpc).await?;
    if !mapped.is_empty() {
        return Err(Refusal::dependency(
            format!("the VPC '{}' has mapped public addresses: unmap them first", VpcId::from_uuid(vpc)),
            mapped.into_iter().map(|id| NetworkInterfaceId::from_uuid(id).to_string()).collect(),
        ));
    }
    let gateway = with_applied(show(gateways::get(&mut tx, cx.account(), &row.id.into()).await?), applied);
    let entry = Entry::new("DetachInternetGateway", row.id)
        .detail(serde_json::json!({ "vpc_id": VpcId::from_uuid(vpc).to_string() }))
        .vpc(vpc)
        .event(Watched::InternetGateway, row.id, Some("attached"), Some("detached"));
    cx.commit(tx, entry, &gateway).await?;
    let applied = cx.settle(vpc, applied, until).await?;
    Ok(with_applied(gateway, applied))
}

/// Deletes a gateway that is not attached.
pub async fn delete(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<()> {
    let mut tx = cx.begin().await?;
    let row = Cx::found(gateways::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let deleted = gateways::delete(&mut tx, cx.account(), row.id).await;
    if let Err(error) = deleted {
        let attached = error.constraint() == Some("internet_gateways_detached_check");
        return match row.vpc_id {
            Some(vpc) if attached => Err(Refusal::dependency(
                "the internet gateway is attached: detach it first",
                vec![VpcId::from_uuid(vpc).to_string()],
            )),
            _ => Cx::found(Err(error), &id),
        };
    }
    let entry = Entry::new("DeleteInternetGateway", row.id).event(
        Watched::InternetGateway,
        row.id,
        Some("detached"),
        None,
    );
    cx.commit(tx, entry, &()).await
}
