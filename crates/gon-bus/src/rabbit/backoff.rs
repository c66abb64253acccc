//! How long to wait before the next try: a random part (full jitter) of a pause that doubles up to a bound, so that
//! neither one client hammers a broker that starts nor two hundred come back at the same moment.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// The longest pause before the second try.
const FIRST: Duration = Duration::from_millis(100);
/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(5);
/// A connection that lived this long was a good one.
const GOOD: Duration = Duration::from_secs(10);

/// The tries so far.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// How long to wait now, after a connection that lived this long.
    pub(super) fn pause(&mut self, lived: Duration) -> Duration {
        if lived >= GOOD {
            self.tries = 0;
        }
        let bound = FIRST.saturating_mul(1 << self.tries.min(16)).min(LONGEST);
        self.tries += 1;
        bound.mul_f64(fraction())
    }
}

/// Runs a task to its end. One that panics, which is a bug here or in lapin, would end in silence: it is told, and begun
/// again after a pause. `make` learns what happened to the one before.
pub(super) async fn endure<F>(name: &'static str, mut make: impl FnMut(Option<&str>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut backoff = Backoff::default();
    let mut fault = None;
    loop {
        let begun = Instant::now();
        match tokio::spawn(make(fault)).await {
            Err(error) if error.is_panic() => tracing::error!(name, %error, "a task of the bus broke"),
            // It is done, or the runtime ends.
            _ => return,
        }
        fault = Some("a task broke and is begun again");
        tokio::time::sleep(backoff.pause(begun.elapsed())).await;
    }
}

/// A number from 0 to 1 by chance; whoever can predict it gains nothing.
pub(super) fn fraction() -> f64 {
    (RandomState::new().hash_one(0_u8) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_are_spread() {
        let mut longest = [Duration::ZERO; 12];
        for _ in 0..400 {
            let mut backoff = Backoff::default();
            for longest in &mut longest {
                *longest = (*longest).max(backoff.pause(Duration::ZERO));
            }
            assert!(backoff.pause(GOOD) <= FIRST, "a good connection begins anew");
        }
        assert!(longest[0] <= FIRST && longest[0] > FIRST / 2, "{longest:?}");
        assert!(longest[3] <= FIRST * 8 && longest[3] > FIRST * 4, "{longest:?}");
        assert!(longest[11] <= LONGEST && longest[11] > LONGEST * 9 / 10, "{longest:?}");
    }

    #[tokio::test]
    async fn a_task_that_breaks_is_begun_again_and_one_that_is_done_is_not() {
        let mut told = Vec::new();
        let tasks = |fault: Option<&str>| {
            told.push(fault.is_some());
            let breaks = told.len() < 3;
            async move { assert!(!breaks, "as a bug does") }
        };
        endure("test", tasks).await;
        assert_eq!(told, [false, true, true]);
    }
}
