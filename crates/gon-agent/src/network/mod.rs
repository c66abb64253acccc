//! The network agent: makes the switch of this node be what its document says, and answers DHCP, DNS and metadata.
//!
//! ```text
//!   controller ◀─ long poll ─ [poll] ──document──▶ [run] ── change_flows ∥ ledger ── change_ports ──▶ [post] ─ report ─▶ controller
//!                                                   │  ▲
//!                              view of the document ▼  └── connection broke · every second · audit every 30 s
//!                                              [services]
//! ```
//!
//! Assumes a directory of its own, privilege, and a network namespace, which is the one it is started in. Promises:
//!
//! - the last accepted document is in force as soon as the agent runs, with nobody to ask (rule R7);
//! - a newer document's flows are in the switch one bundle after it arrived. Writing it down runs beside or after, so the
//!   disk does not delay a revoked permission; ports change, and reports are sent, only when it is on the disk to stay. A
//!   crash between the two leaves a node that works by the older document, which is the last it ever confirmed;
//! - what is reported as applied is: no packet passes by what the document before had allowed, cached or not;
//! - a switch that was restarted is found again at once and gets everything back; what anybody changed behind the
//!   agent's back is put right by the next audit;
//! - stopping the agent changes nothing on the wire, except that DHCP, DNS and metadata rest until it is back.

pub mod dhcp;
pub mod dns;
pub mod expired;
pub mod guard;
pub mod memory;
pub mod metadata;
pub mod outside;
pub mod plane;
pub mod quote;
pub mod services;
pub mod trace;
pub mod underlay;
pub mod view;

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use gon_driver::ovs;
use gon_proto::{NetworkReport, NodeNetwork, paths};
use gon_types::DocumentVersion;
use gon_types::crash;
use gon_types::id::NodeId;
use ipnet::Ipv4Net;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::ledger::Ledger;
use crate::link::{Link, LinkError, Transport, jitter};
use crate::status::NetworkStatus;
use plane::{Plane, PlaneError};
use services::Knowledge;
use view::View;

pub use gon_net::service::BRIDGE;
pub use outside::Uplink;
pub use plane::tear_down;

/// How often a report is sent when nothing changes.
const REPORT_EVERY: Duration = Duration::from_secs(30);
/// How long until a failed bring-up is tried again.
const RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// The way out of a node.
#[derive(Debug, Clone)]
pub struct ExternalConfig {
    /// The address in the pool of public addresses that is no guest's, with the pool's prefix: `203.0.113.1/24`. By itself
    /// ([`Uplink::Host`]) the host has it; else it is the router's, or nobody's.
    pub gateway: Ipv4Net,
    /// Whether guests leave the host hidden behind its own address.
    pub masquerade: bool,
    /// Private networks beyond the host that guests may reach all the same.
    pub reachable: Vec<Ipv4Net>,
    /// Where servers reach the control plane, as far as it has public addresses: guests do not.
    pub control: Vec<SocketAddrV4>,
    /// How the world reaches public addresses.
    pub uplink: Uplink,
}

/// What an agent needs to know.
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// Its ledger, keys and memory.
    pub dir: PathBuf,
    /// Which Open vSwitch, where, on which datapath.
    pub ovs: ovs::Config,
    /// The way to the network controller.
    pub transport: Arc<dyn Transport>,
    /// The way out; `None`: no internet gateway works on this node.
    pub external: Option<ExternalConfig>,
    /// This node's address on the underlay, by which other nodes' guests are reached; `None`: there are no other nodes.
    pub overlay: Option<std::net::Ipv4Addr>,
    /// Where the host's resolvers are listed: `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// How often everything is compared with reality (30 s).
    pub audit_every: Duration,
    /// Where the agent says how it is.
    pub status: watch::Sender<NetworkStatus>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("node", &self.node)
            .field("dir", &self.dir)
            .field("ovs", &self.ovs)
            .field("controller", &self.transport.describe())
            .field("external", &self.external)
            .finish_non_exhaustive()
    }
}

/// A document, and where to say from which version on to ask next.
type Offer = (NodeNetwork, oneshot::Sender<DocumentVersion>);

/// Runs the agent until `stop`. Fails only if it cannot work at all: its directory is unusable, or its ledger is damaged.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let ledger: Ledger<NodeNetwork> = Ledger::open(&config.dir, config.node).context("the network ledger")?;
    let first = ledger.current().cloned();
    let version = ledger.version();
    let nothing = || NodeNetwork::empty(config.node, DocumentVersion::default());
    let (view, viewed) = watch::channel(Arc::new(View::new(first.clone().unwrap_or_else(nothing))));
    let tokens =
        metadata::Tokens::open(&config.dir.join("metadata.key")).context("the key of metadata tokens")?;
    let knowledge =
        Knowledge { view: viewed, tokens: Arc::new(tokens), resolv_conf: config.resolv_conf.clone() };
    let (offer, offers) = mpsc::channel(1);
    let (report, reports) = watch::channel(None);

    let mut tasks = JoinSet::new();
    let link = Link::new(Arc::clone(&config.transport));
    tasks.spawn(poll(link.clone(), version, offer));
    tasks.spawn(post(link, reports));
    let mut agent = Agent {
        document: first.map(Arc::new),
        ledger: Arc::new(Mutex::new(ledger)),
        config,
        knowledge,
        view,
        report,
        plane: None,
        ported: true,
    };
    tokio::select! {
        () = agent.work(offers) => {}
        () = stop => {}
    }
    tasks.shutdown().await;
    Ok(())
}

struct Agent {
    config: Arc<Config>,
    knowledge: Knowledge,
    ledger: Arc<Mutex<Ledger<NodeNetwork>>>,
    /// The last accepted document.
    document: Option<Arc<NodeNetwork>>,
    view: watch::Sender<Arc<View>>,
    report: watch::Sender<Option<NetworkReport>>,
    plane: Option<Plane>,
    /// Whether the ports of the document have been seen to.
    ported: bool,
}

/// What the agent wakes up for.
enum Event {
    Offer(Option<Box<Offer>>),
    Lost,
    Tick,
    Audit,
}

impl Agent {
    async fn work(&mut self, mut offers: mpsc::Receiver<Offer>) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let mut audit = tokio::time::interval(self.config.audit_every);
        audit.reset();
        audit.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.restore().await;
        loop {
            self.turn();
            let switch = self.plane.as_ref().and_then(Plane::switch);
            let lost = async {
                // None: it was lost while something else was done.
                if let Some(switch) = &switch {
                    switch.closed().await;
                }
            };
            let event = tokio::select! {
                biased;
                offer = offers.recv() => Event::Offer(offer.map(Box::new)),
                () = lost => Event::Lost,
                _ = audit.tick() => Event::Audit,
                _ = tick.tick() => Event::Tick,
            };
            let result = match event {
                Event::Offer(None) => return,
                Event::Offer(Some(offer)) => {
                    let (document, seen) = *offer;
                    self.take(document, seen).await
                }
                Event::Lost => Err(gon_driver::ovs::OpenFlowError::Broken.into()),
                Event::Tick => match self.tick().await {
                    // Nothing was done: whatever was wrong still is.
                    Ok(false) => continue,
                    other => other.map(drop),
                },
                Event::Audit => self.audit().await,
            };
            let result = match (result, &mut self.plane) {
                (Ok(()), Some(plane)) => plane.confirm().await,
                (result, _) => result,
            };
            match result {
                Ok(()) => self.tell(None),
                Err(error) if error.lost_switch() => {
                    tracing::warn!("the connection to the switch broke");
                    self.restore().await;
                }
                Err(error) => {
                    tracing::error!(error = chain(&error), "the data plane is not what it should be");
                    self.tell(Some(chain(&error)));
                }
            }
        }
    }

    /// Says that the loop lives, to whoever looks; nobody has to wake up for that.
    fn turn(&self) {
        self.config.status.send_if_modified(|status| {
            status.rounds += 1;
            false
        });
    }

    /// Does again what failed, and what is due. True if something was done.
    async fn tick(&mut self) -> Result<bool, PlaneError> {
        let Some(plane) = &mut self.plane else { return Ok(false) };
        let mut done = plane.tick().await?;
        if let Some(document) = self.document.clone()
            && lock(&self.ledger).version() < document.version
        {
            write_down(&self.ledger, &document).await?;
            done = true;
        }
        if !self.ported || plane.is_missing_devices() {
            plane.change_ports(None).await?;
            self.ported = true;
            done = true;
        }
        Ok(done)
    }

    /// Makes everything be there, from nothing or again; tries until it succeeds.
    async fn restore(&mut self) {
        let mut pause = RETRY;
        loop {
            self.turn();
            let result = match &mut self.plane {
                Some(plane) => plane.restore().await,
                None => {
                    let (config, knowledge) = (Arc::clone(&self.config), self.knowledge.clone());
                    Plane::bring_up(config, knowledge, self.document.clone())
                        .await
                        .map(|p| self.plane = Some(p))
                }
            };
            match result {
                Ok(()) => break,
                Err(error) => {
                    tracing::error!(error = chain(&error), "the switch cannot be used; trying again");
                    self.tell(Some(chain(&error)));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_RETRY);
                }
            }
        }
        self.ported = true;
        if let Some(plane) = &self.plane {
            let datapath = plane.datapath().as_str().to_owned();
            let version = plane.version().await;
            tracing::info!(datapath, version, flows = plane.flow_count(), "the switch is ready");
            self.config.status.send_modify(|status| {
                status.datapath = Some(datapath);
                status.ovs_version = version;
                status.restores += 1;
            });
        }
        self.tell(None);
    }

    /// Takes a document, or refuses it.
    async fn take(
        &mut self,
        document: NodeNetwork,
        seen: oneshot::Sender<DocumentVersion>,
    ) -> Result<(), PlaneError> {
        let version = document.version;
        // A refused version is not asked for again; a newer one is.
        let _ = seen.send(version);
        match lock(&self.ledger).judge(&document) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => {
                tracing::error!(%version, %error, "a network document was refused");
                return Ok(());
            }
        }
        let started = std::time::Instant::now();
        let document = Arc::new(document);
        let (ledger, kept) = (Arc::clone(&self.ledger), Arc::clone(&document));
        let write = async move { write_down(&ledger, &kept).await };
        // Answers for a port are there before its first packet can be.
        self.view.send_replace(Arc::new(View::new(Arc::clone(&document))));
        self.document = Some(Arc::clone(&document));
        let Some(plane) = &mut self.plane else { return Ok(()) };
        let changed = plane.changed_ports(&document);
        // What was not done before has to be done as well, whatever it was.
        let only = self.ported.then_some(&changed);
        self.ported &= changed.is_empty();
        // Ports wait for the disk, so it begins at once. Else nothing waits for it, and the switch can use the processor.
        let write = if self.ported { Err(write) } else { Ok(tokio::spawn(write)) };
        let flows = plane.change_flows(Some(document)).await;
        let wired = started.elapsed();
        // Also when the flows failed: the document was accepted.
        let written = match write {
            Ok(writing) => writing.await.unwrap_or_else(|panic| {
                Err(PlaneError::Io { what: "writing the document down", source: panic.into() })
            }),
            Err(write) => write.await,
        };
        flows?;
        written?;
        if !self.ported || plane.closes_others() {
            self.ported = false;
            plane.change_ports(only).await?;
            self.ported = true;
        }
        let settled = started.elapsed();
        tracing::info!(%version, flows = plane.flow_count(), ?wired, ?settled, "a network document is in force");
        self.config.status.send_modify(|status| {
            status.wired_us = wired.as_micros() as u64;
            status.settled_us = settled.as_micros() as u64;
        });
        Ok(())
    }

    async fn audit(&mut self) -> Result<(), PlaneError> {
        let Some(plane) = &mut self.plane else { return Ok(()) };
        let repairs = plane.audit().await?;
        self.ported = true;
        let count = (repairs.flows + repairs.ports) as u64;
        if count > 0 {
            tracing::warn!(?repairs, "the switch was not as it should be");
        }
        self.config.status.send_modify(|status| status.repairs += count);
        Ok(())
    }

    /// Says how things are: to the controller (if what is in force, or a port, changed) and to the process.
    fn tell(&self, error: Option<String>) {
        let Some(plane) = &self.plane else {
            self.config.status.send_modify(|status| {
                status.ready = false;
                status.error = error;
            });
            return;
        };
        let report = plane.report();
        self.config.status.send_if_modified(|status| {
            let before = status.clone();
            status.ready = error.is_none();
            status.applied = report.applied;
            status.ports = report.ports.len();
            status.degraded =
                report.ports.iter().filter(|p| p.status != gon_proto::PortStatus::Ready).count();
            status.flows = plane.flow_count();
            status.error = error;
            *status != before
        });
        // Before the first document there is nothing to report, and what is not on the disk may be undone by a crash.
        let lasts = lock(&self.ledger).version() >= report.applied;
        if self.document.is_some() && self.ported && lasts {
            self.report.send_if_modified(|last| {
                let changed = last.as_ref() != Some(&report);
                *last = Some(report);
                changed
            });
        }
    }
}

/// Puts a document on the disk, away from the runtime's threads.
async fn write_down(
    ledger: &Arc<Mutex<Ledger<NodeNetwork>>>,
    document: &Arc<NodeNetwork>,
) -> Result<(), PlaneError> {
    let (ledger, document) = (Arc::clone(ledger), Arc::clone(document));
    crash::point("C21:before");
    let written =
        tokio::task::spawn_blocking(move || lock(&ledger).accept((*document).clone()).map(drop)).await;
    crash::point("C21:after");
    let failed = |source| PlaneError::Io { what: "writing the document down", source };
    written.map_err(|panic| failed(panic.into()))?.map_err(|error| failed(std::io::Error::other(error)))
}

/// Asks for documents for ever, each time for one newer than the last it saw.
async fn poll(link: Link, mut after: DocumentVersion, offers: mpsc::Sender<Offer>) {
    let mut pause = RETRY;
    loop {
        match link.get_document::<NodeNetwork>(paths::NETWORK_DOCUMENT, after).await {
            Ok(Some(document)) => {
                pause = RETRY;
                let (seen, was_seen) = oneshot::channel();
                if offers.send((document, seen)).await.is_err() {
                    return;
                }
                let Ok(version) = was_seen.await else { return };
                if version <= after {
                    // A controller that does not mind `after` must not make us spin.
                    tokio::time::sleep(LONGEST_RETRY).await;
                }
                after = after.max(version);
            }
            Ok(None) => pause = RETRY,
            Err(error) => {
                if !matches!(error, LinkError::Connect { .. }) {
                    tracing::warn!(error = chain(&error), "no network document");
                }
                tokio::time::sleep(jitter(pause)).await;
                pause = (pause * 2).min(LONGEST_RETRY);
            }
        }
    }
}

/// Sends every change of the report, and the last one once in a while.
async fn post(link: Link, mut reports: watch::Receiver<Option<NetworkReport>>) {
    loop {
        let report = reports.borrow_and_update().clone();
        let sent = match &report {
            Some(report) => match link.post_report(paths::NETWORK_REPORT, report).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::debug!(error = chain(&error), "a report was not taken");
                    false
                }
            },
            None => true,
        };
        let wait = if sent { REPORT_EVERY } else { Duration::from_secs(1) };
        if let Ok(Err(_)) = tokio::time::timeout(wait, reports.changed()).await {
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error with its causes, as one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

#[cfg(test)]
#[path = "../../tests/it/samples.rs"]
pub(crate) mod samples;
