//! Liveness of a cluster, from etcd (3.4 or later).
//!
//! Keys, below [`PREFIX`]: `nodes/<name>`, `leaders/<role>`, `services/<service>/<address>`, `settings/<key>`. All but
//! the settings live as long as the lease of who put them. Nothing in there is needed to rebuild anything: it may be
//! emptied at any time (rule R1). Every call has a deadline; whoever tries again waits a random time before.

mod election;
mod follow;
mod lease;
mod pool;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{Alive, Announcement, ClusterError, Leadership, Lease, Liveness};
use follow::Range;
use lease::EtcdLease;
use pool::Pool;

/// Where our part of the store begins. Versioned: a later release that means something else by these keys has another.
pub const PREFIX: &str = "/gon/v1";

/// A certificate of ours and whom we trust, as PEM.
#[derive(Clone)]
pub struct TlsPem {
    /// Certificates of the authorities that etcd's certificate may come from.
    pub ca: Vec<u8>,
    /// Our certificate, and the chain to the authority if there is one.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
}

impl fmt::Debug for TlsPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsPem")
    }
}

/// Where etcd is and who we are there.
#[derive(Clone)]
pub struct EtcdConfig {
    /// URLs of the members, `http://host:port` or `https://host:port`.
    pub endpoints: Vec<String>,
    /// Where our part begins: [`PREFIX`] but for tests that share a server.
    pub prefix: String,
    /// Certificates for `https`. A new value is used from the next call on, so that they can be renewed.
    pub tls: Option<watch::Receiver<TlsPem>>,
    /// User and password, where etcd wants them.
    pub user: Option<(String, String)>,
}

impl EtcdConfig {
    /// These members, without certificates or a password.
    #[must_use]
    pub fn new(endpoints: Vec<String>) -> Self {
        Self { endpoints, prefix: PREFIX.to_owned(), tls: None, user: None }
    }
}

impl fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// The etcd adapter of [`Liveness`]. Clones are the same.
#[derive(Clone)]
pub struct EtcdLiveness(Arc<Pool>);

impl fmt::Debug for EtcdLiveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EtcdLiveness")
    }
}

impl EtcdLiveness {
    /// Connects at the first call, and again whenever it has to.
    #[must_use]
    pub fn new(config: EtcdConfig) -> Self {
        Self(Arc::new(Pool::new(config)))
    }

    /// Whether a quorum answers now: for readiness.
    pub async fn check(&self) -> Result<(), ClusterError> {
        let key = &self.0.key("settings", "");
        self.0.call(move |mut client| async move { client.get(key.as_str(), None).await.map(|_| ()) }).await
    }
}

#[async_trait]
impl Liveness for EtcdLiveness {
    async fn register(&self, node: &str, ttl: Duration) -> Result<Box<dyn Lease>, ClusterError> {
        let key = self.0.key("nodes", node);
        Ok(Box::new(EtcdLease::register(&self.0, key, ttl).await?))
    }
    async fn nodes(&self) -> watch::Receiver<Alive> {
        let range = Range::Below(self.0.key("nodes", ""));
        let unknown = Alive { names: BTreeSet::new(), stale: true };
        follow::watching(&self.0, range, unknown, |seen| Alive {
            names: seen.entries.keys().cloned().collect(),
            stale: seen.stale,
        })
        .await
    }
    async fn campaign(&self, role: &str, holder: &str) -> Result<Box<dyn Leadership>, ClusterError> {
        Ok(Box::new(election::campaign(&self.0, role, holder).await?))
    }
    fn announce(&self, service: &str, address: &str) -> Announcement {
        lease::announce(&self.0, self.0.key("services", &format!("{service}/{address}")))
    }
    async fn services(&self, service: &str) -> watch::Receiver<BTreeSet<String>> {
        let range = Range::Below(self.0.key("services", &format!("{service}/")));
        follow::watching(&self.0, range, BTreeSet::new(), |seen| seen.entries.keys().cloned().collect()).await
    }
    async fn setting(&self, key: &str) -> watch::Receiver<Option<String>> {
        let range = Range::Key(self.0.key("settings", key));
        follow::watching(&self.0, range, None, |seen| seen.entries.get("").cloned()).await
    }
    async fn publish(&self, key: &str, value: &str) -> Result<(), ClusterError> {
        let key = &self.0.key("settings", key);
        self.0
            .call(move |mut client| async move { client.put(key.as_str(), value, None).await.map(|_| ()) })
            .await
    }
}
