//! Telling the service manager how we are (sd_notify(3)), without its library.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `state` (`READY=1`, `STOPPING=1`) if a service manager listens. Nobody listening is no error.
pub fn notify(state: &str) {
    let Some(path) = crate::config::notify_socket() else { return };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|to| {
        let socket = UnixDatagram::unbound()?;
        socket.send_to_addr(state.as_bytes(), &to)
    });
    if let Err(error) = sent {
        tracing::debug!(%error, "the service manager was not told");
    }
}
