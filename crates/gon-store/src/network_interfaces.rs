//! Network interfaces as users see them. They are made with their instance ([`crate::instances::launch`]).

use ipnet::IpNet;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::reference::Ref;
use crate::v4::{Host, Mac};
use crate::{Conn, Result, Window};

/// An interface.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct NetworkInterfaceRow {
    /// The interface.
    pub id: Uuid,
    /// Its VPC.
    pub vpc_id: Uuid,
    /// Its subnet.
    pub subnet_id: Uuid,
    /// Its instance.
    pub instance_id: Uuid,
    /// Its slot; 0 is primary.
    pub device_index: i16,
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
}

macro_rules! view {
    () => {
        "select n.id, n.vpc_id, n.subnet_id, n.instance_id, n.device_index, n.private_ip, n.mac_address,
           (select p.address from public_ips p where p.network_interface_id = n.id) as public_ip, n.source_dest_check,
           array(select m.security_group_id from network_interface_security_groups m
                 where m.network_interface_id = n.id order by 1) as security_group_ids,
           n.created_at
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
         order by n.id desc limit $3"
    ))
    .persistent(false)
    .bind(account)
    .bind(window.before)
    .bind(window.limit)
    .bind(filter.vpc)
    .bind(filter.subnet)
    .bind(filter.instance)
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
