//! What is installed, asked of the programs themselves.

use std::path::Path;
use std::time::Duration;

use super::{Installed, Program};
use crate::run::{Cmd, run};

/// How long a program may take to say its version; on a slow machine QEMU takes seconds.
const DEADLINE: Duration = Duration::from_secs(30);

/// The first version in a text, major and minor: `postgres (PostgreSQL) 15.8 (Debian 15.8-0)` is 15.8.
pub(super) fn first_version(text: &str) -> Option<(u32, u32)> {
    text.split(|c: char| c.is_whitespace() || c == '-' || c == ',').find_map(|word| {
        let mut parts = word.trim_start_matches('v').split('.');
        let major = parts.next()?.parse().ok()?;
        let digits: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
        Some((major, digits.parse().ok()?))
    })
}

/// The newest entry of a directory whose name ends in a version.
fn newest(dir: &str, prefix: &str) -> Option<(u32, u32)> {
    let entries = std::fs::read_dir(dir).ok()?;
    let versions = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let version = name.strip_prefix(prefix)?;
        first_version(version).or_else(|| Some((version.parse().ok()?, 0)))
    });
    versions.max()
}

async fn said(program: &str) -> Option<(u32, u32)> {
    let output = run(Cmd::new(program).arg("--version").deadline(DEADLINE)).await.ok()?;
    first_version(&output.text()).or_else(|| first_version(&String::from_utf8_lossy(&output.stderr)))
}

/// What of a program is installed.
pub(super) async fn installed(program: Program) -> Installed {
    let version = match program {
        // Each release is a directory; the server is not on the path.
        Program::Postgres => newest("/usr/lib/postgresql", "")
            .filter(|(major, _)| Path::new(&format!("/usr/lib/postgresql/{major}/bin/postgres")).exists()),
        // Asking it starts a virtual machine of Erlang's, which takes seconds.
        Program::RabbitMq => newest("/usr/lib/rabbitmq/lib", "rabbitmq_server-"),
        Program::Etcd => said("etcd").await,
        Program::OpenVSwitch => said("ovs-vswitchd").await,
        Program::Qemu => crate::qemu::probe(None).await.ok().map(|q| (q.version.0, q.version.1)),
        Program::Nftables => said("nft").await,
        Program::Docker => said("dockerd").await,
    };
    Installed { program, version }
}

#[cfg(test)]
mod tests {
    use super::first_version;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (text, version) in [
            ("postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)", (15, 8)),
            ("etcd Version: 3.4.23\nGit SHA: Not provided", (3, 4)),
            ("ovs-vswitchd (Open vSwitch) 3.1.0\nDPDK 22.11.5", (3, 1)),
            ("nftables v1.0.6 (Lester Gooch #5)", (1, 0)),
            ("Docker version 20.10.24+dfsg1, build 297e128", (20, 10)),
            ("Docker version 28.1.1-rc1, build x", (28, 1)),
            ("3.10.8", (3, 10)),
        ] {
            assert_eq!(first_version(text), Some(version), "{text}");
        }
        for text in ["", "no", "version", "1", "x.y"] {
            assert_eq!(first_version(text), None, "{text}");
        }
    }
}
