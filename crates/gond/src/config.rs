//! Configuration: one TOML file, overridden by `GON_…` variables, overridden by flags. The only place that reads the
//! environment.
//!
//! Promises that every setting has a place in all three (`network.public_pool` is `GON_NETWORK_PUBLIC_POOL`), that an
//! unknown or ill-typed one is an error that names where it stands, and that a secret is never shown.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use gon_types::net::parse_cidr;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::Error as _;

/// Everything `gond` can be told. `dist/etc/gon.toml` explains each setting.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where everything of this machine is kept.
    pub data_dir: PathBuf,
    /// Where the API and the console listen.
    pub listen: SocketAddr,
    /// The database.
    pub database: Database,
    /// This machine as a node.
    pub node: Node,
    /// Networks.
    pub network: Network,
    /// Instances.
    pub compute: Compute,
    /// Images.
    pub images: Images,
    /// The first administrator.
    pub admin: Admin,
    /// Where roles in processes of their own meet.
    pub roles: Roles,
    /// Logs.
    pub log: Log,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/gon"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            database: Database::default(),
            node: Node::default(),
            network: Network::default(),
            compute: Compute::default(),
            images: Images::default(),
            admin: Admin::default(),
            roles: Roles::default(),
            log: Log::default(),
        }
    }
}

/// `[database]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// A PostgreSQL URL; without one, `gond standalone` runs a PostgreSQL of its own.
    pub url: Option<SecretString>,
}

/// `[node]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Its name; the host name if not given. Kept from the first start on.
    pub name: Option<String>,
    /// Its availability zone; the region is it without its last letter.
    pub availability_zone: String,
    /// How many virtual processors are lent for each real one.
    pub cpu_overcommit: u32,
    /// Memory that is kept from guests, MiB.
    pub memory_reserve_mib: u64,
    /// Disk that is kept from guests, GiB.
    pub disk_reserve_gib: u64,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: None,
            availability_zone: "local-1a".to_owned(),
            cpu_overcommit: 8,
            memory_reserve_mib: 1024,
            disk_reserve_gib: 5,
        }
    }
}

/// `[network]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// The site's public addresses; the first one is the host's.
    #[serde(deserialize_with = "block")]
    pub public_pool: ipnet::Ipv4Net,
    /// MTU offered to guests.
    pub mtu: u16,
    /// DHCP lease, seconds.
    pub lease_seconds: u32,
    /// Which Open vSwitch: `auto` takes the machine's if one runs, `private` always runs one of our own.
    pub switch: Switch,
    /// Which datapath: `auto` takes the kernel's if it proves itself.
    pub datapath: Datapath,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            public_pool: ipnet::Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 0), 24),
            mtu: 1500,
            lease_seconds: 3600,
            switch: Switch::Auto,
            datapath: Datapath::Auto,
        }
    }
}

fn block<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<ipnet::Ipv4Net, D::Error> {
    let text = String::deserialize(deserializer)?;
    let block = parse_cidr(&text).map_err(D::Error::custom)?;
    if block.trunc() != block || !(16..=29).contains(&block.prefix_len()) {
        return Err(D::Error::custom(format!("'{text}' must be a block from /16 to /29 without host bits")));
    }
    Ok(block)
}

/// Which Open vSwitch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// The machine's if one runs, else a private one.
    Auto,
    /// A private one.
    Private,
}

/// Which datapath.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Datapath {
    /// The kernel's if it proves itself, else the userspace one.
    Auto,
    /// The kernel's.
    System,
    /// The userspace one.
    Netdev,
}

/// `[compute]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compute {
    /// How long a guest may take to power itself off before it is cut, seconds.
    pub stop_grace_seconds: u32,
    /// How long an instance waits for a node with room before it is terminated, seconds.
    pub placement_patience_seconds: u64,
    /// `auto` takes KVM if it proves itself.
    pub accelerator: Accelerator,
}

impl Default for Compute {
    fn default() -> Self {
        Self { stop_grace_seconds: 60, placement_patience_seconds: 600, accelerator: Accelerator::Auto }
    }
}

/// Which accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// KVM if it proves itself, else TCG.
    Auto,
    /// TCG, whatever there is.
    Tcg,
}

/// `[images]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// The node's image store; `images` in the data directory if not given.
    pub dir: Option<PathBuf>,
}

/// `[admin]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Name of the first administrator.
    pub user: String,
    /// Their password; generated and written to `admin.json` if not given.
    pub password: Option<SecretString>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { user: "admin".to_owned(), password: None }
    }
}

/// `[roles]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Roles {
    /// Health and metrics of `gond network-controller`.
    pub network_controller: SocketAddr,
    /// Health and metrics of `gond instance-manager`.
    pub instance_manager: SocketAddr,
    /// Health and metrics of `gond hypervisor-agent`.
    pub hypervisor_agent: SocketAddr,
    /// Health and metrics of `gond network-agent`.
    pub network_agent: SocketAddr,
}

impl Default for Roles {
    fn default() -> Self {
        let on = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            network_controller: on(8081),
            instance_manager: on(8082),
            hypervisor_agent: on(9090),
            network_agent: on(9091),
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,gon_control=debug`.
    pub level: String,
    /// How.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Every setting that a variable can give, and how its text is read.
const SETTINGS: &[(&str, Kind)] = &[
    ("data_dir", Kind::Text),
    ("listen", Kind::Text),
    ("database.url", Kind::Text),
    ("node.name", Kind::Text),
    ("node.availability_zone", Kind::Text),
    ("node.cpu_overcommit", Kind::Number),
    ("node.memory_reserve_mib", Kind::Number),
    ("node.disk_reserve_gib", Kind::Number),
    ("network.public_pool", Kind::Text),
    ("network.mtu", Kind::Number),
    ("network.lease_seconds", Kind::Number),
    ("network.switch", Kind::Text),
    ("network.datapath", Kind::Text),
    ("compute.stop_grace_seconds", Kind::Number),
    ("compute.placement_patience_seconds", Kind::Number),
    ("compute.accelerator", Kind::Text),
    ("images.dir", Kind::Text),
    ("admin.user", Kind::Text),
    ("admin.password", Kind::Text),
    ("roles.network_controller", Kind::Text),
    ("roles.instance_manager", Kind::Text),
    ("roles.hypervisor_agent", Kind::Text),
    ("roles.network_agent", Kind::Text),
    ("log.level", Kind::Text),
    ("log.format", Kind::Text),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
}

/// Why there is no configuration. Never shows a secret's value.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file named on the command line is not readable.
    #[error("the configuration file {path} cannot be read")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something in the file is not understood.
    #[error("{path}: {what}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What and where.
        what: String,
    },
    /// A variable is not understood.
    #[error("{variable}: {what}")]
    Variable {
        /// Which.
        variable: String,
        /// What is wrong.
        what: String,
    },
    /// Settings that cannot be together, or a value that cannot be.
    #[error("{setting}: {what}")]
    Value {
        /// Which.
        setting: &'static str,
        /// What is wrong.
        what: String,
    },
}

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<SocketAddr>,
}

/// Where the file is looked for when none is named; it need not be there.
const DEFAULT_FILE: &str = "/etc/gon/gon.toml";

/// The variable of a setting: `network.public_pool` is `GON_NETWORK_PUBLIC_POOL`.
fn variable(setting: &str) -> String {
    format!("GON_{}", setting.replace('.', "_").to_ascii_uppercase())
}

impl Config {
    /// Reads file, environment and flags.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let environment: BTreeMap<String, String> =
            std::env::vars().filter(|(k, _)| k.starts_with("GON_")).collect();
        Self::from_parts(flags, &environment)
    }

    fn from_parts(flags: &Flags, environment: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let (path, must) = match &flags.file {
            Some(path) => (path.clone(), true),
            None => (PathBuf::from(DEFAULT_FILE), false),
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must => String::new(),
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let in_file =
            |error: toml::de::Error| ConfigError::File { path: path.clone(), what: explain(&error, &text) };
        // First the file alone, so that its mistakes are shown with their line.
        toml::from_str::<Self>(&text).map_err(in_file)?;
        let mut table: toml::Table = toml::from_str(&text).map_err(in_file)?;
        for (setting, kind) in SETTINGS {
            let name = variable(setting);
            let Some(value) = environment.get(&name).filter(|v| !v.is_empty()) else { continue };
            let wrong = |what: &str| ConfigError::Variable { variable: name.clone(), what: what.to_owned() };
            let value = match kind {
                Kind::Text => toml::Value::String(value.clone()),
                Kind::Number => toml::Value::Integer(
                    value.parse().map_err(|_| wrong(&format!("'{value}' is not a whole number")))?,
                ),
            };
            insert(&mut table, setting, value);
            table.clone().try_into::<Self>().map_err(|error| wrong(error.message()))?;
        }
        let mut config: Self = table.try_into().map_err(|error: toml::de::Error| in_file(error))?;
        if let Some(dir) = &flags.data_dir {
            config.data_dir.clone_from(dir);
        }
        if let Some(listen) = flags.listen {
            config.listen = listen;
        }
        config.check()?;
        // Children have other working directories: from here on a path means the same everywhere.
        config.data_dir = std::path::absolute(&config.data_dir)
            .map_err(|error| ConfigError::Value { setting: "data_dir", what: error.to_string() })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |setting, what: &str| Err(ConfigError::Value { setting, what: what.to_owned() });
        if self.data_dir.as_os_str().is_empty() {
            return wrong("data_dir", "must not be empty");
        }
        let zone = &self.node.availability_zone;
        let zone_is_good = (2..=20).contains(&zone.len())
            && zone.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && zone.ends_with(|c: char| c.is_ascii_lowercase());
        if !zone_is_good {
            return wrong(
                "node.availability_zone",
                "must be 2 to 20 of a-z, 0-9 and -, ending in a letter (local-1a)",
            );
        }
        if let Some(name) = &self.node.name
            && !is_node_name(name)
        {
            return wrong(
                "node.name",
                "must be 1 to 50 of a-z, 0-9, '.' and '-', beginning with a letter or digit",
            );
        }
        if !(1..=64).contains(&self.node.cpu_overcommit) {
            return wrong("node.cpu_overcommit", "must be from 1 to 64");
        }
        if !(576..=9000).contains(&self.network.mtu) {
            return wrong("network.mtu", "must be from 576 to 9000");
        }
        if !(60..=86_400).contains(&self.network.lease_seconds) {
            return wrong("network.lease_seconds", "must be from 60 to 86400");
        }
        if !(1..=600).contains(&self.compute.stop_grace_seconds) {
            return wrong("compute.stop_grace_seconds", "must be from 1 to 600");
        }
        if self.compute.placement_patience_seconds > 86_400 {
            return wrong("compute.placement_patience_seconds", "must be at most 86400");
        }
        Ok(())
    }

    /// The node's image store.
    #[must_use]
    pub fn images_dir(&self) -> PathBuf {
        self.images.dir.clone().unwrap_or_else(|| self.data_dir.join("images"))
    }
}

/// As the schema has it.
#[must_use]
pub fn is_node_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=50).contains(&name.len())
        && name.bytes().all(|b| allowed(b) || b == b'.' || b == b'-')
        && name.bytes().next().is_some_and(allowed)
}

fn insert(table: &mut toml::Table, setting: &str, value: toml::Value) {
    match setting.split_once('.') {
        None => {
            table.insert(setting.to_owned(), value);
        }
        Some((section, key)) => {
            let section =
                table.entry(section.to_owned()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            if let toml::Value::Table(section) = section {
                section.insert(key.to_owned(), value);
            }
        }
    }
}

/// What is wrong and in which line, without repeating the line: it may hold a secret.
fn explain(error: &toml::de::Error, text: &str) -> String {
    match error.span() {
        Some(span) => {
            let line = text.get(..span.start).map_or(0, |before| before.matches('\n').count()) + 1;
            format!("line {line}: {}", error.message())
        }
        None => error.message().to_owned(),
    }
}

/// The socket on which a service manager wants to hear that we are ready (sd_notify(3)).
#[must_use]
pub fn notify_socket() -> Option<std::ffi::OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests;
