//! Certificates and TLS over real sockets and files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod crowd;
mod files;
mod handshake;
mod limits;
mod rotation;
mod site;
