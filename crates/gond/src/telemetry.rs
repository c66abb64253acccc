//! Logs: one line per event to standard error, as JSON or, on a terminal, for people.
//!
//! Every line says which service of which node speaks, and carries the fields of the spans it happened in: a request's
//! id, an operation's, an account's. What a line means cannot be forged from inside it: see [`encode`].

mod encode;
mod layer;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Config, LogFormat};
use crate::node;

use encode::Form;
use layer::LogLayer;

/// What others remark upon is not worth a line unless asked for: PostgreSQL about a table that was there already, a
/// handshake that a port scanner began. RabbitMQ's client calls a missing exchange an error; the bus makes it, and says
/// itself what is wrong.
fn filter(level: &str) -> String {
    let mut text = level.to_owned();
    for quiet in ["sqlx=warn", "rustls=warn", "lapin=off", "h2=warn", "hyper=warn"] {
        let (name, _) = quiet.split_once('=').unwrap_or((quiet, ""));
        if !level.contains(name) {
            text = format!("{text},{quiet}");
        }
    }
    text
}

/// Whether there is a log by now.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Whether this process logs: it is a service, not a command.
#[must_use]
pub fn has_started() -> bool {
    STARTED.load(Ordering::Relaxed)
}

/// Starts logging to standard error, as `service`. Once per process.
pub fn start(config: &Config, service: &str) -> anyhow::Result<()> {
    let log = &config.log;
    let filter =
        EnvFilter::try_new(filter(&log.level)).with_context(|| format!("log.level '{}'", log.level))?;
    let terminal = std::io::stderr().is_terminal();
    let form = match (log.format, terminal) {
        (LogFormat::Json, _) | (LogFormat::Auto, false) => Form::Json,
        (LogFormat::Human | LogFormat::Auto, _) => Form::Human { colour: terminal },
    };
    let write = |line: &str| {
        // One write per line, so that lines of several threads do not mix. Nobody reading is no failure of ours.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(LogLayer::new(form, service, &node::peek(config), write))
        .try_init()
        .map_err(|error| anyhow::anyhow!("logging: {error}"))?;
    STARTED.store(true, Ordering::Relaxed);
    // A panic ends a task or a request, not the process; it belongs to the log like everything else.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let what = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(place, what, trace = %std::backtrace::Backtrace::capture(), "panic");
    }));
    Ok(())
}
