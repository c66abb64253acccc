//! What an agent says of itself: for the process it runs in, and on its status port.
//!
//! State never changes through here. The numbers are a snapshot that the agent replaces whole.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use gon_types::DocumentVersion;
use serde::Serialize;
use tokio::sync::watch;

/// How the network agent is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NetworkStatus {
    /// Whether the data plane is what the last document says.
    pub ready: bool,
    /// `system` or `netdev`, once known.
    pub datapath: Option<String>,
    /// The version of Open vSwitch, once known.
    pub ovs_version: Option<String>,
    /// The document in force.
    pub applied: DocumentVersion,
    /// Its ports.
    pub ports: usize,
    /// Those of them that are not in order.
    pub degraded: usize,
    /// Its flows.
    pub flows: usize,
    /// How often the switch had to be found again.
    pub restores: u64,
    /// Flows and ports that an audit found wrong, ever.
    pub repairs: u64,
    /// How long the last document took from its arrival until the switch had confirmed its flows, microseconds.
    pub wired_us: u64,
    /// The same until it was on the disk and its ports were up.
    pub settled_us: u64,
    /// What is wrong, if something is.
    pub error: Option<String>,
}

/// `/healthz` (the process lives), `/readyz` (its work is done), `/metrics`, `/debug/state`.
pub fn router(status: watch::Receiver<NetworkStatus>) -> axum::Router {
    axum::Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/debug/state", get(async |State(status): State<Shared>| Json(status.borrow().clone())))
        .with_state(status)
}

type Shared = watch::Receiver<NetworkStatus>;

async fn ready(State(status): State<Shared>) -> (StatusCode, String) {
    let status = status.borrow();
    match &status.error {
        None if status.ready => (StatusCode::OK, "ready\n".to_owned()),
        error => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", error.as_deref().unwrap_or("starting"))),
    }
}

async fn metrics(State(status): State<Shared>) -> ([(&'static str, &'static str); 1], String) {
    use std::fmt::Write as _;
    let status = status.borrow();
    let mut text = String::new();
    for (name, kind, help, value) in [
        ("ready", "gauge", "Whether the data plane is what the last document says.", u64::from(status.ready)),
        ("ports", "gauge", "Ports of the document in force.", status.ports as u64),
        ("ports_degraded", "gauge", "Ports that are not in order.", status.degraded as u64),
        ("flows", "gauge", "Flows of the document in force.", status.flows as u64),
        ("applied_generation", "gauge", "Generation of the document in force.", status.applied.generation),
        ("document_wired_microseconds", "gauge", "From a document's arrival to its flows.", status.wired_us),
        (
            "document_settled_microseconds",
            "gauge",
            "From a document's arrival to all of it.",
            status.settled_us,
        ),
        ("restores_total", "counter", "Times the switch had to be found again.", status.restores),
        ("repairs_total", "counter", "Flows and ports that an audit found wrong.", status.repairs),
    ] {
        let _ = writeln!(text, "# HELP gon_network_{name} {help}\n# TYPE gon_network_{name} {kind}");
        let _ = writeln!(text, "gon_network_{name} {value}");
    }
    ([("content-type", "text/plain; version=0.0.4")], text)
}
