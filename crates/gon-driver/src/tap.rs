//! Persistent tap devices: the host's end of a guest's interface.
//!
//! Assumes that the switch has its flows before a tap is made (rule R9). Promises that a tap is never up while the
//! host could speak IPv6 or ARP on it (OSSN-0069: a host's own link-local address reaches the guest during the plug),
//! that only the given user may open it, and that it outlives us.
//!
//! A guest's process gets the tap as an open descriptor ([`open`]), so it needs no access to `/dev/net/tun`, which on
//! some systems only root has.
//!
//! Offloads: taps are made without a virtual header, so whoever opens one (QEMU: `vnet_hdr=off`) sends and receives
//! complete packets; the userspace datapath does not finish half-made checksums.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

use crate::netlink::{self, Link, Netlink, NetlinkError};

/// A tap device as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapSpec<'a> {
    /// Its name, 1 to 15 bytes of `[a-z0-9-]`.
    pub name: &'a str,
    /// The only user that may open it (beside root).
    pub owner_uid: u32,
    /// Its MTU.
    pub mtu: u16,
}

/// Why a tap could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The name is none a tap of ours can have.
    #[error("'{0}' is not a device name")]
    Name(String),
    /// The tun driver refused.
    #[error("tap {name}: {what}")]
    Tun {
        /// Which tap.
        name: String,
        /// Which step.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a setting.
    #[error("tap {name}")]
    Netlink {
        /// Which tap.
        name: String,
        /// Why.
        #[source]
        source: NetlinkError,
    },
}

/// Makes the tap be there as specified, down unless it already was up: not yet a sign that its policy is in force. An
/// existing one is corrected; one that is in use is left attached.
pub async fn create(netlink: &Netlink, spec: TapSpec<'_>) -> Result<(), TapError> {
    if !netlink::is_device_name(spec.name) {
        return Err(TapError::Name(spec.name.to_owned()));
    }
    let failed = |source| TapError::Netlink { name: spec.name.to_owned(), source };
    let right = |link: Link| link.mtu == u32::from(spec.mtu) && link.group == netlink::GROUP;
    if netlink.link(spec.name).await.map_err(failed)?.is_some_and(right) {
        return Ok(());
    }
    make(spec)?;
    netlink::disable_ipv6(spec.name).map_err(|source| TapError::Tun {
        name: spec.name.to_owned(),
        what: "turning IPv6 off",
        source,
    })?;
    netlink.silence(spec.name, u32::from(spec.mtu)).await.map_err(failed)
}

/// Sets the tap up: whoever waits for that may start its guest.
pub async fn up(netlink: &Netlink, name: &str) -> Result<(), TapError> {
    netlink.set_up(name, true).await.map_err(|source| TapError::Netlink { name: name.to_owned(), source })
}

/// [`create`] and [`up`].
pub async fn ensure(netlink: &Netlink, spec: TapSpec<'_>) -> Result<(), TapError> {
    create(netlink, spec).await?;
    up(netlink, spec.name).await
}

/// Removes the tap; it is no error if there is none.
pub async fn remove(netlink: &Netlink, name: &str) -> Result<(), TapError> {
    netlink.delete_link(name).await.map_err(|source| TapError::Netlink { name: name.to_owned(), source })
}

/// Opens a tap that is there, to be given to a guest's process: reading and writing whole Ethernet frames. Fails with
/// `EBUSY` (see [`TapError::is_busy`]) while somebody else has it.
pub fn open(name: &str) -> Result<OwnedFd, TapError> {
    if !netlink::is_device_name(name) {
        return Err(TapError::Name(name.to_owned()));
    }
    // Opening a name that is not there would make a new, unguarded device.
    nix::net::if_::if_nametoindex(name).map_err(|errno| TapError::Tun {
        name: name.to_owned(),
        what: "finding it",
        source: errno.into(),
    })?;
    attach(name).map(Into::into)
}

impl TapError {
    /// Whether somebody else has the tap open.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Tun { source, .. } if source.raw_os_error() == Some(libc::EBUSY))
    }
}

fn attach(name: &str) -> Result<std::fs::File, TapError> {
    let failed = |what| move |source| TapError::Tun { name: name.to_owned(), what, source };
    let tun = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map_err(failed("opening /dev/net/tun"))?;
    // SAFETY: all bytes zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is a tun device, the argument a filled `ifreq` that outlives the call.
    let set = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw const request) };
    if set < 0 { Err(failed("attaching")(io::Error::last_os_error())) } else { Ok(tun) }
}

/// Makes the tap if there is none, sets owner and persistence, and lets go of it again.
fn make(spec: TapSpec<'_>) -> Result<(), TapError> {
    let tun = match attach(spec.name) {
        // Its guest has it open: it was made by us, with its owner, when it was not.
        Err(error) if error.is_busy() => return Ok(()),
        other => other?,
    };
    let name = spec.name;
    let failed = |what| move |source| TapError::Tun { name: name.to_owned(), what, source };
    // SAFETY: plain integers as arguments.
    let owned =
        unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOWNER, libc::c_ulong::from(spec.owner_uid)) };
    if owned < 0 {
        return Err(failed("setting its owner")(io::Error::last_os_error()));
    }
    // SAFETY: plain integers as arguments.
    let kept = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST, 1 as libc::c_ulong) };
    if kept < 0 {
        return Err(failed("making it persistent")(io::Error::last_os_error()));
    }
    Ok(())
}
