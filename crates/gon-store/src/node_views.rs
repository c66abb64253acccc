//! Nodes as operators see them.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

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
    /// Whether it takes instances.
    pub schedulable: bool,
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

/// Every node of the site.
pub async fn list(conn: &mut Conn, window: Window) -> Result<Vec<NodeViewRow>> {
    Ok(sqlx::query_as(
        "select n.id, n.name, n.availability_zone, n.schedulable, n.capacity_vcpus, n.capacity_memory_mib,
           n.capacity_disk_gib, n.used_vcpus, n.used_memory_mib, n.used_disk_gib, n.accelerator, n.ovs_datapath,
           n.versions, n.images, (select count(*) from instances i where i.node_id = n.id) as instances,
           n.last_report_at, n.created_at
         from nodes n where $1::uuid is null or n.id < $1 order by n.id desc limit $2",
    )
    .persistent(false)
    .bind(window.before)
    .bind(window.limit)
    .fetch_all(conn)
    .await?)
}
