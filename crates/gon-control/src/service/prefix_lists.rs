//! Managed prefix lists: what is changed of one changes every rule and every route that names it, in every VPC.

use std::collections::HashMap;

use gon_api::Applied;
use gon_api::page::{NoQuery, Page, Wait};
use gon_api::prefix_lists::{
    CreatePrefixList, ListPrefixLists, PrefixList, PrefixListEntry, UpdatePrefixList,
};
use gon_store::events::Watched;
use gon_store::journal::Entry;
use gon_store::prefix_lists::{self as lists, PrefixListRow};
use gon_store::reference::Ref;
use gon_store::{Conn, Tx, vpcs};
use gon_types::id::{PrefixListId, RouteTableId, SecurityGroupId};
use gon_types::net::parse_cidr;
use ipnet::Ipv4Net;
use uuid::Uuid;

use super::cx::{Until, show_applied};
use super::error::{Refusal, Result};
use super::security_groups::MOST_RULES;
use super::{Cx, parse};
use crate::api::{Json, One};

type Kind = gon_types::id::PrefixList;

/// Entries of a list: a rule or a route that names it counts for as many.
const MOST_ENTRIES: i64 = 60;

async fn show(conn: &mut Conn, rows: Vec<PrefixListRow>) -> Result<Vec<PrefixList>> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let mut entries: HashMap<Uuid, Vec<PrefixListEntry>> = HashMap::new();
    for row in lists::entries(conn, &ids).await? {
        let entry = PrefixListEntry { cidr: row.cidr.0.to_string(), description: row.description };
        entries.entry(row.prefix_list_id).or_default().push(entry);
    }
    let shown = |row: PrefixListRow| PrefixList {
        id: PrefixListId::from_uuid(row.id).to_string(),
        uuid: row.id,
        name: row.name,
        max_entries: row.max_entries,
        version: row.version,
        entries: entries.remove(&row.id).unwrap_or_default(),
        applied: None,
        created_at: row.created_at,
        updated_at: row.updated_at,
    };
    Ok(rows.into_iter().map(shown).collect())
}

async fn show_one(conn: &mut Conn, row: PrefixListRow) -> Result<PrefixList> {
    let shown = show(conn, vec![row]).await?.pop();
    shown.ok_or_else(|| Refusal::internal("a prefix list was lost on its way"))
}

fn room(max_entries: i64) -> Result<i32> {
    i32::try_from(max_entries)
        .ok()
        .filter(|n| (1..=MOST_ENTRIES).contains(&i64::from(*n)))
        .ok_or_else(|| Refusal::invalid("max_entries", format!("must be 1 to {MOST_ENTRIES}")))
}

fn block(field: String, text: &str) -> Result<Ipv4Net> {
    let net = parse_cidr(text)
        .map_err(|_| Refusal::invalid(field, "must be an IPv4 block such as 198.51.100.0/24"))?;
    Ok(net.trunc())
}

/// Entries as they are kept, each block once.
fn read(field: &'static str, entries: &[PrefixListEntry]) -> Result<Vec<(Ipv4Net, String)>> {
    let mut read: Vec<(Ipv4Net, String)> = Vec::with_capacity(entries.len());
    for (at, entry) in entries.iter().enumerate() {
        let net = block(format!("{field}[{at}].cidr"), &entry.cidr)?;
        parse::description(field, &entry.description)?;
        if read.iter().any(|(other, _)| *other == net) {
            return Err(Refusal::of_field(
                "InvalidPrefixListModification",
                format!("{field}[{at}].cidr"),
                format!("{net} is there twice"),
            ));
        }
        read.push((net, entry.description.clone()));
    }
    Ok(read)
}

/// Creates a list. Nothing names it yet.
pub async fn create(cx: Cx, (): (), wait: Wait, Json(body): Json<CreatePrefixList>) -> Result<PrefixList> {
    cx.until_applied(&wait)?;
    let name = parse::name("name", &body.name)?;
    let max_entries = room(body.max_entries)?;
    let entries = read("entries", body.entries.as_deref().unwrap_or_default())?;
    let id = PrefixListId::new();
    let mut tx = cx.begin().await?;
    lists::create(&mut tx, cx.account(), id.uuid(), &name, max_entries).await?;
    lists::add(&mut tx, cx.account(), id.uuid(), &entries).await?;
    let row = lists::get(&mut tx, cx.account(), &id.into()).await?;
    let mut list = show_one(&mut tx, row).await?;
    list.applied = Some(Applied { generation: list.version, nodes: 0, acked: 0 });
    let entry = Entry::new("CreateManagedPrefixList", id.uuid())
        .detail(serde_json::json!({ "name": name, "max_entries": max_entries, "entries": list.entries }))
        .event(Watched::PrefixList, id.uuid(), None, Some("available"));
    cx.commit(tx, entry, &list).await?;
    Ok(list)
}

/// Lists prefix lists.
pub async fn list(cx: Cx, (): (), query: ListPrefixLists, (): ()) -> Result<Page<PrefixList>> {
    let window = cx.window("prefix-lists", query.window())?;
    let mut conn = cx.conn().await?;
    let rows = lists::list(&mut conn, cx.account(), query.name.as_deref(), window).await?;
    let Page { items, next_cursor } = cx.page("prefix-lists", window, rows, |r| r.id, |r| r);
    Ok(Page { items: show(&mut conn, items).await?, next_cursor })
}

/// Describes a list.
pub async fn get(cx: Cx, One(id): One<Kind>, wait: Wait, (): ()) -> Result<PrefixList> {
    let until = cx.until_applied(&wait)?;
    let mut conn = cx.conn().await?;
    let row = Cx::found(lists::get(&mut conn, cx.account(), &Ref::from(&id)).await, &id)?;
    let mut all = vec![];
    for vpc in lists::vpcs_of(&mut conn, row.id).await? {
        all.push((vpc, show_applied(vpcs::applied(&mut conn, vpc).await?)));
    }
    let mut list = show_one(&mut conn, row).await?;
    drop(conn);
    list.applied = Some(settle_all(&cx, list.version, all, until).await?);
    Ok(list)
}

/// Changes a list, all at once, and with it every rule and every route that names it.
pub async fn update(
    cx: Cx,
    One(id): One<Kind>,
    wait: Wait,
    Json(body): Json<UpdatePrefixList>,
) -> Result<PrefixList> {
    let until = cx.until_applied(&wait)?;
    let name = body.name.as_deref().map(|name| parse::name("name", name)).transpose()?;
    let max_entries = body.max_entries.map(room).transpose()?;
    let added = read("add_entries", body.add_entries.as_deref().unwrap_or_default())?;
    let mut removed = vec![];
    for (at, text) in body.remove_entries.iter().flatten().enumerate() {
        let net = block(format!("remove_entries[{at}]"), text)?;
        if removed.contains(&net) || added.iter().any(|(other, _)| *other == net) {
            return Err(Refusal::of_field(
                "InvalidPrefixListModification",
                format!("remove_entries[{at}]"),
                format!("{net} is named twice"),
            ));
        }
        removed.push(net);
    }
    let changed = !(added.is_empty() && removed.is_empty());
    parse::some_change(changed || name.is_some() || max_entries.is_some())?;
    let mut tx = cx.begin().await?;
    let row = Cx::found(lists::lock(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    if body.current_version.is_some_and(|version| version != row.version) {
        return Err(Refusal::conflict(
            "PrefixListVersionMismatch",
            format!("the prefix list is at version {}", row.version),
        )
        .field("current_version"));
    }
    if cx.unless_changed_since.is_some_and(|since| since != row.updated_at) {
        return Err(Refusal::changed());
    }
    if let Some(max_entries) = max_entries
        && lists::heaviest_rule_set(&mut tx, row.id, max_entries).await? > MOST_RULES
    {
        return Err(Refusal::conflict(
            "RulesPerSecurityGroupLimitExceeded",
            format!("a security group whose rules name it would have more than {MOST_RULES} rules"),
        )
        .field("max_entries"));
    }
    // All of them at once and in their order, before PostgreSQL holds some of them to count routes.
    let named_in = if changed || max_entries.is_some() {
        lists::hold_vpcs_of(&mut tx, row.id).await?
    } else {
        lists::vpcs_of(&mut tx, row.id).await?
    };
    let gone = lists::remove(&mut tx, row.id, &removed).await?;
    if let Some(at) = removed.iter().position(|net| !gone.contains(net)) {
        return Err(Refusal::of_field(
            "InvalidPrefixListModification",
            format!("remove_entries[{at}]"),
            format!("{} is not in the prefix list", removed[at]),
        ));
    }
    // Of a group's rules that was asked above; of a table's routes PostgreSQL knows best.
    let modified = lists::modify(&mut tx, row.id, name.as_deref(), max_entries, changed).await;
    modified.map_err(|error| match error.constraint() {
        Some("routes_limit") => Refusal::from(error).field("max_entries"),
        _ => error.into(),
    })?;
    lists::add(&mut tx, cx.account(), row.id, &added).await?;
    let detail = serde_json::to_value(&body).unwrap_or_default();
    finish(cx, tx, row.id, changed, (named_in, detail), until).await
}

/// What a change ends with: a new generation of every VPC whose rules or routes name the list.
async fn finish(
    cx: Cx,
    mut tx: Tx,
    id: Uuid,
    changed: bool,
    (named_in, detail): (Vec<Uuid>, serde_json::Value),
    until: Option<Until>,
) -> Result<PrefixList> {
    let mut entry = Entry::new("ModifyManagedPrefixList", id).detail(detail).event(
        Watched::PrefixList,
        id,
        Some("available"),
        Some("available"),
    );
    let mut all = vec![];
    for vpc in named_in {
        let applied =
            if changed { vpcs::bump(&mut tx, vpc).await? } else { vpcs::applied(&mut tx, vpc).await? };
        all.push((vpc, show_applied(applied)));
        entry = entry.vpc(vpc);
    }
    let row = lists::get(&mut tx, cx.account(), &id.into()).await?;
    let mut list = show_one(&mut tx, row).await?;
    list.applied = Some(sum(list.version, &all));
    cx.commit(tx, entry, &list).await?;
    list.applied = Some(settle_all(&cx, list.version, all, until).await?);
    Ok(list)
}

/// How far it is in all VPCs together.
fn sum(version: i64, all: &[(Uuid, Applied)]) -> Applied {
    let total = |count: fn(&Applied) -> i64| all.iter().map(|(_, applied)| count(applied)).sum();
    Applied { generation: version, nodes: total(|a| a.nodes), acked: total(|a| a.acked) }
}

async fn settle_all(
    cx: &Cx,
    version: i64,
    mut all: Vec<(Uuid, Applied)>,
    until: Option<Until>,
) -> Result<Applied> {
    for (vpc, applied) in &mut all {
        *applied = cx.settle(*vpc, *applied, until).await?;
    }
    Ok(sum(version, &all))
}

/// Deletes a list that no rule and no route names.
pub async fn delete(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<()> {
    let mut tx = cx.begin().await?;
    let row = Cx::found(lists::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    if let Err(error) = lists::delete(&mut tx, cx.account(), row.id).await {
        if error.constraint().is_none() {
            return Cx::found(Err(error), &id);
        }
        gon_store::rollback(tx).await?;
        let mut conn = cx.conn().await?;
        let groups = lists::groups_of(&mut conn, row.id).await?;
        let tables = lists::tables_of(&mut conn, row.id).await?;
        let groups = groups.into_iter().map(|id| SecurityGroupId::from_uuid(id).to_string());
        let tables = tables.into_iter().map(|id| RouteTableId::from_uuid(id).to_string());
        return Err(Refusal::dependency(
            format!(
                "the prefix list '{}' is named by rules or routes and cannot be deleted",
                PrefixListId::from_uuid(row.id)
            ),
            groups.chain(tables).collect(),
        ));
    }
    let entry = Entry::new("DeleteManagedPrefixList", row.id).event(
        Watched::PrefixList,
        row.id,
        Some("available"),
        None,
    );
    cx.commit(tx, entry, &()).await
}
