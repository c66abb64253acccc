//! Nodes, for operators.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::page::list_query;

/// A node: a server that runs instances.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Node {
    /// `node-…`.
    pub id: String,
    /// The whole id.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// Its zone.
    pub availability_zone: String,
    /// `alive`, or `silent` when it has not reported for 15 s: what runs there is unknown then.
    pub state: String,
    /// Whether it takes instances.
    pub schedulable: bool,
    /// What it lends.
    pub capacity: Resources,
    /// What of it is lent.
    pub used: Resources,
    /// Instances placed there.
    pub instances: i64,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// `system` or `netdev`.
    pub ovs_datapath: String,
    /// Versions of what it runs.
    pub versions: BTreeMap<String, String>,
    /// Images in its store: name to digest.
    pub images: BTreeMap<String, String>,
    /// When it last reported.
    #[serde(with = "time::serde::rfc3339")]
    pub last_report_at: OffsetDateTime,
    /// When it joined.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// Processors, memory, disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Resources {
    /// Processors.
    pub vcpus: i64,
    /// Memory, MiB.
    pub memory_mib: i64,
    /// Disk, GiB.
    pub disk_gib: i64,
}

list_query! {
    /// Nodes.
    ListNodes {}
}
