//! Whole Ethernet frames on a link, past the host's own stack.
//!
//! Assumes privilege. Promises that a socket hears only frames that come in for the one Ethernet address it was opened with,
//! so that what passes by costs nothing.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};

use gon_types::MacAddr;
use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A socket that hears, too.
#[derive(Debug)]
pub struct Frames(AsyncFd<FrameSocket>);

impl Frames {
    /// Hears the IPv4 frames that come in for `to` on the link of this index. Must be called inside the runtime.
    pub fn open(link: u32, to: MacAddr) -> io::Result<Self> {
        let socket = FrameSocket::mute(link)?;
        // The filter first: before it is bound to a protocol nothing is received.
        socket.filter(to)?;
        socket.bind(libc::ETH_P_IP)?;
        // SAFETY: the socket owns its descriptor, gives it to nobody, and closes it when it is dropped, with the value made here.
        let heard = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        heard.map(Self).map_err(io::Error::from)
    }

    /// Waits for a frame, and says how long it is; one that does not fit is cut.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.async_io(Interest::READABLE, |socket| socket.receive(buffer)).await
    }

    /// Sends a frame, if there is room for it.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.0.get_ref().send(frame)
    }
}

/// A socket that speaks.
#[derive(Debug)]
pub struct FrameSocket {
    fd: OwnedFd,
    link: i32,
}

impl FrameSocket {
    /// On the link of this index.
    pub fn mute(link: u32) -> io::Result<Self> {
        // SAFETY: a plain system call; its result is checked before it is owned. Protocol 0: nothing is received.
        let fd = unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let link = i32::try_from(link).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(Self { fd, link })
    }

    fn bind(&self, protocol: i32) -> io::Result<()> {
        let address = self.address(protocol);
        // SAFETY: the address is valid for its size and outlives the call.
        let bound =
            unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), length_of(&address)) };
        if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn filter(&self, to: MacAddr) -> io::Result<()> {
        let [a, b, c, d, e, f] = to.0;
        let code = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
        let load = libc::BPF_LD | libc::BPF_ABS;
        let differs = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        let mut program = [
            code(load | libc::BPF_W, 0, 0),
            code(differs, 3, u32::from_be_bytes([a, b, c, d])),
            code(load | libc::BPF_H, 0, 4),
            code(differs, 1, u32::from_be_bytes([0, 0, e, f])),
            code(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
            code(libc::BPF_RET | libc::BPF_K, 0, 0),
        ];
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: the structure and the program it points to are valid for their sizes and outlive the call.
        let set = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                length_of(&program),
            )
        };
        if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn address(&self, protocol: i32) -> libc::sockaddr_ll {
        // SAFETY: all bytes zero is a valid value of this plain structure.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        address.sll_protocol = (protocol as u16).to_be();
        address.sll_ifindex = self.link;
        address
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        let to = self.address(0);
        // SAFETY: frame and address are valid for their sizes and outlive the call.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
                (&raw const to).cast(),
                length_of(&to),
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the buffer is valid for its size and outlives the call.
        let received = unsafe {
            libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT)
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }
}

impl AsRawFd for FrameSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn length_of<T>(_: &T) -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

/// An ARP announcement (RFC 5227 §3): a request for the own address, which nobody answers and everybody learns from.
#[must_use]
pub fn announcement(mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    let header = [&[0xff; 6][..], &mac.0, &[0x08, 0x06]].concat();
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
        let frame = announcement(MacAddr([2, 0, 0, 0, 0, 9]), Ipv4Addr::new(203, 0, 113, 7));
        assert_eq!(frame.len(), 60);
        assert_eq!(frame[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(frame[28..32], frame[38..42]);
        assert_eq!(frame[6..12], frame[22..28]);
    }
}
