//! Role instance-manager: places instances, serves each node's compute document, and makes what the nodes report
//! visible.
//!
//! Level-triggered like the network controller. A round places what waits for a node, finishes what is terminated and
//! has nothing left anywhere, and publishes the documents of the nodes concerned.

mod drain;
pub mod ingest;
pub mod place;
pub mod recover;
pub mod resolve;

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gon_bus::Bus;
use gon_cluster::{Alive, Liveness};
use gon_core::placement::Numbers;
use gon_core::placement::Waiting;
use gon_core::removal;
use gon_proto::doorbell::Subject;
use gon_proto::{ComputeReport, NodeCompute, Origin};
use gon_store::nodes::NodeRow;
use gon_store::{Store, StoreError};
use gon_types::id::{InstanceId, NodeId};
use gon_types::{DocumentVersion, crash};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::documents::{Directory, Documents, NodeError, NodeIdentity, lock};
use crate::lead::{self, Seat};
use crate::relay::Nudge;
use crate::status::{Metrics, Ready};

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
    let silent = nodes.iter().filter(|n| n.silent);
    silent.fold((0, 0), |(count, instances), n| (count + 1, instances + n.instances))
}

/// Whether a document of these rows may remove most of a node: [`removal::is_meant`] of those that are to end and of those
/// that are `missing`; `None` if one of these is not explained.
#[must_use]
pub fn mass_change_ok(rows: &[gon_store::compute_document::InstanceRow], missing: Option<usize>) -> bool {
    let ending = rows.iter().filter(|r| r.power == "terminated").count();
    missing.is_some_and(|missing| removal::is_meant(ending + missing, true))
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
    seat: Seat,
    /// The last report of each node that was taken in full, and when.
    reports: Mutex<HashMap<NodeId, (ComputeReport, Instant)>>,
    /// Numbers in use on a node, and perhaps some that no longer are ([`place`]).
    numbers: Mutex<HashMap<Uuid, Numbers>>,
    /// How long instances have waited for a node, counted from `born`.
    waiting: Mutex<Waiting>,
    born: Instant,
    recovery: Mutex<recover::Recovery>,
    /// What nodes have that the restored database has forgotten.
    forgotten: Mutex<HashMap<NodeId, BTreeSet<Uuid>>>,
}

impl std::fmt::Debug for InstanceManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstanceManager").field("seat", &self.seat).finish_non_exhaustive()
    }
}

/// The instance manager with what it needs to lead.
struct OnDuty<'a> {
    manager: &'a InstanceManager,
    alive: watch::Receiver<Alive>,
    holder: &'a str,
    /// When expired rows were last removed.
    pruned: Mutex<Option<Instant>>,
}

impl lead::Controller for OnDuty<'_> {
    const SUBJECTS: &'static [Subject] = &[Subject::Instance, Subject::Node];

    fn seat(&self) -> &Seat {
        &self.manager.seat
    }
    fn store(&self) -> &Store {
        &self.manager.store
    }
    fn bus(&self) -> &dyn Bus {
        &*self.manager.bus
    }
    fn assume(&self, epoch: u64) {
        *lock(&self.pruned) = None;
        self.manager.assume(epoch);
    }
    async fn round(&self, rung: Option<&BTreeSet<(Subject, Uuid)>>) -> Result<(), StoreError> {
        // A new value, so that the watch is not held across a wait. A stale set vouches for nobody: then only a node's
        // own reports count.
        let alive =
            Some(self.alive.borrow()).filter(|a| !a.stale).map(|a| a.names.clone()).unwrap_or_default();
        self.manager.round(rung, &alive).await
    }
    async fn swept(&self) {
        if lock(&self.pruned).is_none_or(|at| at.elapsed() >= PRUNE) {
            self.manager.prune().await;
            *lock(&self.pruned) = Some(Instant::now());
        }
    }
    async fn besides(&self) -> Infallible {
        self.manager.work(self.holder, &self.alive).await
    }
    fn stand_down(&self) {
        self.manager.documents.clear();
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
            seat: Seat::new(ROLE),
            reports: Mutex::default(),
            numbers: Mutex::default(),
            waiting: Mutex::default(),
            born: Instant::now(),
            recovery: Mutex::default(),
            forgotten: Mutex::default(),
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
        lock(&self.reports).clear();
        lock(&self.numbers).clear();
        lock(&self.waiting).clear();
        lock(&self.recovery).clear();
        lock(&self.forgotten).clear();
        self.documents.clear();
        self.seat.begin(epoch);
    }

    /// Its documents.
    #[must_use]
    pub fn documents(&self) -> &Documents<NodeCompute> {
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
        let alive = liveness.nodes().await;
        let on_duty = OnDuty { manager: self, alive, holder, pruned: Mutex::default() };
        Ok(lead::lead(&on_duty, liveness, holder, stop).await?)
    }

    /// Places, finishes, publishes. `rung` says where to look; `None` is everywhere.
    pub async fn round(
        &self,
        rung: Option<&BTreeSet<(Subject, Uuid)>>,
        alive: &BTreeSet<String>,
    ) -> Result<(), StoreError> {
        // What users wait for first: nothing is asked before instances have their nodes and these are told, and documents
        // go out before slower work.
        let placed = self.place(alive).await?;
        let told = self.refresh_all(&placed.nodes).await;
        if placed.doorbells {
            // Those who hear of it by the bus take processors from the node that does the work.
            self.nudge.nudge();
        }
        told?;
        let is_placed =
            |ring: &(Subject, Uuid)| ring.0 == Subject::Instance && placed.instances.contains(&ring.1);
        if rung.is_some_and(|rings| rings.iter().all(is_placed)) {
            return Ok(());
        }
        let mut nodes = BTreeSet::new();
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
        // Those that were told just now were told of all that was rung for: it was committed before.
        self.refresh_all(nodes.difference(&placed.nodes)).await?;
        self.finish().await?;
        if rung.is_none() {
            self.metrics.unplaced.set(gon_store::placement::waiting(&self.store).await?);
        }
        Ok(())
    }

    async fn refresh_all(&self, nodes: impl IntoIterator<Item = &Uuid>) -> Result<(), StoreError> {
        for node in nodes {
            self.refresh(NodeId::from_uuid(*node)).await?;
        }
        Ok(())
    }

    /// Reads, resolves and publishes one node's document. Returns the version in force.
    pub async fn refresh(&self, node: NodeId) -> Result<DocumentVersion, StoreError> {
        let fence = self.seat.fence()?;
        let _turn = self.documents.turn().await;
        // It led when it read. One that was deposed might have read later than its successor, and its newer rows in an
        // older document would be undone by the successor's older rows in a newer one.
        let rows = gon_store::compute_document::read(&self.store, fence, node.uuid()).await?;
        let mass_change_ok = mass_change_ok(&rows, self.missing(node, &rows).await?);
        let mut document = resolve::document(node, rows, &self.settings)?;
        let news = self.remember_origins(node, &mut document);
        let (version, new) = self
            .documents
            .publish(fence.epoch, node, document, mass_change_ok)
            .map_err(|error| StoreError::Db(gon_store::invalid(error.to_string())))?;
        if new {
            self.metrics.compute_documents.inc();
            tracing::debug!(%node, %version, "compute document published");
        }
        for (instance, origin) in news {
            let (request_id, operation_id) = (origin.request_id, origin.operation);
            tracing::info!(request_id, %operation_id, %instance, %node, %version, "its node is told");
        }
        Ok(version)
    }

    /// Lets instances without an open operation keep the one they were last told of: that it ended is no news for their
    /// node. Returns those for which there is one that the node has not been told of.
    fn remember_origins(&self, node: NodeId, document: &mut NodeCompute) -> Vec<(InstanceId, Origin)> {
        let told: HashMap<InstanceId, Origin> = self
            .documents
            .look(node, |told| {
                told.instances.iter().filter_map(|i| Some((i.id, i.origin.clone()?))).collect()
            })
            .unwrap_or_default();
        let mut news = Vec::new();
        for instance in &mut document.instances {
            match (&instance.origin, told.get(&instance.id)) {
                (None, before) => instance.origin = before.cloned(),
                (Some(now), Some(before)) if now == before => {}
                (Some(now), _) => news.push((instance.id, now.clone())),
            }
        }
        news
    }

    /// The request that last changed an instance, as far as its node has been told.
    fn origin(&self, node: NodeId, instance: InstanceId) -> Option<Origin> {
        self.documents
            .look(node, |told| told.instances.iter().find(|i| i.id == instance)?.origin.clone())
            .flatten()
    }

    /// How much of what the node had, by our last document and by its last report, is not in `rows`; `None` if PostgreSQL
    /// does not say of each that it left, or while we know nothing of the node.
    async fn missing(
        &self,
        node: NodeId,
        rows: &[gon_store::compute_document::InstanceRow],
    ) -> Result<Option<usize>, StoreError> {
        let told: Option<Vec<Uuid>> = self
            .documents
            .look(node, |document| document.instances.iter().map(|instance| instance.id.uuid()).collect());
        let said: Option<Vec<Uuid>> = lock(&self.reports).get(&node).map(|(report, _)| {
            let there = report.instances.iter().filter(|i| i.observed != gon_proto::ObservedInstance::Gone);
            there.map(|i| i.id.uuid()).collect()
        });
        let Some(mut missing) = removal::known(told, said) else { return Ok(None) };
        for row in rows {
            missing.remove(&row.id);
        }
        let count = missing.len();
        if count == 0 {
            self.report_forgotten(node, BTreeSet::new());
            return Ok(Some(0));
        }
        let mut conn = self.store.conn().await?;
        let asked: Vec<Uuid> = missing.iter().copied().collect();
        for left in gon_store::placement::left(&mut conn, node.uuid(), &asked).await? {
            missing.remove(&left);
        }
        let asked: Vec<Uuid> = missing.iter().copied().collect();
        let mut forgotten = BTreeSet::new();
        if !asked.is_empty() {
            forgotten.extend(gon_store::restoration::forgotten(&mut conn, &asked).await?);
        }
        missing.retain(|id| !forgotten.contains(id));
        self.report_forgotten(node, forgotten);
        if !missing.is_empty() {
            tracing::error!(%node, count = missing.len(), ?missing, "a node has instances of which there is no row");
        }
        Ok(missing.is_empty().then_some(count))
    }

    /// Says what a node has that the restored database has forgotten. Nobody ends it but an operator.
    fn report_forgotten(&self, node: NodeId, forgotten: BTreeSet<Uuid>) {
        let mut all = lock(&self.forgotten);
        let before = all.insert(node, forgotten.clone()).unwrap_or_default();
        let count = all.values().map(BTreeSet::len).sum::<usize>();
        drop(all);
        self.metrics.forgotten.set(i64::try_from(count).unwrap_or(i64::MAX));
        for id in forgotten.difference(&before) {
            let instance = InstanceId::from_uuid(*id);
            tracing::warn!(%node, %instance, uuid = %id,
                "a node has an instance that the restored database has forgotten: it is left alone");
        }
    }

    /// Turns instances that have nothing left anywhere into tombstones.
    async fn finish(&self) -> Result<(), StoreError> {
        loop {
            let mut tx = self.seat.fence()?.begin(&self.store).await?;
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

    /// Removes what has had its time.
    pub async fn prune(&self) {
        let Ok(fence) = self.seat.fence() else { return };
        for (what, result) in gon_store::prune::round(&self.store, &fence).await {
            match self.seat.heed(result) {
                Ok(0) => {}
                Ok(count) => tracing::debug!(what, count, "expired rows removed"),
                Err(error) => {
                    tracing::warn!(what, error = &error as &dyn std::error::Error, "expired rows stay");
                }
            }
        }
    }
}
