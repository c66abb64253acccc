//! The agents of this node, put together once for standalone and for roles in processes of their own.
//!
//! The network agent starts the switch. Who this node is comes from the instance manager's answer to the hypervisor
//! agent's first report, which keeps it; the network agent waits for that. A node that has its identity needs nobody to go on (rule R7).

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use gon_agent::facts::{self, NetworkFacts};
use gon_agent::hypervisor::{self, Hypervisor};
use gon_agent::link::{Link, Transport};
use gon_agent::network::{self, ExternalConfig, Uplink};
use gon_agent::status::NetworkStatus;
use gon_cluster::Liveness;
use gon_control::api::{ConsoleError, ConsoleSource};
use gon_driver::ovs::{self, Ovs};
use gon_types::id::{InstanceId, NodeId};
use ipnet::Ipv4Net;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Accelerator, Config, Datapath, External, Switch};
use crate::layout::Layout;

/// How often the network agent compares everything with reality.
const AUDIT_EVERY: Duration = Duration::from_secs(30);
/// How soon a switch that cannot be used is tried again.
const SWITCH_RETRY: Duration = Duration::from_secs(1);
/// How often we look whether this node is known by now: at first, and when nobody has known it for a while.
const KNOWN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// This machine as a worker. Clones are the same.
#[derive(Clone)]
pub struct Worker {
    config: Config,
    layout: Layout,
    name: Arc<str>,
    /// The way to the network controllers.
    network_controller: Arc<dyn Transport>,
    /// The way to the instance managers.
    instance_manager: Arc<dyn Transport>,
    /// Rounds of waiting for an identity.
    waiting: Arc<AtomicU64>,
    /// How the network agent is.
    pub network_status: watch::Sender<NetworkStatus>,
    hypervisor: Arc<Mutex<Option<Arc<Hypervisor>>>>,
}

impl Worker {
    /// A worker that does nothing yet.
    #[must_use]
    pub fn new(
        config: &Config,
        layout: &Layout,
        name: &Arc<str>,
        network: Arc<dyn Transport>,
        compute: Arc<dyn Transport>,
    ) -> Self {
        Self {
            config: config.clone(),
            layout: layout.clone(),
            name: Arc::clone(name),
            network_controller: network,
            instance_manager: compute,
            waiting: Arc::default(),
            network_status: watch::Sender::new(NetworkStatus::default()),
            hypervisor: Arc::default(),
        }
    }

    /// Rounds of waiting for an identity: a loop that lives before the agent's own does.
    #[must_use]
    pub fn waiting(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.waiting)
    }

    fn current(&self) -> Option<Arc<Hypervisor>> {
        self.hypervisor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The hypervisor agent, made if there is none: what it serves beside health and metrics is there at once.
    pub async fn hypervisor(&self) -> anyhow::Result<Arc<Hypervisor>> {
        if let Some(there) = self.current() {
            return Ok(there);
        }
        let versions = BTreeMap::from([("gond".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
        let images = self.config.images_dir();
        if std::fs::read_dir(&images).is_ok_and(|mut d| d.next().is_none()) || !images.exists() {
            tracing::warn!(
                dir = %images.display(),
                "this node has no images, so nothing can be launched here: run 'gond image build all'"
            );
        }
        let node = &self.config.node;
        let made = Arc::new(Hypervisor::new(hypervisor::Config {
            state_dir: self.layout.compute(),
            images,
            link: Link::new(Arc::clone(&self.instance_manager)),
            node: hypervisor::NodeConfig {
                name: self.name.to_string(),
                availability_zone: node.availability_zone.clone(),
                address: node.address,
                labels: node.labels.clone(),
                cpu_overcommit: node.cpu_overcommit,
                memory_reserve_mib: node.memory_reserve_mib,
                disk_reserve_gib: node.disk_reserve_gib,
            },
            emulate: self.config.compute.accelerator == Accelerator::Tcg,
            versions,
            qemu: None,
            facts: self.layout.facts(),
        })?);
        *self.hypervisor.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&made));
        Ok(made)
    }

    /// The switch, which runs afterwards; what it is, for the node's report. It is started before this node has a name, so
    /// that its first report says what there is.
    async fn switch(&self) {
        let mut failing = false;
        loop {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            match Ovs::connect_or_start(&ovs_config(&self.config, &self.layout), network::BRIDGE).await {
                Ok(switch) => {
                    let facts = NetworkFacts {
                        datapath: switch.datapath().as_str().to_owned(),
                        version: switch.version().await.ok(),
                    };
                    if let Err(error) = facts::tell(&self.layout.facts(), facts::NETWORK, &facts) {
                        tracing::warn!(%error, "the node's facts cannot be written");
                    }
                    return;
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "Open vSwitch cannot be used yet"
                        );
                    }
                    tokio::time::sleep(SWITCH_RETRY).await;
                }
            }
        }
    }

    /// Role hypervisor-agent. The node counts as alive as long as this runs.
    pub async fn run_hypervisor(
        &self,
        liveness: &dyn Liveness,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let Some(agent) = or_stop(self.hypervisor(), &stop).await else { return Ok(()) };
        let agent = agent.context("the hypervisor agent")?;
        tokio::select! {
            ended = agent.run(stop.cancelled()) => ended,
            never = gon_cluster::keep_alive(liveness, &self.name) => match never {},
        }
    }

    /// Role network-agent.
    pub async fn run_network(&self, stop: CancellationToken) -> anyhow::Result<()> {
        let Some(()) = or_stop(self.switch(), &stop).await else { return Ok(()) };
        let Some(node) = or_stop(self.known(), &stop).await else { return Ok(()) };
        let config = network::Config {
            node,
            dir: self.layout.network(),
            ovs: ovs_config(&self.config, &self.layout),
            transport: Arc::clone(&self.network_controller),
            external: Some(ExternalConfig {
                gateway: gateway(self.config.network.public_pool),
                masquerade: self.config.network.external == External::Host,
                reachable: vec![],
                control: control_plane(&self.config),
                uplink: match &self.config.network.external {
                    External::Host => Uplink::Host,
                    External::OnLink(device) => Uplink::OnLink(device.clone()),
                    External::Routed => Uplink::Routed,
                },
            }),
            overlay: self.config.network.overlay_address,
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            audit_every: AUDIT_EVERY,
            status: self.network_status.clone(),
        };
        network::run(config, stop.cancelled()).await
    }

    /// Who this node is, once it is known: the hypervisor agent, here or in another process, has written it down.
    async fn known(&self) -> NodeId {
        let mut pause = KNOWN.0;
        loop {
            if let Some(id) = node_of(&self.layout) {
                return id;
            }
            self.waiting.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
            // About a hundredth of what has been waited already.
            pause = pause.mul_f64(1.01).min(KNOWN.1);
        }
    }
}

/// Where this machine reaches the control plane, as far as its configuration names addresses: controllers and etcd.
fn control_plane(config: &Config) -> Vec<SocketAddrV4> {
    let servers = config.control.servers.iter().filter_map(|server| server.parse::<Ipv4Addr>().ok());
    let ports = [config.roles.network_controller, config.roles.instance_manager].map(|listen| listen.port());
    let controllers = servers.flat_map(|address| ports.map(|port| SocketAddrV4::new(address, port)));
    let etcd = config
        .cluster
        .endpoints
        .iter()
        .filter_map(|url| url.trim_end_matches('/').rsplit('/').next()?.parse().ok());
    controllers.chain(etcd).collect()
}

/// Which node this machine is, as the hypervisor agent has written it down.
#[must_use]
pub fn node_of(layout: &Layout) -> Option<NodeId> {
    #[derive(serde::Deserialize)]
    struct Identity {
        node: NodeId,
    }
    let text = std::fs::read(layout.compute().join("node.json")).ok()?;
    serde_json::from_slice::<Identity>(&text).ok().map(|identity| identity.node)
}

/// Consoles of the instances of this process's node.
#[async_trait]
impl ConsoleSource for Worker {
    async fn console(&self, node: &str, instance: InstanceId) -> Result<Vec<u8>, ConsoleError> {
        if node != &*self.name {
            return Err(ConsoleError::Unavailable(format!("node {node} is not this one")));
        }
        let agent = self.current().ok_or_else(|| ConsoleError::Unavailable("it is starting".to_owned()))?;
        match agent.console_output(instance).await {
            None => Err(ConsoleError::None),
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(error)) => Err(ConsoleError::Unavailable(error.to_string())),
        }
    }
}

/// Which Open vSwitch, as configured.
#[must_use]
pub fn ovs_config(config: &Config, layout: &Layout) -> ovs::Config {
    ovs::Config {
        dir: layout.ovs(),
        choice: match config.network.switch {
            Switch::Auto => ovs::Choice::Auto,
            Switch::Private => ovs::Choice::Private,
        },
        datapath: match config.network.datapath {
            Datapath::Auto => None,
            Datapath::System => Some(ovs::Datapath::System),
            Datapath::Netdev => Some(ovs::Datapath::Netdev),
        },
    }
}

/// The host's address in the pool of public addresses: the first, with the pool's prefix.
pub fn gateway(pool: Ipv4Net) -> Ipv4Net {
    let first = std::net::Ipv4Addr::from(u32::from(pool.network()) + 1);
    Ipv4Net::new(first, pool.prefix_len()).unwrap_or(pool)
}

/// What comes first; `None` is the stop.
pub async fn or_stop<T>(work: impl Future<Output = T>, stop: &CancellationToken) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        done = work => Some(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_public_address_is_the_hosts() {
        assert_eq!(gateway("203.0.113.0/24".parse().unwrap()).to_string(), "203.0.113.1/24");
    }

    #[test]
    fn the_control_plane_is_where_the_configuration_says_by_address() {
        let mut config = Config::default();
        assert_eq!(control_plane(&config), []);
        config.control.servers = vec!["192.0.2.9".to_owned(), "first.example".to_owned()];
        config.cluster.endpoints =
            ["https://192.0.2.9:2379/", "https://first.example:2379", "https://[::1]:2379"]
                .map(str::to_owned)
                .to_vec();
        let roles = [config.roles.network_controller, config.roles.instance_manager].map(|at| at.port());
        let wanted = [roles[0], roles[1], 2379].map(|port| SocketAddrV4::new([192, 0, 2, 9].into(), port));
        assert_eq!(control_plane(&config), wanted);
    }
}
