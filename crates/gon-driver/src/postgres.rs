//! The private PostgreSQL of a standalone node.
//!
//! Assumes the system's PostgreSQL programs (14 or newer, below `/usr/lib/postgresql`) and, when we are root, a user
//! `postgres` to run them as, since PostgreSQL refuses to be root. Promises one cluster below the given directory that
//! nobody but we can reach, that a running one of an earlier process is adopted, and that a half-made one never
//! counts.
//!
//! **Who can connect.** Only a unix socket, in a directory of mode 0700 that belongs to the server's user; and on it
//! only `peer` authentication, which asks the kernel who is calling and lets in exactly the user we run as. The
//! directory alone would admit the `postgres` user, and with it every function of the machine's own cluster;
//! a password would have to lie in a file. Both walls cost nothing.
//!
//! **Where the directory is.** A data directory below one that the server's user cannot pass (`/root/x`, mode 0700)
//! is shown to the server at [`INSIDE`] in a mount namespace of its own. Nothing is mounted outside, nobody's
//! permissions are widened, and the mount ends with the server.
//!
//! **Start.** A server that is killed leaves orphans that hold its shared memory for a second or two; a start is
//! refused meanwhile, so starting is tried again until the deadline.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::run::{Cmd, Pid, RunAs, RunError, run, spawn_detached};

/// Where the system keeps its PostgreSQL programs, by version.
const PROGRAMS: &str = "/usr/lib/postgresql";
/// The oldest version that is good enough (Ubuntu 22.04's).
const OLDEST: u32 = 14;
/// Where a server that cannot pass to its directory finds it.
const INSIDE: &str = "/mnt";
/// The database, and the role that owns it.
pub const DATABASE: &str = "gon";
/// How long a start may take, crash recovery included.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// The longest name of a file that PostgreSQL puts beside its socket.
const SOCKET_NAME: &str = ".s.PGSQL.5432.lock";

/// How hard the server tries not to lose anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// What was committed stays, also when the power fails.
    Full,
    /// For tests: nothing is synced.
    None,
}

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Connections are cut, work is rolled back, everything is written (SIGINT).
    Fast,
    /// Everything ends at once; the next start recovers (SIGQUIT).
    Immediate,
}

/// What to run, and where.
#[derive(Debug, Clone)]
pub struct Config {
    /// Everything of the cluster is below this directory, which is made.
    pub dir: PathBuf,
    /// Durability.
    pub durability: Durability,
    /// How many connections it takes.
    pub max_connections: u32,
}

impl Config {
    /// For real use.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), durability: Durability::Full, max_connections: 100 }
    }
    /// For tests: fast, and gone with the power.
    #[must_use]
    pub fn for_tests(dir: &Path) -> Self {
        Self { durability: Durability::None, ..Self::new(dir) }
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The programs are missing.
    #[error("no PostgreSQL {wanted} below {PROGRAMS}: install the package postgresql")]
    NotInstalled {
        /// Which version would do.
        wanted: String,
    },
    /// There is no user to run it as.
    #[error("PostgreSQL cannot run as root, and there is no user to run it as")]
    NoUser(#[source] io::Error),
    /// A program of PostgreSQL failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The directory could not be prepared.
    #[error("preparing {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not come up.
    #[error("PostgreSQL does not answer ({why}); the end of {log}: {tail}")]
    NotReady {
        /// What was last seen.
        why: String,
        /// Its log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// It does not end.
    #[error("PostgreSQL (process {0}) does not end")]
    Stuck(i32),
}

/// A running server of ours.
#[derive(Debug, Clone)]
pub struct Postgres {
    socket_dir: PathBuf,
    short_socket_dir: bool,
    pid: Pid,
    adopted: bool,
}

impl Postgres {
    /// Adopts the running server below `config.dir`, or makes the cluster if there is none, and starts it. Ready for
    /// connections when this returns.
    pub async fn adopt_or_start(config: &Config) -> Result<Self, PostgresError> {
        let place = Place::prepare(config)?;
        if let Some(pid) = place.running() {
            if place.wait_ready(&pid, START_DEADLINE).await.is_ok() {
                return Ok(place.server(pid, true));
            }
            tracing::warn!(pid = pid.pid, "the running PostgreSQL does not answer; replacing it");
            stop(&pid, Stop::Immediate).await?;
        }
        place.make_cluster(config).await?;
        place.write_access()?;
        let pid = place.start(config).await?;
        Ok(place.server(pid, false))
    }

    /// The running server below `dir`, if there is one: for tearing down.
    #[must_use]
    pub fn find(dir: &Path) -> Option<Self> {
        let place = Place::at(dir);
        let pid = place.running()?;
        Some(place.server(pid, true))
    }

    /// The directory of its socket: the `host` of a connection.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }
    /// A connection URL. The directory is percent-encoded, as a host.
    #[must_use]
    pub fn url(&self) -> String {
        use std::fmt::Write as _;
        use std::os::unix::ffi::OsStrExt as _;
        let mut host = String::new();
        for byte in self.socket_dir.as_os_str().as_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    host.push(*byte as char)
                }
                _ => {
                    let _ = write!(host, "%{byte:02X}");
                }
            }
        }
        format!("postgres://{DATABASE}@{host}/{DATABASE}")
    }
    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }
    /// Whether it was running before.
    #[must_use]
    pub fn was_adopted(&self) -> bool {
        self.adopted
    }
    /// Stops it and waits until it is gone.
    pub async fn stop(&self, how: Stop) -> Result<(), PostgresError> {
        stop(&self.pid, how).await?;
        if self.short_socket_dir {
            let _ = std::fs::remove_dir_all(&self.socket_dir);
        }
        Ok(())
    }
}

async fn stop(pid: &Pid, how: Stop) -> Result<(), PostgresError> {
    let sent = |signal| {
        pid.signal(signal)
            .map_err(|source| PostgresError::Io { path: format!("/proc/{}", pid.pid).into(), source })
    };
    if how == Stop::Fast {
        sent(Signal::INT)?;
        if pid.wait_gone(Duration::from_secs(30)).await {
            return Ok(());
        }
    }
    sent(Signal::QUIT)?;
    if pid.wait_gone(Duration::from_secs(10)).await { Ok(()) } else { Err(PostgresError::Stuck(pid.pid)) }
}

/// Where everything of a cluster is.
struct Place {
    dir: PathBuf,
    data: PathBuf,
    log: PathBuf,
    socket_dir: PathBuf,
    programs: PathBuf,
    run_as: Option<RunAs>,
    /// Whether the server needs [`INSIDE`] to find `dir`.
    hidden: bool,
}

impl Place {
    fn server(&self, pid: Pid, adopted: bool) -> Postgres {
        let short_socket_dir = self.socket_dir != self.dir;
        Postgres { socket_dir: self.socket_dir.clone(), short_socket_dir, pid, adopted }
    }

    /// Names only; nothing is made.
    fn at(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            data: dir.join("data"),
            log: dir.join("log"),
            socket_dir: crate::ovs::socket_dir(dir, SOCKET_NAME, "postgres"),
            programs: PathBuf::new(),
            run_as: None,
            hidden: false,
        }
    }

    fn prepare(config: &Config) -> Result<Self, PostgresError> {
        let mut place = Self::at(&config.dir);
        place.programs = find_programs(&place.data)?;
        if rustix::process::geteuid().is_root() {
            place.run_as = Some(RunAs::named("postgres").map_err(PostgresError::NoUser)?);
        }
        place.own_dir(&place.dir)?;
        if place.socket_dir != place.dir {
            place.own_dir(&place.socket_dir)?;
        }
        place.hidden = place.run_as.as_ref().is_some_and(|who| !can_pass(&place.dir, who));
        Ok(place)
    }

    /// A directory of mode 0700 that belongs to the server's user.
    fn own_dir(&self, dir: &Path) -> Result<(), PostgresError> {
        let failed = |source| PostgresError::Io { path: dir.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        self.own(dir)?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(failed)
    }

    fn own(&self, path: &Path) -> Result<(), PostgresError> {
        let Some(who) = &self.run_as else { return Ok(()) };
        std::os::unix::fs::lchown(path, Some(who.uid), Some(who.gid))
            .map_err(|source| PostgresError::Io { path: path.to_owned(), source })
    }

    /// A path below `dir` as the server sees it.
    fn seen(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.dir) {
            Ok(rest) if self.hidden => Path::new(INSIDE).join(rest),
            _ => path.to_owned(),
        }
    }

    fn program(&self, name: &str, cwd: &Path) -> Result<Cmd, PostgresError> {
        let mut cmd = Cmd::new(self.programs.join(name)).cwd(self.seen(cwd)).umask(0o077);
        if self.hidden {
            cmd = cmd
                .bind(&self.dir, Path::new(INSIDE))
                .map_err(|source| PostgresError::Io { path: self.dir.clone(), source })?;
        }
        if let Some(who) = &self.run_as {
            cmd = cmd.run_as(who.clone());
        }
        Ok(cmd)
    }

    /// The server that has this cluster open, if any: the process that `postmaster.pid` names, provided that its
    /// working directory is the cluster (a number alone may be anybody's by now).
    fn running(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let pid = Pid::of(text.lines().next()?.trim().parse().ok()?)?;
        let ours = std::fs::metadata(&self.data).ok()?;
        let theirs = std::fs::metadata(format!("/proc/{}/cwd", pid.pid)).ok()?;
        ((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()) && pid.is_alive()).then_some(pid)
    }

    /// `initdb` beside, then renamed: a cluster that is there is whole.
    async fn make_cluster(&self, config: &Config) -> Result<(), PostgresError> {
        if self.data.join("PG_VERSION").exists() {
            return Ok(());
        }
        let beside = self.dir.join("data.new");
        let failed = |source| PostgresError::Io { path: beside.clone(), source };
        match std::fs::remove_dir_all(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut cmd = self
            .program("initdb", &self.dir)?
            .arg("-D")
            .arg(self.seen(&beside))
            .args(["-U", DATABASE, "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums"])
            .args(["--auth-local=peer", "--auth-host=reject"])
            .deadline(Duration::from_secs(120));
        if config.durability == Durability::None {
            cmd = cmd.arg("--no-sync");
        }
        run(cmd).await?;
        let create = format!("CREATE DATABASE {DATABASE};\n");
        let single = self
            .program("postgres", &self.dir)?
            .args(["--single", "-j", "-D"])
            .arg(self.seen(&beside))
            .args(settings(config))
            .arg("postgres")
            .stdin(create)
            .deadline(Duration::from_secs(60));
        run(single).await?;
        std::fs::rename(&beside, &self.data).map_err(failed)?;
        let sync = || std::fs::File::open(&self.dir)?.sync_all();
        sync().map_err(|source| PostgresError::Io { path: self.dir.clone(), source })
    }

    /// Who may connect: rewritten at every start, so that neither an older version's nor anybody's edit lasts.
    fn write_access(&self) -> Result<(), PostgresError> {
        let uid = rustix::process::geteuid().as_raw();
        let name = nix::unistd::User::from_uid(uid.into())
            .ok()
            .flatten()
            .map(|user| user.name)
            .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)))
            .ok_or_else(|| {
                PostgresError::NoUser(io::Error::other(format!("user {uid} has no usable name")))
            })?;
        for (file, text) in [
            ("pg_hba.conf", "local all all peer map=gon\n".to_owned()),
            ("pg_ident.conf", format!("gon {name} {DATABASE}\n")),
        ] {
            let path = self.data.join(file);
            let write = || {
                std::fs::write(&path, &text)?;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            };
            write().map_err(|source| PostgresError::Io { path: path.clone(), source })?;
            self.own(&path)?;
        }
        Ok(())
    }

    async fn start(&self, config: &Config) -> Result<Pid, PostgresError> {
        let until = Instant::now() + START_DEADLINE;
        loop {
            let cmd = self
                .program("postgres", &self.dir)?
                .arg("-D")
                .arg(self.seen(&self.data))
                .arg("-k")
                .arg(self.seen(&self.socket_dir))
                .args(settings(config));
            let failure = match spawn_detached(cmd, &self.log) {
                Ok(pid) => {
                    match self.wait_ready(&pid, until.saturating_duration_since(Instant::now())).await {
                        Ok(()) => return Ok(pid),
                        Err(why) => {
                            // Whatever the reason, a server that we give up must not be left behind.
                            stop(&pid, Stop::Immediate).await?;
                            why
                        }
                    }
                }
                Err(RunError::Spawn { source, .. }) if source.kind() == io::ErrorKind::Other => {
                    source.to_string()
                }
                Err(error) => return Err(error.into()),
            };
            if Instant::now() >= until {
                return Err(PostgresError::NotReady {
                    why: failure,
                    tail: self.log_tail(),
                    log: self.log.clone(),
                });
            }
            tracing::info!(why = failure, "PostgreSQL did not start; trying again");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until a connection succeeds; an error says why the wait ended otherwise.
    async fn wait_ready(&self, pid: &Pid, deadline: Duration) -> Result<(), String> {
        let until = Instant::now() + deadline;
        let socket = self.socket_dir.join(".s.PGSQL.5432");
        loop {
            let path = socket.clone();
            let answer = tokio::task::spawn_blocking(move || knock(&path)).await;
            let why = match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            if !pid.is_alive() {
                return Err("it ended".to_owned());
            }
            if Instant::now() >= until {
                return Err(why);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log_tail(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(1500)..]).into_owned()
    }
}

/// Settings on the command line, so that they are ours whatever a file says.
///
/// Memory is for a laptop: 32 MiB of shared buffers (the working set of a cloud of thousands of resources fits),
/// no parallel query workers, no JIT. Durability is PostgreSQL's best: synchronous commits, full pages, checksums.
fn settings(config: &Config) -> Vec<String> {
    let mut list = vec![
        "listen_addresses=".to_owned(),
        "unix_socket_permissions=0777".to_owned(),
        "port=5432".to_owned(),
        format!("max_connections={}", config.max_connections),
        "shared_buffers=32MB".to_owned(),
        "work_mem=4MB".to_owned(),
        "maintenance_work_mem=32MB".to_owned(),
        "max_worker_processes=2".to_owned(),
        "max_parallel_workers=0".to_owned(),
        "max_parallel_workers_per_gather=0".to_owned(),
        "autovacuum_max_workers=2".to_owned(),
        "jit=off".to_owned(),
        "huge_pages=off".to_owned(),
        "wal_level=replica".to_owned(),
        "max_wal_size=256MB".to_owned(),
        "min_wal_size=32MB".to_owned(),
        "wal_compression=on".to_owned(),
        "timezone=UTC".to_owned(),
        "log_timezone=UTC".to_owned(),
        "log_min_messages=warning".to_owned(),
        "log_checkpoints=off".to_owned(),
    ];
    let (fsync, commit, pages) = match config.durability {
        Durability::Full => ("on", "on", "on"),
        // Commits still reach the kernel before they are acknowledged, so a killed server loses nothing.
        Durability::None => ("off", "on", "off"),
    };
    list.push(format!("fsync={fsync}"));
    list.push(format!("synchronous_commit={commit}"));
    list.push(format!("full_page_writes={pages}"));
    list.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect()
}

/// The programs of the cluster's version, or else the newest that are installed.
fn find_programs(data: &Path) -> Result<PathBuf, PostgresError> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(PROGRAMS)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            (version >= OLDEST && bin.join("initdb").exists() && bin.join("postgres").exists())
                .then_some((version, bin))
        })
        .collect();
    found.sort();
    let made_by = std::fs::read_to_string(data.join("PG_VERSION")).ok();
    match made_by.as_deref().map(str::trim) {
        Some(version) => {
            found.into_iter().find(|(v, _)| v.to_string() == version).map(|(_, bin)| bin).ok_or_else(|| {
                PostgresError::NotInstalled { wanted: format!("{version} (which made this cluster)") }
            })
        }
        None => found
            .pop()
            .map(|(_, bin)| bin)
            .ok_or_else(|| PostgresError::NotInstalled { wanted: format!("{OLDEST} or newer") }),
    }
}

/// Whether the user can walk from the root to `dir` (by mode bits; an ACL that grants more only makes us careful).
fn can_pass(dir: &Path, who: &RunAs) -> bool {
    dir.ancestors().skip(1).all(|parent| {
        let Ok(meta) = std::fs::metadata(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
        else {
            return false;
        };
        let bit = if meta.uid() == who.uid {
            0o100
        } else if meta.gid() == who.gid || who.groups.contains(&meta.gid()) {
            0o010
        } else {
            0o001
        };
        meta.mode() & bit != 0
    })
}

/// Connects as we would, up to "ready for query", and leaves (PostgreSQL frontend/backend protocol 3.0, 55.2).
fn knock(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut body = 196_608u32.to_be_bytes().to_vec();
    for word in ["user", DATABASE, "database", DATABASE, ""] {
        body.extend_from_slice(word.as_bytes());
        body.push(0);
    }
    let length = u32::try_from(body.len() + 4).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&body)?;
    loop {
        let mut header = [0u8; 5];
        stream.read_exact(&mut header)?;
        let [kind, a, b, c, d] = header;
        let length = u32::from_be_bytes([a, b, c, d]).saturating_sub(4) as usize;
        if length > 64 << 10 {
            return Err(io::Error::other("it does not speak PostgreSQL"));
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        match kind {
            b'Z' => {
                stream.write_all(&[b'X', 0, 0, 0, 4])?;
                return Ok(());
            }
            // Authentication: only "you are in" is expected of `peer`.
            b'R' if body != [0; 4] => return Err(io::Error::other("it asks for a password")),
            b'E' => {
                let fields = body.split(|b| *b == 0).filter_map(|f| std::str::from_utf8(f).ok());
                let message = fields.filter(|f| f.starts_with('M')).map(|f| &f[1..]).next();
                return Err(io::Error::other(message.unwrap_or("it refuses us").to_owned()));
            }
            _ => {}
        }
    }
}
