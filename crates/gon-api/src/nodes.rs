//! Nodes, for operators.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
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
    /// `ready`; `cordoned` or `draining`: it takes no new instances; `unknown` when nobody has heard of it for 15 s: what
    /// runs there is unknown then; `removed`.
    pub state: String,
    /// Whether it takes new instances.
    pub schedulable: bool,
    /// What its operator calls it by.
    pub labels: BTreeMap<String, String>,
    /// Where other nodes reach it.
    pub address: Option<String>,
    /// Its incarnation: reports of an older one change nothing.
    pub epoch: i64,
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
    /// The operation that was begun, in the answer that began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<String>,
}

/// How to empty a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainNode {
    /// Whether to stop what runs there: asked, not cut. Without it, running instances are in the way, and named.
    #[serde(default)]
    pub stop_instances: bool,
}

/// How to remove a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RemoveNode {
    /// `true` gives up what is on a node that is `unknown`: its instances end, and what they had on its disks is lost.
    pub force: Option<String>,
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
    ListNodes {
        /// Those in this state; all but the removed ones unless given.
        state,
    }
}
