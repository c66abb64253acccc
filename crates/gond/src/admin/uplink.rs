//! `gond admin uplink`: moves this server's network card under Open vSwitch, with somebody watching who puts it back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use gon_driver::run::{Cmd, run as run_command, spawn_detached};
use gon_driver::uplink::{self, Outcome, Request, UplinkError};

use super::init::{files, units};
use crate::config::Config;
use crate::terminal;

/// How long the guard may take to be there.
const GUARD: Duration = Duration::from_secs(20);
/// Does after a restart of the machine what was confirmed before.
const UNIT: &str = "gcp-uplink.service";

/// `gond admin uplink`
#[derive(Debug, Subcommand)]
pub enum UplinkCommand {
    /// Moves a network card, its addresses and routes to a bridge of Open vSwitch; put back unless confirmed in time.
    Move(MoveArgs),
    /// Confirms that this server can still be reached.
    Confirm,
    /// Puts the card back as it was.
    Revert,
    /// Says what is moved.
    Show,
    /// Moves it again after a restart of the machine.
    #[command(hide = true)]
    Restore,
    /// Watches a move.
    #[command(hide = true)]
    Guard {
        /// How long it waits to be confirmed.
        #[arg(long)]
        seconds: u64,
    },
}

/// `gond admin uplink move`
#[derive(Debug, Args)]
pub struct MoveArgs {
    /// The card.
    #[arg(value_name = "DEVICE")]
    device: String,
    /// The bridge to make.
    #[arg(long, default_value = "br-ex", value_name = "NAME")]
    bridge: String,
    /// How long it may stay unconfirmed.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    seconds: u64,
    /// Switches packets in userspace, where the kernel cannot.
    #[arg(long)]
    userspace: bool,
    /// Where Open vSwitch keeps its sockets.
    #[arg(long, default_value = "/run/openvswitch", value_name = "DIR")]
    switch: PathBuf,
}

/// Does what the command says.
pub async fn run(config: &Config, command: &UplinkCommand) -> anyhow::Result<()> {
    let dir = &config.data_dir;
    match command {
        UplinkCommand::Move(args) => move_card(dir, args).await,
        UplinkCommand::Confirm => {
            let kept = uplink::confirm(dir).await?;
            // Without systemd somebody else has to move it again after a restart.
            units::reload().await?;
            units::enable(UNIT).await?;
            terminal::line(&format!("{} stays under {}. {}", kept.device, kept.bridge, advice(&kept.device)));
            Ok(())
        }
        UplinkCommand::Revert => {
            let back = uplink::revert(dir).await?;
            units::disable(&[UNIT]).await?;
            terminal::line(&format!("{} is as it was.", back.device));
            Ok(())
        }
        UplinkCommand::Show => {
            match uplink::load(dir)? {
                None => terminal::line("No network card is under Open vSwitch."),
                Some(moved) => {
                    let how = if moved.confirmed { "confirmed" } else { "not confirmed yet" };
                    terminal::line(&format!("{} is under {} ({how}).", moved.device, moved.bridge));
                }
            }
            Ok(())
        }
        UplinkCommand::Restore => {
            match uplink::restore(dir).await? {
                None => terminal::line("No network card was moved."),
                Some(Outcome::Kept) => terminal::line("The network card is under Open vSwitch again."),
                Some(Outcome::Reverted) => {
                    terminal::line("The move was never confirmed: everything is as it was.")
                }
            }
            Ok(())
        }
        UplinkCommand::Guard { seconds } => {
            match uplink::guard(dir, Duration::from_secs(*seconds)).await? {
                Outcome::Kept => terminal::line("Confirmed."),
                Outcome::Reverted => terminal::line("Not confirmed: everything is as it was."),
            }
            Ok(())
        }
    }
}

/// The network's own configuration still knows nothing of it.
fn advice(device: &str) -> String {
    format!(
        "After a restart of the machine {UNIT} moves it again. Whatever else configures {device} (netplan, \
         systemd-networkd, ifupdown) must not be applied anew meanwhile: it would give the addresses back to the card."
    )
}

async fn move_card(dir: &Path, args: &MoveArgs) -> anyhow::Result<()> {
    if !(10..=3600).contains(&args.seconds) && args.switch == Path::new("/run/openvswitch") {
        bail!("--seconds: must be from 10 to 3600");
    }
    files::directory(dir, files::Owner { user: "root", mode: 0o711 })?;
    let request = Request {
        device: args.device.clone(),
        bridge: args.bridge.clone(),
        userspace: args.userspace,
        switch: args.switch.clone(),
    };
    let prepared = uplink::prepare(dir, &request).await?;
    let moved = async {
        start_guard(dir, args.seconds).await.context("the guard")?;
        if !uplink::guarded(dir, prepared.id, GUARD).await {
            return Err(UplinkError::Unguarded.into());
        }
        uplink::apply(dir, &prepared).await?;
        anyhow::Ok(())
    };
    if let Err(error) = moved.await {
        // Nothing was changed, or it was put back; nothing is left to be watched.
        let _ = uplink::revert(dir).await;
        return Err(error);
    }
    terminal::line(&format!(
        "{} is under {} now. If this server can still be reached, say so within {} s:\n\n    gond admin uplink \
         confirm\n\nfrom a connection that you open now. Otherwise everything is put back.",
        prepared.device, prepared.bridge, args.seconds
    ));
    Ok(())
}

/// Starts the guard as a process that does not end with us: a unit of its own where systemd runs the machine (a session
/// may be ended with everything in it), else a process without a parent.
async fn start_guard(dir: &Path, seconds: u64) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let dir_text = dir.display().to_string();
    let seconds = seconds.to_string();
    let args = ["admin", "uplink", "--data-dir", &dir_text, "guard", "--seconds", &seconds];
    if units::systemd() {
        let unit = format!("--unit=gon-uplink-guard-{}", std::process::id());
        let cmd = Cmd::new("systemd-run")
            .args(["--quiet", "--collect", "--no-ask-password", &unit, "--"])
            .arg(program)
            .args(args);
        run_command(cmd).await?;
    } else {
        spawn_detached(Cmd::new(program).args(args), &dir.join("uplink.log"))?;
    }
    Ok(())
}
