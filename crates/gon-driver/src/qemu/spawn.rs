//! Starting a QEMU, and finding again one that was started earlier.
//!
//! Assumes a directory of its own for every guest. Promises at most one QEMU per directory at every instant, by a lock
//! that the process itself holds from before it exists until it is gone ([`Lock`]): not by what anybody remembers.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::resource::Resource;
use rustix::fs::FlockOperation;
use uuid::Uuid;

use super::command::{Guest, Handles, command_line};
use super::jail::Jail;
use super::probe::Capabilities;
use super::qcow2::{self, Qcow2Error};
use super::scope::Scope;
use super::{Accelerator, is_up};
use crate::qmp;
use crate::run::{Cmd, Pid, RunAs, RunError, spawn_detached};

/// Descriptors a QEMU may have open: devices and queues of its own, no more.
const OPEN_FILES: u64 = 1024;
/// What of QEMU's log goes into a message.
const LOG_IN_ERROR: u64 = 1000;

/// Where a guest's files are: lock, monitor socket, log and jail. Its owner may keep more there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestDir(PathBuf);

impl GuestDir {
    /// The directory at `path`; made by [`GuestDir::create`].
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
    /// Makes the directory, for us alone; no error if it is there.
    pub fn create(&self) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// The monitor socket.
    #[must_use]
    pub fn monitor(&self) -> PathBuf {
        self.0.join("qmp.sock")
    }
    /// What QEMU itself said.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("qemu.log")
    }
    fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }
    fn jail(&self) -> PathBuf {
        self.0.join("jail")
    }
    /// The end of what QEMU said, as one line.
    #[must_use]
    pub fn log_tail(&self) -> String {
        use std::io::{Read, Seek, SeekFrom};
        let read = || {
            let mut file = File::open(self.log())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_IN_ERROR)))?;
            let mut text = Vec::new();
            file.take(LOG_IN_ERROR).read_to_end(&mut text)?;
            io::Result::Ok(text)
        };
        let text = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.collect::<Vec<_>>().join("; ").chars().filter(|c| !c.is_control()).collect()
    }
}

/// The right to start the guest of a directory. It is given to the QEMU that is started, which holds it as long as it
/// lives, also when everybody else is gone.
#[derive(Debug)]
pub struct Lock(OwnedFd);

impl Lock {
    /// Takes the lock; `None` if a QEMU (or one that is just being started) has it. A process that is between fork and
    /// exec for another purpose may have it for an instant.
    pub fn take(dir: &GuestDir) -> io::Result<Option<Self>> {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(dir.lock())?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file.into()))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Why a QEMU was not started. Nothing of it runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The tap is not there, or not up: its policy is not in force.
    #[error("network device {0} is not up")]
    NotPlugged(String),
    /// The tap could not be opened.
    #[error("opening network device {device}")]
    Tap {
        /// Which one.
        device: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A disk is not one of ours.
    #[error("{}", path.display())]
    Disk {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: Qcow2Error,
    },
    /// A file that the guest needs.
    #[error("{}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The machine model is not built into this QEMU.
    #[error("this QEMU has no machine 'microvm'")]
    NoMicrovm,
    /// The process could not be started or confined.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Starts the guest's QEMU, its processors stopped. Blocks for some milliseconds. The tap devices must be up; the
/// lock goes to the new process.
pub fn start(
    guest: &Guest,
    capabilities: &Capabilities,
    dir: &GuestDir,
    lock: Lock,
) -> Result<Pid, StartError> {
    if guest.machine == super::Machine::Microvm && !capabilities.microvm {
        return Err(StartError::NoMicrovm);
    }
    let file_error = |path: &Path| {
        let path = path.to_owned();
        move |source| StartError::File { path, source }
    };
    for file in [&guest.boot.kernel, &guest.boot.initrd] {
        let meta = std::fs::metadata(file).map_err(file_error(file))?;
        if meta.permissions().mode() & 0o004 == 0 {
            let source = io::Error::new(io::ErrorKind::PermissionDenied, "not readable for everybody");
            return Err(file_error(file)(source));
        }
    }
    let jail_dir = dir.jail();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&jail_dir)
        .map_err(file_error(&jail_dir))?;
    let log = dir.log();
    match std::fs::remove_file(&log) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file_error(&log)(error)),
        _ => {}
    }

    let mut cmd = Cmd::new(&capabilities.program)
        .run_as(RunAs { uid: guest.run_as_uid, gid: guest.run_as_uid, groups: vec![] })
        .no_new_privs()
        .umask(0o077)
        .limit(Resource::RLIMIT_CORE, 0)
        .limit(Resource::RLIMIT_NOFILE, OPEN_FILES);
    let mut nics = Vec::new();
    for nic in &guest.nics {
        if !is_up(&nic.device) {
            return Err(StartError::NotPlugged(nic.device.clone()));
        }
        let tap = open_tap(&nic.device, nic.offloads)
            .map_err(|source| StartError::Tap { device: nic.device.clone(), source })?;
        nics.push(cmd.pass_fd(tap));
    }
    let mut disks = Vec::new();
    for disk in &guest.disks {
        let mut overlay = open_file(&disk.overlay, true).map_err(file_error(&disk.overlay))?;
        qcow2::check(&mut overlay)
            .map_err(|source| StartError::Disk { path: disk.overlay.clone(), source })?;
        let base = match &disk.base {
            Some(path) => Some(cmd.pass_fd(open_file(path, false).map_err(file_error(path))?.into())),
            None => None,
        };
        disks.push((cmd.pass_fd(overlay.into()), base));
    }
    let socket = dir.monitor();
    let monitor = cmd.pass_fd(qmp::listen(&socket).map_err(file_error(&socket))?);
    cmd.pass_fd(lock.0);

    let kvm = matches!(capabilities.accelerator, Accelerator::Kvm { .. });
    let (kernel, initrd) = (&guest.boot.kernel, &guest.boot.initrd);
    let jail = Jail::new(&jail_dir, guest.run_as_uid, kernel, initrd, kvm).map_err(file_error(&jail_dir))?;
    let cmd = cmd.args(command_line(guest, capabilities, &Handles { monitor, nics, disks }));
    let scope = Scope::make(guest.uuid, &format!("guest {}", guest.name), u64::from(guest.memory_mib), &log)
        .unwrap_or_else(|error| {
            tracing::warn!(guest = guest.name, error = chain(&error), "the guest stays in its agent's unit");
            None
        });
    let door = scope.as_ref().map(Scope::door);
    // SAFETY: joining the scope and entering the jail make system calls and nothing else.
    let cmd = unsafe {
        cmd.confine(move || {
            if let Some(door) = &door {
                door.enter();
            }
            jail.enter()
        })
    };
    let pid = spawn_detached(cmd, &log)?;
    if scope.is_some_and(|scope| !scope.has(pid)) {
        tracing::warn!(guest = guest.name, pid = pid.pid, "the guest did not join its scope");
    }
    Ok(pid)
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |e| e.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn open_file(path: &Path, write: bool) -> io::Result<File> {
    std::fs::OpenOptions::new().read(true).write(write).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Opens a persistent tap that somebody else made.
fn open_tap(device: &str, vnet_header: bool) -> io::Result<OwnedFd> {
    let tun = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    let mut request = interface_request(device)?;
    let header = if vnet_header { libc::IFF_VNET_HDR } else { 0 };
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | header) as libc::c_short;
    // SAFETY: a tun descriptor and a filled `ifreq` that outlives the call.
    if unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: likewise; the kernel fills it.
    if unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETIFF, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has written the flags.
    let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    if flags & libc::IFF_PERSIST == 0 {
        // It went between look and open, and the kernel made a new one, without policy. It goes as we close it.
        return Err(io::Error::new(io::ErrorKind::NotFound, "it is not persistent"));
    }
    Ok(tun.into())
}

/// An `ifreq` with a device's name.
pub(super) fn interface_request(device: &str) -> io::Result<libc::ifreq> {
    if !crate::netlink::is_device_name(device) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a device name"));
    }
    // SAFETY: all bytes zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// The QEMU that runs as `uid` with this machine identity, whoever started it.
#[must_use]
pub fn find(uid: u32, uuid: Uuid) -> Option<Pid> {
    let entries = std::fs::read_dir("/proc").ok()?;
    let uuid = uuid.to_string();
    entries.flatten().find_map(|entry| {
        let number: i32 = entry.file_name().to_str()?.parse().ok()?;
        // The owner of the directory is the effective user of a process that executed a program.
        if entry.metadata().ok()?.uid() != uid {
            return None;
        }
        let pid = Pid::of(number)?;
        let args = pid.args()?;
        let ours = args.iter().zip(args.iter().skip(1)).any(|(a, b)| a == "-uuid" && *b == uuid);
        ours.then_some(pid)
    })
}
