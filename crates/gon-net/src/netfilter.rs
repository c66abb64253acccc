//! The host's own guard: the nftables table `inet gon`, as text for one `nft -f -` transaction.
//!
//! Assumes a typed [`HostGuard`]; no string of a tenant comes near. Promises that the transaction replaces the table
//! whole whatever was there, that removing it leaves nothing, and that traffic which has to do with neither device is
//! untouched: every chain accepts by default and speaks only of our devices, the pool, [`NETWORK`] and [`FURTHER`].
//!
//! What it says, and why:
//!
//! - **Guests reach nothing on the host** but the local services, which are not reached through the outside device at all.
//!   From [`EXT_DEVICE`](crate::service::EXT_DEVICE) the host takes only answers to what it began itself (SSH to a guest).
//! - **From the services' device** it takes DHCP, DNS and metadata, each at its addresses, from those of ports. The
//!   services' addresses are reached from nowhere else (the host has them, so it would answer a neighbour on the LAN, too).
//! - **Guests reach out, nobody reaches in**, unless the pool is a network that others route or reach on a link
//!   ([`HostGuard::open`]): then guests' groups decide. From the pool anything may be begun toward public addresses; toward the pool,
//!   from beyond the host, only answers pass. (The host itself reaches every public address: that is not forwarded.)
//! - **Private networks beyond the host are not the guests' business.** A guest's way out is meant for the Internet, and
//!   through it the guest would reach the host's LAN, other bridges, containers and other machines' management addresses,
//!   none of which it could reach in a cloud whose hosts stand elsewhere. DNS does not need them: the node resolves.
//!   What must be reached all the same (a proxy, a mirror) is named in [`HostGuard::reachable`].
//! - **Nor are the site's other servers**, where they have public addresses: other nodes, and what the control plane serves
//!   to servers. Behind the host's own address a guest would come to those ports as from one of them.
//! - **Masquerade** hides guests behind the host where nobody routes the pool back to it (standalone).
//!
//! A packet that another table drops (Docker's or a firewall's `forward` policy) is dropped, whatever this one says.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

use crate::service::{
    DHCP, DHCP_LISTEN, DNS, DNS_LISTEN, FURTHER, FURTHER_OWN, LAST_PORT_NO, METADATA, METADATA_LISTEN,
    NETWORK, SERVICES, TUNNEL_UDP, link_local,
};

/// Name of a network device, safe to write into a ruleset: 1 to 15 of `[A-Za-z0-9._-]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device(String);

impl Device {
    /// A device name, or `None` if it is not one.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let ok = (1..=15).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        ok.then(|| Self(name.to_owned()))
    }
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the guard must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostGuard {
    /// The device toward local services, [`crate::service::META_DEVICE`].
    pub meta: Device,
    /// The device toward public addresses, [`crate::service::EXT_DEVICE`].
    pub ext: Device,
    /// The pool of public addresses.
    pub pool: Ipv4Net,
    /// What guests may reach all the same of private networks beyond the host, or of the site's servers (default: nothing).
    pub reachable: Vec<Ipv4Net>,
    /// The site's other nodes, as far as they are known.
    pub servers: Vec<Ipv4Addr>,
    /// Where servers reach the control plane, as far as that is known.
    pub control: Vec<SocketAddrV4>,
    /// Whether what is beyond the host may begin something toward guests, whose groups then decide. If not, only answers
    /// pass (standalone).
    pub open: bool,
    /// Whether guests' ways out of the host are hidden behind its own address (standalone: yes).
    pub masquerade: bool,
}

/// Who may send tunnel packets to this host, as a part of the table: the other nodes, and nobody else. For the kernel datapath,
/// where Open vSwitch gets them from the host's UDP stack; in userspace it takes them before the host does. `deaf` is a
/// device that the switch has taken over with its addresses: the host's own stack is not to hear what comes in there, too.
#[must_use]
pub fn render_tunnel(peers: &[Ipv4Addr], deaf: Option<&Device>) -> String {
    let mut text = String::from(
        "table inet gon {\n chain tunnels {\n  type filter hook input priority -10; policy accept;\n",
    );
    let mut peers = peers.to_vec();
    peers.sort_unstable();
    peers.dedup();
    let mut line = |words: &str| {
        let _ = writeln!(text, "  {words}");
    };
    if !peers.is_empty() {
        line(&format!("udp dport {TUNNEL_UDP} ip saddr {{ {} }} accept", list(&peers)));
    }
    line(&format!("udp dport {TUNNEL_UDP} counter drop"));
    text.push_str(" }\n");
    if let Some(device) = deaf {
        let _ = write!(
            text,
            " chain underlay {{\n  type filter hook prerouting priority -310; policy accept;\n  iifname \"{}\" counter drop\n }}\n",
            device.as_str()
        );
    }
    text.push_str("}\n");
    text
}

/// Not the Internet (RFC 6890): where a guest's way out does not lead.
const NOT_PUBLIC: [Ipv4Net; 12] = [
    net(0, 0, 8),
    net(10, 0, 8),
    net(100, 64, 10),
    net(127, 0, 8),
    net(169, 254, 16),
    net(172, 16, 12),
    net(192, 0, 24), // 192.0.0.0/24
    net(192, 168, 16),
    net(198, 18, 15),
    net(224, 0, 4),
    net(240, 0, 5),
    net(248, 0, 5),
];

const fn net(a: u8, b: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), prefix)
}

/// The transaction that puts the guard in place, whatever was there.
#[must_use]
pub fn render(guard: &HostGuard) -> String {
    let HostGuard { meta, ext, pool, reachable, servers, control, open, masquerade } = guard;
    let (meta, ext) = (meta.as_str(), ext.as_str());
    let pool = pool.trunc();
    let further = Ipv4Addr::from(u32::from(FURTHER_OWN.broadcast()).wrapping_add(1));
    let guests =
        format!("{{ {}-{}, {further}-{} }}", first_guest(), link_local(LAST_PORT_NO), FURTHER.broadcast());
    let dns = list(&DNS);
    let mut text = render_removal();
    let mut line = |indent: usize, words: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:indent$}{words}", "");
    };

    line(0, "table inet gon {");
    line(1, "chain input {");
    line(2, "type filter hook input priority filter; policy accept;");
    line(2, &format!("iifname \"{meta}\" jump services"));
    line(2, &format!("iifname \"{ext}\" jump guests"));
    line(2, &format!("iifname != \"lo\" ip daddr {{ {NETWORK}, {FURTHER} }} counter drop"));
    line(1, "}");

    line(1, "chain services {");
    line(2, &format!("ip saddr {guests} ip daddr {DHCP} udp dport {DHCP_LISTEN} accept"));
    line(
        2,
        &format!(
            "ip saddr {guests} ip daddr {{ {dns} }} meta l4proto {{ tcp, udp }} th dport {DNS_LISTEN} accept"
        ),
    );
    line(2, &format!("ip saddr {guests} ip daddr {METADATA} tcp dport {METADATA_LISTEN} accept"));
    line(2, "counter drop");
    line(1, "}");

    line(1, "chain guests {");
    line(2, &format!("ip saddr {pool} ct state established,related accept"));
    line(2, "counter drop");
    line(1, "}");

    line(1, "chain forward {");
    line(2, "type filter hook forward priority filter; policy accept;");
    line(2, &format!("iifname \"{meta}\" counter drop"));
    line(2, &format!("oifname \"{meta}\" counter drop"));
    line(2, &format!("iifname \"{ext}\" jump out"));
    line(2, &format!("oifname \"{ext}\" jump in"));
    if *open {
        // An address of the pool that no guest here has: not to be sent back to where it came from, and round again.
        line(2, &format!("ip daddr {pool} counter drop"));
    }
    line(1, "}");

    line(1, "chain out {");
    line(2, &format!("ip saddr != {pool} counter drop"));
    line(2, "meta nfproto != ipv4 counter drop");
    line(2, &format!("oifname \"{ext}\" counter drop"));
    line(2, "ct state invalid counter drop");
    // Behind the host's own address it would come from a node, as far as other nodes can tell.
    line(2, &format!("udp dport {TUNNEL_UDP} counter drop"));
    if !reachable.is_empty() {
        let mut nets: Vec<Ipv4Net> = reachable.iter().map(Ipv4Net::trunc).collect();
        nets = Ipv4Net::aggregate(&nets);
        line(2, &format!("ip daddr {{ {} }} accept", list(&nets)));
    }
    if !servers.is_empty() {
        let hosts: Vec<Ipv4Net> = servers.iter().map(|address| Ipv4Net::from(*address)).collect();
        line(2, &format!("ip daddr {{ {} }} counter drop", list(&Ipv4Net::aggregate(&hosts))));
    }
    if !control.is_empty() {
        let all: BTreeSet<&SocketAddrV4> = control.iter().collect();
        let pairs: Vec<String> = all.iter().map(|at| format!("{} . {}", at.ip(), at.port())).collect();
        line(2, &format!("ip daddr . tcp dport {{ {} }} counter drop", list(&pairs)));
    }
    if *open {
        line(2, &format!("ip daddr {pool} accept"));
    }
    line(2, &format!("ip daddr {{ {} }} counter drop", list(&Ipv4Net::aggregate(&NOT_PUBLIC.to_vec()))));
    line(2, "accept");
    line(1, "}");

    line(1, "chain in {");
    let which = if *open { "" } else { " ct state established,related" };
    line(2, &format!("ip daddr {pool}{which} accept"));
    line(2, "counter drop");
    line(1, "}");

    if *masquerade {
        line(1, "chain postrouting {");
        line(2, "type nat hook postrouting priority srcnat; policy accept;");
        line(2, &format!("ip saddr {pool} oifname != {{ \"{ext}\", \"lo\" }} masquerade"));
        line(1, "}");
    }
    line(0, "}");
    text
}

/// The transaction that removes it, whether it is there or not.
#[must_use]
pub fn render_removal() -> String {
    // Adding what is there changes nothing, and makes the removal never fail for want of it.
    "add table inet gon\ndelete table inet gon\n".to_owned()
}

/// The lowest link-local address of a guest: right above the services' own.
fn first_guest() -> Ipv4Addr {
    Ipv4Addr::from(u32::from(SERVICES.broadcast()).wrapping_add(1))
}

fn list(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden;

    fn guard() -> HostGuard {
        HostGuard {
            meta: Device::new("gon-meta").unwrap(),
            ext: Device::new("gon-ext").unwrap(),
            pool: "203.0.113.0/24".parse().unwrap(),
            reachable: vec![],
            servers: vec![],
            control: vec![],
            open: false,
            masquerade: true,
        }
    }

    #[test]
    fn golden_files() {
        golden("nft_standalone", &render(&guard()));
        let reachable = ["192.168.7.9/24", "10.1.2.3/32"].map(|n| n.parse().unwrap()).to_vec();
        let peers = ["192.0.2.3", "192.0.2.2"].map(|a| a.parse().unwrap());
        let device = Device::new("eth1").unwrap();
        golden("nft_tunnel", &(render_tunnel(&peers, Some(&device)) + &render_tunnel(&[], None)));
        let servers = peers.to_vec();
        let control =
            ["192.0.2.9:8082", "192.0.2.9:2379", "192.0.2.9:8082"].map(|a| a.parse().unwrap()).to_vec();
        golden(
            "nft_routed",
            &render(&HostGuard { reachable, servers, control, open: true, masquerade: false, ..guard() }),
        );
    }

    #[test]
    fn only_device_names_are_device_names() {
        for bad in ["", "a b", "x\"y", "gon;drop", "0123456789abcdef", "\u{e9}", "a/b"] {
            assert_eq!(Device::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn guests_start_above_the_services() {
        assert_eq!(crate::service::port_no(first_guest()), Some(crate::service::FIRST_PORT_NO));
    }
}
