//! A guest's own place in the service manager's tree: a transient scope in `gcp-guests.slice`.
//!
//! Where systemd runs the machine, a process belongs to the unit that started it, and stopping that unit is meant to end
//! it. A guest must outlive its agent (rule R8), so its QEMU moves into a scope of its own before it executes: there it
//! has its own limits and accounting, and at shutdown it ends after the agent, which therefore never mistakes the end
//! of the machine for the end of a guest.
//!
//! The scope is made by `systemd-run`, which speaks to systemd's own socket and needs no message bus, around a process
//! that merely holds it open; the QEMU joins it by itself, and the holder goes. Without systemd, or where this fails,
//! the guest stays in its agent's unit, whose `KillMode=process` spares it all the same.

use std::ffi::CString;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::libc;
use uuid::Uuid;

use crate::run::{Cmd, Pid, RunError, spawn_detached};

/// Where guests' scopes are.
const SLICE: &str = "gcp-guests.slice";
/// What QEMU itself may need beside the guest's memory: devices, and, emulating, its translations.
const OVERHEAD_MIB: u64 = 2048;
/// How long systemd may take to make a scope.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the holder waits to be let go; longer than any start.
const HOLD_SECONDS: &str = "120";

/// A scope that waits for its guest; it is gone again with this value if none has joined.
pub(super) struct Scope {
    holder: Pid,
    procs: CString,
    cgroup: String,
}

impl Scope {
    /// Makes one, if systemd runs this machine. Blocks for some ten milliseconds.
    pub(super) fn make(
        uuid: Uuid,
        description: &str,
        memory_mib: u64,
        log: &Path,
    ) -> Result<Option<Self>, RunError> {
        if !systemd_runs() {
            return Ok(None);
        }
        // A machine that is started again may be faster than systemd is with clearing its last scope away.
        let unit = format!("gon-{uuid}-{:08x}.scope", Uuid::now_v7().as_u128() as u32);
        let holder = spawn_detached(command(&unit, description, memory_mib), log)?;
        let held = Held(holder);
        let until = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(format!("/proc/{}/cgroup", holder.pid)).unwrap_or_default();
            if let Some(cgroup) = unified(&text)
                && cgroup.ends_with(&format!("/{unit}"))
            {
                let procs = CString::new(format!("/sys/fs/cgroup{cgroup}/cgroup.procs"))
                    .map_err(|_| failed("its name has a zero"))?;
                std::mem::forget(held);
                return Ok(Some(Self { holder, procs, cgroup: cgroup.to_owned() }));
            }
            if !holder.is_alive() {
                return Err(failed("it made no scope; see the guest's log"));
            }
            if Instant::now() > until {
                return Err(failed("it made no scope in time"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The file through which a process joins.
    pub(super) fn door(&self) -> Door {
        Door(self.procs.clone())
    }

    /// Whether a process has joined.
    pub(super) fn has(&self, pid: Pid) -> bool {
        let text = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.pid)).unwrap_or_default();
        unified(&text) == Some(self.cgroup.as_str())
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let _ = self.holder.signal(rustix::process::Signal::KILL);
    }
}

/// Ends the holder of a scope that was not made.
struct Held(Pid);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.signal(rustix::process::Signal::KILL);
    }
}

/// How a process joins a scope.
pub(super) struct Door(CString);

impl Door {
    /// Joins. Failing is no reason not to start: see the module's head.
    ///
    /// # Safety
    /// Only between fork and exec: it makes system calls and nothing else.
    pub(super) unsafe fn enter(&self) {
        // SAFETY: system calls on a string that ends with a zero and on a static one.
        unsafe {
            let fd = libc::open(self.0.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if fd >= 0 {
                // Zero is whoever writes it.
                let _ = libc::write(fd, c"0".as_ptr().cast(), 1);
                libc::close(fd);
            }
        }
    }
}

fn command(unit: &str, description: &str, memory_mib: u64) -> Cmd {
    let limit = memory_mib + memory_mib / 8 + OVERHEAD_MIB;
    Cmd::new("systemd-run")
        .args(["--scope", "--quiet", "--collect", "--no-ask-password"])
        .arg(format!("--unit={unit}"))
        .arg(format!("--slice={SLICE}"))
        .arg(format!("--description={description}"))
        .arg("--property=Before=gcp-hypervisor-agent.service")
        .arg(format!("--property=MemoryMax={limit}M"))
        .args(["--property=TasksMax=1024", "--property=TimeoutStopSec=30"])
        .args(["--property=DevicePolicy=closed", "--property=DeviceAllow=/dev/kvm rwm"])
        .args(["--", "/bin/sleep", HOLD_SECONDS])
}

fn failed(why: &str) -> RunError {
    RunError::Io { program: "systemd-run".to_owned(), source: io::Error::other(why.to_owned()) }
}

/// Whether systemd runs this machine (sd_booted(3)) and processes have one place each (cgroups, version 2).
fn systemd_runs() -> bool {
    let unified = std::fs::read_to_string("/proc/self/cgroup").is_ok_and(|text| unified(&text).is_some());
    unified
        && Path::new("/run/systemd/system").is_dir()
        && Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A process's place, from its `/proc/PID/cgroup`; `None` if it has several (version 1).
fn unified(text: &str) -> Option<&str> {
    let mut lines = text.lines();
    let place = lines.next()?.strip_prefix("0::")?;
    lines.next().is_none().then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_only_where_there_is_one() {
        assert_eq!(
            unified("0::/gcp.slice/gcp-guests.slice/gon-1.scope\n"),
            Some("/gcp.slice/gcp-guests.slice/gon-1.scope")
        );
        assert_eq!(unified("12:cpu:/x\n0::/y\n"), None);
        assert_eq!(unified(""), None);
    }

    /// A directory stands in for the kernel's: what matters is that a process joins by itself, between fork and exec.
    #[test]
    fn a_process_joins_before_it_executes() {
        let dir = tempfile::tempdir().unwrap();
        let procs = dir.path().join("cgroup.procs");
        std::fs::write(&procs, "").unwrap();
        let door = Door(CString::new(procs.to_str().unwrap()).unwrap());
        // SAFETY: it is a door.
        let cmd = unsafe {
            Cmd::new("/bin/true").confine(move || {
                door.enter();
                Ok(())
            })
        };
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(crate::run::run(cmd))
            .unwrap();
        assert_eq!(std::fs::read_to_string(&procs).unwrap(), "0");
    }

    #[test]
    fn nothing_of_a_guest_becomes_syntax() {
        let text = format!("{:?}", command("gon-1.scope", "guest i-1; --property=User=x", 512));
        assert!(text.contains("\"--description=guest i-1; --property=User=x\""), "{text}");
        assert!(text.contains("MemoryMax=2624M"), "{text}");
    }
}
