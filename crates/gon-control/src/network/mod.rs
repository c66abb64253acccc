//! Role network-controller: turns VPC state into each node's network document.
//!
//! Level-triggered. A doorbell names a VPC or a node; the controller then reads everything about the nodes concerned
//! in one snapshot ([`gon_store::network_document::read`]), resolves it ([`resolve`]) and publishes the result if it
//! differs. Every [`crate::reconcile::SWEEP`] it does the same for every node, so a lost doorbell costs time only.

mod ingest;
pub mod memory;
pub mod resolve;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use gon_bus::Bus;
use gon_cluster::Liveness;
use gon_core::removal;
use gon_proto::NodeNetwork;
use gon_proto::doorbell::Subject;
use gon_store::{Store, StoreError};
use gon_types::DocumentVersion;
use gon_types::id::{NodeId, VpcId};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::documents::{Directory, Documents, NodeError, NodeIdentity, lock};
use crate::lead::{self, Seat};
use crate::relay::Nudge;
use crate::status::{Metrics, Ready};
use memory::NodeMemory;

/// Name of the role where leaders are elected and epochs counted.
pub const ROLE: &str = "network-controller";

/// What a site decides about its networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSettings {
    /// MTU offered to guests: 1500 on one node, less where a tunnel header must fit.
    pub mtu: u16,
    /// DHCP lease, seconds.
    pub lease_seconds: u32,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self { mtu: 1500, lease_seconds: 3600 }
    }
}

/// The network controller. Shared by its loop and by the router that serves its documents.
#[derive(Debug)]
pub struct NetworkController {
    store: Store,
    documents: Documents<NodeNetwork>,
    directory: Directory,
    settings: NetworkSettings,
    nudge: Nudge,
    metrics: Arc<Metrics>,
    seat: Seat,
    memory: Mutex<HashMap<NodeId, NodeMemory>>,
    bus: BusHandle,
}

/// The bus, which has nothing to show.
struct BusHandle(Arc<dyn Bus>);
impl std::fmt::Debug for BusHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bus")
    }
}

impl lead::Controller for NetworkController {
    const SUBJECTS: &'static [Subject] = &[Subject::Vpc, Subject::Node];

    fn seat(&self) -> &Seat {
        &self.seat
    }
    fn store(&self) -> &Store {
        &self.store
    }
    fn bus(&self) -> &dyn Bus {
        &*self.bus.0
    }
    fn assume(&self, epoch: u64) {
        Self::assume(self, epoch);
    }
    async fn round(&self, rung: Option<&BTreeSet<(Subject, Uuid)>>) -> Result<(), StoreError> {
        let Some(rings) = rung else { return self.sweep().await };
        let of = |subject| rings.iter().filter(move |r| r.0 == subject).map(|r| r.1);
        self.refresh_vpcs(&of(Subject::Vpc).collect::<Vec<_>>(), of(Subject::Node).collect()).await
    }
    fn stand_down(&self) {
        self.documents.clear();
    }
}

impl NetworkController {
    /// A controller that does nothing yet. Polls end when `stop` is cancelled.
    #[must_use]
    pub fn new(
        store: Store,
        bus: Arc<dyn Bus>,
        nudge: Nudge,
        settings: NetworkSettings,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            store,
            documents: Documents::new(stop),
            directory: Directory::default(),
            settings,
            nudge,
            metrics,
            seat: Seat::new(ROLE),
            memory: Mutex::default(),
            bus: BusHandle(bus),
        }
    }

    /// Whether it leads and has looked at everything once.
    #[must_use]
    pub fn ready(&self) -> Ready {
        self.seat.ready().clone()
    }

    /// Whether it leads: only then it serves documents and takes reports.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.seat.ready().leads().is_some()
    }

    /// Raises the epoch and leads from now on, without an election: for tests, and for tools that hold the site still.
    pub async fn take_over(&self, holder: &str) -> Result<u64, StoreError> {
        let epoch = gon_store::leader::take_over(&self.store, ROLE, holder).await?;
        self.assume(epoch);
        Ok(epoch)
    }

    /// Believes to lead since `epoch`. Whether that is true, PostgreSQL says at every effect.
    pub fn assume(&self, epoch: u64) {
        lock(&self.memory).clear();
        self.documents.clear();
        self.seat.begin(epoch);
    }

    /// Its documents.
    #[must_use]
    pub fn documents(&self) -> &Documents<NodeNetwork> {
        &self.documents
    }

    /// The node of an identity; [`NodeError::NotLeading`] where nothing is served.
    pub async fn node(&self, identity: &NodeIdentity) -> Result<NodeId, NodeError> {
        if !self.leads() {
            return Err(NodeError::NotLeading);
        }
        let found = self.directory.id(&self.store, identity).await?;
        found.ok_or_else(|| NodeError::UnknownNode(identity.0.to_string()))
    }

    /// Leads until it is told to stop or loses its place.
    pub async fn run(
        &self,
        liveness: &dyn Liveness,
        holder: &str,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        Ok(lead::lead(self, liveness, holder, stop).await?)
    }

    /// Refreshes every node's document.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        let nodes = gon_store::nodes::list(&self.store).await?;
        let silent = crate::compute::silent(&nodes);
        self.metrics.silent_nodes.set(silent.0);
        self.metrics.unknown_instances.set(silent.1);
        for node in nodes {
            self.refresh(NodeId::from_uuid(node.id)).await?;
        }
        Ok(())
    }

    /// Refreshes the documents of nodes that have, or had, a port in one of the VPCs; and of `nodes`.
    pub async fn refresh_vpcs(&self, vpcs: &[Uuid], mut nodes: BTreeSet<Uuid>) -> Result<(), StoreError> {
        let asked = nodes.clone();
        let known = self.documents.nodes();
        if let ([only], false) = (known.as_slice(), vpcs.is_empty()) {
            // A node that joins meanwhile has a doorbell of its own.
            nodes.insert(only.uuid());
        } else if !vpcs.is_empty() {
            {
                let memory = lock(&self.memory);
                let concerned =
                    memory.iter().filter(|(_, m)| vpcs.iter().any(|v| m.concerns(VpcId::from_uuid(*v))));
                nodes.extend(concerned.map(|(node, _)| node.uuid()));
            }
            nodes.extend(gon_store::network_document::nodes_of_vpcs(&self.store, vpcs).await?);
        }
        for node in nodes {
            if asked.contains(&node) || !self.refresh_rules(NodeId::from_uuid(node), vpcs).await? {
                self.refresh(NodeId::from_uuid(node)).await?;
            }
        }
        Ok(())
    }

    /// Publishes the node's document with the rules of its groups as they are now, if nothing else in those VPCs changed since
    /// it was read: of a node with a thousand ports that is the hundredth part to read. False: everything has to be read.
    async fn refresh_rules(&self, node: NodeId, rung: &[Uuid]) -> Result<bool, StoreError> {
        let started = Instant::now();
        let fence = self.seat.fence()?;
        let _turn = self.documents.turn().await;
        let Some(held) = self.documents.latest(node).filter(|held| held.version.epoch == fence.epoch) else {
            return Ok(false);
        };
        let vpcs: Vec<Uuid> = held.content().vpcs.iter().map(|v| v.id.uuid()).collect();
        if rung.iter().any(|vpc| !vpcs.contains(vpc)) {
            return Ok(false);
        }
        let groups = resolve::groups_of_ports(held.content());
        let (stand, rules) = gon_store::network_document::read_rules(&self.store, &vpcs, &groups).await?;
        fence.check(&mut *self.store.conn().await?).await?;
        let Some(document) = resolve::with_rules(held.content(), &stand, &rules)? else { return Ok(false) };
        // Ports stay, so what may be removed stays.
        let version = self.publish(fence.epoch, node, document, held.mass_change_ok, started)?;
        tracing::trace!(%node, %version, "only rules were read");
        Ok(true)
    }

    fn publish(
        &self,
        epoch: u64,
        node: NodeId,
        document: NodeNetwork,
        mass_change_ok: bool,
        started: Instant,
    ) -> Result<DocumentVersion, StoreError> {
        let (version, new) = self
            .documents
            .publish(epoch, node, document, mass_change_ok)
            .map_err(|error| StoreError::Db(gon_store::invalid(error.to_string())))?;
        if new {
            self.metrics.network_documents.inc();
            self.metrics.network_resolve.observe(started.elapsed().as_secs_f64());
            tracing::debug!(%node, %version, took = ?started.elapsed(), "network document published");
        }
        Ok(version)
    }

    /// Reads, resolves and publishes one node's document. Returns the version in force.
    pub async fn refresh(&self, node: NodeId) -> Result<DocumentVersion, StoreError> {
        let started = Instant::now();
        let fence = self.seat.fence()?;
        let _turn = self.documents.turn().await;
        let rows = gon_store::network_document::read(&self.store, node.uuid()).await?;
        // As the instance manager: rows of a leader only.
        fence.check(&mut *self.store.conn().await?).await?;
        let leaving = rows.leaving.clone();
        let document = resolve::document(node, rows, &self.settings)?;
        let ports: BTreeSet<Uuid> = document.ports.iter().map(|p| p.id.uuid()).collect();
        let had = lock(&self.memory).get(&node).and_then(NodeMemory::had);
        let mass_change_ok = self.may_remove(node, had, &ports).await?;
        let vpcs: BTreeSet<VpcId> = document.vpcs.iter().map(|v| v.id).collect();

        let mut memory = lock(&self.memory);
        let version = self.publish(fence.epoch, node, document, mass_change_ok, started)?;
        memory.entry(node).or_default().published(version, ports, vpcs, leaving);
        Ok(version)
    }

    /// Whether a document of these `ports` may remove most of what the node `had`.
    async fn may_remove(
        &self,
        node: NodeId,
        had: Option<BTreeSet<Uuid>>,
        ports: &BTreeSet<Uuid>,
    ) -> Result<bool, StoreError> {
        let Some(had) = had else { return Ok(false) };
        let mut missing: BTreeSet<Uuid> = had.difference(ports).copied().collect();
        let gone = missing.len();
        // What an agent removes unasked needs no permission.
        if !removal::is_meant(gone, true) {
            return Ok(false);
        }
        let asked: Vec<Uuid> = missing.iter().copied().collect();
        let mut conn = self.store.conn().await?;
        for left in gon_store::placement::ports_left(&mut conn, node.uuid(), &asked).await? {
            missing.remove(&left);
        }
        if !missing.is_empty() {
            tracing::error!(%node, count = missing.len(), ?missing, "a node has ports of which there is no row");
        }
        Ok(removal::is_meant(gone, missing.is_empty()))
    }
}
