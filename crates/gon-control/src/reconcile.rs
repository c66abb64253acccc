//! The loop of a controller: ring, then look; and look at everything on a timer. A round takes no input but where to
//! look first.

use std::collections::BTreeSet;
use std::time::Duration;

use gon_bus::{Bus, BusError, Subscription};
use gon_proto::doorbell::Subject;
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

/// What wakes a controller.
pub struct Bell {
    subscription: Box<dyn Subscription>,
    next_sweep: Instant,
    stop: CancellationToken,
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell").finish_non_exhaustive()
    }
}

impl Bell {
    /// Listens from now on; the first wake is a sweep, so nothing that happened before is missed.
    pub async fn listen(
        bus: &dyn Bus,
        subjects: &[Subject],
        stop: CancellationToken,
    ) -> Result<Self, BusError> {
        Ok(Self { subscription: bus.subscribe(subjects).await?, next_sweep: Instant::now(), stop })
    }
    /// Waits for the next reason to look.
    pub async fn wait(&mut self) -> Wake {
        let rings = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Wake::Stop,
            () = tokio::time::sleep_until(self.next_sweep) => None,
            rings = self.subscription.next() => Some(rings),
        };
        match rings {
            Some(Ok(rings)) if !rings.missed => {
                Wake::Rung(rings.doorbells.into_iter().map(|d| (d.subject, d.id)).collect())
            }
            Some(Err(error)) => {
                // The bus is away: the timer goes on.
                tracing::debug!(%error, "no doorbells");
                tokio::select! {
                    () = self.stop.cancelled() => return Wake::Stop,
                    () = tokio::time::sleep_until(self.next_sweep) => {}
                }
                self.swept()
            }
            _ => self.swept(),
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
}
