//! One connection to the broker, from its first byte to its end.
//!
//! Promises that opening takes no longer than its deadline whatever the other side does, and that a connection that is
//! given up is gone at once: its socket is shut down, which ends lapin's thread and fails everything that waits for an
//! answer. (lapin by itself waits as long as the broker is silent, and cannot even say goodbye to one that blocks it.)

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::tcp::AsyncTcpStream;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties, ErrorKind, Event};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::{Settings, backoff, tls, transport};
use crate::BusError;

/// How often to look whether the connection is still one, should lapin not say that it has ended.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait for the other side when leaving in order.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);

/// The largest frame, bytes; brokers take no smaller ones. The client keeps room for sixty-four of them for as long as a
/// connection lives, which at the broker's own size would be eight megabytes; a doorbell has some dozen bytes.
const FRAME: u32 = 8 << 10;

/// A connection that was once open.
pub(super) struct Link {
    pub(super) connection: Connection,
    socket: Arc<Socket>,
    state: watch::Receiver<LinkState>,
    watcher: tokio::task::JoinHandle<()>,
}

/// How it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LinkState {
    Open,
    /// The broker reads nothing from us until it has again what it is short of.
    Blocked(String),
    /// It has ended.
    Ended(String),
}

impl Drop for Link {
    fn drop(&mut self) {
        self.watcher.abort();
        self.socket.shut_down();
    }
}

impl Link {
    /// Connects; `purpose` is what an operator reads behind our role and server in the list of connections.
    pub(super) async fn open(settings: &Settings, purpose: &str) -> Result<Self, BusError> {
        let socket = Arc::new(Socket::default());
        let opening = Self::connect(settings, purpose, Arc::clone(&socket));
        match tokio::time::timeout(settings.config.connect_deadline, opening).await {
            Ok(Ok(connection)) => Ok(Self::watch(connection, socket)),
            Ok(Err(error)) => {
                socket.shut_down();
                Err(unavailable(&error))
            }
            Err(_) => {
                socket.shut_down();
                Err(BusError::Unavailable("it does not answer".to_owned()))
            }
        }
    }

    async fn connect(settings: &Settings, purpose: &str, socket: Arc<Socket>) -> lapin::Result<Connection> {
        let config = &settings.config;
        let name = format!("{} {} {purpose}", config.role, config.server);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let tls = match settings.uri.0.scheme {
            AMQPScheme::AMQP => None,
            // Read again for every connection: certificates are renewed.
            AMQPScheme::AMQPS => Some(tls::client(config.tls.as_ref()).map_err(io::Error::other)?),
        };
        let deadline = config.connect_deadline;
        let mut uri = settings.uri.0.clone();
        uri.query.frame_max = Some(FRAME);
        Connection::connector(
            uri,
            transport::runtime(),
            async move |uri: AMQPUri, _| {
                let host = uri.authority.host.trim_matches(['[', ']']);
                let open = async {
                    let stream = reach(host, uri.authority.port).await?;
                    socket.set(&stream)?;
                    transport::Transport::new(stream, tls.clone(), host).await
                };
                // Runs on lapin's own thread, which nobody else can end.
                match tokio::time::timeout(deadline, open).await {
                    Ok(opened) => Ok(AsyncTcpStream::Plain(opened?)),
                    Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
                }
            },
            properties,
        )
        .await
    }

    fn watch(connection: Connection, socket: Arc<Socket>) -> Self {
        let (sender, state) = watch::channel(LinkState::Open);
        let mut events = Box::pin(connection.events_listener());
        let status = connection.status().clone();
        let watcher = tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    event = events.next() => match event {
                        Some(Event::ConnectionBlocked(reason)) => LinkState::Blocked(reason),
                        Some(Event::ConnectionUnblocked) => LinkState::Open,
                        // One of a channel is told to whoever uses that channel.
                        Some(Event::Error(error)) if error.is_amqp_soft_error() => continue,
                        Some(Event::Error(error)) => LinkState::Ended(why(&error)),
                        Some(_) => continue,
                        None => LinkState::Ended("it was closed".to_owned()),
                    },
                    () = tokio::time::sleep(LOOK) => {
                        if status.connected() {
                            continue;
                        }
                        LinkState::Ended("it was closed".to_owned())
                    }
                };
                let ended = matches!(next, LinkState::Ended(_));
                if sender.send(next).is_err() || ended {
                    return;
                }
            }
        });
        Self { connection, socket, state, watcher }
    }

    /// How it is now and will be.
    pub(super) fn state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// Waits until nothing can be sent over it, and tells why.
    pub(super) async fn interrupted(&self) -> String {
        let mut state = self.state.clone();
        match state.wait_for(|state| *state != LinkState::Open).await.as_deref() {
            Ok(LinkState::Blocked(why)) => format!("it takes nothing: {why}"),
            Ok(LinkState::Ended(why)) => why.clone(),
            Ok(LinkState::Open) | Err(_) => "it was closed".to_owned(),
        }
    }

    /// Leaves in order, if the other side lets us.
    pub(super) async fn close(&self) {
        if *self.state.borrow() == LinkState::Open {
            let _ = tokio::time::timeout(GOODBYE, self.connection.close(200, "".into())).await;
        }
        self.abandon();
    }

    /// Gives it up: everything that waits for it fails now.
    pub(super) fn abandon(&self) {
        self.socket.shut_down();
    }
}

/// Connects to one of a host's addresses, beginning with a random one.
async fn reach(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    let start = (backoff::fraction() * addresses.len() as f64) as usize;
    let start = start.min(addresses.len());
    addresses.rotate_left(start);
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Waits until it has ended, and tells why.
pub(super) async fn ended(mut state: watch::Receiver<LinkState>) -> String {
    match state.wait_for(|state| matches!(state, LinkState::Ended(_))).await.as_deref() {
        Ok(LinkState::Ended(why)) => why.clone(),
        _ => "it was closed".to_owned(),
    }
}

/// A second handle of a connection's socket, to end it from outside.
#[derive(Default)]
struct Socket(Mutex<SocketState>);

#[derive(Default)]
enum SocketState {
    #[default]
    None,
    Open(std::net::TcpStream),
    ShutDown,
}

impl Socket {
    fn set(&self, stream: &TcpStream) -> io::Result<()> {
        let stream = std::net::TcpStream::from(stream.as_fd().try_clone_to_owned()?);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, SocketState::ShutDown) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        *state = SocketState::Open(stream);
        Ok(())
    }

    fn shut_down(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let SocketState::Open(stream) = std::mem::replace(&mut *state, SocketState::ShutDown) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// The error in words, without anything secret.
pub(super) fn why(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::IOError(error) => error.to_string(),
        ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        ErrorKind::MissingHeartbeatError => "it was silent for too long".to_owned(),
        _ => error.to_string(),
    }
}

/// The same as our error.
pub(super) fn unavailable(error: &lapin::Error) -> BusError {
    BusError::Unavailable(why(error))
}
