//! What a network of the benchmark lives in: a directory, namespaces, processes; and that nothing of it stays.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use e2e::{Namespace, process, wait};
use gon_driver::netlink::Netlink;
use gon_driver::tap::{self, TapSpec};

use super::document::MTU;

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// Everything whose processes and namespaces go with it.
#[derive(Debug)]
pub struct Place {
    unique: String,
    dir: PathBuf,
    watcher: Child,
}

impl Place {
    pub fn make() -> anyhow::Result<Self> {
        // Short: the names of sockets have to fit.
        let unique = format!("gon-bn-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix(&format!("{unique}-")).tempdir_in("/tmp")?.keep();
        let script = r#"
trap '' INT TERM HUP
read -r word
[ "$word" != done ] || exit 0
for name in $(ip netns list | cut -d' ' -f1 | grep "^$1-"); do
  for pid in $(ip netns pids "$name"); do kill -KILL "$pid"; done
  ip netns del "$name"
done
for file in /proc/[0-9]*/fd/*; do
  case $(readlink "$file") in "$2"/*) pid=${file#/proc/}; kill -KILL "${pid%%/*}" ;; esac
done
rm -rf "$2"
"#;
        let watcher = process::watcher(script, &[unique.as_ref(), dir.as_ref()])?;
        Ok(Self { unique, dir, watcher })
    }
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// What a namespace of it is called.
    pub fn name(&self, of: &str) -> String {
        format!("{}-{of}", self.unique)
    }
    pub fn namespace(&self, of: &str) -> anyhow::Result<Namespace> {
        Namespace::create(&self.name(of))
    }
    fn processes(&self) -> Vec<process::Process> {
        process::belonging(None, &self.dir, &[self.watcher.id().cast_signed()])
    }
    /// The process of that program.
    pub fn process(&self, program: &str) -> anyhow::Result<i32> {
        let found = self.processes().into_iter().find(|p| p.program() == program);
        Ok(found.with_context(|| format!("{program} does not run"))?.pid)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for process in self.processes() {
            process::kill_hard(process.pid);
        }
        let _ = wait::holds("its processes end", Duration::from_secs(10), || Ok(self.processes().is_empty()));
        if let Some(mut stdin) = self.watcher.stdin.take() {
            let _ = stdin.write_all(b"done\n");
        }
        let _ = self.watcher.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Makes taps as the network agent does, and sets them up.
pub fn taps(node: &Namespace, names: &[String]) -> anyhow::Result<()> {
    inside(node, async || {
        let netlink = Netlink::open()?;
        for name in names {
            tap::ensure(&netlink, TapSpec { name, owner_uid: 0, mtu: MTU }).await?;
        }
        Ok(())
    })
}

/// Does something that waits inside a namespace.
pub fn inside<T: Send>(
    node: &Namespace,
    work: impl AsyncFnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    node.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move { work().await })
    })
}

/// MiB that a process holds.
pub fn resident(pid: i32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse::<f64>()? / 1024.0)
}
