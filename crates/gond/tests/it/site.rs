//! One server with everything on it: the seven services as processes, TLS between them, PostgreSQL, RabbitMQ and etcd of
//! its own behind gates that can be shut, all in a network namespace of a test's own.
//!
//! Promises that nothing is left, however the test process ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gon_testkit::etcd::{self, Etcd};
use gon_testkit::proxy::{End, Proxy};
use gon_testkit::rabbitmq::Broker;
use gon_testkit::{PostgresServer, postgres_server};
use gon_tls::{Authority, Identity, Role, TlsDir};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The seven services, those of the control plane first.
pub const SERVICES: [Role; 7] = [
    Role::ApiServer,
    Role::NetworkController,
    Role::InstanceManager,
    Role::HypervisorAgent,
    Role::NetworkAgent,
    Role::ContainerAgent,
    Role::StorageAgent,
];
/// Those that talk to PostgreSQL and RabbitMQ.
pub const CONTROL: &[Role] = &[Role::ApiServer, Role::NetworkController, Role::InstanceManager];
/// Name of the server.
pub const NAME: &str = "server-1";
/// How long something may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const PASSWORD: &str = "correct horse battery staple";

/// The port of a service.
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

/// What a service is told besides a site's settings.
pub fn gond(role: Role, data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gond"));
    command.args([role.as_str(), "--data-dir"]).arg(data_dir).current_dir("/").stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GON_") {
            command.env_remove(name);
        }
    }
    // The machine's own configuration is none of ours.
    command.env_remove("NOTIFY_SOCKET").env("GON_NODE_NAME", NAME).args(["--config", "/dev/null"]);
    command
}

/// Looks until it is so.
///
/// # Panics
/// With the last answer, when it does not become so in time.
pub fn until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Ok(value) => return value,
            Err(why) => assert!(Instant::now() < deadline, "{what}: not within {patience:?}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Ends everything in a network namespace when whoever holds its standard input is gone.
struct Watcher(Child);

impl Watcher {
    fn start(dir: &Path) -> Self {
        let script = r#"
trap '' INT TERM HUP
read -r inside
read -r word
[ "$word" = done ] || sleep 3
for process in /proc/[0-9]*; do
  [ "$(readlink "$process/ns/net")" = "$inside" ] && kill -KILL "${process#/proc/}"
done
rm -rf "$1"
"#;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, "gon-test-watcher"]).arg(dir).process_group(0).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
    fn say(&mut self, word: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{word}").unwrap();
    }
}

/// A service that runs.
pub struct Process {
    child: Child,
    said: Arc<Mutex<Vec<(Instant, String)>>>,
    /// Where it writes.
    pub log: PathBuf,
    /// When it was started.
    pub started: Instant,
}

impl Process {
    fn start(mut command: Command, dir: &Path, name: &str) -> Self {
        let socket = dir.join(format!("notify-{name}"));
        let _ = std::fs::remove_file(&socket);
        let listener = UnixDatagram::bind(&socket).unwrap();
        listener.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let said: Arc<Mutex<Vec<(Instant, String)>>> = Arc::default();
        let heard = Arc::downgrade(&said);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Some(heard) = heard.upgrade() {
                if let Ok(length) = listener.recv(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    heard.lock().unwrap().push((Instant::now(), text));
                }
            }
        });
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        command.env("NOTIFY_SOCKET", &socket).process_group(0);
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: command.spawn().unwrap(), said, log, started: Instant::now() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// When it told the service manager so, each time.
    pub fn told(&self, word: &str) -> Vec<Instant> {
        self.said.lock().unwrap().iter().filter(|(_, said)| said == word).map(|(at, _)| *at).collect()
    }

    /// Whether it still runs; its end otherwise.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Its log, line by line.
    ///
    /// # Panics
    /// When a line is not one JSON object with what every line has.
    pub fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| {
                let value: Value = serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("{}: {error}: {line}", self.log.display()));
                for field in ["time", "level", "service", "node", "target", "message"] {
                    assert!(value[field].is_string(), "no {field} in {line}");
                }
                value
            })
            .collect()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Asks it to end; how it did and after how long.
    pub fn end(mut self) -> (ExitStatus, Duration, Vec<String>) {
        let begin = Instant::now();
        self.signal(Signal::SIGTERM);
        let status = until("a service ends", Duration::from_secs(20), || {
            self.child.try_wait().unwrap().ok_or_else(|| self.tail())
        });
        let said = self.said.lock().unwrap().iter().map(|(_, said)| said.clone()).collect();
        (status, begin.elapsed(), said)
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let from = text.lines().count().saturating_sub(12);
        text.lines().skip(from).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the services depend on, each behind a gate.
pub struct Backing {
    pub etcd: Etcd,
    pub broker: Broker,
    pub postgres: PostgresServer,
    /// PostgreSQL, RabbitMQ, etcd.
    pub gates: [Proxy; 3],
    database_url: String,
    bus_url: String,
}

/// Names of the gates, as readiness calls what is behind them.
pub const GATES: [&str; 3] = ["postgresql", "rabbitmq", "etcd"];

/// The server.
pub struct Site {
    pub dir: PathBuf,
    pub runtime: tokio::runtime::Runtime,
    pub running: BTreeMap<Role, Process>,
    pub settings: BTreeMap<String, String>,
    pub backing: Option<Backing>,
    watcher: Watcher,
}

/// Lets a story happen on a server of its own, in a thread of its own: it changes its network namespace.
pub fn tell(story: impl FnOnce(&mut Site) + Send) {
    std::thread::scope(|scope| {
        let told = scope.spawn(|| story(&mut Site::new())).join();
        if let Err(payload) = told {
            std::panic::resume_unwind(payload);
        }
    });
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("gond-it-").tempdir_in("/tmp").unwrap().keep();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o711)).unwrap();
        let mut watcher = Watcher::start(&dir);
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        let inside = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        watcher.say(&inside.to_string_lossy());
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        // Its threads are made by this one, so they are inside.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut site = Self {
            runtime,
            running: BTreeMap::new(),
            settings: BTreeMap::new(),
            backing: None,
            watcher,
            dir,
        };
        let data = site.data();
        std::fs::create_dir(&data).unwrap();
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o711)).unwrap();
        site.set("GON_IMAGES_DIR", site.dir.join("images").to_string_lossy());
        site.set("GON_NETWORK_SWITCH", "private");
        site.set("GON_NETWORK_DATAPATH", "netdev");
        site.set("GON_COMPUTE_ACCELERATOR", "tcg");
        site.set("GON_CONTAINER_SOCKET", site.dir.join("docker.sock").to_string_lossy());
        site.set("GON_ADMIN_PASSWORD", PASSWORD);
        site.set("GON_TLS_API", "on");
        std::fs::create_dir(site.dir.join("images")).unwrap();
        site
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.settings.insert(name.to_owned(), value.into());
    }

    /// Certificates for every service; what the control plane has to know of them, as SQL.
    pub fn certify(&self) -> (etcd::Tls, String) {
        let authority = Authority::create().unwrap();
        let tls = TlsDir::new(&self.data().join("tls"));
        tls.make().unwrap();
        tls.trust(&authority.certificate_pem()).unwrap();
        tls.write(&tls.ca_key(), &authority.key_pem(), 0o600).unwrap();
        let hosts = [NAME.to_owned(), "127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut rows = Vec::new();
        for role in SERVICES.into_iter().chain([Role::Cluster]) {
            let identity = Identity::new(role, NAME).unwrap();
            let issued = tls.issue(&authority, &identity, &hosts, Duration::from_secs(86_400)).unwrap();
            rows.push(format!(
                "('{}', '{role}', '{NAME}', '{}', to_timestamp({}))",
                issued.serial,
                authority.sha256(),
                issued.not_after.unix_timestamp()
            ));
        }
        let (certificate, key) = tls.load(Role::Cluster).unwrap();
        let record = format!(
            "insert into certificates (serial, role, name, authority_sha256, not_after) values {}",
            rows.join(", ")
        );
        (etcd::Tls { ca: authority.certificate_pem(), certificate, key }, record)
    }

    /// Certificates, and the servers that the services depend on; the gates are open.
    pub fn prepare(&mut self) {
        let (tls, record) = self.certify();
        let backing = self.runtime.block_on(async {
            let (postgres, etcd, broker) =
                tokio::join!(postgres_server(), etcd::with_tls(&tls), Broker::start(""));
            let broker = broker.unwrap();
            let vhost = broker.vhost().await.unwrap();
            let gate = async |port: u16| {
                let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                Proxy::start(server, None, 1).await.unwrap()
            };
            let etcd_port: u16 = etcd.endpoints()[0].rsplit(':').next().unwrap().parse().unwrap();
            let gates = [gate(postgres.port()).await, gate(broker.port()).await, gate(etcd_port).await];
            let database_url = postgres.database(postgres.port(), 1).await.unwrap().url.clone();
            Backing { etcd, broker, postgres, gates, database_url, bus_url: vhost.url }
        });
        let swap = |url: &str, from: u16, gate: usize| {
            let to = backing.gates[gate].address().port();
            url.replace(&format!("127.0.0.1:{from}"), &format!("127.0.0.1:{to}"))
        };
        let database = swap(&backing.database_url, backing.postgres.port(), 0);
        let bus = swap(&backing.bus_url, backing.broker.port(), 1);
        let cluster = format!("https://127.0.0.1:{}", backing.gates[2].address().port());
        self.backing = Some(backing);
        self.set("GON_DATABASE_URL", database);
        self.set("GON_BUS_URL", bus);
        self.set("GON_CLUSTER_ENDPOINTS", cluster);
        self.sql(&record);
    }

    /// Runs a statement in the site's database; what it prints.
    pub fn sql(&self, statement: &str) -> String {
        let url = &self.backing.as_ref().unwrap().database_url;
        let output = Command::new("psql")
            .args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", url, "-c", statement])
            .output()
            .unwrap();
        assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Shuts or opens a gate; shut, connections are reset and new ones refused.
    pub fn gate(&self, gate: usize, open: bool) {
        let proxy = &self.backing.as_ref().unwrap().gates[gate];
        proxy.refuse(!open);
        if !open {
            proxy.end(End::Reset);
        }
    }

    /// Starts a service; does not wait for it.
    pub fn start(&mut self, role: Role) {
        let mut command = gond(role, &self.data());
        command.envs(&self.settings).env("WATCHDOG_USEC", "6000000");
        if !CONTROL.contains(&role) {
            // An agent has neither.
            command.env_remove("GON_DATABASE_URL").env_remove("GON_BUS_URL");
        }
        let process = Process::start(command, &self.dir, role.as_str());
        assert!(self.running.insert(role, process).is_none(), "{role} runs already");
    }

    /// A service of a data directory of its own, with other settings.
    pub fn start_apart(&self, role: Role, data: &Path, name: &str, settings: &[(&str, &str)]) -> Process {
        let mut command = gond(role, data);
        command.envs(&self.settings).envs(settings.iter().copied());
        Process::start(command, &self.dir, name)
    }

    /// GET of what a service serves to everybody: status, head and body.
    pub fn get(&self, role: Role, path: &str) -> Result<(u16, String, String), String> {
        self.get_at(port(role), path)
    }

    pub fn get_at(&self, port: u16, path: &str) -> Result<(u16, String, String), String> {
        let url = format!("https://127.0.0.1:{port}{path}");
        self.curl(&[&url])
    }

    fn curl(&self, args: &[&str]) -> Result<(u16, String, String), String> {
        let ca = self.data().join("tls/ca.crt");
        let output = Command::new("curl")
            .args(["-sS", "-i", "--http1.1", "-m", "10", "--cacert"])
            .arg(ca)
            .args(args)
            .output()
            .unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").ok_or("no head")?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("no status")?;
        Ok((status, head.to_owned(), body.to_owned()))
    }

    /// What `/readyz` says: status and document.
    pub fn readiness(&self, role: Role) -> Result<(u16, Value), String> {
        let (status, _, body) = self.get(role, "/readyz")?;
        Ok((status, serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?))
    }

    /// Waits until a dependency of a service is as it should be; its readiness then.
    pub fn until_dependency(&self, role: Role, dependency: &str, state: &str) -> (u16, Value) {
        until(&format!("{dependency} of {role} is {state}"), PATIENCE, || {
            let (status, document) = self.readiness(role)?;
            let is = document["dependencies"][dependency]["status"] == state;
            if is { Ok((status, document)) } else { Err(document.to_string()) }
        })
    }

    /// Waits until a service answers that it is ready, or degraded.
    pub fn until_ready(&mut self, role: Role) -> Value {
        let running = self.running.get_mut(&role).unwrap();
        if let Some(status) = running.ended() {
            panic!("{role} ended with {status}: {}", running.tail());
        }
        until(&format!("{role} is ready"), PATIENCE, || match self.readiness(role)? {
            (200, document) => Ok(document),
            (status, document) => Err(format!("{status} {document}")),
        })
    }

    /// A call of the API: status, `x-request-id` and body.
    pub fn call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> (u16, String, Value) {
        let url = format!("https://127.0.0.1:8080/api/v1{path}");
        let bearer = format!("authorization: Bearer {}", token.unwrap_or_default());
        let text = body.map(Value::to_string).unwrap_or_default();
        let mut args = vec!["-X", method, &url];
        if token.is_some() {
            args.extend(["-H", &bearer]);
        }
        if body.is_some() {
            args.extend(["-H", "content-type: application/json", "--data-raw", &text]);
        }
        let (status, head, body) = self.curl(&args).unwrap_or_else(|why| panic!("{method} {path}: {why}"));
        let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap_or_default();
        (status, id.trim().to_owned(), serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    /// A call that must be answered well.
    pub fn must(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> (String, Value) {
        let (status, id, answer) = self.call(method, path, Some(token), body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        (id, answer)
    }

    /// Signs in.
    pub fn token(&self) -> String {
        let body = serde_json::json!({ "username": "admin", "password": PASSWORD });
        let (status, _, answer) = self.call("POST", "/auth/login", None, Some(&body));
        assert_eq!(status, 200, "{answer}");
        answer["access_token"].as_str().unwrap().to_owned()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (role, process) in &self.running {
                eprintln!("──── {role}\n{}", process.tail());
            }
        }
        self.running.clear();
        // The switch and the guests outlive their agents.
        let mut down = Command::new(env!("CARGO_BIN_EXE_gond"));
        down.args(["admin", "down", "--config", "/dev/null", "--data-dir"]).arg(self.data());
        let _ = down.stdin(Stdio::null()).output();
        if let Some(backing) = self.backing.take() {
            let _inside = self.runtime.enter();
            drop(backing);
        }
        self.watcher.say("done");
        let _ = self.watcher.0.wait();
    }
}
