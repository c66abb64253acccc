//! Liveness of one process: leases in a map, leadership as a mutex per role. Never stale, never lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::Instant;

use crate::{Alive, Announcement, ClusterError, Leadership, Lease, Liveness};

/// The in-process adapter of [`Liveness`].
#[derive(Debug, Clone, Default)]
pub struct MemoryLiveness(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    leases: Mutex<Leases>,
    alive: watch::Sender<Alive>,
    roles: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    services: Mutex<HashMap<String, Service>>,
    settings: Mutex<HashMap<String, watch::Sender<Option<String>>>>,
}

/// Where a service is, once for every announcement.
#[derive(Debug, Default)]
struct Service {
    held: Vec<String>,
    told: watch::Sender<BTreeSet<String>>,
}

impl Service {
    fn tell(&self) {
        self.told.send_replace(self.held.iter().cloned().collect());
    }
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
        let names: BTreeSet<String> = leases.held.values().map(|(node, _)| node.clone()).collect();
        self.alive.send_if_modified(|told| {
            let changed = told.names != names;
            if changed {
                told.names = names;
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
    async fn nodes(&self) -> watch::Receiver<Alive> {
        self.0.alive.subscribe()
    }
    async fn campaign(&self, role: &str, _holder: &str) -> Result<Box<dyn Leadership>, ClusterError> {
        let seat = Arc::clone(lock(&self.0.roles).entry(role.to_owned()).or_default());
        Ok(Box::new(MemoryLeadership(seat.lock_owned().await)))
    }
    fn announce(&self, service: &str, address: &str) -> Announcement {
        let mut services = lock(&self.0.services);
        let entry = services.entry(service.to_owned()).or_default();
        entry.held.push(address.to_owned());
        entry.tell();
        Announcement::new(MemoryAnnouncement {
            shared: Arc::clone(&self.0),
            service: service.to_owned(),
            address: address.to_owned(),
        })
    }
    async fn services(&self, service: &str) -> watch::Receiver<BTreeSet<String>> {
        lock(&self.0.services).entry(service.to_owned()).or_default().told.subscribe()
    }
    async fn setting(&self, key: &str) -> watch::Receiver<Option<String>> {
        lock(&self.0.settings).entry(key.to_owned()).or_default().subscribe()
    }
    async fn publish(&self, key: &str, value: &str) -> Result<(), ClusterError> {
        lock(&self.0.settings).entry(key.to_owned()).or_default().send_replace(Some(value.to_owned()));
        Ok(())
    }
}

struct MemoryAnnouncement {
    shared: Arc<Shared>,
    service: String,
    address: String,
}

impl Drop for MemoryAnnouncement {
    fn drop(&mut self) {
        let mut services = lock(&self.shared.services);
        let Some(entry) = services.get_mut(&self.service) else { return };
        if let Some(at) = entry.held.iter().position(|held| *held == self.address) {
            entry.held.swap_remove(at);
            entry.tell();
        }
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
    fn holds(&self) -> bool {
        true
    }
    async fn resign(self: Box<Self>) {}
}
