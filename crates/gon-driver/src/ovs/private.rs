//! An Open vSwitch of our own: `ovsdb-server` and `ovs-vswitchd` below the data directory, on unix sockets only.
//!
//! Assumes the package `openvswitch-switch` and privilege. Promises that both outlive us and are adopted later (known
//! by who listens on their sockets, asked of the kernel, and not by a number in a file), that a switch that was
//! restarted waits for its flows, and that [`Private::stop`] leaves no process and no device.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::rpc::Rpc;
use super::{OvsError, socket_dir};
use crate::run::{Cmd, Pid, run, spawn_detached};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const READY: Duration = Duration::from_secs(15);
/// How often it is looked whether the switch is dying: nothing tells, before it has given its ports back.
const LOOK: Duration = Duration::from_millis(100);
/// How long a dead switch is waited for that gives its ports back.
const LET_GO: Duration = Duration::from_secs(20);
/// The longest name of a socket in the run directory.
const LONGEST: &str = "ovs-vswitchd.ctl.4194304";

/// A pair of servers below a directory.
#[derive(Debug, Clone)]
pub(super) struct Private {
    dir: PathBuf,
    run_dir: PathBuf,
    /// Held while servers are looked at and started, so that two tasks never start the same one.
    turn: Arc<Mutex<()>>,
    /// The switch that was last seen to run.
    seen: Arc<std::sync::Mutex<Option<Pid>>>,
}

impl Private {
    pub(super) fn at(dir: &Path) -> Self {
        let run_dir = socket_dir(dir, LONGEST, "ovs");
        Self { dir: dir.to_owned(), run_dir, turn: Arc::default(), seen: Arc::default() }
    }
    pub(super) fn run_dir(&self) -> &Path {
        &self.run_dir
    }
    pub(super) fn database(&self) -> PathBuf {
        self.run_dir.join("db.sock")
    }
    pub(super) fn control(&self) -> PathBuf {
        self.run_dir.join("ovs-vswitchd.ctl")
    }
    fn database_control(&self) -> PathBuf {
        self.run_dir.join("ovsdb-server.ctl")
    }

    /// The processes that run, database first.
    pub(super) async fn running(&self) -> (Option<Pid>, Option<Pid>) {
        (
            listener(&self.database_control(), "ovsdb-server").await,
            listener(&self.control(), "ovs-vswitchd").await,
        )
    }

    /// Starts whichever of the two does not run. True if the switch had to be started.
    pub(super) async fn ensure(&self) -> Result<bool, OvsError> {
        for dir in [&self.dir, &self.run_dir] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(|source| OvsError::Io { path: dir.clone(), source })?;
        }
        let _turn = self.turn.lock().await;
        let _alone = self.alone().await?;
        let (database, switch) = self.running().await;
        if database.is_none() {
            self.start_database().await?;
        }
        let switch = switch.filter(|switch| !switch.is_leaving());
        let started = switch.is_none();
        let seen = match switch {
            Some(switch) => switch,
            None => {
                let dead = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(dead) = dead {
                    let_go(&dead).await;
                }
                self.start_switch().await?
            }
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        Ok(started)
    }

    /// Waits until no other process is looking and starting; until the value is dropped none can. A process that dies
    /// lets go.
    async fn alone(&self) -> Result<std::fs::File, OvsError> {
        let path = self.dir.join("lock");
        let take = {
            let path = path.clone();
            move || {
                let file = std::fs::File::create(path)?;
                file.lock()?;
                Ok(file)
            }
        };
        let taken = tokio::task::spawn_blocking(take).await.unwrap_or_else(|panic| Err(panic.into()));
        taken.map_err(|source| OvsError::Io { path, source })
    }

    /// Starts whatever dies, at once, until the task is aborted. Needed beside whoever uses the pair, who may be waiting for
    /// it: without its database ovs-vswitchd does nothing at all, not even carry packets in userspace.
    pub(super) fn keep(&self) -> JoinHandle<()> {
        let pair = self.clone();
        tokio::spawn(async move {
            loop {
                if let Err(error) = pair.ensure().await {
                    tracing::error!(%error, "Open vSwitch does not run");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
                let (database, switch) = pair.running().await;
                let gone = async |pid: Option<Pid>| {
                    if let Some(pid) = pid {
                        while !pid.wait_gone(Duration::from_secs(3600)).await {}
                    }
                };
                let leaves = async |pid: Option<Pid>| {
                    while pid.is_none_or(|pid| !pid.is_leaving()) {
                        tokio::time::sleep(LOOK).await;
                    }
                };
                tokio::select! {
                    () = gone(database) => tracing::warn!("the switch's database died"),
                    () = gone(switch) => tracing::warn!("the switch died"),
                    () = leaves(switch) => tracing::warn!("the switch is dying"),
                }
                // One that dies at once must not be started in a frenzy.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    }

    async fn start_database(&self) -> Result<(), OvsError> {
        let file = self.dir.join("conf.db");
        if !file.exists() {
            self.make_database(&file).await?;
        }
        if let Err(error) = self.try_database(&file).await {
            if run(Cmd::new("ovsdb-tool").arg("db-version").arg(&file)).await.is_ok() {
                return Err(error);
            }
            // What it says comes from the ledger anyway; a file that cannot be read is worth nothing.
            tracing::warn!(file = %file.display(), "the switch's database cannot be opened; making a new one");
            std::fs::rename(&file, self.dir.join("conf.db.bad"))
                .map_err(|source| OvsError::Io { path: file.clone(), source })?;
            self.make_database(&file).await?;
            self.try_database(&file).await?;
        }
        Ok(())
    }

    async fn make_database(&self, file: &Path) -> Result<(), OvsError> {
        let beside = self.dir.join("conf.db.new");
        let _ = std::fs::remove_file(&beside);
        run(Cmd::new("ovsdb-tool").arg("create").arg(&beside).arg(SCHEMA)).await?;
        std::fs::rename(&beside, file).map_err(|source| OvsError::Io { path: file.to_owned(), source })
    }

    async fn try_database(&self, file: &Path) -> Result<(), OvsError> {
        let cmd = Cmd::new("ovsdb-server")
            .arg(file)
            .arg(join("--remote=punix:", &self.database()))
            .arg(join("--unixctl=", &self.database_control()))
            .args(["-vsyslog:off", "-vconsole:info"]);
        let log = self.dir.join("ovsdb-server.log");
        let pid = spawn_detached(self.environment(cmd), &log)?;
        self.wait_for(&pid, &self.database(), &log).await?;
        // By this one it is known later.
        self.wait_for(&pid, &self.database_control(), &log).await
    }

    async fn start_switch(&self) -> Result<Pid, OvsError> {
        let cmd = Cmd::new("ovs-vswitchd")
            .arg(join("unix:", &self.database()))
            .arg(join("--unixctl=", &self.control()))
            .args(["-vsyslog:off", "-vconsole:info"]);
        let log = self.dir.join("ovs-vswitchd.log");
        let pid = spawn_detached(self.environment(cmd), &log)?;
        self.wait_for(&pid, &self.control(), &log).await?;
        Ok(pid)
    }

    fn environment(&self, cmd: Cmd) -> Cmd {
        let cmd = cmd.env("OVS_RUNDIR", &self.run_dir).env("OVS_DBDIR", &self.dir);
        cmd.env("OVS_LOGDIR", &self.dir).env("OVS_SYSCONFDIR", &self.dir).cwd("/").umask(0o077)
    }

    async fn wait_for(&self, pid: &Pid, socket: &Path, log: &Path) -> Result<(), OvsError> {
        let until = Instant::now() + READY;
        loop {
            if peer(socket).await == Some(pid.pid) {
                return Ok(());
            }
            if !pid.is_alive() || Instant::now() > until {
                let _ = pid.kill().await;
                let text = std::fs::read_to_string(log).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(5).collect();
                return Err(OvsError::NotReady { log: log.to_owned(), tail: tail.join(" | ") });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends both and waits until they are gone: the switch with everything it made in the kernel.
    pub(super) async fn stop(&self) -> Result<(), OvsError> {
        let (database, switch) = self.running().await;
        for (pid, socket, args) in
            [(switch, self.control(), json!(["--cleanup"])), (database, self.database_control(), json!([]))]
        {
            let Some(pid) = pid else { continue };
            let _ = Rpc::new(&socket).call("exit", args, Duration::from_secs(10)).await;
            if !pid.wait_gone(Duration::from_secs(10)).await
                && !pid
                    .kill()
                    .await
                    .map_err(|source| OvsError::Io { path: format!("/proc/{}", pid.pid).into(), source })?
            {
                return Err(OvsError::Stuck(pid.pid));
            }
        }
        if self.run_dir != self.dir {
            let _ = std::fs::remove_dir_all(&self.run_dir);
        }
        Ok(())
    }
}

/// Waits until a dead process has given back what it had open.
///
/// In userspace a port is a packet socket, and the kernel closes one after the other, each with a grace period of RCU: fourteen
/// seconds for a thousand. That long the dead switch keeps the devices it made, and, in the database, the lock without which
/// the next one does nothing. With expedited grace periods it takes a fraction of a second.
async fn let_go(dead: &Pid) {
    if !dead.is_leaving() {
        return;
    }
    let _expedited = Expedited::begin();
    let until = Instant::now() + LET_GO;
    while dead.is_leaving() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// While this lives, the kernel's grace periods are expedited; then it is again as it was.
struct Expedited(Option<Vec<u8>>);

impl Expedited {
    const SWITCH: &str = "/sys/kernel/rcu_expedited";

    fn begin() -> Self {
        // Where it may not be written, it takes longer.
        let before = std::fs::read(Self::SWITCH).ok();
        Self(before.filter(|before| before.starts_with(b"0") && std::fs::write(Self::SWITCH, "1").is_ok()))
    }
}

impl Drop for Expedited {
    fn drop(&mut self) {
        if let Some(before) = &self.0
            && let Err(error) = std::fs::write(Self::SWITCH, before)
        {
            tracing::warn!(%error, "{} stays at 1", Self::SWITCH);
        }
    }
}

fn join(prefix: &str, path: &Path) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(prefix);
    text.push(path);
    text
}

/// Who listens on a socket, provided that it runs this program.
async fn listener(socket: &Path, program: &str) -> Option<Pid> {
    let pid = Pid::of(peer(socket).await?)?;
    // A program that was replaced by an upgrade shows as "… (deleted)".
    pid.exe()?.file_name()?.to_str()?.starts_with(program).then_some(pid)
}

/// The number of the process that listens on a socket.
async fn peer(socket: &Path) -> Option<i32> {
    let connect = tokio::net::UnixStream::connect(socket);
    let stream = tokio::time::timeout(Duration::from_secs(2), connect).await.ok()?.ok()?;
    stream.peer_cred().ok()?.pid()
}

/// The pid of the machine's own switch, if it runs in our network namespace.
pub(super) fn machine_switch(run_dir: &Path) -> io::Result<Option<Pid>> {
    let number = match std::fs::read_to_string(run_dir.join("ovs-vswitchd.pid")) {
        Ok(text) => text.trim().parse().ok(),
        Err(_) => None,
    };
    let Some(pid) = number.and_then(Pid::of) else { return Ok(None) };
    let ours = std::fs::read_link("/proc/thread-self/ns/net")?;
    let theirs = std::fs::read_link(format!("/proc/{}/ns/net", pid.pid))?;
    Ok((ours == theirs && pid.is_alive()).then_some(pid))
}
