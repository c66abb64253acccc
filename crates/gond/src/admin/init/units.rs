//! systemd's units, by `systemctl`. Where systemd does not run the machine, nothing is started, and that is said.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use gon_driver::run::{Cmd, run};

/// How long a unit may take to start or stop: a broker on a slow machine takes its time.
const DEADLINE: Duration = Duration::from_secs(300);

/// Controllers and the API.
pub const CONTROL: [&str; 3] =
    ["gcp-network-controller.service", "gcp-instance-manager.service", "gcp-api-server.service"];
/// Agents.
pub const WORKER: [&str; 4] = [
    "gcp-network-agent.service",
    "gcp-hypervisor-agent.service",
    "gcp-storage-agent.service",
    "gcp-container-agent.service",
];
/// What looks after the certificates of the servers we use.
pub const CERTIFICATES: [&str; 2] = ["gcp-certificates.timer", "gcp-certificates.path"];

/// Whether systemd runs this machine.
#[must_use]
pub fn systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

async fn systemctl(args: &[&str]) -> anyhow::Result<()> {
    if !systemd() {
        tracing::warn!(?args, "systemd does not run this machine");
        return Ok(());
    }
    run(Cmd::new("systemctl").args(["--quiet", "--no-ask-password"]).args(args).deadline(DEADLINE))
        .await
        .with_context(|| format!("systemctl {}", args.join(" ")))?;
    Ok(())
}

/// Has systemd read its files again.
pub async fn reload() -> anyhow::Result<()> {
    systemctl(&["daemon-reload"]).await
}
/// Starts a unit, now and at each start of the machine.
pub async fn start(unit: &str) -> anyhow::Result<()> {
    systemctl(&["enable", "--now", unit]).await
}
/// Has a unit started at each start of the machine, not now.
pub async fn enable(unit: &str) -> anyhow::Result<()> {
    systemctl(&["enable", unit]).await
}
/// Starts a unit again, with what is new, and at each start of the machine.
pub async fn restart(unit: &str) -> anyhow::Result<()> {
    systemctl(&["enable", unit]).await?;
    systemctl(&["restart", unit]).await
}
/// Enables units and starts those that do not run.
pub async fn start_all(units: &[&str]) -> anyhow::Result<()> {
    systemctl(&[&["enable"], units].concat()).await?;
    systemctl(&[&["start"], units].concat()).await
}
/// Enables units and starts them again. All at once: they wait for each other.
pub async fn restart_all(units: &[&str]) -> anyhow::Result<()> {
    systemctl(&[&["enable"], units].concat()).await?;
    systemctl(&[&["restart"], units].concat()).await
}
/// Stops units for good; that some are not there is no error.
pub async fn disable(units: &[&str]) -> anyhow::Result<()> {
    for unit in units {
        if let Err(error) = systemctl(&["disable", "--now", unit]).await {
            tracing::debug!(error = format!("{error:#}"), unit, "not disabled");
        }
    }
    Ok(())
}
