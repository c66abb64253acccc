//! What the installed QEMU can do, asked once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::Accelerator;
use crate::run::{Cmd, RunError, run};

/// Where QEMU is looked for.
const PROGRAMS: [&str; 3] =
    ["/usr/bin/qemu-system-x86_64", "/usr/local/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm"];
/// The oldest version whose options we use (Ubuntu 22.04's).
const OLDEST: (u32, u32) = (6, 2);

/// What is known of the QEMU of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The program, by absolute path.
    pub program: PathBuf,
    /// Its version: major, minor, micro.
    pub version: (u32, u32, u32),
    /// Whether it has the machine `microvm`.
    pub microvm: bool,
    /// How guests' instructions are executed. [`probe`] says TCG; KVM has to be proved ([`super::prove`]).
    pub accelerator: Accelerator,
}

impl Capabilities {
    /// `7.2.22`.
    #[must_use]
    pub fn version_text(&self) -> String {
        let (major, minor, micro) = self.version;
        format!("{major}.{minor}.{micro}")
    }
}

/// Why QEMU cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Not installed.
    #[error("no QEMU is installed (looked for {})", PROGRAMS.join(", "))]
    Missing,
    /// It could not be run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// It ran, but what it said is not QMP.
    #[error("{} does not speak QMP: {said}", program.display())]
    Unreadable {
        /// Which program.
        program: PathBuf,
        /// The beginning of what it said.
        said: String,
    },
    /// Older than what we know how to drive.
    #[error("QEMU {0}.{1} is too old; the oldest that works is 6.2")]
    TooOld(u32, u32),
}

/// Asks the QEMU at `program`, or the one that is installed. Takes about 50 ms.
pub async fn probe(program: Option<&Path>) -> Result<Capabilities, ProbeError> {
    let program = match program {
        Some(program) => program.to_owned(),
        None => PROGRAMS.iter().map(PathBuf::from).find(|p| p.exists()).ok_or(ProbeError::Missing)?,
    };
    let talk = "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-machines\",\"id\":\"machines\"}\n{\"execute\":\"quit\"}\n";
    let cmd = Cmd::new(&program)
        .args(["-nodefaults", "-no-user-config", "-S", "-display", "none", "-M", "none", "-qmp", "stdio"])
        .stdin(talk)
        .deadline(Duration::from_secs(20));
    let output = run(cmd).await?;
    read(&output.text())
        .map(|(version, microvm)| Capabilities {
            program: program.clone(),
            version,
            microvm,
            accelerator: Accelerator::Tcg,
        })
        .ok_or_else(|| ProbeError::Unreadable { program, said: output.text().chars().take(200).collect() })
        .and_then(|capabilities| {
            let (major, minor, _) = capabilities.version;
            if (major, minor) < OLDEST { Err(ProbeError::TooOld(major, minor)) } else { Ok(capabilities) }
        })
}

fn read(text: &str) -> Option<((u32, u32, u32), bool)> {
    let mut version = None;
    let mut microvm = None;
    for message in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if let Some(found) = crate::qmp::version_of(&message) {
            version = Some(found);
        }
        if message["id"] == "machines" {
            let machines = message["return"].as_array()?;
            microvm = Some(machines.iter().any(|machine| machine["name"] == "microvm"));
        }
    }
    Some((version?, microvm?))
}
