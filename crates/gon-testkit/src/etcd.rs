//! Throw-away etcd servers: one member or a cluster of three, on private ports of the loopback, in a directory of
//! their own. A test can kill, stop, pause, start again and empty each member.
//!
//! Everything is synced to disk as in production (etcd 3.4 cannot do otherwise); elections are quick.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ports;

/// How long a member or the cluster may take to do something.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often we look whether it has.
const LOOK: Duration = Duration::from_millis(20);
/// Certificates of the servers, as PEM. Clients need one from the same authority.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The authority.
    pub ca: String,
    /// The members' certificate, for 127.0.0.1.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// A running cluster. It ends, and its files go, when this is dropped or the process ends in any way.
#[derive(Debug)]
pub struct Etcd {
    directory: PathBuf,
    members: Vec<Member>,
    tls: bool,
    /// Where clients come to.
    address: std::net::Ipv4Addr,
    /// Closing its standard input, which the end of this process does, makes it clean up.
    watcher: Option<(Child, ChildStdin)>,
}

#[derive(Debug)]
struct Member {
    name: String,
    client: u16,
    peer: u16,
    metrics: u16,
    process: Option<Child>,
}

/// One member.
///
/// # Panics
/// When it cannot be started: a test without its server is a failed test.
pub async fn one() -> Etcd {
    or_panic(Etcd::start(1, None).await)
}

/// A cluster of three.
///
/// # Panics
/// As [`one`].
pub async fn three() -> Etcd {
    or_panic(Etcd::start(3, None).await)
}

/// One member that wants certificates of its clients.
///
/// # Panics
/// As [`one`].
pub async fn with_tls(tls: &Tls) -> Etcd {
    or_panic(Etcd::start(1, Some(tls)).await)
}

/// One member on every address of the network namespace it is started in; clients come to `address`, for which the
/// certificate must be.
///
/// # Panics
/// As [`one`].
pub async fn at(address: std::net::Ipv4Addr, tls: &Tls) -> Etcd {
    let start = async {
        let mut cluster = Etcd::prepare(1, Some(tls))?;
        cluster.address = address;
        cluster.start_all().await?;
        Ok(cluster)
    };
    or_panic(start.await)
}

#[expect(clippy::panic, reason = "test support: the caller is a test")]
fn or_panic<T>(result: anyhow::Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("throw-away etcd: {error:#}"),
    }
}

impl Etcd {
    async fn start(count: usize, tls: Option<&Tls>) -> anyhow::Result<Self> {
        let mut last = None;
        // Somebody else may take a port between our looking and etcd's binding.
        for _ in 0..3 {
            let mut cluster = Self::prepare(count, tls)?;
            match cluster.start_all().await {
                Ok(()) => return Ok(cluster),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("not started")))
    }

    fn prepare(count: usize, tls: Option<&Tls>) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("gon-etcd-").tempdir()?.keep();
        let watcher = watch(&directory)?;
        if let Some(tls) = tls {
            for (name, text) in
                [("ca.crt", &tls.ca), ("server.crt", &tls.certificate), ("server.key", &tls.key)]
            {
                std::fs::write(directory.join(name), text)?;
            }
        }
        let mut ports = ports::free::<9>()?.into_iter();
        let mut port = || ports.next().context("not enough ports");
        let mut members = Vec::new();
        for number in 1..=count {
            members.push(Member {
                name: format!("m{number}"),
                client: port()?,
                peer: port()?,
                metrics: port()?,
                process: None,
            });
        }
        Ok(Self {
            directory,
            members,
            tls: tls.is_some(),
            address: std::net::Ipv4Addr::LOCALHOST,
            watcher: Some(watcher),
        })
    }

    async fn start_all(&mut self) -> anyhow::Result<()> {
        for index in 0..self.members.len() {
            self.spawn(index)?;
        }
        for index in 0..self.members.len() {
            self.until_ready(index).await?;
        }
        Ok(())
    }

    /// URLs for clients, one for each member.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        let scheme = if self.tls { "https" } else { "http" };
        self.members.iter().map(|m| format!("{scheme}://{}:{}", self.address, m.client)).collect()
    }

    /// Kills a member (`kill -9`).
    pub fn kill(&mut self, index: usize) {
        or_panic(self.end(index, Signal::SIGKILL));
    }

    /// Stops a member cleanly and waits for that.
    pub fn stop(&mut self, index: usize) {
        or_panic(self.end(index, Signal::SIGTERM));
    }

    /// Stops a member's clock: it keeps its connections and answers nothing.
    pub fn pause(&self, index: usize) {
        or_panic(self.signal(index, Signal::SIGSTOP));
    }

    /// Lets a paused member go on.
    pub fn resume(&self, index: usize) {
        or_panic(self.signal(index, Signal::SIGCONT));
    }

    /// Starts a member that was killed or stopped. Whether it serves depends on the others ([`Self::ready`]).
    pub fn restart(&mut self, index: usize) {
        or_panic(self.spawn(index));
    }

    /// Removes what a member that is not running has stored. For a whole cluster: a single empty member is not one
    /// that the others know.
    pub fn wipe(&mut self, index: usize) {
        let member = &self.members[index];
        assert!(member.process.is_none(), "it runs");
        let data = self.directory.join(&member.name);
        or_panic(std::fs::remove_dir_all(&data).with_context(|| data.display().to_string()));
    }

    /// Waits until every member that runs knows a leader.
    pub async fn ready(&self) {
        for index in (0..self.members.len()).filter(|i| self.members[*i].process.is_some()) {
            or_panic(self.until_ready(index).await);
        }
    }

    /// The member that leads, once there is one.
    pub async fn leader(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leads = |member: &&Member| {
                member.process.is_some()
                    && get(member.metrics, "/metrics")
                        .is_ok_and(|text| text.contains("\netcd_server_is_leader 1\n"))
            };
            if let Some(index) = self.members.iter().position(|m| leads(&m)) {
                return index;
            }
            assert!(Instant::now() < deadline, "no member leads");
            tokio::time::sleep(LOOK).await;
        }
    }

    fn spawn(&mut self, index: usize) -> anyhow::Result<()> {
        let url = |scheme: &str, port: u16| format!("{scheme}://127.0.0.1:{port}");
        let cluster: Vec<String> =
            self.members.iter().map(|m| format!("{}={}", m.name, url("http", m.peer))).collect();
        let member = &self.members[index];
        assert!(member.process.is_none(), "it runs already");
        let scheme = if self.tls { "https" } else { "http" };
        let client = format!("{scheme}://{}:{}", self.address, member.client);
        let listen = match self.address.is_loopback() {
            true => client.clone(),
            false => format!("{scheme}://0.0.0.0:{}", member.client),
        };
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.join(format!("{}.log", member.name)))?;
        let mut etcd = Command::new("etcd");
        etcd.args(["--name", &member.name, "--data-dir", &member.name])
            .args(["--listen-client-urls", &listen, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &url("http", member.peer)])
            .args(["--initial-advertise-peer-urls", &url("http", member.peer)])
            .args(["--listen-metrics-urls", &url("http", member.metrics)])
            .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"])
            .args(["--initial-cluster-token", &self.directory.display().to_string()])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(["--logger", "zap", "--log-level", "warn"]);
        if self.tls {
            etcd.args(["--cert-file", "server.crt", "--key-file", "server.key"]).args([
                "--trusted-ca-file",
                "ca.crt",
                "--client-cert-auth",
            ]);
        }
        // A process group of its own: an interrupt at the terminal is for the test, whose end ends the members.
        let process = etcd
            .current_dir(&self.directory)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("etcd (Debian: etcd-server)")?;
        std::fs::write(self.pid_file(index), process.id().to_string())?;
        self.members[index].process = Some(process);
        Ok(())
    }

    fn pid_file(&self, index: usize) -> PathBuf {
        self.directory.join(format!("{}.pid", self.members[index].name))
    }

    fn signal(&self, index: usize, signal: Signal) -> anyhow::Result<()> {
        let process = self.members[index].process.as_ref().context("it does not run")?;
        Ok(kill(Pid::from_raw(i32::try_from(process.id())?), signal)?)
    }

    fn end(&mut self, index: usize, signal: Signal) -> anyhow::Result<()> {
        self.signal(index, signal)?;
        let mut process = self.members[index].process.take().context("it does not run")?;
        process.wait()?;
        let _ = std::fs::remove_file(self.pid_file(index));
        Ok(())
    }

    async fn until_ready(&self, index: usize) -> anyhow::Result<()> {
        let log = self.directory.join(format!("{}.log", self.members[index].name));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let member = &self.members[index];
            if get(member.metrics, "/health").is_ok_and(|text| text.contains(r#""health":"true""#)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("it does not serve: {}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(mut process) = member.process.take() {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        if let Some((mut watcher, stdin)) = self.watcher.take() {
            drop(stdin);
            let _ = watcher.wait();
        }
    }
}

/// What outlives us by as long as it takes to clean up. It ends only processes that were started in this directory.
fn watch(directory: &Path) -> anyhow::Result<(Child, ChildStdin)> {
    let script = r#"
trap '' INT TERM HUP
read -r _
for file in "$1"/*.pid; do
  [ -e "$file" ] || continue
  read -r pid <"$file"
  [ "$(readlink "/proc/$pid/cwd")" = "$1" ] && kill -KILL "$pid" && sleep 0.2
done
rm -rf "$1"
"#;
    let mut watcher = Command::new("/bin/sh")
        .args(["-c", script, "gon-testkit"])
        .arg(directory)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("the watcher")?;
    let stdin = watcher.stdin.take().context("the watcher's standard input")?;
    Ok((watcher, stdin))
}

/// One answer of a member's plain port, with its head.
fn get(port: u16, path: &str) -> std::io::Result<String> {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
