//! The site: its database, its servers on loopback addresses, and what they run.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gon_agent::link::Link;
use gon_agent::tls::TlsTransport;
use gon_bus::MemoryBus;
use gon_cluster::MemoryLiveness;
use gon_control::compute::{ComputeSettings, InstanceManager};
use gon_control::network::{NetworkController, NetworkSettings};
use gon_control::relay::{self, Nudge};
use gon_control::status::Metrics;
use gon_control::{join, peers};
use gon_store::Store;
use gon_testkit::TestDatabase;
use gon_tls::{Limits, Role, Tls, TlsDir};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Meter;

/// The only image.
pub const IMAGE: &str = "gon-linux";
/// Its digest.
pub const DIGEST: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// The `n`th thing of a kind, as in `site.sql`.
pub fn uuid(kind: u16, n: usize) -> Uuid {
    Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0000 | u128::from(kind) << 48 | n as u128)
}

/// The name of a node.
pub fn node_name(n: usize) -> String {
    format!("n{n:03}")
}

/// Where its tunnels end.
pub fn overlay_address(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, n as u8)
}

/// Two servers and their nodes.
pub struct Site {
    /// Where the agents live.
    pub agents: Runtime,
    /// What becomes of their calls.
    pub meter: Arc<Meter>,
    /// Leases and elections.
    pub liveness: Arc<MemoryLiveness>,
    bus: Arc<MemoryBus>,
    database: TestDatabase,
    root: tempfile::TempDir,
    /// Certificates, in memory if there is such a directory: making hundreds is no part of the storm.
    tls: tempfile::TempDir,
    /// Of each server: the instance manager's address, and the network controller's.
    addresses: Vec<(SocketAddr, SocketAddr)>,
    members: Vec<(Tls, Tls)>,
}

impl Site {
    /// A site of so many nodes, three instances on each, of which nobody has heard for long.
    pub fn new(nodes: usize) -> Self {
        let agents =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let root = tempfile::tempdir().unwrap();
        let tls = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let first = TlsDir::new(&tls.path().join("authority"));
        let (database, addresses, members) = agents.block_on(async {
            let database = gon_testkit::database().await;
            gon_store::admin::script(&database.store, include_str!("site.sql")).await.unwrap();
            first.authority_or_create().unwrap();
            let mut members = Vec::new();
            for n in 1..=nodes {
                let of = |role| member(&database.store, &tls, &first, role, node_name(n));
                members.push((of(Role::HypervisorAgent).await, of(Role::NetworkAgent).await));
            }
            // Ports that nobody listens on yet.
            let mut free = Vec::new();
            for _ in 0..4 {
                free.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
            }
            let address = |n: usize| free[n].local_addr().unwrap();
            (database, vec![(address(0), address(1)), (address(2), address(3))], members)
        });
        Self {
            agents,
            meter: Arc::new(Meter::new()),
            liveness: Arc::new(MemoryLiveness::new()),
            bus: Arc::new(MemoryBus::new()),
            database,
            root,
            tls,
            addresses,
            members,
        }
    }

    /// The ways of a node's two agents to the controllers.
    pub fn links(&self, n: usize) -> (Link, Link) {
        let link = |tls: &Tls, role, address: fn(&(SocketAddr, SocketAddr)) -> SocketAddr| {
            let addresses = self.addresses.iter().map(|both| address(both).to_string()).collect();
            Link::new(Arc::new(TlsTransport::fixed(tls.clone(), role, addresses)))
        };
        let (hypervisor, network) = &self.members[n - 1];
        (
            link(hypervisor, Role::InstanceManager, |both| both.0),
            link(network, Role::NetworkController, |both| both.1),
        )
    }

    /// A node's directory.
    pub fn dir(&self, n: usize) -> PathBuf {
        self.root.path().join(node_name(n)).join("state")
    }

    /// One number out of the database.
    pub fn number(&self, query: &'static str) -> i64 {
        let rows = self.agents.block_on(gon_store::admin::json(&self.database.store, query)).unwrap();
        rows[0].as_i64().unwrap()
    }

    /// Launches instances, as a user does: rows, and doorbells in the outbox.
    pub fn launch(&self, count: i64) {
        assert_eq!(count, 25, "launch.sql says how many");
        let launch = gon_store::admin::script(&self.database.store, include_str!("launch.sql"));
        self.agents.block_on(launch).unwrap();
    }
}

/// A role of a node with a certificate that is on record.
async fn member(store: &Store, root: &tempfile::TempDir, first: &TlsDir, role: Role, name: String) -> Tls {
    let dir = TlsDir::new(&root.path().join(&name));
    dir.make().unwrap();
    dir.trust(&first.read(&first.ca_certificates()).unwrap()).unwrap();
    join::issue_here(store, first, role, &name, &[]).await.unwrap();
    let (certificate, key) = first.load(role).unwrap();
    dir.install(role, &key, &certificate).unwrap();
    Tls::open(&dir, role).unwrap()
}

/// A server of the control plane: both controllers, their listeners and a relay, in a runtime of its own.
pub struct Server {
    runtime: Runtime,
    compute: Arc<InstanceManager>,
    network: Arc<NetworkController>,
}

impl Server {
    /// Starts the server of this index.
    pub fn start(site: &Site, index: usize) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let name = format!("s{index}");
        let root = TlsDir::new(&site.tls.path().join("authority"));
        let (liveness, bus) = (Arc::clone(&site.liveness), Arc::clone(&site.bus));
        let addresses = site.addresses[index];
        let (compute, network) = runtime.block_on(async {
            let store = Store::connect(&site.database.url, 8).await.unwrap();
            let stop = CancellationToken::new();
            let (metrics, nudge) = (Arc::new(Metrics::default()), Nudge::new());
            let compute = Arc::new(InstanceManager::new(
                store.clone(),
                Arc::clone(&bus) as _,
                nudge.clone(),
                ComputeSettings::default(),
                Arc::clone(&metrics),
                stop.clone(),
            ));
            let network = Arc::new(NetworkController::new(
                store.clone(),
                Arc::clone(&bus) as _,
                nudge.clone(),
                NetworkSettings::default(),
                Arc::clone(&metrics),
                stop.clone(),
            ));
            for (role, address, routes) in [
                (Role::InstanceManager, addresses.0, peers::compute_routes(&compute, &store)),
                (Role::NetworkController, addresses.1, peers::network_routes(&network, &store)),
            ] {
                join::issue_here(&store, &root, role, &name, &["127.0.0.1".to_owned()]).await.unwrap();
                let tls = Tls::open(&root, role).unwrap();
                let listener = TcpListener::bind(address).await.unwrap();
                // All nodes have the same address here.
                let limits = Limits { connections_per_address: 4096, ..Limits::default() };
                tokio::spawn(gon_tls::serve(listener, Some(tls), routes, limits, stop.clone()));
            }
            tokio::spawn(relay::run(store, bus, nudge, metrics, stop.clone()));
            let (manager, lives, holder, end) =
                (Arc::clone(&compute), Arc::clone(&liveness), name.clone(), stop.clone());
            tokio::spawn(async move { manager.run(&*lives, &holder, end).await });
            let (controller, holder) = (Arc::clone(&network), name);
            tokio::spawn(async move { controller.run(&*liveness, &holder, stop).await });
            (compute, network)
        });
        Self { runtime, compute, network }
    }

    /// The epochs under which its controllers lead, 0 if they do not.
    pub fn epochs(&self) -> (u64, u64) {
        let of = |ready: gon_control::status::Ready| ready.leads().unwrap_or(0);
        (of(self.compute.ready()), of(self.network.ready()))
    }

    /// Ends everything where it stands; connections break.
    pub fn kill(self) {
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}
