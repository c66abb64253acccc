//! The network agent as a process of its own: this program again, doing nothing else. So it can be killed, and what it
//! holds in memory is its own.

use std::future::pending;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use e2e::Namespace;
use gon_agent::link::UnixTransport;
use gon_agent::network::Config;
use gon_agent::status::NetworkStatus;
use gon_driver::ovs::{Choice, Datapath};
use serde_json::Value;
use tokio::sync::watch;

use super::document;

/// The first word of a command line that means the agent.
pub const WORD: &str = "network-agent";

/// Which switch it uses: below its directory, in userspace.
pub fn switch(dir: &Path) -> gon_driver::ovs::Config {
    gon_driver::ovs::Config {
        dir: dir.join("ovs"),
        choice: Choice::Private,
        datapath: Some(Datapath::Netdev),
    }
}

/// Is the agent. Whatever changes in how it is becomes a line.
pub fn run(dir: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (status, mut watched) = watch::channel(NetworkStatus::default());
        tokio::spawn(async move {
            while watched.changed().await.is_ok() {
                if let Ok(line) = serde_json::to_string(&*watched.borrow_and_update()) {
                    println!("{line}");
                }
            }
        });
        let config = Config {
            node: document::node(),
            dir: dir.join("agent"),
            ovs: switch(dir),
            transport: Arc::new(UnixTransport::new(&dir.join("controller.sock"))),
            external: None,
            overlay: None,
            resolv_conf: "/etc/resolv.conf".into(),
            audit_every: Duration::from_secs(30),
            status,
        };
        gon_agent::network::run(config, pending()).await
    })
}

#[derive(Debug, Default)]
struct Shared {
    status: Mutex<Value>,
    changed: Condvar,
}

/// A running one.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    shared: Arc<Shared>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    pub fn start(inside: &Namespace, dir: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = inside.command(&program.to_string_lossy());
        command.arg(WORD).arg(dir);
        // As the daemon sets it for itself.
        command.env("MALLOC_ARENA_MAX", "2").env("MALLOC_MMAP_THRESHOLD_", "1048576");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        let shared: Arc<Shared> = Arc::default();
        let ours = Arc::clone(&shared);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Ok(status) = serde_json::from_str(&line) {
                    *ours.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
                    ours.changed.notify_all();
                }
            }
        });
        Ok(Self { child, shared })
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Waits until it is as it should be.
    pub fn until(&self, deadline: Duration, good: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let until = Instant::now() + deadline;
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        while !good(&status) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the agent is {status}");
            }
            let waited = self.shared.changed.wait_timeout(status, left);
            status = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(status.clone())
    }
}
