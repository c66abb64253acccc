//! The loop of a controller: ring, then look; and look at everything on a timer. A round takes no input but where to
//! look first.

use std::collections::BTreeSet;
use std::time::Duration;

use gon_bus::{Bus, BusError, Subscription};
use gon_proto::doorbell::Subject;
use gon_store::Store;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often a controller looks at everything, whatever it heard.
pub const SWEEP: Duration = Duration::from_secs(10);

/// Why a round begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// These changed.
    Rung(BTreeSet<(Subject, Uuid)>),
    /// Time to look at everything.
    Sweep,
    /// Time to end.
    Stop,
}

/// How often a controller looks whether doorbells lie in the outbox: then nobody rings them.
const LOOK: Duration = Duration::from_secs(1);
/// How many such doorbells one look takes at most; a sweep finds what the others are about.
const TAKEN: usize = 1000;

/// What wakes a controller.
pub struct Bell {
    subscription: Box<dyn Subscription>,
    store: Store,
    subjects: Vec<Subject>,
    next_sweep: Instant,
    next_look: Instant,
    /// The bus is away; it is asked again with the next look.
    deaf: bool,
    /// Doorbells of the last looks: each wakes once.
    taken: BTreeSet<i64>,
    stop: CancellationToken,
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell").finish_non_exhaustive()
    }
}

impl Bell {
    /// Listens from now on; the first wake is a sweep, so nothing that happened before is missed. `store` holds the
    /// outbox: with the bus away, what lies there wakes all the same, only later.
    pub async fn listen(
        bus: &dyn Bus,
        store: &Store,
        subjects: &[Subject],
        stop: CancellationToken,
    ) -> Result<Self, BusError> {
        Ok(Self {
            subscription: bus.subscribe(subjects).await?,
            store: store.clone(),
            subjects: subjects.to_vec(),
            next_sweep: Instant::now(),
            next_look: Instant::now() + LOOK,
            deaf: false,
            taken: BTreeSet::new(),
            stop,
        })
    }
    /// Waits for the next reason to look.
    pub async fn wait(&mut self) -> Wake {
        loop {
            let rings = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Wake::Stop,
                () = tokio::time::sleep_until(self.next_sweep) => return self.swept(),
                () = tokio::time::sleep_until(self.next_look) => {
                    self.deaf = false;
                    self.next_look = Instant::now() + LOOK;
                    let lying = self.lying().await;
                    if lying.is_empty() {
                        continue;
                    }
                    return Wake::Rung(lying);
                }
                rings = self.subscription.next(), if !self.deaf => rings,
            };
            match rings {
                Ok(rings) if rings.missed => return self.swept(),
                Ok(rings) => {
                    return Wake::Rung(rings.doorbells.into_iter().map(|d| (d.subject, d.id)).collect());
                }
                Err(error) => {
                    // The bus is away: the timers go on.
                    tracing::debug!(%error, "no doorbells");
                    self.deaf = true;
                }
            }
        }
    }
    /// Looks at everything this soon at the latest: after a round that failed.
    pub fn again_within(&mut self, delay: Duration) {
        self.next_sweep = self.next_sweep.min(Instant::now() + delay);
    }
    fn swept(&mut self) -> Wake {
        self.next_sweep = Instant::now() + SWEEP;
        Wake::Sweep
    }
    /// What lies in the outbox and has not woken us yet.
    async fn lying(&mut self) -> BTreeSet<(Subject, Uuid)> {
        let names: Vec<&'static str> = self.subjects.iter().map(|s| s.as_str()).collect();
        let looked = tokio::select! {
            () = self.stop.cancelled() => return BTreeSet::new(),
            looked = gon_store::relay::lying(&self.store, &names, TAKEN as i64) => looked,
        };
        let rows = match looked {
            Ok(rows) => rows,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "the outbox cannot be looked at");
                return BTreeSet::new();
            }
        };
        let mut woken = BTreeSet::new();
        for row in &rows {
            let subject = self.subjects.iter().find(|s| s.as_str() == row.subject);
            if let (Some(subject), true) = (subject, self.taken.insert(row.seq)) {
                woken.insert((*subject, row.subject_id));
            }
        }
        // What is gone from the outbox need not be remembered.
        let there: BTreeSet<i64> = rows.iter().map(|row| row.seq).collect();
        self.taken = self.taken.intersection(&there).copied().collect();
        woken
    }
}
