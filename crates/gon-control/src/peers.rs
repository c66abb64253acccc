//! What the controllers ask of whoever comes in by TLS, before any route is reached.
//!
//! In order: a certificate (401), a role that the route is for (403), a controller that leads (503 and `Retry-After`:
//! ask another), and a certificate that stands (403 if it was revoked or never recorded). The node is then the one in
//! the certificate: nothing in a request can say otherwise. A poll that was held is asked the last two again before it
//! is answered.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use gon_store::certificates::{Standing, standing};
use gon_store::restoration::{self, Unrecorded};
use gon_store::{Store, StoreError};
use gon_tls::{CertificateFacts, Peer, Role};
use gon_types::id::NodeId;

use crate::compute::InstanceManager;
use crate::documents::{self, NodeIdentity};
use crate::network::NetworkController;
use crate::status::Ready;

/// Who may ask for network documents.
pub const NETWORK_ROLES: &[Role] = &[Role::NetworkAgent];
/// Who may ask for compute documents, and report what a node is.
pub const COMPUTE_ROLES: &[Role] = &[Role::HypervisorAgent, Role::ContainerAgent, Role::StorageAgent];

/// How often a call that is held is looked after.
const LOOK: Duration = Duration::from_secs(1);
/// Seconds after which it is worth asking again, here.
const RETRY_AFTER: &str = "1";

/// The node of the certificate, as the database knows it: `None` before its first report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnownNode(pub(crate) Option<NodeId>);

/// What is asked of whoever comes in.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Where certificates stand.
    pub store: Store,
    /// The roles that may pass.
    pub roles: &'static [Role],
    /// The controller that has to lead; `None`: whoever has the routes may answer them.
    pub leader: Option<Ready>,
}

impl Gate {
    /// The same routes, for those who pass.
    pub fn guard(self, routes: Router) -> Router {
        routes.route_layer(from_fn_with_state(self, pass))
    }

    fn leads(&self) -> Result<(), Refusal> {
        match &self.leader {
            Some(ready) if ready.leads().is_none() => Err(Refusal::NotLeading),
            _ => Ok(()),
        }
    }

    async fn stands(&self, shown: &CertificateFacts) -> Result<Standing, Refusal> {
        let (role, name) = (shown.identity.role().as_str(), shown.identity.name());
        let mut found = standing(&self.store, &shown.serial).await?;
        if found.is_none() {
            let (not_before, not_after) = (shown.not_before, shown.not_after);
            let unrecorded = Unrecorded { serial: &shown.serial, role, name, not_before, not_after };
            found = restoration::admit(&self.store, &unrecorded).await?;
            if found.is_some() {
                tracing::warn!(peer = %shown.identity, serial = shown.serial,
                    "a certificate that the restored database had forgotten is on record again");
            }
        }
        match found {
            Some(found) if found.revoked => Err(Refusal::Revoked),
            Some(found) if found.role == role && found.name == name => Ok(found),
            _ => Err(Refusal::NotRecorded),
        }
    }
}

/// What the network controller serves to network agents over TLS.
pub fn network_routes(controller: &Arc<NetworkController>, store: &Store) -> Router {
    let gate = Gate { store: store.clone(), roles: NETWORK_ROLES, leader: Some(controller.ready()) };
    gate.guard(documents::network_router(Arc::clone(controller)))
}

/// What the instance manager serves to the agents of instances over TLS.
pub fn compute_routes(manager: &Arc<InstanceManager>, store: &Store) -> Router {
    let gate = Gate { store: store.clone(), roles: COMPUTE_ROLES, leader: Some(manager.ready()) };
    gate.guard(documents::compute_router(Arc::clone(manager)))
}

/// Why somebody does not pass.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("a certificate of this site has to be shown here")]
    NoCertificate,
    #[error("this is not for the role {0}")]
    Role(Role),
    #[error("this controller does not lead: ask another")]
    NotLeading,
    #[error("this certificate was revoked: the server has to join again")]
    Revoked,
    #[error("this certificate is not on record: the server has to join again")]
    NotRecorded,
    #[error("the database did not answer")]
    Store(#[from] StoreError),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NoCertificate => StatusCode::UNAUTHORIZED,
            Self::Role(_) | Self::Revoked | Self::NotRecorded => StatusCode::FORBIDDEN,
            Self::NotLeading | Self::Store(_) => {
                let unavailable = StatusCode::SERVICE_UNAVAILABLE;
                return (unavailable, [(header::RETRY_AFTER, RETRY_AFTER)], self.to_string()).into_response();
            }
        };
        (status, self.to_string()).into_response()
    }
}

async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    match admitted(&gate, request, next).await {
        Ok(response) => response,
        Err(refusal) => {
            if let Refusal::Store(error) = &refusal {
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "a certificate could not be looked up"
                );
            }
            refusal.into_response()
        }
    }
}

async fn admitted(gate: &Gate, mut request: Request, next: Next) -> Result<Response, Refusal> {
    let shown = request.extensions().get::<Peer>().and_then(|peer| peer.certificate.clone());
    let shown = shown.ok_or(Refusal::NoCertificate)?;
    let role = shown.identity.role();
    if !gate.roles.contains(&role) {
        tracing::warn!(peer = %shown.identity, path = request.uri().path(), "a role asked for what it is not for");
        return Err(Refusal::Role(role));
    }
    gate.leads()?;
    let found = gate.stands(&shown).await.inspect_err(|refusal| {
        tracing::warn!(peer = %shown.identity, serial = shown.serial, %refusal, "a certificate was refused");
    })?;
    request.extensions_mut().insert(NodeIdentity(shown.identity.name().into()));
    request.extensions_mut().insert(KnownNode(found.node.map(NodeId::from_uuid)));
    request.extensions_mut().insert(found);
    let may_be_given_up = request.method().is_safe();
    let answer = next.run(request);
    if !may_be_given_up {
        return Ok(answer.await);
    }
    tokio::pin!(answer);
    let mut held = false;
    loop {
        match tokio::time::timeout(LOOK, answer.as_mut()).await {
            Ok(response) if held => {
                gate.leads()?;
                gate.stands(&shown).await?;
                return Ok(response);
            }
            Ok(response) => return Ok(response),
            Err(_) => {
                gate.leads()?;
                held = true;
            }
        }
    }
}
