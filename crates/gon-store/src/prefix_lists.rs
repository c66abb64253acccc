//! Managed prefix lists and their entries.
//!
//! Order of locks: a list before the VPCs whose rules or routes name it.

use ipnet::{IpNet, Ipv4Net};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::reference::Ref;
use crate::v4::Block;
use crate::{Conn, Result, StoreError, Window};

/// A prefix list.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct PrefixListRow {
    /// The list.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// How many entries it may have.
    pub max_entries: i32,
    /// Counts every change of its entries.
    pub version: i64,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

/// A block of a list.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct EntryRow {
    /// The list.
    pub prefix_list_id: Uuid,
    /// The block.
    #[sqlx(try_from = "IpNet")]
    pub cidr: Block,
    /// For people.
    pub description: String,
}

macro_rules! view {
    () => {
        "select l.id, l.name, l.max_entries, l.version, l.created_at, l.updated_at from prefix_lists l "
    };
}

/// Creates a list without entries.
pub async fn create(tx: &mut Conn, account: Uuid, id: Uuid, name: &str, max_entries: i32) -> Result<()> {
    sqlx::query("insert into prefix_lists (id, account_id, name, max_entries) values ($1, $2, $3, $4)")
        .bind(id)
        .bind(account)
        .bind(name)
        .bind(max_entries)
        .execute(tx)
        .await?;
    Ok(())
}

/// One list of the account.
pub async fn get(conn: &mut Conn, account: Uuid, id: &Ref) -> Result<PrefixListRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where l.id = coalesce($2, (select id from prefix_lists where short_id = $3)) and l.account_id = $1
           and l.deleted_at is null"
    ))
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(conn)
    .await?)
}

/// Like [`get`], and nobody changes it, or makes a rule or a route that names it, until the transaction ends.
pub async fn lock(tx: &mut Conn, account: Uuid, id: &Ref) -> Result<PrefixListRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where l.id = coalesce($2, (select id from prefix_lists where short_id = $3)) and l.account_id = $1
           and l.deleted_at is null for update"
    ))
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(tx)
    .await?)
}

/// Like [`get`], for a rule or a route that is going to name it: nobody who holds it by [`lock`] overlooks that.
pub async fn hold(tx: &mut Conn, account: Uuid, id: &Ref) -> Result<PrefixListRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where l.id = coalesce($2, (select id from prefix_lists where short_id = $3)) and l.account_id = $1
           and l.deleted_at is null for key share"
    ))
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(tx)
    .await?)
}

/// Lists of the account.
pub async fn list(
    conn: &mut Conn,
    account: Uuid,
    name: Option<&str>,
    window: Window,
) -> Result<Vec<PrefixListRow>> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where l.account_id = $1 and l.deleted_at is null and ($2::uuid is null or l.id < $2)
           and ($4::text is null or l.name = $4)
         order by l.id desc limit $3"
    ))
    .persistent(false)
    .bind(account)
    .bind(window.before)
    .bind(window.limit)
    .bind(name)
    .fetch_all(conn)
    .await?)
}

/// The entries of these lists, by block.
pub async fn entries(conn: &mut Conn, lists: &[Uuid]) -> Result<Vec<EntryRow>> {
    Ok(sqlx::query_as(
        "select prefix_list_id, cidr, description from prefix_list_entries
         where prefix_list_id = any ($1) order by prefix_list_id, cidr",
    )
    .bind(lists)
    .fetch_all(conn)
    .await?)
}

/// Adds entries, or gives those that are there their description. `prefix_lists_room` refuses too many.
pub async fn add(tx: &mut Conn, account: Uuid, list: Uuid, entries: &[(Ipv4Net, String)]) -> Result<()> {
    let blocks: Vec<IpNet> = entries.iter().map(|(block, _)| IpNet::V4(*block)).collect();
    let texts: Vec<&str> = entries.iter().map(|(_, text)| text.as_str()).collect();
    sqlx::query(
        "insert into prefix_list_entries (prefix_list_id, account_id, cidr, description)
         select $2, $1, e.cidr, e.description from unnest($3::cidr[], $4::text[]) as e (cidr, description)
         on conflict (prefix_list_id, cidr) do update set description = excluded.description",
    )
    .bind(account)
    .bind(list)
    .bind(blocks)
    .bind(texts)
    .execute(tx)
    .await?;
    Ok(())
}

/// Removes entries; returns those that were there.
pub async fn remove(tx: &mut Conn, list: Uuid, blocks: &[Ipv4Net]) -> Result<Vec<Ipv4Net>> {
    let blocks: Vec<IpNet> = blocks.iter().map(|block| IpNet::V4(*block)).collect();
    let gone: Vec<IpNet> = sqlx::query_scalar(
        "delete from prefix_list_entries where prefix_list_id = $1 and cidr = any ($2::cidr[]) returning cidr",
    )
    .bind(list)
    .bind(blocks)
    .fetch_all(tx)
    .await?;
    let word = |net| match net {
        IpNet::V4(net) => Some(net),
        IpNet::V6(_) => None,
    };
    Ok(gone.into_iter().filter_map(word).collect())
}

/// Changes a list that the caller has locked; `changed` says whether its entries did. `routes_limit` refuses room that a
/// route table that names it does not have.
pub async fn modify(
    tx: &mut Conn,
    list: Uuid,
    name: Option<&str>,
    max_entries: Option<i32>,
    changed: bool,
) -> Result<()> {
    sqlx::query(
        "update prefix_lists set name = coalesce($2, name), max_entries = coalesce($3, max_entries),
           version = version + $4::int, updated_at = greatest(now(), updated_at + interval '1 microsecond')
         where id = $1",
    )
    .bind(list)
    .bind(name)
    .bind(max_entries)
    .bind(i32::from(changed))
    .execute(tx)
    .await?;
    Ok(())
}

macro_rules! vpcs_of {
    () => {
        "select v.id from vpcs v where v.deleted_at is null and v.id in (
           select vpc_id from security_group_rules where peer_prefix_list_id = $1
           union all select vpc_id from routes where destination_prefix_list_id = $1)
         order by v.id"
    };
}

/// The VPCs whose rules or routes name a list.
pub async fn vpcs_of(conn: &mut Conn, list: Uuid) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar(vpcs_of!()).bind(list).fetch_all(conn).await?)
}

/// Like [`vpcs_of`], and nobody deletes or changes one of them until the transaction ends. In the order in which VPCs are
/// held.
pub async fn hold_vpcs_of(tx: &mut Conn, list: Uuid) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar(concat!(vpcs_of!(), " for no key update of v")).bind(list).fetch_all(tx).await?)
}

/// The groups whose rules name a list, at most 50.
pub async fn groups_of(conn: &mut Conn, list: Uuid) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar(
        "select distinct security_group_id from security_group_rules where peer_prefix_list_id = $1 limit 50",
    )
    .bind(list)
    .fetch_all(conn)
    .await?)
}

/// The route tables that name a list, at most 50.
pub async fn tables_of(conn: &mut Conn, list: Uuid) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar(
        "select route_table_id from routes where destination_prefix_list_id = $1 order by route_table_id limit 50",
    )
    .bind(list)
    .fetch_all(conn)
    .await?)
}

/// The most rules any group has in one direction, as they would count if the list had room for so many entries.
pub async fn heaviest_rule_set(conn: &mut Conn, list: Uuid, max_entries: i32) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "select coalesce(max(n), 0) from (
           select sum(case when r.peer_prefix_list_id = $1 then $2 else coalesce(l.max_entries, 1) end)::bigint as n
           from security_group_rules r left join prefix_lists l on l.id = r.peer_prefix_list_id
           where r.security_group_id in (select security_group_id from security_group_rules where peer_prefix_list_id = $1)
           group by r.security_group_id, r.direction) counted",
    )
    .bind(list)
    .bind(max_entries)
    .fetch_one(conn)
    .await?)
}

/// Deletes a list with its entries. Rules and routes that name it refuse (`security_group_rules_peer_list_fkey`,
/// `routes_prefix_list_fkey`).
pub async fn delete(tx: &mut Conn, account: Uuid, id: Uuid) -> Result<()> {
    let done = sqlx::query(
        "with gone as (delete from prefix_list_entries where prefix_list_id = $2 and account_id = $1)
         update prefix_lists set deleted_at = now() where id = $2 and account_id = $1 and deleted_at is null",
    )
    .bind(account)
    .bind(id)
    .execute(tx)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::NotFound) }
}
