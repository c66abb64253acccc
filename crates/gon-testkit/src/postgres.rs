//! The cluster: private unix socket, no network, no fsync (but for whoever measures), in a temporary directory, run by
//! `postgres` when root.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use gon_store::Store;

/// A database of its own for one test, with all migrations applied. Given back when dropped.
#[derive(Debug)]
pub struct TestDatabase {
    /// The door to it.
    pub store: Store,
    /// Its URL, for programs that open their own door.
    pub url: String,
    name: String,
}

impl TestDatabase {
    /// A database that belongs to somebody else.
    pub(crate) fn borrowed(store: Store, url: String) -> Self {
        Self { store, url, name: String::new() }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if self.name.is_empty() {
            return;
        }
        if let Ok(mut released) = RELEASED.lock() {
            released.push(std::mem::take(&mut self.name));
        }
    }
}

/// Databases that no test uses any more; the next one that is made removes them.
static RELEASED: Mutex<Vec<String>> = Mutex::new(Vec::new());
static CLUSTER: tokio::sync::OnceCell<Cluster> = tokio::sync::OnceCell::const_new();

/// Settings of a PostgreSQL whose data nobody wants back.
const THROW_AWAY: &str = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off";
static DURABLE: AtomicBool = AtomicBool::new(false);

/// From now on PostgreSQL is started as its users run it, with every commit on its disk: for whoever measures it. Without
/// effect on one that this process has started before.
pub fn durable() {
    DURABLE.store(true, Ordering::Relaxed);
}

/// Name of the database every test's is a copy of.
const TEMPLATE: &str = "gon_template";

struct Cluster {
    directory: PathBuf,
    /// Closing its standard input, which the end of this process does, stops the cluster.
    _watcher: Child,
}

/// How long a test waits for a connection. The product refuses a request after 650 ms, which on a machine that builds and
/// tests at once says nothing of the product; who tests that refusal connects as the product does (`Store::connect`).
const PATIENCE: Duration = Duration::from_secs(20);

/// A new, empty, migrated database with a pool of eight connections, for which tests wait as long as it takes.
///
/// # Panics
/// When PostgreSQL cannot be started: a test without its database is a failed test.
#[expect(clippy::panic, reason = "test support: the caller is a test")]
pub async fn database() -> TestDatabase {
    match new_database().await {
        Ok(database) => database,
        Err(error) => panic!("no throw-away PostgreSQL: {error:#}"),
    }
}

async fn new_database() -> anyhow::Result<TestDatabase> {
    let cluster = CLUSTER.get_or_try_init(Cluster::start).await?;
    let admin = cluster.url("postgres");
    let released = RELEASED.lock().map(|mut names| std::mem::take(&mut *names)).unwrap_or_default();
    for name in released {
        gon_store::admin::drop_database(&admin, &name).await?;
    }
    let name = format!("t_{}", uuid::Uuid::now_v7().simple());
    gon_store::admin::create_database(&admin, &name, Some(TEMPLATE)).await?;
    let url = cluster.url(&name);
    let store = Store::connect_patient(&url, 8, PATIENCE).await?;
    Ok(TestDatabase { store, url, name })
}

impl Cluster {
    fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user=gon", self.directory.display())
    }

    async fn start() -> anyhow::Result<Self> {
        let binaries = server_binaries()?;
        let directory = tempfile::Builder::new().prefix("gon-pg-").tempdir()?.keep();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700))?;
        let user = unprivileged("postgres")?;
        if let Some((uid, gid)) = user {
            chown(&directory, Some(uid), Some(gid))?;
        }
        let data = directory.join("data");
        initdb(&binaries, &data, user)?;
        // The watcher outlives us by as long as it takes to clean up. It knows the postmaster by its process id.
        let script = r#"
"$1" -D "$2/data" -k "$2" $3 -c listen_addresses= \
  -c max_connections=300 -c shared_buffers=64MB -c autovacuum=off -c log_min_messages=fatal -c unix_socket_permissions=0777 \
  </dev/null >"$2/log" 2>&1 &
postmaster=$!
trap '' INT TERM HUP
read -r _
kill -QUIT $postmaster
wait $postmaster
rm -rf "$2"
"#;
        let mut watcher = Command::new("/bin/sh");
        watcher.args(["-c", script, "gon-testkit"]).arg(binaries.join("postgres")).arg(&directory);
        watcher.arg(if DURABLE.load(Ordering::Relaxed) { "" } else { THROW_AWAY });
        become_user(&mut watcher, user);
        // Its own process group: an interrupt typed at the terminal must not stop it before it has cleaned up.
        let watcher = watcher
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("the watcher")?;
        let cluster = Self { directory, _watcher: watcher };
        cluster.prepare_template().await?;
        Ok(cluster)
    }

    async fn prepare_template(&self) -> anyhow::Result<()> {
        let admin = self.url("postgres");
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = gon_store::admin::create_database(&admin, TEMPLATE, None).await {
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                return Err(error).context(format!("PostgreSQL does not answer: {log}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let store = Store::connect_patient(&self.url(TEMPLATE), 1, PATIENCE).await?;
        store.migrate().await?;
        store.close().await;
        Ok(())
    }
}

/// Makes a cluster in `data`, owned by `user`.
pub(crate) fn initdb(binaries: &Path, data: &Path, user: Option<(u32, u32)>) -> anyhow::Result<()> {
    let mut initdb = Command::new(binaries.join("initdb"));
    initdb
        .args(["--no-sync", "--no-instructions", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"])
        .args(["--username=gon", "--pgdata"])
        .arg(data);
    become_user(&mut initdb, user);
    let output = initdb.current_dir("/").output().context("initdb")?;
    if !output.status.success() {
        bail!("initdb: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// The newest server binaries: Debian keeps them out of the path.
pub(crate) fn server_binaries() -> anyhow::Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, path)| path.join("postgres").exists())
        .collect();
    versions.sort();
    if let Some((_, path)) = versions.pop() {
        return Ok(path);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
        .context("no PostgreSQL server binaries in /usr/lib/postgresql or in the path")
}

/// Whom to run a server as that refuses root, or should not have it: nobody else when we are not root.
pub(crate) fn unprivileged(name: &str) -> anyhow::Result<Option<(u32, u32)>> {
    use std::os::unix::fs::MetadataExt;
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let users = std::fs::read_to_string(Path::new("/etc/passwd"))?;
    let entry = users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name) && fields.len() >= 4)
        .with_context(|| format!("there is no user '{name}' to run its server as"))?;
    Ok(Some((entry[2].parse()?, entry[3].parse()?)))
}

pub(crate) fn become_user(command: &mut Command, user: Option<(u32, u32)>) {
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command.env_remove("PGDATA").env_remove("PGHOST").env_remove("PGPORT");
}
