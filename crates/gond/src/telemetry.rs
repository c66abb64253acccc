//! Logs: for people on a terminal, one JSON object per line otherwise.

use std::io::IsTerminal as _;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// What PostgreSQL remarks upon (a table that was there already) is not worth a line unless asked for.
fn filter(level: &str) -> String {
    if level.contains("sqlx") { level.to_owned() } else { format!("{level},sqlx=warn") }
}

/// Starts logging to standard error. Once per process.
pub fn start(log: &Log) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(filter(&log.level)).with_context(|| format!("log.level '{}'", log.level))?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let result = match (log.format, terminal) {
        (LogFormat::Json, _) | (LogFormat::Auto, false) => {
            builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
        }
        (LogFormat::Human | LogFormat::Auto, _) => {
            builder.with_ansi(terminal).with_target(false).compact().try_init()
        }
    };
    result.map_err(|error| anyhow::anyhow!("logging: {error}"))?;
    // A panic ends a task or a request, not the process; it belongs to the log like everything else.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let what = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(place, what, trace = %std::backtrace::Backtrace::capture(), "panic");
    }));
    Ok(())
}
