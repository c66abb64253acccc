//! Renewing what has to be renewed, whatever happens to the store.

use std::convert::Infallible;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use crate::{ClusterError, Lease, Liveness, NODE_TTL};

/// The longest pause of the first try again; doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause: what a recovery waits for at most, and what keeps a crowd from coming back at once (row D8).
const LONGEST: Duration = Duration::from_secs(2);

/// A number nobody can expect, from what the standard library seeds its tables with.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Pauses between tries: anything from nothing to a limit that doubles ("full jitter").
#[derive(Debug)]
pub(crate) struct Pauses(Duration);

impl Pauses {
    /// The next pause is a first one.
    pub(crate) fn new() -> Self {
        Self(FIRST)
    }
    /// Takes the next pause.
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.next()).await;
    }
    /// How long the next pause is.
    pub(crate) fn next(&mut self) -> Duration {
        let limit = self.0;
        self.0 = (limit * 2).min(LONGEST);
        Duration::from_millis(random() % u64::try_from(limit.as_millis()).unwrap_or(1).max(1))
    }
}

/// How long to wait before the next renewal: a third of the time to live, or a little less, so that those who came back
/// together do not come together for ever.
fn until_renewal() -> Duration {
    let third = NODE_TTL / 3;
    third - Duration::from_millis(random() % 1000)
}

/// Renews a lease of [`NODE_TTL`] until it is lost.
async fn renewing(lease: &mut dyn Lease) {
    let mut pauses = Pauses::new();
    loop {
        match lease.renew().await {
            Ok(()) => {
                pauses = Pauses::new();
                tokio::time::sleep(until_renewal()).await;
            }
            Err(ClusterError::Lost) => return,
            Err(ClusterError::Unavailable(_)) => pauses.pause().await,
        }
    }
}

/// Has a lease as long as it is polled: takes one, renews it, takes another when it was lost or the store emptied. No
/// error of the store ends it.
pub(crate) async fn keep<F>(what: &str, take: impl Fn() -> F) -> Infallible
where
    F: Future<Output = Result<Box<dyn Lease>, ClusterError>>,
{
    let mut pauses = Pauses::new();
    loop {
        let begun = Instant::now();
        match take().await {
            Ok(mut lease) => {
                renewing(&mut *lease).await;
                tracing::info!(what, "a lease was lost");
                if begun.elapsed() >= NODE_TTL {
                    pauses = Pauses::new();
                }
            }
            Err(error) => tracing::debug!(%error, what, "no lease yet"),
        }
        // Also after a loss: everybody lost theirs at the same moment, and one that is lost again and again is no reason
        // to hurry.
        pauses.pause().await;
    }
}

/// Says that a node is alive as long as the future is polled: registers, renews, registers again when the lease was lost
/// or the store emptied. No error of the store ends it, for no node has to stop because of one (rule R7).
pub async fn keep_alive(liveness: &dyn Liveness, node: &str) -> Infallible {
    keep(node, || liveness.register(node, NODE_TTL)).await
}

/// Runs a task to its end. One that panics, which is a bug, would end in silence: it is told, and begun again.
pub(crate) async fn endure<F>(what: &str, make: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut pauses = Pauses::new();
    loop {
        let mut task = Task(tokio::spawn(make()));
        match (&mut task.0).await {
            Err(error) if error.is_panic() => tracing::error!(what, %error, "a task broke"),
            // It is done, or the runtime ends.
            _ => return,
        }
        pauses.pause().await;
    }
}

/// A task that ends when this is dropped.
pub(crate) struct Task(pub(crate) tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_differ() {
        let mut pauses = Pauses::new();
        let taken: Vec<Duration> = (0..50).map(|_| pauses.next()).collect();
        assert!(taken.iter().all(|p| *p < LONGEST));
        assert!(taken[0] < FIRST);
        let distinct: std::collections::HashSet<_> = taken[10..].iter().collect();
        assert!(distinct.len() > 20, "{taken:?}");
    }

    struct Lost;

    #[async_trait::async_trait]
    impl Lease for Lost {
        async fn renew(&mut self) -> Result<(), ClusterError> {
            Err(ClusterError::Lost)
        }
    }

    /// A store that grants every lease and knows none of them a moment later is not asked without end.
    #[tokio::test]
    async fn a_lease_that_is_always_lost_is_no_reason_to_hurry() {
        let taken = AtomicU32::new(0);
        let take = || async {
            taken.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(Lost) as Box<dyn Lease>)
        };
        assert!(tokio::time::timeout(Duration::from_millis(500), keep("test", take)).await.is_err());
        assert!((2..50).contains(&taken.load(Ordering::Relaxed)), "{taken:?} in half a second");
    }

    #[test]
    fn renewals_are_spread_and_in_time() {
        let waits: std::collections::HashSet<_> = (0..50).map(|_| until_renewal()).collect();
        assert!(waits.len() > 20);
        assert!(waits.iter().all(|wait| *wait <= NODE_TTL / 3 && *wait > NODE_TTL / 4), "{waits:?}");
    }

    #[tokio::test]
    async fn a_task_that_breaks_is_begun_again_and_one_that_is_done_is_not() {
        let begun = AtomicU32::new(0);
        let make = || {
            let breaks = begun.fetch_add(1, Ordering::Relaxed) < 2;
            async move { assert!(!breaks, "as a bug does") }
        };
        endure("test", make).await;
        assert_eq!(begun.into_inner(), 3);
    }
}
