//! Waiting for something, with a deadline and a reason.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::bail;

/// How long this process has run its tests; what the lines of a story are numbered with.
pub fn since_start() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Asks every 20 ms until there is an answer; says how long that took.
///
/// # Errors
/// When there is none by the deadline: with `what`, and what the last attempt said.
pub fn until<T>(
    what: &str,
    deadline: Duration,
    mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        let last = match ask() {
            Ok(Some(answer)) => return Ok((answer, start.elapsed())),
            Ok(None) => "not yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() > deadline {
            bail!("{what}: not within {} s; last: {last}", deadline.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// [`until`] for a condition.
///
/// # Errors
/// When it does not hold by the deadline.
pub fn holds(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<Duration> {
    until(what, deadline, || Ok(condition()?.then_some(()))).map(|((), took)| took)
}
