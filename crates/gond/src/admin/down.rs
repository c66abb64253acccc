//! `gond admin running`, `stop`, `down`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::config::Config;
use crate::{lock, terminal};

/// How long gond may take to end by itself.
const GRACE: Duration = Duration::from_secs(10);

/// Exit code 0 if gond runs there.
pub fn running(config: &Config, same_binary: bool) -> anyhow::Result<ExitCode> {
    let found = lock::running(&config.data_dir)?.filter(|p| !same_binary || lock::same_binary(p));
    Ok(if found.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Stops gond; what it started goes on.
pub async fn stop(config: &Config) -> anyhow::Result<()> {
    match lock::running(&config.data_dir)? {
        None => terminal::line("gond does not run"),
        Some(process) => {
            if !process.stop(GRACE).await.context("stopping gond")? {
                bail!("gond (process {}) does not end", process.pid);
            }
            terminal::line(&format!("stopped gond (process {})", process.pid));
        }
    }
    Ok(())
}

/// Stops everything and leaves nothing but the data.
pub async fn down(config: &Config) -> anyhow::Result<()> {
    stop(config).await
}
