//! The accept loop. axum's own has no header timeout (a timer must be given) and no limit on connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::route::PeerAddress;
use crate::documents::lock;

/// How much one peer may take up.
#[derive(Debug, Clone, Copy)]
pub struct ServeLimits {
    /// The head of a request must be there within this time.
    pub header_timeout: Duration,
    /// Connections of one address.
    pub connections_per_address: usize,
    /// Connections in all.
    pub connections: usize,
    /// How long requests in work may take to end when we stop.
    pub grace: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            connections_per_address: 100,
            connections: 4096,
            grace: Duration::from_secs(10),
        }
    }
}

#[derive(Default)]
struct Counts(Mutex<HashMap<IpAddr, usize>>);

struct Place(Arc<Counts>, IpAddr);

impl Counts {
    fn take(self: &Arc<Self>, address: IpAddr, limit: usize) -> Option<Place> {
        let mut counts = lock(&self.0);
        let count = counts.entry(address).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Place(Arc::clone(self), address))
    }
}
impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = lock(&self.0.0);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

/// Serves until `stop`, then lets what is in work end.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ServeLimits,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let tasks = TaskTracker::new();
    let counts = Arc::new(Counts::default());
    // HTTP/1.1 only: who asks whether it is to be HTTP/2 waits for the first bytes without a deadline.
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
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
        let address = peer.ip().to_canonical();
        if tasks.len() >= limits.connections {
            continue;
        }
        let Some(place) = counts.take(address, limits.connections_per_address) else { continue };
        // An answer is one write; waiting for more only delays it.
        let _ = stream.set_nodelay(true);
        let (router, builder, stop) = (router.clone(), builder.clone(), stop.clone());
        tasks.spawn(async move {
            let _place = place;
            let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(PeerAddress(Some(address)));
                router.clone().oneshot(request)
            });
            let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
            tokio::pin!(connection);
            let mut stopping = false;
            loop {
                tokio::select! {
                    ended = connection.as_mut() => {
                        if let Err(error) = ended {
                            tracing::debug!(%error, "a connection ended");
                        }
                        return;
                    }
                    () = stop.cancelled(), if !stopping => {
                        stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        });
    }
    tasks.close();
    let _ = tokio::time::timeout(limits.grace, tasks.wait()).await;
    Ok(())
}
