//! Port numbers for servers that must be told one.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::bail;

/// First of the ports that are tried: below the kernel's own choices, so that no outgoing connection takes one between
/// our look and the server's start.
const FIRST: u16 = 20_000;
/// How many there are.
const COUNT: u16 = 12_000;

/// `N` ports of the loopback address that nobody listens on now. Nothing holds them: who starts a server on one should
/// be ready to try again with others.
pub fn free<const N: usize>() -> anyhow::Result<[u16; N]> {
    let mut found = [0; N];
    let mut held = Vec::with_capacity(N);
    // Another process that looks at the same time begins somewhere else.
    let mut candidate = (uuid::Uuid::now_v7().as_u128() % u128::from(COUNT)) as u16;
    for _ in 0..COUNT {
        if held.len() == N {
            return Ok(found);
        }
        candidate = (candidate + 1) % COUNT;
        let port = FIRST + candidate;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            found[held.len()] = port;
            held.push(listener);
        }
    }
    bail!("no {N} free ports from {FIRST} on")
}
