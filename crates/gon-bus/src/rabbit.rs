//! The bus of many processes: RabbitMQ.
//!
//! ```text
//!   publish ──▶ gon.doorbells (topic) ──subject──▶ gon.q.<role>.<server>.<uuid>   one queue for every subscription
//!                                                        │ rejected
//!                                                        ▼
//!                                                    gon.dead ──▶ gon.dead        what nobody understood, bounded
//! ```
//!
//! One connection publishes and every subscription has its own, because a broker that runs out of disk or memory stops
//! reading from whoever publishes. Both are kept by a task each that connects again after a random part of a growing,
//! bounded pause. After every new connection, and after everything else that may have cost a message, the subscriber
//! hears [`crate::Rings::missed`]; so nothing depends on what a queue keeps.
//!
//! Works with RabbitMQ from 3.9 on: needs no plugin and no feature newer than that.

mod backoff;
mod link;
mod publisher;
mod subscriber;
mod tls;
mod topology;
mod transport;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gon_proto::Doorbell;
use gon_proto::doorbell::Subject;
use gon_types::Role;
use lapin::uri::{AMQPScheme, AMQPUri};
use secrecy::{ExposeSecret, SecretString};

pub(crate) use topology::{Argument, DEAD, DOORBELLS, QUEUES, arguments_of_dead};

use crate::{Bus, BusError, Subscription};

/// Why a configuration cannot be used. No secret is repeated.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The URL is none.
    #[error("the bus needs a URL such as amqps://user:password@server:5671/gon")]
    Url,
    /// A certificate or key cannot be read.
    #[error("TLS of the bus: {0}")]
    Tls(String),
}

/// A certificate or key in PEM.
#[derive(Debug, Clone)]
pub enum Pem {
    /// In a file that is read at every new connection, so what was renewed is used from then on.
    File(PathBuf),
    /// Here.
    Text(SecretString),
}

/// TLS 1.3 toward the broker.
#[derive(Debug, Clone)]
pub struct RabbitTls {
    /// Who must have signed the broker's certificate; no other authority counts.
    pub authority: Pem,
    /// Our certificate and its key, if the broker wants to see them.
    pub identity: Option<(Pem, Pem)>,
}

/// How to reach the broker, and as whom.
#[derive(Debug, Clone)]
pub struct RabbitConfig {
    /// `amqp://` or `amqps://` with user, password, host, port and virtual host. A host with several addresses is tried
    /// at each of them.
    pub url: SecretString,
    /// Who we are: names connections and queues; the user's permissions must fit
    /// ([`crate::broker::permissions`]).
    pub role: Role,
    /// The server we run on: names connections and queues.
    pub server: String,
    /// Several brokers in a cluster: queues are quorum queues.
    pub cluster: bool,
    /// Needed for `amqps`.
    pub tls: Option<RabbitTls>,
    /// How long the broker may take to confirm up to a thousand doorbells before that is an error.
    pub publish_deadline: Duration,
    /// How long a connection may take to be ready.
    pub connect_deadline: Duration,
    /// How long whoever begins to listen waits for the first connection; then it goes on, and hears later that it missed
    /// some: a controller that takes over has better to do than to wait for a silent broker.
    pub listen_deadline: Duration,
    /// The other side is gone if nothing was heard for twice as long. Whole seconds, at least one.
    pub heartbeat: Duration,
}

impl RabbitConfig {
    /// One broker, no certificates, deadlines of some seconds.
    #[must_use]
    pub fn new(url: SecretString, role: Role, server: &str) -> Self {
        Self {
            url,
            role,
            server: server.to_owned(),
            cluster: false,
            tls: None,
            publish_deadline: Duration::from_secs(5),
            connect_deadline: Duration::from_secs(5),
            listen_deadline: Duration::from_secs(2),
            heartbeat: Duration::from_secs(5),
        }
    }
}

/// How it stands with publishing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusState {
    /// No connection was tried to its end yet.
    Starting,
    /// Doorbells are taken.
    Up,
    /// The broker takes none because it is short of something.
    Blocked(String),
    /// There is no connection.
    Down(String),
}

/// The adapter of [`Bus`] for RabbitMQ. Clones share one publishing connection, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct RabbitBus {
    settings: Arc<Settings>,
    publisher: Arc<publisher::Publisher>,
}

/// A configuration that was checked.
#[derive(Debug)]
struct Settings {
    config: RabbitConfig,
    uri: Uri,
}

/// Keeps the password out of what is printed.
struct Uri(AMQPUri);

impl std::fmt::Debug for Uri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}/{}", self.0.authority.host, self.0.authority.port, self.0.vhost)
    }
}

/// A bus that connects from now on and whenever it has to; an error is one of the configuration, never of the broker.
/// Needs a Tokio runtime around it.
pub fn connect(config: &RabbitConfig) -> Result<RabbitBus, ConfigError> {
    let mut uri: AMQPUri = config.url.expose_secret().parse().map_err(|_| ConfigError::Url)?;
    uri.query.heartbeat = Some(u16::try_from(config.heartbeat.as_secs().max(1)).unwrap_or(u16::MAX));
    // Wrong files are told now and not at three in the morning.
    if uri.scheme == AMQPScheme::AMQPS {
        tls::client(config.tls.as_ref())?;
    }
    let settings = Arc::new(Settings { config: config.clone(), uri: Uri(uri) });
    Ok(RabbitBus { publisher: Arc::new(publisher::Publisher::start(Arc::clone(&settings))), settings })
}

impl RabbitBus {
    /// How it stands with publishing, for readiness and for people.
    #[must_use]
    pub fn state(&self) -> BusState {
        self.publisher.state()
    }
}

#[async_trait]
impl Bus for RabbitBus {
    async fn publish(&self, doorbells: &[Doorbell]) -> Result<(), BusError> {
        self.publisher.publish(doorbells).await
    }
    async fn subscribe(&self, subjects: &[Subject]) -> Result<Box<dyn Subscription>, BusError> {
        Ok(Box::new(subscriber::start(Arc::clone(&self.settings), subjects).await))
    }
}
