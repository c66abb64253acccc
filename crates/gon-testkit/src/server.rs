//! A PostgreSQL server of a test's own, to be killed, paused and changed: unlike the shared one it also listens on TCP, so
//! that a fault proxy can stand before it, and what it has acknowledged is written before it says so.
//!
//! Whatever ends the postmaster, its watcher starts it again at once, as a supervisor would.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use gon_store::Store;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::postgres::{TestDatabase, become_user, initdb, server_binaries, unprivileged};

/// The server. Gone, with its files, when the test process is.
#[derive(Debug)]
pub struct PostgresServer {
    directory: PathBuf,
    port: u16,
    watcher: Child,
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

/// Starts a server with one empty, migrated database.
///
/// # Panics
/// When it cannot be started: a test without its server is a failed test.
#[expect(clippy::panic, reason = "test support: the caller is a test")]
pub async fn postgres_server() -> PostgresServer {
    match PostgresServer::start().await {
        Ok(server) => server,
        Err(error) => panic!("no PostgreSQL server: {error:#}"),
    }
}

impl PostgresServer {
    async fn start() -> anyhow::Result<Self> {
        let binaries = server_binaries()?;
        let directory = tempfile::Builder::new().prefix("gon-pg-").tempdir()?.keep();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700))?;
        let user = unprivileged("postgres")?;
        if let Some((uid, gid)) = user {
            chown(&directory, Some(uid), Some(gid))?;
        }
        initdb(&binaries, &directory.join("data"), user)?;
        let [port] = crate::ports::free()?;
        let script = r#"
trap '' INT TERM HUP
(
  while [ ! -e "$2/stop" ]; do
    "$1" -D "$2/data" -k "$2" -p "$3" -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=100 \
      -c shared_buffers=32MB -c log_min_messages=fatal -c unix_socket_permissions=0777 </dev/null >>"$2/log" 2>&1
    sleep 0.1
  done
) &
supervisor=$!
read -r _
: >"$2/stop"
kill -QUIT "$(head -n 1 "$2/data/postmaster.pid")"
wait $supervisor
rm -rf "$2"
"#;
        let mut watcher = Command::new("/bin/sh");
        watcher.args(["-c", script, "gon-testkit"]).arg(binaries.join("postgres")).arg(&directory);
        watcher.arg(port.to_string());
        become_user(&mut watcher, user);
        let watcher = watcher
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("the watcher")?;
        let server = Self { directory, port, watcher };
        let admin = server.url(port, "postgres");
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = gon_store::admin::create_database(&admin, "gon", None).await {
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(server.directory.join("log")).unwrap_or_default();
                return Err(error).context(format!("PostgreSQL does not answer: {log}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let store = Store::connect(&server.url(port, "gon"), 1).await?;
        store.migrate().await?;
        store.close().await;
        Ok(server)
    }

    fn url(&self, port: u16, database: &str) -> String {
        format!("postgres://gon@127.0.0.1:{port}/{database}?sslmode=disable")
    }

    /// Where it listens, on the loopback address.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The database with a pool of so many connections, over `port`: the server's own, or that of a proxy before it.
    pub async fn database(&self, port: u16, connections: u32) -> anyhow::Result<TestDatabase> {
        let url = self.url(port, "gon");
        Ok(TestDatabase::borrowed(Store::connect(&url, connections).await?, url))
    }

    fn postmaster(&self) -> anyhow::Result<Pid> {
        let path = self.directory.join("data/postmaster.pid");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        match text.lines().next().map(str::parse) {
            Some(Ok(pid)) => Ok(Pid::from_raw(pid)),
            _ => bail!("{} has no process id", path.display()),
        }
    }

    /// `kill -9` of the postmaster. It is started again at once; its processes have to end first.
    pub fn kill(&self) -> anyhow::Result<()> {
        kill(self.postmaster()?, Signal::SIGKILL).context("the postmaster")
    }

    /// Sets parameters, as lines of `postgresql.conf`, instead of those that were set before; they hold within moments.
    pub fn configure(&self, lines: &str) -> anyhow::Result<()> {
        let path = self.directory.join("data/postgresql.auto.conf");
        std::fs::write(&path, lines).with_context(|| path.display().to_string())?;
        kill(self.postmaster()?, Signal::SIGHUP).context("the postmaster")
    }
}
