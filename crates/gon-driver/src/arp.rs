//! ARP announcements (RFC 5227 §3): "this address is here now", said to everybody on a link.
//!
//! Assumes privilege. Promises one frame per call, made of typed values only.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use gon_types::MacAddr;
use nix::libc;

const ETHERTYPE: [u8; 2] = [0x08, 0x06];

/// Says on a link that an address is at `mac`: whoever knew it elsewhere knows better now.
pub fn announce(link: u32, mac: MacAddr, address: Ipv4Addr) -> io::Result<()> {
    // SAFETY: a plain system call; its result is checked before it is owned. Protocol 0: nothing is received.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let frame = frame(mac, address);
    // SAFETY: all bytes zero is a valid value of this plain structure.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as libc::c_ushort;
    to.sll_ifindex = i32::try_from(link).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: frame and address are valid for their sizes and outlive the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A request for the own address, which nobody answers and everybody learns from.
fn frame(mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    let header = [&[0xff; 6][..], &mac.0, &ETHERTYPE].concat();
    let request =
        [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac.0, &address.octets(), &[0; 6], &address.octets()].concat();
    let mut frame = [header, request].concat();
    frame.resize(60, 0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_asks_for_itself() {
        let frame = frame(MacAddr([2, 0, 0, 0, 0, 9]), Ipv4Addr::new(203, 0, 113, 7));
        assert_eq!(frame.len(), 60);
        assert_eq!(frame[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(frame[28..32], frame[38..42]);
        assert_eq!(frame[6..12], frame[22..28]);
    }
}
