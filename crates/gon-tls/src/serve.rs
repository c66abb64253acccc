//! The one accept loop of every service: bounds on what peers take up, TLS where there is any, and who speaks with every
//! request. axum's own has no time limit for a request's head (a timer must be given) and none on connections.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1::Builder;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt as _};

use crate::{CertificateFacts, Tls};

/// How much peers may take up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A handshake must be done within this time of its turn; and its first byte must come within this time.
    pub handshake: Duration,
    /// Handshakes at work at once, and of one address half as many; the others wait for their turn.
    pub handshakes: usize,
    /// The head of a request must be there within this time; a connection that rests longer is closed.
    pub header: Duration,
    /// Connections of one address.
    pub connections_per_address: usize,
    /// Connections in all.
    pub connections: usize,
    /// How long requests in work may take to end when we stop.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            // Enough to keep every processor at work while most peers think about their part.
            handshakes: 8 * std::thread::available_parallelism().map_or(1, usize::from),
            // More than the pause between two reports: an agent's connection is kept.
            header: Duration::from_secs(30),
            connections_per_address: 100,
            connections: 4096,
            grace: Duration::from_secs(10),
        }
    }
}

/// Who sent a request: an extension of every request that [`serve`] passes on.
#[derive(Debug, Clone)]
pub struct Peer {
    /// From where.
    pub address: SocketAddr,
    /// What its certificate says, if it showed one. It was believed when the connection was made, and has not expired.
    pub certificate: Option<Arc<CertificateFacts>>,
}

/// What the peers take up.
struct Counts {
    limits: Limits,
    /// Handshakes at work.
    turns: Arc<Semaphore>,
    addresses: Mutex<HashMap<IpAddr, Share>>,
}

/// What one address takes up.
struct Share {
    connections: usize,
    turns: Arc<Semaphore>,
}

/// A connection's.
struct Place {
    counts: Arc<Counts>,
    address: IpAddr,
    /// Its address's.
    turns: Arc<Semaphore>,
}

impl Counts {
    fn new(limits: Limits) -> Self {
        let turns = Arc::new(Semaphore::new(limits.handshakes.max(1)));
        Self { limits, turns, addresses: Mutex::default() }
    }

    fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        // A poisoned lock only means that another task panicked between two whole writes.
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let share = addresses.entry(address).or_insert_with(|| Share {
            connections: 0,
            turns: Arc::new(Semaphore::new((self.limits.handshakes / 2).max(1))),
        });
        if share.connections >= self.limits.connections_per_address {
            return None;
        }
        share.connections += 1;
        Some(Place { counts: Arc::clone(self), address, turns: Arc::clone(&share.turns) })
    }
}

impl Place {
    /// Waits for the turn of a handshake; whoever came first, comes first.
    async fn turn(&self) -> Option<Turn> {
        // Its address's first: those of one that waits for itself take nobody else's.
        let of_address = Arc::clone(&self.turns).acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.counts.turns).acquire_owned().await.ok()?;
        Some(Turn { _of_address: of_address, _of_all: of_all })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self.counts.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = addresses.get_mut(&self.address) {
            share.connections -= 1;
            if share.connections == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// The turn of a handshake.
///
/// Were those of a crowd all at work at once, each would get so little of the processors that all were late together; one
/// after the other, every one gets done. A turn's time begins with it, so nobody is late for having waited.
struct Turn {
    _of_address: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Turn {
    /// Lasts until `work` is done, or for `patience`: what takes longer waits for its peer, and the next need not.
    async fn of<T>(self, work: impl Future<Output = T>, patience: Duration) -> T {
        tokio::pin!(work);
        if let Ok(done) = timeout(patience, work.as_mut()).await {
            return done;
        }
        drop(self);
        work.await
    }
}

/// Serves `service` until `stop`, over TLS if there is any (who has none listens on loopback alone), then lets what is in
/// work end. Every request carries a [`Peer`].
///
/// A connection whose client certificate expires, or is no longer of an authority that we believe, ends after the
/// answer that it is giving.
pub async fn serve<S, B>(
    listener: TcpListener,
    tls: Option<Tls>,
    service: S,
    limits: Limits,
    stop: CancellationToken,
) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let tasks = TaskTracker::new();
    let counts = Arc::new(Counts::new(limits));
    // HTTP/1.1 only: who asks whether it is to be HTTP/2 waits for a first byte without a deadline.
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.header);
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or the peer is gone already: neither ends the server.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let address = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        if tasks.len() >= limits.connections {
            continue;
        }
        let Some(place) = counts.take(address.ip()) else { continue };
        // An answer is one write; waiting for more only delays it.
        let _ = stream.set_nodelay(true);
        let (tls, service) = (tls.clone(), service.clone());
        let (builder, stop) = (builder.clone(), stop.clone());
        tasks.spawn(async move {
            let Some(tls) = tls else {
                let peer = Peer { address, certificate: None };
                return connection(stream, peer, service, &builder, &stop, std::future::pending()).await;
            };
            let shaken = tokio::select! {
                shaken = handshake(stream, &tls, &place) => shaken,
                () = stop.cancelled() => None,
            };
            if let Some((stream, client)) = shaken {
                let peer =
                    Peer { address, certificate: client.as_ref().map(|client| Arc::clone(&client.facts)) };
                let end = no_longer_believed(client, &tls);
                connection(stream, peer, service, &builder, &stop, end).await;
            }
        });
    }
    // Who comes now is refused at once and asks another.
    drop(listener);
    tasks.close();
    let _ = timeout(limits.grace, tasks.wait()).await;
    Ok(())
}

/// The part of a handshake's time for which it keeps its turn.
const PATIENCE: u32 = 10;

/// A client that showed a certificate.
struct Client {
    certificate: CertificateDer<'static>,
    facts: Arc<CertificateFacts>,
}

async fn handshake(
    stream: TcpStream,
    tls: &Tls,
    place: &Place,
) -> Option<(TlsStream<TcpStream>, Option<Client>)> {
    let limits = &place.counts.limits;
    // Who says nothing takes no turn.
    let Ok(Ok(1..)) = timeout(limits.handshake, stream.peek(&mut [0])).await else { return None };
    let Ok(Some(turn)) = timeout(limits.header, place.turn()).await else {
        tracing::debug!("a handshake waited too long for its turn");
        return None;
    };
    // Those who have given up cost nothing any more.
    if stream.ready(Interest::READABLE).await.ok()?.is_read_closed() {
        return None;
    }
    let accepting = TlsAcceptor::from(tls.current().server()).accept(stream);
    let accepted = timeout(limits.handshake, turn.of(accepting, limits.handshake / PATIENCE)).await;
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake failed");
            return None;
        }
        Err(_) => {
            tracing::debug!("a handshake took too long");
            return None;
        }
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
    let client = match shown {
        None => None,
        Some(certificate) => {
            let facts = Arc::new(CertificateFacts::read(&certificate).ok()?);
            Some(Client { certificate: certificate.into_owned(), facts })
        }
    };
    Some((stream, client))
}

/// One connection, until it ends, or until `stop` or `end` and the answer that it is giving.
async fn connection<IO, S, B>(
    stream: IO,
    peer: Peer,
    service: S,
    builder: &Builder,
    stop: &CancellationToken,
    end: impl Future<Output = ()>,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        service.clone().oneshot(request)
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    tokio::pin!(end);
    let mut ending = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended");
                }
                return;
            }
            () = stop.cancelled(), if !ending => {}
            () = end.as_mut(), if !ending => {}
        }
        ending = true;
        connection.as_mut().graceful_shutdown();
    }
}

/// Returns when the client's certificate is not good any more.
async fn no_longer_believed(client: Option<Client>, tls: &Tls) {
    let Some(client) = client else { return std::future::pending().await };
    let mut current = tls.subscribe();
    loop {
        let left = client.facts.not_after - OffsetDateTime::now_utc();
        // A timer cannot be set for years; once a day is often enough to set it anew.
        let left = Duration::try_from(left).unwrap_or_default().min(Duration::from_secs(24 * 3600));
        if left.is_zero() {
            return;
        }
        tokio::select! {
            changed = current.changed() => if changed.is_err() { return std::future::pending().await },
            () = tokio::time::sleep(left) => {}
        }
        let now = Arc::clone(&current.borrow_and_update());
        if !now.believes(&client.certificate) {
            tracing::info!(peer = %client.facts.identity, "its certificate is no longer believed");
            return;
        }
    }
}
