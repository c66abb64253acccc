//! Configuration: one TOML file, overridden by `GON_…` variables, overridden by flags. The only place that reads the
//! environment.
//!
//! Promises that every setting has a place in all three (`network.public_pool` is `GON_NETWORK_PUBLIC_POOL`), that an
//! unknown or ill-typed one is an error that names where it stands, and that a secret is never shown.

mod check;
mod sections;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

pub use check::{host_of, is_node_name};
pub use sections::{Accelerator, ApiTls, Config, Datapath, External, LogFormat, Switch};

/// Every setting that a variable can give, and how its text is read.
const SETTINGS: &[(&str, Kind)] = &[
    ("data_dir", Kind::Text),
    ("listen", Kind::Text),
    ("database.url", Kind::Text),
    ("database.url_file", Kind::Text),
    ("database.connections", Kind::Number),
    ("bus.url", Kind::Text),
    ("bus.url_file", Kind::Text),
    ("cluster.endpoints", Kind::List),
    ("cluster.prefix", Kind::Text),
    ("control.servers", Kind::List),
    ("tls.dir", Kind::Text),
    ("tls.api", Kind::Text),
    ("limits.connections", Kind::Number),
    ("limits.connections_per_address", Kind::Number),
    ("limits.requests", Kind::Number),
    ("limits.header_timeout_seconds", Kind::Number),
    ("node.name", Kind::Text),
    ("node.availability_zone", Kind::Text),
    ("node.address", Kind::Text),
    ("node.labels", Kind::Map),
    ("node.cpu_overcommit", Kind::Number),
    ("node.memory_reserve_mib", Kind::Number),
    ("node.disk_reserve_gib", Kind::Number),
    ("network.public_pool", Kind::Text),
    ("network.mtu", Kind::Number),
    ("network.lease_seconds", Kind::Number),
    ("network.overlay_address", Kind::Text),
    ("network.external", Kind::Text),
    ("network.switch", Kind::Text),
    ("network.datapath", Kind::Text),
    ("compute.stop_grace_seconds", Kind::Number),
    ("compute.placement_patience_seconds", Kind::Number),
    ("compute.accelerator", Kind::Text),
    ("images.dir", Kind::Text),
    ("container.socket", Kind::Text),
    ("admin.user", Kind::Text),
    ("admin.password", Kind::Text),
    ("roles.network_controller", Kind::Text),
    ("roles.instance_manager", Kind::Text),
    ("roles.hypervisor_agent", Kind::Text),
    ("roles.network_agent", Kind::Text),
    ("roles.container_agent", Kind::Text),
    ("roles.storage_agent", Kind::Text),
    ("log.level", Kind::Text),
    ("log.format", Kind::Text),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    /// Values with commas between them.
    List,
    /// `key=value` with commas between them.
    Map,
}

impl Kind {
    fn read(self, text: &str) -> Result<toml::Value, String> {
        let parts = || text.split(',').map(str::trim).filter(|part| !part.is_empty());
        Ok(match self {
            Self::Text => toml::Value::String(text.to_owned()),
            Self::Number => {
                toml::Value::Integer(text.parse().map_err(|_| format!("'{text}' is not a whole number"))?)
            }
            Self::List => toml::Value::Array(parts().map(|part| part.to_owned().into()).collect()),
            Self::Map => {
                let pairs = parts().map(|part| match part.split_once('=') {
                    Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned().into())),
                    None => Err(format!("'{part}' is not key=value")),
                });
                toml::Value::Table(pairs.collect::<Result<_, _>>()?)
            }
        })
    }
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

    pub(crate) fn from_parts(
        flags: &Flags,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
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
            let value = kind.read(value).map_err(|what| wrong(&what))?;
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
        read_secret(&mut config.database.url, config.database.url_file.as_deref(), "database.url_file")?;
        read_secret(&mut config.bus.url, config.bus.url_file.as_deref(), "bus.url_file")?;
        config.check()?;
        // Children have other working directories: from here on a path means the same everywhere.
        config.data_dir = std::path::absolute(&config.data_dir)
            .map_err(|error| ConfigError::Value { setting: "data_dir", what: error.to_string() })?;
        Ok(config)
    }

    /// Where certificates and keys are.
    #[must_use]
    pub fn tls_dir(&self) -> PathBuf {
        self.tls.dir.clone().unwrap_or_else(|| self.data_dir.join("tls"))
    }

    /// Whether this machine has certificates, so that its services speak TLS with each other.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.tls_dir().join("ca.crt").exists()
    }

    /// The node's image store.
    #[must_use]
    pub fn images_dir(&self) -> PathBuf {
        self.images.dir.clone().unwrap_or_else(|| self.data_dir.join("images"))
    }
}

/// The largest file that is taken for a URL.
const SECRET_LIMIT: u64 = 4096;

/// A secret that stands in a file of its own.
fn read_secret(
    secret: &mut Option<SecretString>,
    file: Option<&Path>,
    setting: &'static str,
) -> Result<(), ConfigError> {
    let Some(path) = file else { return Ok(()) };
    let wrong = |what: String| ConfigError::Value { setting, what };
    if secret.is_some() {
        return Err(wrong("the URL is given as well: one of them".to_owned()));
    }
    let size = std::fs::metadata(path).map_err(|e| wrong(format!("{}: {e}", path.display())))?.len();
    if size > SECRET_LIMIT {
        return Err(wrong(format!("{} has {size} bytes, which is no URL", path.display())));
    }
    let text = std::fs::read_to_string(path).map_err(|e| wrong(format!("{}: {e}", path.display())))?;
    if text.trim().is_empty() {
        return Err(wrong(format!("{} is empty", path.display())));
    }
    *secret = Some(SecretString::from(text.trim()));
    Ok(())
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

/// How long we may be silent before the service manager takes us for dead, if it watches this process
/// (sd_watchdog_enabled(3)).
#[must_use]
pub fn watchdog() -> Option<std::time::Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|us| for_us && *us > 0).map(std::time::Duration::from_micros)
}

#[cfg(test)]
mod tests;
