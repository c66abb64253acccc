//! Renewing what has to be renewed, whatever happens to the store.

use std::convert::Infallible;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

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

/// Renews a lease of [`NODE_TTL`] until it is lost.
pub(crate) async fn renewing(lease: &mut dyn Lease) {
    let mut pauses = Pauses::new();
    loop {
        match lease.renew().await {
            Ok(()) => {
                pauses = Pauses::new();
                tokio::time::sleep(NODE_TTL / 3).await;
            }
            Err(ClusterError::Lost) => return,
            Err(ClusterError::Unavailable(_)) => pauses.pause().await,
        }
    }
}

/// Says that a node is alive as long as the future is polled: registers, renews, registers again when the lease was lost
/// or the store emptied. No error of the store ends it, for no node has to stop because of one (rule R7).
pub async fn keep_alive(liveness: &dyn Liveness, node: &str) -> Infallible {
    let mut pauses = Pauses::new();
    loop {
        match liveness.register(node, NODE_TTL).await {
            Ok(mut lease) => {
                pauses = Pauses::new();
                renewing(&mut *lease).await;
                tracing::info!(node, "the lease of the node was lost");
            }
            Err(error) => {
                tracing::debug!(%error, node, "not registered yet");
                pauses.pause().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
}
