//! What nodes say back. A report never changes what should be; it is taken only if its node epoch is the current one,
//! and each part only if its generation is not older than what is recorded.

use gon_types::id::{InstanceId, NetworkInterfaceId, NodeId, VpcId};
use gon_types::{DocumentVersion, Generation};
use serde::{Deserialize, Serialize};

/// From the network agent, after each applied document and once per interval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkReport {
    /// [`crate::FORMAT`] of the writer.
    pub format: u32,
    /// Who reports.
    pub node: NodeId,
    /// The document whose state is in force in the switch, confirmed by a barrier.
    pub applied: DocumentVersion,
    /// The generation in force of each VPC in that document.
    pub vpcs: Vec<VpcReport>,
    /// Every port the node has, also those it is about to remove.
    pub ports: Vec<PortReport>,
    /// Its end of the tunnels to other nodes; `None` if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<OverlayReport>,
}

/// A node's end of the tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlayReport {
    /// Its address on the underlay.
    pub address: std::net::Ipv4Addr,
    /// MTU of the underlay there.
    pub mtu: u16,
}

/// One VPC on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VpcReport {
    /// Which VPC.
    pub id: VpcId,
    /// The generation in force.
    pub generation: Generation,
}

/// One port on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortReport {
    /// Which interface.
    pub id: NetworkInterfaceId,
    /// How it is.
    pub status: PortStatus,
}

/// How a port is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PortStatus {
    /// Its policy is in force and its device is up.
    Ready,
    /// Closed: nothing passes, for this reason; its neighbours are unaffected.
    Degraded {
        /// One line for the operator.
        reason: String,
    },
}

/// From the hypervisor agent, on every change and once per interval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComputeReport {
    /// [`crate::FORMAT`] of the writer.
    pub format: u32,
    /// Who reports.
    pub node: NodeId,
    /// The document it works from.
    pub accepted: DocumentVersion,
    /// Every instance the node knows of.
    pub instances: Vec<InstanceReport>,
    /// The node's epoch as it was told; a report of one that is over changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_epoch: Option<u64>,
}

/// One instance on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceReport {
    /// Which instance.
    pub id: InstanceId,
    /// The generation of its specification that this speaks of.
    pub generation: Generation,
    /// The placement that this speaks of.
    pub placement_epoch: u64,
    /// What was seen.
    pub observed: ObservedInstance,
    /// Reboots done.
    pub reboot_seq: u64,
    /// One line for the user when something went wrong.
    pub reason: Option<String>,
}

/// What a node sees of an instance. `Unknown` is a value: it is said, never left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObservedInstance {
    /// Being prepared or started.
    Starting,
    /// The guest's processors run.
    Running,
    /// The guest was asked to power off.
    Stopping,
    /// Off; its disks are here.
    Stopped,
    /// Off because the guest powered itself off, not because we asked.
    ShutDownByGuest,
    /// Nothing of it is left on this node.
    Gone,
    /// It could not be started, for `reason`; nothing of it runs.
    Failed,
    /// It cannot be told at the moment.
    Unknown,
}

/// From the instance-side agents at start and once per interval: what the node is and has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeReport {
    /// [`crate::FORMAT`] of the writer.
    pub format: u32,
    /// The node's name, unique in the site.
    pub name: String,
    /// Its availability zone.
    pub availability_zone: String,
    /// Processors it can lend.
    pub vcpus: u32,
    /// Memory it can lend, MiB.
    pub memory_mib: u64,
    /// Disk it can lend, GiB.
    pub disk_gib: u64,
    /// `kvm` or `tcg`, proved by a boot, not by a device node.
    pub accelerator: String,
    /// `system` or `netdev`.
    pub ovs_datapath: String,
    /// Versions of what it runs (`gond`, `qemu`, `openvswitch`, `kernel`).
    pub versions: std::collections::BTreeMap<String, String>,
    /// Images in its store, by name.
    pub images: std::collections::BTreeMap<String, ImageReport>,
    /// What its operator calls it by (`rack=3`).
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Where other nodes reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<std::net::IpAddr>,
    /// Which boot of its kernel this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<uuid::Uuid>,
    /// Who it was told that it is, if it ever was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Its epoch as it was told then: of one that is over, this report changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
}

/// An image in a node's store, as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageReport {
    /// The recipe digest, 64 hex digits: another digest is another image.
    pub digest: String,
    /// How it boots.
    pub kind: ImageKind,
    /// The least memory that boots it, MiB.
    pub min_memory_mib: u32,
    /// Virtual size of its root disk, GiB, rounded up; 0 for images that run from memory.
    pub disk_gib: u32,
    /// One line for people.
    pub description: String,
    /// `x86_64`.
    pub architecture: String,
}

/// How an image boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageKind {
    /// A kernel and an initramfs, from memory.
    Initramfs,
    /// A disk image.
    Disk,
}

/// The answer to a [`NodeReport`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeAnswer {
    /// Who the node is, by its name; kept by the node from its first report on.
    pub node: NodeId,
    /// Its incarnation: raised when the node is declared dead (the fencing token).
    pub epoch: u64,
}
