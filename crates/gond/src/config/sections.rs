//! The sections of the configuration and what stands in them when nobody says anything.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
    /// The message bus.
    pub bus: Bus,
    /// Liveness, leaders, discovery.
    pub cluster: Cluster,
    /// Where agents find the controllers.
    pub control: Control,
    /// Certificates.
    pub tls: Tls,
    /// How much callers may take up.
    pub limits: Limits,
    /// This machine as a node.
    pub node: Node,
    /// Networks.
    pub network: Network,
    /// Instances.
    pub compute: Compute,
    /// Images.
    pub images: Images,
    /// Containers.
    pub container: Container,
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
            bus: Bus::default(),
            cluster: Cluster::default(),
            control: Control::default(),
            tls: Tls::default(),
            limits: Limits::default(),
            node: Node::default(),
            network: Network::default(),
            compute: Compute::default(),
            images: Images::default(),
            container: Container::default(),
            admin: Admin::default(),
            roles: Roles::default(),
            log: Log::default(),
        }
    }
}

/// `[database]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// A PostgreSQL URL; without one, `gond standalone` runs a PostgreSQL of its own.
    pub url: Option<SecretString>,
    /// A file that holds the URL: a credential of the service manager, readable by nobody else.
    pub url_file: Option<PathBuf>,
    /// The most connections of an API server.
    pub connections: u32,
}

impl Default for Database {
    fn default() -> Self {
        Self { url: None, url_file: None, connections: 16 }
    }
}

/// `[bus]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bus {
    /// An AMQP URL (`amqp` or `amqps`) of RabbitMQ; without one, doorbells stay in the process.
    pub url: Option<SecretString>,
    /// A file that holds the URL.
    pub url_file: Option<PathBuf>,
}

/// `[cluster]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// URLs of etcd (`http` or `https`); without one, leases and leaders stay in the process.
    pub endpoints: Vec<String>,
    /// What the keys of this site begin with.
    pub prefix: String,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { endpoints: vec![], prefix: "gon".to_owned() }
    }
}

/// `[control]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// Names or addresses of the servers on which controllers run; discovery adds to them.
    pub servers: Vec<String>,
}

/// `[tls]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Where certificates and keys are; `tls` in the data directory if not given.
    pub dir: Option<PathBuf>,
    /// Whether the API and the console are served over TLS.
    pub api: ApiTls,
}

/// Whether the API and the console are served over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApiTls {
    /// If there are certificates and others than this machine can reach it.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never: something in front of it does.
    Off,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections of one listener.
    pub connections: u32,
    /// Those of one address.
    pub connections_per_address: u32,
    /// Requests of the API in work at once.
    pub requests: u32,
    /// The head of a request must be there within this time, seconds.
    pub header_timeout_seconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 4096, connections_per_address: 100, requests: 512, header_timeout_seconds: 10 }
    }
}

/// `[node]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Its name; the host name if not given. Kept from the first start on.
    pub name: Option<String>,
    /// Its availability zone; the region is it without its last letter.
    pub availability_zone: String,
    /// Where the other nodes reach it; if not given, the address from which it reaches the controllers.
    pub address: Option<IpAddr>,
    /// What placement may ask for.
    pub labels: BTreeMap<String, String>,
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
            address: None,
            labels: BTreeMap::new(),
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
    /// How the world reaches public addresses: `host` (they are this server's alone, guests leave behind its address),
    /// `onlink:DEVICE` (they are on the link of that device; each server answers ARP for its guests), or `routed`
    /// (others route each address to its server).
    pub external: External,
    /// This server's address on the network between the servers, by which guests on other servers are reached. Absent: there
    /// are no other servers.
    pub overlay_address: Option<Ipv4Addr>,
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
            external: External::Host,
            overlay_address: None,
            switch: Switch::Auto,
            datapath: Datapath::Auto,
        }
    }
}

/// How the world reaches public addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum External {
    /// The host has the pool.
    Host,
    /// On the link of this device.
    OnLink(String),
    /// By routes of others.
    Routed,
}

impl std::str::FromStr for External {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "host" => Ok(Self::Host),
            "routed" => Ok(Self::Routed),
            other => match other.strip_prefix("onlink:") {
                // It becomes part of a path below /proc/sys.
                Some(name)
                    if (1..=15).contains(&name.len())
                        && name != "."
                        && name != ".."
                        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) =>
                {
                    Ok(Self::OnLink(name.to_owned()))
                }
                _ => Err(format!("'{text}' must be host, onlink:DEVICE or routed")),
            },
        }
    }
}

impl<'de> Deserialize<'de> for External {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
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

/// `[container]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Container {
    /// The socket of Docker.
    pub socket: PathBuf,
}

impl Default for Container {
    fn default() -> Self {
        Self { socket: PathBuf::from("/run/docker.sock") }
    }
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
    /// Where `gond network-controller` listens; agents take the port for every controller's.
    pub network_controller: SocketAddr,
    /// Where `gond instance-manager` listens; agents take the port for every manager's.
    pub instance_manager: SocketAddr,
    /// Where `gond hypervisor-agent` listens.
    pub hypervisor_agent: SocketAddr,
    /// Where `gond network-agent` listens.
    pub network_agent: SocketAddr,
    /// Where `gond container-agent` listens.
    pub container_agent: SocketAddr,
    /// Where `gond storage-agent` listens.
    pub storage_agent: SocketAddr,
}

impl Default for Roles {
    fn default() -> Self {
        let on = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            network_controller: on(8081),
            instance_manager: on(8082),
            hypervisor_agent: on(9090),
            network_agent: on(9091),
            container_agent: on(9092),
            storage_agent: on(9093),
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
