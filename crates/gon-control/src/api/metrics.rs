//! What the API counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Which requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// Method.
    pub method: String,
    /// The route, as it is written in the OpenAPI document; `none` when none fits.
    pub route: String,
    /// Status.
    pub status: u16,
}

/// On which route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    /// Method.
    pub method: String,
    /// The route.
    pub route: String,
}

/// The API's metrics.
#[derive(Debug)]
pub struct ApiMetrics {
    /// Requests answered.
    pub requests: Family<RequestLabels, Counter>,
    /// Seconds from request to answer.
    pub latency: Family<RouteLabels, Histogram, fn() -> Histogram>,
    /// Requests in work.
    pub in_flight: Gauge,
    /// Open WebSockets.
    pub sockets: Gauge,
    /// Logins that failed.
    pub failed_logins: Counter,
    /// Connections to PostgreSQL.
    pub pool_size: Gauge,
    /// Those that rest.
    pub pool_idle: Gauge,
    /// Requests that panicked.
    pub panics: Counter,
}

fn latency() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0])
}

impl Default for ApiMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            latency: Family::new_with_constructor(latency),
            in_flight: Gauge::default(),
            sockets: Gauge::default(),
            failed_logins: Counter::default(),
            pool_size: Gauge::default(),
            pool_idle: Gauge::default(),
            panics: Counter::default(),
        }
    }
}

impl ApiMetrics {
    /// Makes the metrics part of a registry.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register("gon_http_requests", "Requests answered", self.requests.clone());
        r.register("gon_http_request_seconds", "Time from request to answer", self.latency.clone());
        r.register("gon_http_in_flight", "Requests in work", self.in_flight.clone());
        r.register("gon_websockets", "Open WebSockets", self.sockets.clone());
        r.register("gon_logins_failed", "Logins that failed", self.failed_logins.clone());
        r.register("gon_database_connections", "Connections to PostgreSQL", self.pool_size.clone());
        r.register(
            "gon_database_connections_idle",
            "Connections to PostgreSQL that rest",
            self.pool_idle.clone(),
        );
        r.register("gon_http_panics", "Requests that panicked", self.panics.clone());
    }
}
