//! Open vSwitch: the machine's own, or a private pair below the data directory.
//!
//! Assumes the package `openvswitch-switch` and privilege. Promises connections that stay open (database, control,
//! OpenFlow) so that a change costs no process; a datapath type that was proved, not assumed; and that a switch that
//! died is started again when it is ours.
//!
//! **Restarts (rule R14).** Our own switch is always *armed*: its database says `flow-restore-wait`, which makes a
//! starting ovs-vswitchd leave the datapath alone until its flows are there. [`Ovs::release`] tells the running one
//! that they are, then arms the next start (a running switch reads the setting only until it was false once). The
//! machine's own switch is not armed, since others live on it.

mod openflow;
mod ovsdb;
mod private;
mod rpc;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest as _, Sha256};

pub use openflow::{OpenFlowError, Refused, Switch};
pub use ovsdb::{Ovsdb, PortKind, PortSpec, PortStatus};
pub use rpc::{Rpc, RpcError};

use crate::run::{Pid, RunError};

/// Where the machine's own Open vSwitch keeps its sockets.
const MACHINE_RUN_DIR: &str = "/var/run/openvswitch";
/// A socket path, its final zero included, has room for this many bytes (`sockaddr_un`).
const SUN_PATH: usize = 108;
/// How long a control command may take.
const CONTROL: Duration = Duration::from_secs(10);
/// How long the switch's cache may take to follow its tables. Above some 100 000 cached flows a round takes a second.
const CATCH_UP: Duration = Duration::from_secs(3);
/// A round is over after some milliseconds. If not, the switch is asked for another: one in forty was only told of, or only
/// begun, with the next timer of its own, half a second later.
const TOUCH_AGAIN: Duration = Duration::from_millis(20);
const RESTORE_WAIT: &str = "flow-restore-wait";
/// File in [`Config::dir`] that says that the machine's switch is used here.
const CHOSEN: &str = "machine-switch";

/// Which datapath carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Datapath {
    /// The kernel's.
    System,
    /// Open vSwitch's own, in userspace.
    Netdev,
}

impl Datapath {
    /// The word Open vSwitch has for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Netdev => "netdev",
        }
    }
    /// The datapath's own name, as control commands want it.
    const fn full_name(self) -> &'static str {
        match self {
            Self::System => "system@ovs-system",
            Self::Netdev => "netdev@ovs-netdev",
        }
    }
}

/// Why Open vSwitch could not be made to do something.
#[derive(Debug, thiserror::Error)]
pub enum OvsError {
    /// A socket failed, or the other side refused.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The machine's switch is there, or was used before, and does not answer. Another one beside it would take its devices.
    #[error("the machine's Open vSwitch does not answer: see 'systemctl status openvswitch-switch'")]
    MachineAway,
    /// The database refused.
    #[error("the switch's database: {0}")]
    Database(String),
    /// ovs-vswitchd does not follow its database.
    #[error("ovs-vswitchd has not followed its database within {0:?}")]
    Behind(Duration),
    /// A program could not be run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A server does not come up.
    #[error("Open vSwitch does not start ({log}): {tail}")]
    NotReady {
        /// Its log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// A process does not end.
    #[error("process {0} does not end")]
    Stuck(i32),
    /// A file or directory could not be handled.
    #[error("{path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Which Open vSwitch to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The machine's if it runs in this network namespace, else a private one. Chosen once: the switch that has our bridge
    /// stays the one until [`Ovs::forget_choice`], for two of them would fight for the same devices.
    Auto,
    /// A private one, whatever runs.
    Private,
}

/// What to use, and where.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where a private one keeps its files.
    pub dir: PathBuf,
    /// Which.
    pub choice: Choice,
    /// The datapath; `None`: the kernel's if it proves itself, else the userspace one.
    pub datapath: Option<Datapath>,
}

/// A running Open vSwitch.
#[derive(Debug)]
pub struct Ovs {
    private: Option<private::Private>,
    keeper: Option<Keeper>,
    run_dir: PathBuf,
    database: Ovsdb,
    control: Rpc,
    control_of: Option<Pid>,
    datapath: Datapath,
}

/// The task that starts again what dies; ends with its value.
#[derive(Debug)]
struct Keeper(tokio::task::JoinHandle<()>);
impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Ovs {
    /// Uses the machine's, or adopts or starts a private one; makes the bridge and nothing else.
    pub async fn connect_or_start(config: &Config, bridge: &str) -> Result<Self, OvsError> {
        let private = private::Private::at(&config.dir);
        let private_runs = private.running().await != (None, None);
        let (machine, found) = Self::of_machine().await?;
        let mut ovs = match (which(config.choice, private_runs, is_chosen(config), machine)?, found) {
            (Which::Machine, Some(ovs)) => {
                choose(config).map_err(|source| OvsError::Io { path: config.dir.clone(), source })?;
                ovs
            }
            (Which::Machine, None) => return Err(OvsError::MachineAway),
            (Which::Private, _) => {
                private.ensure().await?;
                let keeper = Keeper(private.keep());
                Self { keeper: Some(keeper), ..Self::of_pair(private) }
            }
        };
        ovs.database.initialize().await?;
        let here = ovs.database.bridge(bridge).await?;
        ovs.datapath = match (config.datapath, here) {
            (Some(wanted), _) => wanted,
            // A bridge that works is not moved to another datapath under its guests.
            (None, Some(Datapath::Netdev)) => Datapath::Netdev,
            (None, _) if ovs.kernel_datapath_works().await => Datapath::System,
            (None, _) => Datapath::Netdev,
        };
        ovs.database.ensure_bridge(bridge, ovs.datapath).await?;
        Ok(ovs)
    }

    /// The one that runs and has the bridge, or, if it is ours, runs at all; nothing is started. For tearing down.
    pub async fn find(config: &Config, bridge: &str) -> Result<Option<Self>, OvsError> {
        let private = private::Private::at(&config.dir);
        let private_runs = private.running().await != (None, None);
        let (machine, found) = Self::of_machine().await?;
        let mut ovs = match (which(config.choice, private_runs, is_chosen(config), machine)?, found) {
            (Which::Private, _) if private_runs => Self::of_pair(private),
            (Which::Machine, Some(ovs)) => ovs,
            _ => return Ok(None),
        };
        match ovs.database.bridge(bridge).await {
            Ok(Some(datapath)) => ovs.datapath = datapath,
            Ok(None) if ovs.private.is_none() => return Ok(None),
            // Half of a pair has no database to ask, but is to be ended all the same.
            Err(_) if ovs.private.is_some() => {}
            other => drop(other?),
        }
        Ok(Some(ovs))
    }

    /// Forgets that the machine's switch was chosen. For tearing down, when nothing of ours is in it any more.
    pub fn forget_choice(config: &Config) -> Result<(), OvsError> {
        match std::fs::remove_file(config.dir.join(CHOSEN)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(OvsError::Io { path: config.dir.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// The machine's own switch, if there is one in our network namespace.
    async fn of_machine() -> Result<(Machine, Option<Self>), OvsError> {
        let run_dir = PathBuf::from(MACHINE_RUN_DIR);
        let found = private::machine_switch(&run_dir);
        let Some(pid) = found.map_err(|source| OvsError::Io { path: run_dir.clone(), source })? else {
            return Ok((Machine::Absent, None));
        };
        let database = Ovsdb::new(&run_dir.join("db.sock"));
        if let Err(error) = database.ping().await {
            tracing::warn!(%error, "the machine's Open vSwitch does not answer");
            return Ok((Machine::Silent, None));
        }
        let ovs = Self {
            private: None,
            keeper: None,
            database,
            control: control_of(&run_dir, pid).await,
            control_of: Some(pid),
            run_dir,
            datapath: Datapath::Netdev,
        };
        Ok((Machine::There, Some(ovs)))
    }

    fn of_pair(private: private::Private) -> Self {
        Self {
            run_dir: private.run_dir().to_owned(),
            database: Ovsdb::new(&private.database()),
            control: Rpc::new(&private.control()),
            control_of: None,
            private: Some(private),
            keeper: None,
            datapath: Datapath::Netdev,
        }
    }

    /// Proves the kernel's datapath by making one and removing it again.
    async fn kernel_datapath_works(&self) -> bool {
        const PROBE: &str = "system@gon-probe";
        let made = self.order("dpctl/add-dp", json!([PROBE])).await;
        if let Err(error) = &made {
            tracing::info!(%error, "no kernel datapath; using the userspace one");
        }
        made.is_ok() && self.order("dpctl/del-dp", json!([PROBE])).await.is_ok()
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &Ovsdb {
        &self.database
    }
    /// The datapath in use.
    #[must_use]
    pub fn datapath(&self) -> Datapath {
        self.datapath
    }
    /// Whether it is ours alone.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.private.is_some()
    }
    /// The management socket of a bridge, for [`Switch::connect`].
    #[must_use]
    pub fn bridge_socket(&self, bridge: &str) -> PathBuf {
        self.run_dir.join(format!("{bridge}.mgmt"))
    }
    /// Where its sockets are, as `OVS_RUNDIR` for the tools.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// The process that carries the packets: another one is another conntrack (in userspace).
    pub async fn switch_process(&self) -> Option<Pid> {
        match &self.private {
            Some(private) => private.running().await.1,
            None => private::machine_switch(&self.run_dir).ok().flatten(),
        }
    }

    /// The processes that are ours: of the machine's switch none.
    pub async fn own_processes(&self) -> Vec<Pid> {
        match &self.private {
            Some(private) => {
                let (database, switch) = private.running().await;
                database.into_iter().chain(switch).collect()
            }
            None => vec![],
        }
    }

    /// Waits until what is ours runs again (it is being started by itself); finds again what is the machine's and was
    /// restarted.
    pub async fn heal(&mut self) -> Result<(), OvsError> {
        if let Some(private) = &self.private {
            return private.ensure().await.map(drop);
        }
        let now = machine(&self.run_dir).await;
        if let Some(pid) = now
            && now != self.control_of
        {
            self.control = control_of(&self.run_dir, pid).await;
            self.control_of = now;
        }
        Ok(())
    }

    /// Says that the flows are in: a switch that waits for them begins to work, and the next start will wait again.
    pub async fn release(&self) -> Result<(), OvsError> {
        if self.private.is_none() {
            return Ok(());
        }
        self.database.configure(&[(RESTORE_WAIT, Some("false"))]).await?;
        self.database.configure(&[(RESTORE_WAIT, Some("true"))]).await
    }

    /// Waits until no packet is carried by a decision that was made before now.
    ///
    /// A change that the switch has confirmed is in its *tables*. Packets go by decisions that it has cached in the datapath,
    /// which its revalidators compare with the tables some time later: a round over all of them, begun when the tables have
    /// changed, or else every half second. "revalidator/wait" returns at the end of a round, be it one that had begun
    /// before the change. So:
    ///
    /// 1. After the first wait the main thread has told the revalidators of the change (it does so in the turn after the one
    ///    that made it, before it answers).
    /// 2. After the second, no round goes on that had begun before that.
    /// 3. The third round has begun after that, and is over.
    ///
    /// `touch` sends a change of the tables that changes nothing ([`Switch::touch`]): it makes a round begin at once. The wait
    /// is asked for before, as the round may be over sooner than we are told of the touch. Where waiting is impossible (other datapaths
    /// beside ours, or rounds without end) everything that is cached is thrown away: every connection of the node then
    /// costs one slow packet.
    pub async fn catch_up<E: From<OvsError>, F: Future<Output = Result<(), E>>>(
        &self,
        touch: impl Fn() -> F,
    ) -> Result<(), E> {
        // Of its own: a control connection that waits answers nothing else.
        let revalidators = Rpc::new(self.control.path());
        let until = tokio::time::Instant::now() + CATCH_UP;
        for _ in 0..3 {
            let round = match revalidators.ask("revalidator/wait", json!([])).await {
                Ok(asked) => {
                    let mut answer = std::pin::pin!(asked.answer());
                    loop {
                        touch().await?;
                        let again = until.min(tokio::time::Instant::now() + TOUCH_AGAIN);
                        match tokio::time::timeout_at(again, &mut answer).await {
                            Ok(answer) => break answer,
                            Err(_) if again < until => {}
                            Err(_) => {
                                break Err(RpcError::Deadline(self.control.path().to_owned(), CATCH_UP));
                            }
                        }
                    }
                }
                Err(error) => Err(error),
            };
            if let Err(error) = round {
                tracing::warn!(%error, "the switch's cache cannot be waited for; emptying it");
                let purged = self.order("revalidator/purge", json!([])).await;
                return purged.map(drop).map_err(|error| OvsError::from(error).into());
            }
        }
        Ok(())
    }

    /// Forgets every connection of a conntrack zone.
    pub async fn flush_zone(&self, zone: u16) -> Result<(), OvsError> {
        // Without the datapath's name, for 3.1 cannot take it here for the userspace datapath; with it where there are
        // several datapaths (never so with a private switch).
        let zone = format!("zone={zone}");
        let flush = |args| self.order("dpctl/flush-conntrack", args);
        match flush(json!([zone])).await {
            Err(RpcError::Refused { error, .. }) if error.contains("multiple datapaths") => {
                flush(json!([self.datapath.full_name(), zone])).await?;
            }
            other => {
                other?;
            }
        }
        Ok(())
    }

    /// Limits how many connections any one zone may hold (rule R13), so that a guest fills its own table and nobody
    /// else's. A switch that was restarted has forgotten it.
    pub async fn limit_zones(&self, connections: u32) -> Result<(), OvsError> {
        let args = json!([self.datapath.full_name(), format!("default={connections}")]);
        self.order("dpctl/ct-set-limits", args).await?;
        Ok(())
    }

    /// How many connections a zone holds.
    pub async fn connections(&self, zone: u16) -> Result<usize, OvsError> {
        let text = self
            .control("dpctl/dump-conntrack", &[self.datapath.full_name(), &format!("zone={zone}")])
            .await?;
        Ok(text.lines().filter(|line| !line.is_empty()).count())
    }

    /// Sends the switch a control command. One that has just started has most of them only once it has seen its
    /// database: they are "not valid" until then, and asked for again.
    async fn order(&self, command: &str, args: serde_json::Value) -> Result<serde_json::Value, RpcError> {
        let until = tokio::time::Instant::now() + CONTROL;
        loop {
            match self.control.call(command, args.clone(), CONTROL).await {
                Err(RpcError::Refused { error, .. })
                    if error.contains("not a valid command") && tokio::time::Instant::now() < until =>
                {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                other => return other,
            }
        }
    }

    /// A control command, for diagnosis and tests.
    pub async fn control(&self, command: &str, args: &[&str]) -> Result<String, OvsError> {
        let answer = self.order(command, json!(args)).await?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// The version of Open vSwitch.
    pub async fn version(&self) -> Result<String, OvsError> {
        if let Some(version) = self.database.version().await? {
            return Ok(version);
        }
        let text = self.control("version", &[]).await?;
        Ok(text.split_whitespace().last().unwrap_or("unknown").to_owned())
    }

    /// Takes everything away: the bridge of the machine's, or the private pair with all it made.
    pub async fn tear_down(mut self, bridge: &str) -> Result<(), OvsError> {
        if let Some(mut keeper) = self.keeper.take() {
            keeper.0.abort();
            let _ = (&mut keeper.0).await;
        }
        match &self.private {
            Some(private) => {
                // Deleting the bridge first lets the switch remove its devices in order.
                if let Err(error) = self.database.delete_bridge(bridge).await {
                    tracing::warn!(%error, "the bridge could not be removed; ending the switch all the same");
                }
                private.stop().await
            }
            None => self.database.delete_bridge(bridge).await,
        }
    }
}

/// The control socket of the machine's switch. It says who it is before it listens there: waits for that for as long as it
/// lives, though no longer than for a command.
async fn control_of(run_dir: &Path, switch: Pid) -> Rpc {
    let control = Rpc::new(&run_dir.join(format!("ovs-vswitchd.{}.ctl", switch.pid)));
    let until = tokio::time::Instant::now() + CONTROL;
    while let Err(RpcError::Connect { .. }) = control.call("version", json!([]), CONTROL).await
        && switch.is_alive()
        && tokio::time::Instant::now() < until
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    control
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Machine {
    /// None runs in our network namespace.
    Absent,
    /// One runs and does not answer.
    Silent,
    There,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Machine,
    Private,
}

/// Whose switch to use. Pure. `chosen`: the machine's was used here before.
fn which(choice: Choice, private_runs: bool, chosen: bool, machine: Machine) -> Result<Which, OvsError> {
    match (choice, machine) {
        (Choice::Private, _) => Ok(Which::Private),
        // Guests are on it.
        (Choice::Auto, _) if private_runs && !chosen => Ok(Which::Private),
        (Choice::Auto, Machine::There) => Ok(Which::Machine),
        (Choice::Auto, Machine::Absent) if !chosen => Ok(Which::Private),
        (Choice::Auto, Machine::Absent | Machine::Silent) => Err(OvsError::MachineAway),
    }
}

fn is_chosen(config: &Config) -> bool {
    config.dir.join(CHOSEN).exists()
}

/// Remembers that the machine's switch is used.
fn choose(config: &Config) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.dir)?;
    std::fs::File::create(config.dir.join(CHOSEN)).map(drop)
}

/// The machine's own switch, if it answers and lives in our network namespace.
async fn machine(run_dir: &Path) -> Option<Pid> {
    let pid = private::machine_switch(run_dir).ok().flatten()?;
    Ovsdb::new(&run_dir.join("db.sock")).ping().await.ok()?;
    Some(pid)
}

/// Where to put sockets that belong to `dir`: there, or, if the path with the longest name would not fit a socket
/// address, in `/run/gon-<digest of dir>-<what>`.
#[must_use]
pub fn socket_dir(dir: &Path, longest: &str, what: &str) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = dir.as_os_str().as_bytes();
    if bytes.len() + 1 + longest.len() < SUN_PATH {
        return dir.to_owned();
    }
    let digest = Sha256::digest(bytes);
    let short: String = digest.iter().take(6).map(|b| format!("{b:02x}")).collect();
    PathBuf::from(format!("/run/gon-{short}-{what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A switch that is slow to answer, or not up yet, is not replaced by another one that takes its devices away.
    #[test]
    fn whose_switch_is_chosen_once() {
        let which = |private_runs, chosen, machine| which(Choice::Auto, private_runs, chosen, machine).ok();
        for (private_runs, chosen, machine, wanted) in [
            (false, false, Machine::Absent, Some(Which::Private)),
            (false, false, Machine::There, Some(Which::Machine)),
            (false, false, Machine::Silent, None),
            (false, true, Machine::There, Some(Which::Machine)),
            (false, true, Machine::Silent, None),
            (false, true, Machine::Absent, None),
            (true, false, Machine::Absent, Some(Which::Private)),
            (true, false, Machine::There, Some(Which::Private)),
            (true, false, Machine::Silent, Some(Which::Private)),
            (true, true, Machine::There, Some(Which::Machine)),
            (true, true, Machine::Silent, None),
        ] {
            assert_eq!(which(private_runs, chosen, machine), wanted, "{private_runs} {chosen} {machine:?}");
        }
    }
}
