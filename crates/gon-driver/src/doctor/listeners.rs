//! Who listens on which port: `/proc/net/tcp`, and whose the socket is.

use std::collections::BTreeMap;
use std::path::Path;

/// The listening sockets of a table of the kernel's: port and inode.
pub(super) fn listening(table: &str) -> Vec<(u16, u64)> {
    /// As `include/net/tcp_states.h` counts.
    const LISTEN: &str = "0A";
    let row = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (local, state) = (fields.nth(1)?, fields.nth(1)?);
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        let inode = fields.nth(5)?.parse().ok()?;
        (state == LISTEN).then_some((port, inode))
    };
    table.lines().skip(1).filter_map(row).collect()
}

/// The program that listens on each port of this network namespace; `?` where we may not look.
pub(super) fn holders(proc: &Path) -> BTreeMap<u16, String> {
    let mut sockets: BTreeMap<u64, u16> = BTreeMap::new();
    for table in ["net/tcp", "net/tcp6"] {
        let text = std::fs::read_to_string(proc.join(table)).unwrap_or_default();
        sockets.extend(listening(&text).into_iter().map(|(port, inode)| (inode, port)));
    }
    let mut found: BTreeMap<u16, String> = sockets.values().map(|port| (*port, "?".to_owned())).collect();
    let Ok(processes) = std::fs::read_dir(proc) else { return found };
    for process in processes.flatten().filter(|p| p.file_name().as_encoded_bytes()[0].is_ascii_digit()) {
        let Ok(fds) = std::fs::read_dir(process.path().join("fd")) else { continue };
        for fd in fds.flatten() {
            let Ok(target) = std::fs::read_link(fd.path()) else { continue };
            let inode =
                target.to_str().and_then(|t| t.strip_prefix("socket:[")).and_then(|t| t.strip_suffix(']'));
            let Some(port) = inode.and_then(|i| i.parse().ok()).and_then(|i: u64| sockets.get(&i)) else {
                continue;
            };
            if let Ok(name) = std::fs::read_to_string(process.path().join("comm")) {
                found.insert(*port, name.trim().to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   114        0 30931 1 0 100 0 0 10 0\n   \
            1: 0100007F:A2C4 0100007F:1538 01 00000000:00000000 00:00000000 00000000     0        0 30932 1 0 20 4 30 10 -1\n   \
            2: garbage\n";
        assert_eq!(listening(table), [(5432, 30931)]);
    }

    #[test]
    fn our_own_socket_is_ours() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let name = std::fs::read_to_string("/proc/self/comm").unwrap();
        let found = holders(Path::new("/proc"));
        // The process's name is its main thread's; a test runs in another one.
        assert!(found[&port].starts_with(&name.trim()[..4]) || found[&port] != "?", "{found:?}");
    }
}
