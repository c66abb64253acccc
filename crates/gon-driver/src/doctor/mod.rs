//! Examines a server before it becomes part of a site, and afterwards: what stands in the way, and what mends it.
//!
//! Assumes root for the whole picture; without it some probes know less and say so. Promises to change nothing, that
//! every finding of a fault names the command that mends it, and that what is found wrong depends on what was probed
//! alone: the probes ([`probe`]) collect, the verdicts ([`verdict`]) judge, purely.

mod listeners;
mod probe;
pub mod verdict;
mod versions;

use std::path::PathBuf;

use serde::Serialize;

pub use verdict::verdicts;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Good,
    /// Works, and is worth knowing.
    Note,
    /// Works, but not well, or not for long.
    Warning,
    /// Does not work.
    Error,
}

impl Severity {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What was found in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check: stable, for scripts.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is there, or what is wrong.
    pub what: String,
    /// Commands that mend it, in their order; none if nothing needs mending.
    pub mend: Vec<String>,
}

impl Finding {
    fn new(check: &'static str, severity: Severity, what: impl Into<String>) -> Self {
        Self { check, severity, what: what.into(), mend: vec![] }
    }
    fn mend(mut self, command: impl Into<String>) -> Self {
        self.mend.push(command.into());
        self
    }
}

/// What this server is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duties {
    /// Controllers, PostgreSQL, RabbitMQ, etcd.
    pub control: bool,
    /// A node: guests and their network.
    pub worker: bool,
}

/// What is to be examined.
#[derive(Debug, Clone)]
pub struct Question {
    /// What this server is to be.
    pub duties: Duties,
    /// Where its data is or will be.
    pub data_dir: PathBuf,
    /// Its image store: any image's kernel serves to prove KVM.
    pub images_dir: PathBuf,
    /// The other servers of the site.
    pub servers: Vec<String>,
    /// MTU offered to guests.
    pub guest_mtu: u16,
    /// Whether guests are to be emulated, so that nothing of KVM matters.
    pub emulate: bool,
    /// What is to listen here: port, and which role or server.
    pub ports: Vec<(u16, &'static str)>,
}

/// What was probed.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What is to be examined.
    pub duties: Duties,
    /// Whether we are root.
    pub root: bool,
    /// Whether systemd runs this machine.
    pub systemd: bool,
    /// Processors this process may use.
    pub cpus: u32,
    /// All memory, MiB.
    pub memory_mib: u64,
    /// Where the data goes, and how much room is there, GiB.
    pub disk: (PathBuf, u64),
    /// Whether guests run on the processor.
    pub virtualisation: Virtualisation,
    /// The ways to the other servers.
    pub paths: Vec<Way>,
    /// MTU offered to guests.
    pub guest_mtu: u16,
    /// Who keeps the clock.
    pub clock: Clock,
    /// What is to listen here, and who does.
    pub ports: Vec<Port>,
    /// The policy of the chain FORWARD, and whether our device is excepted from it; `None`: no such chain.
    pub forward: Option<Forward>,
    /// Whether bridged frames go through the packet filter; `None`: they cannot.
    pub bridge_filter: Option<bool>,
    /// Whether the kernel forwards IPv4; `None`: it does not say.
    pub ip_forward: Option<bool>,
    /// Whether ufw is on.
    pub ufw: bool,
    /// Kernel modules that a node needs and that are neither loaded, built in, nor there to be loaded.
    pub missing_modules: Vec<&'static str>,
    /// What is installed.
    pub versions: Vec<Installed>,
    /// Names.
    pub names: Names,
}

/// Whether guests run on the processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Virtualisation {
    /// A guest has booted under KVM, with this processor model.
    Proved(String),
    /// There is no QEMU to find out with.
    NoQemu(String),
    /// The processor does not say that it can.
    NoFlag,
    /// It says so, but there is no `/dev/kvm`; the module that makes it.
    NoDevice(&'static str),
    /// It is there; there is no image whose kernel could be booted.
    NoKernel,
    /// It is there, but a guest did not boot.
    Failed(String),
    /// Nobody wants to know.
    NotWanted,
}

/// The way to another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Which server.
    pub server: String,
    /// By which device, and its MTU; `None`: there is no route.
    pub device: Option<(String, u32)>,
    /// The largest packet that arrived whole and unfragmented; `None`: none did.
    pub largest: Option<u32>,
}

/// Who keeps the clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clock {
    /// Whether the kernel's clock is disciplined; `None`: unknown.
    pub synchronised: Option<bool>,
    /// How far the other servers' clocks are from ours, milliseconds, as far as they were asked; whole seconds only.
    pub offsets: Vec<(String, i64)>,
}

/// A port that is to be listened on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// By whom.
    pub role: &'static str,
    /// Who does: the program's name, or `?`.
    pub holder: Option<String>,
}

/// The chain FORWARD of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Whether what no rule accepts is dropped.
    pub drops: bool,
    /// Whether Docker made it so.
    pub docker: bool,
    /// Whether our device is excepted.
    pub excepted: bool,
}

/// A program of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Program {
    /// PostgreSQL.
    Postgres,
    /// RabbitMQ.
    RabbitMq,
    /// etcd.
    Etcd,
    /// Open vSwitch.
    OpenVSwitch,
    /// QEMU.
    Qemu,
    /// nftables.
    Nftables,
    /// Docker.
    Docker,
}

/// What of a program is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Which.
    pub program: Program,
    /// Its version: major and minor; `None`: not installed.
    pub version: Option<(u32, u32)>,
}

/// What this server and the others are called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// This one.
    pub hostname: String,
    /// What its name resolves to.
    pub resolves_to: Vec<std::net::IpAddr>,
    /// The addresses it has, loopback aside.
    pub addresses: Vec<std::net::IpAddr>,
    /// Others whose names do not resolve.
    pub unknown: Vec<String>,
}

/// Probes, and judges.
pub async fn examine(question: &Question) -> Vec<Finding> {
    verdicts(&probe::facts(question).await)
}

/// Probes only: what can be asked of others (their clocks) is the caller's to add.
pub async fn facts(question: &Question) -> Facts {
    probe::facts(question).await
}
