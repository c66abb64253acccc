//! Three servers on one machine: one network namespace each on one link, every service a process of its own, real
//! PostgreSQL, RabbitMQ and etcd, TLS between all of them; and a fourth namespace on the link, the outside.
//!
//! ```text
//!   control-1 192.0.2.11   worker-1 192.0.2.12   worker-2 192.0.2.13   outside 192.0.2.200, 203.0.113.254
//!        └──────────────────────┴──────── one link ──────┴──────────────────────┘
//! ```
//!
//! PostgreSQL is reached over its unix socket, which is the same in every namespace; RabbitMQ listens on control-1's
//! loopback, etcd on its address. Promises that nothing is left, however the test process ends.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use gon_testkit::TestDatabase;
use gon_testkit::etcd::{self, Etcd};
use gon_testkit::rabbitmq::{Broker, TestVhost};
use gon_tls::{Authority, TlsDir};
use gon_types::{Identity, Role};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};

use crate::api::Api;
use crate::binaries;
use crate::host::Host;
use crate::namespace::Namespace;
use crate::process::{self, kill_hard, tail};
use crate::say;
use crate::story::Scene;
use crate::topology::{Cloud, Instance, Tenant};
use crate::wait;
use crate::world::{PASSWORD, USER};

/// How long a service may take until it is ready.
const READY: Duration = Duration::from_secs(60);
/// How long a service may take to end when asked.
const END: Duration = Duration::from_secs(8);
/// A certificate lives this long here.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// The outside, as the public addresses see it.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);
/// The device of a server on the link.
pub const UPLINK: &str = "eth0";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The services of a server, in the order they are started.
pub const CONTROL: &[Role] = Role::CONTROL;
/// The services of a worker.
pub const WORKER: &[Role] = Role::WORKER;

/// The port of a service.
#[must_use]
pub fn port(role: Role) -> u16 {
    match role {
        Role::NetworkController => 8081,
        Role::InstanceManager => 8082,
        Role::HypervisorAgent => 9090,
        Role::NetworkAgent => 9091,
        Role::ContainerAgent => 9092,
        Role::StorageAgent => 9093,
        _ => 8080,
    }
}

/// One server.
#[derive(Debug)]
pub struct Server {
    name: String,
    inside: Namespace,
    address: Ipv4Addr,
    data_dir: PathBuf,
    running: Mutex<BTreeMap<Role, Child>>,
    settings: Mutex<BTreeMap<String, String>>,
}

/// What the site runs on.
struct Backing {
    etcd: Etcd,
    broker: Broker,
    vhost: TestVhost,
    database: TestDatabase,
}

/// The whole site.
pub struct Cluster {
    dir: PathBuf,
    link: Namespace,
    servers: Vec<Server>,
    gond: PathBuf,
    runtime: tokio::runtime::Runtime,
    backing: Option<Mutex<Backing>>,
    tenant: Tenant,
    watcher: Child,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("dir", &self.dir).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    fn make(unique: &str, dir: &Path, link: &Namespace, number: u8, name: &str) -> anyhow::Result<Self> {
        let address = Ipv4Addr::new(192, 0, 2, 10 + number);
        let inside = Namespace::create(&format!("{unique}-{name}"))?;
        plug(link, &inside, &format!("p{number}"), &[format!("{address}/24")])?;
        let data_dir = dir.join(name);
        std::fs::create_dir(&data_dir)?;
        std::fs::create_dir(data_dir.join("log"))?;
        std::fs::set_permissions(&data_dir, std::fs::Permissions::from_mode(0o711))?;
        Ok(Self {
            name: name.to_owned(),
            inside,
            address,
            data_dir,
            running: Mutex::default(),
            settings: Mutex::default(),
        })
    }

    /// Its name, which is its node's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Its address on the link.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }
    /// Where a service writes.
    #[must_use]
    pub fn log(&self, role: Role) -> PathBuf {
        self.data_dir.join(format!("log/{role}.log"))
    }

    /// Sets a variable for services that are started from now on.
    pub fn set(&self, variable: &str, value: impl Into<String>) {
        lock(&self.settings).insert(variable.to_owned(), value.into());
    }

    /// `gond` with these arguments, its data directory and its settings.
    #[must_use]
    pub fn gond(&self, gond: &Path, arguments: &[&str]) -> Command {
        let mut command = self.inside.command(&gond.to_string_lossy());
        command.args(arguments).arg("--data-dir").arg(&self.data_dir);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GON_") {
                command.env_remove(name);
            }
        }
        command.envs(lock(&self.settings).iter()).current_dir("/");
        command
    }

    /// Starts a service; does not wait for it.
    ///
    /// # Errors
    /// When it runs already.
    pub fn spawn(&self, gond: &Path, role: Role) -> anyhow::Result<()> {
        let mut running = lock(&self.running);
        ensure!(!running.contains_key(&role), "{role} runs already on {}", self.name);
        let log = OpenOptions::new().create(true).append(true).open(self.log(role))?;
        let mut command = self.gond(gond, &[role.as_str()]);
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        running.insert(role, command.spawn()?);
        Ok(())
    }

    /// Whether a service answers that it is ready; why not, otherwise.
    ///
    /// # Errors
    /// When it is not ready, or does not run.
    pub fn readiness(&self, role: Role) -> anyhow::Result<()> {
        if let Some(child) = lock(&self.running).get_mut(&role)
            && let Some(status) = child.try_wait()?
        {
            bail!("{role} on {} ended with {status}: {}", self.name, tail(&self.log(role), 30));
        }
        self.ask(role, "/readyz").map(drop)
    }

    /// GET of what every service serves to everybody: health, readiness, metrics.
    ///
    /// # Errors
    /// When it is not answered with 2xx.
    pub fn ask(&self, role: Role, path: &str) -> anyhow::Result<String> {
        let url = format!("https://{}:{}{path}", self.address, port(role));
        let ca = self.data_dir.join("tls/ca.crt");
        self.inside.check(&[
            "curl",
            "-sS",
            "--fail-with-body",
            "-m",
            "5",
            "--cacert",
            &ca.to_string_lossy(),
            &url,
        ])
    }

    /// Waits until a service is ready.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn wait_ready(&self, role: Role) -> anyhow::Result<Duration> {
        wait::holds(&format!("{role} on {} is ready", self.name), READY, || {
            self.readiness(role).map(|()| true)
        })
    }

    /// The process number of a service.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self, role: Role) -> anyhow::Result<i32> {
        let running = lock(&self.running);
        Ok(running.get(&role).with_context(|| format!("{role} does not run"))?.id().cast_signed())
    }

    /// Sends a signal to a service.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, role: Role, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(nix::unistd::Pid::from_raw(self.pid(role)?), signal)?)
    }

    /// `kill -9` of a service.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, role: Role) -> anyhow::Result<()> {
        let mut child = lock(&self.running).remove(&role).with_context(|| format!("{role} does not run"))?;
        child.kill()?;
        child.wait()?;
        say!("{role} on {} is killed", self.name);
        Ok(())
    }

    /// Asks a service to end, and waits for that; how long it took.
    ///
    /// # Errors
    /// When it does not in time, or not with 0.
    pub fn stop(&self, role: Role) -> anyhow::Result<Duration> {
        // One that has ended by itself says so below.
        let _ = self.signal(role, Signal::SIGTERM);
        let mut child = lock(&self.running).remove(&role).with_context(|| format!("{role} does not run"))?;
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                let took = start.elapsed();
                say!("{role} on {} ended after {} ms", self.name, took.as_millis());
                ensure!(status.success(), "{role} ended with {status}: {}", tail(&self.log(role), 20));
                return Ok(took);
            }
            if start.elapsed() > END {
                child.kill()?;
                child.wait()?;
                bail!("{role} did not end within {} s: {}", END.as_secs(), tail(&self.log(role), 30));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The services that run here.
    #[must_use]
    pub fn running(&self) -> Vec<Role> {
        lock(&self.running).keys().copied().collect()
    }

    /// What a power cut does: every process of this server is gone at once, and so are its devices and filters; the
    /// disk stays.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn power_cut(&self, link: &Namespace, number: u8) -> anyhow::Result<()> {
        for process in self.processes()? {
            kill_hard(process.pid);
        }
        for (_, mut child) in std::mem::take(&mut *lock(&self.running)) {
            let _ = child.wait();
        }
        wait::holds("the processes are gone", Duration::from_secs(10), || Ok(self.processes()?.is_empty()))?;
        for name in self.devices()?.iter().filter(|name| *name != "lo") {
            // One may go with another.
            let _ = self.inside.check(&["ip", "link", "del", name]);
        }
        self.inside.check(&["nft", "flush", "ruleset"])?;
        plug(link, &self.inside, &format!("p{number}"), &[format!("{}/24", self.address)])
    }
}

impl Host for Server {
    fn inside(&self) -> &Namespace {
        &self.inside
    }
    fn data_dir(&self) -> &Path {
        &self.data_dir
    }
}

/// Connects a namespace to the link.
fn plug(link: &Namespace, inside: &Namespace, name: &str, addresses: &[String]) -> anyhow::Result<()> {
    link.check(&["ip", "link", "add", name, "type", "veth", "peer", "name", UPLINK, "netns", inside.name()])?;
    link.check(&["ip", "link", "set", name, "master", "lan", "up"])?;
    for address in addresses {
        inside.check(&["ip", "address", "add", address, "dev", UPLINK])?;
    }
    // A userspace datapath computes no checksums for what comes from a socket here.
    inside.check(&["ethtool", "-K", UPLINK, "tx", "off", "tso", "off", "gso", "off", "gro", "off"])?;
    inside.check(&["ip", "link", "set", UPLINK, "up"])?;
    Ok(())
}

impl Cluster {
    /// Builds one.
    ///
    /// # Errors
    /// When a part is missing or does not come up.
    pub fn start(name: &str) -> anyhow::Result<Self> {
        let gond = binaries::binaries()?.join("gond");
        let images = binaries::images("gon-linux")?;
        let unique = format!("gon-site-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix(&format!("{unique}-")).tempdir_in("/tmp")?.keep();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o711))?;
        let watcher = watch(&unique, &dir)?;
        say!("{name}: {unique} in {}", dir.display());

        let link = Namespace::create(&format!("{unique}-link"))?;
        link.check(&["ip", "link", "add", "name", "lan", "type", "bridge"])?;
        link.check(&["ip", "link", "set", "lan", "up"])?;
        let outside = Namespace::create(&format!("{unique}-outside"))?;
        plug(&link, &outside, "p9", &["192.0.2.200/24".to_owned(), format!("{OUTSIDE}/24")])?;
        let mut servers = Vec::new();
        for (number, name) in [(1, "control-1"), (2, "worker-1"), (3, "worker-2"), (4, "control-2")] {
            servers.push(Server::make(&unique, &dir, &link, number, name)?);
        }
        let control = &servers[0];
        let runtime = runtime_inside(&control.inside)?;

        let authority = Authority::create()?;
        let mut records = Vec::new();
        for server in &servers {
            let mut roles = WORKER.to_vec();
            if server.name.starts_with("control") {
                roles = CONTROL.to_vec();
                roles.push(Role::Cluster);
            }
            let tls = TlsDir::new(&server.data_dir.join("tls"));
            tls.make()?;
            tls.trust(&authority.certificate_pem())?;
            for role in roles {
                let hosts = [server.name.clone(), server.address.to_string(), "127.0.0.1".to_owned()];
                let issued = tls.issue(&authority, &Identity::new(role, &server.name)?, &hosts, LIFETIME)?;
                records.push(format!(
                    "('{}', '{role}', '{}', '{}', to_timestamp({}))",
                    issued.serial,
                    server.name,
                    authority.sha256(),
                    issued.not_after.unix_timestamp()
                ));
            }
        }
        let tls = TlsDir::new(&control.data_dir.join("tls"));
        tls.write(&tls.ca_key(), &authority.key_pem(), 0o600)?;
        let (certificate, key) = tls.load(Role::Cluster)?;
        let etcd_tls = etcd::Tls { ca: authority.certificate_pem(), certificate, key };
        let address = control.address;
        // PostgreSQL is the test process's: it is reached by a path, and belongs to no server that may lose its power.
        let database = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(gon_testkit::database());
        let on_the_link = format!("listeners.tcp.2 = {address}:5672");
        let backing = control.inside.enter(|| {
            runtime.block_on(async {
                let (etcd, broker) = tokio::join!(etcd::at(address, &etcd_tls), Broker::start(&on_the_link));
                let broker = broker?;
                let vhost = broker.vhost().await?;
                Ok(Backing { etcd, broker, vhost, database })
            })
        })?;

        for server in &servers {
            server.set("GON_NODE_NAME", &server.name);
            server.set("GON_NODE_ADDRESS", server.address.to_string());
            server.set("GON_NETWORK_OVERLAY_ADDRESS", server.address.to_string());
            server.set("GON_CLUSTER_ENDPOINTS", backing.etcd.endpoints().join(","));
            server.set("GON_CONTROL_SERVERS", address.to_string());
            server.set("GON_IMAGES_DIR", images.to_string_lossy());
            server.set("GON_NETWORK_SWITCH", "private");
            server.set("GON_COMPUTE_ACCELERATOR", "tcg");
            server.set("GON_LISTEN", format!("{}:8080", server.address));
            for role in WORKER.iter().chain(&[Role::NetworkController, Role::InstanceManager]) {
                let variable = format!("GON_ROLES_{}", role.as_str().replace('-', "_").to_uppercase());
                server.set(&variable, format!("{}:{}", server.address, port(*role)));
            }
        }
        for server in servers.iter().filter(|s| s.name.starts_with("control")) {
            server.set("GON_DATABASE_URL", &backing.database.url);
            server.set("GON_ADMIN_USER", USER);
            server.set("GON_ADMIN_PASSWORD", PASSWORD);
            server.set("GON_BUS_URL", format!("amqp://guest:guest@{address}:5672/{}", backing.vhost.name));
        }

        let api = Api::trusting(
            &control.inside,
            &format!("https://{address}:8080"),
            &authority.certificate_pem(),
            USER,
            PASSWORD,
        )?;
        let tenant = Tenant::new(api, outside, dir.join("e2e-key"));
        let backing = Some(Mutex::new(backing));
        let cluster = Self { dir, link, servers, gond, runtime, backing, tenant, watcher };
        // What an admission does, without its setting up of a whole machine.
        let record = format!(
            "insert into certificates (serial, role, name, authority_sha256, not_after) values {}",
            records.join(", ")
        );
        let ready = cluster.sql(&record).and_then(|_| cluster.start_services());
        match ready {
            Ok(()) => Ok(cluster),
            Err(error) => {
                let diagnosis = cluster.diagnosis();
                let left = cluster.end().err().map(|e| format!("; and then: {e:#}")).unwrap_or_default();
                Err(error.context(format!("{diagnosis}{left}")))
            }
        }
    }

    fn start_services(&self) -> anyhow::Result<()> {
        self.start_control()?;
        for server in self.workers() {
            self.start_worker(server)?;
        }
        self.make_key()
    }

    /// Starts the control plane and waits until it is ready.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn start_control(&self) -> anyhow::Result<()> {
        let control = self.control();
        for role in CONTROL {
            control.spawn(&self.gond, *role)?;
        }
        for role in CONTROL {
            control.wait_ready(*role)?;
        }
        wait::holds("somebody can sign in", READY, || self.api().login().map(|()| true))?;
        Ok(())
    }

    /// Starts a worker's services and waits until the API knows that it is ready.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn start_worker(&self, server: &Server) -> anyhow::Result<()> {
        for role in WORKER {
            server.spawn(&self.gond, *role)?;
        }
        self.node_becomes(server.name(), "ready")
    }

    /// Waits until the agents of a worker are ready. Not the one for containers: there is no Docker here.
    ///
    /// # Errors
    /// When they are not in time.
    pub fn agents_ready(&self, server: &Server) -> anyhow::Result<()> {
        for role in WORKER.iter().filter(|r| **r != Role::ContainerAgent) {
            server.wait_ready(*role)?;
        }
        Ok(())
    }

    /// Starts every service of a server that does not run; waits for none.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn spawn_all(&self, server: &Server, roles: &[Role]) -> anyhow::Result<()> {
        roles.iter().try_for_each(|role| server.spawn(&self.gond, *role))
    }

    /// Starts one service.
    ///
    /// # Errors
    /// When it runs already.
    pub fn spawn(&self, server: &Server, role: Role) -> anyhow::Result<()> {
        server.spawn(&self.gond, role)
    }

    /// Waits until the API says so of a node.
    ///
    /// # Errors
    /// When it does not.
    pub fn node_becomes(&self, name: &str, state: &str) -> anyhow::Result<()> {
        let took = wait::holds(&format!("{name} is {state}"), READY, || {
            let page = self.api().get("/nodes")?;
            let nodes = page.get("items").and_then(serde_json::Value::as_array).context("a list")?;
            let node = nodes.iter().find(|n| n["name"] == name).context("it is not known")?;
            ensure!(node["state"] == state, "it is {node}");
            Ok(true)
        })?;
        say!("{name} is {state} after {} ms", took.as_millis());
        Ok(())
    }

    /// The server of the control plane.
    #[must_use]
    pub fn control(&self) -> &Server {
        &self.servers[0]
    }
    /// Both workers.
    #[must_use]
    pub fn workers(&self) -> &[Server] {
        &self.servers[1..3]
    }
    /// A second server for a control plane; nothing runs on it until a test starts it.
    #[must_use]
    pub fn spare(&self) -> &Server {
        &self.servers[3]
    }
    /// The link all servers are on.
    #[must_use]
    pub fn link(&self) -> &Namespace {
        &self.link
    }

    /// The worker an instance is on.
    ///
    /// # Errors
    /// When it is on none.
    pub fn worker_of(&self, instance: &Instance) -> anyhow::Result<&Server> {
        let name = instance.json["worker_node"].as_str().context("it is on no node")?;
        self.servers.iter().find(|s| s.name == name).with_context(|| format!("no server is {name}"))
    }

    /// Stops a server as a power cut does. Its services can be started again.
    ///
    /// # Errors
    /// When something is left.
    pub fn power_cut(&self, server: &Server) -> anyhow::Result<()> {
        let number = server.address.octets()[3] - 10;
        say!("{} loses its power", server.name);
        server.power_cut(&self.link, number)
    }

    /// Parts a server from everybody else; or lets it back.
    ///
    /// # Errors
    /// When the link cannot be changed.
    pub fn part(&self, server: &Server, parted: bool) -> anyhow::Result<()> {
        let port = format!("p{}", server.address.octets()[3] - 10);
        self.link.check(&["ip", "link", "set", &port, if parted { "down" } else { "up" }])?;
        say!("{} is {}", server.name, if parted { "parted from the others" } else { "back" });
        Ok(())
    }

    fn with_backing<T: Send>(
        &self,
        act: impl for<'a> FnOnce(
            &'a mut Backing,
        )
            -> std::pin::Pin<Box<dyn Future<Output = anyhow::Result<T>> + Send + 'a>>
        + Send,
    ) -> anyhow::Result<T> {
        let backing = self.backing.as_ref().context("the site has ended")?;
        self.control().inside.enter(|| {
            let mut backing = lock(backing);
            self.runtime.block_on(act(&mut backing))
        })
    }

    /// Stops RabbitMQ, or starts it again.
    ///
    /// # Errors
    /// When it does not.
    pub fn broker(&self, runs: bool) -> anyhow::Result<()> {
        say!("RabbitMQ {}", if runs { "starts" } else { "is killed" });
        self.with_backing(move |b| {
            Box::pin(async move { if runs { b.broker.restart().await } else { b.broker.kill().await } })
        })
    }

    /// Kills etcd.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_etcd(&self) -> anyhow::Result<()> {
        say!("etcd is killed");
        self.with_backing(|b| {
            Box::pin(async move {
                b.etcd.kill(0);
                Ok(())
            })
        })
    }

    /// Starts etcd again, `wiped` or with what it had.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn start_etcd(&self, wiped: bool) -> anyhow::Result<()> {
        say!("etcd starts{}", if wiped { ", empty" } else { "" });
        self.with_backing(move |b| {
            Box::pin(async move {
                if wiped {
                    b.etcd.wipe(0);
                }
                b.etcd.restart(0);
                b.etcd.ready().await;
                Ok(())
            })
        })
    }

    /// The URL of the site's database.
    ///
    /// # Errors
    /// When the site has ended.
    pub fn database_url(&self) -> anyhow::Result<String> {
        let backing = self.backing.as_ref().context("the site has ended")?;
        Ok(lock(backing).database.url.clone())
    }

    /// Runs a statement in the site's database; what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn sql(&self, statement: &str) -> anyhow::Result<String> {
        psql(&self.database_url()?, statement)
    }

    /// Runs `gond` on the server of the control plane to its end; what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn admin(&self, arguments: &[&str]) -> anyhow::Result<String> {
        process::check(&mut self.control().gond(&self.gond, arguments), Duration::from_secs(60))
    }

    /// The control plane's server burns down: its services, its data directory but the logs, and what RabbitMQ, etcd and
    /// PostgreSQL have. In the end there are new, empty ones at the same addresses.
    ///
    /// # Errors
    /// When something cannot be destroyed.
    pub fn lose_control_plane(&self) -> anyhow::Result<()> {
        let control = self.control();
        for role in control.running() {
            control.kill(role)?;
        }
        for entry in std::fs::read_dir(control.data_dir())? {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("log") {
                std::fs::remove_dir_all(path)?;
            } else if path.is_file() {
                std::fs::remove_file(path)?;
            }
        }
        self.kill_etcd()?;
        self.start_etcd(true)?;
        self.with_backing(|b| Box::pin(async move { b.broker.empty(&b.vhost).await }))?;
        let url = self.database_url()?;
        let name = psql(&url, "select current_database()")?.trim().to_owned();
        // Its own name is in its URL once.
        let other = url.replacen(&name, "postgres", 1);
        psql(&other, &format!("drop database {name} with (force)"))?;
        psql(&other, &format!("create database {name}"))?;
        say!("the control plane is lost with all it knew");
        Ok(())
    }

    /// All that helps to see what went wrong.
    #[must_use]
    pub fn diagnosis(&self) -> String {
        let mut text = String::new();
        let mut part = |title: &str, body: String| text.push_str(&format!("──── {title}\n{body}\n"));
        for server in &self.servers {
            let mut logs: Vec<_> =
                std::fs::read_dir(server.data_dir.join("log")).into_iter().flatten().flatten().collect();
            logs.sort_by_key(std::fs::DirEntry::file_name);
            for log in logs {
                part(&format!("{} {}", server.name, log.file_name().display()), tail(&log.path(), 25));
            }
            let listed = server.processes().unwrap_or_default();
            let listed: Vec<String> =
                listed.iter().map(|p| format!("{} {:.120}", p.pid, p.command)).collect();
            part(&format!("{}: processes", server.name), listed.join("\n"));
            let devices = server.inside.check(&["ip", "-brief", "address"]);
            part(&format!("{}: devices", server.name), devices.unwrap_or_else(|e| format!("{e:#}")));
        }
        for list in ["/nodes", "/instances?limit=100"] {
            part(list, self.api().get(list).map_or_else(|e| format!("{e:#}"), |page| page.to_string()));
        }
        let kept = binaries::workspace().join("target/e2e-failed").join(self.link.name());
        let _ = std::fs::create_dir_all(&kept);
        for server in &self.servers {
            let copy = format!(
                "cp -r '{}' '{}'",
                server.data_dir.join("log").display(),
                kept.join(&server.name).display()
            );
            let _ = process::run(Command::new("/bin/sh").args(["-c", &copy]), Duration::from_secs(10));
        }
        part("whole logs", kept.display().to_string());
        text
    }

    /// Takes everything down and proves that the workers' hosts are as they were.
    ///
    /// # Errors
    /// With what is left; it is removed all the same.
    pub fn end(mut self) -> anyhow::Result<()> {
        let mut wrong = Vec::new();
        for server in self.servers.iter().rev() {
            for role in server.running() {
                if let Err(error) = server.stop(role) {
                    wrong.push(format!("{error:#}"));
                }
            }
        }
        for server in self.workers() {
            let mut command = server.inside.command(&self.gond.to_string_lossy());
            command.args(["admin", "down", "--data-dir"]).arg(&server.data_dir);
            if let Err(error) = process::check(&mut command, Duration::from_secs(60)) {
                wrong.push(format!("{}: {error:#}", server.name));
            }
            match server.processes() {
                Ok(left) if left.is_empty() => {}
                left => wrong.push(format!("{}: left {left:?}", server.name)),
            }
        }
        if let Some(backing) = self.backing.take() {
            let control = self.control().inside.clone();
            let runtime = &self.runtime;
            let ended = control.enter(move || {
                let backing = backing.into_inner().unwrap_or_else(PoisonError::into_inner);
                let _inside = runtime.enter();
                drop(backing);
                Ok(())
            });
            wrong.extend(ended.err().map(|e| format!("{e:#}")));
        }
        for server in &self.servers {
            for process in server.processes()? {
                kill_hard(process.pid);
            }
        }
        if let Some(mut stdin) = self.watcher.stdin.take() {
            let _ = stdin.write_all(b"done\n");
        }
        let _ = self.watcher.wait();
        std::fs::remove_dir_all(&self.dir).context("removing the site's directory")?;
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }
}

impl Scene for Cluster {
    fn start(name: &str) -> anyhow::Result<Self> {
        Self::start(name)
    }
    fn diagnosis(&self) -> String {
        self.diagnosis()
    }
    fn place(&self) -> (&Namespace, &Path) {
        (&self.servers[0].inside, &self.dir)
    }
    fn end(self) -> anyhow::Result<()> {
        self.end()
    }
}

impl Cloud for Cluster {
    fn tenant(&self) -> &Tenant {
        &self.tenant
    }
}

fn psql(url: &str, statement: &str) -> anyhow::Result<String> {
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", url, "-c", statement]);
    process::check(&mut command, Duration::from_secs(60))
}

/// A runtime all of whose threads are inside: servers it starts are, too.
fn runtime_inside(inside: &Namespace) -> anyhow::Result<tokio::runtime::Runtime> {
    let file = File::open(format!("/run/netns/{}", inside.name()))?;
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .on_thread_start(move || {
            // Outside, every use of the runtime would fail at once, which no test could overlook.
            let _ = setns(&file, CloneFlags::CLONE_NEWNET);
        })
        .build()?)
}

/// Starts the watcher: when this process ends without having said `done`, it takes the site down.
fn watch(unique: &str, dir: &Path) -> anyhow::Result<Child> {
    let script = r#"
trap '' INT TERM HUP
read -r word
[ "$word" != done ] || exit 0
for name in control-1 control-2 worker-1 worker-2 outside link; do
  for pid in $(ip netns pids "$1-$name"); do kill -KILL "$pid"; done
done
for file in /proc/[0-9]*/fd/*; do
  case $(readlink "$file") in "$2"/*) pid=${file#/proc/}; kill -KILL "${pid%%/*}" ;; esac
done
for name in control-1 control-2 worker-1 worker-2 outside link; do ip netns del "$1-$name"; done
rm -rf "$2"
"#;
    process::watcher(script, &[unique.as_ref(), dir.as_ref()])
}
