//! Node documents: kept, numbered and served to the agents by long poll; and the way their reports come in.
//!
//! A node is who its listener says it is ([`NodeIdentity`]), never who it claims to be. Promises that a version is
//! given to one content only, that a content is published once, and that whoever waits is answered as soon as there is
//! something newer.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use gon_core::document::number;
use gon_proto::{
    ComputeReport, GrantAnswer, GrantRequest, NetworkReport, NodeAnswer, NodeCompute, NodeNetwork,
    NodeReport, paths,
};
use gon_store::{Store, StoreError};
use gon_types::DocumentVersion;
use gon_types::id::NodeId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::compute::InstanceManager;
use crate::network::NetworkController;
use crate::peers::KnownNode;

/// The longest a poll is held, whatever the agent asks for.
const LONGEST_WAIT: u64 = 60;
/// The largest report that is read.
const REPORT_LIMIT: usize = 4 << 20;

/// Who the node at the other end of a connection is: the name in its certificate, or, on the private socket of one
/// process, the name of the only node. A listener adds it to every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity(pub Arc<str>);

/// A document that can be numbered.
pub trait NodeDocument: Serialize + Clone + PartialEq + Send + Sync + 'static {
    /// Writes its place in the order, and whether removing most of the node is meant.
    fn stamp(&mut self, version: DocumentVersion, mass_change_ok: bool);
    /// Says it in an older format that is still spoken.
    fn speak(&mut self, _format: u32) {}
}
impl NodeDocument for NodeNetwork {
    fn stamp(&mut self, version: DocumentVersion, mass_change_ok: bool) {
        (self.version, self.mass_change_ok) = (version, mass_change_ok);
    }
    fn speak(&mut self, format: u32) {
        self.speak(format);
    }
}
impl NodeDocument for NodeCompute {
    fn stamp(&mut self, version: DocumentVersion, mass_change_ok: bool) {
        (self.version, self.mass_change_ok) = (version, mass_change_ok);
    }
    fn speak(&mut self, format: u32) {
        self.speak(format);
    }
}

/// A document as it is served.
#[derive(Debug)]
pub struct Published<D> {
    /// Its place in the order.
    pub version: DocumentVersion,
    /// What is sent.
    pub body: Bytes,
    /// Whether it says that removing most of the node is meant.
    pub mass_change_ok: bool,
    /// The same without its stamp: what the next one is compared with.
    content: D,
}

impl<D: NodeDocument> Published<D> {
    /// What it says, without its stamp.
    #[must_use]
    pub const fn content(&self) -> &D {
        &self.content
    }

    /// What is sent to one that speaks `format`.
    fn body_in(&self, format: u32) -> Result<Bytes, serde_json::Error> {
        if format == gon_proto::FORMAT {
            return Ok(self.body.clone());
        }
        let mut older = self.content.clone();
        older.stamp(self.version, self.mass_change_ok);
        older.speak(format);
        serde_json::to_vec(&older).map(Bytes::from)
    }
}

/// Where a node's latest document is put, and where its polls wait.
type Slot<D> = watch::Sender<Option<Arc<Published<D>>>>;

/// The latest document of every node.
#[derive(Debug)]
pub struct Documents<D> {
    nodes: Mutex<HashMap<NodeId, Slot<D>>>,
    /// Ends every poll that is held.
    stop: CancellationToken,
    turn: tokio::sync::Mutex<()>,
}

/// A poisoned lock only means that another task panicked between two whole writes.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<D: NodeDocument> Documents<D> {
    /// No document yet. Polls end when `stop` is cancelled.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self { nodes: Mutex::default(), stop, turn: tokio::sync::Mutex::default() }
    }

    /// To be held from before the rows of a document are read until it is published: of two who do that at once, the
    /// older rows might get the newer version, and a node would do again what it had been told to end.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Publishes what `node` should be, if that differs from what it was told under this epoch. Returns the version in
    /// force and whether it is new. `content` is unstamped.
    ///
    /// # Errors
    /// Only if the document cannot be written as JSON, which no document of ours can bring about.
    pub fn publish(
        &self,
        epoch: u64,
        node: NodeId,
        content: D,
        mass_change_ok: bool,
    ) -> Result<(DocumentVersion, bool), serde_json::Error> {
        let mut nodes = lock(&self.nodes);
        let slot = nodes.entry(node).or_default();
        let held = slot.borrow().clone();
        let in_force = held.as_ref().map(|held| (held.version, &held.content, held.mass_change_ok));
        let version = match number(in_force, epoch, &content, mass_change_ok) {
            Ok(version) => version,
            Err(in_force) => return Ok((in_force, false)),
        };
        let mut content = content;
        content.stamp(version, mass_change_ok);
        let body = serde_json::to_vec(&content).map(Bytes::from);
        content.stamp(DocumentVersion::default(), false);
        let body = body?;
        slot.send_replace(Some(Arc::new(Published { version, body, mass_change_ok, content })));
        Ok((version, true))
    }

    /// The latest document of a node.
    #[must_use]
    pub fn latest(&self, node: NodeId) -> Option<Arc<Published<D>>> {
        lock(&self.nodes).get(&node).and_then(|slot| slot.borrow().clone())
    }

    /// What the node's latest document says, without its stamp; asked by a function so that nothing is copied.
    pub fn look<T>(&self, node: NodeId, at: impl FnOnce(&D) -> T) -> Option<T> {
        self.latest(node).map(|document| at(&document.content))
    }

    /// Forgets every document and ends every poll: whoever made them no longer leads, or not since the same epoch.
    pub fn clear(&self) {
        lock(&self.nodes).clear();
    }

    /// The nodes that have a document.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        lock(&self.nodes).keys().copied().collect()
    }

    /// The latest document of a node that is newer than `after`; waits for one up to `wait`.
    pub async fn newer(
        &self,
        node: NodeId,
        after: DocumentVersion,
        wait: Duration,
    ) -> Option<Arc<Published<D>>> {
        let mut slot = lock(&self.nodes).entry(node).or_default().subscribe();
        let newer = slot.wait_for(|held| held.as_ref().is_some_and(|d| d.version > after));
        tokio::select! {
            biased;
            found = newer => found.ok().and_then(|held| held.clone()),
            () = tokio::time::sleep(wait) => None,
            () = self.stop.cancelled() => None,
        }
    }
}

/// How long the id of a node is taken for granted: so long may it go unnoticed that it was removed.
const IDENTITY_TTL: Duration = Duration::from_secs(1);

/// Name to id of nodes, and when that was asked, so that not every poll costs a query.
#[derive(Debug, Default)]
pub struct Directory(Mutex<HashMap<Arc<str>, (NodeId, Instant)>>);

impl Directory {
    /// The id of the node of this name; `None` if it never reported, or was removed. What was known holds while the
    /// database is away.
    pub async fn id(&self, store: &Store, identity: &NodeIdentity) -> Result<Option<NodeId>, StoreError> {
        let known = lock(&self.0).get(&identity.0).copied();
        if let Some((id, at)) = known
            && at.elapsed() < IDENTITY_TTL
        {
            return Ok(Some(id));
        }
        match gon_store::nodes::id_by_name(store, &identity.0).await {
            Ok(Some(id)) => {
                let id = NodeId::from_uuid(id);
                lock(&self.0).insert(Arc::clone(&identity.0), (id, Instant::now()));
                Ok(Some(id))
            }
            Ok(None) => {
                lock(&self.0).remove(&identity.0);
                Ok(None)
            }
            Err(StoreError::Unavailable(error)) => match known {
                Some((id, _)) => Ok(Some(id)),
                None => Err(StoreError::Unavailable(error)),
            },
            Err(error) => Err(error),
        }
    }
}

/// Why a call of an agent was not answered as it wished.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// It never said who it is.
    #[error("node '{0}' is not known: it has to report itself first")]
    UnknownNode(String),
    /// Somebody else leads: ask there.
    #[error("this controller does not lead")]
    NotLeading,
    /// It was removed from the site.
    #[error("this node was removed")]
    Removed,
    /// It speaks of a life of the node that is over.
    #[error("this report is of an epoch of the node that is over")]
    OldEpoch,
    /// It speaks for somebody else.
    #[error("this report speaks for another node")]
    OtherNode,
    /// Its shape is not one we know.
    #[error(
        "format {0} is not spoken here, {oldest} to {newest} are",
        oldest = gon_proto::OLDEST_FORMAT,
        newest = gon_proto::FORMAT
    )]
    Format(u32),
    /// Something in it cannot be.
    #[error("{0}")]
    Invalid(String),
    /// PostgreSQL.
    #[error("the database did not take it")]
    Store(#[from] StoreError),
}

impl IntoResponse for NodeError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::UnknownNode(_) => StatusCode::NOT_FOUND,
            Self::OtherNode => StatusCode::FORBIDDEN,
            Self::Removed => StatusCode::GONE,
            Self::OldEpoch => StatusCode::CONFLICT,
            Self::Format(_) | Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::NotLeading | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        match &self {
            // Said to every agent of the site every second, while they look for who leads.
            Self::NotLeading | Self::Store(StoreError::Deposed { .. }) => {
                tracing::debug!(error = %self, "a node's call was refused");
            }
            Self::Store(_) => {
                tracing::warn!(error = &self as &dyn std::error::Error, "a node's call failed");
            }
            _ => tracing::info!(error = %self, "a node's call was refused"),
        }
        let mut response = (status, self.to_string()).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

/// The query of a long poll.
#[derive(Debug, Deserialize)]
struct Poll {
    after: Option<String>,
    wait: Option<u64>,
    /// What the agent speaks; the first format had no word for it.
    format: Option<u32>,
}

async fn poll<D: NodeDocument>(
    documents: &Documents<D>,
    node: NodeId,
    poll: &Poll,
    headers: &HeaderMap,
) -> Result<Response, NodeError> {
    let said = match &poll.after {
        Some(after) => Some(after.as_str()),
        None => headers
            .get(header::IF_NONE_MATCH)
            .and_then(|tag| tag.to_str().ok())
            .map(|tag| tag.trim_matches('"')),
    };
    let after = match said {
        Some(text) => text.parse().map_err(|error| NodeError::Invalid(format!("after: {error}")))?,
        None => DocumentVersion::default(),
    };
    let wait = Duration::from_secs(poll.wait.unwrap_or(25).min(LONGEST_WAIT));
    // One that is ahead of us understands us; one that is too far behind does not.
    let format = poll.format.unwrap_or(1).min(gon_proto::FORMAT);
    if !gon_proto::is_spoken(format) {
        return Err(NodeError::Format(format));
    }
    Ok(match documents.newer(node, after, wait).await {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(document) => (
            [
                (header::ETAG, format!("\"{}\"", document.version)),
                (header::CONTENT_TYPE, "application/json".to_owned()),
            ],
            document
                .body_in(format)
                .map_err(|error| StoreError::Db(gon_store::invalid(error.to_string())))?,
        )
            .into_response(),
    })
}

/// What the network controller serves to the agents, without asking who they are: for the private socket, or behind
/// [`crate::peers::Gate`].
pub fn network_router(controller: Arc<NetworkController>) -> Router {
    Router::new()
        .route(paths::NETWORK_DOCUMENT, get(network_document))
        .route(paths::NETWORK_REPORT, post(network_report))
        .layer(DefaultBodyLimit::max(REPORT_LIMIT))
        .with_state(controller)
}

/// What the instance manager serves to the agents, like [`network_router`].
pub fn compute_router(manager: Arc<InstanceManager>) -> Router {
    Router::new()
        .route(paths::COMPUTE_DOCUMENT, get(compute_document))
        .route(paths::COMPUTE_REPORT, post(compute_report))
        .route(paths::NODE_REPORT, post(node_report))
        .route(paths::GRANT, post(grant))
        .layer(DefaultBodyLimit::max(REPORT_LIMIT))
        .with_state(manager)
}

/// The node that calls: as the look at its certificate found it, or by its name where there is none.
async fn node_of(
    identity: &NodeIdentity,
    known: Option<Extension<KnownNode>>,
    by_name: impl Future<Output = Result<NodeId, NodeError>>,
) -> Result<NodeId, NodeError> {
    match known {
        Some(Extension(KnownNode(node))) => {
            node.ok_or_else(|| NodeError::UnknownNode(identity.0.to_string()))
        }
        None => by_name.await,
    }
}

async fn network_document(
    State(controller): State<Arc<NetworkController>>,
    Extension(identity): Extension<NodeIdentity>,
    Query(query): Query<Poll>,
    known: Option<Extension<KnownNode>>,
    headers: HeaderMap,
) -> Result<Response, NodeError> {
    let node = node_of(&identity, known, controller.node(&identity)).await?;
    poll(controller.documents(), node, &query, &headers).await
}

async fn network_report(
    State(controller): State<Arc<NetworkController>>,
    Extension(identity): Extension<NodeIdentity>,
    known: Option<Extension<KnownNode>>,
    Json(report): Json<NetworkReport>,
) -> Result<StatusCode, NodeError> {
    let node = node_of(&identity, known, controller.node(&identity)).await?;
    check(report.format, report.node, node)?;
    controller.ingest(node, report).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn compute_document(
    State(manager): State<Arc<InstanceManager>>,
    Extension(identity): Extension<NodeIdentity>,
    Query(query): Query<Poll>,
    known: Option<Extension<KnownNode>>,
    headers: HeaderMap,
) -> Result<Response, NodeError> {
    let node = node_of(&identity, known, manager.node(&identity)).await?;
    poll(manager.documents(), node, &query, &headers).await
}

async fn compute_report(
    State(manager): State<Arc<InstanceManager>>,
    Extension(identity): Extension<NodeIdentity>,
    known: Option<Extension<KnownNode>>,
    Json(report): Json<ComputeReport>,
) -> Result<StatusCode, NodeError> {
    let node = node_of(&identity, known, manager.node(&identity)).await?;
    check(report.format, report.node, node)?;
    manager.ingest(node, report).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn node_report(
    State(manager): State<Arc<InstanceManager>>,
    Extension(identity): Extension<NodeIdentity>,
    Json(report): Json<NodeReport>,
) -> Result<Json<NodeAnswer>, NodeError> {
    if !gon_proto::is_spoken(report.format) {
        return Err(NodeError::Format(report.format));
    }
    if *report.name != *identity.0 {
        return Err(NodeError::OtherNode);
    }
    manager.ingest_node(report).await.map(Json)
}

async fn grant(
    State(manager): State<Arc<InstanceManager>>,
    Extension(identity): Extension<NodeIdentity>,
    known: Option<Extension<KnownNode>>,
    Json(asked): Json<GrantRequest>,
) -> Result<Json<GrantAnswer>, NodeError> {
    let node = node_of(&identity, known, manager.node(&identity)).await?;
    if !gon_proto::is_spoken(asked.format) {
        return Err(NodeError::Format(asked.format));
    }
    manager.grant(node, asked).await.map(Json)
}

fn check(format: u32, claimed: NodeId, node: NodeId) -> Result<(), NodeError> {
    if !gon_proto::is_spoken(format) {
        return Err(NodeError::Format(format));
    }
    if claimed != node {
        return Err(NodeError::OtherNode);
    }
    Ok(())
}

/// Serves `router` on a unix socket that only its owner may use; everybody who can is the node of `identity`. A socket
/// left over by a process that was killed is replaced: the caller holds the lock of its directory.
pub async fn serve_unix(
    path: &Path,
    router: Router,
    identity: NodeIdentity,
    stop: CancellationToken,
) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = tokio::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let router = router.layer(Extension(identity));
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}
