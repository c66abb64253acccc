//! A node's agents: everything they say to the controllers, by the real link and with the real ledger.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gon_agent::ledger::{Document, Ledger};
use gon_agent::link::{Link, LinkError, jitter};
use gon_proto::{
    ComputeReport, ImageKind, ImageReport, InstanceReport, NetworkReport, NodeAnswer, NodeCompute,
    NodeNetwork, NodeReport, ObservedInstance, OverlayReport, PortReport, PortStatus, PowerSpec, VpcReport,
    paths,
};
use gon_types::DocumentVersion;
use gon_types::id::NodeId;
use tokio::sync::{Notify, watch};

use super::Meter;
use super::site::{DIGEST, IMAGE, Site, node_name, overlay_address, uuid};

/// As in the agents.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
const REPORT_EVERY: Duration = Duration::from_secs(10);
const NODE_REPORT_EVERY: Duration = Duration::from_secs(5);
const NODE_REPORT_AGAIN: Duration = Duration::from_secs(1);

/// What a node's agents have come to.
#[derive(Debug, Default, Clone, Copy)]
struct Done {
    /// Epochs of the last documents that were written down, and of those of which a report was taken.
    written: (u64, u64),
    reported: (u64, u64),
    /// When the node's own report was last taken.
    introduced: Option<Instant>,
}

/// One node.
pub struct Agent {
    id: NodeId,
    name: String,
    overlay: OverlayReport,
    meter: Arc<Meter>,
    done: Mutex<Done>,
    told: Mutex<Option<NodeAnswer>>,
    compute: watch::Sender<Option<NodeCompute>>,
    network: watch::Sender<Option<NodeNetwork>>,
    changed: Notify,
    removals: AtomicUsize,
}

impl Agent {
    /// Starts node `n`, which has been one before.
    pub fn start(site: &Site, n: usize) -> Arc<Self> {
        let agent = Arc::new(Self {
            id: NodeId::from_uuid(uuid(0, n)),
            name: node_name(n),
            overlay: OverlayReport { address: overlay_address(n), mtu: 1600 },
            meter: Arc::clone(&site.meter),
            done: Mutex::default(),
            told: Mutex::default(),
            compute: watch::Sender::new(None),
            network: watch::Sender::new(None),
            changed: Notify::new(),
            removals: AtomicUsize::new(0),
        });
        let links = site.links(n);
        let runtime = &site.agents;
        let compute = Ledger::<NodeCompute>::open(&site.dir(n), agent.id).unwrap();
        let network = Ledger::<NodeNetwork>::open(&site.dir(n), agent.id).unwrap();
        let liveness = Arc::clone(&site.liveness);
        let name = agent.name.clone();
        runtime.spawn(async move { gon_cluster::keep_alive(&*liveness, &name).await });
        runtime.spawn(Arc::clone(&agent).introduce(links.0.clone()));
        runtime.spawn(Arc::clone(&agent).pull(
            links.0.clone(),
            paths::COMPUTE_DOCUMENT,
            compute,
            Self::take_compute,
        ));
        runtime.spawn(Arc::clone(&agent).report_compute(links.0));
        runtime.spawn(Arc::clone(&agent).pull(
            links.1.clone(),
            paths::NETWORK_DOCUMENT,
            network,
            Self::take_network,
        ));
        runtime.spawn(Arc::clone(&agent).report_network(links.1));
        agent
    }

    /// Whether it works from the documents of these leaders and has told them so, and has said since `began` who it is.
    pub fn is_healthy(&self, epochs: (u64, u64), began: Instant) -> bool {
        let done = *self.done();
        let follows = |of: (u64, u64)| of.0 == epochs.0 && of.1 == epochs.1;
        epochs.0 > 0
            && epochs.1 > 0
            && follows(done.written)
            && follows(done.reported)
            && done.introduced.is_some_and(|at| at > began)
    }

    /// How often a document took away what ran here.
    pub fn removals(&self) -> usize {
        self.removals.load(Ordering::Relaxed)
    }

    fn done(&self) -> std::sync::MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count<T>(&self, result: Result<T, LinkError>) -> Option<T> {
        match result {
            Ok(value) => {
                self.meter.well();
                return Some(value);
            }
            Err(LinkError::Refused { status, .. }) => self.meter.ill(format!("status {status}")),
            Err(LinkError::Connect { .. }) => self.meter.ill("no connection".to_owned()),
            Err(LinkError::Broken(_)) => self.meter.ill("broken".to_owned()),
            Err(LinkError::Deadline(_)) => self.meter.ill("deadline".to_owned()),
            Err(other) => self.meter.ill(other.to_string()),
        }
        None
    }

    async fn introduce(self: Arc<Self>, link: Link) {
        loop {
            let told = *self.told.lock().unwrap();
            let report = NodeReport {
                format: gon_proto::FORMAT,
                name: self.name.clone(),
                availability_zone: "local-1a".to_owned(),
                vcpus: 64,
                memory_mib: 65_536,
                disk_gib: 500,
                accelerator: "tcg".to_owned(),
                ovs_datapath: "netdev".to_owned(),
                versions: [].into(),
                images: [(
                    IMAGE.to_owned(),
                    ImageReport {
                        digest: DIGEST.to_owned(),
                        kind: ImageKind::Initramfs,
                        min_memory_mib: 96,
                        disk_gib: 0,
                        description: String::new(),
                        architecture: "x86_64".to_owned(),
                    },
                )]
                .into(),
                labels: [].into(),
                address: Some(self.overlay.address.into()),
                boot_id: None,
                node: told.map(|told| told.node),
                epoch: told.map(|told| told.epoch),
            };
            let answer = self.count(link.exchange::<_, NodeAnswer>(paths::NODE_REPORT, &report).await);
            let pause = match answer {
                Some(answer) => {
                    assert_eq!(answer.node, self.id);
                    *self.told.lock().unwrap() = Some(answer);
                    self.done().introduced = Some(Instant::now());
                    NODE_REPORT_EVERY
                }
                None => NODE_REPORT_AGAIN,
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn pull<D: Document>(
        self: Arc<Self>,
        link: Link,
        path: &'static str,
        mut ledger: Ledger<D>,
        take: fn(&Self, D),
    ) {
        let mut pause = RETRY.0;
        loop {
            match self.count(link.get_document::<D>(path, ledger.version()).await) {
                Some(None) => pause = RETRY.0,
                Some(Some(document)) => {
                    let (held, taken) = tokio::task::spawn_blocking(move || {
                        let taken = ledger.accept(document).cloned();
                        (ledger, taken)
                    })
                    .await
                    .unwrap();
                    ledger = held;
                    match taken {
                        Ok(document) => {
                            pause = RETRY.0;
                            take(&self, document);
                        }
                        Err(error) => {
                            self.meter.ill(format!("status refused by the agent: {error}"));
                            tokio::time::sleep(RETRY.1).await;
                        }
                    }
                }
                None => {
                    tokio::time::sleep(jitter(pause)).await;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
    }

    fn take_compute(&self, document: NodeCompute) {
        let running = |document: &NodeCompute| -> BTreeSet<_> {
            let specs = document.instances.iter().filter(|spec| spec.power == PowerSpec::Running);
            specs.map(|spec| spec.id).collect()
        };
        let before = self.compute.borrow().as_ref().map(running).unwrap_or_default();
        let gone = before.difference(&running(&document)).count();
        self.removals.fetch_add(gone, Ordering::Relaxed);
        self.done().written.0 = document.version.epoch;
        self.compute.send_replace(Some(document));
    }

    fn take_network(&self, document: NodeNetwork) {
        self.done().written.1 = document.version.epoch;
        self.network.send_replace(Some(document));
        // Now its taps are up.
        self.changed.notify_one();
    }

    /// What runs: everything that should and has its ports.
    fn compute_report(&self) -> ComputeReport {
        let compute = self.compute.borrow();
        let network = self.network.borrow();
        let ports: BTreeSet<_> = network.iter().flat_map(|n| n.ports.iter().map(|port| port.id)).collect();
        let specs = compute.iter().flat_map(|document| &document.instances);
        let instances = specs.map(|spec| InstanceReport {
            id: spec.id,
            generation: spec.generation,
            placement_epoch: spec.placement_epoch,
            observed: match spec.power {
                PowerSpec::Running if spec.nics.iter().all(|nic| ports.contains(&nic.id)) => {
                    ObservedInstance::Running
                }
                PowerSpec::Running => ObservedInstance::Starting,
                PowerSpec::Stopped => ObservedInstance::Stopped,
                PowerSpec::Terminated => ObservedInstance::Gone,
            },
            reboot_seq: spec.reboot_seq,
            reason: None,
        });
        ComputeReport {
            format: gon_proto::FORMAT,
            node: self.id,
            accepted: compute.as_ref().map(|document| document.version).unwrap_or_default(),
            instances: instances.collect(),
            node_epoch: self.told.lock().unwrap().map(|told| told.epoch),
        }
    }

    async fn report_compute(self: Arc<Self>, link: Link) {
        let mut documents = self.compute.subscribe();
        let mut pause = RETRY.0;
        loop {
            documents.borrow_and_update();
            let report = self.compute_report();
            if self.count(link.post_report(paths::COMPUTE_REPORT, &report).await).is_none() {
                tokio::time::sleep(jitter(pause)).await;
                pause = (pause * 2).min(RETRY.1);
                continue;
            }
            pause = RETRY.0;
            self.done().reported.0 = report.accepted.epoch;
            tokio::select! {
                () = tokio::time::sleep(REPORT_EVERY) => {}
                _ = documents.changed() => {}
                () = self.changed.notified() => {}
            }
        }
    }

    fn network_report(&self) -> Option<(DocumentVersion, NetworkReport)> {
        let network = self.network.borrow();
        let document = network.as_ref()?;
        let report = NetworkReport {
            format: gon_proto::FORMAT,
            node: self.id,
            applied: document.version,
            vpcs: document
                .vpcs
                .iter()
                .map(|vpc| VpcReport { id: vpc.id, generation: vpc.generation })
                .collect(),
            ports: document
                .ports
                .iter()
                .map(|port| PortReport { id: port.id, status: PortStatus::Ready })
                .collect(),
            overlay: Some(self.overlay),
        };
        Some((document.version, report))
    }

    async fn report_network(self: Arc<Self>, link: Link) {
        let mut documents = self.network.subscribe();
        loop {
            documents.borrow_and_update();
            let mut wait = REPORT_EVERY;
            if let Some((version, report)) = self.network_report() {
                match self.count(link.post_report(paths::NETWORK_REPORT, &report).await) {
                    Some(()) => self.done().reported.1 = version.epoch,
                    None => wait = Duration::from_secs(1),
                }
            }
            let _ = tokio::time::timeout(wait, documents.changed()).await;
        }
    }
}
