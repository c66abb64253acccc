//! `NodeCompute`: every instance a node should know, running or not.
//!
//! Level-triggered: `power` says what should be, `reboot_seq` counts reboots ever asked for. The agent's journal holds
//! what it has done.

use gon_types::id::{ImageId, InstanceId, NetworkInterfaceId, NodeId, OperationId};
use gon_types::{DocumentVersion, Generation, MacAddr};
use serde::{Deserialize, Serialize};

/// The whole desired compute state of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeCompute {
    /// [`crate::FORMAT`] of the writer.
    pub format: u32,
    /// The node this document is for; another node refuses it.
    pub node: NodeId,
    /// Its place in the order of this node's compute documents.
    pub version: DocumentVersion,
    /// Whether removing most of the node's instances is meant (rule R11).
    pub mass_change_ok: bool,
    /// By id. An instance stays here, `terminated`, until the node has reported it gone. One that is missing without
    /// ever having been `terminated` is reported, never killed.
    pub instances: Vec<InstanceSpec>,
}

impl NodeCompute {
    /// Says it in this format. Format 2 has no word for an instance that runs by grant only ([`InstanceSpec::fence`]): it is
    /// left out, since an agent of that format would run it without.
    pub fn speak(&mut self, format: u32) {
        self.format = format;
        if format < 3 {
            self.instances.retain(|instance| instance.fence.is_none());
        }
    }
}

/// What an instance's power should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerSpec {
    /// On.
    Running,
    /// Off, disks kept.
    Stopped,
    /// Off, and everything of it on this node removed.
    Terminated,
}

/// An instance on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceSpec {
    /// Which instance.
    pub id: InstanceId,
    /// Counts changes of this specification.
    pub generation: Generation,
    /// Counts placements: an agent that has seen a higher one refuses this (rule R5).
    pub placement_epoch: u64,
    /// What its power should be.
    pub power: PowerSpec,
    /// Whether a stop skips asking the guest.
    pub force: bool,
    /// How many reboots have ever been asked for; one more than the journal's is one to do.
    pub reboot_seq: u64,
    /// How long a guest may take to power itself off before it is cut, seconds.
    pub stop_grace_seconds: u32,
    /// Virtual processors.
    pub vcpus: u16,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// What it boots.
    pub image: ImageSpec,
    /// User and group id its QEMU runs as: unique on the node.
    pub run_as_uid: u32,
    /// Interfaces in slot order; slot 0 is primary.
    pub nics: Vec<NicSpec>,
    /// Disks in slot order; slot 0 is the root, made from the image. Empty for images that run from memory.
    pub disks: Vec<DiskSpec>,
    /// Set for an instance that is recovered on another node when this one is lost: it runs here only by a grant of this
    /// epoch of the node ([`crate::grant`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// The request that last asked for a change of it, as far as it is known: for logs. Decides nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// By what name logs speak of a change, from the API to the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The request's: `req-…`.
    pub request_id: String,
    /// The operation's.
    pub operation: OperationId,
}

/// The image an instance was launched from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// Which image.
    pub id: ImageId,
    /// Its directory name in the node's image store (`gon-linux`): `[a-z0-9.-]+`.
    pub name: String,
    /// The manifest's recipe digest at registration; a node that has another says so and does not start it.
    pub digest: String,
}

/// An interface of the guest; the port itself is in the network document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NicSpec {
    /// Which interface.
    pub id: NetworkInterfaceId,
    /// Name of the tap device; that it exists and is up is the sign that its policy is in force.
    pub device: String,
    /// The guest's Ethernet address.
    pub mac: MacAddr,
    /// MTU offered to the guest.
    pub mtu: u16,
}

/// A disk of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// Size in GiB; never below the image's.
    pub size_gib: u32,
}
