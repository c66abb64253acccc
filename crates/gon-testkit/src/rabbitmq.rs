//! A RabbitMQ of one's own: private ports, directories, cookie and name server, everything on the loopback address, run
//! by `rabbitmq` when root.
//!
//! Starting one takes some seconds, so the tests of a binary share one, each with a virtual host of its own
//! ([`vhost`]); tests that break the broker take turns on a second one ([`exclusive`]). It is spoken to in Erlang, which
//! takes milliseconds where `rabbitmqctl` takes a second.
//!
//! Assumes the server of the distribution (3.9 or newer) with its Erlang. Promises that nothing is left behind, however
//! the test process ends: broker and name server are children of a watcher that ends them by process id and removes
//! their files as soon as the test process is gone.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{MutexGuard, OnceCell};
use tokio::time::Instant;

use crate::ports;
use crate::postgres::unprivileged;

/// How long a broker may take to start on a busy machine.
const START: Duration = Duration::from_secs(90);

static SHARED: OnceCell<Broker> = OnceCell::const_new();
static EXCLUSIVE: OnceCell<tokio::sync::Mutex<Broker>> = OnceCell::const_new();
static VHOSTS: AtomicU32 = AtomicU32::new(0);
static CALLS: AtomicU32 = AtomicU32::new(0);

/// A virtual host of its own for one test, and a user who may do everything in it.
#[derive(Debug, Clone)]
pub struct TestVhost {
    /// Its name.
    pub name: String,
    /// The URL of that user.
    pub url: String,
}

/// A new, empty virtual host on the broker that the tests of this process share.
///
/// # Panics
/// When RabbitMQ cannot be started: a test without its broker is a failed test.
#[expect(clippy::panic, reason = "test support: the caller is a test")]
pub async fn vhost() -> TestVhost {
    let made = async { SHARED.get_or_try_init(|| Broker::start("")).await?.vhost().await };
    match made.await {
        Ok(vhost) => vhost,
        Err(error) => panic!("no throw-away RabbitMQ: {error:#}"),
    }
}

/// The broker of [`vhost`], to ask it something. It must be left as it was found.
///
/// # Panics
/// When RabbitMQ cannot be started.
#[expect(clippy::panic, reason = "test support: the caller is a test")]
pub async fn shared() -> &'static Broker {
    match SHARED.get_or_try_init(|| Broker::start("")).await {
        Ok(broker) => broker,
        Err(error) => panic!("no throw-away RabbitMQ: {error:#}"),
    }
}

/// A second broker for tests that break it: one test at a time has it, and finds it running and without alarms.
///
/// # Panics
/// When RabbitMQ cannot be started.
#[expect(clippy::panic, reason = "test support: the caller is a test")]
pub async fn exclusive() -> MutexGuard<'static, Broker> {
    let made = async {
        let broker = EXCLUSIVE
            .get_or_try_init(|| async { anyhow::Ok(tokio::sync::Mutex::new(Broker::start("").await?)) })
            .await?
            .lock()
            .await;
        broker.thaw().await?;
        broker.restart().await?;
        broker.disk_alarm(false).await?;
        anyhow::Ok(broker)
    };
    match made.await {
        Ok(broker) => broker,
        Err(error) => panic!("no throw-away RabbitMQ to break: {error:#}"),
    }
}

/// A broker. Ended and removed when dropped, or when this process ends.
#[derive(Debug)]
pub struct Broker {
    directory: PathBuf,
    port: u16,
    control_port: u16,
    cookie: String,
    running: AtomicBool,
    watcher: Arc<Mutex<Watcher>>,
}

#[derive(Debug)]
struct Watcher {
    // Closing it ends everything.
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    _process: Child,
}

/// The watcher: does what it reads, and cleans up when there is nothing more to read.
const WATCHER: &str = r#"
exec 2>>"$1/out"
epmd -address 127.0.0.1 -port "$ERL_EPMD_PORT" >/dev/null &
epmd=$!
broker=
# An interrupt typed at the terminal must not end us before we have cleaned up; our children may hear it.
trap '' INT TERM HUP
while read -r order; do
  case $order in
    start) (trap - INT TERM HUP; exec "$2/rabbitmq-server" </dev/null >>"$1/out" 2>&1) & broker=$! ;;
    stop) kill -TERM $broker; wait $broker; broker= ;;
    kill) kill -KILL $broker; wait $broker; broker= ;;
    freeze) [ -z "$broker" ] || kill -STOP $broker ;;
    thaw) [ -z "$broker" ] || kill -CONT $broker ;;
  esac
  echo "$order"
done
[ -z "$broker" ] || kill -KILL $broker
kill -KILL $epmd
wait
rm -rf "$1"
"#;

impl Broker {
    /// Starts one; `configuration` is appended to its `rabbitmq.conf`.
    pub async fn start(configuration: &str) -> anyhow::Result<Self> {
        let mut last = None;
        // Somebody may take a port between our look and its start.
        for _ in 0..3 {
            match Self::start_once(configuration).await {
                Ok(broker) => return Ok(broker),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("never tried")))
    }

    async fn start_once(configuration: &str) -> anyhow::Result<Self> {
        let scripts = scripts()?;
        let [port, control_port, names_port] = ports::free()?;
        let user = unprivileged("rabbitmq")?;
        let directory = tempfile::Builder::new().prefix("gon-mq-").tempdir()?.keep();
        let cookie = uuid::Uuid::now_v7().simple().to_string();
        let write = |name: &str, text: &str, mode: u32| {
            let path = directory.join(name);
            std::fs::write(&path, text)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
            if let Some((uid, gid)) = user {
                chown(&path, Some(uid), Some(gid))?;
            }
            std::io::Result::Ok(path)
        };
        let settings = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\nloopback_users = none\nlog.console = false\n\
             log.file.level = warning\ndisk_free_limit.absolute = 1MB\n{configuration}\n"
        );
        let settings = write("rabbitmq.conf", &settings, 0o600)?;
        let plugins = write("plugins", "[].", 0o600)?;
        let environment = write("environment", "", 0o600)?;
        write(".erlang.cookie", &cookie, 0o400)?;
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700))?;
        if let Some((uid, gid)) = user {
            chown(&directory, Some(uid), Some(gid))?;
        }
        let mut watcher = Command::new("/bin/sh");
        watcher.args(["-c", WATCHER, "gon-testkit"]).arg(&directory).arg(&scripts);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RABBITMQ_") {
                watcher.env_remove(name);
            }
        }
        watcher
            .env("HOME", &directory)
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", names_port.to_string())
            .env("RABBITMQ_NODENAME", format!("gon{port}@localhost"))
            .env("RABBITMQ_MNESIA_BASE", directory.join("data"))
            .env("RABBITMQ_LOG_BASE", directory.join("log"))
            .env("RABBITMQ_CONFIG_FILE", settings)
            .env("RABBITMQ_CONF_ENV_FILE", environment)
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", plugins)
            .env("RABBITMQ_DIST_PORT", control_port.to_string())
            // The name server is the watcher's child, so nobody else may start one.
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
            )
            // Makes the script become the broker, so that its process id is the broker's.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .env_remove("NOTIFY_SOCKET");
        if let Some((uid, gid)) = user {
            watcher.uid(uid).gid(gid);
        }
        let mut process = watcher
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("the watcher")?;
        let orders = process.stdin.take().context("the watcher's input")?;
        let answers = BufReader::new(process.stdout.take().context("the watcher's output")?);
        let broker = Self {
            directory,
            port,
            control_port,
            cookie,
            running: AtomicBool::new(false),
            watcher: Arc::new(Mutex::new(Watcher { orders, answers, _process: process })),
        };
        broker.restart().await?;
        Ok(broker)
    }

    /// Its AMQP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its files are; the user who runs it can read what is put there.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A new, empty virtual host. Nothing removes it before the broker ends.
    pub async fn vhost(&self) -> anyhow::Result<TestVhost> {
        let name = format!("t{}", VHOSTS.fetch_add(1, Ordering::Relaxed));
        self.add_vhost(&name).await?;
        Ok(TestVhost { url: self.url("guest", "guest", &name), name })
    }

    async fn add_vhost(&self, name: &str) -> anyhow::Result<String> {
        self.eval(&format!(
            "ok = rabbit_vhost:add(<<\"{name}\">>, <<\"test\">>), \
             rabbit_auth_backend_internal:set_permissions(\
             <<\"guest\">>, <<\"{name}\">>, <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"test\">>)"
        ))
        .await
    }

    /// Loses all that is in a virtual host, its queues too.
    pub async fn empty(&self, vhost: &TestVhost) -> anyhow::Result<()> {
        self.eval(&format!("ok = rabbit_vhost:delete(<<\"{}\">>, <<\"test\">>)", vhost.name)).await?;
        self.add_vhost(&vhost.name).await?;
        Ok(())
    }

    /// The URL of a user.
    #[must_use]
    pub fn url(&self, user: &str, password: &str, vhost: &str) -> String {
        format!("amqp://{user}:{password}@127.0.0.1:{}/{vhost}", self.port)
    }

    /// Loads definitions (JSON) as an operator does: users, permissions, exchanges, queues.
    pub async fn import(&self, definitions: &str) -> anyhow::Result<()> {
        let path = self.directory.join("definitions.json");
        std::fs::write(&path, definitions)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))?;
        let path = path.display();
        let answer = self
            .eval(&format!("{{ok, B}} = file:read_file(\"{path}\"), rabbit_definitions:import_raw(B)"))
            .await?;
        ensure!(answer == "ok", "definitions: {answer}");
        Ok(())
    }

    /// Evaluates an Erlang expression in the broker and returns its value as text. Fails if it raises.
    pub async fn eval(&self, expression: &str) -> anyhow::Result<String> {
        let mut call = Command::new("erl_call");
        call.args(["-timeout", "30", "-e", "-address"])
            .arg(format!("127.0.0.1:{}", self.control_port))
            // Two callers of one name would shut each other out.
            .args(["-h", &format!("caller{}x{}", std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed))])
            .args(["-c", &self.cookie])
            // A name server of the machine is none of our business.
            .env("HOME", &self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let text = format!("{expression}.\n");
        tokio::task::spawn_blocking(move || {
            let mut call = call.spawn().context("erl_call")?;
            call.stdin.take().context("its input")?.write_all(text.as_bytes())?;
            let output = call.wait_with_output()?;
            let (out, err) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            // Success is `{ok, VALUE}`, a raised error is `{error, REASON}`.
            match out.trim().strip_prefix("{ok, ").and_then(|rest| rest.strip_suffix('}')) {
                Some(value) => Ok(value.to_owned()),
                None => bail!("{text} gave {out} {err}"),
            }
        })
        .await?
    }

    /// Starts it again if it is stopped, with what it had; returns when it answers.
    pub async fn restart(&self) -> anyhow::Result<()> {
        if self.running.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.order("start").await?;
        let deadline = Instant::now() + START;
        while !self.answers().await {
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(self.directory.join("out")).unwrap_or_default();
                let log: Vec<_> = log.lines().rev().take(30).collect();
                bail!("RabbitMQ does not answer; the last it said, backwards:\n{}", log.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Stops it in order.
    pub async fn stop(&self) -> anyhow::Result<()> {
        if self.running.swap(false, Ordering::Relaxed) {
            self.order("stop").await?;
        }
        Ok(())
    }

    /// Kills it.
    pub async fn kill(&self) -> anyhow::Result<()> {
        if self.running.swap(false, Ordering::Relaxed) {
            self.order("kill").await?;
        }
        Ok(())
    }

    /// Makes it hang: connections stay, nothing answers.
    pub async fn freeze(&self) -> anyhow::Result<()> {
        self.order("freeze").await
    }

    /// Ends [`Broker::freeze`].
    pub async fn thaw(&self) -> anyhow::Result<()> {
        self.order("thaw").await
    }

    /// Sets off or clears the alarm for a full disk, which blocks whoever publishes.
    pub async fn disk_alarm(&self, on: bool) -> anyhow::Result<()> {
        let limit = if on { "\"1000000GB\"" } else { "1000000" };
        self.eval(&format!("rabbit_disk_monitor:set_disk_free_limit({limit})")).await?;
        let wanted = format!("{on}");
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.eval("rabbit_alarm:get_local_alarms() =/= []").await? != wanted {
            ensure!(Instant::now() < deadline, "the alarm does not become {on}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Closes every client's connection to a virtual host, as an operator does.
    pub async fn close_connections(&self, vhost: &str) -> anyhow::Result<()> {
        self.eval(&format!(
            "[rabbit_networking:close_connection(P, \"closed by a test\") || P <- rabbit_networking:connections(), \
             [{{vhost, V}}] <- [catch rabbit_reader:info(P, [vhost])], V =:= <<\"{vhost}\">>]"
        ))
        .await?;
        Ok(())
    }

    /// The names of a virtual host's queues, with how many messages are ready in each.
    pub async fn queues(&self, vhost: &str) -> anyhow::Result<Vec<(String, u64)>> {
        let answer = self
            .eval(&format!(
                "lists:flatten([io_lib:format(\"~s ~b~n\", [element(4, proplists:get_value(name, I)), \
                 proplists:get_value(messages, I)]) || I <- rabbit_amqqueue:info_all(<<\"{vhost}\">>, [name, messages])])"
            ))
            .await?;
        let text = answer.trim_matches('"').replace("\\n", "\n");
        if text == "[]" {
            return Ok(Vec::new());
        }
        text.lines()
            .map(|line| {
                let (name, count) = line.rsplit_once(' ').with_context(|| format!("{line:?} in {answer}"))?;
                Ok((name.to_owned(), count.parse()?))
            })
            .collect()
    }

    /// Whether it greets a client.
    async fn answers(&self) -> bool {
        let greeting = async {
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await?;
            stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
            stream.read_u8().await
        };
        // It says Connection.Start in a method frame.
        matches!(tokio::time::timeout(Duration::from_secs(2), greeting).await, Ok(Ok(1)))
    }

    async fn order(&self, order: &'static str) -> anyhow::Result<()> {
        let watcher = Arc::clone(&self.watcher);
        tokio::task::spawn_blocking(move || {
            let mut watcher = watcher.lock().unwrap_or_else(PoisonError::into_inner);
            writeln!(watcher.orders, "{order}")?;
            let mut answer = String::new();
            watcher.answers.read_line(&mut answer)?;
            ensure!(answer.trim() == order, "the watcher is gone: {answer:?}");
            Ok(())
        })
        .await?
    }
}

/// Where the server's own scripts are: the distribution's wrapper insists on one broker per machine.
fn scripts() -> anyhow::Result<PathBuf> {
    std::fs::read_dir("/usr/lib/rabbitmq/lib")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("sbin"))
        .find(|path| path.join("rabbitmq-server").exists())
        .context("no RabbitMQ in /usr/lib/rabbitmq: install rabbitmq-server")
}
