//! `gond doctor`: what this server lacks, and which command mends it.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use gon_driver::doctor::{self, Duties, Facts, Finding, Question, Severity, verdict};
use gon_tls::Tls;
use gon_types::Role;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::init::certificates;
use crate::config::{Accelerator, Config};
use crate::terminal;

/// How long another server may take to say what time it is.
const ASK: Duration = Duration::from_secs(5);
/// The head of an answer is much smaller.
const HEAD: u64 = 16 << 10;
/// How wide a line of the table is before it is broken.
const WIDTH: usize = 100;

/// `gond doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// What this server is, or is to be [default: what it looks like].
    #[arg(long, value_enum)]
    role: Option<Kind>,
    /// Another server of the site, to which the way is examined; may be repeated.
    #[arg(long, value_name = "HOST")]
    server: Vec<String>,
    /// One JSON document: {"worst": …, "findings": […]}.
    #[arg(long)]
    json: bool,
    /// Also what is as it should be.
    #[arg(long)]
    all: bool,
}

/// What a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The control plane.
    Control,
    /// A node.
    Worker,
    /// Both.
    Both,
}

/// What is to be examined on a server that has no configuration yet.
#[must_use]
pub fn question(duties: Duties, servers: &[String]) -> Question {
    let mut ports = vec![];
    if duties.control {
        ports.extend([(8080, "api-server"), (8081, "network-controller"), (8082, "instance-manager")]);
        ports.extend([(5671, "rabbitmq"), (2379, "etcd")]);
    }
    if duties.worker {
        ports.extend([(9090, "hypervisor-agent"), (9091, "network-agent")]);
        ports.extend([(9092, "container-agent"), (9093, "storage-agent")]);
    }
    Question {
        duties,
        data_dir: "/var/lib/gon".into(),
        images_dir: "/var/lib/gon/images".into(),
        servers: servers.to_vec(),
        guest_mtu: 1442,
        emulate: false,
        ports,
    }
}

/// What a server looks like.
fn looks_like(config: &Config) -> Duties {
    let joined = certificates::dir(Role::HypervisorAgent).path().join("hypervisor-agent.crt").exists();
    if config.database.url.is_some() {
        return Duties { control: true, worker: joined };
    }
    // Nothing is configured yet: what is installed says what is meant.
    Duties { control: !joined && Path::new("/usr/bin/pg_lsclusters").exists(), worker: true }
}

/// Examines this server and says what was found. The exit code is 1 if something stands in the way.
pub async fn run(config: &Config, args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let duties = match args.role {
        Some(Kind::Control) => Duties { control: true, worker: false },
        Some(Kind::Worker) => Duties { control: false, worker: true },
        Some(Kind::Both) => Duties { control: true, worker: true },
        None => looks_like(config),
    };
    let mut servers = args.server.clone();
    if servers.is_empty() {
        servers.extend(config.control.servers.iter().filter(|s| !is_ours(s)).cloned());
    }
    let question = Question {
        data_dir: config.data_dir.clone(),
        images_dir: config.images_dir(),
        guest_mtu: config.network.mtu,
        emulate: config.compute.accelerator == Accelerator::Tcg,
        ..question(duties, &servers)
    };
    let mut facts = doctor::facts(&question).await;
    clocks(&mut facts, duties).await;
    let findings = doctor::verdicts(&facts);
    let worst = verdict::worst(&findings);
    if args.json {
        let document = serde_json::json!({ "worst": worst, "findings": findings });
        terminal::line(&serde_json::to_string_pretty(&document)?);
    } else {
        table(&findings, args.all);
    }
    Ok(if worst == Severity::Error { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Whether a name is this very server's.
fn is_ours(server: &str) -> bool {
    use std::net::{ToSocketAddrs as _, UdpSocket};
    let addresses = (server, 0).to_socket_addrs().into_iter().flatten();
    // Only an address of our own can be bound.
    addresses.into_iter().any(|address| UdpSocket::bind((address.ip(), 0)).is_ok())
}

/// Asks the other servers' services what time it is, if we have a certificate to ask with.
async fn clocks(facts: &mut Facts, duties: Duties) {
    let role = if duties.control { Role::InstanceManager } else { Role::HypervisorAgent };
    let Ok(tls) = Tls::open(&certificates::dir(role), role) else { return };
    let servers: Vec<String> = facts.paths.iter().map(|way| way.server.clone()).collect();
    for server in servers {
        for (port, peer) in [(8082, Role::InstanceManager), (9090, Role::HypervisorAgent)] {
            let asked = tokio::time::timeout(ASK, offset(&tls, &server, port, peer)).await;
            if let Ok(Ok(offset)) = asked {
                facts.clock.offsets.push((server.clone(), offset));
                break;
            }
        }
    }
}

/// How far another server's clock is from ours, milliseconds.
async fn offset(tls: &Tls, server: &str, port: u16, peer: Role) -> anyhow::Result<i64> {
    let stream = TcpStream::connect((server, port)).await?;
    let mut stream = tls.connect(stream, peer, server).await?;
    let request = "GET /healthz HTTP/1.1\r\nHost: gon\r\nConnection: close\r\n\r\n";
    let before = OffsetDateTime::now_utc();
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let _ = (&mut stream).take(HEAD).read_to_end(&mut answer).await;
    let after = OffsetDateTime::now_utc();
    let theirs = read_date(&String::from_utf8_lossy(&answer)).context("no date")?;
    // The date has whole seconds: it may be almost one behind.
    let ours = before + (after - before) / 2;
    let apart: time::Duration = theirs - ours;
    Ok(i64::try_from(apart.whole_milliseconds()).unwrap_or(i64::MAX))
}

/// The date in the head of an HTTP answer.
fn read_date(answer: &str) -> Option<OffsetDateTime> {
    let head = answer.split("\r\n\r\n").next()?;
    let date = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("date").then(|| value.trim())
    })?;
    OffsetDateTime::parse(date, &Rfc2822).ok()
}

/// The findings as people read them.
fn table(findings: &[Finding], all: bool) {
    let shown = |f: &&Finding| all || f.severity > Severity::Good;
    for finding in findings.iter().filter(shown) {
        let mark = match finding.severity {
            Severity::Good => "✓",
            Severity::Note => "·",
            Severity::Warning => "!",
            Severity::Error => "✗",
        };
        let mut lines = broken(&finding.what, WIDTH - 28).into_iter();
        let first = lines.next().unwrap_or_default();
        terminal::line(&format!("  {mark} {:<8} {:<15} {first}", finding.severity.as_str(), finding.check));
        for line in lines {
            terminal::line(&format!("{:28} {line}", ""));
        }
        for command in &finding.mend {
            terminal::line(&format!("{:28} $ {command}", ""));
        }
    }
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    terminal::line(&format!(
        "{} good, {} to know, {} to mend soon, {} in the way",
        count(Severity::Good),
        count(Severity::Note),
        count(Severity::Warning),
        count(Severity::Error)
    ));
}

/// A text in lines of at most so many characters, broken at spaces.
fn broken(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_is_read() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ndate: Mon, 23 Nov 2026 12:00:00 GMT\r\n\r\nok";
        assert_eq!(read_date(answer).unwrap().unix_timestamp(), 1_795_435_200);
        assert_eq!(read_date("HTTP/1.1 200 OK\r\n\r\ndate: Mon, 23 Nov 2026 12:00:00 GMT"), None);
        assert_eq!(read_date("HTTP/1.1 200 OK\r\nDate: tomorrow\r\n\r\n"), None);
    }

    #[test]
    fn long_findings_are_broken_at_spaces() {
        assert_eq!(broken("one two three", 7), ["one two", "three"]);
        assert_eq!(broken("unbreakable word", 4), ["unbreakable", "word"]);
        assert_eq!(broken("", 4), [""]);
    }

    #[test]
    fn loopback_is_this_server() {
        assert!(is_ours("127.0.0.1"));
        assert!(!is_ours("192.0.2.77"));
    }
}
