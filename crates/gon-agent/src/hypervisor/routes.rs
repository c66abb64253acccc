//! What the role's port serves. Nothing here changes anything.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use gon_types::id::{IdRef, Instance, InstanceId};
use serde_json::json;

use super::Shared;
use super::journal::Journal;

/// `/accelerator` (what guests are started with, once that is known), `/debug/state` (what this role knows), `/instances/{id}/console` (the last 64 KiB
/// of a console, as they are).
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/accelerator", get(accelerator))
        .route("/instances/{id}/console", get(console))
        .route("/debug/state", get(state))
        .with_state(shared)
}

async fn console(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let Some(id) = resolve(&shared, &id) else {
        return (StatusCode::NOT_FOUND, "no such instance on this node\n").into_response();
    };
    match shared.console_output(id).await {
        Some(Ok(bytes)) => {
            let headers = [
                (header::CONTENT_TYPE, "application/octet-stream"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ];
            (headers, bytes).into_response()
        }
        Some(Err(error)) => {
            tracing::warn!(instance = %id, %error, "console cannot be read");
            (StatusCode::INTERNAL_SERVER_ERROR, "the console cannot be read\n").into_response()
        }
        None => (StatusCode::NOT_FOUND, "no such instance on this node\n").into_response(),
    }
}

fn resolve(shared: &Shared, text: &str) -> Option<InstanceId> {
    match text.parse::<IdRef<Instance>>().ok()? {
        IdRef::Whole(id) => Some(id),
        IdRef::Short(short) => shared.ids().into_iter().find(|id| id.short() == short),
    }
}

async fn accelerator(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    let status = shared.status.borrow();
    match &status.accelerator {
        Some(accelerator) => (StatusCode::OK, format!("ready, {accelerator}\n")),
        None => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", status.note)),
    }
}

async fn state(State(shared): State<Arc<Shared>>) -> Response {
    let instances: Vec<_> = shared
        .board
        .reports()
        .into_iter()
        .map(|report| {
            let journal = Journal::read(&shared.instance_dir(report.id), report.id).ok().flatten();
            json!({"id": report.id.to_string(), "report": report, "journal": journal})
        })
        .collect();
    let status = shared.status.borrow().clone();
    Json(json!({"status": status, "instances": instances})).into_response()
}
