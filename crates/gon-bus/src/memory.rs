//! The bus of one process: a bounded ring that every subscriber reads at its own pace.

use std::collections::BTreeSet;

use async_trait::async_trait;
use gon_proto::Doorbell;
use gon_proto::doorbell::Subject;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::{Bus, BusError, Rings, Subscription};

/// How many doorbells a slow subscriber may be behind before it is told that it missed some.
const DEPTH: usize = 4096;

/// The in-process adapter of [`Bus`].
#[derive(Debug, Clone)]
pub struct MemoryBus(broadcast::Sender<Doorbell>);

impl MemoryBus {
    /// A bus without subscribers.
    #[must_use]
    pub fn new() -> Self {
        Self(broadcast::Sender::new(DEPTH))
    }
}
impl Default for MemoryBus {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn publish(&self, doorbells: &[Doorbell]) -> Result<(), BusError> {
        for doorbell in doorbells {
            // Nobody listening is no error: nobody would have heard it.
            let _ = self.0.send(*doorbell);
        }
        Ok(())
    }
    async fn subscribe(&self, subjects: &[Subject]) -> Result<Box<dyn Subscription>, BusError> {
        Ok(Box::new(MemorySubscription { subjects: subjects.to_vec(), ring: self.0.subscribe() }))
    }
}

struct MemorySubscription {
    subjects: Vec<Subject>,
    ring: broadcast::Receiver<Doorbell>,
}

impl MemorySubscription {
    fn wants(&self, doorbell: &Doorbell) -> bool {
        self.subjects.contains(&doorbell.subject)
    }
}

#[async_trait]
impl Subscription for MemorySubscription {
    async fn next(&mut self) -> Result<Rings, BusError> {
        let mut heard = BTreeSet::new();
        let mut missed = false;
        // Only the first wait can be cancelled, and then nothing has been taken that was wanted.
        loop {
            match self.ring.recv().await {
                Ok(doorbell) if self.wants(&doorbell) => {
                    heard.insert((doorbell.subject, doorbell.id));
                    break;
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => {
                    missed = true;
                    break;
                }
                Err(RecvError::Closed) => return Err(BusError::Unavailable("it was shut down".to_owned())),
            }
        }
        loop {
            match self.ring.try_recv() {
                Ok(doorbell) if self.wants(&doorbell) => {
                    heard.insert((doorbell.subject, doorbell.id));
                }
                Ok(_) => {}
                Err(TryRecvError::Lagged(_)) => missed = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let doorbells = heard.into_iter().map(|(subject, id)| Doorbell { subject, id }).collect();
        Ok(Rings { doorbells, missed })
    }
}
