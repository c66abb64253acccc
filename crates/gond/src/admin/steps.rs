//! Long commands, shown step by step: what is done, what it found, how long it took.

use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

use anyhow::Context;

use crate::terminal;

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
