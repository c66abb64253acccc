//! Network ACLs, entries, associations. The end of every list (EC2's `*`, 32767) is always there and nobody's to change;
//! every subnet has exactly one ACL at any time.

use std::collections::HashMap;

use gon_api::Applied;
use gon_api::network_acls::{
    CreateNetworkAcl, DeleteNetworkAclEntry, ListNetworkAcls, NetworkAcl, NetworkAclAssociation,
    NetworkAclEntry, PutNetworkAclEntry, ReplaceNetworkAclAssociation, UpdateNetworkAcl,
};
use gon_api::page::{NoQuery, Page, Wait};
use gon_core::network_acl::{self as rules, Entry as Rule, EntryText, REST, protocol_name};
use gon_core::security_group::RuleError;
use gon_store::events::Watched;
use gon_store::journal::Entry;
use gon_store::network_acls::{self as acls, EntryRow, Filter, NetworkAclRow, NewEntry};
use gon_store::reference::Ref;
use gon_store::{Conn, StoreError, subnets, vpcs};
use gon_types::PortRange;
use gon_types::id::{NetworkAclAssociationId, NetworkAclId, SubnetId, VpcId};
use uuid::Uuid;

use super::cx::{Until, show_applied};
use super::error::{Refusal, Result};
use super::subnets::in_vpc;
use super::vpcs::same_vpc;
use super::{Cx, parse};
use crate::api::{Json, One};

type Kind = gon_types::id::NetworkAcl;
type VpcKind = gon_types::id::Vpc;
type SubnetKind = gon_types::id::Subnet;
type AssociationKind = gon_types::id::NetworkAclAssociation;

/// EC2's default quota of ACLs per VPC.
const MOST_ACLS: i64 = 200;

fn show_entry(row: EntryRow) -> NetworkAclEntry {
    let port = |port: Option<i32>| port.and_then(|p| u16::try_from(p).ok());
    let range = port(row.first_port).zip(port(row.last_port)).and_then(|(a, b)| PortRange::new(a, b));
    NetworkAclEntry {
        direction: row.direction,
        rule_number: row.rule_number,
        action: row.action,
        protocol: protocol_name(row.protocol.and_then(|p| u8::try_from(p).ok())),
        port_range: range.unwrap_or(PortRange::ALL).to_string(),
        icmp_type: row.icmp_type,
        icmp_code: row.icmp_code,
        cidr_block: row.cidr_block.0.to_string(),
    }
}

/// The end of a list.
fn rest(direction: &str) -> NetworkAclEntry {
    NetworkAclEntry {
        direction: direction.to_owned(),
        rule_number: REST.into(),
        action: "deny".to_owned(),
        protocol: protocol_name(None),
        port_range: PortRange::ALL.to_string(),
        icmp_type: None,
        icmp_code: None,
        cidr_block: "0.0.0.0/0".to_owned(),
    }
}

async fn show(conn: &mut Conn, rows: Vec<NetworkAclRow>) -> Result<Vec<NetworkAcl>> {
    let ids: Vec<Uuid> = rows.iter().map(|r| r.id).collect();
    let mut entries: HashMap<(Uuid, String), Vec<NetworkAclEntry>> = HashMap::new();
    for row in acls::entries(conn, &ids).await? {
        let list = entries.entry((row.network_acl_id, row.direction.clone())).or_default();
        list.push(show_entry(row));
    }
    let mut associations: HashMap<Uuid, Vec<NetworkAclAssociation>> = HashMap::new();
    for row in acls::associations(conn, &ids).await? {
        associations.entry(row.network_acl_id).or_default().push(NetworkAclAssociation {
            id: NetworkAclAssociationId::from_uuid(row.id).to_string(),
            subnet_id: SubnetId::from_uuid(row.subnet_id).to_string(),
        });
    }
    Ok(rows
        .into_iter()
        .map(|row| {
            let mut all = Vec::new();
            for direction in ["inbound", "outbound"] {
                all.extend(entries.remove(&(row.id, direction.to_owned())).unwrap_or_default());
                all.push(rest(direction));
            }
            NetworkAcl {
                id: NetworkAclId::from_uuid(row.id).to_string(),
                uuid: row.id,
                vpc_id: VpcId::from_uuid(row.vpc_id).to_string(),
                name: row.name,
                is_default: row.is_default,
                entries: all,
                associations: associations.remove(&row.id).unwrap_or_default(),
                applied: None,
                generation: None,
                created_at: row.created_at,
                updated_at: row.updated_at,
            }
        })
        .collect())
}

async fn show_one(conn: &mut Conn, row: NetworkAclRow, applied: Option<Applied>) -> Result<NetworkAcl> {
    let lost = || Refusal::internal("a network ACL was lost on its way");
    let mut acl = show(conn, vec![row]).await?.pop().ok_or_else(lost)?;
    acl.generation = applied.map(|a| a.generation);
    acl.applied = applied;
    Ok(acl)
}

/// Creates an ACL. It guards nothing yet, so no packet is dropped that was not.
pub async fn create(cx: Cx, (): (), _: NoQuery, Json(body): Json<CreateNetworkAcl>) -> Result<NetworkAcl> {
    let vpc_id = parse::id::<VpcKind>("vpc_id", &body.vpc_id)?;
    let id = NetworkAclId::new();
    let name = parse::name_or("name", body.name.as_deref(), || id.to_string())?;
    let mut tx = cx.begin().await?;
    let vpc = Cx::found(vpcs::head(&mut tx, cx.account(), &Ref::from(&vpc_id)).await, &vpc_id)
        .map_err(|refusal| refusal.field("vpc_id"))?;
    if acls::create(&mut tx, cx.account(), id.uuid(), vpc.id, &name).await? > MOST_ACLS {
        return Err(Refusal::conflict(
            "NetworkAclLimitExceeded",
            format!("a VPC has at most {MOST_ACLS} network ACLs"),
        ));
    }
    let row = acls::get(&mut tx, cx.account(), &id.into()).await?;
    let applied = show_applied(vpcs::applied(&mut tx, vpc.id).await?);
    let acl = show_one(&mut tx, row, Some(applied)).await?;
    let entry = Entry::new("CreateNetworkAcl", id.uuid())
        .detail(serde_json::json!({ "name": name, "vpc_id": acl.vpc_id }))
        .event(Watched::NetworkAcl, id.uuid(), None, Some("available"));
    cx.commit(tx, entry, &acl).await?;
    Ok(acl)
}

/// Lists ACLs.
pub async fn list(cx: Cx, (): (), query: ListNetworkAcls, (): ()) -> Result<Page<NetworkAcl>> {
    let window = cx.window("network-acls", query.window())?;
    let mut conn = cx.conn().await?;
    let mut filter = Filter { vpc: None, subnet: None, name: query.name };
    let nothing = Page { items: vec![], next_cursor: None };
    if let Some(text) = &query.vpc_id {
        match in_vpc(&cx, &mut conn, text).await? {
            Some(vpc) => filter.vpc = Some(vpc),
            None => return Ok(nothing),
        }
    }
    if let Some(text) = &query.subnet_id {
        let id = parse::reference::<SubnetKind>("subnet_id", text)?;
        match subnets::get(&mut conn, cx.account(), &id).await {
            Ok(subnet) => filter.subnet = Some(subnet.id),
            Err(StoreError::NotFound) => return Ok(nothing),
            Err(error) => return Err(error.into()),
        }
    }
    let rows = acls::list(&mut conn, cx.account(), &filter, window).await?;
    let Page { items, next_cursor } = cx.page("network-acls", window, rows, |r| r.id, |r| r);
    Ok(Page { items: show(&mut conn, items).await?, next_cursor })
}

/// Describes an ACL.
pub async fn get(cx: Cx, One(id): One<Kind>, wait: Wait, (): ()) -> Result<NetworkAcl> {
    let until = cx.until_applied(&wait)?;
    let mut conn = cx.conn().await?;
    let row = Cx::found(acls::get(&mut conn, cx.account(), &Ref::from(&id)).await, &id)?;
    let vpc = row.vpc_id;
    let applied = show_applied(vpcs::applied(&mut conn, vpc).await?);
    let mut acl = show_one(&mut conn, row, None).await?;
    drop(conn);
    let applied = cx.settle(vpc, applied, until).await?;
    acl.generation = Some(applied.generation);
    acl.applied = Some(applied);
    Ok(acl)
}

/// Renames an ACL.
pub async fn update(
    cx: Cx,
    One(id): One<Kind>,
    _: NoQuery,
    Json(body): Json<UpdateNetworkAcl>,
) -> Result<NetworkAcl> {
    let name = parse::name("name", &body.name)?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(acls::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    if !acls::rename(&mut tx, cx.account(), row.id, &name, cx.unless_changed_since).await? {
        return Err(Refusal::changed());
    }
    let row = acls::get(&mut tx, cx.account(), &row.id.into()).await?;
    let id = row.id;
    let acl = show_one(&mut tx, row, None).await?;
    let entry = Entry::new("ModifyNetworkAcl", id).detail(serde_json::json!({ "name": name })).event(
        Watched::NetworkAcl,
        id,
        Some("available"),
        Some("available"),
    );
    cx.commit(tx, entry, &acl).await?;
    Ok(acl)
}

/// Deletes an ACL that is not the default one and guards no subnet.
pub async fn delete(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<()> {
    let mut tx = cx.begin().await?;
    let row = Cx::found(acls::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let shown = NetworkAclId::from_uuid(row.id);
    if row.is_default {
        return Err(Refusal::invalid(
            "id",
            format!("cannot delete default network ACL '{shown}': it goes with its VPC"),
        ));
    }
    if let Err(error) = acls::delete(&mut tx, cx.account(), row.id).await {
        if error.constraint().is_none() {
            return Cx::found(Err(error), &id);
        }
        gon_store::rollback(tx).await?;
        let mut conn = cx.conn().await?;
        let associations = acls::associations(&mut conn, &[row.id]).await?;
        return Err(Refusal::dependency(
            format!("the network ACL '{shown}' has dependencies and cannot be deleted"),
            associations
                .into_iter()
                .take(50)
                .map(|a| NetworkAclAssociationId::from_uuid(a.id).to_string())
                .collect(),
        ));
    }
    let entry =
        Entry::new("DeleteNetworkAcl", row.id).event(Watched::NetworkAcl, row.id, Some("available"), None);
    cx.commit(tx, entry, &()).await
}

fn refusal(error: RuleError) -> Refusal {
    let code = if error.missing { "MissingParameter" } else { "InvalidParameterValue" };
    Refusal::of_field(code, error.field, error.why)
}

fn read(body: &PutNetworkAclEntry) -> Result<Rule> {
    rules::entry(EntryText {
        direction: &body.direction,
        rule_number: body.rule_number,
        action: &body.action,
        protocol: &body.protocol,
        port_range: body.port_range.as_deref(),
        icmp_type: body.icmp_type,
        icmp_code: body.icmp_code,
        cidr_block: &body.cidr_block,
    })
    .map_err(refusal)
}

fn row_of(acl: &NetworkAclRow, rule: &Rule) -> NewEntry {
    NewEntry {
        acl: acl.id,
        vpc: acl.vpc_id,
        direction: rule.direction.as_str(),
        number: rule.number,
        action: rule.verdict.as_str(),
        protocol: rule.protocol,
        ports: rule.ports,
        icmp: rule.icmp,
        cidr: rule.cidr,
    }
}

fn detail(rule: &Rule) -> serde_json::Value {
    serde_json::json!({
        "direction": rule.direction.as_str(), "rule_number": rule.number, "action": rule.verdict.as_str(),
        "protocol": protocol_name(rule.protocol), "port_range": rule.ports.map(|p| p.to_string()),
        "cidr_block": rule.cidr,
    })
}

fn no_such_entry(direction: &str, number: u16) -> Refusal {
    Refusal::not_found("InvalidNetworkAclEntry", "entry", format!("{direction} {number}"))
        .field("rule_number")
}

/// Adds an entry.
pub async fn add_entry(
    cx: Cx,
    One(id): One<Kind>,
    wait: Wait,
    Json(body): Json<PutNetworkAclEntry>,
) -> Result<NetworkAcl> {
    let until = cx.until_applied(&wait)?;
    let rule = read(&body)?;
    let most = i64::from(cx.app.config.network_acl_entries);
    let mut tx = cx.begin().await?;
    let row = Cx::found(acls::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    // The VPC's row first: of two entries that would be the last, one counts after the other is there.
    let applied = show_applied(vpcs::bump(&mut tx, row.vpc_id).await?);
    if acls::add_entry(&mut tx, cx.account(), &row_of(&row, &rule)).await? > most {
        return Err(Refusal::conflict(
            "NetworkAclEntryLimitExceeded",
            format!("a network ACL has at most {most} entries per direction"),
        ));
    }
    finish(cx, tx, row, applied, "CreateNetworkAclEntry", detail(&rule), until).await
}

/// Puts an entry in the place of another.
pub async fn replace_entry(
    cx: Cx,
    One(id): One<Kind>,
    wait: Wait,
    Json(body): Json<PutNetworkAclEntry>,
) -> Result<NetworkAcl> {
    let until = cx.until_applied(&wait)?;
    let rule = read(&body)?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(acls::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    if !acls::replace_entry(&mut tx, cx.account(), &row_of(&row, &rule)).await? {
        return Err(no_such_entry(rule.direction.as_str(), rule.number));
    }
    let applied = show_applied(vpcs::bump(&mut tx, row.vpc_id).await?);
    finish(cx, tx, row, applied, "ReplaceNetworkAclEntry", detail(&rule), until).await
}

/// Removes an entry.
pub async fn remove_entry(
    cx: Cx,
    One(id): One<Kind>,
    query: DeleteNetworkAclEntry,
    (): (),
) -> Result<NetworkAcl> {
    let until = cx.until_applied(&Wait { wait: query.wait, timeout: query.timeout })?;
    let direction = query.direction.ok_or_else(|| Refusal::missing("direction"))?;
    let direction = rules::direction(&direction).map_err(refusal)?.as_str();
    let number = query.rule_number.ok_or_else(|| Refusal::missing("rule_number"))?;
    let number = rules::number(number.parse().unwrap_or(-1)).map_err(refusal)?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(acls::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    if !acls::remove_entry(&mut tx, cx.account(), row.id, direction, number).await? {
        return Err(no_such_entry(direction, number));
    }
    let applied = show_applied(vpcs::bump(&mut tx, row.vpc_id).await?);
    let detail = serde_json::json!({ "direction": direction, "rule_number": number });
    finish(cx, tx, row, applied, "DeleteNetworkAclEntry", detail, until).await
}

/// Lets the ACL guard a subnet, in the place of the one that does. The answer is the ACL, with its new association.
pub async fn associate(
    cx: Cx,
    One(id): One<Kind>,
    wait: Wait,
    Json(body): Json<ReplaceNetworkAclAssociation>,
) -> Result<NetworkAcl> {
    let until = cx.until_applied(&wait)?;
    let replaced =
        body.association_id.as_deref().map(|text| parse::id::<AssociationKind>("association_id", text));
    let replaced = replaced.transpose()?;
    let subnet_id =
        body.subnet_id.as_deref().map(|text| parse::id::<SubnetKind>("subnet_id", text)).transpose()?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(acls::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let at = |refusal: Refusal| refusal.field("association_id");
    let replaced_row = match &replaced {
        Some(id) => {
            Some(Cx::found(acls::association(&mut tx, cx.account(), &Ref::from(id)).await, id).map_err(at)?)
        }
        None => None,
    };
    let subnet = match (&subnet_id, &replaced_row) {
        (Some(id), _) => Cx::found(subnets::get(&mut tx, cx.account(), &Ref::from(id)).await, id)
            .map_err(|refusal| refusal.field("subnet_id"))?,
        (None, Some(association)) => {
            subnets::get(&mut tx, cx.account(), &association.subnet_id.into()).await?
        }
        (None, None) => return Err(Refusal::missing("subnet_id")),
    };
    same_vpc::<SubnetKind>(
        subnet.vpc_id,
        row.vpc_id,
        if subnet_id.is_some() { "subnet_id" } else { "association_id" },
    )?;
    let new = Uuid::now_v7();
    let wanted = replaced_row.map(|r| r.id);
    if !acls::associate(&mut tx, cx.account(), new, &row, subnet.id, wanted).await? {
        return match &replaced {
            Some(id) => Cx::found(Err(StoreError::NotFound), id).map_err(at),
            None => Err(Refusal::internal("a subnet without a network ACL")),
        };
    }
    let applied = show_applied(vpcs::bump(&mut tx, row.vpc_id).await?);
    let detail = serde_json::json!({
        "subnet_id": SubnetId::from_uuid(subnet.id).to_string(),
        "association_id": NetworkAclAssociationId::from_uuid(new).to_string(),
    });
    finish(cx, tx, row, applied, "ReplaceNetworkAclAssociation", detail, until).await
}

/// What every change of an ACL's effect ends with.
async fn finish(
    cx: Cx,
    mut tx: gon_store::Tx,
    row: NetworkAclRow,
    applied: Applied,
    action: &'static str,
    detail: serde_json::Value,
    until: Option<Until>,
) -> Result<NetworkAcl> {
    let (id, vpc) = (row.id, row.vpc_id);
    let mut acl = show_one(&mut tx, row, Some(applied)).await?;
    let entry = Entry::new(action, id).detail(detail).vpc(vpc).event(
        Watched::NetworkAcl,
        id,
        Some("available"),
        Some("available"),
    );
    cx.commit(tx, entry, &acl).await?;
    acl.applied = Some(cx.settle(vpc, applied, until).await?);
    Ok(acl)
}
