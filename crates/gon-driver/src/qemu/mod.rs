//! QEMU: one confined process per guest, steered over its monitor socket, outliving us.
//!
//! Assumes root, and that the guest's taps are made and secured by somebody else first (rule R9). Promises:
//!
//! - what runs is what [`command_line`] says, nothing else: no configuration file, no default devices, no probing of
//!   disk formats (rule R17);
//! - the process runs as a user of its own, without capabilities, in namespaces of its own, under seccomp, seeing no
//!   file of the host but the system's programs (`jail.rs`); disks, taps and its monitor are inherited descriptors, so
//!   data directories stay closed to it;
//! - where systemd runs the machine it is a unit of its own (`scope.rs`), not a part of its agent;
//! - there is at most one per guest directory ([`Lock`]), and any can be found again ([`find`], [`Monitor::connect`]);
//! - KVM is used only after it has been proved ([`prove_kvm`]).

mod command;
mod jail;
mod monitor;
mod probe;
mod prove;
pub mod qcow2;
mod scope;
mod spawn;

use std::os::fd::AsRawFd;

use nix::libc;

pub use crate::qmp::{Event, Events, QmpError};
pub use command::{Boot, CONSOLE_RING, Disk, Guest, Handles, Machine, Nic, command_line, ec2_uuid};
pub use monitor::{Monitor, RunState};
pub use probe::{Capabilities, ProbeError, probe};
pub use prove::{Kernel, ProveError, end_proof, prove, prove_kvm};
pub use spawn::{GuestDir, Lock, StartError, find, start};

/// How guests' instructions are executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accelerator {
    /// By the processor.
    Kvm {
        /// The processor model that was proved, as `-cpu` takes it.
        cpu: String,
    },
    /// Translated, slowly; QEMU promises no isolation between guest and host then.
    Tcg,
}

impl Accelerator {
    /// `kvm` or `tcg`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kvm { .. } => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// Whether a network device exists and is up: of a guest's tap, the sign that its policy is in force. A system call or
/// two; cheap enough to be asked every few milliseconds.
#[must_use]
pub fn is_up(device: &str) -> bool {
    let Ok(mut request) = spawn::interface_request(device) else { return false };
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let (family, kind) = (rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM);
    let Ok(socket) = rustix::net::socket_with(family, kind, flags, None) else { return false };
    // SAFETY: an inet socket and an `ifreq` with a name, which the kernel fills and which outlives the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) } < 0 {
        return false;
    }
    // SAFETY: the kernel has written the flags.
    let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
    flags & libc::IFF_UP != 0
}
