//! `/healthz`, `/readyz`, `/metrics`: on every service's port, for whoever asks.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;

use super::{Health, Verdict};

/// What operators see of a service.
#[derive(Debug, Clone)]
pub struct Ops {
    /// How it is.
    pub health: Health,
    /// What it counts.
    pub registry: Arc<Mutex<Registry>>,
}

impl Ops {
    /// Of a service that counts nothing but what every process does.
    #[must_use]
    pub fn new(health: Health, registry: Arc<Mutex<Registry>>) -> Self {
        super::metrics::register(&mut registry.lock().unwrap_or_else(PoisonError::into_inner), &health);
        Self { health, registry }
    }
}

/// The three pages. State never changes through them.
pub fn router(ops: Ops) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(ops)
}

async fn readyz(State(ops): State<Ops>) -> Response {
    let document = ops.health.document();
    let status = match ops.health.verdict() {
        Verdict::Unready => StatusCode::SERVICE_UNAVAILABLE,
        Verdict::Ready | Verdict::Degraded => StatusCode::OK,
    };
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, text).into_response()
}

async fn metrics(State(ops): State<Ops>) -> Response {
    let mut text = String::new();
    let registry = ops.registry.lock().unwrap_or_else(PoisonError::into_inner);
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => {
            ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
                .into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
