//! Security groups and their rules.

use gon_types::{PortRange, Protocol};
use ipnet::{IpNet, Ipv4Net};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::reference::Ref;
use crate::{Conn, Result, StoreError, Window};

/// A group.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct SecurityGroupRow {
    /// The group.
    pub id: Uuid,
    /// Its VPC.
    pub vpc_id: Uuid,
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Whether it came with the VPC.
    pub is_default: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct RuleRow {
    /// The rule.
    pub id: Uuid,
    /// Its group.
    pub security_group_id: Uuid,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// `tcp`, `udp`, `icmp` or `all`.
    pub protocol: String,
    /// First port.
    pub first_port: Option<i32>,
    /// Last port.
    pub last_port: Option<i32>,
    /// ICMP type.
    pub icmp_type: Option<i16>,
    /// ICMP code.
    pub icmp_code: Option<i16>,
    /// The other side, if a block.
    pub peer_cidr: Option<IpNet>,
    /// The other side, if a group.
    pub peer_group_id: Option<Uuid>,
    /// The other side, if a prefix list.
    pub peer_prefix_list_id: Option<Uuid>,
    /// For people.
    pub description: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

macro_rules! view {
    () => {
        "select g.id, g.vpc_id, g.name::text as name, g.description, g.is_default, g.created_at, g.updated_at
         from security_groups g "
    };
}

macro_rules! rule_view {
    () => {
        "select r.id, r.security_group_id, r.direction::text as direction, r.protocol::text as protocol,
           lower(r.port_range) as first_port, upper(r.port_range) - 1 as last_port, r.icmp_type, r.icmp_code,
           r.peer_cidr, r.peer_group_id, r.peer_prefix_list_id, r.description, r.created_at
         from security_group_rules r "
    };
}

/// Creates a group with its first rule: everything may go out (EC2's CreateSecurityGroup).
pub async fn create(
    tx: &mut Conn,
    account: Uuid,
    (id, rule_out): (Uuid, Uuid),
    vpc: Uuid,
    name: &str,
    description: &str,
) -> Result<()> {
    sqlx::query(
        "with made as (
           insert into security_groups (id, account_id, vpc_id, name, description) values ($1, $2, $3, $4, $5))
         insert into security_group_rules (id, account_id, vpc_id, security_group_id, direction, protocol, peer_cidr)
         values ($6, $2, $3, $1, 'outbound', 'all', '0.0.0.0/0')",
    )
    .bind(id)
    .bind(account)
    .bind(vpc)
    .bind(name)
    .bind(description)
    .bind(rule_out)
    .execute(tx)
    .await?;
    Ok(())
}

/// One group of the account.
pub async fn get(conn: &mut Conn, account: Uuid, id: &Ref) -> Result<SecurityGroupRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where g.id = coalesce($2, (select id from security_groups where short_id = $3)) and g.account_id = $1
           and g.deleted_at is null"
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
    /// This name, in any case.
    pub name: Option<String>,
}

/// Groups of the account.
pub async fn list(
    conn: &mut Conn,
    account: Uuid,
    filter: &Filter,
    window: Window,
) -> Result<Vec<SecurityGroupRow>> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where g.account_id = $1 and g.deleted_at is null and ($2::uuid is null or g.id < $2)
           and ($4::uuid is null or g.vpc_id = $4) and ($5::text is null or g.name = $5::citext)
         order by g.id desc limit $3"
    ))
    .persistent(false)
    .bind(account)
    .bind(window.before)
    .bind(window.limit)
    .bind(filter.vpc)
    .bind(&filter.name)
    .fetch_all(conn)
    .await?)
}

/// The ids and VPCs of those of the account's groups that these name.
pub async fn resolve(conn: &mut Conn, account: Uuid, ids: &[Ref]) -> Result<Vec<ResolvedRow>> {
    let whole: Vec<Uuid> = ids.iter().filter_map(|r| r.whole).collect();
    let short: Vec<&str> = ids.iter().filter_map(|r| r.short.as_deref()).collect();
    Ok(sqlx::query_as(
        "select id, short_id, vpc_id from security_groups
         where id in (select unnest($2::uuid[]) union select id from security_groups where short_id = any ($3))
           and account_id = $1 and deleted_at is null",
    )
    .bind(account)
    .bind(whole)
    .bind(short)
    .fetch_all(conn)
    .await?)
}

/// A group that was named.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ResolvedRow {
    /// The group.
    pub id: Uuid,
    /// As people write it, without the prefix.
    pub short_id: String,
    /// Its VPC.
    pub vpc_id: Uuid,
}

/// The default group of a VPC.
pub async fn default_of(conn: &mut Conn, vpc: Uuid) -> Result<Uuid> {
    Ok(sqlx::query_scalar(
        "select id from security_groups where vpc_id = $1 and is_default and deleted_at is null",
    )
    .bind(vpc)
    .fetch_one(conn)
    .await?)
}

/// The rules of these groups, oldest first.
pub async fn rules(conn: &mut Conn, groups: &[Uuid]) -> Result<Vec<RuleRow>> {
    Ok(sqlx::query_as(concat!(
        rule_view!(),
        "where r.security_group_id = any ($1) order by r.security_group_id, r.id"
    ))
    .bind(groups)
    .fetch_all(conn)
    .await?)
}

/// Changes name and description; false if it has changed since, see [`crate::vpcs::rename`].
pub async fn modify(
    tx: &mut Conn,
    account: Uuid,
    id: Uuid,
    name: Option<&str>,
    description: Option<&str>,
    unless_changed_since: Option<OffsetDateTime>,
) -> Result<bool> {
    let done = sqlx::query(
        "update security_groups set name = coalesce($3, name), description = coalesce($4, description),
           updated_at = greatest(now(), updated_at + interval '1 microsecond')
         where id = $2 and account_id = $1 and deleted_at is null and ($5::timestamptz is null or updated_at = $5)",
    )
    .bind(account)
    .bind(id)
    .bind(name)
    .bind(description)
    .bind(unless_changed_since)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A rule to be.
#[derive(Debug, Clone)]
pub struct NewRule<'a> {
    /// Its id.
    pub id: Uuid,
    /// Its group.
    pub group: Uuid,
    /// That group's VPC.
    pub vpc: Uuid,
    /// `inbound` or `outbound`.
    pub direction: &'static str,
    /// The protocol.
    pub protocol: Protocol,
    /// Ports, for TCP and UDP.
    pub ports: Option<PortRange>,
    /// Type and code, for ICMP.
    pub icmp: Option<(u8, Option<u8>)>,
    /// The other side, if a block.
    pub peer_cidr: Option<Ipv4Net>,
    /// The other side, if a group.
    pub peer_group: Option<Uuid>,
    /// The other side, if a prefix list.
    pub peer_prefix_list: Option<Uuid>,
    /// For people.
    pub description: &'a str,
}

/// Adds a rule. `security_group_rules_duplicate_key` refuses one that is there. Returns how many rules the group now
/// has in that direction, one with a prefix list counting for as many as that has room for, and when the rule was made.
pub async fn add_rule(tx: &mut Conn, account: Uuid, rule: &NewRule<'_>) -> Result<(i64, OffsetDateTime)> {
    let bounds = rule.ports.map(|p| (i32::from(p.first()), i32::from(p.last()) + 1));
    Ok(sqlx::query_as(
        "with made as (
           insert into security_group_rules (id, account_id, vpc_id, security_group_id, direction, protocol, port_range,
             icmp_type, icmp_code, peer_cidr, peer_group_id, description, peer_prefix_list_id)
           values ($1, $2, $3, $4, $5::rule_direction, $6::rule_protocol,
             case when $7::int is not null then int4range($7, $8) end, $9, $10, $11, $12, $13, $14)
           returning created_at)
         select coalesce((select max_entries from prefix_lists where id = $14), 1)
             + (select coalesce(sum(coalesce(l.max_entries, 1)), 0)::bigint
                from security_group_rules r left join prefix_lists l on l.id = r.peer_prefix_list_id
                where r.security_group_id = $4 and r.direction = $5::rule_direction), created_at from made",
    )
    .bind(rule.id)
    .bind(account)
    .bind(rule.vpc)
    .bind(rule.group)
    .bind(rule.direction)
    .bind(rule.protocol.as_str())
    .bind(bounds.map(|b| b.0))
    .bind(bounds.map(|b| b.1))
    .bind(rule.icmp.map(|i| i16::from(i.0)))
    .bind(rule.icmp.and_then(|i| i.1).map(i16::from))
    .bind(rule.peer_cidr.map(IpNet::V4))
    .bind(rule.peer_group)
    .bind(rule.description)
    .bind(rule.peer_prefix_list)
    .fetch_one(tx)
    .await?)
}

/// Removes a rule of a group; false if it has none such.
pub async fn remove_rule(tx: &mut Conn, account: Uuid, group: Uuid, id: &Ref) -> Result<Option<Uuid>> {
    Ok(sqlx::query_scalar(
        "delete from security_group_rules
         where id = coalesce($3, (select id from security_group_rules where short_id = $4))
           and account_id = $1 and security_group_id = $2
         returning id",
    )
    .bind(account)
    .bind(group)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_optional(tx)
    .await?)
}

/// Deletes a group with its rules. Members and rules of other groups refuse, by the name of their foreign key.
pub async fn delete(tx: &mut Conn, account: Uuid, id: Uuid) -> Result<()> {
    let done = sqlx::query(
        "with gone as (delete from security_group_rules where security_group_id = $2 and account_id = $1)
         update security_groups set deleted_at = now()
         where id = $2 and account_id = $1 and deleted_at is null and not is_default",
    )
    .bind(account)
    .bind(id)
    .execute(tx)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::NotFound) }
}

/// What stands in the way of deleting a group: kind and id, at most 50.
pub async fn blockers(conn: &mut Conn, group: Uuid) -> Result<Vec<(String, Uuid)>> {
    Ok(sqlx::query_as(
        "select 'eni', network_interface_id from network_interface_security_groups where security_group_id = $1
         union all select distinct 'sg', security_group_id from security_group_rules
           where peer_group_id = $1 and security_group_id <> $1
         limit 50",
    )
    .bind(group)
    .fetch_all(conn)
    .await?)
}
