//! What an agent says of itself: to the process it runs in, which serves it on the agent's port.
//!
//! The numbers are a snapshot that the agent replaces whole.

use gon_types::DocumentVersion;
use serde::Serialize;

use crate::container::ContainerStatus;
use crate::hypervisor::HypervisorStatus;
use crate::storage::{Integrity, StorageStatus};

/// A number for the metrics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// Whether it only ever grows.
    pub counter: bool,
    /// Its value.
    pub value: f64,
}

fn gauge(name: &'static str, help: &'static str, value: u64) -> Sample {
    Sample { name, help, counter: false, value: value as f64 }
}
fn counter(name: &'static str, help: &'static str, value: u64) -> Sample {
    Sample { name, help, counter: true, value: value as f64 }
}

/// How the network agent is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NetworkStatus {
    /// Whether the data plane is what the last document says.
    pub ready: bool,
    /// `system` or `netdev`, once known.
    pub datapath: Option<String>,
    /// The version of Open vSwitch, once known.
    pub ovs_version: Option<String>,
    /// The document in force.
    pub applied: DocumentVersion,
    /// Its ports.
    pub ports: usize,
    /// Those of them that are not in order.
    pub degraded: usize,
    /// Its flows.
    pub flows: usize,
    /// How often the switch had to be found again.
    pub restores: u64,
    /// Flows and ports that an audit found wrong, ever.
    pub repairs: u64,
    /// How long the last document took from its arrival until the switch had confirmed its flows, microseconds.
    pub wired_us: u64,
    /// The same until it was on the disk and its ports were up.
    pub settled_us: u64,
    /// What is wrong, if something is.
    pub error: Option<String>,
    /// How often the loop of the role went round; one that stands still is not alive.
    pub rounds: u64,
}

impl NetworkStatus {
    /// For the metrics.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        vec![
            gauge(
                "gon_network_ready",
                "Whether the data plane is what the last document says",
                u64::from(self.ready),
            ),
            gauge("gon_network_ports", "Ports of the document in force", self.ports as u64),
            gauge("gon_network_ports_degraded", "Ports that are not in order", self.degraded as u64),
            gauge("gon_network_flows", "Flows of the document in force", self.flows as u64),
            gauge("gon_document_epoch", "Leader epoch of the document in force", self.applied.epoch),
            gauge("gon_document_generation", "Generation of the document in force", self.applied.generation),
            gauge(
                "gon_network_document_wired_microseconds",
                "From the last document's arrival to its flows",
                self.wired_us,
            ),
            gauge(
                "gon_network_document_settled_microseconds",
                "From the last document's arrival to all of it",
                self.settled_us,
            ),
            counter("gon_network_restores_total", "Times the switch had to be found again", self.restores),
            counter("gon_network_repairs_total", "Flows and ports that an audit found wrong", self.repairs),
            counter("gon_loop_rounds_total", "Rounds of the role's loop", self.rounds),
        ]
    }
}

impl HypervisorStatus {
    /// For the metrics.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let accelerated = self.accelerator.as_deref() == Some("kvm");
        vec![
            gauge("gon_hypervisor_instances", "Instances on this node", self.instances as u64),
            gauge("gon_hypervisor_instances_running", "Those that run", self.running as u64),
            gauge(
                "gon_hypervisor_instances_troubled",
                "Those that failed, or of which nothing can be told",
                self.troubled as u64,
            ),
            gauge("gon_hypervisor_accelerated", "Whether KVM has proved itself", u64::from(accelerated)),
            gauge("gon_document_epoch", "Leader epoch of the document it works from", self.accepted.epoch),
            gauge(
                "gon_document_generation",
                "Generation of the document it works from",
                self.accepted.generation,
            ),
            counter("gon_reports_total", "Reports that the instance manager took", self.reports),
            counter("gon_loop_rounds_total", "Rounds of the role's loop", self.rounds),
        ]
    }
}

impl ContainerStatus {
    /// For the metrics.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        vec![
            gauge("gon_container_docker_up", "Whether Docker answers", u64::from(self.docker.is_some())),
            counter("gon_loop_rounds_total", "Rounds of the role's loop", self.rounds),
        ]
    }
}

impl StorageStatus {
    /// For the metrics.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let verified = self.images.iter().filter(|i| i.integrity == Integrity::Verified).count();
        vec![
            gauge("gon_storage_images", "Images in the store", self.images.len() as u64),
            gauge("gon_storage_images_verified", "Those whose digests are right", verified as u64),
            gauge("gon_storage_images_damaged", "Those of which one is not", self.damaged().count() as u64),
            gauge("gon_storage_disk_bytes", "Size of the store's file system", self.total_bytes),
            gauge("gon_storage_disk_free_bytes", "What may still be written to it", self.free_bytes),
            counter("gon_loop_rounds_total", "Rounds of the role's loop", self.rounds),
        ]
    }
}
