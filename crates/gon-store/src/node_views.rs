//! Nodes as operators see them.

use ipnet::IpNet;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::reference::Ref;
use crate::{Conn, Result, Window};

/// A node.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct NodeViewRow {
    /// The node.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its zone.
    pub availability_zone: String,
    /// `ready`, `cordoned`, `draining`, `unknown` or `removed`.
    pub state: String,
    /// What its operator calls it by.
    pub labels: Value,
    /// Where other nodes reach it.
    pub address: Option<IpNet>,
    /// Its incarnation.
    pub epoch: i64,
    /// Processors it lends.
    pub capacity_vcpus: i32,
    /// Memory it lends, MiB.
    pub capacity_memory_mib: i64,
    /// Disk it lends, GiB.
    pub capacity_disk_gib: i64,
    /// Processors lent.
    pub used_vcpus: i32,
    /// Memory lent, MiB.
    pub used_memory_mib: i64,
    /// Disk lent, GiB.
    pub used_disk_gib: i64,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// `system` or `netdev`.
    pub ovs_datapath: String,
    /// Versions of what it runs.
    pub versions: Value,
    /// Image name to digest.
    pub images: Value,
    /// How many instances are placed there.
    pub instances: i64,
    /// When it last reported.
    pub last_report_at: OffsetDateTime,
    /// When it joined.
    pub created_at: OffsetDateTime,
}

macro_rules! view {
    () => {
        "select n.id, n.name, n.availability_zone,
           node_state(n.removed_at, n.draining_at, n.cordoned_at, n.last_report_at) as state, n.labels, n.address,
           n.epoch, n.capacity_vcpus, n.capacity_memory_mib, n.capacity_disk_gib, n.used_vcpus, n.used_memory_mib,
           n.used_disk_gib, n.accelerator, n.ovs_datapath, n.versions, n.images,
           (select count(*) from instances i where i.node_id = n.id) as instances, n.last_report_at, n.created_at
         from nodes n "
    };
}

/// Nodes of the site: those in this state, or all that were not removed.
pub async fn list(conn: &mut Conn, state: Option<&str>, window: Window) -> Result<Vec<NodeViewRow>> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where ($1::uuid is null or n.id < $1) and case when $3::text is null then n.removed_at is null
           else node_state(n.removed_at, n.draining_at, n.cordoned_at, n.last_report_at) = $3 end
         order by n.id desc limit $2"
    ))
    .persistent(false)
    .bind(window.before)
    .bind(window.limit)
    .bind(state)
    .fetch_all(conn)
    .await?)
}

/// One node, also one that was removed.
pub async fn get(conn: &mut Conn, id: &Ref) -> Result<NodeViewRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where n.id = coalesce($1, (select id from nodes where short_id = $2))"
    ))
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(conn)
    .await?)
}
