//! Security groups and their rules.

use std::collections::HashMap;

use gon_api::Applied;
use gon_api::page::{NoQuery, Page, Wait};
use gon_api::security_groups::{
    CreateSecurityGroup, CreateSecurityGroupRule, ListSecurityGroups, SecurityGroup, SecurityGroupRule,
    UpdateSecurityGroup,
};
use gon_core::security_group::{Peer, RuleText, check_name, rule};
use gon_store::events::Watched;
use gon_store::journal::Entry;
use gon_store::reference::Ref;
use gon_store::security_groups::{self as groups, Filter, NewRule, RuleRow, SecurityGroupRow};
use gon_store::{Conn, prefix_lists, vpcs};
use gon_types::PortRange;
use gon_types::id::{PrefixListId, SecurityGroupId, SecurityGroupRuleId, VpcId};
use uuid::Uuid;

use super::cx::{Until, show_applied};
use super::error::{Refusal, Result};
use super::subnets::in_vpc;
use super::vpcs::{same_vpc, shown_blocker};
use super::{Cx, parse};
use crate::api::{Json, One, Two};

type Kind = gon_types::id::SecurityGroup;
type RuleKind = gon_types::id::SecurityGroupRule;
type VpcKind = gon_types::id::Vpc;

/// EC2's default quota of rules per group and direction.
pub(super) const MOST_RULES: i64 = 60;

/// The other side of a rule: one of the three.
fn show_peer(cidr: Option<impl ToString>, group: Option<Uuid>, list: Option<Uuid>) -> String {
    cidr.map(|cidr| cidr.to_string())
        .or_else(|| group.map(|id| SecurityGroupId::from_uuid(id).to_string()))
        .or_else(|| list.map(|id| PrefixListId::from_uuid(id).to_string()))
        .unwrap_or_default()
}

fn show_rule(row: RuleRow) -> SecurityGroupRule {
    let port = |port: Option<i32>| port.and_then(|p| u16::try_from(p).ok());
    let range = port(row.first_port).zip(port(row.last_port)).and_then(|(a, b)| PortRange::new(a, b));
    SecurityGroupRule {
        id: SecurityGroupRuleId::from_uuid(row.id).to_string(),
        security_group_id: SecurityGroupId::from_uuid(row.security_group_id).to_string(),
        direction: row.direction,
        protocol: row.protocol,
        port_range: range.unwrap_or(PortRange::ALL).to_string(),
        icmp_type: row.icmp_type,
        icmp_code: row.icmp_code,
        source_destination: show_peer(row.peer_cidr, row.peer_group_id, row.peer_prefix_list_id),
        action: "allow".to_owned(),
        description: row.description,
        applied: None,
        generation: None,
        created_at: row.created_at,
    }
}

async fn show(conn: &mut Conn, rows: Vec<SecurityGroupRow>) -> Result<Vec<SecurityGroup>> {
    let ids: Vec<Uuid> = rows.iter().map(|r| r.id).collect();
    let mut rules: HashMap<Uuid, Vec<SecurityGroupRule>> = HashMap::new();
    for row in groups::rules(conn, &ids).await? {
        rules.entry(row.security_group_id).or_default().push(show_rule(row));
    }
    Ok(rows
        .into_iter()
        .map(|row| SecurityGroup {
            id: SecurityGroupId::from_uuid(row.id).to_string(),
            uuid: row.id,
            vpc_id: VpcId::from_uuid(row.vpc_id).to_string(),
            name: row.name,
            description: row.description,
            is_default: row.is_default,
            rules: rules.remove(&row.id).unwrap_or_default(),
            applied: None,
            generation: None,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
        .collect())
}

async fn show_one(conn: &mut Conn, row: SecurityGroupRow, applied: Option<Applied>) -> Result<SecurityGroup> {
    let mut group =
        show(conn, vec![row]).await?.pop().ok_or_else(|| Refusal::internal("a group was lost on its way"))?;
    group.generation = applied.map(|a| a.generation);
    group.applied = applied;
    Ok(group)
}

/// Creates a group. Nobody is in it yet, so no packet is allowed or dropped otherwise than before.
pub async fn create(
    cx: Cx,
    (): (),
    _: NoQuery,
    Json(body): Json<CreateSecurityGroup>,
) -> Result<SecurityGroup> {
    let vpc_id = parse::id::<VpcKind>("vpc_id", &body.vpc_id)?;
    check_name(&body.name).map_err(|error| Refusal::invalid("name", error.to_string()))?;
    let description = body.description.unwrap_or_default();
    parse::description("description", &description)?;
    let id = SecurityGroupId::new();
    let mut tx = cx.begin().await?;
    let vpc = Cx::found(vpcs::head(&mut tx, cx.account(), &Ref::from(&vpc_id)).await, &vpc_id)
        .map_err(|refusal| refusal.field("vpc_id"))?;
    let ids = (id.uuid(), Uuid::now_v7());
    groups::create(&mut tx, cx.account(), ids, vpc.id, &body.name, &description).await?;
    let row = groups::get(&mut tx, cx.account(), &id.into()).await?;
    let applied = show_applied(vpcs::applied(&mut tx, vpc.id).await?);
    let group = show_one(&mut tx, row, Some(applied)).await?;
    let entry = Entry::new("CreateSecurityGroup", id.uuid())
        .detail(serde_json::json!({ "name": body.name, "vpc_id": group.vpc_id }))
        .event(Watched::SecurityGroup, id.uuid(), None, Some("available"));
    cx.commit(tx, entry, &group).await?;
    Ok(group)
}

/// Lists groups.
pub async fn list(cx: Cx, (): (), query: ListSecurityGroups, (): ()) -> Result<Page<SecurityGroup>> {
    let window = cx.window("security-groups", query.window())?;
    let mut conn = cx.conn().await?;
    let mut filter = Filter { vpc: None, name: query.name };
    if let Some(text) = &query.vpc_id {
        match in_vpc(&cx, &mut conn, text).await? {
            Some(vpc) => filter.vpc = Some(vpc),
            None => return Ok(Page { items: vec![], next_cursor: None }),
        }
    }
    let rows = groups::list(&mut conn, cx.account(), &filter, window).await?;
    let Page { items, next_cursor } = cx.page("security-groups", window, rows, |r| r.id, |r| r);
    Ok(Page { items: show(&mut conn, items).await?, next_cursor })
}

/// Describes a group.
pub async fn get(cx: Cx, One(id): One<Kind>, wait: Wait, (): ()) -> Result<SecurityGroup> {
    let until = cx.until_applied(&wait)?;
    let mut conn = cx.conn().await?;
    let row = Cx::found(groups::get(&mut conn, cx.account(), &Ref::from(&id)).await, &id)?;
    let vpc = row.vpc_id;
    let applied = show_applied(vpcs::applied(&mut conn, vpc).await?);
    let mut group = show_one(&mut conn, row, None).await?;
    drop(conn);
    let applied = cx.settle(vpc, applied, until).await?;
    group.generation = Some(applied.generation);
    group.applied = Some(applied);
    Ok(group)
}

/// Changes name and description. The metadata service tells guests the names of their groups, so a new name is a change
/// that nodes must hear of.
pub async fn update(
    cx: Cx,
    One(id): One<Kind>,
    wait: Wait,
    Json(body): Json<UpdateSecurityGroup>,
) -> Result<SecurityGroup> {
    let until = cx.until_applied(&wait)?;
    parse::some_change(body.name.is_some() || body.description.is_some())?;
    if let Some(name) = &body.name {
        check_name(name).map_err(|error| Refusal::invalid("name", error.to_string()))?;
    }
    if let Some(description) = &body.description {
        parse::description("description", description)?;
    }
    let mut tx = cx.begin().await?;
    let row = Cx::found(groups::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    if row.is_default && body.name.as_ref().is_some_and(|name| *name != row.name) {
        return Err(Refusal::invalid("name", "the default security group keeps its name"));
    }
    let changed = groups::modify(
        &mut tx,
        cx.account(),
        row.id,
        body.name.as_deref(),
        body.description.as_deref(),
        cx.unless_changed_since,
    );
    if !changed.await? {
        return Err(Refusal::changed());
    }
    let detail = serde_json::json!({ "name": body.name, "description": body.description });
    let (id, vpc) = (row.id, row.vpc_id);
    let applied = show_applied(vpcs::bump(&mut tx, vpc).await?);
    let row = groups::get(&mut tx, cx.account(), &id.into()).await?;
    let mut group = show_one(&mut tx, row, Some(applied)).await?;
    cx.commit(tx, entry("ModifySecurityGroup", id, vpc).detail(detail), &group).await?;
    group.applied = Some(cx.settle(vpc, applied, until).await?);
    Ok(group)
}

fn entry(action: &'static str, group: Uuid, vpc: Uuid) -> Entry {
    Entry::new(action, group).vpc(vpc).event(
        Watched::SecurityGroup,
        group,
        Some("available"),
        Some("available"),
    )
}

/// Deletes a group that is not the default one, that nobody is in and no other group's rules name.
pub async fn delete(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<()> {
    let mut tx = cx.begin().await?;
    let row = Cx::found(groups::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let shown = SecurityGroupId::from_uuid(row.id);
    if row.is_default {
        return Err(Refusal::conflict(
            "CannotDelete",
            format!("'{shown}' is the default security group of its VPC"),
        ));
    }
    if let Err(error) = groups::delete(&mut tx, cx.account(), row.id).await {
        if error.constraint().is_none() {
            return Cx::found(Err(error), &id);
        }
        gon_store::rollback(tx).await?;
        let mut conn = cx.conn().await?;
        let blockers = groups::blockers(&mut conn, row.id).await?;
        return Err(Refusal::dependency(
            format!("the security group '{shown}' is in use"),
            blockers.into_iter().map(|(kind, id)| shown_blocker(&kind, id)).collect(),
        ));
    }
    let entry = Entry::new("DeleteSecurityGroup", row.id).event(
        Watched::SecurityGroup,
        row.id,
        Some("available"),
        None,
    );
    cx.commit(tx, entry, &()).await
}

/// Adds a rule.
pub async fn add_rule(
    cx: Cx,
    One(id): One<Kind>,
    wait: Wait,
    Json(body): Json<CreateSecurityGroupRule>,
) -> Result<SecurityGroupRule> {
    let until = cx.until_applied(&wait)?;
    let wanted = rule(RuleText {
        direction: &body.direction,
        protocol: &body.protocol,
        port_range: body.port_range.as_deref(),
        icmp_type: body.icmp_type,
        icmp_code: body.icmp_code,
        source_destination: &body.source_destination,
    })
    .map_err(|error| {
        let code = if error.missing { "MissingParameter" } else { "InvalidParameterValue" };
        Refusal::of_field(code, error.field, error.why)
    })?;
    let description = body.description.unwrap_or_default();
    parse::description("description", &description)?;
    let mut tx = cx.begin().await?;
    let group = Cx::found(groups::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let (peer_cidr, peer_group, peer_prefix_list) = match &wanted.peer {
        Peer::Cidr(cidr) => (Some(*cidr), None, None),
        // The list before the VPC, as whoever changes it holds them.
        Peer::PrefixList(list) => {
            let row = Cx::found(prefix_lists::hold(&mut tx, cx.account(), &Ref::from(list)).await, list)
                .map_err(|refusal| refusal.field("source_destination"))?;
            (None, None, Some(row.id))
        }
        Peer::Group(peer) => {
            let row = Cx::found(groups::get(&mut tx, cx.account(), &Ref::from(peer)).await, peer)
                .map_err(|refusal| refusal.field("source_destination"))?;
            same_vpc::<Kind>(row.vpc_id, group.vpc_id, "source_destination")?;
            (None, Some(row.id), None)
        }
    };
    let new = NewRule {
        id: Uuid::now_v7(),
        group: group.id,
        vpc: group.vpc_id,
        direction: wanted.direction.as_str(),
        protocol: wanted.protocol,
        ports: wanted.ports,
        icmp: wanted.icmp.map(|i| (i.icmp_type, i.code)),
        peer_cidr,
        peer_group,
        peer_prefix_list,
        description: &description,
    };
    // The VPC's row first: of two rules that would be the sixtieth, one counts after the other is there.
    let applied = show_applied(vpcs::bump_rules(&mut tx, group.vpc_id).await?);
    let (count, created_at) = groups::add_rule(&mut tx, cx.account(), &new).await?;
    if count > MOST_RULES {
        return Err(Refusal::conflict(
            "RulesPerSecurityGroupLimitExceeded",
            format!("a security group has at most {MOST_RULES} rules per direction"),
        ));
    }
    let shown = SecurityGroupRule {
        id: SecurityGroupRuleId::from_uuid(new.id).to_string(),
        security_group_id: SecurityGroupId::from_uuid(group.id).to_string(),
        direction: new.direction.to_owned(),
        protocol: wanted.protocol.to_string(),
        port_range: wanted.ports.unwrap_or(PortRange::ALL).to_string(),
        icmp_type: new.icmp.map(|i| i16::from(i.0)),
        icmp_code: new.icmp.and_then(|i| i.1).map(i16::from),
        source_destination: show_peer(peer_cidr, peer_group, peer_prefix_list),
        action: "allow".to_owned(),
        description,
        applied: Some(applied),
        generation: Some(applied.generation),
        created_at,
    };
    let detail = serde_json::json!({
        "rule_id": shown.id, "direction": shown.direction, "protocol": shown.protocol,
        "port_range": shown.port_range, "source_destination": shown.source_destination,
    });
    let vpc = group.vpc_id;
    cx.commit(tx, entry("AuthorizeSecurityGroup", group.id, vpc).detail(detail), &shown).await?;
    settled(&cx, vpc, shown, until).await
}

async fn settled(
    cx: &Cx,
    vpc: Uuid,
    mut rule: SecurityGroupRule,
    until: Option<Until>,
) -> Result<SecurityGroupRule> {
    if let Some(applied) = rule.applied {
        rule.applied = Some(cx.settle(vpc, applied, until).await?);
    }
    Ok(rule)
}

/// Removes a rule; connections it had let through are cut.
pub async fn remove_rule(
    cx: Cx,
    Two(id, rule_id): Two<Kind, RuleKind>,
    wait: Wait,
    (): (),
) -> Result<SecurityGroup> {
    let until = cx.until_applied(&wait)?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(groups::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let Some(rule) = groups::remove_rule(&mut tx, cx.account(), row.id, &Ref::from(&rule_id)).await? else {
        return Err(
            Refusal::not_found("InvalidPermission", "rule", "of this security group").field("rule_id")
        );
    };
    let (group_id, vpc) = (row.id, row.vpc_id);
    let applied = show_applied(vpcs::bump_rules(&mut tx, vpc).await?);
    let mut group = show_one(&mut tx, row, Some(applied)).await?;
    let detail = serde_json::json!({ "rule_id": SecurityGroupRuleId::from_uuid(rule).to_string() });
    cx.commit(tx, entry("RevokeSecurityGroup", group_id, vpc).detail(detail), &group).await?;
    group.applied = Some(cx.settle(vpc, applied, until).await?);
    Ok(group)
}
