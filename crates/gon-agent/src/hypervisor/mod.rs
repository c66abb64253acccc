//! The hypervisor agent: turns a node's compute document into QEMU processes and says what is.
//!
//! Assumes that the network agent makes a tap only when its policy is in force, that this role alone writes below its
//! state directory, and that the control plane may be away at any time. Promises to be level-triggered: it stores the
//! document (fsync), and for every instance compares what is wanted, what its journal says and what is seen
//! ([`step`]), and does the next thing. Guests belong to nobody: they outlive this process, are found again by their
//! directory, lock and identity, and are only ended when the document says so.
//!
//! ```text
//! STATE_DIR/                       0700
//!   compute.a, compute.b           the last accepted documents (ledger)
//!   node.json  accelerator.json     who this node is; what was found out about KVM
//!   grant.json                      until when what is recovered elsewhere may run here ([`fence`])
//!   instances/UUID/
//!     journal.json                 what was done: first made, last removed
//!     lock                         held by the QEMU that runs, or by us while none does
//!     qmp.sock  qemu.log  jail/    see gon_driver::qemu
//!     image/                       links to the image's files as they were at launch
//!     disk0.qcow2                  overlay over image/disk.raw
//!     console.log                  the end of what the guest said
//! ```

mod accelerator;
mod board;
mod console;
pub mod fence;
mod files;
mod instance;
pub mod journal;
mod node;
pub mod plan;
mod routes;
pub mod step;
mod teardown;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use gon_driver::qemu::Capabilities;
use gon_proto::{ComputeReport, InstanceReport, InstanceSpec, NodeCompute, ObservedInstance, paths};
use gon_types::DocumentVersion;
use gon_types::crash;
use gon_types::id::{InstanceId, NodeId};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::chain;
use crate::ledger::Ledger;
use crate::link::Link;
use board::Board;
use console::Console;
use instance::Instance;

pub use node::node_id;
pub use teardown::{Ended, tear_down};

/// Reports are repeated this often although nothing changed.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// Changes that come together are reported together.
const DEBOUNCE: Duration = Duration::from_millis(2);
/// How often a loop that has nothing to do goes round.
const TURN: Duration = Duration::from_secs(5);
/// Pauses after a failed call, shortest and longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What the role is told at its start.
#[derive(Debug)]
pub struct Config {
    /// Its own directory; made if missing.
    pub state_dir: PathBuf,
    /// The node's image store.
    pub images: PathBuf,
    /// The way to the instance manager.
    pub link: Link,
    /// This machine as a node.
    pub node: NodeConfig,
    /// Never use KVM.
    pub emulate: bool,
    /// Versions of what else runs here (`gond`): reported.
    pub versions: BTreeMap<String, String>,
    /// The QEMU to use; the installed one if not given.
    pub qemu: Option<PathBuf>,
    /// Where the other agents of this node leave what they found out ([`crate::facts`]).
    pub facts: PathBuf,
}

/// This machine as a node.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its name, unique in the site.
    pub name: String,
    /// Its availability zone.
    pub availability_zone: String,
    /// Where the other nodes reach it, if it is known.
    pub address: Option<std::net::IpAddr>,
    /// What placement may ask for.
    pub labels: BTreeMap<String, String>,
    /// How many virtual processors are lent for each real one.
    pub cpu_overcommit: u32,
    /// Memory that is kept from guests, MiB.
    pub memory_reserve_mib: u64,
    /// Disk that is kept from guests, GiB.
    pub disk_reserve_gib: u64,
}

impl Config {
    fn instances_dir(&self) -> PathBuf {
        self.state_dir.join("instances")
    }
}

/// How the hypervisor agent is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HypervisorStatus {
    /// `kvm` or `tcg`, once known; `kvm` only if it has proved itself.
    pub accelerator: Option<String>,
    /// Why that one, for people.
    pub note: String,
    /// QEMU's version, once known.
    pub qemu: Option<String>,
    /// The document it works from.
    pub accepted: DocumentVersion,
    /// Instances on this node.
    pub instances: usize,
    /// Those that run.
    pub running: usize,
    /// Those that failed, or of which nothing can be told.
    pub troubled: usize,
    /// Reports that the instance manager took.
    pub reports: u64,
    /// How often the loop of the role went round; one that stands still is not alive.
    pub rounds: u64,
}

/// What the tasks of this role share.
struct Shared {
    config: Arc<Config>,
    board: Board,
    /// How many guests are started at a time: starting is work for a processor.
    starts: Arc<Semaphore>,
    capabilities: watch::Sender<Option<Capabilities>>,
    fence: fence::Fence,
    status: watch::Sender<HypervisorStatus>,
    consoles: Mutex<BTreeMap<InstanceId, Console>>,
}

impl Shared {
    fn instance_dir(&self, id: InstanceId) -> PathBuf {
        self.config.instances_dir().join(id.uuid().to_string())
    }
    /// What guests are started with; an explanation while that is not known.
    fn capabilities(&self) -> Result<Capabilities, String> {
        self.capabilities.borrow().clone().ok_or_else(|| "finding out what this node can do".to_owned())
    }
    fn note(&self, note: String) {
        self.status.send_modify(|status| status.note = note);
    }
    fn accepted(&self) -> DocumentVersion {
        self.status.borrow().accepted
    }
    fn accept(&self, version: DocumentVersion) {
        self.status.send_modify(|status| status.accepted = version);
    }
    fn count(&self, reports: &[InstanceReport]) {
        let of =
            |wanted: &[ObservedInstance]| reports.iter().filter(|r| wanted.contains(&r.observed)).count();
        let running = of(&[ObservedInstance::Running]);
        let troubled = of(&[ObservedInstance::Failed, ObservedInstance::Unknown]);
        self.status.send_if_modified(|status| {
            let next = (reports.len(), running, troubled);
            let changed = (status.instances, status.running, status.troubled) != next;
            (status.instances, status.running, status.troubled) = next;
            changed
        });
    }
    fn ids(&self) -> Vec<InstanceId> {
        lock(&self.consoles).keys().copied().collect()
    }
    async fn console_output(&self, id: InstanceId) -> Option<io::Result<Vec<u8>>> {
        let console = lock(&self.consoles).get(&id).cloned()?;
        Some(console.output().await)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The role, ready to run.
pub struct Hypervisor {
    shared: Arc<Shared>,
}

/// Runs the role until `stop`. Guests go on.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    Hypervisor::new(config)?.run(stop).await
}

impl Hypervisor {
    /// Prepares the role: its directories, and nothing else.
    pub fn new(config: Config) -> anyhow::Result<Self> {
        let dir = config.instances_dir();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("making {}", dir.display()))?;
        let fence = fence::Fence::open(&config.state_dir);
        let starts = std::thread::available_parallelism().map_or(2, |n| n.get().max(2));
        Ok(Self {
            shared: Arc::new(Shared {
                config: Arc::new(config),
                board: Board::default(),
                starts: Arc::new(Semaphore::new(starts)),
                capabilities: watch::Sender::new(None),
                fence,
                status: watch::Sender::default(),
                consoles: Mutex::default(),
            }),
        })
    }

    /// What the role's port serves; see [`routes`].
    pub fn router(&self) -> Router {
        routes::router(Arc::clone(&self.shared))
    }

    /// How the role is.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<HypervisorStatus> {
        self.shared.status.subscribe()
    }

    /// The last 64 KiB of an instance's console; `None` if it is not on this node.
    pub async fn console_output(&self, id: InstanceId) -> Option<io::Result<Vec<u8>>> {
        self.shared.console_output(id).await
    }

    /// Runs until `stop`. Guests go on.
    pub async fn run(&self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        // Whatever is under way when this ends is cut off as by a crash, from which the next start recovers.
        let mut tasks = JoinSet::new();
        tasks.spawn(accelerator::explore(Arc::clone(&self.shared)));
        tokio::select! {
            result = self.work(&mut tasks) => result,
            () = stop => Ok(()),
        }
    }

    async fn work(&self, tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
        let shared = &self.shared;
        let node = node::join(shared).await.context("this node's identity")?;
        let ledger =
            Ledger::<NodeCompute>::open(&shared.config.state_dir, node).context("the compute ledger")?;
        shared.accept(ledger.version());

        let mut supervisor =
            Supervisor { shared: Arc::clone(shared), known: HashMap::new(), tasks: JoinSet::new() };
        // From the first moment a task knows what the document wants of its instance: one that seemed forgotten would
        // say wrong things of itself.
        supervisor.apply(ledger.current().map_or(&[], |document| &document.instances));
        supervisor.adopt(&shared.config.instances_dir())?;
        tasks.spawn(node::report(Arc::clone(shared)));
        tasks.spawn(fence::renew(Arc::clone(shared)));
        tasks.spawn(send_reports(Arc::clone(shared), node));
        let (give, mut documents) = mpsc::channel(1);
        tasks.spawn(pull_documents(Arc::clone(shared), ledger, give));
        loop {
            // Nobody has to wake up for that.
            shared.status.send_if_modified(|status| {
                status.rounds += 1;
                false
            });
            tokio::select! {
                () = tokio::time::sleep(TURN) => {}
                document = documents.recv() => match document {
                    Some(document) => supervisor.apply(&document),
                    None => anyhow::bail!("documents are no longer pulled"),
                },
                Some(ended) = supervisor.tasks.join_next_with_id() => supervisor.reap(ended),
            }
        }
    }
}

/// Pulls documents, writes them down, hands them on.
async fn pull_documents(
    shared: Arc<Shared>,
    mut ledger: Ledger<NodeCompute>,
    give: mpsc::Sender<Vec<InstanceSpec>>,
) {
    let link = shared.config.link.clone();
    let mut pause = RETRY.0;
    loop {
        let problem = match link.get_document::<NodeCompute>(paths::COMPUTE_DOCUMENT, ledger.version()).await
        {
            Ok(None) => {
                pause = RETRY.0;
                continue;
            }
            Ok(Some(document)) => {
                tracing::info!(version = %document.version, "a compute document is here");
                crash::point("C15:before");
                let stored = tokio::task::spawn_blocking(move || {
                    let result = ledger.accept(document).cloned();
                    (ledger, result)
                });
                let Ok((returned, result)) = stored.await else { return };
                ledger = returned;
                match result {
                    Ok(document) => {
                        crash::point("C15:after");
                        pause = RETRY.0;
                        shared.accept(document.version);
                        tracing::info!(
                            version = %document.version,
                            instances = document.instances.len(),
                            "a compute document is in force"
                        );
                        if give.send(document.instances).await.is_err() {
                            return;
                        }
                        continue;
                    }
                    Err(error) => {
                        tracing::error!(error = chain(&error), "a document is refused");
                        // It would come again at once.
                        pause = RETRY.1;
                        chain(&error)
                    }
                }
            }
            Err(error) => chain(&error),
        };
        tracing::debug!(problem, "no document");
        tokio::time::sleep(jitter(pause)).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

/// Between a half and the whole: nodes that lost the same controller do not come back as one.
fn jitter(pause: Duration) -> Duration {
    let random = uuid::Uuid::now_v7().as_u128() as u32;
    pause / 2 + pause.mul_f64(f64::from(random) / f64::from(u32::MAX)) / 2
}

/// Sends what is on the board, when it changes and now and then.
async fn send_reports(shared: Arc<Shared>, node: NodeId) {
    let link = shared.config.link.clone();
    let mut pause = RETRY.0;
    loop {
        let report = ComputeReport {
            format: gon_proto::FORMAT,
            node,
            accepted: shared.accepted(),
            instances: shared.board.reports(),
            node_epoch: node::node_epoch(&shared.config.state_dir).ok().flatten(),
        };
        shared.count(&report.instances);
        let gone = report.instances.iter().any(|i| i.observed == ObservedInstance::Gone);
        let runs = report.instances.iter().any(|i| i.observed == ObservedInstance::Running);
        if gone {
            crash::point("D14:before");
        }
        if runs {
            crash::point("C29:before");
        }
        match link.post_report(paths::COMPUTE_REPORT, &report).await {
            Ok(()) => {
                shared.status.send_if_modified(|status| {
                    status.reports += 1;
                    false
                });
                if gone {
                    crash::point("D14:after");
                }
                if runs {
                    crash::point("C29:after");
                }
                pause = RETRY.0;
                let _ = tokio::time::timeout(REPORT_INTERVAL, shared.board.changed()).await;
                tokio::time::sleep(DEBOUNCE).await;
            }
            Err(error) => {
                tracing::debug!(error = chain(&error), "the report was not taken");
                tokio::time::sleep(jitter(pause)).await;
                pause = (pause * 2).min(RETRY.1);
            }
        }
    }
}

/// The tasks of the instances.
struct Supervisor {
    shared: Arc<Shared>,
    known: HashMap<InstanceId, (watch::Sender<Option<InstanceSpec>>, tokio::task::Id)>,
    tasks: JoinSet<InstanceId>,
}

impl Supervisor {
    /// Starts a task for every instance directory that has none: what runs is found again, what was being removed is.
    fn adopt(&mut self, dir: &Path) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
            let name = entry?.file_name();
            match name.to_str().and_then(|name| uuid::Uuid::try_parse(name).ok()) {
                Some(uuid) if self.known.contains_key(&InstanceId::from_uuid(uuid)) => {}
                Some(uuid) => self.tell(InstanceId::from_uuid(uuid), None),
                None => tracing::warn!(?name, "not an instance; it is left alone"),
            }
        }
        Ok(())
    }

    /// Tells every task what the document says of its instance.
    fn apply(&mut self, instances: &[InstanceSpec]) {
        let named: HashMap<InstanceId, &InstanceSpec> =
            instances.iter().map(|spec| (spec.id, spec)).collect();
        let others: Vec<InstanceId> =
            self.known.keys().filter(|id| !named.contains_key(id)).copied().collect();
        for id in others {
            self.tell(id, None);
        }
        for spec in instances {
            self.tell(spec.id, Some(spec.clone()));
        }
    }

    fn tell(&mut self, id: InstanceId, spec: Option<InstanceSpec>) {
        if let Some((sender, _)) = self.known.get(&id)
            && !sender.is_closed()
        {
            sender.send_if_modified(|held| {
                let new = *held != spec;
                if new {
                    *held = spec;
                }
                new
            });
            return;
        }
        let (sender, receiver) = watch::channel(spec);
        self.spawn(id, sender, receiver, Duration::ZERO);
    }

    fn spawn(
        &mut self,
        id: InstanceId,
        sender: watch::Sender<Option<InstanceSpec>>,
        receiver: watch::Receiver<Option<InstanceSpec>>,
        delay: Duration,
    ) {
        let instance = Instance::new(id, Arc::clone(&self.shared), receiver);
        lock(&self.shared.consoles).insert(id, instance.console());
        let task = self.tasks.spawn(async move {
            tokio::time::sleep(delay).await;
            instance.run().await;
            id
        });
        self.known.insert(id, (sender, task.id()));
    }

    /// A task has ended: it had nothing left to do, or it panicked. Then it starts anew, from what is on the disk.
    fn reap(&mut self, ended: Result<(tokio::task::Id, InstanceId), tokio::task::JoinError>) {
        let (task, panicked) = match &ended {
            Ok((task, _)) => (*task, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        let Some(id) = self.known.iter().find(|(_, (_, t))| *t == task).map(|(id, _)| *id) else { return };
        let Some((sender, _)) = self.known.remove(&id) else { return };
        let spec = sender.borrow().clone();
        if panicked {
            tracing::error!(instance = %id, "its task broke and starts anew");
            let (sender, receiver) = watch::channel(spec);
            self.spawn(id, sender, receiver, RETRY.1);
        } else if spec.is_some() {
            self.tell(id, spec);
        } else {
            lock(&self.shared.consoles).remove(&id);
        }
    }
}
