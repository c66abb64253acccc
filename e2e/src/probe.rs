//! What a neighbour on the outside sees of an instance: does it answer?

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use nix::sys::signal::{Signal, kill};

use crate::namespace::Namespace;
use crate::process::{pid, run};
use crate::say;
use crate::wait;

/// How long an answer may take before it counts as silence: a guest under emulation answers within a few.
const PATIENCE: Duration = Duration::from_millis(1000);
/// How long a change may take to be seen.
const CONVERGES: Duration = Duration::from_secs(10);

/// Whether one echo request is answered within 400 ms.
///
/// # Errors
/// When `ping` cannot be run.
pub fn ping(from: &Namespace, to: Ipv4Addr) -> anyhow::Result<bool> {
    pings(from, to, &["-c", "1", "-W", "0.4"])
}

fn pings(from: &Namespace, to: Ipv4Addr, how: &[&str]) -> anyhow::Result<bool> {
    let mut command = from.command("ping");
    command.args(["-n", "-q"]).args(how).arg(to.to_string());
    Ok(run(&mut command, Duration::from_secs(10))?.ok())
}

/// A TCP connection, if it comes about within a second.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn connect(from: &Namespace, to: Ipv4Addr, port: u16) -> anyhow::Result<Option<TcpStream>> {
    from.enter(|| Ok(TcpStream::connect_timeout(&SocketAddr::from((to, port)), PATIENCE).ok()))
}

/// Whether an SSH server says its name there within a few seconds.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn ssh_banner(from: &Namespace, to: Ipv4Addr) -> anyhow::Result<bool> {
    let Some(stream) = connect(from, to, 22)? else { return Ok(false) };
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut line = String::new();
    let _ = BufReader::new(stream.take(256)).read_line(&mut line);
    Ok(line.starts_with("SSH-2.0-"))
}

/// Waits until an address answers both ping and SSH; how long that took.
///
/// # Errors
/// When it does not by the deadline.
pub fn answers(from: &Namespace, to: Ipv4Addr, why: &str) -> anyhow::Result<Duration> {
    let took = wait::holds(&format!("{to} answers ({why})"), CONVERGES, || {
        Ok(ping(from, to)? && ssh_banner(from, to)?)
    })?;
    say!("{to} answers after {} ms: {why}", took.as_millis());
    Ok(took)
}

/// Waits until an address is silent, and then proves that it stays so: no ping and no TCP for a while.
///
/// # Errors
/// When it answers.
pub fn silent(from: &Namespace, to: Ipv4Addr, why: &str) -> anyhow::Result<()> {
    wait::holds(&format!("{to} falls silent ({why})"), CONVERGES, || Ok(!ping(from, to)?))?;
    // Five requests and two connections, and time to answer them, at once.
    std::thread::scope(|scope| {
        let connections =
            scope.spawn(|| Ok(connect(from, to, 22)?.is_some() || connect(from, to, 22)?.is_some()));
        if pings(from, to, &["-c", "5", "-i", "0.2", "-W", "1"])? {
            bail!("{to} answers ping although {why}");
        }
        let connected: anyhow::Result<bool> = connections.join().map_err(|_| anyhow!("a probe panicked"))?;
        if connected? {
            bail!("{to} takes TCP connections although {why}");
        }
        Ok(())
    })?;
    say!("{to} is silent: {why}");
    Ok(())
}

/// A ping that goes on until it is asked what it saw.
#[derive(Debug)]
pub struct LongPing(Option<Child>);

/// What a [`LongPing`] saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PingCount {
    /// Requests sent.
    pub sent: u32,
    /// Numbers of requests without an answer; the last half second's are left out, as their answers may be on the way.
    pub lost: Vec<u32>,
}

/// How many requests of a [`LongPing`] half a second has.
const UNDER_WAY: u32 = 25;

impl LongPing {
    /// One request every 20 ms.
    ///
    /// # Errors
    /// When `ping` cannot be run.
    pub fn start(from: &Namespace, to: Ipv4Addr) -> anyhow::Result<Self> {
        let mut command = from.command("ping");
        command.args(["-n", "-i", "0.02", &to.to_string()]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        Ok(Self(Some(child)))
    }

    /// Ends it.
    ///
    /// # Errors
    /// When its output cannot be read.
    pub fn finish(mut self) -> anyhow::Result<PingCount> {
        let child = self.0.take().context("a ping ends once")?;
        kill(pid(child.id()), Signal::SIGINT)?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find(|l| l.contains("packets transmitted")).context("a summary of ping")?;
        let sent = line.split(' ').next().and_then(|n| n.parse().ok()).context("a summary of ping")?;
        let number =
            |line: &str| -> Option<u32> { line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse().ok() };
        let answered: BTreeSet<u32> =
            text.lines().filter(|l| l.contains("bytes from")).filter_map(number).collect();
        let lost = (1..=sent).filter(|n| n + UNDER_WAY <= sent && !answered.contains(n)).collect();
        Ok(PingCount { sent, lost })
    }
}

impl Drop for LongPing {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How long until connections to a port come about (`open`) or no longer do, tried back to back.
///
/// # Errors
/// When that does not happen within ten seconds.
pub fn port_becomes(from: &Namespace, to: Ipv4Addr, port: u16, open: bool) -> anyhow::Result<Duration> {
    let start = Instant::now();
    from.enter(|| {
        loop {
            let patience = if open { Duration::from_millis(100) } else { Duration::from_millis(500) };
            let connected = TcpStream::connect_timeout(&SocketAddr::from((to, port)), patience).is_ok();
            if connected == open {
                return Ok(start.elapsed());
            }
            if start.elapsed() > CONVERGES {
                bail!("port {port} of {to} did not become {}", if open { "open" } else { "closed" });
            }
        }
    })
}
