//! How long a leadership may be believed in: until a moment on a clock that goes on while the machine sleeps and
//! while the process is stopped.
//!
//! Promises that it is over for good: once anybody was told so, nobody is told otherwise, whatever arrives late.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

/// The longest sleep between two looks at the clock: timers stand still while the machine sleeps.
const LOOK: Duration = Duration::from_millis(500);
/// What is never a moment.
const OVER: u64 = 0;

/// Time since the machine was started, sleep included (CLOCK_BOOTTIME). No other clock is used for leases (rule R25).
pub(crate) fn now() -> Duration {
    let at = clock_gettime(ClockId::Boottime);
    Duration::new(at.tv_sec.unsigned_abs(), u32::try_from(at.tv_nsec).unwrap_or(0))
}

fn millis(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}

/// Shared by who renews it and who looks at it.
#[derive(Debug)]
pub(crate) struct Term {
    /// Milliseconds of [`now`], or [`OVER`].
    until: AtomicU64,
    ended: Notify,
}

impl Term {
    /// Lasts until `until` on the clock of [`now`].
    pub(crate) fn new(until: Duration) -> Self {
        Self { until: AtomicU64::new(millis(until)), ended: Notify::new() }
    }

    /// What is left; `None` when it is over.
    pub(crate) fn left(&self) -> Option<Duration> {
        loop {
            let until = self.until.load(Ordering::Acquire);
            if until == OVER {
                return None;
            }
            let now = millis(now());
            if now < until {
                return Some(Duration::from_millis(until - now));
            }
            // Told once, it stays so. If it was extended in between, look again.
            if self.until.compare_exchange(until, OVER, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                self.ended.notify_waiters();
                return None;
            }
        }
    }

    /// Makes it last longer, unless it is over: `false`.
    pub(crate) fn extend(&self, to: Duration) -> bool {
        while self.left().is_some() {
            let until = self.until.load(Ordering::Acquire);
            let longer = until.max(millis(to));
            if until != OVER
                && self.until.compare_exchange(until, longer, Ordering::AcqRel, Ordering::Acquire).is_ok()
            {
                return true;
            }
        }
        false
    }

    /// Ends it now.
    pub(crate) fn end(&self) {
        self.until.store(OVER, Ordering::Release);
        self.ended.notify_waiters();
    }

    /// Returns when it is over. The clock is looked at whenever this is polled, before anything is waited for: a timer
    /// may be behind in a process that was stopped.
    pub(crate) async fn over(&self) {
        let mut wait = std::pin::pin!(async {
            loop {
                let ended = self.ended.notified();
                let Some(left) = self.left() else { return };
                tokio::select! {
                    () = ended => {}
                    () = tokio::time::sleep(left.min(LOOK)) => {}
                }
            }
        });
        std::future::poll_fn(|cx| {
            if self.left().is_none() {
                return std::task::Poll::Ready(());
            }
            wait.as_mut().poll(cx)
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(60);

    #[tokio::test]
    async fn it_ends_by_itself_and_stays_so() {
        let term = Term::new(now() + SHORT);
        assert!(term.left().is_some());
        term.over().await;
        assert!(!term.extend(now() + SHORT), "a renewal that came too late");
        assert!(term.left().is_none());
    }

    #[tokio::test]
    async fn it_is_extended_and_never_shortened() {
        let term = Term::new(now() + SHORT);
        assert!(term.extend(now() + Duration::from_secs(60)));
        assert!(term.extend(now()), "an answer that was overtaken");
        assert!(tokio::time::timeout(SHORT * 3, term.over()).await.is_err());
        term.end();
        term.over().await;
        assert!(!term.extend(now() + SHORT));
    }

    /// What was polled before the process was stopped sees the end at its next poll, though no timer has fired.
    #[tokio::test]
    async fn a_stopped_process_finds_it_over_at_the_first_poll() {
        let term = Term::new(now() + SHORT);
        let mut over = std::pin::pin!(term.over());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(over.as_mut().poll(&mut cx).is_pending());
        // Blocks the only thread: the runtime's timer does not go on.
        std::thread::sleep(SHORT * 2);
        assert!(over.as_mut().poll(&mut cx).is_ready());
    }
}
