//! A machine as a test looks at it: a network namespace with what runs in it, and a data directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::namespace::Namespace;
use crate::process::{self, Process};

/// A machine.
pub trait Host {
    /// Its network.
    fn inside(&self) -> &Namespace;
    /// Its data directory.
    fn data_dir(&self) -> &Path;
    /// A process of the test's own that is not to be counted.
    fn own_process(&self) -> Option<i32> {
        None
    }

    /// Every process of this machine but the test's own.
    ///
    /// # Errors
    /// When the namespace cannot be asked.
    fn processes(&self) -> anyhow::Result<Vec<Process>> {
        let own: Vec<i32> = self.own_process().into_iter().collect();
        Ok(process::belonging(Some(self.inside().inode()?), self.data_dir(), &own))
    }

    /// The guests that run here: their QEMU processes.
    ///
    /// # Errors
    /// When the namespace cannot be asked.
    fn guests(&self) -> anyhow::Result<Vec<Process>> {
        Ok(self.processes()?.into_iter().filter(|p| p.program().starts_with("qemu-system")).collect())
    }

    /// Runs a program of Open vSwitch against this machine's switch; its output.
    ///
    /// # Errors
    /// When it fails.
    fn ovs(&self, argv: &[&str]) -> anyhow::Result<String> {
        let (program, args) = argv.split_first().context("a program")?;
        let mut command = self.inside().command(program);
        command.args(args).env("OVS_RUNDIR", self.ovs_run_dir()?);
        process::check(&mut command, Duration::from_secs(10))
    }

    /// Where the sockets of its switch are.
    ///
    /// # Errors
    /// When none runs.
    fn ovs_run_dir(&self) -> anyhow::Result<PathBuf> {
        let processes = self.processes()?;
        let switch = processes.iter().find(|p| p.program() == "ovs-vswitchd").context("no switch runs")?;
        let database =
            switch.command.split(' ').find_map(|a| a.strip_prefix("unix:")).context("its database")?;
        Ok(Path::new(database).parent().context("a folder")?.to_owned())
    }

    /// Flows of the integration bridge, one line each.
    ///
    /// # Errors
    /// When the switch does not answer.
    fn flows(&self) -> anyhow::Result<Vec<String>> {
        let text = self.ovs(&["ovs-ofctl", "-O", "OpenFlow14", "--no-stats", "dump-flows", "br-int"])?;
        Ok(text.lines().map(|l| l.trim().to_owned()).filter(|l| l.contains("actions=")).collect())
    }

    /// Devices of the namespace.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn devices(&self) -> anyhow::Result<Vec<String>> {
        let text = self.inside().check(&["ip", "-brief", "link"])?;
        let names = text.lines().filter_map(|l| l.split_whitespace().next());
        Ok(names.map(|n| n.split('@').next().unwrap_or(n).to_owned()).collect())
    }
}
