//! Frames on a device, as the kernel saw them: what a guest was given, whatever it does with it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::namespace::Namespace;
use crate::process::kill_hard;

/// A running capture on one device.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    device: String,
}

/// Which way frames go on a tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Given to the guest.
    ToGuest,
    /// Sent by the guest.
    FromGuest,
}

impl Capture {
    /// Captures on `device` the frames that `filter` (tcpdump's language) matches; running when this returns.
    ///
    /// # Errors
    /// When tcpdump does not start.
    pub fn start(inside: &Namespace, device: &str, way: Way, filter: &str) -> anyhow::Result<Self> {
        let direction = match way {
            Way::ToGuest => "out",
            Way::FromGuest => "in",
        };
        let mut command = inside.command("tcpdump");
        command.args(["-i", device, "-Q", direction, "-n", "-e", "-l", "--immediate-mode", "-t", filter]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (ready_in, ready) = channel();
        let stderr = child.stderr.take().context("a pipe")?;
        std::thread::spawn(move || {
            let mut said = String::new();
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                said.push_str(&line);
                said.push('\n');
                if line.contains("listening on") {
                    let _ = ready_in.send(Ok(()));
                }
            }
            let _ = ready_in.send(Err(said));
        });
        let (line_in, lines) = channel();
        let stdout = child.stdout.take().context("a pipe")?;
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line_in.send(line).is_err() {
                    break;
                }
            }
        });
        let capture = Self { child, lines, seen: Vec::new(), device: device.to_owned() };
        match ready.recv_timeout(Duration::from_secs(10)) {
            Ok(Ok(())) => Ok(capture),
            Ok(Err(said)) => bail!("tcpdump on {device}: {said}"),
            Err(_) => bail!("tcpdump on {device} does not start"),
        }
    }

    /// Every frame so far, one line each.
    pub fn frames(&mut self) -> &[String] {
        self.seen.extend(self.lines.try_iter());
        &self.seen
    }

    /// Waits for a frame whose line contains all of `words`.
    ///
    /// # Errors
    /// When none comes.
    pub fn expect(&mut self, words: &[&str], deadline: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            if self.frames().iter().any(|line| words.iter().all(|w| line.contains(w))) {
                return Ok(());
            }
            if start.elapsed() > deadline {
                bail!(
                    "no frame with {words:?} on {} within {} ms; seen:\n{}",
                    self.device,
                    deadline.as_millis(),
                    self.seen.join("\n")
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the capture, after what is under way has arrived; every frame whose line contains all of `words`.
    #[must_use]
    pub fn finish(mut self, words: &[&str]) -> Vec<String> {
        std::thread::sleep(Duration::from_millis(150));
        self.frames().iter().filter(|line| words.iter().all(|w| line.contains(w))).cloned().collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // `ip netns exec` becomes tcpdump: the child is it.
        kill_hard(self.child.id().cast_signed());
        let _ = self.child.wait();
    }
}
