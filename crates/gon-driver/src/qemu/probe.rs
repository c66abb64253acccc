//! What the installed QEMU can do, asked once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Accelerator;
use crate::run::{Cmd, RunError, run};

/// Where QEMU is looked for.
const PROGRAMS: [&str; 3] =
    ["/usr/bin/qemu-system-x86_64", "/usr/local/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm"];
/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(20);
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
    /// It ran, but did not say which QEMU it is.
    #[error("{} does not say which QEMU it is: {said}", program.display())]
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
    // Two questions that QEMU answers and ends: one that waits for more on its standard input would stay for ever if we
    // were killed meanwhile.
    let ask = |question: &[&str]| {
        let cmd = Cmd::new(&program).args(["-nodefaults", "-no-user-config"]).args(question);
        async { run(cmd.deadline(DEADLINE)).await.map(|output| output.text()) }
    };
    let (version, machines) = tokio::try_join!(ask(&["-version"]), ask(&["-M", "help"]))?;
    let unreadable =
        || ProbeError::Unreadable { program: program.clone(), said: version.chars().take(200).collect() };
    let version = read_version(&version).ok_or_else(unreadable)?;
    if (version.0, version.1) < OLDEST {
        return Err(ProbeError::TooOld(version.0, version.1));
    }
    let microvm = machines.lines().any(|line| line.split_ascii_whitespace().next() == Some("microvm"));
    Ok(Capabilities { program: program.clone(), version, microvm, accelerator: Accelerator::Tcg })
}

/// `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)`
fn read_version(text: &str) -> Option<(u32, u32, u32)> {
    let rest = text.trim_start().strip_prefix("QEMU emulator version ")?;
    let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
    let mut parts = rest[..end].split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::read_version;

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        for (text, version) in [
            ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright", (7, 2, 22)),
            ("QEMU emulator version 6.2.0 (Debian 1:6.2+dfsg-2ubuntu6.24)\n", (6, 2, 0)),
            ("QEMU emulator version 10.0.50 (v10.0.0-1-gabc)", (10, 0, 50)),
            ("QEMU emulator version 11.0", (11, 0, 0)),
        ] {
            assert_eq!(read_version(text), Some(version));
        }
        for text in ["", "QEMU emulator version x", "bash: no", "QEMU emulator version 7"] {
            assert_eq!(read_version(text), None, "{text}");
        }
    }
}
