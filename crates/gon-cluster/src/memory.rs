//! Liveness of one process: leases in a map, leadership as a mutex per role.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::Instant;

use crate::{ClusterError, Leadership, Lease, Liveness};

/// The in-process adapter of [`Liveness`].
#[derive(Debug, Clone, Default)]
pub struct MemoryLiveness(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    leases: Mutex<Leases>,
    alive: watch::Sender<BTreeSet<String>>,
    roles: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug, Default)]
struct Leases {
    next: u64,
    /// By lease: whose it is and when it runs out. A node may have several.
    held: BTreeMap<u64, (String, Instant)>,
}

/// A poisoned lock only means that another task panicked between two writes of plain values, each whole in itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Forgets what ran out and tells who watches, if anything changed.
    fn tell(&self, leases: &mut Leases) {
        let now = Instant::now();
        leases.held.retain(|_, (_, until)| *until > now);
        let alive: BTreeSet<String> = leases.held.values().map(|(node, _)| node.clone()).collect();
        self.alive.send_if_modified(|told| {
            let changed = *told != alive;
            if changed {
                *told = alive;
            }
            changed
        });
    }
}

impl MemoryLiveness {
    /// Nobody is alive, nobody leads.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Liveness for MemoryLiveness {
    async fn register(&self, node: &str, ttl: Duration) -> Result<Box<dyn Lease>, ClusterError> {
        let id = {
            let mut leases = lock(&self.0.leases);
            leases.next += 1;
            let id = leases.next;
            leases.held.insert(id, (node.to_owned(), Instant::now() + ttl));
            self.0.tell(&mut leases);
            id
        };
        tokio::spawn(expire(Arc::downgrade(&self.0), id));
        Ok(Box::new(MemoryLease { shared: Arc::clone(&self.0), id, ttl }))
    }
    async fn nodes(&self) -> Result<watch::Receiver<BTreeSet<String>>, ClusterError> {
        Ok(self.0.alive.subscribe())
    }
    async fn campaign(&self, role: &str, _holder: &str) -> Result<Box<dyn Leadership>, ClusterError> {
        let seat = Arc::clone(lock(&self.0.roles).entry(role.to_owned()).or_default());
        Ok(Box::new(MemoryLeadership(seat.lock_owned().await)))
    }
}

/// Takes a lease away when it has run out; ends with it.
async fn expire(shared: Weak<Shared>, id: u64) {
    loop {
        let until = match shared.upgrade() {
            None => return,
            Some(shared) => {
                let mut leases = lock(&shared.leases);
                shared.tell(&mut leases);
                match leases.held.get(&id) {
                    None => return,
                    Some((_, until)) => *until,
                }
            }
        };
        tokio::time::sleep_until(until).await;
    }
}

struct MemoryLease {
    shared: Arc<Shared>,
    id: u64,
    ttl: Duration,
}

#[async_trait]
impl Lease for MemoryLease {
    async fn renew(&mut self) -> Result<(), ClusterError> {
        let mut leases = lock(&self.shared.leases);
        self.shared.tell(&mut leases);
        match leases.held.get_mut(&self.id) {
            Some((_, until)) => {
                *until = Instant::now() + self.ttl;
                Ok(())
            }
            None => Err(ClusterError::Lost),
        }
    }
}
impl Drop for MemoryLease {
    fn drop(&mut self) {
        let mut leases = lock(&self.shared.leases);
        leases.held.remove(&self.id);
        self.shared.tell(&mut leases);
    }
}

struct MemoryLeadership(#[expect(dead_code, reason = "held for its drop")] OwnedMutexGuard<()>);

#[async_trait]
impl Leadership for MemoryLeadership {
    /// In one process nobody can take it away.
    async fn lost(&self) {
        std::future::pending().await
    }
}
