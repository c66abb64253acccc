//! Health, readiness and metrics of the two controllers and the relay. State never changes through this.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// What the controllers count. One per process.
#[derive(Debug)]
pub struct Metrics {
    /// Outbox rows published.
    pub doorbells: Counter,
    /// Rounds of the relay.
    pub relay_rounds: Counter,
    /// Outbox rows that wait.
    pub outbox: Gauge<i64, AtomicI64>,
    /// Network documents published.
    pub network_documents: Counter,
    /// Compute documents published.
    pub compute_documents: Counter,
    /// Seconds to resolve and publish one node's network document.
    pub network_resolve: Histogram,
    /// Reports taken.
    pub reports: Counter,
    /// Reports refused or failed.
    pub reports_failed: Counter,
    /// Instances that wait for a node.
    pub unplaced: Gauge<i64, AtomicI64>,
    /// Nodes that have not reported for 15 s.
    pub silent_nodes: Gauge<i64, AtomicI64>,
    /// Instances on those nodes: their health is unknown.
    pub unknown_instances: Gauge<i64, AtomicI64>,
    /// Ports that are closed because their policy could not be put in force.
    pub degraded_ports: Gauge<i64, AtomicI64>,
    /// Instances that nodes have and the restored database has forgotten.
    pub forgotten: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            doorbells: Counter::default(),
            relay_rounds: Counter::default(),
            outbox: Gauge::default(),
            network_documents: Counter::default(),
            compute_documents: Counter::default(),
            network_resolve: Histogram::new([
                0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.5, 2.0,
            ]),
            reports: Counter::default(),
            reports_failed: Counter::default(),
            unplaced: Gauge::default(),
            silent_nodes: Gauge::default(),
            unknown_instances: Gauge::default(),
            degraded_ports: Gauge::default(),
            forgotten: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Makes the metrics part of a registry.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register("gon_doorbells", "Outbox rows published", self.doorbells.clone());
        r.register("gon_relay_rounds", "Rounds of the relay", self.relay_rounds.clone());
        r.register("gon_outbox_waiting", "Outbox rows that wait to be published", self.outbox.clone());
        r.register("gon_network_documents", "Network documents published", self.network_documents.clone());
        r.register("gon_compute_documents", "Compute documents published", self.compute_documents.clone());
        r.register(
            "gon_network_resolve_seconds",
            "Time to resolve and publish one node's network document",
            self.network_resolve.clone(),
        );
        r.register("gon_reports", "Node reports taken", self.reports.clone());
        r.register("gon_reports_failed", "Node reports refused or failed", self.reports_failed.clone());
        r.register("gon_instances_unplaced", "Instances that wait for a node", self.unplaced.clone());
        r.register("gon_nodes_silent", "Nodes that have not reported for 15 s", self.silent_nodes.clone());
        r.register(
            "gon_instances_unknown",
            "Instances on silent nodes: their health is unknown",
            self.unknown_instances.clone(),
        );
        r.register(
            "gon_ports_degraded",
            "Ports closed because their policy could not be put in force",
            self.degraded_ports.clone(),
        );
        r.register(
            "gon_instances_forgotten",
            "Instances that nodes have and the restored database has forgotten",
            self.forgotten.clone(),
        );
    }
}

/// How a controller is: set by its loop, read by whoever asks.
#[derive(Debug, Clone, Default)]
pub struct Ready(Arc<Condition>);

#[derive(Debug, Default)]
struct Condition {
    looked: AtomicBool,
    /// The epoch under which it leads; 0 while it does not.
    epoch: AtomicU64,
    rounds: AtomicU64,
}

impl Ready {
    /// From now on it has looked at everything as the leader, or has not.
    pub fn set(&self, ready: bool) {
        self.0.looked.store(ready, Ordering::Release);
    }
    /// Whether it leads and has looked at everything.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.looked.load(Ordering::Acquire)
    }
    /// From now on it leads under this epoch, or stands by.
    pub fn lead(&self, epoch: Option<u64>) {
        self.0.epoch.store(epoch.unwrap_or(0), Ordering::Release);
        self.turn();
    }
    /// The epoch under which it leads.
    #[must_use]
    pub fn leads(&self) -> Option<u64> {
        Some(self.0.epoch.load(Ordering::Acquire)).filter(|epoch| *epoch > 0)
    }
    /// Its loop went round.
    pub fn turn(&self) {
        self.0.rounds.fetch_add(1, Ordering::Relaxed);
    }
    /// How often its loop went round, idle or not: one that stands still is not alive.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.0.rounds.load(Ordering::Relaxed)
    }
}

/// Waits for `long`, as a loop that lives: it goes round all the while.
pub(crate) async fn turning<T>(ready: &Ready, long: impl Future<Output = T>) -> T {
    tokio::pin!(long);
    loop {
        ready.turn();
        if let Ok(done) = tokio::time::timeout(TURN, long.as_mut()).await {
            return done;
        }
    }
}

/// How often a loop that waits says that it lives.
const TURN: std::time::Duration = std::time::Duration::from_secs(5);

/// `/healthz`, `/readyz` and `/metrics` of a controller's own port.
pub fn router(ready: Ready, registry: Arc<Mutex<Registry>>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(ready)
        .merge(Router::new().route("/metrics", get(metrics)).with_state(registry))
}

async fn readyz(State(ready): State<Ready>) -> impl IntoResponse {
    if ready.get() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: no leadership or no first look yet\n")
    }
}

async fn metrics(State(registry): State<Arc<Mutex<Registry>>>) -> impl IntoResponse {
    let mut text = String::new();
    let registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
            text,
        )
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
