//! Console output of instances on other machines: asked of the hypervisor agent of their node, over mTLS.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use gon_control::api::{ConsoleError, ConsoleSource};
use gon_store::Store;
use gon_tls::{CertificateFacts, Role, Tls};
use gon_types::id::InstanceId;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::probes::chain;

/// How long a node may take from the connection to the last byte.
const DEADLINE: Duration = Duration::from_secs(5);
/// The most that is taken.
const LIMIT: usize = 1 << 20;

/// Says that there are no certificates to ask a node with.
#[derive(Debug, Clone, Copy)]
pub struct NoCertificates;

#[async_trait]
impl ConsoleSource for NoCertificates {
    async fn console(&self, _node: &str, _instance: InstanceId) -> Result<Vec<u8>, ConsoleError> {
        Err(ConsoleError::Unavailable("this API server has no certificate to show to nodes".to_owned()))
    }
}

/// Consoles of every node of the site.
pub struct NodeConsoles {
    store: Store,
    tls: Tls,
    port: u16,
}

impl NodeConsoles {
    /// Of the nodes of `store`, whose hypervisor agents listen on `port`.
    #[must_use]
    pub fn new(store: Store, tls: Tls, port: u16) -> Self {
        Self { store, tls, port }
    }

    async fn ask(&self, node: &str, instance: InstanceId) -> Result<Vec<u8>, ConsoleError> {
        let address = gon_store::nodes::address_by_name(&self.store, node)
            .await
            .map_err(|error| ConsoleError::Unavailable(chain(&error)))?
            .ok_or_else(|| ConsoleError::Unavailable(format!("node {node} has not said where it is")))?;
        let place = SocketAddr::new(address, self.port);
        let path = format!("/instances/{}/console", instance.uuid());
        let asked = Asked { role: Role::HypervisorAgent, place, node, path: &path, body: None };
        match fetch(&self.tls, asked).await {
            Ok((StatusCode::OK, body)) => Ok(body),
            Ok((StatusCode::NOT_FOUND, _)) => Err(ConsoleError::None),
            Ok((status, body)) => {
                let said = String::from_utf8_lossy(&body);
                let said: String = said.chars().take(200).collect();
                Err(ConsoleError::Unavailable(format!("node {node} answered {status}: {}", said.trim())))
            }
            Err(why) => Err(ConsoleError::Unavailable(format!("node {node}: {why}"))),
        }
    }
}

#[async_trait]
impl ConsoleSource for NodeConsoles {
    async fn console(&self, node: &str, instance: InstanceId) -> Result<Vec<u8>, ConsoleError> {
        let asked = tokio::time::timeout(DEADLINE, self.ask(node, instance)).await;
        asked.unwrap_or_else(|_| {
            Err(ConsoleError::Unavailable(format!("node {node} did not answer within {DEADLINE:?}")))
        })
    }
}

/// What an agent is asked.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// Which of the node's agents.
    pub role: Role,
    /// Where it listens.
    pub place: SocketAddr,
    /// The node's name.
    pub node: &'a str,
    /// For what.
    pub path: &'a str,
    /// GET; or POST of this JSON.
    pub body: Option<Vec<u8>>,
}

/// Asks an agent of that node, and of no other, whoever answers at that place.
pub(crate) async fn fetch(tls: &Tls, asked: Asked<'_>) -> Result<(StatusCode, Vec<u8>), String> {
    let Asked { role, place, node, path, body } = asked;
    let broken = |error: &dyn std::error::Error| chain(error);
    let stream = TcpStream::connect(place).await.map_err(|e| format!("{place}: {e}"))?;
    let _ = stream.set_nodelay(true);
    let stream = tls.connect(stream, role, &place.ip().to_string()).await.map_err(|e| broken(&e))?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|certificates| certificates.first());
    let facts = shown.map(CertificateFacts::read).transpose().map_err(|e| broken(&e))?;
    match facts {
        Some(facts) if facts.identity.name() == node => {}
        Some(facts) => return Err(format!("{} answers at {place}", facts.identity)),
        None => return Err(format!("who answers at {place} does not say who it is")),
    }
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
    let driven = tokio::spawn(connection);
    let request = Request::builder().uri(path).header(header::HOST, "gon");
    let request = match body {
        None => request.body(Full::default()),
        Some(body) => request
            .method(Method::POST)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body))),
    };
    let request = request.map_err(|e| broken(&e))?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LIMIT).collect().await.map_err(|e| e.to_string())?;
        Ok((status, body.to_bytes().to_vec()))
    };
    let answered = answered.await;
    driven.abort();
    answered
}
