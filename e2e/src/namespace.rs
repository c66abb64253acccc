//! A network namespace made by a test: the whole network of one world.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::process::check;

/// A named network namespace (`ip netns`). The name is removed when the last clone of this is dropped; the namespace
/// itself lives as long as processes are in it.
#[derive(Debug, Clone)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    file: File,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = check(Command::new("ip").args(["netns", "del", &self.name]), Duration::from_secs(10));
    }
}

impl Namespace {
    /// A new one, with its loopback up.
    ///
    /// # Errors
    /// Without root, or when the name is taken.
    pub fn create(name: &str) -> anyhow::Result<Self> {
        check(Command::new("ip").args(["netns", "add", name]), Duration::from_secs(10))?;
        let file = File::open(format!("/run/netns/{name}"))?;
        let namespace = Self(Arc::new(Inner { name: name.to_owned(), file }));
        namespace.check(&["ip", "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The number by which `/proc/PID/ns/net` names it.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn inode(&self) -> anyhow::Result<u64> {
        Ok(self.0.file.metadata()?.ino())
    }

    /// A command inside.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0.name, program]);
        command
    }

    /// Runs a command inside that must succeed within 30 s; its standard output.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, argv: &[&str]) -> anyhow::Result<String> {
        let (program, args) = argv.split_first().context("a command has a program")?;
        check(self.command(program).args(args), Duration::from_secs(30))
    }

    /// Calls `act` on a thread that is inside. Sockets it makes stay inside, whoever uses them later.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or what `act` says.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.0.file, CloneFlags::CLONE_NEWNET).context("entering the namespace")?;
                act()
            });
            inside.join().map_err(|_| anyhow!("a thread inside {} panicked", self.0.name))?
        })
    }
}
