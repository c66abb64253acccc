//! The way to the controllers of other servers: TLS, at one of several addresses.
//!
//! Promises to stay with the address that answered last, to try the others in turn when it does not, and to go on to
//! the next when whoever answers there does not lead. Everybody who shares a transport shares what it learned.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use gon_tls::{Role, Tls};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::link::{Place, Stream, Transport};

/// How long one address may take to answer.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(2);

/// Controllers of one role at some addresses.
#[derive(Debug)]
pub struct TlsTransport {
    tls: Tls,
    role: Role,
    addresses: watch::Receiver<Vec<String>>,
    /// The address that is tried first.
    first: Mutex<Place>,
}

impl TlsTransport {
    /// Controllers of the role `role` at `addresses` (`HOST:PORT`), which may change.
    #[must_use]
    pub fn new(tls: Tls, role: Role, addresses: watch::Receiver<Vec<String>>) -> Self {
        Self { tls, role, addresses, first: Mutex::default() }
    }

    /// Controllers of the role `role` at these addresses.
    #[must_use]
    pub fn fixed(tls: Tls, role: Role, addresses: Vec<String>) -> Self {
        Self::new(tls, role, watch::Sender::new(addresses).subscribe())
    }

    fn addresses(&self) -> Vec<String> {
        self.addresses.borrow().clone()
    }

    fn first(&self) -> Place {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn connect_to(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            self.tls.connect(stream, self.role, host_of(address)).await
        };
        let stream = tokio::time::timeout(ADDRESS_DEADLINE, connect).await??;
        Ok(Box::new(stream))
    }
}

/// The host of `HOST:PORT` or `[HOST]:PORT`.
pub(crate) fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[async_trait]
impl Transport for TlsTransport {
    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        self.connect_somewhere().await.map(|(stream, _)| stream)
    }

    fn describe(&self) -> String {
        format!("{} at {}", self.role, self.addresses().join(", "))
    }

    async fn connect_somewhere(&self) -> io::Result<(Box<dyn Stream>, Place)> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "no address of a controller is known");
        for _ in 0..self.places() {
            // Somebody who shares this may have learned meanwhile where to begin.
            let Some(address) = self.next() else { break };
            match self.connect_to(&address.0).await {
                Ok(stream) => return Ok((stream, address)),
                Err(error) => {
                    tracing::debug!(address = &*address.0, %error, "no controller answers there");
                    failed = error;
                    self.leave(&address);
                }
            }
        }
        Err(failed)
    }

    fn places(&self) -> usize {
        self.addresses.borrow().len()
    }

    fn leave(&self, place: &Place) {
        let addresses = self.addresses();
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        // Two who were sent on from the same place go to the same next one.
        if *first == *place
            && let Some(at) = addresses.iter().position(|address| **address == *place.0)
            && let Some(next) = addresses.get((at + 1) % addresses.len())
        {
            *first = Place(next.as_str().into());
        }
    }
}

impl TlsTransport {
    /// The address to try now.
    fn next(&self) -> Option<Place> {
        let addresses = self.addresses();
        let first = self.first();
        if addresses.iter().any(|address| **address == *first.0) {
            return Some(first);
        }
        let place = Place(addresses.first()?.as_str().into());
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = place.clone();
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address() {
        for (address, host) in
            [("a.example:1", "a.example"), ("10.0.0.1:8082", "10.0.0.1"), ("[::1]:2", "::1"), ("a", "a")]
        {
            assert_eq!(host_of(address), host);
        }
    }
}
