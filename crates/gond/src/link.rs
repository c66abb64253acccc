//! The way from an agent to its controllers, and whether it is open.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use gon_agent::link::{Place, Stream, Transport};
use gon_agent::tls::TlsTransport;
use gon_cluster::Liveness;
use gon_tls::{Role, Tls};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::health::Probe;
use crate::service::Service;

/// The controllers of a role across servers: at the configured hosts, and where discovery says that they are. Does not
/// wait for discovery: a node that starts while etcd is away has work to do.
pub fn tls(
    service: &mut Service,
    tls: &Tls,
    controller: Role,
    port: u16,
    liveness: &Arc<dyn Liveness>,
) -> Arc<dyn Transport> {
    let mut servers = service.config.control.servers.clone();
    if servers.is_empty() {
        // Everything on one machine.
        servers.push(Ipv4Addr::LOCALHOST.to_string());
    }
    let configured: Vec<String> = servers.iter().map(|host| with_port(host, port)).collect();
    let send = watch::Sender::new(configured.clone());
    let addresses = send.subscribe();
    let liveness = Arc::clone(liveness);
    service.task("discovery", move |stop| {
        let (send, configured, liveness) = (send.clone(), configured.clone(), Arc::clone(&liveness));
        async move {
            let mut discovered = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                discovered = liveness.services(controller.as_str()) => discovered,
            };
            loop {
                let now = all(&configured, &discovered.borrow_and_update());
                send.send_if_modified(|known| {
                    let new = *known != now;
                    if new {
                        tracing::info!(%controller, addresses = now.join(" "), "controllers may be found here");
                        *known = now;
                    }
                    new
                });
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    changed = discovered.changed() => {
                        if changed.is_err() {
                            // Nobody discovers anything any more: what is configured stays.
                            stop.cancelled().await;
                            return Ok(());
                        }
                    }
                }
            }
        }
    });
    Arc::new(TlsTransport::new(tls.clone(), controller, addresses))
}

fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// What is configured, then what was discovered beside it.
fn all(configured: &[String], discovered: &BTreeSet<String>) -> Vec<String> {
    let others = discovered.iter().filter(|address| !configured.contains(address));
    configured.iter().chain(others).cloned().collect()
}

/// A transport that says whether it leads anywhere: up when a connection is there, down when none can be made or the
/// one there is breaks.
pub struct Watched {
    inner: Arc<dyn Transport>,
    probe: Probe,
}

impl Watched {
    /// `inner`, watched.
    #[must_use]
    pub fn new(inner: Arc<dyn Transport>, probe: Probe) -> Self {
        Self { inner, probe }
    }
}

#[async_trait]
impl Transport for Watched {
    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(self.connect_somewhere().await?.0)
    }
    async fn connect_somewhere(&self) -> io::Result<(Box<dyn Stream>, Place)> {
        match self.inner.connect_somewhere().await {
            Ok((stream, place)) => {
                self.probe.up_with(if place.0.is_empty() {
                    self.inner.describe()
                } else {
                    place.0.to_string()
                });
                Ok((Box::new(WatchedStream { stream, probe: self.probe.clone() }), place))
            }
            Err(error) => {
                self.probe.down(format!("{}: {error}", self.inner.describe()));
                Err(error)
            }
        }
    }
    fn places(&self) -> usize {
        self.inner.places()
    }
    fn leave(&self, place: &Place) {
        self.inner.leave(place);
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
}

struct WatchedStream {
    stream: Box<dyn Stream>,
    probe: Probe,
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        // The other end closes what rests too long; whether it is still there, the next connection shows.
        if let Poll::Ready(Err(error)) = &read
            && error.kind() != io::ErrorKind::UnexpectedEof
        {
            self.probe.down(format!("the connection broke: {error}"));
        }
        read
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_comes_first_and_nothing_twice() {
        let configured = vec![with_port("control-1", 8081), with_port("2001:db8::1", 8081)];
        assert_eq!(configured, ["control-1:8081", "[2001:db8::1]:8081"]);
        let discovered = BTreeSet::from(["10.0.0.2:8081".to_owned(), "control-1:8081".to_owned()]);
        assert_eq!(all(&configured, &discovered), ["control-1:8081", "[2001:db8::1]:8081", "10.0.0.2:8081"]);
    }
}
