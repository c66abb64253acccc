//! What the network controller remembers of a node's documents. Pure; lost with the controller, and harmless to lose.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use gon_core::removal;
use gon_proto::NetworkReport;
use gon_store::network_document::LeavingRow;
use gon_types::DocumentVersion;
use gon_types::id::VpcId;
use uuid::Uuid;

/// The memory of one node.
#[derive(Debug, Default)]
pub struct NodeMemory {
    /// Whether a document is in force.
    was_published: bool,
    /// VPCs of the document in force.
    vpcs: BTreeSet<VpcId>,
    /// Interfaces of the document in force.
    ports: BTreeSet<Uuid>,
    /// The first generation of the current epoch without a port that was there before.
    removed_at: HashMap<Uuid, u64>,
    /// Interfaces whose port is to go.
    leaving: Vec<LeavingRow>,
    /// The last report that was taken in full, and when.
    pub(super) report: Option<(NetworkReport, Instant)>,
    /// How many of its ports are closed.
    pub(super) degraded: i64,
}

impl NodeMemory {
    /// A document of these ports is in force as `version`; those that are `leaving` it no longer has.
    pub fn published(
        &mut self,
        version: DocumentVersion,
        ports: BTreeSet<Uuid>,
        vpcs: BTreeSet<VpcId>,
        leaving: Vec<LeavingRow>,
    ) {
        for port in self.ports.difference(&ports) {
            self.removed_at.insert(*port, version.generation);
        }
        self.removed_at.retain(|port, _| leaving.iter().any(|l| l.id == *port));
        (self.ports, self.vpcs, self.leaving) = (ports, vpcs, leaving);
        self.was_published = true;
    }

    /// Ports that the node had, by our last document and by its last report; `None` while nothing is known of it.
    #[must_use]
    pub fn had(&self) -> Option<BTreeSet<Uuid>> {
        let said = self.report.as_ref().map(|(report, _)| report.ports.iter().map(|p| p.id.uuid()));
        removal::known(self.was_published.then(|| self.ports.iter().copied()), said)
    }

    /// Whether a change of the VPC concerns the node.
    #[must_use]
    pub fn concerns(&self, vpc: VpcId) -> bool {
        self.vpcs.contains(&vpc) || !self.leaving.is_empty()
    }

    /// Instances all of whose ports are gone: left out of the report, which speaks of a document of this epoch that no
    /// longer had them. `latest` is the document in force; only what was published can have been applied.
    #[must_use]
    pub fn gone(&self, epoch: u64, latest: Option<DocumentVersion>, report: &NetworkReport) -> Vec<Uuid> {
        if report.applied.epoch != epoch || latest.is_none_or(|latest| latest < report.applied) {
            return vec![];
        }
        let there: BTreeSet<Uuid> = report.ports.iter().map(|p| p.id.uuid()).collect();
        let mut gone: BTreeMap<Uuid, bool> = BTreeMap::new();
        for leaving in self.leaving.iter().filter(|l| l.awaited) {
            let since = self.removed_at.get(&leaving.id).copied().unwrap_or(1);
            let is_gone = !there.contains(&leaving.id) && report.applied.generation >= since;
            *gone.entry(leaving.instance_id).or_insert(true) &= is_gone;
        }
        gone.into_iter().filter(|(_, all)| *all).map(|(instance, _)| instance).collect()
    }

    /// The network finalizers of these instances went: nobody waits for their ports any longer.
    pub fn freed(&mut self, instances: &[Uuid]) {
        for leaving in &mut self.leaving {
            leaving.awaited &= !instances.contains(&leaving.instance_id);
        }
    }
}
