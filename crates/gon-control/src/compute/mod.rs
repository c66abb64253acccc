//! Role instance-manager: places instances, serves each node's compute document, and makes what the nodes report
//! visible.
//!
//! Level-triggered like the network controller. A round places what waits for a node, finishes what is terminated and
//! has nothing left anywhere, and publishes the documents of the nodes concerned.

pub mod ingest;
pub mod place;
pub mod resolve;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use gon_bus::Bus;
use gon_cluster::{Alive, Liveness};
use gon_proto::doorbell::Subject;
use gon_proto::{ComputeReport, NodeCompute};
use gon_store::nodes::NodeRow;
use gon_store::{Store, StoreError};
use gon_types::id::NodeId;
use gon_types::{DocumentVersion, crash};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::documents::{Directory, Documents, NodeError, NodeIdentity, lock};
use crate::reconcile::{Bell, Wake};
use crate::relay::Nudge;
use crate::status::{Metrics, Ready, turning};

/// Name of the role where leaders are elected and epochs counted.
pub const ROLE: &str = "instance-manager";
/// How many instances are placed or finished in one transaction.
const BATCH: i64 = 64;
/// How often expired rows are removed.
const PRUNE: Duration = Duration::from_secs(300);

/// What a site decides about its instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComputeSettings {
    /// How long a guest may take to power itself off before it is cut, seconds.
    pub stop_grace_seconds: u32,
    /// MTU offered to guests; the network controller's.
    pub mtu: u16,
    /// How long an instance waits for a node before it is terminated with the reason, as EC2 does at once.
    pub placement_patience: Duration,
}

impl Default for ComputeSettings {
    fn default() -> Self {
        Self { stop_grace_seconds: 60, mtu: 1500, placement_patience: Duration::from_secs(600) }
    }
}

/// Silent nodes and how many instances are on them: what is known of those is old (rule S32: unknown within 15 s).
pub(crate) fn silent(nodes: &[NodeRow]) -> (i64, i64) {
    let limit = OffsetDateTime::now_utc() - gon_cluster::NODE_TTL;
    let silent = nodes.iter().filter(|n| n.last_report_at < limit);
    silent.fold((0, 0), |(count, instances), n| (count + 1, instances + n.instances))
}

/// Whether a document of these rows may remove most of a node (rule R11). As with ports: what an agent holds and this
/// document does not ask to run is here as terminated.
#[must_use]
pub fn mass_change_ok(rows: &[gon_store::compute_document::InstanceRow]) -> bool {
    rows.iter().filter(|r| r.power == "terminated").count() > 3
}

/// The instance manager. Shared by its loop and by the router that serves its documents.
pub struct InstanceManager {
    store: Store,
    bus: Arc<dyn Bus>,
    documents: Documents<NodeCompute>,
    directory: Directory,
    settings: ComputeSettings,
    nudge: Nudge,
    metrics: Arc<Metrics>,
    ready: Ready,
    epoch: AtomicU64,
    /// The last report of each node that was taken in full, and when.
    reports: Mutex<HashMap<NodeId, (ComputeReport, Instant)>>,
}

impl std::fmt::Debug for InstanceManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstanceManager").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl InstanceManager {
    /// A manager that does nothing yet. Polls end when `stop` is cancelled.
    #[must_use]
    pub fn new(
        store: Store,
        bus: Arc<dyn Bus>,
        nudge: Nudge,
        settings: ComputeSettings,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            store,
            bus,
            documents: Documents::new(stop),
            directory: Directory::default(),
            settings,
            nudge,
            metrics,
            ready: Ready::default(),
            epoch: AtomicU64::new(0),
            reports: Mutex::default(),
        }
    }

    /// Whether it leads and has looked at everything once.
    #[must_use]
    pub fn ready(&self) -> Ready {
        self.ready.clone()
    }

    /// Its documents.
    #[must_use]
    pub fn documents(&self) -> &Documents<NodeCompute> {
        &self.documents
    }

    /// The node of an identity.
    pub async fn node(&self, identity: &NodeIdentity) -> Result<NodeId, NodeError> {
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
        let alive = liveness.nodes().await;
        loop {
            let leadership = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                won = turning(&self.ready, liveness.campaign(ROLE, holder)) => won.context("campaigning")?,
            };
            let led = tokio::select! {
                led = self.lead(&alive, holder, stop.clone()) => led,
                () = leadership.lost() => {
                    tracing::warn!(role = ROLE, "leadership lost");
                    Ok(())
                }
            };
            self.ready.set(false);
            self.ready.lead(None);
            led?;
            if stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    async fn lead(
        &self,
        alive: &watch::Receiver<Alive>,
        holder: &str,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let epoch = gon_store::leader::take_over(&self.store, ROLE, holder).await.context("taking over")?;
        lock(&self.reports).clear();
        self.epoch.store(epoch, Ordering::Release);
        self.ready.lead(Some(epoch));
        tracing::info!(role = ROLE, epoch, "leading");
        let mut bell = Bell::listen(&*self.bus, &[Subject::Instance, Subject::Node], stop).await?;
        let mut pruned: Option<Instant> = None;
        loop {
            let wake = bell.wait().await;
            self.ready.turn();
            let rung = match &wake {
                Wake::Stop => return Ok(()),
                Wake::Sweep => None,
                Wake::Rung(rings) => Some(rings),
            };
            // A new value, so that the watch is not held across a wait.
            let alive = alive.borrow().names.clone();
            let result = self.round(rung, &alive).await;
            match result {
                Ok(()) => {
                    if rung.is_none() {
                        self.ready.set(true);
                    }
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a round failed");
                    bell.again_within(Duration::from_secs(1));
                }
            }
            if rung.is_none() && pruned.is_none_or(|at| at.elapsed() >= PRUNE) {
                self.prune().await;
                pruned = Some(Instant::now());
            }
        }
    }

    /// Places, finishes, publishes. `rung` says where to look; `None` is everywhere.
    pub async fn round(
        &self,
        rung: Option<&BTreeSet<(Subject, Uuid)>>,
        alive: &BTreeSet<String>,
    ) -> Result<(), StoreError> {
        let mut nodes: BTreeSet<Uuid> = BTreeSet::new();
        match rung {
            None => {
                let all = gon_store::nodes::list(&self.store).await?;
                nodes.extend(all.iter().map(|n| n.id));
            }
            Some(rings) => {
                let instances: Vec<Uuid> =
                    rings.iter().filter(|r| r.0 == Subject::Instance).map(|r| r.1).collect();
                nodes.extend(rings.iter().filter(|r| r.0 == Subject::Node).map(|r| r.1));
                if !instances.is_empty() {
                    let touched =
                        gon_store::compute_document::nodes_of_instances(&self.store, &instances).await?;
                    nodes.extend(touched);
                }
            }
        }
        // What users asked for first: documents go out before slower work.
        nodes.extend(self.place(alive).await?);
        for node in nodes {
            self.refresh(NodeId::from_uuid(node)).await?;
        }
        self.finish().await?;
        if rung.is_none() {
            self.metrics.unplaced.set(gon_store::placement::waiting(&self.store).await?);
        }
        Ok(())
    }

    /// Reads, resolves and publishes one node's document. Returns the version in force.
    pub async fn refresh(&self, node: NodeId) -> Result<DocumentVersion, StoreError> {
        let epoch = self.epoch.load(Ordering::Acquire);
        let rows = gon_store::compute_document::read(&self.store, node.uuid()).await?;
        let mass_change_ok = mass_change_ok(&rows);
        let document = resolve::document(node, rows, &self.settings)?;
        let (version, new) = self
            .documents
            .publish(epoch, node, document, mass_change_ok)
            .map_err(|error| StoreError::Db(gon_store::invalid(error.to_string())))?;
        if new {
            self.metrics.compute_documents.inc();
            tracing::debug!(%node, %version, "compute document published");
        }
        Ok(version)
    }

    /// Turns instances that have nothing left anywhere into tombstones.
    async fn finish(&self) -> Result<(), StoreError> {
        loop {
            let mut tx = self.store.begin().await?;
            let ids = gon_store::placement::lock_finishable(&mut tx, BATCH).await?;
            if ids.is_empty() {
                return Ok(());
            }
            for id in &ids {
                crash::point("D16:before");
                gon_store::placement::finish(&mut tx, *id).await?;
                crash::point("D16:after");
            }
            crash::point("D17:before");
            gon_store::commit(tx).await?;
            crash::point("D17:after");
            self.nudge.nudge();
            tracing::info!(count = ids.len(), "instances terminated");
            if (ids.len() as i64) < BATCH {
                return Ok(());
            }
        }
    }

    async fn prune(&self) {
        for (what, result) in gon_store::prune::round(&self.store).await {
            match result {
                Ok(0) => {}
                Ok(count) => tracing::debug!(what, count, "expired rows removed"),
                Err(error) => {
                    tracing::warn!(what, error = &error as &dyn std::error::Error, "expired rows stay");
                }
            }
        }
    }
}
