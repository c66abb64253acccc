//! The door to liveness: which nodes are alive, who leads a role. Never what should be.
//!
//! Assumes that nobody takes an answer from here for a fence: a lease that ran out does not stop its holder (rule R6).
//! The fence is the epoch in PostgreSQL. Promises that a node whose lease is not renewed leaves the set within its
//! time to live and a little, that everybody who watches is told, and that at most one holder is told that it leads a
//! role at a time, as far as anybody can tell. Adapters: [`MemoryLiveness`] for one process (etcd joins with the
//! cluster); all of them pass `tests/it/conformance.rs`.

mod memory;

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

pub use memory::MemoryLiveness;

/// How long a node that says nothing counts as alive (rule R6).
pub const NODE_TTL: Duration = Duration::from_secs(15);

/// Why liveness could not be told. All of them pass: try again.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// It cannot be reached.
    #[error("the cluster store cannot be reached: {0}")]
    Unavailable(String),
    /// The lease ran out or was taken back; register again.
    #[error("the lease was lost")]
    Lost,
}

/// Who is alive and who leads.
#[async_trait]
pub trait Liveness: Send + Sync + 'static {
    /// Says that the node of this name is alive, for `ttl` and then as long as the lease is renewed.
    async fn register(&self, node: &str, ttl: Duration) -> Result<Box<dyn Lease>, ClusterError>;
    /// The names of the nodes that are alive, now and as it changes.
    async fn nodes(&self) -> Result<watch::Receiver<BTreeSet<String>>, ClusterError>;
    /// Waits until `holder` leads `role`. Cancel-safe: giving up is leaving the queue.
    async fn campaign(&self, role: &str, holder: &str) -> Result<Box<dyn Leadership>, ClusterError>;
}

/// That a node is alive. Dropping it says that it no longer is.
#[async_trait]
pub trait Lease: Send {
    /// Alive for another time to live.
    async fn renew(&mut self) -> Result<(), ClusterError>;
}

/// That a holder leads a role. Dropping it makes room for the next.
#[async_trait]
pub trait Leadership: Send + Sync {
    /// Returns when it no longer leads.
    async fn lost(&self);
}
