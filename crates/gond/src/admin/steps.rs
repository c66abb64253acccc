//! Long commands, shown step by step: what is done, what it found, how long it took.

use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::Context;
use gon_store::{Store, StoreError};

use crate::terminal;

/// How long a database that is starting, or has much to do, is asked again.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a step found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It was so already.
    Already,
    /// It is so now.
    Now,
    /// With something to say.
    Said(String),
}

/// Does a step and shows it. A failure names the step.
pub async fn step(text: &str, work: impl Future<Output = anyhow::Result<Done>>) -> anyhow::Result<()> {
    let begin = Instant::now();
    let mut out = std::io::stdout();
    let live = out.is_terminal();
    if live {
        let _ = write!(out, "  … {text}");
        let _ = out.flush();
    }
    let done = work.await;
    if live {
        let _ = write!(out, "\r\x1b[K");
    }
    let seconds = begin.elapsed().as_secs_f64();
    match done {
        Ok(Done::Already) => terminal::line(&format!("  ✓ {text}: already so")),
        Ok(Done::Now) => terminal::line(&format!("  ✓ {text}  {seconds:.1} s")),
        Ok(Done::Said(what)) => terminal::line(&format!("  ✓ {text}: {what}  {seconds:.1} s")),
        Err(error) => {
            terminal::line(&format!("  ✗ {text}"));
            return Err(error).with_context(|| text.to_owned());
        }
    }
    Ok(())
}

/// Opens the database for a command of an operator, who would only type it again if it is busy for a moment.
pub async fn database(url: &str) -> anyhow::Result<Store> {
    patiently(PATIENCE, || Store::connect(url, 2)).await.context("the database")
}

async fn patiently<T, F>(patience: Duration, mut connect: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let begin = Instant::now();
    loop {
        match connect().await {
            Err(StoreError::Unavailable(_)) if begin.elapsed() < patience => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_database_is_asked_again_and_a_wrong_url_is_not() {
        // Nobody listens at port 1.
        let url = "postgres:///gon?host=/run/gon-nowhere&port=1&user=gon";
        let mut tries = 0;
        let asked = patiently(Duration::from_millis(700), || {
            tries += 1;
            Store::connect(url, 1)
        });
        assert!(matches!(asked.await, Err(StoreError::Unavailable(_))));
        assert!(tries > 1, "once is not patient");
        let begin = Instant::now();
        assert!(database("postgres://gon@/gon").await.is_err());
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}
