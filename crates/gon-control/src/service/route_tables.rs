//! Route tables, routes, associations. The local route is always there and nobody's to change.

use std::collections::HashMap;

use gon_api::Applied;
use gon_api::page::{NoQuery, Page, Wait};
use gon_api::route_tables::{
    CreateRoute, CreateRouteTable, CreateRouteTableAssociation, DeleteRoute, ListRouteTables, ReplaceRoute,
    ReplaceRouteTableAssociation, Route, RouteTable, RouteTableAssociation, UpdateRouteTable,
};
use gon_core::route::destination;
use gon_store::events::Watched;
use gon_store::journal::Entry;
use gon_store::reference::Ref;
use gon_store::route_tables::{self as tables, Association, Destination, Filter, RouteTableRow, Target};
use gon_store::{Conn, instances, internet_gateways, network_interfaces, prefix_lists, subnets, vpcs};
use gon_types::id::{
    InternetGatewayId, NetworkInterfaceId, PrefixListId, RouteTableAssociationId, RouteTableId, SubnetId,
    VpcId,
};
use gon_types::net::parse_cidr;
use ipnet::{IpNet, Ipv4Net};
use uuid::Uuid;

use super::cx::show_applied;
use super::error::{Refusal, Result};
use super::subnets::in_vpc;
use super::vpcs::same_vpc;
use super::{Cx, parse};
use crate::api::{Json, One, Two};

type Kind = gon_types::id::RouteTable;
type AssociationKind = gon_types::id::RouteTableAssociation;
type VpcKind = gon_types::id::Vpc;
type SubnetKind = gon_types::id::Subnet;
type GatewayKind = gon_types::id::InternetGateway;
type InstanceKind = gon_types::id::Instance;
type InterfaceKind = gon_types::id::NetworkInterface;
type ListKind = gon_types::id::PrefixList;

/// Rows as users see them, with their routes and associations.
async fn show(conn: &mut Conn, rows: Vec<RouteTableRow>) -> Result<Vec<RouteTable>> {
    let ids: Vec<Uuid> = rows.iter().map(|r| r.id).collect();
    let mut routes: HashMap<Uuid, Vec<Route>> = HashMap::new();
    for row in tables::routes(conn, &ids).await? {
        let (target_type, target_id) = match (row.internet_gateway_id, row.network_interface_id) {
            (Some(id), _) => ("gateway", InternetGatewayId::from_uuid(id).to_string()),
            (None, Some(id)) => ("instance", NetworkInterfaceId::from_uuid(id).to_string()),
            (None, None) => ("gateway", String::new()),
        };
        routes.entry(row.route_table_id).or_default().push(Route {
            destination_cidr: row.destination_cidr.map(|block| block.to_string()),
            destination_prefix_list_id: row
                .destination_prefix_list_id
                .map(|id| PrefixListId::from_uuid(id).to_string()),
            ignored_cidrs: row.ignored.iter().map(ToString::to_string).collect(),
            target_type: target_type.to_owned(),
            target_id,
            state: if row.active { "active" } else { "blackhole" }.to_owned(),
        });
    }
    let mut associations: HashMap<Uuid, Vec<RouteTableAssociation>> = HashMap::new();
    for row in tables::associations(conn, &ids).await? {
        associations.entry(row.route_table_id).or_default().push(RouteTableAssociation {
            id: RouteTableAssociationId::from_uuid(row.id).to_string(),
            subnet_id: SubnetId::from_uuid(row.subnet_id).to_string(),
        });
    }
    Ok(rows
        .into_iter()
        .map(|row| {
            let local = |block: &IpNet| Route {
                destination_cidr: Some(block.to_string()),
                destination_prefix_list_id: None,
                ignored_cidrs: vec![],
                target_type: "local".to_owned(),
                target_id: "local".to_owned(),
                state: "active".to_owned(),
            };
            let mut all: Vec<Route> = row.vpc_blocks.iter().map(local).collect();
            all.extend(routes.remove(&row.id).unwrap_or_default());
            RouteTable {
                id: RouteTableId::from_uuid(row.id).to_string(),
                uuid: row.id,
                vpc_id: VpcId::from_uuid(row.vpc_id).to_string(),
                name: row.name,
                is_main: row.is_main,
                routes: all,
                associations: associations.remove(&row.id).unwrap_or_default(),
                main_association_id: row
                    .main_association_id
                    .map(|id| RouteTableAssociationId::from_uuid(id).to_string()),
                applied: None,
                generation: None,
                created_at: row.created_at,
                updated_at: row.updated_at,
            }
        })
        .collect())
}

async fn show_one(conn: &mut Conn, row: RouteTableRow, applied: Option<Applied>) -> Result<RouteTable> {
    let mut table = show(conn, vec![row])
        .await?
        .pop()
        .ok_or_else(|| Refusal::internal("a route table was lost on its way"))?;
    table.generation = applied.map(|a| a.generation);
    table.applied = applied;
    Ok(table)
}

/// Creates a route table. Nothing follows it yet, so no packet changes its way.
pub async fn create(cx: Cx, (): (), _: NoQuery, Json(body): Json<CreateRouteTable>) -> Result<RouteTable> {
    let vpc_id = parse::id::<VpcKind>("vpc_id", &body.vpc_id)?;
    let id = RouteTableId::new();
    let name = parse::name_or("name", body.name.as_deref(), || id.to_string())?;
    let mut tx = cx.begin().await?;
    let vpc = Cx::found(vpcs::head(&mut tx, cx.account(), &Ref::from(&vpc_id)).await, &vpc_id)
        .map_err(|refusal| refusal.field("vpc_id"))?;
    tables::create(&mut tx, cx.account(), id.uuid(), vpc.id, vpc.cidr_block.0, &name).await?;
    let row = tables::get(&mut tx, cx.account(), &id.into()).await?;
    let applied = show_applied(vpcs::applied(&mut tx, vpc.id).await?);
    let table = show_one(&mut tx, row, Some(applied)).await?;
    let entry = Entry::new("CreateRouteTable", id.uuid())
        .detail(serde_json::json!({ "name": name, "vpc_id": table.vpc_id }))
        .event(Watched::RouteTable, id.uuid(), None, Some("available"));
    cx.commit(tx, entry, &table).await?;
    Ok(table)
}

/// Lists route tables.
pub async fn list(cx: Cx, (): (), query: ListRouteTables, (): ()) -> Result<Page<RouteTable>> {
    let window = cx.window("route-tables", query.window())?;
    let mut conn = cx.conn().await?;
    let mut filter = Filter { vpc: None, name: query.name };
    if let Some(text) = &query.vpc_id {
        match in_vpc(&cx, &mut conn, text).await? {
            Some(vpc) => filter.vpc = Some(vpc),
            None => return Ok(Page { items: vec![], next_cursor: None }),
        }
    }
    let rows = tables::list(&mut conn, cx.account(), &filter, window).await?;
    let Page { items, next_cursor } = cx.page("route-tables", window, rows, |r| r.id, |r| r);
    Ok(Page { items: show(&mut conn, items).await?, next_cursor })
}

/// Describes a route table.
pub async fn get(cx: Cx, One(id): One<Kind>, wait: Wait, (): ()) -> Result<RouteTable> {
    let until = cx.until_applied(&wait)?;
    let mut conn = cx.conn().await?;
    let row = Cx::found(tables::get(&mut conn, cx.account(), &Ref::from(&id)).await, &id)?;
    let vpc = row.vpc_id;
    let applied = show_applied(vpcs::applied(&mut conn, vpc).await?);
    let mut table = show_one(&mut conn, row, None).await?;
    drop(conn);
    let applied = cx.settle(vpc, applied, until).await?;
    table.generation = Some(applied.generation);
    table.applied = Some(applied);
    Ok(table)
}

/// Renames a route table.
pub async fn update(
    cx: Cx,
    One(id): One<Kind>,
    _: NoQuery,
    Json(body): Json<UpdateRouteTable>,
) -> Result<RouteTable> {
    let name = parse::name("name", &body.name)?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(tables::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    if !tables::rename(&mut tx, cx.account(), row.id, &name, cx.unless_changed_since).await? {
        return Err(Refusal::changed());
    }
    let row = tables::get(&mut tx, cx.account(), &row.id.into()).await?;
    let id = row.id;
    let table = show_one(&mut tx, row, None).await?;
    let entry = Entry::new("ModifyRouteTable", id).detail(serde_json::json!({ "name": name })).event(
        Watched::RouteTable,
        id,
        Some("available"),
        Some("available"),
    );
    cx.commit(tx, entry, &table).await?;
    Ok(table)
}

/// Deletes a route table that is not the main one and that no subnet follows.
pub async fn delete(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<()> {
    let mut tx = cx.begin().await?;
    let row = Cx::found(tables::hold(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let shown = RouteTableId::from_uuid(row.id);
    if row.is_main {
        return Err(Refusal::dependency(
            format!("the route table '{shown}' is the main one of its VPC: it goes with it"),
            vec![VpcId::from_uuid(row.vpc_id).to_string()],
        ));
    }
    let associations = tables::associations(&mut tx, &[row.id]).await?;
    if !associations.is_empty() {
        return Err(Refusal::dependency(
            format!("the route table '{shown}' has dependencies and cannot be deleted"),
            associations.into_iter().map(|a| RouteTableAssociationId::from_uuid(a.id).to_string()).collect(),
        ));
    }
    tables::delete(&mut tx, cx.account(), row.id).await?;
    let entry =
        Entry::new("DeleteRouteTable", row.id).event(Watched::RouteTable, row.id, Some("available"), None);
    cx.commit(tx, entry, &()).await
}

/// The VPC's blocks, which the local routes serve.
fn local(row: &RouteTableRow) -> Vec<Ipv4Net> {
    let word = |net: &IpNet| match net {
        IpNet::V4(net) => Some(*net),
        IpNet::V6(_) => None,
    };
    row.vpc_blocks.iter().filter_map(word).collect()
}

/// What a route leads to: the gateway of the table's VPC, or an interface in it.
async fn target(
    cx: &Cx,
    tx: &mut Conn,
    table: &RouteTableRow,
    (text, said): (&str, Option<&str>),
) -> Result<Target> {
    const FIELD: &str = "target_id";
    let at = |refusal: Refusal| refusal.field(FIELD);
    let (kind, target) = if text.starts_with("igw-") {
        let id = parse::id::<GatewayKind>(FIELD, text)?;
        let row =
            Cx::found(internet_gateways::hold(tx, cx.account(), &Ref::from(&id)).await, &id).map_err(at)?;
        match row.vpc_id {
            None => {
                return Err(at(Refusal::conflict(
                    "Gateway.NotAttached",
                    "the internet gateway is not attached to a VPC",
                )));
            }
            Some(vpc) => same_vpc::<GatewayKind>(vpc, table.vpc_id, FIELD)?,
        }
        ("gateway", Target::Gateway(row.id))
    } else if text.starts_with("i-") {
        let id = parse::id::<InstanceKind>(FIELD, text)?;
        let row = Cx::found(instances::get(tx, cx.account(), &Ref::from(&id)).await, &id).map_err(at)?;
        same_vpc::<InstanceKind>(row.vpc_id, table.vpc_id, FIELD)?;
        let interface = row
            .network_interface_id
            .ok_or_else(|| at(Refusal::conflict("IncorrectInstanceState", "the instance is terminated")))?;
        if network_interfaces::number_of(tx, row.id).await? > 1 {
            return Err(Refusal::of_field(
                "InvalidInstanceID",
                FIELD,
                "the instance has several network interfaces: name one of them",
            ));
        }
        ("instance", Target::Interface(interface))
    } else if text.starts_with("eni-") {
        let id = parse::id::<InterfaceKind>(FIELD, text)?;
        let row =
            Cx::found(network_interfaces::get(tx, cx.account(), &Ref::from(&id)).await, &id).map_err(at)?;
        same_vpc::<InterfaceKind>(row.vpc_id, table.vpc_id, FIELD)?;
        ("instance", Target::Interface(row.id))
    } else {
        return Err(Refusal::invalid(
            FIELD,
            "must be the id of an internet gateway, an instance or a network interface",
        ));
    };
    match said {
        None => Ok(target),
        Some(said) if said == kind => Ok(target),
        Some("gateway" | "instance") => {
            Err(Refusal::invalid("target_type", format!("'{text}' is of type {kind}")))
        }
        Some(_) => Err(Refusal::invalid("target_type", "must be gateway or instance")),
    }
}

const BLOCK: &str = "destination_cidr";
const LIST: &str = "destination_prefix_list_id";

/// The destination that a request names: a block, or a prefix list, which nobody changes or deletes before this ends.
async fn named(
    cx: &Cx,
    tx: &mut Conn,
    (block, list): (Option<&str>, Option<&str>),
    read: impl FnOnce(&str) -> Result<Ipv4Net>,
) -> Result<Destination> {
    match (block, list) {
        (Some(block), None) => Ok(Destination::Block(read(block)?)),
        (None, Some(list)) => {
            let id = parse::id::<ListKind>(LIST, list)?;
            let row = Cx::found(prefix_lists::hold(tx, cx.account(), &Ref::from(&id)).await, &id);
            Ok(Destination::PrefixList(row.map_err(|refusal| refusal.field(LIST))?.id))
        }
        (None, None) => {
            let mut refusal = Refusal::missing(BLOCK);
            refusal.detail = format!("{BLOCK} or {LIST} is required");
            Err(refusal)
        }
        (Some(_), Some(_)) => {
            Err(Refusal::of_field("InvalidParameterCombination", LIST, format!("{BLOCK} is given, too")))
        }
    }
}

/// The block as the destination of a route of that table.
fn routable(table: &RouteTableRow) -> impl FnOnce(&str) -> Result<Ipv4Net> {
    let local = local(table);
    move |text| destination(text, &local).map_err(|error| Refusal::invalid(BLOCK, error.to_string()))
}

/// What the books say of a route.
fn detail(to: Destination, target: Option<&str>) -> serde_json::Value {
    let (block, list) = match to {
        Destination::Block(block) => (Some(block), None),
        Destination::PrefixList(id) => (None, Some(PrefixListId::from_uuid(id).to_string())),
    };
    serde_json::json!({ BLOCK: block, LIST: list, "target_id": target })
}

fn no_route(to: Destination) -> Refusal {
    let missing = |to: &dyn std::fmt::Display| Refusal::not_found("InvalidRoute", "route to", to);
    match to {
        Destination::Block(block) => missing(&block).field(BLOCK),
        Destination::PrefixList(id) => missing(&PrefixListId::from_uuid(id)).field(LIST),
    }
}

/// Adds a route.
pub async fn add_route(
    cx: Cx,
    One(id): One<Kind>,
    wait: Wait,
    Json(body): Json<CreateRoute>,
) -> Result<RouteTable> {
    let until = cx.until_applied(&wait)?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(tables::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let asked = (body.destination_cidr.as_deref(), body.destination_prefix_list_id.as_deref());
    let to = named(&cx, &mut tx, asked, routable(&row)).await?;
    let target = target(&cx, &mut tx, &row, (&body.target_id, body.target_type.as_deref())).await?;
    tables::add_route(&mut tx, cx.account(), Uuid::now_v7(), &row, to, target).await?;
    finish(cx, tx, row, "CreateRoute", detail(to, Some(&body.target_id)), until).await
}

/// Gives the route to a destination another target.
pub async fn replace_route(
    cx: Cx,
    One(id): One<Kind>,
    wait: Wait,
    Json(body): Json<ReplaceRoute>,
) -> Result<RouteTable> {
    let until = cx.until_applied(&wait)?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(tables::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let asked = (body.destination_cidr.as_deref(), body.destination_prefix_list_id.as_deref());
    let to = named(&cx, &mut tx, asked, routable(&row)).await?;
    let target = target(&cx, &mut tx, &row, (&body.target_id, body.target_type.as_deref())).await?;
    if !tables::replace_route(&mut tx, row.id, to, target).await? {
        return Err(no_route(to));
    }
    finish(cx, tx, row, "ReplaceRoute", detail(to, Some(&body.target_id)), until).await
}

/// Removes the route to a destination.
pub async fn remove_route(cx: Cx, One(id): One<Kind>, query: DeleteRoute, (): ()) -> Result<RouteTable> {
    let until = cx.until_applied(&Wait { wait: query.wait, timeout: query.timeout })?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(tables::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let asked = (query.destination_cidr.as_deref(), query.destination_prefix_list_id.as_deref());
    let to = named(&cx, &mut tx, asked, |text| {
        let block = parse_cidr(text).map_err(|e| Refusal::invalid(BLOCK, e.to_string()))?.trunc();
        if local(&row).contains(&block) {
            return Err(Refusal::invalid(BLOCK, "the local route cannot be removed"));
        }
        Ok(block)
    });
    let to = to.await?;
    if !tables::remove_route(&mut tx, row.id, to).await? {
        return Err(no_route(to));
    }
    finish(cx, tx, row, "DeleteRoute", detail(to, None), until).await
}

/// Lets a subnet follow the table.
pub async fn associate(
    cx: Cx,
    One(id): One<Kind>,
    wait: Wait,
    Json(body): Json<CreateRouteTableAssociation>,
) -> Result<RouteTable> {
    let until = cx.until_applied(&wait)?;
    let subnet_id = parse::id::<SubnetKind>("subnet_id", &body.subnet_id)?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(tables::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let subnet = Cx::found(subnets::get(&mut tx, cx.account(), &Ref::from(&subnet_id)).await, &subnet_id)
        .map_err(|refusal| refusal.field("subnet_id"))?;
    same_vpc::<SubnetKind>(subnet.vpc_id, row.vpc_id, "subnet_id")?;
    tables::associate(&mut tx, cx.account(), Uuid::now_v7(), row.vpc_id, row.id, subnet.id).await?;
    let detail = serde_json::json!({ "subnet_id": SubnetId::from_uuid(subnet.id).to_string() });
    finish(cx, tx, row, "AssociateRouteTable", detail, until).await
}

/// Lets a subnet follow the main table again.
pub async fn disassociate(
    cx: Cx,
    Two(id, association): Two<Kind, AssociationKind>,
    wait: Wait,
    (): (),
) -> Result<RouteTable> {
    let until = cx.until_applied(&wait)?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(tables::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let wanted = Ref::from(&association);
    if let Some(Association::Main(_)) = tables::association(&mut tx, cx.account(), row.id, &wanted).await? {
        return Err(Refusal::invalid(
            "association_id",
            "is the main one of the VPC, which always has one: replace it instead",
        ));
    }
    if !tables::disassociate(&mut tx, cx.account(), row.id, &wanted).await? {
        return Cx::found(Err(gon_store::StoreError::NotFound), &association)
            .map_err(|refusal: Refusal| refusal.field("association_id"));
    }
    finish(cx, tx, row, "DisassociateRouteTable", serde_json::json!({}), until).await
}

/// Lets whoever follows the table by that association follow another one. Replacing the main association makes that the
/// main table. The association has a new id afterwards, as at EC2.
pub async fn replace_association(
    cx: Cx,
    Two(id, association): Two<Kind, AssociationKind>,
    wait: Wait,
    Json(body): Json<ReplaceRouteTableAssociation>,
) -> Result<RouteTable> {
    let until = cx.until_applied(&wait)?;
    let to_id = parse::id::<Kind>("route_table_id", &body.route_table_id)?;
    let mut tx = cx.begin().await?;
    let from = Cx::found(tables::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let to = Cx::found(tables::get(&mut tx, cx.account(), &Ref::from(&to_id)).await, &to_id)
        .map_err(|refusal| refusal.field("route_table_id"))?;
    same_vpc::<Kind>(to.vpc_id, from.vpc_id, "route_table_id")?;
    let missing = || {
        Cx::found::<RouteTable, _>(Err(gon_store::StoreError::NotFound), &association)
            .map_err(|refusal| refusal.field("association_id"))
    };
    let Some(found) = tables::association(&mut tx, cx.account(), from.id, &Ref::from(&association)).await?
    else {
        return missing();
    };
    let new = Uuid::now_v7();
    if !tables::replace_association(&mut tx, cx.account(), found, (from.id, to.id), new).await? {
        return missing();
    }
    let (Association::Subnet(old) | Association::Main(old)) = found;
    let detail = serde_json::json!({
        "association_id": RouteTableAssociationId::from_uuid(old).to_string(),
        "new_association_id": RouteTableAssociationId::from_uuid(new).to_string(),
        "from": RouteTableId::from_uuid(from.id).to_string(),
    });
    let row = tables::get(&mut tx, cx.account(), &to.id.into()).await?;
    finish(cx, tx, row, "ReplaceRouteTableAssociation", detail, until).await
}

/// What every change of a table's effect ends with.
async fn finish(
    cx: Cx,
    mut tx: gon_store::Tx,
    row: RouteTableRow,
    action: &'static str,
    detail: serde_json::Value,
    until: Option<super::cx::Until>,
) -> Result<RouteTable> {
    let (id, vpc) = (row.id, row.vpc_id);
    let applied = show_applied(vpcs::bump(&mut tx, vpc).await?);
    let mut table = show_one(&mut tx, row, Some(applied)).await?;
    let entry = Entry::new(action, id).detail(detail).vpc(vpc).event(
        Watched::RouteTable,
        id,
        Some("available"),
        Some("available"),
    );
    cx.commit(tx, entry, &table).await?;
    table.applied = Some(cx.settle(vpc, applied, until).await?);
    Ok(table)
}
