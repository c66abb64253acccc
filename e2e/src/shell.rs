//! A shell in a guest, over one SSH connection that stays open: many commands for one key exchange, and itself a probe
//! of whether an established connection lives.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::namespace::Namespace;
use crate::process::kill_hard;

/// How long a command in a guest may take unless said otherwise.
const DEADLINE: Duration = Duration::from_secs(30);

/// The options of every `ssh` here: our key, nobody's configuration, no question.
#[must_use]
pub fn ssh(inside: &Namespace, key: &Path, user: &str, to: Ipv4Addr) -> Command {
    let mut command = inside.command("ssh");
    command.args(["-F", "/dev/null", "-T", "-i"]).arg(key);
    for option in [
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
        "ConnectTimeout=5",
    ] {
        command.args(["-o", option]);
    }
    command.arg(format!("{user}@{to}"));
    command
}

/// An open shell in a guest.
#[derive(Debug)]
pub struct Shell {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    count: u32,
}

impl Shell {
    /// Opens one; tries again until the deadline, as a guest that boots does not answer yet.
    ///
    /// # Errors
    /// When it does not come about.
    pub fn open(
        inside: &Namespace,
        key: &Path,
        user: &str,
        to: Ipv4Addr,
        deadline: Duration,
    ) -> anyhow::Result<Self> {
        let start = Instant::now();
        loop {
            let error = match Self::attempt(inside, key, user, to) {
                Ok(shell) => return Ok(shell),
                Err(error) => error,
            };
            if start.elapsed() > deadline {
                return Err(error).context(format!("no shell at {to} within {} s", deadline.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn attempt(inside: &Namespace, key: &Path, user: &str, to: Ipv4Addr) -> anyhow::Result<Self> {
        let mut command = ssh(inside, key, user, to);
        command.arg("sh 2>&1");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take().context("a pipe")?;
        let (line_in, lines) = channel();
        let stdout = child.stdout.take().context("a pipe")?;
        let stderr = child.stderr.take().context("a pipe")?;
        let errors_in = line_in.clone();
        for (pipe, sender) in
            [(Box::new(stdout) as Box<dyn std::io::Read + Send>, line_in), (Box::new(stderr) as _, errors_in)]
        {
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                    if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                        break;
                    }
                }
            });
        }
        let mut shell = Self { child, stdin, lines, count: 0 };
        shell.run_for("true", Duration::from_secs(15))?;
        Ok(shell)
    }

    /// Runs a script; its output (both streams). It must end with 0.
    ///
    /// # Errors
    /// When it does not, or the connection is gone, or it takes longer than 30 s.
    pub fn run(&mut self, script: &str) -> anyhow::Result<String> {
        self.run_for(script, DEADLINE)
    }

    /// [`Shell::run`] with a deadline of its own.
    ///
    /// # Errors
    /// As for [`Shell::run`].
    pub fn run_for(&mut self, script: &str, deadline: Duration) -> anyhow::Result<String> {
        let (status, output) = self.status_for(script, deadline)?;
        if status != 0 {
            bail!("in the guest: {script}\nended with {status}: {output}");
        }
        Ok(output)
    }

    /// Whether a script ends with 0.
    ///
    /// # Errors
    /// When the connection is gone or it takes too long.
    pub fn test(&mut self, script: &str) -> anyhow::Result<bool> {
        Ok(self.status_for(script, DEADLINE)?.0 == 0)
    }

    /// Runs a script: its exit status and its output.
    ///
    /// # Errors
    /// When the connection is gone or it takes too long.
    pub fn status_for(&mut self, script: &str, deadline: Duration) -> anyhow::Result<(i32, String)> {
        self.count += 1;
        let marker = format!("--e2e-{}-{}--", std::process::id(), self.count);
        // Standard input of the script is not the one the shell reads its commands from.
        let text = format!("(\n{script}\n) </dev/null\nprintf '\\n{marker} %d\\n' $?\n");
        self.stdin
            .write_all(text.as_bytes())
            .and_then(|()| self.stdin.flush())
            .context("the shell is gone")?;
        let start = Instant::now();
        let mut output = String::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_sub(start.elapsed())) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(&marker) {
                        return Ok((rest.trim().parse()?, output.trim().to_owned()));
                    }
                    output.push_str(&line);
                    output.push('\n');
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("in the guest: {script}\nno end within {} s: {output}", deadline.as_secs())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("in the guest: {script}\nthe connection is gone: {output}")
                }
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        kill_hard(self.child.id().cast_signed());
        let _ = self.child.wait();
    }
}
