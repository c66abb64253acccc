//! Commands with a deadline, and a look at the processes of the machine.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// What a command said.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it ended with 0.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.status.success()
    }
    /// Both outputs, for messages.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs a command to its end; after the deadline its whole process group is killed.
///
/// # Errors
/// When it cannot be started or does not end in time.
pub fn run(command: &mut Command, deadline: Duration) -> anyhow::Result<Output> {
    let name = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| name.clone())?;
    let drain = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                let _ = pipe.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = drain(child.stdout.take().map(|p| Box::new(p) as _));
    let stderr = drain(child.stderr.take().map(|p| Box::new(p) as _));
    let start = Instant::now();
    let mut pause = Duration::from_micros(200);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() > deadline {
            let _ = killpg(pid(child.id()), Signal::SIGKILL);
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    };
    // A child of the command that kept a pipe open must not hold us: it is in the group.
    if status.is_some_and(|s| s.signal().is_some()) {
        let _ = killpg(pid(child.id()), Signal::SIGKILL);
    }
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    match status {
        Some(status) => Ok(Output { status, stdout, stderr }),
        None => bail!("{name}: no end within {} s: {stdout}{stderr}", deadline.as_secs()),
    }
}

/// [`run`] for a command that must succeed; its standard output.
///
/// # Errors
/// When it does not, with what it said.
pub fn check(command: &mut Command, deadline: Duration) -> anyhow::Result<String> {
    let output = run(command, deadline)?;
    if !output.ok() {
        bail!("{command:?}: {}: {}", output.status, output.text().trim());
    }
    Ok(output.stdout)
}

/// A process as seen in `/proc`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its arguments, joined by spaces.
    pub command: String,
}

impl Process {
    /// The last part of its program's name.
    #[must_use]
    pub fn program(&self) -> &str {
        let first = self.command.split(' ').next().unwrap_or_default();
        first.rsplit('/').next().unwrap_or_default()
    }
}

/// Every process in the network namespace with this inode, or whose arguments, directory or open files are below
/// `directory`. A guest has a namespace of its own and no path in its arguments; its log gives it away.
#[must_use]
pub fn belonging(namespace: Option<u64>, directory: &Path, except: &[i32]) -> Vec<Process> {
    let wanted = namespace.map(|inode| format!("net:[{inode}]"));
    let below = directory.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        if except.contains(&pid) || pid == std::process::id().cast_signed() {
            continue;
        }
        let link = |name: &str| {
            std::fs::read_link(entry.path().join(name))
                .map(|p| p.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ").trim_end().to_owned();
        // A kernel thread, or a zombie: its parent's business, and nothing runs.
        if link("exe").is_empty() {
            continue;
        }
        let inside = || wanted.as_ref().is_some_and(|w| *w == link("ns/net"));
        let opened = || {
            let files = std::fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
            files
                .filter_map(|file| std::fs::read_link(file.path()).ok())
                .any(|path| path.starts_with(directory))
        };
        if inside() || command.contains(&below) || link("cwd").starts_with(&below) || opened() {
            found.push(Process { pid, command });
        }
    }
    found.sort();
    found
}

/// The network devices a process holds the other end of: the taps of a guest.
#[must_use]
pub fn taps(process: i32) -> Vec<String> {
    let files = std::fs::read_dir(format!("/proc/{process}/fdinfo")).into_iter().flatten().flatten();
    let mut names: Vec<String> = files
        .filter_map(|file| std::fs::read_to_string(file.path()).ok())
        .filter_map(|text| text.lines().find_map(|l| l.strip_prefix("iff:").map(|n| n.trim().to_owned())))
        .collect();
    names.sort();
    names
}

/// Sends SIGKILL.
pub fn kill_hard(process: i32) {
    let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
}

/// Our type for process numbers.
#[must_use]
pub fn pid(id: u32) -> Pid {
    Pid::from_raw(id.cast_signed())
}

/// The last `lines` lines of a file, for messages.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<String> = text.lines().map(|line| line.chars().take(500).collect()).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Starts a watcher: a shell that reads a word and does the rest of its script unless that is `done`, which is when this
/// process ends without having said so.
///
/// # Errors
/// When there is no shell.
pub fn watcher(script: &str, arguments: &[&OsStr]) -> anyhow::Result<Child> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "gon-e2e-watcher"]).args(arguments);
    command
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("the watcher")
}
