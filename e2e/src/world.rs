//! A cloud of its own for one test, in a network namespace of its own.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use serde_json::Value;

use crate::api::Api;
use crate::binaries;
use crate::host::Host;
use crate::leftovers::Snapshot;
use crate::namespace::Namespace;
use crate::process::{self, Process, kill_hard, tail};
use crate::say;
use crate::story::Scene;
use crate::topology::{Cloud, Instance, Tenant, console_text};
use crate::wait;

/// Name of the key pair every instance is launched with.
pub const KEY_NAME: &str = "e2e";
/// Where the API listens, inside.
pub const API_URL: &str = "http://127.0.0.1:8080";
/// The host, as the public addresses see it.
pub const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// The administrator.
pub const USER: &str = "admin";
/// Their password.
pub const PASSWORD: &str = "correct horse battery staple";
/// How long `gond standalone` may take to be ready, its first start of PostgreSQL included.
const READY: Duration = Duration::from_secs(90);
/// How long taking everything down may take.
const DOWN: Duration = Duration::from_secs(90);

/// Set once a world has found out that KVM does not work here: the others need not spend seconds on it again.
static NO_KVM: AtomicBool = AtomicBool::new(false);
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A running cloud.
#[derive(Debug)]
pub struct World {
    inside: Namespace,
    data_dir: PathBuf,
    gond_program: PathBuf,
    gond: Mutex<Option<Child>>,
    tenant: Tenant,
    before: Snapshot,
    watcher: Child,
    images_dir: PathBuf,
}

impl World {
    /// Builds one.
    ///
    /// # Errors
    /// When a part is missing or does not come up.
    pub fn start(name: &str) -> anyhow::Result<Self> {
        let program = binaries::binaries()?.join("gond");
        let images = binaries::images("gon-linux")?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let unique = format!("gon-e2e-{}-{number}", std::process::id());
        let data_dir = tempfile::Builder::new().prefix(&format!("{unique}-")).tempdir_in("/tmp")?.keep();
        std::fs::set_permissions(&data_dir, std::fs::Permissions::from_mode(0o711))?;
        std::fs::create_dir(data_dir.join("log"))?;
        let watcher = watch(&program, &unique, &data_dir)?;
        let inside = Namespace::create(&unique)?;
        let before = Snapshot::take(&inside, &data_dir, &[watcher.id().cast_signed()])?;
        say!("{name}: {} in {}", inside.name(), data_dir.display());
        let api = Api::new(&inside, API_URL, USER, PASSWORD)?;
        let tenant = Tenant::new(api, inside.clone(), data_dir.join("e2e-key"));
        let world = Self {
            inside,
            data_dir,
            gond_program: program,
            gond: Mutex::new(None),
            tenant,
            before,
            watcher,
            images_dir: images,
        };
        let ready = world.start_gond().and_then(|()| world.make_key());
        match ready {
            Ok(()) => Ok(world),
            Err(error) => {
                let diagnosis = world.diagnosis();
                let left = world.end().err().map(|e| format!("; and then: {e:#}")).unwrap_or_default();
                Err(error.context(format!("{diagnosis}{left}")))
            }
        }
    }

    /// The node's image store.
    #[must_use]
    pub fn images_dir(&self) -> &Path {
        &self.images_dir
    }
    /// A second client of the API.
    ///
    /// # Errors
    /// When it cannot sign in.
    pub fn another_api(&self) -> anyhow::Result<Api> {
        let api = Api::new(&self.inside, API_URL, USER, PASSWORD)?;
        api.login()?;
        Ok(api)
    }

    /// Starts `gond standalone` and waits until it is ready.
    ///
    /// # Errors
    /// When it ends, or is not ready in time.
    pub fn start_gond(&self) -> anyhow::Result<()> {
        self.spawn_gond()?;
        self.wait_ready()
    }

    /// Starts `gond standalone`.
    ///
    /// # Errors
    /// When it runs already.
    pub fn spawn_gond(&self) -> anyhow::Result<()> {
        let mut slot = self.gond.lock().map_err(|_| anyhow!("a start panicked"))?;
        if slot.is_some() {
            bail!("gond runs already");
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = self.inside.command(&self.gond_program.to_string_lossy());
        command
            .args(["standalone", "--listen", "127.0.0.1:8080", "--data-dir"])
            .arg(&self.data_dir)
            .env("GON_ADMIN_USER", USER)
            .env("GON_ADMIN_PASSWORD", PASSWORD)
            .env("GON_NETWORK_SWITCH", "private")
            .env("GON_IMAGES_DIR", &self.images_dir)
            .env("GON_CRASH_FILE", self.crash_file())
            .env_remove("GON_DATABASE_URL")
            .env_remove("GON_DATA_DIR")
            .env_remove("GON_LISTEN")
            .env("GON_COMPUTE_ACCELERATOR", if NO_KVM.load(Ordering::Relaxed) { "tcg" } else { "auto" })
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        *slot = Some(command.spawn()?);
        Ok(())
    }

    /// Waits until the API is ready.
    ///
    /// # Errors
    /// When gond ends, or is not ready in time.
    pub fn wait_ready(&self) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            if let Some(child) = self.gond.lock().map_err(|_| anyhow!("a start panicked"))?.as_mut()
                && let Some(status) = child.try_wait()?
            {
                bail!("gond ended with {status}: {}", tail(&self.log(), 30));
            }
            let ready = matches!(self.api().call(&hyper::Method::GET, "/readyz", None), Ok(Ok(_)));
            if ready && self.api().login().is_ok() {
                say!("gond is ready after {} ms", start.elapsed().as_millis());
                return Ok(());
            }
            if start.elapsed() > READY {
                bail!("gond is not ready after {} s: {}", READY.as_secs(), tail(&self.log(), 30));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends SIGKILL to gond and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_gond(&self) -> anyhow::Result<()> {
        let mut slot = self.gond.lock().map_err(|_| anyhow!("a start panicked"))?;
        let mut child = slot.take().context("gond does not run")?;
        child.kill()?;
        child.wait()?;
        say!("gond is killed");
        Ok(())
    }

    fn crash_file(&self) -> PathBuf {
        self.data_dir.join("crash-at")
    }

    /// From now on gond ends when it comes to the crash point of this name.
    ///
    /// # Errors
    /// When the order cannot be written.
    pub fn crash_at(&self, point: &str) -> anyhow::Result<()> {
        let beside = self.data_dir.join("crash-at.new");
        std::fs::write(&beside, point)?;
        Ok(std::fs::rename(beside, self.crash_file())?)
    }

    /// Waits until gond has come to the crash point of [`Self::crash_at`]; the order is taken back.
    ///
    /// # Errors
    /// When it does not come there in time.
    pub fn wait_crashed(&self, deadline: Duration) -> anyhow::Result<()> {
        let mut slot = self.gond.lock().map_err(|_| anyhow!("a start panicked"))?;
        let child = slot.as_mut().context("gond does not run")?;
        wait::until("gond comes to its crash point", deadline, || Ok(child.try_wait()?))?;
        *slot = None;
        Ok(std::fs::remove_file(self.crash_file())?)
    }

    /// gond's process number.
    ///
    /// # Errors
    /// When it does not run.
    pub fn gond_pid(&self) -> anyhow::Result<i32> {
        let slot = self.gond.lock().map_err(|_| anyhow!("a start panicked"))?;
        Ok(slot.as_ref().context("gond does not run")?.id().cast_signed())
    }

    /// What the machine had before, and what it has now: one line for each difference.
    ///
    /// # Errors
    /// When something cannot be asked.
    pub fn leftovers(&self) -> anyhow::Result<Vec<String>> {
        let now = Snapshot::take(&self.inside, &self.data_dir, &[self.watcher.id().cast_signed()])?;
        Ok(now.beyond(&self.before))
    }

    /// `gond admin down`.
    ///
    /// # Errors
    /// When it fails.
    pub fn admin_down(&self) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut command = self.inside.command(&self.gond_program.to_string_lossy());
        command.args(["admin", "down", "--data-dir"]).arg(&self.data_dir);
        let output = process::run(&mut command, DOWN)?;
        if let Some(mut child) = self.gond.lock().map_err(|_| anyhow!("a start panicked"))?.take() {
            // It was ended by the command; whoever started it must say so to the kernel.
            let _ = child.kill();
            child.wait()?;
        }
        if !output.ok() {
            bail!("gond admin down: {}: {}", output.status, output.text().trim());
        }
        say!("gond admin down took {} ms", start.elapsed().as_millis());
        Ok(())
    }

    /// Runs statements in this world's database; what they print.
    ///
    /// # Errors
    /// When one fails.
    pub fn sql(&self, statements: &str) -> anyhow::Result<String> {
        let processes = self.processes()?;
        let server = processes.iter().find(|p| p.program() == "postgres").context("no database runs")?;
        let words: Vec<&str> = server.command.split(' ').collect();
        let socket = words.iter().zip(words.iter().skip(1)).find(|(flag, _)| **flag == "-k");
        let socket = socket.map_or_else(|| self.data_dir.join("postgres"), |(_, dir)| PathBuf::from(dir));
        let mut command = self.inside.command("psql");
        command.args([
            "-X",
            "-q",
            "-t",
            "-A",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "gon",
            "-d",
            "gon",
            "-c",
            statements,
        ]);
        command.arg("-h").arg(socket);
        process::check(&mut command, Duration::from_secs(120))
    }

    /// The process of an instance that runs here; there is exactly one.
    ///
    /// # Errors
    /// When there is none, or more.
    pub fn guest(&self, instance: &Instance) -> anyhow::Result<Process> {
        let all: Vec<Process> =
            self.guests()?.into_iter().filter(|g| g.command.contains(&instance.id)).collect();
        match all.as_slice() {
            [one] => Ok(one.clone()),
            _ => bail!("{} has {} processes: {all:?}", instance.name, all.len()),
        }
    }

    /// The tap of an instance that runs here.
    ///
    /// # Errors
    /// When it does not.
    pub fn tap(&self, instance: &Instance) -> anyhow::Result<String> {
        let guest = self.guest(instance)?;
        process::taps(guest.pid).into_iter().next().with_context(|| format!("{guest:?} has no tap"))
    }

    /// Where gond writes.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.data_dir.join("log/gond.log")
    }

    /// All that helps to see what went wrong.
    #[must_use]
    pub fn diagnosis(&self) -> String {
        let mut text = String::new();
        let mut part = |title: &str, body: String| {
            text.push_str(&format!("──── {title}\n{body}\n"));
        };
        part("gond.log (the end)", tail(&self.log(), 60));
        if let Ok(page) = self.api().get("/instances?limit=100") {
            for instance in page.get("items").and_then(Value::as_array).into_iter().flatten() {
                let get = |key: &str| instance.get(key).cloned().unwrap_or_default();
                part("instance", format!("{instance}"));
                let console = format!("/instances/{}/console-output", get("id").as_str().unwrap_or_default());
                if let Ok(answer) = self.api().get(&console) {
                    let output = console_text(&answer).unwrap_or_default();
                    let lines: Vec<&str> = output.lines().collect();
                    part("its console (the end)", lines[lines.len().saturating_sub(12)..].join("\n"));
                }
            }
        }
        let listed = self.processes().unwrap_or_default();
        let listed: Vec<String> = listed.iter().map(|p| format!("{} {:.160}", p.pid, p.command)).collect();
        part("processes", listed.join("\n"));
        let run = |argv: &[&str]| self.inside.check(argv).unwrap_or_else(|e| format!("{e:#}"));
        part("devices", run(&["ip", "-brief", "address"]));
        part("nft", run(&["nft", "list", "ruleset"]));
        let flows = self.flows().map_or_else(|e| format!("{e:#}"), |f| f.join("\n"));
        // Kept for whoever looks, as it is long.
        let kept = self.keep_aside(&flows);
        part("flows", kept.unwrap_or(flows));
        text
    }

    fn keep_aside(&self, flows: &str) -> Option<String> {
        let folder = binaries::workspace().join("target/e2e-failed").join(self.inside.name());
        std::fs::create_dir_all(&folder).ok()?;
        std::fs::write(folder.join("flows.txt"), flows).ok()?;
        let _ = std::fs::copy(self.log(), folder.join("gond.log"));
        Some(format!("{} lines in {}", flows.lines().count(), folder.display()))
    }

    /// Takes everything down and proves that nothing is left.
    ///
    /// # Errors
    /// With what is left; it is removed all the same.
    pub fn end(mut self) -> anyhow::Result<()> {
        let proof = std::fs::read(self.data_dir.join("compute/accelerator.json")).unwrap_or_default();
        if serde_json::from_slice::<Value>(&proof).is_ok_and(|p| p.get("kvm").is_some_and(Value::is_null)) {
            NO_KVM.store(true, Ordering::Relaxed);
        }
        let down = self.admin_down();
        let left =
            wait::holds("nothing is left", Duration::from_secs(3), || match self.leftovers()?.as_slice() {
                [] => Ok(true),
                left => bail!("{}", left.join("\n")),
            });
        if let Ok(took) = &left {
            say!("nothing is left after another {} ms", took.as_millis());
        }
        // By force, whatever happened before.
        if let Some(mut child) = self.gond.lock().map_err(|_| anyhow!("a start panicked"))?.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for process in self.processes()? {
            kill_hard(process.pid);
        }
        if let Some(mut stdin) = self.watcher.stdin.take() {
            let _ = stdin.write_all(b"done\n");
        }
        let _ = self.watcher.wait();
        std::fs::remove_dir_all(&self.data_dir).context("removing the data directory")?;
        down?;
        left?;
        Ok(())
    }
}

impl Scene for World {
    fn start(name: &str) -> anyhow::Result<Self> {
        Self::start(name)
    }
    fn diagnosis(&self) -> String {
        self.diagnosis()
    }
    fn place(&self) -> (&Namespace, &Path) {
        (&self.inside, &self.data_dir)
    }
    fn end(self) -> anyhow::Result<()> {
        self.end()
    }
}

impl Cloud for World {
    fn tenant(&self) -> &Tenant {
        &self.tenant
    }
}

impl Host for World {
    fn inside(&self) -> &Namespace {
        &self.inside
    }
    fn data_dir(&self) -> &Path {
        &self.data_dir
    }
    fn own_process(&self) -> Option<i32> {
        Some(self.watcher.id().cast_signed())
    }
}

/// Starts the watcher: when this process ends without having said `done`, it takes the world down.
fn watch(gond: &Path, namespace: &str, data_dir: &Path) -> anyhow::Result<Child> {
    let script = r#"
trap '' INT TERM HUP
read -r word
[ "$word" != done ] || exit 0
timeout 60 ip netns exec "$2" "$1" admin down --data-dir "$3"
for pid in $(ip netns pids "$2"); do kill -KILL "$pid"; done
for file in /proc/[0-9]*/fd/*; do
  case $(readlink "$file") in "$3"/*) pid=${file#/proc/}; kill -KILL "${pid%%/*}" ;; esac
done
ip netns del "$2"
rm -rf "$3"
"#;
    process::watcher(script, &[gond.as_ref(), namespace.as_ref(), data_dir.as_ref()])
}
