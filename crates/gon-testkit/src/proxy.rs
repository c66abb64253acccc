//! A fault proxy: stands between a client and a server, speaks plain TCP to both, and does to their bytes what a bad
//! network, a bad peer or a bad day does.
//!
//! ```text
//!   client ──▶ listener ──▶ [read │ frame │ dice │ queue │ delay │ cap │ cut] ──▶ server       one line a direction
//! ```
//!
//! Every setting can be changed while connections run ([`Proxy::set`]) and holds from then on, for old connections and
//! new ones. Chance is seeded: the same seed and the same bytes give the same faults, connection by connection.
//!
//! Promises to hold no more than some megabytes a connection and at most [`CONNECTIONS`] at once, so that a fast sender
//! feels a slow receiver; without faults it changes nothing. Works inside the runtime that started it and ends with it,
//! or when dropped.

mod frame;
mod line;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

pub use frame::{Framer, amqp, lines};

/// How many connections are served at once; the next ones wait.
pub const CONNECTIONS: usize = 256;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What the client sends.
    ToServer,
    /// What the server sends.
    ToClient,
}

/// What is done to the bytes of one direction. The default does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Everything arrives this much later.
    pub delay: Duration,
    /// And up to this much later still, by chance; order is kept.
    pub jitter: Duration,
    /// No more bytes a second than this.
    pub bytes_per_second: Option<NonZeroU32>,
    /// Nothing is read and nothing is written: connections stay, and are silent.
    pub frozen: bool,
    /// After so many bytes of a connection both its ends see an orderly end, in the middle of whatever it is.
    pub truncate_after: Option<u64>,
    /// After so many bytes of a connection both its ends see a reset.
    pub reset_after: Option<u64>,
    /// Of a thousand frames so many vanish.
    pub drop: u16,
    /// Of a thousand frames so many arrive twice.
    pub duplicate: u16,
    /// Of a thousand frames so many arrive after the one that follows them, if one follows soon.
    pub swap: u16,
}

impl Faults {
    /// Silence.
    #[must_use]
    pub fn frozen() -> Self {
        Self { frozen: true, ..Self::default() }
    }
}

/// How a connection is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In order: both ends read an end of file.
    Close,
    /// Both ends see "connection reset by peer".
    Reset,
}

#[derive(Debug, Clone, Copy, Default)]
struct Settings {
    to_server: Faults,
    to_client: Faults,
    refuse: bool,
    /// Connections with a number below this end so.
    ended: Option<(u64, End)>,
}

impl Settings {
    fn of(&self, direction: Direction) -> Faults {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }
}

/// A proxy in front of one server.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    settings: watch::Sender<Settings>,
    count: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        // Connections end when the settings are gone.
    }
}

impl Proxy {
    /// Listens on a port of its own for `server`. Chance acts on frames as `framer` finds them; without one, on whatever
    /// is read at once.
    pub async fn start(server: SocketAddr, framer: Option<Framer>, seed: u64) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (settings, watched) = watch::channel(Settings::default());
        let count = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(accept(listener, server, framer, seed, watched, Arc::clone(&count)));
        Ok(Self { address, settings, count, task })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections there were so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Does this to one direction from now on.
    pub fn set(&self, direction: Direction, faults: Faults) {
        self.settings.send_modify(|settings| match direction {
            Direction::ToServer => settings.to_server = faults,
            Direction::ToClient => settings.to_client = faults,
        });
    }

    /// Does this to both directions from now on.
    pub fn set_both(&self, faults: Faults) {
        self.set(Direction::ToServer, faults);
        self.set(Direction::ToClient, faults);
    }

    /// No faults any more, and new connections are welcome. What was broken stays broken.
    pub fn heal(&self) {
        self.set_both(Faults::default());
        self.refuse(false);
    }

    /// New connections are reset at once, as if nobody listened.
    pub fn refuse(&self, refuse: bool) {
        self.settings.send_modify(|settings| settings.refuse = refuse);
    }

    /// Ends all connections there are now.
    pub fn end(&self, how: End) {
        let now = self.connections();
        self.settings.send_modify(|settings| settings.ended = Some((now, how)));
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    framer: Option<Framer>,
    seed: u64,
    settings: watch::Receiver<Settings>,
    count: Arc<AtomicU64>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let settings = settings.clone();
        if settings.borrow().refuse {
            let _ = client.set_zero_linger();
            continue;
        }
        let number = count.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            connection(client, server, framer, seed, number, settings).await;
            drop(place);
        });
    }
}

/// Serves one connection to its end.
async fn connection(
    mut client: TcpStream,
    server: SocketAddr,
    framer: Option<Framer>,
    seed: u64,
    number: u64,
    settings: watch::Receiver<Settings>,
) {
    let Ok(mut server) = TcpStream::connect(server).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = line::Line::new(Direction::ToServer, framer, seed, number, settings.clone());
        let back = line::Line::new(Direction::ToClient, framer, seed, number, settings.clone());
        tokio::select! {
            // Each may end in order by itself; the connection is over when both have, or one broke.
            ended = async { tokio::try_join!(there.run(from_client, to_server), back.run(from_server, to_client)) } => {
                ended.err().unwrap_or(End::Close)
            }
            end = ended_from_outside(settings, number) => end,
        }
    };
    if end == End::Reset {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// Waits until somebody wants the connection of this number to end.
async fn ended_from_outside(mut settings: watch::Receiver<Settings>, number: u64) -> End {
    loop {
        if let Some((before, how)) = settings.borrow_and_update().ended
            && number < before
        {
            return how;
        }
        if settings.changed().await.is_err() {
            // The proxy is gone.
            return End::Close;
        }
    }
}
