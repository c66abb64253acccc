//! The door to liveness: which nodes are alive, who leads a role, where services are. Never what should be.
//!
//! Assumes that nobody takes an answer from here for a fence: a lease that ran out does not stop its holder (rule R6).
//! The fence is the epoch in PostgreSQL, compared at the moment of every effect. Promises that a node whose lease is
//! not renewed leaves the set within its time to live and a little, that everybody who watches is told, that a holder
//! knows its leadership to be lost before anybody else can win it (on its own clock, also when it was stopped or cut
//! off), and that nothing that was known is forgotten because the store cannot be reached. Adapters:
//! [`MemoryLiveness`] for one process, [`EtcdLiveness`] for a cluster; both pass `tests/it/conformance.rs`.
//!
//! # When etcd cannot be reached
//! Leases run out on the clocks of those who hold them, and nobody can win: leadership is lost everywhere. That must
//! not stop a site (`docs/adr/0006`). Winning an election is only the *ticket to raise the epoch*; who leads is whose
//! epoch is the highest in PostgreSQL. So a leader that lost its lease asks PostgreSQL, and as long as its epoch is the
//! highest it goes on, campaigning again meanwhile; it stops for good when it sees a higher one. The set of nodes is
//! kept and marked stale, and nobody is declared dead by it. A controller that starts while etcd is away waits for it.

mod etcd;
mod keep;
mod memory;
mod term;

use std::any::Any;
use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

pub use etcd::{EtcdConfig, EtcdLiveness, PREFIX, TlsPem};
pub use keep::keep_alive;
pub use memory::MemoryLiveness;

/// How long a node that says nothing counts as alive (rule R6).
pub const NODE_TTL: Duration = Duration::from_secs(15);
/// How long a leader that says nothing keeps its seat: a crashed one is followed within this and a little (≤ 15 s).
pub const LEADER_TTL: Duration = Duration::from_secs(10);

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

/// The nodes that are alive, as far as is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alive {
    /// Their names.
    pub names: BTreeSet<String>,
    /// Whether the store cannot be reached, so that `names` is what was known last. Absence from a stale set says
    /// nothing at all.
    pub stale: bool,
}

/// Who is alive, who leads, what is where.
#[async_trait]
pub trait Liveness: Send + Sync + 'static {
    /// Says that the node of this name is alive, for `ttl` and then as long as the lease is renewed.
    async fn register(&self, node: &str, ttl: Duration) -> Result<Box<dyn Lease>, ClusterError>;
    /// The nodes that are alive, now and as it changes. Comes within seconds, stale if the store is away.
    async fn nodes(&self) -> watch::Receiver<Alive>;
    /// Waits until `holder` leads `role`. Cancel-safe: giving up is leaving the queue.
    async fn campaign(&self, role: &str, holder: &str) -> Result<Box<dyn Leadership>, ClusterError>;
    /// Says that `service` is served at `address`, until the answer is dropped. Nobody has to renew it; a store that
    /// is away or was emptied is told as soon as it is back.
    fn announce(&self, service: &str, address: &str) -> Announcement;
    /// Where a service is said to be, now and as it changes. What was known last if the store is away.
    async fn services(&self, service: &str) -> watch::Receiver<BTreeSet<String>>;
    /// A published setting, now and as it changes; `None` while nobody has published it or nothing is known yet.
    async fn setting(&self, key: &str) -> watch::Receiver<Option<String>>;
    /// Publishes a setting for the whole site: a short text. Whoever needs it to last keeps it elsewhere, too: the
    /// store may be emptied (rule R1).
    async fn publish(&self, key: &str, value: &str) -> Result<(), ClusterError>;
}

/// That a node is alive. Dropping it says that it no longer is.
#[async_trait]
pub trait Lease: Send {
    /// Alive for another time to live.
    async fn renew(&mut self) -> Result<(), ClusterError>;
}

/// That a holder leads a role. Dropping it makes room for the next, if the process lives on for a moment.
#[async_trait]
pub trait Leadership: Send + Sync {
    /// Returns when it no longer leads: at the latest when the lease could have run out at the store, measured on this
    /// machine's clock from before the last renewal was sent. A process that was stopped meanwhile finds it ready at
    /// the first poll.
    async fn lost(&self);
    /// Whether it still leads, by the same clock and without waiting. For looking before an effect; no fence.
    fn holds(&self) -> bool;
    /// Makes room for the next and returns when that is done, or cannot be done soon. For a clean stop: a process that
    /// ends at once cannot do it by dropping.
    async fn resign(self: Box<Self>);
}

/// Keeps a service announced; dropping it takes the address back.
pub struct Announcement(#[expect(dead_code, reason = "held for its drop")] Box<dyn Any + Send + Sync>);

impl Announcement {
    /// Lasts as long as `guard`.
    pub fn new(guard: impl Any + Send + Sync) -> Self {
        Self(Box::new(guard))
    }
}

impl std::fmt::Debug for Announcement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Announcement")
    }
}
