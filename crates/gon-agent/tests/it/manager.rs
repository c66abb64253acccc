//! An instance manager that serves what a test says, over a unix socket, as the real one does.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use gon_proto::{
    ComputeReport, GrantAnswer, GrantRequest, InstanceReport, InstanceSpec, NodeAnswer, NodeCompute,
    NodeReport, paths,
};
use gon_types::DocumentVersion;
use gon_types::id::InstanceId;
use serde::Deserialize;
use tokio::sync::watch;

use crate::samples;

pub struct Manager {
    document: watch::Sender<Option<NodeCompute>>,
    reports: watch::Receiver<Vec<ComputeReport>>,
    reporter: Arc<watch::Sender<Vec<ComputeReport>>>,
    node: watch::Receiver<Option<NodeReport>>,
    generation: u64,
    grants: Arc<Mutex<Grants>>,
    server: tokio::task::JoinHandle<()>,
}
impl Drop for Manager {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What the node may be granted.
#[derive(Default)]
struct Grants {
    epoch: u64,
    number: u64,
    gives: bool,
}

#[derive(Clone)]
struct Shared {
    grants: Arc<Mutex<Grants>>,
    document: watch::Receiver<Option<NodeCompute>>,
    reports: Arc<watch::Sender<Vec<ComputeReport>>>,
    node: Arc<watch::Sender<Option<NodeReport>>>,
}

#[derive(Deserialize)]
struct After {
    after: String,
    wait: u64,
}

impl Manager {
    pub fn start(socket: &Path) -> Self {
        let (document, documents) = watch::channel(None);
        let (report, reports) = watch::channel(vec![]);
        let (node, nodes) = watch::channel(None);
        let reporter = Arc::new(report);
        let grants = Arc::new(Mutex::new(Grants { epoch: 1, number: 7, gives: false }));
        let shared = Shared {
            grants: Arc::clone(&grants),
            document: documents,
            reports: Arc::clone(&reporter),
            node: Arc::new(node),
        };
        let router = Router::new()
            .route(paths::COMPUTE_DOCUMENT, get(serve))
            .route(paths::COMPUTE_REPORT, post(take))
            .route(paths::NODE_REPORT, post(introduce))
            .route(paths::GRANT, post(grant))
            .with_state(shared);
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { document, reports, reporter, node: nodes, generation: 0, grants, server }
    }

    /// The next document has these instances.
    pub fn publish(&mut self, instances: &[InstanceSpec]) {
        self.generation += 1;
        self.document.send_replace(Some(NodeCompute {
            format: gon_proto::FORMAT,
            node: samples::node(),
            version: DocumentVersion { epoch: 1, generation: self.generation },
            mass_change_ok: false,
            instances: instances.to_vec(),
        }));
    }

    /// Waits for a report that says this of an instance.
    pub async fn wait_for(
        &self,
        id: InstanceId,
        what: &str,
        good: impl Fn(&InstanceReport) -> bool,
    ) -> InstanceReport {
        let found = |reports: &Vec<ComputeReport>| {
            reports.last().and_then(|report| report.instances.iter().find(|i| i.id == id && good(i)).cloned())
        };
        let mut reports = self.reports.clone();
        let wait = reports.wait_for(|reports| found(reports).is_some());
        match tokio::time::timeout(Duration::from_secs(40), wait).await {
            Ok(reports) => found(&reports.unwrap()).unwrap(),
            Err(_) => panic!("not {what}: {:?}", self.reports.borrow().last()),
        }
    }

    /// Whether the node gets grants from now on; none until this says so.
    pub fn grant(&self, gives: bool) {
        self.grants.lock().unwrap().gives = gives;
    }

    /// The node's epoch is raised.
    pub fn raise(&self) -> u64 {
        let mut grants = self.grants.lock().unwrap();
        grants.epoch += 1;
        grants.epoch
    }

    /// Forgets what was reported: what comes from now on comes from a new agent.
    pub fn forget(&self) {
        self.reporter.send_replace(vec![]);
    }

    /// Every report so far.
    pub fn reports(&self) -> Vec<ComputeReport> {
        self.reports.borrow().clone()
    }

    /// What the node says of itself, once it does.
    pub async fn node(&mut self) -> NodeReport {
        let wait = self.node.wait_for(Option::is_some);
        let report = tokio::time::timeout(Duration::from_secs(30), wait).await.expect("a node report");
        report.unwrap().clone().unwrap()
    }
}

async fn serve(State(mut shared): State<Shared>, Query(query): Query<After>) -> Response {
    let after: DocumentVersion = query.after.parse().unwrap();
    let wait = shared.document.wait_for(|d| d.as_ref().is_some_and(|d| d.version > after));
    match tokio::time::timeout(Duration::from_secs(query.wait), wait).await {
        Ok(Ok(document)) => Json(document.clone()).into_response(),
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn take(State(shared): State<Shared>, Json(report): Json<ComputeReport>) -> StatusCode {
    shared.reports.send_modify(|reports| reports.push(report));
    StatusCode::NO_CONTENT
}

async fn introduce(State(shared): State<Shared>, Json(report): Json<NodeReport>) -> Json<NodeAnswer> {
    shared.node.send_replace(Some(report));
    Json(NodeAnswer { node: samples::node(), epoch: shared.grants.lock().unwrap().epoch })
}

async fn grant(State(shared): State<Shared>, Json(asked): Json<GrantRequest>) -> Response {
    let mut grants = shared.grants.lock().unwrap();
    if !grants.gives {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let granted = asked.epoch == grants.epoch && asked.known == Some(grants.number);
    grants.number += u64::from(granted);
    Json(GrantAnswer { epoch: grants.epoch, number: grants.number, granted }).into_response()
}
