//! Network ACLs, their entries and their associations. A VPC's default ACL and a subnet's association come and go with
//! them, by triggers. The last word of every list, EC2's `*`, is implied and not stored.

use gon_types::{IcmpMatch, PortRange};
use ipnet::{IpNet, Ipv4Net};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::reference::Ref;
use crate::v4::Block;
use crate::{Conn, Result, StoreError, Window};

/// An ACL.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct NetworkAclRow {
    /// The ACL.
    pub id: Uuid,
    /// Its VPC.
    pub vpc_id: Uuid,
    /// Its name.
    pub name: String,
    /// Whether it came with the VPC.
    pub is_default: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When its name last changed.
    pub updated_at: OffsetDateTime,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct EntryRow {
    /// Its ACL.
    pub network_acl_id: Uuid,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// 1 to 32766.
    pub rule_number: i32,
    /// `allow` or `deny`.
    pub action: String,
    /// IP protocol number; `None` is every protocol.
    pub protocol: Option<i16>,
    /// First port, for TCP and UDP.
    pub first_port: Option<i32>,
    /// Last port, included.
    pub last_port: Option<i32>,
    /// ICMP type.
    pub icmp_type: Option<i16>,
    /// ICMP code.
    pub icmp_code: Option<i16>,
    /// The other side.
    #[sqlx(try_from = "IpNet")]
    pub cidr_block: Block,
}

/// An association.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct AssociationRow {
    /// The association.
    pub id: Uuid,
    /// The ACL.
    pub network_acl_id: Uuid,
    /// The subnet.
    pub subnet_id: Uuid,
}

macro_rules! view {
    () => {
        "select a.id, a.vpc_id, a.name, a.is_default, a.created_at, a.updated_at from network_acls a "
    };
}

macro_rules! entry_view {
    () => {
        "select e.network_acl_id, e.direction::text as direction, e.rule_number, e.action::text as action, e.protocol,
           lower(e.port_range) as first_port, upper(e.port_range) - 1 as last_port, e.icmp_type, e.icmp_code, e.cidr_block
         from network_acl_entries e "
    };
}

/// Creates an ACL without entries: it denies everything. Returns how many ACLs the VPC now has.
pub async fn create(tx: &mut Conn, account: Uuid, id: Uuid, vpc: Uuid, name: &str) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "with made as (
           insert into network_acls (id, account_id, vpc_id, name) values ($1, $2, $3, $4) returning id)
         select 1 + (select count(*) from network_acls where vpc_id = $3 and deleted_at is null) from made",
    )
    .bind(id)
    .bind(account)
    .bind(vpc)
    .bind(name)
    .fetch_one(tx)
    .await?)
}

/// One ACL of the account.
pub async fn get(conn: &mut Conn, account: Uuid, id: &Ref) -> Result<NetworkAclRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where a.id = coalesce($2, (select id from network_acls where short_id = $3)) and a.account_id = $1
           and a.deleted_at is null"
    ))
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(conn)
    .await?)
}

/// What a list may be narrowed to.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this VPC.
    pub vpc: Option<Uuid>,
    /// The one of this subnet.
    pub subnet: Option<Uuid>,
    /// Exactly this name.
    pub name: Option<String>,
}

/// ACLs of the account.
pub async fn list(
    conn: &mut Conn,
    account: Uuid,
    filter: &Filter,
    window: Window,
) -> Result<Vec<NetworkAclRow>> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where a.account_id = $1 and a.deleted_at is null and ($2::uuid is null or a.id < $2)
           and ($4::uuid is null or a.vpc_id = $4) and ($5::text is null or a.name = $5)
           and ($6::uuid is null
                or exists (select from network_acl_associations s where s.network_acl_id = a.id and s.subnet_id = $6))
         order by a.id desc limit $3"
    ))
    .persistent(false)
    .bind(account)
    .bind(window.before)
    .bind(window.limit)
    .bind(filter.vpc)
    .bind(&filter.name)
    .bind(filter.subnet)
    .fetch_all(conn)
    .await?)
}

/// The entries of these ACLs, by direction and number.
pub async fn entries(conn: &mut Conn, acls: &[Uuid]) -> Result<Vec<EntryRow>> {
    Ok(sqlx::query_as(concat!(
        entry_view!(),
        "where e.network_acl_id = any ($1) order by e.network_acl_id, e.direction, e.rule_number"
    ))
    .bind(acls)
    .fetch_all(conn)
    .await?)
}

/// The associations of these ACLs.
pub async fn associations(conn: &mut Conn, acls: &[Uuid]) -> Result<Vec<AssociationRow>> {
    Ok(sqlx::query_as(
        "select id, network_acl_id, subnet_id from network_acl_associations
         where network_acl_id = any ($1) order by network_acl_id, id",
    )
    .bind(acls)
    .fetch_all(conn)
    .await?)
}

/// Renames an ACL; false if it has changed since, see [`crate::vpcs::rename`].
pub async fn rename(
    tx: &mut Conn,
    account: Uuid,
    id: Uuid,
    name: &str,
    unless_changed_since: Option<OffsetDateTime>,
) -> Result<bool> {
    let done = sqlx::query(
        "update network_acls set name = $3, updated_at = greatest(now(), updated_at + interval '1 microsecond')
         where id = $2 and account_id = $1 and deleted_at is null and ($4::timestamptz is null or updated_at = $4)",
    )
    .bind(account)
    .bind(id)
    .bind(name)
    .bind(unless_changed_since)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// An entry to be.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry {
    /// Its ACL.
    pub acl: Uuid,
    /// That ACL's VPC.
    pub vpc: Uuid,
    /// `inbound` or `outbound`.
    pub direction: &'static str,
    /// 1 to 32766.
    pub number: u16,
    /// `allow` or `deny`.
    pub action: &'static str,
    /// IP protocol number; `None` is every protocol.
    pub protocol: Option<u8>,
    /// Ports, for TCP and UDP.
    pub ports: Option<PortRange>,
    /// Messages, for ICMP.
    pub icmp: Option<IcmpMatch>,
    /// The other side.
    pub cidr: Ipv4Net,
}

/// Adds an entry. `network_acl_entries_key` refuses a number that is taken in that direction. Returns how many entries the
/// ACL now has in that direction.
pub async fn add_entry(tx: &mut Conn, account: Uuid, entry: &NewEntry) -> Result<i64> {
    let bounds = entry.ports.map(|p| (i32::from(p.first()), i32::from(p.last()) + 1));
    Ok(sqlx::query_scalar(
        "with made as (
           insert into network_acl_entries (account_id, vpc_id, network_acl_id, direction, rule_number, action, protocol,
             port_range, icmp_type, icmp_code, cidr_block)
           values ($1, $2, $3, $4::rule_direction, $5, $6::acl_action, $7,
             case when $8::int is not null then int4range($8, $9) end, $10, $11, $12)
           returning rule_number)
         select 1 + (select count(*) from network_acl_entries
                     where network_acl_id = $3 and direction = $4::rule_direction) from made",
    )
    .bind(account)
    .bind(entry.vpc)
    .bind(entry.acl)
    .bind(entry.direction)
    .bind(i32::from(entry.number))
    .bind(entry.action)
    .bind(entry.protocol.map(i16::from))
    .bind(bounds.map(|b| b.0))
    .bind(bounds.map(|b| b.1))
    .bind(entry.icmp.map(|i| i16::from(i.icmp_type)))
    .bind(entry.icmp.and_then(|i| i.code).map(i16::from))
    .bind(IpNet::V4(entry.cidr))
    .fetch_one(tx)
    .await?)
}

/// Puts an entry in the place of the one of its number and direction; false if there is none.
pub async fn replace_entry(tx: &mut Conn, account: Uuid, entry: &NewEntry) -> Result<bool> {
    let bounds = entry.ports.map(|p| (i32::from(p.first()), i32::from(p.last()) + 1));
    let done = sqlx::query(
        "update network_acl_entries set action = $5::acl_action, protocol = $6,
           port_range = case when $7::int is not null then int4range($7, $8) end, icmp_type = $9, icmp_code = $10,
           cidr_block = $11
         where account_id = $1 and network_acl_id = $2 and direction = $3::rule_direction and rule_number = $4",
    )
    .bind(account)
    .bind(entry.acl)
    .bind(entry.direction)
    .bind(i32::from(entry.number))
    .bind(entry.action)
    .bind(entry.protocol.map(i16::from))
    .bind(bounds.map(|b| b.0))
    .bind(bounds.map(|b| b.1))
    .bind(entry.icmp.map(|i| i16::from(i.icmp_type)))
    .bind(entry.icmp.and_then(|i| i.code).map(i16::from))
    .bind(IpNet::V4(entry.cidr))
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Removes an entry; false if there is none.
pub async fn remove_entry(
    tx: &mut Conn,
    account: Uuid,
    acl: Uuid,
    direction: &str,
    number: u16,
) -> Result<bool> {
    let done = sqlx::query(
        "delete from network_acl_entries
         where account_id = $1 and network_acl_id = $2 and direction = $3::rule_direction and rule_number = $4",
    )
    .bind(account)
    .bind(acl)
    .bind(direction)
    .bind(i32::from(number))
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// An association of the account.
pub async fn association(conn: &mut Conn, account: Uuid, id: &Ref) -> Result<AssociationRow> {
    Ok(sqlx::query_as(
        "select id, network_acl_id, subnet_id from network_acl_associations
         where id = coalesce($2, (select id from network_acl_associations where short_id = $3)) and account_id = $1",
    )
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(conn)
    .await?)
}

/// Gives a subnet of the VPC another ACL, in the place of the one it has: under the new association `id`. If `replaced` is
/// given it must still be the subnet's association; false if it is not.
pub async fn associate(
    tx: &mut Conn,
    account: Uuid,
    id: Uuid,
    acl: &NetworkAclRow,
    subnet: Uuid,
    replaced: Option<Uuid>,
) -> Result<bool> {
    let done = sqlx::query(
        "update network_acl_associations set id = $2, network_acl_id = $3, created_at = now()
         where account_id = $1 and vpc_id = $4 and subnet_id = $5 and ($6::uuid is null or id = $6)",
    )
    .bind(account)
    .bind(id)
    .bind(acl.id)
    .bind(acl.vpc_id)
    .bind(subnet)
    .bind(replaced)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes an ACL that is not the default one, with its entries. Associations refuse, by the name of their foreign key.
pub async fn delete(tx: &mut Conn, account: Uuid, id: Uuid) -> Result<()> {
    let done = sqlx::query(
        "with gone as (delete from network_acl_entries where network_acl_id = $2 and account_id = $1)
         update network_acls set deleted_at = now()
         where id = $2 and account_id = $1 and deleted_at is null and not is_default",
    )
    .bind(account)
    .bind(id)
    .execute(tx)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::NotFound) }
}
