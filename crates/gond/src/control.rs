//! The control plane's parts, put together once for standalone and for roles in processes of their own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use gon_bus::Bus;
use gon_cluster::Liveness;
use gon_control::compute::{ComputeSettings, InstanceManager};
use gon_control::network::{NetworkController, NetworkSettings};
use gon_control::relay::Nudge;
use gon_control::status::Metrics;
use gon_store::Store;
use prometheus_client::registry::Registry;
use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Connections for the controllers and the relay of one process: a few short statements at a time.
pub const CONTROLLER_CONNECTIONS: u32 = 6;

/// What the roles of one process share.
#[derive(Clone)]
pub struct Shared {
    /// The door to PostgreSQL for the controllers.
    pub store: Store,
    /// The bus.
    pub bus: Arc<dyn Bus>,
    /// Who is alive and who leads.
    pub liveness: Arc<dyn Liveness>,
    /// To the relay of this process.
    pub nudge: Nudge,
    /// What the controllers count.
    pub metrics: Arc<Metrics>,
    /// All metrics of this process.
    pub registry: Arc<Mutex<Registry>>,
    /// Who we are where leaders are elected.
    pub holder: Arc<str>,
}

impl Shared {
    /// With the in-process adapters.
    #[must_use]
    pub fn in_process(store: Store) -> Self {
        let (bus, liveness) = (gon_bus::MemoryBus::new(), gon_cluster::MemoryLiveness::new());
        Self::new(store, Arc::new(bus), Arc::new(liveness), Arc::default(), "gond")
    }

    /// With these adapters, on the machine `name`.
    #[must_use]
    pub fn new(
        store: Store,
        bus: Arc<dyn Bus>,
        liveness: Arc<dyn Liveness>,
        registry: Arc<Mutex<Registry>>,
        name: &str,
    ) -> Self {
        let metrics = Arc::new(Metrics::default());
        metrics.register(&mut registry.lock().unwrap_or_else(PoisonError::into_inner));
        // Another process on the same machine, and the same one after a restart, is another holder.
        let holder = format!("{name}-{}-{}", std::process::id(), uuid::Uuid::now_v7().simple());
        Self { store, bus, liveness, nudge: Nudge::new(), metrics, registry, holder: holder.into() }
    }

    /// The network controller; it works once it is run.
    #[must_use]
    pub fn network_controller(&self, config: &Config, stop: CancellationToken) -> Arc<NetworkController> {
        Arc::new(NetworkController::new(
            self.store.clone(),
            Arc::clone(&self.bus),
            self.nudge.clone(),
            NetworkSettings { mtu: config.network.mtu, lease_seconds: config.network.lease_seconds },
            Arc::clone(&self.metrics),
            stop,
        ))
    }

    /// The instance manager; it works once it is run.
    #[must_use]
    pub fn instance_manager(&self, config: &Config, stop: CancellationToken) -> Arc<InstanceManager> {
        Arc::new(InstanceManager::new(
            self.store.clone(),
            Arc::clone(&self.bus),
            self.nudge.clone(),
            ComputeSettings {
                stop_grace_seconds: config.compute.stop_grace_seconds,
                mtu: config.network.mtu,
                placement_patience: Duration::from_secs(config.compute.placement_patience_seconds),
            },
            Arc::clone(&self.metrics),
            stop,
        ))
    }
}

/// An error unless a database is configured.
pub fn require_database(config: &Config) -> anyhow::Result<()> {
    config.database.url.as_ref().map(drop).context(
        "there is no database.url: only 'gond standalone' has a database of its own (GON_DATABASE_URL)",
    )
}

/// Opens the configured database.
pub async fn connect(config: &Config, connections: u32) -> anyhow::Result<Store> {
    let url = config.database.url.as_ref().context("there is no database.url")?;
    Store::connect(url.expose_secret(), connections).await.context("the database")
}

/// Fills the pool of public addresses as configured.
pub async fn prepare(store: &Store, config: &Config) -> anyhow::Result<()> {
    store.migrate().await.context("migrating the database")?;
    let mut tx = store.begin().await?;
    gon_store::placement::set_public_pool(&mut tx, config.network.public_pool).await?;
    gon_store::commit(tx).await.context("the pool of public addresses")
}
