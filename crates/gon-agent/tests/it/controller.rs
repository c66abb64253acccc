//! A controller that serves what a test says, over a unix socket, as the real one does.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use gon_proto::{NetworkReport, NodeNetwork, PortStatus, paths};
use gon_types::DocumentVersion;
use serde::Deserialize;
use tokio::sync::watch;

pub struct Controller {
    document: watch::Sender<Option<NodeNetwork>>,
    reports: watch::Receiver<Option<NetworkReport>>,
    server: tokio::task::JoinHandle<()>,
}
impl Drop for Controller {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Clone)]
struct Shared {
    document: watch::Receiver<Option<NodeNetwork>>,
    reports: Arc<watch::Sender<Option<NetworkReport>>>,
}

#[derive(Deserialize)]
struct After {
    after: String,
    wait: u64,
}

impl Controller {
    pub fn start(socket: &Path) -> Self {
        let _ = std::fs::remove_file(socket);
        let (document, documents) = watch::channel(None);
        let (report, reports) = watch::channel(None);
        let shared = Shared { document: documents, reports: Arc::new(report) };
        let router = Router::new()
            .route(paths::NETWORK_DOCUMENT, get(serve))
            .route(paths::NETWORK_REPORT, post(take))
            .with_state(shared);
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { document, reports, server }
    }

    pub fn publish(&self, document: NodeNetwork) {
        self.document.send_replace(Some(document));
    }

    /// Publishes, and waits until the node says that it is so, with every port ready.
    pub async fn settle(&mut self, document: NodeNetwork) -> NetworkReport {
        let version = document.version;
        self.publish(document);
        self.applied(version).await
    }

    pub async fn applied(&mut self, version: DocumentVersion) -> NetworkReport {
        self.wait_for(|report| {
            report.applied == version && report.ports.iter().all(|p| p.status == PortStatus::Ready)
        })
        .await
    }

    pub async fn wait_for(&mut self, good: impl Fn(&NetworkReport) -> bool) -> NetworkReport {
        let wait = self.reports.wait_for(|report| report.as_ref().is_some_and(&good));
        let found = match tokio::time::timeout(Duration::from_secs(20), wait).await {
            Ok(report) => report.unwrap().clone(),
            Err(_) => None,
        };
        found.unwrap_or_else(|| panic!("the last report is {:?}", self.reports.borrow()))
    }
}

async fn serve(State(mut shared): State<Shared>, Query(query): Query<After>) -> Response {
    let after: DocumentVersion = query.after.parse().unwrap();
    let newer = |d: &Option<NodeNetwork>| d.as_ref().is_some_and(|d| d.version > after);
    let wait = shared.document.wait_for(newer);
    match tokio::time::timeout(Duration::from_secs(query.wait), wait).await {
        Ok(Ok(document)) => Json(document.clone()).into_response(),
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn take(State(shared): State<Shared>, Json(report): Json<NetworkReport>) -> StatusCode {
    shared.reports.send_replace(Some(report));
    StatusCode::NO_CONTENT
}
