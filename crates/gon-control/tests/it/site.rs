//! A site out of `topology.sql` with its controllers, which do nothing on their own.

use std::collections::BTreeSet;
use std::sync::Arc;

use gon_bus::MemoryBus;
use gon_control::compute::{ComputeSettings, InstanceManager};
use gon_control::network::{NetworkController, NetworkSettings};
use gon_control::relay::Nudge;
use gon_control::status::Metrics;
use gon_testkit::TestDatabase;
use gon_types::id::{Id, NodeId, Resource};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub struct Site {
    pub database: TestDatabase,
    pub bus: Arc<MemoryBus>,
    pub network: Arc<NetworkController>,
    pub compute: Arc<InstanceManager>,
}

/// The ids of `topology.sql`.
pub fn id<R: Resource>(last: u64) -> Id<R> {
    Id::from_uuid(uuid(last))
}

pub fn uuid(last: u64) -> Uuid {
    Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0000 | u128::from(last))
}

pub fn n1() -> NodeId {
    id(1)
}

impl Site {
    pub async fn new() -> Self {
        let site = Self::empty().await;
        gon_store::admin::script(&site.database.store, include_str!("topology.sql")).await.unwrap();
        site
    }

    /// Both lead; nothing runs by itself.
    pub async fn empty() -> Self {
        let database = gon_testkit::database().await;
        let bus = Arc::new(MemoryBus::new());
        let metrics = Arc::new(Metrics::default());
        let network = NetworkController::new(
            database.store.clone(),
            Arc::clone(&bus) as _,
            Nudge::new(),
            NetworkSettings::default(),
            Arc::clone(&metrics),
            CancellationToken::new(),
        );
        let compute = InstanceManager::new(
            database.store.clone(),
            Arc::clone(&bus) as _,
            Nudge::new(),
            ComputeSettings::default(),
            metrics,
            CancellationToken::new(),
        );
        network.take_over("test").await.unwrap();
        compute.take_over("test").await.unwrap();
        Self { database, bus, network: Arc::new(network), compute: Arc::new(compute) }
    }

    /// Another manager of the same site that believes to lead as well, since the same epoch.
    pub fn another_manager(&self, settings: ComputeSettings) -> InstanceManager {
        let manager = self.standby(settings);
        manager.assume(self.compute.ready().leads().unwrap());
        manager
    }

    /// Another manager of the same site that does not lead.
    pub fn standby(&self, settings: ComputeSettings) -> InstanceManager {
        InstanceManager::new(
            self.database.store.clone(),
            Arc::clone(&self.bus) as _,
            Nudge::new(),
            settings,
            Arc::new(Metrics::default()),
            CancellationToken::new(),
        )
    }

    /// Another network controller of the same site that does not lead.
    pub fn another_controller(&self) -> NetworkController {
        NetworkController::new(
            self.database.store.clone(),
            Arc::clone(&self.bus) as _,
            Nudge::new(),
            NetworkSettings::default(),
            Arc::new(Metrics::default()),
            CancellationToken::new(),
        )
    }

    pub async fn sql(&self, statements: &'static str) {
        gon_store::admin::script(&self.database.store, statements).await.unwrap();
    }

    pub async fn rows(&self, query: &'static str) -> Vec<Value> {
        gon_store::admin::json(&self.database.store, query).await.unwrap()
    }

    pub async fn row(&self, query: &'static str) -> Value {
        let rows = self.rows(query).await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.into_iter().next().unwrap()
    }

    /// What lies in the outbox, sorted; it is empty afterwards.
    pub async fn rung(&self) -> Vec<String> {
        let (tx, rows) = gon_store::relay::claim(&self.database.store, 1000).await.unwrap();
        gon_store::commit(tx).await.unwrap();
        let mut rung: Vec<String> =
            rows.iter().map(|r| format!("{} {:x}", r.subject, short(r.subject_id))).collect();
        rung.sort();
        rung.dedup();
        rung
    }
}

fn short(id: Uuid) -> u16 {
    (id.as_u128() & 0xffff) as u16
}

pub fn alive(nodes: &[&str]) -> BTreeSet<String> {
    nodes.iter().map(|n| (*n).to_owned()).collect()
}

/// Compares with a golden file. After a change that is meant: `GON_BLESS=1 cargo test -p gon-control`.
pub fn golden(name: &str, text: &str) {
    let path = format!("{}/tests/it/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("GON_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == text, "{name} differs; it is now:\n{text}");
}
