//! `gond join`: makes a server with the package installed a node of a site. `gond admin join-token` makes what it needs.
//!
//! Promises that it can be repeated: a server that was let in is not let in again, but what was left undone is done.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use gon_agent::join::{Joined, join};
use gon_driver::doctor::Duties;
use gon_proto::SiteAnswer;
use gon_tls::{JoinToken, TlsDir};
use gon_types::Role;
use ipnet::Ipv4Net;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use super::init::worker::{self, Wishes};
use super::init::{examination, files};
use super::steps::{Done, database, step};
use crate::config::Config;
use crate::node::{from_hostname, write_private};
use crate::terminal;

/// What is remembered of having been let in, below the data directory.
const FILE: &str = "joined.json";

/// `gond join`
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// What 'gond admin init' or 'gond admin join-token' printed on the first server.
    #[arg(value_name = "TOKEN")]
    token: String,
    /// Its name in the site [default: the host name].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Its availability zone; the region is it without its last letter.
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// The address by which other nodes reach it [default: the one from which it reaches the first server].
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,
    /// What placement may ask for; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// Public addresses of the site [default: what 'gond admin init' was given].
    #[arg(long, value_name = "CIDR")]
    public_pool: Option<Ipv4Net>,
    /// How the world reaches them: onlink[:DEVICE], routed or host [default: onlink, if the site has some].
    #[arg(long, value_name = "HOW")]
    external: Option<String>,
    /// MTU offered to guests [default: what the network carries less the tunnels' headers].
    #[arg(long)]
    mtu: Option<u16>,
    /// Goes on whatever the doctor finds.
    #[arg(long)]
    force: bool,
}

/// `gond admin join-token`
#[derive(Debug, Args)]
pub struct JoinTokenArgs {
    /// The only name it lets in, which may then replace a server of that name.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How long it is good.
    #[arg(long, default_value_t = 24, value_name = "HOURS")]
    hours: u32,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it reads KEY=VALUE".to_owned()),
    }
}

/// What is remembered of having been let in.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    authority: String,
    name: String,
    site: SiteAnswer,
}

/// Joins the site of a token, and becomes a node.
pub async fn run(config: &Config, args: &JoinArgs) -> anyhow::Result<()> {
    let token: JoinToken = args.token.trim().parse().context("the token")?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => from_hostname(&gon_driver::host::facts()?.hostname),
    };
    terminal::line(&format!("Gon Cloud Platform: '{name}' becomes a node of the site at {}.", token.server));
    let first = host_of(&token.server);
    let duties = Duties { control: false, worker: true };
    step("examination", examination(duties, &[first.to_owned()], args.force)).await?;

    // The data directory is passed through by services that are not root on a server that is both.
    files::directory(&config.data_dir, files::Owner { user: "root", mode: 0o711 })?;
    let kept = config.data_dir.join(FILE);
    let mut joined = None;
    step("admission", async {
        if let Some(before) = before(&kept, &token, &name) {
            joined = Some(before);
            return Ok(Done::Already);
        }
        let made = join(&token, &name, Role::WORKER, &TlsDir::new(&config.data_dir.join("tls"))).await?;
        let remember =
            Kept { authority: token.ca_sha256.clone(), name: made.name.clone(), site: made.site.clone() };
        write_private(&kept, &serde_json::to_vec_pretty(&remember)?)?;
        joined = Some(made);
        Ok(Done::Now)
    })
    .await?;
    let Some(mut joined) = joined else { bail!("not admitted") };
    // A site that does not say where its controllers are is where the token points.
    if joined.site.control_servers.is_empty() {
        joined.site.control_servers.push(first.to_owned());
    }
    let wishes = Wishes {
        zone: args.zone.clone(),
        address: args.address,
        labels: args.label.clone(),
        mtu: args.mtu,
        public_pool: args.public_pool,
        external: args.external.clone(),
    };
    worker::set_up(&joined, &wishes).await
}

/// What an earlier run was told, if it was of the same site and for the same name.
fn before(kept: &Path, token: &JoinToken, name: &str) -> Option<Joined> {
    let kept: Kept = serde_json::from_slice(&std::fs::read(kept).ok()?).ok()?;
    (kept.authority == token.ca_sha256 && kept.name == name).then(|| Joined {
        name: kept.name,
        roles: Role::WORKER.to_vec(),
        site: kept.site,
    })
}

/// The host of `HOST:PORT`.
fn host_of(server: &str) -> &str {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Makes a token for another server.
pub async fn make_token(config: &Config, args: &JoinTokenArgs) -> anyhow::Result<()> {
    let url =
        config.database.url.as_ref().context("there is no database.url: this is not the first server")?;
    let store = database(url.expose_secret()).await?;
    let terms = gon_control::join::TokenTerms {
        roles: Role::WORKER,
        name: args.name.as_deref(),
        lifetime: Duration::from_secs(u64::from(args.hours.clamp(1, 720)) * 3600),
        created_by: "gond admin join-token",
    };
    let host = config.control.servers.first().context("control.servers is empty")?;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let port = config.roles.instance_manager.port();
    let dir = TlsDir::new(&config.tls_dir());
    let token = gon_control::join::create_token(&store, &dir, &format!("{host}:{port}"), &terms).await?;
    terminal::line(&token.to_text());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_with_and_without_brackets() {
        assert_eq!(host_of("10.0.0.1:8082"), "10.0.0.1");
        assert_eq!(host_of("[fd00::1]:8082"), "fd00::1");
        assert_eq!(host_of("control"), "control");
    }

    #[test]
    fn who_was_let_in_is_not_let_in_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let token = |ca: &str| JoinToken {
            server: "10.0.0.1:8082".to_owned(),
            ca_sha256: ca.to_owned(),
            secret: "x".to_owned(),
        };
        assert_eq!(before(&path, &token("a"), "w1"), None);
        let kept = Kept { authority: "a".to_owned(), name: "w1".to_owned(), site: SiteAnswer::default() };
        write_private(&path, &serde_json::to_vec(&kept).unwrap()).unwrap();
        assert!(before(&path, &token("a"), "w1").is_some());
        assert_eq!(before(&path, &token("b"), "w1"), None);
        assert_eq!(before(&path, &token("a"), "w2"), None);
    }

    #[test]
    fn labels_have_a_key() {
        assert_eq!(label("rack=7=8").unwrap(), ("rack".to_owned(), "7=8".to_owned()));
        assert!(label("=7").is_err() && label("rack").is_err());
    }
}
