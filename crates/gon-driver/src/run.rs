//! The only place that starts processes.
//!
//! Assumes nothing of the caller's environment: a child gets an argument vector (never a shell), a fixed minimal
//! environment, no descriptor it was not given, and the identity asked for. Promises that a command that outlives its
//! deadline is killed with its whole process group, that a detached process is nobody's child and survives us, and
//! that a process remembered from earlier ([`Pid`]) is never mistaken for another one that got its number.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::libc;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

/// Where programs are looked for; the caller's own `PATH` is not believed.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What of a child's output is kept (each of stdout and stderr); the rest is read and dropped.
const OUTPUT_LIMIT: usize = 16 << 20;
/// What of stderr goes into an error.
const STDERR_IN_ERROR: usize = 2000;

/// Who a child runs as. All three are set, so a child never keeps a group of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    /// User id, real, effective and saved.
    pub uid: u32,
    /// Group id, likewise.
    pub gid: u32,
    /// Supplementary groups: these and no others.
    pub groups: Vec<u32>,
}

impl RunAs {
    /// The user and its group of the same entry in the password database.
    pub fn named(name: &str) -> io::Result<Self> {
        match nix::unistd::User::from_name(name).map_err(io::Error::from)? {
            Some(user) => Ok(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups: vec![] }),
            None => Err(io::Error::new(io::ErrorKind::NotFound, format!("no user '{name}' on this machine"))),
        }
    }
}

/// A command to be run. Nothing is inherited but what is said here.
#[derive(Debug)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Option<Vec<u8>>,
    run_as: Option<RunAs>,
    cwd: Option<PathBuf>,
    deadline: Duration,
    fds: Vec<OwnedFd>,
    limits: Vec<(nix::sys::resource::Resource, u64)>,
    umask: Option<u32>,
    no_new_privs: bool,
    binds: Vec<(CString, CString)>,
    confine: Option<Confine>,
}

/// What the child does to itself, still privileged, just before its identity changes.
struct Confine(Box<dyn Fn() -> io::Result<()> + Send + Sync>);

impl std::fmt::Debug for Confine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Confine")
    }
}

impl Cmd {
    /// `program` by name (looked up in the system's directories) or by path. The deadline is 30 s until said otherwise.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: vec![],
            env: vec![],
            stdin: None,
            run_as: None,
            cwd: None,
            deadline: Duration::from_secs(30),
            fds: vec![],
            limits: vec![],
            umask: None,
            no_new_privs: false,
            binds: vec![],
            confine: None,
        }
    }
    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }
    /// More arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }
    /// A variable beside `LC_ALL=C` and `PATH`.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }
    /// What the child reads; without it, `/dev/null`. Not for detached processes.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }
    /// Who it runs as; needs privilege.
    #[must_use]
    pub fn run_as(mut self, who: RunAs) -> Self {
        self.run_as = Some(who);
        self
    }
    /// Its working directory, entered *before* the identity changes: the child may then use relative paths below a
    /// directory it could not reach by name.
    #[must_use]
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.cwd = Some(dir.as_ref().to_owned());
        self
    }
    /// How long it may take before it is killed. For detached processes: meaningless.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
    /// Gives the child an open descriptor. It keeps its number, which is returned for use in an argument.
    pub fn pass_fd(&mut self, fd: OwnedFd) -> RawFd {
        let number = fd.as_raw_fd();
        self.fds.push(fd);
        number
    }
    /// A resource limit, soft and hard.
    #[must_use]
    pub fn limit(mut self, resource: nix::sys::resource::Resource, value: u64) -> Self {
        self.limits.push((resource, value));
        self
    }
    /// File mode bits that new files of the child do not get.
    #[must_use]
    pub fn umask(mut self, mask: u32) -> Self {
        self.umask = Some(mask);
        self
    }
    /// Whether set-user-id programs and file capabilities are dead for the child and its children.
    #[must_use]
    pub fn no_new_privs(mut self) -> Self {
        self.no_new_privs = true;
        self
    }

    /// Shows the child `source` also at `target`, an existing directory, in a mount namespace of its own that ends
    /// with it. Needs privilege; done before the identity changes, so `source` may lie where the child cannot go.
    pub fn bind(mut self, source: &Path, target: &Path) -> io::Result<Self> {
        self.binds.push((c_path(source)?, c_path(target)?));
        Ok(self)
    }

    /// What else the child does to itself before its identity changes; a failure keeps it from starting.
    ///
    /// # Safety
    /// It runs between fork and exec of a process with threads: system calls only, no allocation, no lock.
    #[must_use]
    pub(crate) unsafe fn confine(
        mut self,
        step: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.confine = Some(Confine(Box::new(step)));
        self
    }

    fn name(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    /// The standard command: everything but stdio, and, for a detached one, the second fork that reports the
    /// grandchild's number on `orphan`.
    fn build(&mut self, orphan: Option<RawFd>) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().env("LC_ALL", "C").env("PATH", PATH);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if orphan.is_none() {
            command.process_group(0);
        }
        let keep: Vec<RawFd> = self.fds.iter().map(AsRawFd::as_raw_fd).collect();
        let who = self.run_as.clone();
        let limits = self.limits.clone();
        let (umask, no_new_privs) = (self.umask, self.no_new_privs);
        let cwd = self.cwd.as_deref().map(c_path).transpose()?;
        let binds = self.binds.clone();
        let confine = self.confine.take();
        // SAFETY: between fork and exec the closure makes system calls only; it allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(move || {
                if let Some(report) = orphan {
                    detach(report)?;
                }
                // Every descriptor above stdio is closed at exec, however it was opened, but those given.
                check(libc::syscall(
                    libc::SYS_close_range,
                    3,
                    libc::c_uint::MAX,
                    libc::CLOSE_RANGE_CLOEXEC as libc::c_uint,
                ))?;
                for fd in &keep {
                    check(libc::c_long::from(libc::fcntl(*fd, libc::F_SETFD, 0)))?;
                }
                if !binds.is_empty() {
                    unshare_mounts()?;
                }
                for (source, target) in &binds {
                    bind_mount(source, target)?;
                }
                if let Some(dir) = &cwd {
                    check(libc::c_long::from(libc::chdir(dir.as_ptr())))?;
                }
                if let Some(mask) = umask {
                    libc::umask(mask as libc::mode_t);
                }
                for (resource, value) in &limits {
                    nix::sys::resource::setrlimit(*resource, *value, *value)?;
                }
                if let Some(Confine(step)) = &confine {
                    step()?;
                }
                if let Some(who) = &who {
                    check(libc::c_long::from(libc::setgroups(who.groups.len(), who.groups.as_ptr())))?;
                    check(libc::c_long::from(libc::setresgid(who.gid, who.gid, who.gid)))?;
                    check(libc::c_long::from(libc::setresuid(who.uid, who.uid, who.uid)))?;
                }
                if no_new_privs {
                    check(libc::c_long::from(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)))?;
                }
                Ok(())
            });
        }
        Ok(command)
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// A mount namespace of our own that still hears of what is unmounted outside, but tells nothing.
///
/// # Safety
/// Only between fork and exec.
unsafe fn unshare_mounts() -> io::Result<()> {
    // SAFETY: system calls; the arguments are static or null.
    unsafe {
        check(libc::c_long::from(libc::unshare(libc::CLONE_NEWNS)))?;
        let null = std::ptr::null();
        let flags = libc::MS_REC | libc::MS_SLAVE;
        check(libc::c_long::from(libc::mount(null, c"/".as_ptr(), null, flags, null.cast())))?;
    }
    Ok(())
}

/// # Safety
/// Only between fork and exec.
unsafe fn bind_mount(source: &CStr, target: &CStr) -> io::Result<()> {
    let null = std::ptr::null();
    // SAFETY: a system call; both strings end with a zero.
    let result = unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), null, libc::MS_BIND | libc::MS_REC, null.cast())
    };
    check(libc::c_long::from(result)).map(drop)
}

/// In the child: forks once more and goes on in the grandchild, which has its own session and whose parent is gone.
/// Writes the grandchild's number to `report`.
///
/// # Safety
/// Only between fork and exec.
unsafe fn detach(report: RawFd) -> io::Result<()> {
    // SAFETY: system calls without memory arguments, or with arguments that live on this stack.
    unsafe {
        check(libc::c_long::from(libc::setsid()))?;
        // The raw system call: glibc's fork takes locks that another thread of the first parent may have held.
        let pid = check(libc::syscall(libc::SYS_clone, libc::c_long::from(libc::SIGCHLD), 0, 0, 0, 0))?;
        if pid != 0 {
            let pid = pid as i32;
            let bytes = pid.to_ne_bytes();
            let written = libc::write(report, bytes.as_ptr().cast(), bytes.len());
            libc::_exit(i32::from(written != 4));
        }
        Ok(())
    }
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// What a command that succeeded said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text; bytes that are none are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not be started: not installed, not allowed.
    #[error("{program} could not be started")]
    Spawn {
        /// Which program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended, but not well.
    #[error("{program} failed ({status}): {stderr}")]
    Exit {
        /// Which program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        stderr: String,
        /// What it had written to standard output.
        stdout: Vec<u8>,
    },
    /// It had not ended at its deadline and was killed with its process group.
    #[error("{program} had not finished after {after:?} and was killed: {stderr}")]
    Timeout {
        /// Which program.
        program: String,
        /// Its deadline.
        after: Duration,
        /// The end of what it had said.
        stderr: String,
    },
    /// The system failed between us and the child.
    #[error("talking with {program}")]
    Io {
        /// Which program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl RunError {
    /// Whether the same command may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Spawn { source, .. } | Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory)
            }
            Self::Exit { status, .. } => status.signal().is_some(),
        }
    }
    /// The exit code, if it ended by itself.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Exit { status, .. } => status.code(),
            _ => None,
        }
    }
}

/// A running child that does not outlive this value.
struct Leash {
    child: Child,
    reaped: bool,
}

impl Leash {
    fn kill_group(&mut self) {
        if !self.reaped {
            // The group's number is the child's, which is not reaped, so it cannot be anybody else's.
            let group = nix::unistd::Pid::from_raw(self.child.id() as i32);
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
    }
}
impl Drop for Leash {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill_group();
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end. Success is exit code 0; anything else is an error. Dropping the future kills the
/// command's process group.
pub async fn run(mut cmd: Cmd) -> Result<Output, RunError> {
    let program = cmd.name();
    let io_error = |source| RunError::Io { program: program.clone(), source };
    let mut command = cmd.build(None).map_err(io_error)?;
    command
        .stdin(if cmd.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| RunError::Spawn { program: program.clone(), source })?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut leash = Leash { child, reaped: false };
    let pid = leash.child.id() as i32;

    let exited = Pidfd::open(pid).map_err(io_error)?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let work = async {
        let feed = async {
            if let (Some(pipe), Some(bytes)) = (stdin, &cmd.stdin) {
                let mut pipe = pipe::Sender::from_owned_fd(pipe.into())?;
                match pipe.write_all(bytes).await {
                    // It may end well without having read everything.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                    other => other?,
                }
            }
            io::Result::Ok(())
        };
        let (fed, read_out, read_err) = tokio::join!(
            feed,
            drain(stdout.map(Into::into), &mut out),
            drain(stderr.map(Into::into), &mut err)
        );
        fed.and(read_out).and(read_err)?;
        exited.gone().await
    };
    let finished = tokio::time::timeout(cmd.deadline, work).await;
    match finished {
        Err(_) => {
            leash.kill_group();
            let _ = leash.child.wait();
            leash.reaped = true;
            Err(RunError::Timeout { program, after: cmd.deadline, stderr: tail(&err) })
        }
        Ok(Err(error)) => Err(io_error(error)),
        Ok(Ok(())) => {
            let status = leash.child.wait().map_err(io_error)?;
            leash.reaped = true;
            if status.success() {
                Ok(Output { stdout: out, stderr: err })
            } else {
                Err(RunError::Exit { program, status, stderr: tail(&err), stdout: out })
            }
        }
    }
}

/// Reads a pipe to its end; keeps at most [`OUTPUT_LIMIT`].
async fn drain(pipe: Option<OwnedFd>, into: &mut Vec<u8>) -> io::Result<()> {
    let Some(pipe) = pipe else { return Ok(()) };
    let mut pipe = pipe::Receiver::from_owned_fd(pipe)?;
    let mut chunk = [0u8; 8192];
    loop {
        let n = pipe.read(&mut chunk).await?;
        if n == 0 {
            return Ok(());
        }
        let room = OUTPUT_LIMIT.saturating_sub(into.len());
        into.extend_from_slice(&chunk[..n.min(room)]);
    }
}

fn tail(stderr: &[u8]) -> String {
    let from = stderr.len().saturating_sub(STDERR_IN_ERROR);
    String::from_utf8_lossy(&stderr[from..]).trim().to_owned()
}

/// Starts a process that outlives us: own session, parent gone, standard output and error appended to `log` (mode
/// 0600), nothing else open but the descriptors given. Returns once the program is executing.
pub fn spawn_detached(mut cmd: Cmd, log: &Path) -> Result<Pid, RunError> {
    use std::os::unix::fs::OpenOptionsExt;
    let program = cmd.name();
    let io_error = |source| RunError::Io { program: program.clone(), source };
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(log)
        .map_err(io_error)?;
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|errno| io_error(errno.into()))?;
    let mut command = cmd.build(Some(write.as_raw_fd())).map_err(io_error)?;
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(io_error)?).stderr(log);
    // `spawn` returns when the grandchild has executed the program (or could not): it holds the pipe on which the
    // standard library waits.
    let mut child = command.spawn().map_err(|source| RunError::Spawn { program: program.clone(), source })?;
    let status = child.wait().map_err(io_error)?;
    drop(write);
    let mut bytes = [0u8; 4];
    let got = rustix::io::read(&read, &mut bytes).map_err(|errno| io_error(errno.into()))?;
    if !status.success() || got != bytes.len() {
        return Err(RunError::Io { program, source: io::Error::other("the second fork failed") });
    }
    let number = i32::from_ne_bytes(bytes);
    Pid::of(number)
        .ok_or_else(|| RunError::Spawn { program, source: io::Error::other("it ended at once; see its log") })
}

/// A process that can be recognised later, also by another process: its number alone is not it, for numbers are used
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pid {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since the machine did (`/proc/PID/stat`, field 22).
    pub start_time: u64,
    /// Which boot of the machine: the first half of the kernel's boot id.
    pub boot: u64,
}

impl Pid {
    /// The process that has this number now; `None` if none does or it is only waiting to be reaped.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        Self::entry(pid).filter(|(_, state, _)| !matches!(state, 'Z' | 'X' | 'x')).map(|(pid, ..)| pid)
    }
    /// Whoever has this number, its state, and its flags.
    fn entry(pid: i32) -> Option<(Self, char, u32)> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses and may contain anything; the fields count from behind its last parenthesis.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let flags = fields.nth(5)?.parse().ok()?;
        let start_time = fields.nth(12)?.parse().ok()?;
        Some((Self { pid, start_time, boot: boot_id() }, state, flags))
    }
    /// Whether it is ending, and what it had open is not free yet: the kernel is closing its files. Nothing wakes who waits
    /// for its end before that is done.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        /// `PF_EXITING` of the kernel's `sched.h`.
        const EXITING: u32 = 4;
        let threads = || std::fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(0, Iterator::count);
        Self::entry(self.pid).is_some_and(|(pid, state, flags)| {
            // One of its threads closes the files: the first, or one that is left when the first is dead.
            pid == *self && flags & EXITING != 0 && (state != 'Z' || threads() > 1)
        })
    }
    /// Whether it still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }
    /// The program file it executes, if it lives and we may look.
    #[must_use]
    pub fn exe(&self) -> Option<PathBuf> {
        let exe = std::fs::read_link(format!("/proc/{}/exe", self.pid)).ok()?;
        self.is_alive().then_some(exe)
    }
    /// Its argument vector, if it lives.
    #[must_use]
    pub fn args(&self) -> Option<Vec<String>> {
        let bytes = std::fs::read(format!("/proc/{}/cmdline", self.pid)).ok()?;
        let args = bytes.split(|b| *b == 0).map(|a| String::from_utf8_lossy(a).into_owned());
        let mut args: Vec<String> = args.collect();
        args.pop();
        self.is_alive().then_some(args)
    }
    /// A hold on it, so that what follows cannot hit another process; `None` if it is gone.
    fn hold(&self) -> Option<Pidfd> {
        let fd = Pidfd::open(self.pid).ok()?;
        // Checked after opening: from here on the descriptor means this process and no other.
        self.is_alive().then_some(fd)
    }
    /// Sends a signal; false if it is gone already.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Ok(fd) = pidfd_open(raw_pid(self.pid)?, PidfdFlags::empty()) else { return Ok(false) };
        if !self.is_alive() {
            return Ok(false);
        }
        match pidfd_send_signal(&fd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
    /// Waits until it is gone; false if it was still there at the deadline.
    pub async fn wait_gone(&self, deadline: Duration) -> bool {
        let Some(held) = self.hold() else { return true };
        matches!(tokio::time::timeout(deadline, held.gone()).await, Ok(Ok(())))
    }
    /// Asks it to end (SIGTERM), and kills it if it has not within `grace`. True when it is gone.
    pub async fn stop(&self, grace: Duration) -> io::Result<bool> {
        self.signal(Signal::TERM)?;
        if self.wait_gone(grace).await {
            return Ok(true);
        }
        self.kill().await
    }
    /// Kills it and waits until it is gone (at most 10 s: a process stuck in the kernel cannot be killed).
    pub async fn kill(&self) -> io::Result<bool> {
        self.signal(Signal::KILL)?;
        Ok(self.wait_gone(Duration::from_secs(10)).await)
    }
}

fn raw_pid(pid: i32) -> io::Result<rustix::process::Pid> {
    rustix::process::Pid::from_raw(pid).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

fn boot_id() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}

/// A descriptor of a process that becomes readable when it ends.
struct Pidfd(AsyncFd<OwnedFd>);

impl Pidfd {
    fn open(pid: i32) -> io::Result<Self> {
        let fd = pidfd_open(raw_pid(pid)?, PidfdFlags::NONBLOCK)?;
        // SAFETY: an owned descriptor stays open, and the same, for as long as the `AsyncFd` that owns it.
        Ok(Self(unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }?))
    }
    async fn gone(&self) -> io::Result<()> {
        self.0.readable().await.map(|_| ())
    }
}

/// A duplicate of an open file for [`Cmd::pass_fd`].
pub fn duplicate(fd: impl std::os::fd::AsFd) -> io::Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned()
}

/// Takes ownership of a descriptor that came as a number (from a service manager, say).
///
/// # Safety
/// The number must be an open descriptor that nobody else owns.
#[must_use]
pub unsafe fn adopt_fd(number: RawFd) -> OwnedFd {
    // SAFETY: the caller's promise.
    unsafe { OwnedFd::from_raw_fd(number) }
}
