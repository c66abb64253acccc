//! Roles as tasks: one that fails or panics is started again, alone, after a growing pause; the others go on.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A role that ran this long had started well: its next failure is a first one again.
const GOOD_RUN: Duration = Duration::from_secs(30);

/// Runs `role` until it returns after `stop`; starts it again if it ends before.
pub fn supervise<F, R>(name: &'static str, stop: CancellationToken, role: F) -> JoinHandle<()>
where
    F: Fn(CancellationToken) -> R + Send + Sync + 'static,
    R: Future<Output = anyhow::Result<()>> + Send,
{
    tokio::spawn(async move {
        let mut pause = FIRST_PAUSE;
        loop {
            let started = Instant::now();
            let ended = AssertUnwindSafe(async { role(stop.clone()).await }).catch_unwind().await;
            if stop.is_cancelled() {
                if let Ok(Err(error)) = ended {
                    tracing::warn!(role = name, error = format!("{error:#}"), "role ended badly");
                }
                return;
            }
            if started.elapsed() >= GOOD_RUN {
                pause = FIRST_PAUSE;
            }
            match ended {
                Ok(Ok(())) => tracing::warn!(role = name, ?pause, "role ended; starting it again"),
                Ok(Err(error)) => {
                    tracing::error!(
                        role = name,
                        error = format!("{error:#}"),
                        ?pause,
                        "role failed; starting it again"
                    );
                }
                // What it said is already on standard error.
                Err(_) => tracing::error!(role = name, ?pause, "role panicked; starting it again"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_role_that_fails_or_panics_is_started_again_until_it_is_told_to_stop() {
        let (runs, stop) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
        let counted = Arc::clone(&runs);
        let handle = supervise("test", stop.clone(), move |stop| {
            let run = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                match run {
                    0 => anyhow::bail!("no"),
                    1 => panic!("never"),
                    2 => Ok(()),
                    _ => {
                        stop.cancelled().await;
                        Ok(())
                    }
                }
            }
        });
        let all = async {
            while runs.load(Ordering::Relaxed) < 4 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
        stop.cancel();
        handle.await.unwrap();
    }
}
