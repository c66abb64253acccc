//! Subnets. Whether one is public, and how many addresses are left, is computed, never stored.

use ipnet::{IpNet, Ipv4Net};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::reference::Ref;
use crate::v4::Block;
use crate::{Conn, Result, StoreError, Window};

/// A subnet.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct SubnetRow {
    /// The subnet.
    pub id: Uuid,
    /// Its VPC.
    pub vpc_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its block.
    #[sqlx(try_from = "IpNet")]
    pub cidr_block: Block,
    /// Its zone.
    pub availability_zone: String,
    /// Whether launches get a public address unless they say otherwise.
    pub map_public_ip_on_launch: bool,
    /// Whether launches that name no subnet may go into it.
    pub default_for_az: bool,
    /// The effective route table.
    pub route_table_id: Uuid,
    /// The network ACL it is associated with.
    pub network_acl_id: Uuid,
    /// Addresses in use.
    pub used: i64,
    /// Whether the effective route table leads to an attached internet gateway.
    pub public: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

macro_rules! view {
    () => {
        "select s.id, s.vpc_id, s.name, s.cidr_block, s.availability_zone, s.map_public_ip_on_launch,
           s.default_for_az, e.route_table_id, c.network_acl_id,
           (select count(*) from interface_addresses a where a.subnet_id = s.id and a.deleted_at is null) as used,
           exists (select from routes r
                   join internet_gateways g on g.id = r.internet_gateway_id and g.vpc_id = s.vpc_id
                   where r.route_table_id = e.route_table_id
                     -- A list without blocks leads nowhere.
                     and (r.destination_prefix_list_id is null or exists (
                       select from prefix_list_entries p where p.prefix_list_id = r.destination_prefix_list_id))
                  ) as public,
           s.created_at, s.updated_at
         from subnets s join network_acl_associations c on c.subnet_id = s.id cross join lateral (
           select coalesce(
             (select a.route_table_id from route_table_associations a where a.subnet_id = s.id),
             (select m.id from route_tables m where m.vpc_id = s.vpc_id and m.is_main and m.deleted_at is null)
           ) as route_table_id) e "
    };
}

/// A subnet to be.
#[derive(Debug, Clone)]
pub struct NewSubnet<'a> {
    /// Its id.
    pub id: Uuid,
    /// Its VPC.
    pub vpc: Uuid,
    /// The block of the VPC that it is in.
    pub vpc_cidr: Ipv4Net,
    /// Its name.
    pub name: &'a str,
    /// Its block.
    pub cidr_block: Ipv4Net,
    /// Its zone.
    pub availability_zone: &'a str,
    /// See [`SubnetRow::map_public_ip_on_launch`].
    pub map_public_ip_on_launch: bool,
    /// See [`SubnetRow::default_for_az`].
    pub default_for_az: bool,
}

/// Creates a subnet. The VPC must live and have that block; subnets of a VPC never overlap.
pub async fn create(tx: &mut Conn, account: Uuid, subnet: &NewSubnet<'_>) -> Result<()> {
    sqlx::query(
        "insert into subnets (id, account_id, vpc_id, vpc_cidr, name, cidr_block, availability_zone,
           map_public_ip_on_launch, default_for_az)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(subnet.id)
    .bind(account)
    .bind(subnet.vpc)
    .bind(IpNet::V4(subnet.vpc_cidr))
    .bind(subnet.name)
    .bind(IpNet::V4(subnet.cidr_block))
    .bind(subnet.availability_zone)
    .bind(subnet.map_public_ip_on_launch)
    .bind(subnet.default_for_az)
    .execute(tx)
    .await?;
    Ok(())
}

/// One subnet of the account.
pub async fn get(conn: &mut Conn, account: Uuid, id: &Ref) -> Result<SubnetRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where s.id = coalesce($2, (select id from subnets where short_id = $3)) and s.account_id = $1
           and s.deleted_at is null"
    ))
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(conn)
    .await?)
}

/// The subnet for a launch of the account that names none: of its default VPC, the one with the fewest interfaces.
pub async fn default_of(conn: &mut Conn, account: Uuid) -> Result<Option<SubnetRow>> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where s.account_id = $1 and s.deleted_at is null and s.default_for_az
           and exists (select from vpcs v where v.id = s.vpc_id and v.is_default)
         order by used, s.id limit 1"
    ))
    .bind(account)
    .fetch_optional(conn)
    .await?)
}

/// What a list may be narrowed to.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this VPC.
    pub vpc: Option<Uuid>,
    /// Exactly this name.
    pub name: Option<String>,
    /// In this zone.
    pub availability_zone: Option<String>,
}

/// Subnets of the account.
pub async fn list(conn: &mut Conn, account: Uuid, filter: &Filter, window: Window) -> Result<Vec<SubnetRow>> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where s.account_id = $1 and s.deleted_at is null and ($2::uuid is null or s.id < $2)
           and ($4::uuid is null or s.vpc_id = $4) and ($5::text is null or s.name = $5)
           and ($6::text is null or s.availability_zone = $6)
         order by s.id desc limit $3"
    ))
    .persistent(false)
    .bind(account)
    .bind(window.before)
    .bind(window.limit)
    .bind(filter.vpc)
    .bind(&filter.name)
    .bind(&filter.availability_zone)
    .fetch_all(conn)
    .await?)
}

/// Changes what can be changed; false if it has changed since, see [`crate::vpcs::rename`].
pub async fn modify(
    tx: &mut Conn,
    account: Uuid,
    id: Uuid,
    name: Option<&str>,
    map_public_ip_on_launch: Option<bool>,
    unless_changed_since: Option<OffsetDateTime>,
) -> Result<bool> {
    let done = sqlx::query(
        "update subnets set name = coalesce($3, name),
           map_public_ip_on_launch = coalesce($4, map_public_ip_on_launch),
           updated_at = greatest(now(), updated_at + interval '1 microsecond')
         where id = $2 and account_id = $1 and deleted_at is null and ($5::timestamptz is null or updated_at = $5)",
    )
    .bind(account)
    .bind(id)
    .bind(name)
    .bind(map_public_ip_on_launch)
    .bind(unless_changed_since)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes a subnet and its association with a route table. Interfaces refuse, by the name of their foreign key.
pub async fn delete(tx: &mut Conn, account: Uuid, id: Uuid) -> Result<()> {
    let done = sqlx::query(
        "with freed as (delete from route_table_associations where subnet_id = $2 and account_id = $1)
         update subnets set deleted_at = now() where id = $2 and account_id = $1 and deleted_at is null",
    )
    .bind(account)
    .bind(id)
    .execute(tx)
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::NotFound) }
}

/// What stands in the way of deleting a subnet: kind and id, at most 50.
pub async fn blockers(conn: &mut Conn, subnet: Uuid) -> Result<Vec<(String, Uuid)>> {
    Ok(sqlx::query_as(
        "select 'eni', id from network_interfaces where subnet_id = $1 and deleted_at is null
         union all select 'i', id from instances where subnet_id = $1 and deleted_at is null
         limit 50",
    )
    .bind(subnet)
    .fetch_all(conn)
    .await?)
}

/// The zones there are, the oldest node's first.
pub async fn zones(conn: &mut Conn) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "select availability_zone from nodes where removed_at is null group by 1 order by min(created_at)",
    )
    .fetch_all(conn)
    .await?)
}
