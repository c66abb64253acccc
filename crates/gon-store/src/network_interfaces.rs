//! Network interfaces as users see them. The primary one of an instance is made with it
//! ([`crate::instances::launch`]); the others are made here, and come and go while their instance is stopped.
//!
//! Order of locks, the same everywhere: instance, node, interface, VPC.

use std::net::Ipv4Addr;

use gon_types::MacAddr;
use ipnet::{IpNet, Ipv4Net};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::reference::Ref;
use crate::v4::{Block, Host, Mac, host};
use crate::{Conn, Result, StoreError, Window};

/// An interface.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct NetworkInterfaceRow {
    /// The interface.
    pub id: Uuid,
    /// Its VPC.
    pub vpc_id: Uuid,
    /// Its subnet.
    pub subnet_id: Uuid,
    /// That subnet's block.
    #[sqlx(try_from = "IpNet")]
    pub subnet_cidr: Block,
    /// That subnet's zone.
    pub availability_zone: String,
    /// For people.
    pub description: String,
    /// Its instance.
    pub instance_id: Option<Uuid>,
    /// Its slot; 0 is primary.
    pub device_index: Option<i16>,
    /// The attachment.
    pub attachment_id: Option<Uuid>,
    /// Whether it ends with its instance.
    pub delete_on_termination: bool,
    /// Its further addresses, sorted.
    pub secondary_ips: Vec<IpNet>,
    /// Its address.
    #[sqlx(try_from = "IpNet")]
    pub private_ip: Host,
    /// Its Ethernet address.
    #[sqlx(try_from = "mac_address::MacAddress")]
    pub mac_address: Mac,
    /// Its public address, if any.
    pub public_ip: Option<IpNet>,
    /// Whether packets of other addresses are dropped.
    pub source_dest_check: bool,
    /// Its groups.
    pub security_group_ids: Vec<Uuid>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

macro_rules! view {
    () => {
        "select n.id, n.vpc_id, n.subnet_id, n.subnet_cidr, n.description, n.instance_id, n.device_index,
           n.attachment_id, n.delete_on_termination, n.private_ip, n.mac_address,
           (select s.availability_zone from subnets s where s.id = n.subnet_id) as availability_zone,
           array(select a.private_ip from interface_addresses a
                 where a.network_interface_id = n.id and a.deleted_at is null and not a.is_primary
                 order by 1) as secondary_ips,
           (select p.address from public_ips p where p.network_interface_id = n.id) as public_ip, n.source_dest_check,
           array(select m.security_group_id from network_interface_security_groups m
                 where m.network_interface_id = n.id order by 1) as security_group_ids,
           n.created_at, n.updated_at
         from network_interfaces n "
    };
}

/// One interface of the account.
pub async fn get(conn: &mut Conn, account: Uuid, id: &Ref) -> Result<NetworkInterfaceRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where n.id = coalesce($2, (select id from network_interfaces where short_id = $3)) and n.account_id = $1
           and n.deleted_at is null"
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
    /// Of this subnet.
    pub subnet: Option<Uuid>,
    /// Of this instance.
    pub instance: Option<Uuid>,
    /// Attached, or not.
    pub attached: Option<bool>,
}

/// Interfaces of the account.
pub async fn list(
    conn: &mut Conn,
    account: Uuid,
    filter: &Filter,
    window: Window,
) -> Result<Vec<NetworkInterfaceRow>> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where n.account_id = $1 and n.deleted_at is null and ($2::uuid is null or n.id < $2)
           and ($4::uuid is null or n.vpc_id = $4) and ($5::uuid is null or n.subnet_id = $5)
           and ($6::uuid is null or n.instance_id = $6)
           and ($7::boolean is null or (n.instance_id is not null) = $7)
         order by n.id desc limit $3"
    ))
    .persistent(false)
    .bind(account)
    .bind(window.before)
    .bind(window.limit)
    .bind(filter.vpc)
    .bind(filter.subnet)
    .bind(filter.instance)
    .bind(filter.attached)
    .fetch_all(conn)
    .await?)
}

/// The interface in slot 0 of an instance of the account, with its VPC. `NotFound` once the instance is going.
pub async fn primary_of(conn: &mut Conn, account: Uuid, instance: Uuid) -> Result<(Uuid, Uuid)> {
    Ok(sqlx::query_as(
        "select n.id, n.vpc_id from network_interfaces n
         where n.instance_id = $2 and n.account_id = $1 and n.device_index = 0 and n.deleted_at is null",
    )
    .bind(account)
    .bind(instance)
    .fetch_one(conn)
    .await?)
}

/// How many interfaces an instance has.
pub async fn number_of(conn: &mut Conn, instance: Uuid) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "select count(*) from network_interfaces where instance_id = $1 and deleted_at is null",
    )
    .bind(instance)
    .fetch_one(conn)
    .await?)
}

/// An interface to be, of no instance.
#[derive(Debug, Clone)]
pub struct NewInterface<'a> {
    /// Its id.
    pub id: Uuid,
    /// Its owner.
    pub account: Uuid,
    /// Its VPC.
    pub vpc: Uuid,
    /// Its subnet.
    pub subnet: Uuid,
    /// That subnet's block.
    pub subnet_cidr: Ipv4Net,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// For people.
    pub description: &'a str,
    /// EC2's source/destination check.
    pub source_dest_check: bool,
    /// Its groups.
    pub groups: &'a [Uuid],
}

/// Writes an interface with its groups, under the rules of [`crate::instances::launch`]: it gets the first of the
/// `candidates` that is free. `None` if none was: nothing was written then.
pub async fn create(
    tx: &mut Conn,
    new: &NewInterface<'_>,
    candidates: &[Ipv4Addr],
    also_resting: bool,
) -> Result<Option<Ipv4Addr>> {
    let got: Option<IpNet> = sqlx::query_scalar(
        "with free as (
           select c.ip from unnest($10::inet[]) with ordinality as c (ip, n)
           where not exists (
             select from interface_addresses x where x.subnet_id = $4 and x.private_ip = c.ip
               and (x.deleted_at is null or (not $11 and x.deleted_at > now() - interval '60 seconds')))
           order by c.n limit 1),
         nic as (
           insert into network_interfaces (id, account_id, vpc_id, subnet_id, subnet_cidr, instance_id, device_index,
             attachment_id, attached_at, delete_on_termination, private_ip, mac_address, description, source_dest_check)
           select $1, $2, $3, $4, $5, null, null, null, null, false, free.ip, $6, $7, $8 from free
           on conflict (subnet_id, private_ip) where deleted_at is null do nothing
           returning private_ip),
         grouped as (
           insert into network_interface_security_groups (network_interface_id, security_group_id, vpc_id, account_id)
           select $1, g.id, $3, $2 from nic, unnest($9::uuid[]) as g (id))
         select private_ip from nic",
    )
    .bind(new.id)
    .bind(new.account)
    .bind(new.vpc)
    .bind(new.subnet)
    .bind(IpNet::V4(new.subnet_cidr))
    .bind(mac_address::MacAddress::new(new.mac.0))
    .bind(new.description)
    .bind(new.source_dest_check)
    .bind(new.groups)
    .bind(addresses(candidates))
    .bind(also_resting)
    .fetch_optional(tx)
    .await?;
    Ok(got.map(host).transpose()?)
}

fn addresses(list: &[Ipv4Addr]) -> Vec<IpNet> {
    list.iter().map(|a| IpNet::from(std::net::IpAddr::V4(*a))).collect()
}

/// Gives an interface up to `count` of those `candidates` that are free; returns which it got.
/// `interface_addresses_limit` refuses more than there is room for.
pub async fn assign(
    tx: &mut Conn,
    interface: Uuid,
    candidates: &[Ipv4Addr],
    count: usize,
    also_resting: bool,
) -> Result<Vec<Ipv4Addr>> {
    let got: Vec<IpNet> = sqlx::query_scalar(
        "insert into interface_addresses (account_id, vpc_id, subnet_id, subnet_cidr, network_interface_id, private_ip)
         select n.account_id, n.vpc_id, n.subnet_id, n.subnet_cidr, n.id, c.ip
         from network_interfaces n cross join lateral (
           select c.ip from unnest($2::inet[]) with ordinality as c (ip, n)
           where not exists (
             select from interface_addresses x where x.subnet_id = n.subnet_id and x.private_ip = c.ip
               and (x.deleted_at is null or (not $4 and x.deleted_at > now() - interval '60 seconds')))
           order by c.n limit $3) c
         where n.id = $1 and n.deleted_at is null
         on conflict (subnet_id, private_ip) where deleted_at is null do nothing
         returning private_ip",
    )
    .bind(interface)
    .bind(addresses(candidates))
    .bind(i64::try_from(count).unwrap_or(i64::MAX))
    .bind(also_resting)
    .fetch_all(tx)
    .await?;
    Ok(got.into_iter().map(host).collect::<std::result::Result<_, _>>()?)
}

/// Takes secondary addresses from an interface; returns those it had.
pub async fn unassign(tx: &mut Conn, interface: Uuid, list: &[Ipv4Addr]) -> Result<Vec<Ipv4Addr>> {
    let gone: Vec<IpNet> = sqlx::query_scalar(
        "update interface_addresses set deleted_at = now()
         where network_interface_id = $1 and private_ip = any ($2) and not is_primary and deleted_at is null
         returning private_ip",
    )
    .bind(interface)
    .bind(addresses(list))
    .fetch_all(tx)
    .await?;
    Ok(gone.into_iter().map(host).collect::<std::result::Result<_, _>>()?)
}

/// What changes of an interface; what is `None` stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// For people.
    pub description: Option<&'a str>,
    /// EC2's source/destination check.
    pub source_dest_check: Option<bool>,
    /// Whether it ends with its instance.
    pub delete_on_termination: Option<bool>,
    /// Its groups.
    pub groups: Option<&'a [Uuid]>,
}

/// Changes an interface; false if it has changed since, see [`crate::vpcs::rename`].
pub async fn modify(
    tx: &mut Conn,
    account: Uuid,
    id: Uuid,
    change: Change<'_>,
    unless_changed_since: Option<OffsetDateTime>,
) -> Result<bool> {
    let done = sqlx::query(
        "update network_interfaces set description = coalesce($3, description),
           source_dest_check = coalesce($4, source_dest_check),
           delete_on_termination = coalesce($5, delete_on_termination),
           updated_at = greatest(now(), updated_at + interval '1 microsecond')
         where id = $2 and account_id = $1 and deleted_at is null and ($6::timestamptz is null or updated_at = $6)",
    )
    .bind(account)
    .bind(id)
    .bind(change.description)
    .bind(change.source_dest_check)
    .bind(change.delete_on_termination)
    .bind(unless_changed_since)
    .execute(&mut *tx)
    .await?;
    if done.rows_affected() != 1 {
        return Ok(false);
    }
    let Some(groups) = change.groups else { return Ok(true) };
    // The interface's row is ours: whoever else changes its groups waits.
    sqlx::query(
        "delete from network_interface_security_groups where network_interface_id = $1 and security_group_id <> all ($2)",
    )
    .bind(id)
    .bind(groups)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "insert into network_interface_security_groups (network_interface_id, security_group_id, vpc_id, account_id)
         select n.id, g.id, n.vpc_id, n.account_id from network_interfaces n, unnest($2::uuid[]) as g (id)
         where n.id = $1 on conflict do nothing",
    )
    .bind(id)
    .bind(groups)
    .execute(tx)
    .await?;
    Ok(true)
}

/// Where an attachment goes.
#[derive(Debug, Clone, Copy)]
pub struct Attachment {
    /// Its id.
    pub id: Uuid,
    /// The interface.
    pub interface: Uuid,
    /// The instance, which the caller has locked.
    pub instance: Uuid,
    /// The slot.
    pub device_index: i16,
}

/// Attaches an interface to a stopped instance; false if it is attached already. If the instance has its place on a node,
/// the interface gets a port there. The triggers of `network_interfaces` refuse what cannot be, by name.
pub async fn attach(tx: &mut Conn, attachment: &Attachment) -> Result<bool> {
    // The node's row is held, so that no two get one number. The numbers go round, so that one that was just freed rests.
    let port: Option<(Uuid, i32)> = sqlx::query_as(
        "with here as (
           select w.id, w.last_port_no from instances i join nodes w on w.id = i.node_id where i.id = $1 for update of w)
         select here.id, p.no from here cross join lateral (
           select p.no from generate_series(16, 16000) p (no)
           where not exists (select from network_interfaces x where x.node_id = here.id and x.port_no = p.no)
           order by p.no <= here.last_port_no, p.no limit 1) p",
    )
    .bind(attachment.instance)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some((node, number)) = port {
        sqlx::query("update nodes set last_port_no = $2 where id = $1")
            .bind(node)
            .bind(number)
            .execute(&mut *tx)
            .await?;
    }
    let done = sqlx::query(
        "update network_interfaces set instance_id = $2, device_index = $3, attachment_id = $4, attached_at = now(),
           node_id = $5, port_no = $6, updated_at = greatest(now(), updated_at + interval '1 microsecond')
         where id = $1 and deleted_at is null and instance_id is null",
    )
    .bind(attachment.interface)
    .bind(attachment.instance)
    .bind(attachment.device_index)
    .bind(attachment.id)
    .bind(port.map(|p| p.0))
    .bind(port.map(|p| p.1))
    .execute(&mut *tx)
    .await?;
    if done.rows_affected() != 1 {
        return Ok(false);
    }
    touch_instance(tx, attachment.instance).await?;
    Ok(true)
}

/// Detaches an interface from its instance; false if it is not attached to that. It no longer ends with an instance.
pub async fn detach(tx: &mut Conn, interface: Uuid, instance: Uuid) -> Result<bool> {
    let done = sqlx::query(
        "update network_interfaces set instance_id = null, device_index = null, attachment_id = null,
           attached_at = null, delete_on_termination = false, node_id = null, port_no = null, port_state = 'unknown',
           port_reason = null, updated_at = greatest(now(), updated_at + interval '1 microsecond')
         where id = $1 and instance_id = $2 and deleted_at is null",
    )
    .bind(interface)
    .bind(instance)
    .execute(&mut *tx)
    .await?;
    if done.rows_affected() != 1 {
        return Ok(false);
    }
    touch_instance(tx, instance).await?;
    Ok(true)
}

/// The specification of an instance changed: its interfaces are part of it.
async fn touch_instance(tx: &mut Conn, instance: Uuid) -> Result<()> {
    sqlx::query(
        "update instances set generation = generation + 1,
           updated_at = greatest(now(), updated_at + interval '1 microsecond')
         where id = $1",
    )
    .bind(instance)
    .execute(tx)
    .await?;
    Ok(())
}

/// Deletes an interface that is not attached, with its addresses and memberships; a public address is unmapped from it.
/// False if it is attached.
pub async fn delete(tx: &mut Conn, account: Uuid, id: Uuid) -> Result<bool> {
    let held: Option<Option<Uuid>> = sqlx::query_scalar(
        "select instance_id from network_interfaces where id = $2 and account_id = $1 and deleted_at is null for update",
    )
    .bind(account)
    .bind(id)
    .fetch_optional(&mut *tx)
    .await?;
    match held {
        None => return Err(StoreError::NotFound),
        Some(Some(_)) => return Ok(false),
        Some(None) => {}
    }
    sqlx::query("delete from network_interface_security_groups where network_interface_id = $1")
        .bind(id)
        .execute(&mut *tx)
        .await?;
    crate::addresses::unmap(tx, id).await?;
    sqlx::query("update network_interfaces set deleted_at = now() where id = $1")
        .bind(id)
        .execute(tx)
        .await?;
    Ok(true)
}
