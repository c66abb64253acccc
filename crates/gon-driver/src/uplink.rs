//! Moves a network card of the host under Open vSwitch, and back.
//!
//! Whoever does this sits behind that very card: a mistake locks them out. Assumes root, iproute2 and `ovs-vsctl`.
//! Promises:
//!
//! - what is to be restored is on the disk (fsync) before anything changes, and nothing changes unless a guard runs;
//! - the guard is a process of its own ([`guard`]): it puts everything back unless somebody who can still reach this
//!   server has confirmed in time ([`confirm`]), whatever has become of us, and it counts time that the machine slept;
//! - a step that fails is put back at once;
//! - a machine that was restarted finds its card as confirmed, or, unconfirmed, as it was ([`restore`]).
//!
//! Only addresses that somebody has configured are moved: one that came by DHCP is renewed on the card by whoever got
//! it there, so such a card is refused.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::netlink::is_device_name;
use crate::run::{Cmd, Pid, RunError, run};

/// Where a move is remembered, below the data directory.
const STATE: &str = "uplink.json";
/// Where the guard says that it watches.
const GUARD: &str = "uplink.guard";
/// Held by whoever decides what becomes of it.
const LOCK: &str = "uplink.lock";
/// How long Open vSwitch may take to follow its database.
const SWITCH: Duration = Duration::from_secs(20);
/// How often the guard looks.
const LOOK: Duration = Duration::from_millis(100);

/// Why a card was not moved. It is where it was.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// Not the name of a device, or one that cannot be moved.
    #[error("{device}: {why}")]
    Device {
        /// Which.
        device: String,
        /// Why not.
        why: String,
    },
    /// One is moved already.
    #[error("{0} is under Open vSwitch already; see 'gond admin uplink revert'")]
    Already(String),
    /// None is moved.
    #[error("no card is under Open vSwitch")]
    None,
    /// The guard does not run.
    #[error("the guard that would put everything back does not run; nothing was changed")]
    Unguarded,
    /// The guard was faster.
    #[error("too late: everything was put back")]
    Late,
    /// A program failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The disk, or what is on it.
    #[error("{path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What `ip` said is not understood.
    #[error("what 'ip' says is not understood: {0}")]
    Answer(String),
}

/// A route through the card, as somebody has configured it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to; `None`: everywhere.
    pub destination: Option<IpNet>,
    /// Through whom; `None`: whoever is there is a neighbour.
    pub gateway: Option<IpAddr>,
    /// Its metric.
    pub metric: Option<u32>,
    /// The address that packets leave with.
    pub source: Option<IpAddr>,
    /// Whether the gateway is a neighbour whatever the addresses say.
    pub onlink: bool,
}

/// What was there, and what is to be there: all that is needed to go either way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// This move.
    pub id: Uuid,
    /// The card.
    pub device: String,
    /// The bridge, and the device of the same name by which the host is on it.
    pub bridge: String,
    /// Whether packets are switched in userspace.
    pub userspace: bool,
    /// Where Open vSwitch keeps its sockets.
    pub switch: PathBuf,
    /// The card's Ethernet address, which the bridge takes.
    pub mac: String,
    /// The card's MTU.
    pub mtu: u32,
    /// Addresses, with their prefixes.
    pub addresses: Vec<IpNet>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Whether somebody has confirmed.
    pub confirmed: bool,
}

/// What to move, and where.
#[derive(Debug, Clone)]
pub struct Request {
    /// The card.
    pub device: String,
    /// The bridge to make.
    pub bridge: String,
    /// Whether packets are to be switched in userspace.
    pub userspace: bool,
    /// Where Open vSwitch keeps its sockets.
    pub switch: PathBuf,
}

/// What became of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was confirmed.
    Kept,
    /// It was put back.
    Reverted,
}

/// Looks at the card and writes down what is there. Nothing is changed yet.
pub async fn prepare(dir: &Path, request: &Request) -> Result<Uplink, UplinkError> {
    if let Some(there) = load(dir)? {
        return Err(UplinkError::Already(there.device));
    }
    let wrong = |why: &str| UplinkError::Device { device: request.device.clone(), why: why.to_owned() };
    if !is_device_name(&request.device) || !is_device_name(&request.bridge) {
        return Err(wrong("not a device's name"));
    }
    if request.device == request.bridge {
        return Err(wrong("the bridge needs a name of its own"));
    }
    let card = ask(&["-json", "-details", "address", "show", "dev", &request.device]).await?;
    let mut uplink = read_card(&card).map_err(|why| match why {
        Some(why) => wrong(&why),
        None => UplinkError::Answer(card.to_string().chars().take(200).collect()),
    })?;
    for family in ["-4", "-6"] {
        let routes = ask(&[family, "-json", "route", "show", "dev", &request.device]).await?;
        uplink.routes.extend(read_routes(&routes));
    }
    uplink.device.clone_from(&request.device);
    uplink.bridge.clone_from(&request.bridge);
    uplink.userspace = request.userspace;
    uplink.switch.clone_from(&request.switch);
    // A switch that is not there is noticed before anything is to be put back.
    switch(&uplink, vec!["list-br".to_owned()]).await?;
    save(dir, &uplink)?;
    Ok(uplink)
}

/// Moves the card, provided that a guard watches. Whatever fails is put back at once.
pub async fn apply(dir: &Path, uplink: &Uplink) -> Result<(), UplinkError> {
    if !is_guarded(dir, uplink.id) {
        return Err(UplinkError::Unguarded);
    }
    let _turn = turn(dir).await?;
    // The guard may have lost patience while we waited for our turn.
    if load(dir)?.is_none_or(|now| now.id != uplink.id) {
        return Err(UplinkError::Late);
    }
    let moved = there(uplink).await;
    if moved.is_err() {
        back(uplink).await?;
        forget(dir)?;
    }
    moved
}

/// Waits until the guard of a move watches; false if it has not within `patience`.
pub async fn guarded(dir: &Path, id: Uuid, patience: Duration) -> bool {
    let until = tokio::time::Instant::now() + patience;
    while !is_guarded(dir, id) {
        if tokio::time::Instant::now() > until {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}

#[derive(Serialize, Deserialize)]
struct Watch {
    id: Uuid,
    process: Pid,
}

fn is_guarded(dir: &Path, id: Uuid) -> bool {
    let Ok(bytes) = std::fs::read(dir.join(GUARD)) else { return false };
    serde_json::from_slice::<Watch>(&bytes).is_ok_and(|w| w.id == id && w.process.is_alive())
}

/// The guard: puts everything back unless the move is confirmed within `patience`. To be run by a process that whoever
/// moves the card does not take with it.
pub async fn guard(dir: &Path, patience: Duration) -> Result<Outcome, UplinkError> {
    let uplink = load(dir)?.ok_or(UplinkError::None)?;
    let me = std::process::id().cast_signed();
    let process = Pid::of(me).ok_or(UplinkError::Unguarded)?;
    write(
        dir,
        GUARD,
        &serde_json::to_vec(&Watch { id: uplink.id, process }).map_err(|e| at(dir, e.into()))?,
    )?;
    let begin = boottime();
    loop {
        // Held until everything is back: nobody confirms in between.
        let turn = turn(dir).await?;
        match load(dir)? {
            Some(now) if now.id == uplink.id && now.confirmed => return Ok(Outcome::Kept),
            Some(now) if now.id == uplink.id => {}
            // It failed and was put back, or somebody has put it back by hand.
            _ => return Ok(Outcome::Reverted),
        }
        if boottime().saturating_sub(begin) >= patience {
            match back(&uplink).await {
                Ok(()) => {
                    forget(dir)?;
                    return Ok(Outcome::Reverted);
                }
                // Whoever waits for this server to come back has nobody but us.
                Err(error) => tracing::error!(%error, "it could not be put back; trying again"),
            }
        }
        drop(turn);
        tokio::time::sleep(LOOK).await;
    }
}

/// Says that this server can still be reached. Too late if the guard has put everything back.
pub async fn confirm(dir: &Path) -> Result<Uplink, UplinkError> {
    let _turn = turn(dir).await?;
    let mut uplink = load(dir)?.ok_or(UplinkError::Late)?;
    uplink.confirmed = true;
    save(dir, &uplink)?;
    Ok(uplink)
}

/// The right to decide what becomes of a move; waited for, and had until it is dropped.
async fn turn(dir: &Path) -> Result<std::fs::File, UplinkError> {
    let path = dir.join(LOCK);
    let take = {
        let path = path.clone();
        move || {
            let file = std::fs::File::create(path)?;
            file.lock()?;
            Ok(file)
        }
    };
    let taken = tokio::task::spawn_blocking(take).await.unwrap_or_else(|panic| Err(panic.into()));
    taken.map_err(|source| UplinkError::Io { path, source })
}

/// Puts everything back. Can be repeated.
pub async fn revert(dir: &Path) -> Result<Uplink, UplinkError> {
    let _turn = turn(dir).await?;
    let uplink = load(dir)?.ok_or(UplinkError::None)?;
    back(&uplink).await?;
    forget(dir)?;
    Ok(uplink)
}

/// After a restart of the machine: whoever configures its network has given the card its addresses again. Moves them if
/// the move was confirmed, puts everything back if not; `None` if no card was ever moved.
pub async fn restore(dir: &Path) -> Result<Option<Outcome>, UplinkError> {
    match load(dir)? {
        None => Ok(None),
        Some(uplink) if uplink.confirmed => there(&uplink).await.map(|()| Some(Outcome::Kept)),
        Some(_) => revert(dir).await.map(|_| Some(Outcome::Reverted)),
    }
}

/// The card that is moved, or being moved.
pub fn load(dir: &Path) -> Result<Option<Uplink>, UplinkError> {
    let path = dir.join(STATE);
    match std::fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|e| UplinkError::Io { path, source: e.into() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(UplinkError::Io { path, source }),
    }
}

fn save(dir: &Path, uplink: &Uplink) -> Result<(), UplinkError> {
    write(dir, STATE, &serde_json::to_vec_pretty(uplink).map_err(|e| at(dir, e.into()))?)
}

fn forget(dir: &Path) -> Result<(), UplinkError> {
    for name in [STATE, GUARD] {
        match std::fs::remove_file(dir.join(name)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(at(&dir.join(name), source));
            }
            _ => {}
        }
    }
    Ok(())
}

fn at(path: &Path, source: io::Error) -> UplinkError {
    UplinkError::Io { path: path.to_owned(), source }
}

/// Whole or not at all, also when the power fails. Two who write at once do not share their file beside.
fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), UplinkError> {
    let beside = dir.join(format!("{name}.{}", std::process::id()));
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, dir.join(name))?;
        std::fs::File::open(dir)?.sync_all()
    };
    write().map_err(|source| at(&dir.join(name), source))
}

/// Time since the machine started, including what it slept.
fn boottime() -> Duration {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split_ascii_whitespace().next().and_then(|s| s.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(0.0))
}

/// Moves the card under the bridge, and addresses and routes to the bridge's device.
async fn there(uplink: &Uplink) -> Result<(), UplinkError> {
    let Uplink { device, bridge, mac, mtu, .. } = uplink;
    // The bridge first, so that the gap is between the card's joining it and its addresses' moving only.
    let mut make = vec!["--may-exist".to_owned(), "add-br".to_owned(), bridge.clone()];
    make.extend(["--", "set", "bridge", bridge, "fail_mode=standalone"].map(str::to_owned));
    make.push("other_config:disable-in-band=true".to_owned());
    make.push(format!("other_config:hwaddr=\"{mac}\""));
    make.push(format!("external_ids:gon-uplink={}", uplink.id));
    if uplink.userspace {
        make.push("datapath_type=netdev".to_owned());
    }
    make.extend(["--", "set", "interface", bridge].map(str::to_owned));
    make.push(format!("mtu_request={mtu}"));
    switch(uplink, make).await?;
    let join = ["--may-exist", "add-port", bridge, device].map(str::to_owned);
    switch(uplink, join.to_vec()).await?;
    batch(&moves(uplink, device, bridge)).await
}

/// Takes the bridge away and gives the card what it had.
async fn back(uplink: &Uplink) -> Result<(), UplinkError> {
    let Uplink { device, bridge, .. } = uplink;
    // Addresses that are already back are no error; the bridge's own go with it.
    switch(uplink, ["--if-exists", "del-br", bridge].map(str::to_owned).to_vec()).await?;
    batch(&moves(uplink, bridge, device)).await
}

/// What `ip -batch` does to move everything from one device to the other; whatever is already so is no error.
fn moves(uplink: &Uplink, from: &str, to: &str) -> String {
    let mut lines = vec![format!("link set dev {to} up")];
    for address in &uplink.addresses {
        // A bridge that is gone has taken its addresses with it.
        if from != uplink.bridge {
            lines.push(format!("address delete {address} dev {from}"));
        }
        let broadcast = if address.addr().is_ipv4() { " broadcast +" } else { " nodad" };
        lines.push(format!("address replace {address}{broadcast} dev {to}"));
    }
    for route in &uplink.routes {
        let family = route.gateway.or(route.destination.map(|d| d.addr()));
        let mut line = match (route.destination, family) {
            (Some(destination), _) => format!("route replace {destination}"),
            (None, Some(IpAddr::V6(_))) => "-6 route replace default".to_owned(),
            (None, _) => "route replace default".to_owned(),
        };
        if let Some(gateway) = route.gateway {
            line.push_str(&format!(" via {gateway}"));
        }
        line.push_str(&format!(" dev {to}"));
        if let Some(metric) = route.metric {
            line.push_str(&format!(" metric {metric}"));
        }
        if let Some(source) = route.source {
            line.push_str(&format!(" src {source}"));
        }
        if route.onlink {
            line.push_str(" onlink");
        }
        lines.push(line);
    }
    lines.join("\n") + "\n"
}

/// Everything in one process, in order; one that fails (an address that is not there any more) does not keep the rest.
/// What must be so afterwards is looked at.
async fn batch(lines: &str) -> Result<(), UplinkError> {
    match run(Cmd::new("ip").args(["-force", "-batch", "-"]).stdin(lines)).await {
        Ok(_) => Ok(()),
        // Deleting what is gone is the one failure that is none.
        Err(RunError::Exit { stderr, .. })
            if stderr.lines().all(|l| {
                l.contains("Cannot assign requested address") || l.starts_with("Command failed")
            }) =>
        {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

async fn switch(uplink: &Uplink, args: Vec<String>) -> Result<(), UplinkError> {
    let socket = uplink.switch.join("db.sock");
    let cmd = Cmd::new("ovs-vsctl")
        .arg(format!("--db=unix:{}", socket.display()))
        .arg(format!("--timeout={}", SWITCH.as_secs()))
        .arg("--")
        .args(args)
        .deadline(SWITCH + Duration::from_secs(5));
    run(cmd).await?;
    Ok(())
}

async fn ask(args: &[&str]) -> Result<serde_json::Value, UplinkError> {
    let text = run(Cmd::new("ip").args(args)).await?.text();
    // Nothing at all is what it says where there is nothing.
    let text = if text.trim().is_empty() { "[]" } else { &text };
    serde_json::from_str(text).map_err(|_| UplinkError::Answer(text.chars().take(200).collect()))
}

/// A card, of `ip -json -details address show`; `Err(Some(why))` if it cannot be moved.
fn read_card(json: &serde_json::Value) -> Result<Uplink, Option<String>> {
    let card = json.get(0).ok_or(None)?;
    let text = |name: &str| card.get(name).and_then(|v| v.as_str());
    if let Some(master) = text("master") {
        return Err(Some(format!("it is part of {master} already")));
    }
    if text("link_type") != Some("ether") {
        return Err(Some("it is not an Ethernet device".to_owned()));
    }
    let kind = card.get("linkinfo").and_then(|i| i.get("info_kind")).and_then(|k| k.as_str());
    if matches!(kind, Some("bridge" | "openvswitch")) {
        return Err(Some("it is a bridge itself".to_owned()));
    }
    let mut addresses = vec![];
    for info in card.get("addr_info").and_then(|a| a.as_array()).ok_or(None)? {
        let field = |name: &str| info.get(name).and_then(|v| v.as_str());
        let dynamic = info.get("dynamic").and_then(serde_json::Value::as_bool).unwrap_or(false);
        if field("scope") != Some("global") || field("family") == Some("inet6") && dynamic {
            continue;
        }
        let local: IpAddr = field("local").and_then(|l| l.parse().ok()).ok_or(None)?;
        if dynamic {
            return Err(Some(format!(
                "its address {local} comes by DHCP, which would renew it on the card: configure it statically first"
            )));
        }
        let prefix = info.get("prefixlen").and_then(serde_json::Value::as_u64).ok_or(None)?;
        let prefix = u8::try_from(prefix).map_err(|_| None)?;
        addresses.push(IpNet::new(local, prefix).map_err(|_| None)?);
    }
    if addresses.is_empty() {
        return Err(Some("it has no address".to_owned()));
    }
    let mac: gon_types::MacAddr = text("address").and_then(|m| m.parse().ok()).ok_or(None)?;
    let mtu = card
        .get("mtu")
        .and_then(serde_json::Value::as_u64)
        .and_then(|m| u32::try_from(m).ok())
        .ok_or(None)?;
    Ok(Uplink {
        id: Uuid::now_v7(),
        device: String::new(),
        bridge: String::new(),
        userspace: false,
        switch: PathBuf::new(),
        mac: mac.to_string(),
        mtu,
        addresses,
        routes: vec![],
        confirmed: false,
    })
}

/// Routes that somebody has configured, of `ip -json route show`. The kernel makes its own again, and so do routers.
fn read_routes(json: &serde_json::Value) -> Vec<Route> {
    let read = |route: &serde_json::Value| {
        let text = |name: &str| route.get(name).and_then(|v| v.as_str());
        if matches!(text("protocol"), Some("kernel" | "ra" | "redirect")) {
            return None;
        }
        let destination = match text("dst")? {
            "default" => None,
            dst => Some(dst.parse::<IpNet>().or_else(|_| dst.parse::<IpAddr>().map(IpNet::from)).ok()?),
        };
        let flags = route.get("flags").and_then(|f| f.as_array());
        Some(Route {
            destination,
            gateway: text("gateway").and_then(|g| g.parse().ok()),
            metric: route
                .get("metric")
                .and_then(serde_json::Value::as_u64)
                .and_then(|m| u32::try_from(m).ok()),
            source: text("prefsrc").and_then(|s| s.parse().ok()),
            onlink: flags.is_some_and(|f| f.iter().any(|f| f == "onlink")),
        })
    };
    json.as_array().map(|all| all.iter().filter_map(read).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
