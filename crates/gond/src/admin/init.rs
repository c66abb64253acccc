//! `gond admin init`: makes a server with the package installed the first server of a site. `gond admin uninstall` takes
//! it back.
//!
//! Installs no package. Promises that it can be repeated at any time, after whatever ended it: each step looks first,
//! keeps passwords, keys and whatever an operator has changed, and says what it did.

pub mod brokers;
pub mod certificates;
pub mod config;
pub mod files;
pub mod postgres;
pub mod uninstall;
pub mod units;
pub mod worker;

use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use gon_driver::doctor::{Duties, Program, Severity};
use gon_store::Store;
use gon_types::Role;
use ipnet::Ipv4Net;
use serde_json::json;

use super::doctor;
use super::steps::{Done, database, step};
use crate::api::generate_password;
use crate::node::write_private;
use crate::terminal;
use config::Site;

/// How long a service may take to be ready: under emulation, its start alone takes seconds.
const READY: Duration = Duration::from_secs(180);

/// `gond admin init`
#[derive(Debug, Args)]
pub struct InitArgs {
    /// How the other servers reach this one [default: its address toward the default route].
    #[arg(long, value_name = "HOST")]
    address: Option<String>,
    /// Its name in the site [default: the host name].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Makes it a node, too: guests run here as well.
    #[arg(long)]
    node: bool,
    /// Its availability zone, if it is a node.
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Public addresses of the site: a block on the link between its servers, or one that is routed to them.
    #[arg(long, value_name = "CIDR")]
    public_pool: Option<Ipv4Net>,
    /// If it is a node: how the world reaches them: onlink[:DEVICE], routed or host [default: onlink, if there are some].
    #[arg(long, value_name = "HOW", requires = "node")]
    external: Option<String>,
    /// MTU offered to guests [default: what the network carries less the tunnels' headers].
    #[arg(long)]
    mtu: Option<u16>,
    /// Name of the administrator.
    #[arg(long, default_value = "admin", value_name = "NAME")]
    admin: String,
    /// Goes on whatever the doctor finds.
    #[arg(long)]
    force: bool,
}

/// Makes this server the first one.
pub async fn run(args: &InitArgs) -> anyhow::Result<()> {
    let begin = Instant::now();
    let (address, name) = identity(args)?;
    terminal::line(&format!("Gon Cloud Platform: '{name}' ({address}) becomes the first server of a site."));
    let duties = Duties { control: true, worker: args.node };
    step("examination", examination(duties, &[], args.force)).await?;
    step("accounts", accounts()).await?;

    step("PostgreSQL's service", async {
        units::start("postgresql.service").await?;
        Ok(Done::Now)
    })
    .await?;
    let cluster = postgres::find().await?;
    step("PostgreSQL", postgres::set_up(&cluster)).await?;
    let store = database(&cluster.url()).await?;
    step("database schema", async {
        store.migrate().await?;
        Ok(Done::Now)
    })
    .await?;

    step("authority", async { certificates::authority() }).await?;
    let hosts = hosts(&address);
    let mut roles = Role::CONTROL.to_vec();
    roles.extend([Role::Bus, Role::Cluster]);
    if args.node {
        roles.extend(Role::WORKER);
    }
    // Whether there is anything that running services do not know yet.
    let mut changed = false;
    step("certificates", async {
        let any = certificates::issue(&store, &name, &hosts, &roles).await?;
        changed |= any;
        Ok(if any { Done::Said(format!("{} of them", roles.len())) } else { Done::Already })
    })
    .await?;
    step("RabbitMQ", async {
        let done = brokers::rabbitmq(&address).await?;
        changed |= done != Done::Already;
        Ok(done)
    })
    .await?;
    step("etcd", brokers::etcd(&address)).await?;

    let node = if args.node { Some(own_address(&address)?) } else { None };
    let toward = own_address(&address)?;
    let mtu = match args.mtu {
        Some(mtu) => Some(mtu),
        None => worker::guest_mtu(toward).await,
    };
    let site = Site {
        name: name.clone(),
        zone: args.zone.clone(),
        database: Some(cluster.url()),
        cluster: vec![brokers::etcd_url(&address)],
        control: vec![address.clone()],
        authority: Some(certificates::signer().path().display().to_string()),
        node,
        labels: vec![],
        public_pool: args.public_pool,
        external: match node {
            Some(own) => worker::external(args.external.as_deref(), args.public_pool, own).await?,
            None => None,
        },
        mtu,
    };
    step("configuration", async {
        let done = config::write(&site)?;
        changed |= done == Done::Now;
        Ok(done)
    })
    .await?;
    if args.node {
        worker::prepare_node().await?;
    }
    let password = administrator(&store, &args.admin).await?;

    step("services", async {
        units::reload().await?;
        let mut all = [&units::CONTROL[..], &units::CERTIFICATES].concat();
        if args.node {
            all.extend(units::WORKER);
        }
        if changed {
            units::restart_all(&all).await?;
        } else {
            units::start_all(&all).await?;
        }
        ready(8080).await?;
        Ok(if changed { Done::Now } else { Done::Said("they run".to_owned()) })
    })
    .await?;
    let token = join_token(&store, &address).await?;
    summary(&address, &args.admin, password.as_deref(), &token);
    terminal::line(&format!("Done in {:.0} s.", begin.elapsed().as_secs_f64()));
    Ok(())
}

/// The address and the name of this server.
fn identity(args: &InitArgs) -> anyhow::Result<(String, String)> {
    let address = match &args.address {
        Some(address) => address.clone(),
        // Any address that is not ours: the kernel says from which of ours it would send.
        None => worker::local_address("192.0.2.1")
            .context("this server has no route to anywhere: say how others reach it (--address)")?
            .to_string(),
    };
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
    if address.is_empty() || !address.chars().all(good) {
        bail!("--address: '{}' is neither a host name nor an address", address.escape_debug());
    }
    let name = match &args.name {
        Some(name) => name.clone(),
        None => crate::node::from_hostname(&gon_driver::host::facts()?.hostname),
    };
    if !crate::config::is_node_name(&name) {
        bail!("--name: must be 1 to 50 of a-z, 0-9, '.' and '-', beginning with a letter or digit");
    }
    Ok((address, name))
}

/// This server's own address behind the name that others use.
fn own_address(address: &str) -> anyhow::Result<IpAddr> {
    let found = (address, 0).to_socket_addrs().with_context(|| format!("'{address}' does not resolve"))?;
    let found: Vec<IpAddr> = found.map(|a| a.ip()).collect();
    found.iter().find(|a| a.is_ipv4() && !a.is_loopback()).or(found.first()).copied().context("no address")
}

/// Everything by which this server may be called: its certificates name it all.
fn hosts(address: &str) -> Vec<String> {
    let mut all = vec![address.to_owned()];
    if let Ok(facts) = gon_driver::host::facts() {
        all.push(facts.hostname);
    }
    all.extend(own_address(address).ok().map(|a| a.to_string()));
    all.extend(["localhost", "127.0.0.1"].map(str::to_owned));
    all.retain(|h| !h.is_empty());
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|h| seen.insert(h.clone()));
    all
}

/// Looks at the server first: says what is to be mended, and refuses to build on what does not hold.
pub async fn examination(duties: Duties, servers: &[String], force: bool) -> anyhow::Result<Done> {
    let findings = gon_driver::doctor::examine(&doctor::question(duties, servers)).await;
    let bad: Vec<_> = findings.iter().filter(|f| f.severity >= Severity::Warning).collect();
    // Over the step's own line, which comes again with what became of it.
    let clear = if std::io::IsTerminal::is_terminal(&std::io::stdout()) { "\r\x1b[K" } else { "" };
    for finding in &bad {
        terminal::line(&format!("{clear}    {}: {}", finding.severity.as_str(), finding.what));
        for command in &finding.mend {
            terminal::line(&format!("        {command}"));
        }
    }
    let missing: Vec<&str> = missing(duties);
    if !missing.is_empty() {
        bail!("packages are missing: apt-get install --no-install-recommends {}", missing.join(" "));
    }
    let errors = bad.iter().filter(|f| f.severity == Severity::Error).count();
    if errors > 0 && !force {
        bail!("{errors} of these have to be mended first (--force goes on all the same)");
    }
    Ok(match bad.len() {
        0 => Done::Said("nothing is wrong".to_owned()),
        n => Done::Said(format!("{n} to look at, above")),
    })
}

/// Packages that such a server needs and that are not there, as apt names them.
fn missing(duties: Duties) -> Vec<&'static str> {
    let all = [
        (Program::Postgres, "/usr/bin/psql"),
        (Program::RabbitMq, "/usr/sbin/rabbitmqctl"),
        (Program::Etcd, "/usr/bin/etcd"),
        (Program::OpenVSwitch, "/usr/bin/ovs-vsctl"),
        (Program::Qemu, "/usr/bin/qemu-system-x86_64"),
        (Program::Nftables, "/usr/sbin/nft"),
    ];
    all.iter()
        .filter(|(p, file)| p.needed(duties) && !Path::new(file).exists())
        .map(|(p, _)| p.package())
        .collect()
}

/// The accounts of the services, which the package makes as well.
async fn accounts() -> anyhow::Result<Done> {
    use gon_driver::run::{Cmd, RunAs, run};
    let all = [Role::ApiServer, Role::NetworkController, Role::InstanceManager].map(certificates::account);
    if all.iter().all(|user| RunAs::named(user).is_ok()) {
        return Ok(Done::Already);
    }
    run(Cmd::new("systemd-sysusers").arg("/usr/lib/sysusers.d/gon.conf"))
        .await
        .context("systemd-sysusers")?;
    Ok(Done::Now)
}

/// Makes the administrator if there is none; the password if it was made now. It is also in a file of root's.
async fn administrator(store: &Store, user: &str) -> anyhow::Result<Option<String>> {
    let password = generate_password()?;
    let mut made = false;
    step("administrator", async {
        made = gon_control::service::ensure_admin(store, user, &password).await?;
        if made {
            let text = serde_json::to_vec_pretty(&json!({ "username": user, "password": password }))?;
            write_private(&PathBuf::from("/var/lib/gon/admin.json"), &text)?;
        }
        Ok(if made { Done::Now } else { Done::Already })
    })
    .await?;
    Ok(made.then_some(password))
}

/// Waits until a service of this server listens. What it answers, `gond doctor` and `/readyz` say.
async fn ready(port: u16) -> anyhow::Result<()> {
    if !units::systemd() {
        return Ok(());
    }
    let until = Instant::now() + READY;
    loop {
        match tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
            Ok(_) => return Ok(()),
            Err(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(200)).await,
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("nobody listens on port {port}: see 'journalctl -u gcp-api-server'")
                });
            }
        }
    }
}

/// What the first worker needs.
async fn join_token(store: &Store, address: &str) -> anyhow::Result<String> {
    let terms = gon_control::join::TokenTerms {
        roles: Role::WORKER,
        name: None,
        lifetime: Duration::from_secs(24 * 3600),
        created_by: "gond admin init",
    };
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let signer = certificates::signer();
    let token = gon_control::join::create_token(store, &signer, &format!("{host}:8082"), &terms).await?;
    Ok(token.to_text())
}

fn summary(address: &str, user: &str, password: Option<&str>, token: &str) {
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    terminal::line("");
    terminal::line(&format!("  Console   https://{host}:8080/"));
    match password {
        Some(password) => {
            terminal::line(&format!("  Login     {user} / {password}            (/var/lib/gon/admin.json)"));
        }
        None => {
            terminal::line(&format!("  Login     {user}                        (/var/lib/gon/admin.json)"))
        }
    }
    terminal::line("  Trust     /var/lib/gon/ca.crt is the site's authority, for browsers and clients");
    terminal::line("");
    terminal::line("  On each worker, with the package installed, within a day, once:");
    terminal::line("");
    terminal::line(&format!("    gond join {token}"));
    terminal::line("");
    terminal::line("  'gond admin join-token' makes another one.");
}

/// What the certificates' timer does.
pub async fn renew(config: &crate::config::Config) -> anyhow::Result<()> {
    let store = crate::control::connect(config, 2).await?;
    let name = config.node.name.clone().context("node.name is not set")?;
    let address = config.control.servers.first().context("control.servers is empty")?;
    if certificates::renew(&store, &name, &hosts(address)).await? {
        terminal::line("RabbitMQ and etcd have new certificates.");
    }
    Ok(())
}
