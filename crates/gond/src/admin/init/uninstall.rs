//! `gond admin uninstall`: takes back what `gond admin init` or `gond join` did to this server.
//!
//! Guests end, their network goes, a network card that was moved goes back, PostgreSQL, RabbitMQ and etcd are as their
//! packages have them. Data stays unless it is asked to go: keys, guests' disks and the database are worth a thought.

use std::path::Path;

use anyhow::Context;
use clap::Args;
use gon_driver::uplink;

use super::{brokers, certificates, config, files, postgres, units};
use crate::admin::down;
use crate::admin::steps::{Done, step};
use crate::config::Config;
use crate::terminal;

/// `gond admin uninstall`
#[derive(Debug, Args)]
pub struct UninstallArgs {
    /// Ends this server's guests and takes it out of its site.
    #[arg(long)]
    yes: bool,
    /// Also removes the data: the database, keys, images, guests' disks.
    #[arg(long)]
    remove_data: bool,
}

/// Takes everything back. Can be repeated.
pub async fn run(config: &Config, args: &UninstallArgs) -> anyhow::Result<()> {
    if !args.yes {
        anyhow::bail!("this ends all guests of this server and takes it out of its site: say --yes");
    }
    let all: Vec<&str> = units::CERTIFICATES
        .iter()
        .chain(&units::CONTROL)
        .chain(&units::WORKER)
        // No agent starts it again any more.
        .chain(&["gcp-fence.service", "gcp-uplink.service"])
        .copied()
        .collect();
    step("services", async {
        units::disable(&all).await?;
        Ok(Done::Now)
    })
    .await?;
    if config.data_dir.exists() {
        down::down(config).await.context("guests and their network")?;
    }
    step("network card", async {
        match uplink::revert(&config.data_dir).await {
            Ok(back) => Ok(Done::Said(format!("{} is as it was", back.device))),
            Err(uplink::UplinkError::None) => Ok(Done::Already),
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    let control = certificates::signer().path().exists();
    if control {
        step("RabbitMQ and etcd", async {
            brokers::remove(args.remove_data).await?;
            Ok(Done::Now)
        })
        .await?;
        step("PostgreSQL", async {
            postgres::remove(&postgres::find().await?, args.remove_data).await?;
            Ok(Done::Now)
        })
        .await?;
    }
    step("configuration", async {
        files::remove(Path::new(config::FILE))?;
        for role in gon_types::Role::CONTROL {
            files::remove(&brokers::credential(*role))?;
        }
        Ok(Done::Now)
    })
    .await?;
    if args.remove_data {
        step("data", async {
            match std::fs::remove_dir_all(&config.data_dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(Done::Now),
            }
        })
        .await?;
    } else {
        terminal::line(&format!("The data is still in {}.", config.data_dir.display()));
    }
    Ok(())
}
