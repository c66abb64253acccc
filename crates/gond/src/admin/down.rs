//! `gond admin running`, `stop`, `down`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use gon_agent::{hypervisor, network};
use gon_driver::netfilter;
use gon_driver::netlink::Netlink;
use gon_driver::ovs::Ovs;
use gon_driver::postgres::{self, Postgres};

use crate::agents::ovs_config;
use crate::config::Config;
use crate::layout::Layout;
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

/// Stops everything and leaves nothing but the data. Can be repeated.
pub async fn down(config: &Config) -> anyhow::Result<()> {
    let layout = Layout::new(&config.data_dir);
    stop(config).await?;
    // Nobody starts anything while we stop it.
    let _lock = lock::DataDirLock::take(&config.data_dir, "down")?;
    let guests = hypervisor::tear_down(&layout.compute()).await.context("stopping the guests")?;
    for guest in &guests {
        let how = if guest.by_itself { "powered itself off" } else { "was cut off" };
        terminal::line(&format!("stopped guest {} (process {}): it {how}", guest.instance, guest.pid));
    }
    if guests.is_empty() {
        terminal::line("no guest ran");
    }
    let switch = ovs_config(config, &layout);
    network::tear_down(&switch).await.context("removing the network")?;
    terminal::line("removed ports, bridge, firewall table and our own Open vSwitch");
    match Postgres::find(&layout.postgres()) {
        Some(server) => {
            let pid = server.pid().pid;
            server.stop(postgres::Stop::Fast).await.context("stopping the private PostgreSQL")?;
            terminal::line(&format!("stopped PostgreSQL (process {pid})"));
        }
        None => terminal::line("no private PostgreSQL runs"),
    }
    match std::fs::remove_dir_all(layout.run()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("removing sockets");
        }
        _ => {}
    }
    prove(config, &layout).await
}

/// Nothing is left: looked for anew, not concluded from what was done.
async fn prove(config: &Config, layout: &Layout) -> anyhow::Result<()> {
    let mut left = Vec::new();
    if let Some(server) = Postgres::find(&layout.postgres()) {
        left.push(format!("PostgreSQL (process {})", server.pid().pid));
    }
    if Ovs::find(&ovs_config(config, layout), network::BRIDGE).await.is_ok_and(|found| found.is_some()) {
        left.push(format!("the bridge {} or its switch", network::BRIDGE));
    }
    let links = Netlink::open()?.links().await?;
    left.extend(
        links
            .iter()
            .filter(|l| l.name.starts_with("gt") && l.name.len() == 14 || l.name.starts_with("gon-"))
            .map(|l| format!("the device {}", l.name)),
    );
    if netfilter::is_present().await? {
        left.push("the firewall table".to_owned());
    }
    let data_dir = std::fs::canonicalize(layout.data_dir())?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let below = format!("{}/", data_dir.display());
    left.extend(
        mounts
            .lines()
            .filter_map(|l| l.split(' ').nth(1))
            .filter(|at| at.starts_with(&below))
            .map(|at| format!("the mount {at}")),
    );
    if left.is_empty() {
        terminal::line(&format!("Nothing is left; the data is in {}.", layout.data_dir().display()));
        Ok(())
    } else {
        bail!("still there: {}", left.join(", "))
    }
}
