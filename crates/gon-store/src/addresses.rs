//! The site's public addresses: the pool, what users allocated, and what the platform gave with a launch.

use ipnet::IpNet;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::reference::Ref;
use crate::v4::{Host, host};
use crate::{Conn, Result, Window};

/// An address a user allocated.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct AddressRow {
    /// The allocation.
    pub id: Uuid,
    /// The address.
    #[sqlx(try_from = "IpNet")]
    pub public_ip: Host,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The interface it is mapped to.
    pub network_interface_id: Option<Uuid>,
    /// That interface's VPC.
    pub vpc_id: Option<Uuid>,
    /// That interface's instance.
    pub instance_id: Option<Uuid>,
    /// That interface's address.
    pub private_ip: Option<IpNet>,
    /// When it was allocated.
    pub created_at: OffsetDateTime,
}

macro_rules! view {
    () => {
        "select p.allocation_id as id, p.address as public_ip, p.name, p.network_interface_id, p.vpc_id, n.instance_id,
           n.private_ip, coalesce(p.allocated_at, now()) as created_at
         from public_ips p left join network_interfaces n on n.id = p.network_interface_id "
    };
}

/// Takes a free address that has rested; `None` if there is none.
pub async fn allocate(
    tx: &mut Conn,
    account: Uuid,
    allocation: Uuid,
    name: Option<&str>,
) -> Result<Option<std::net::Ipv4Addr>> {
    let address: Option<IpNet> = sqlx::query_scalar(
        "update public_ips set account_id = $1, allocation_id = $2, name = $3, auto = false, allocated_at = now()
         where address = (select address from public_ips where account_id is null and rests_until <= now()
                          order by rests_until, address limit 1 for update skip locked)
         returning address",
    )
    .bind(account)
    .bind(allocation)
    .bind(name)
    .fetch_optional(tx)
    .await?;
    Ok(address.map(host).transpose()?)
}

/// One address the account allocated.
pub async fn get(conn: &mut Conn, account: Uuid, id: &Ref) -> Result<AddressRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where p.short_id = coalesce($3, short_id($2)) and ($2::uuid is null or p.allocation_id = $2)
           and p.account_id = $1 and not p.auto"
    ))
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(conn)
    .await?)
}

/// Like [`get`], and nobody else maps or releases it until the transaction ends.
pub async fn hold(tx: &mut Conn, account: Uuid, id: &Ref) -> Result<AddressRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where p.short_id = coalesce($3, short_id($2)) and ($2::uuid is null or p.allocation_id = $2)
           and p.account_id = $1 and not p.auto for update of p"
    ))
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(tx)
    .await?)
}

/// What a list may be narrowed to.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Exactly this name.
    pub name: Option<String>,
    /// Mapped to an interface of this instance.
    pub instance: Option<Uuid>,
}

/// Addresses the account allocated.
pub async fn list(
    conn: &mut Conn,
    account: Uuid,
    filter: &Filter,
    window: Window,
) -> Result<Vec<AddressRow>> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where p.account_id = $1 and not p.auto and ($2::uuid is null or p.allocation_id < $2)
           and ($4::text is null or p.name = $4) and ($5::uuid is null or n.instance_id = $5)
         order by p.allocation_id desc limit $3"
    ))
    .persistent(false)
    .bind(account)
    .bind(window.before)
    .bind(window.limit)
    .bind(&filter.name)
    .bind(filter.instance)
    .fetch_all(conn)
    .await?)
}

/// Maps an allocated address to an interface. Whatever was mapped there gives way: the platform's address is released
/// to rest, the user's is unmapped.
pub async fn associate(tx: &mut Conn, address: std::net::Ipv4Addr, interface: Uuid, vpc: Uuid) -> Result<()> {
    unmap(tx, interface).await?;
    sqlx::query("update public_ips set network_interface_id = $2, vpc_id = $3 where address = $1")
        .bind(IpNet::from(std::net::IpAddr::V4(address)))
        .bind(interface)
        .bind(vpc)
        .execute(tx)
        .await?;
    Ok(())
}

/// Takes whatever public address an interface has off it. The platform's rests for ten minutes before its next owner
/// (rule R10).
pub async fn unmap(tx: &mut Conn, interface: Uuid) -> Result<()> {
    sqlx::query(
        "update public_ips set network_interface_id = null, vpc_id = null,
           account_id = case when auto then null else account_id end,
           allocation_id = case when auto then null else allocation_id end,
           allocated_at = case when auto then null else allocated_at end,
           name = case when auto then null else name end,
           rests_until = case when auto then now() + interval '10 minutes' else rests_until end,
           auto = false
         where network_interface_id = $1",
    )
    .bind(interface)
    .execute(tx)
    .await?;
    Ok(())
}

/// Releases an allocated address that is mapped to nothing; false if it is mapped.
pub async fn release(tx: &mut Conn, address: std::net::Ipv4Addr) -> Result<bool> {
    let done = sqlx::query(
        "update public_ips set account_id = null, allocation_id = null, allocated_at = null, name = null,
           rests_until = now() + interval '10 minutes'
         where address = $1 and network_interface_id is null",
    )
    .bind(IpNet::from(std::net::IpAddr::V4(address)))
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives an interface without a public address one of the platform's; false if the pool has none, or it has one.
pub async fn give(
    tx: &mut Conn,
    account: Uuid,
    allocation: Uuid,
    interface: Uuid,
    vpc: Uuid,
) -> Result<bool> {
    let done = sqlx::query(
        "update public_ips set account_id = $1, allocation_id = $2, auto = true, allocated_at = now(),
           network_interface_id = $3, vpc_id = $4
         where address = (select address from public_ips where account_id is null and rests_until <= now()
                          order by rests_until, address limit 1 for update skip locked)
           and not exists (select from public_ips where network_interface_id = $3)",
    )
    .bind(account)
    .bind(allocation)
    .bind(interface)
    .bind(vpc)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether an interface has a public address.
pub async fn has_one(conn: &mut Conn, interface: Uuid) -> Result<bool> {
    Ok(sqlx::query_scalar("select exists (select from public_ips where network_interface_id = $1)")
        .bind(interface)
        .fetch_one(conn)
        .await?)
}
