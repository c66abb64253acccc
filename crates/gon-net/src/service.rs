//! Addresses between the switch and the node's local services (DHCP, DNS, metadata).
//!
//! A guest speaks to addresses of its own world (169.254.169.254, its subnet's `.2`, …), which are the same for many
//! guests. On the way to the services, which listen on the host's side of [`META_DEVICE`], both addresses are rewritten
//! statelessly:
//!
//! - the source becomes [`source`]`(port_no, n)` if it is the `n`th address of the port, so the service knows the ingress port,
//!   whatever the guest claims, and the answer finds the address that has asked;
//! - the destination becomes one *service address* per address a guest can speak to, so the answer's source says
//!   which of them to restore;
//! - the destination's port becomes a high one of our own ([`METADATA_LISTEN`], …). A web or DHCP server of the host that
//!   listens on a well-known port of *every* address would otherwise take the services' place, and they its.
//!
//! ```text
//! guest 10.0.1.5 ─▶ 169.254.169.254:80      becomes    169.254.64.17 ─▶ 169.254.64.1:61080
//! guest 10.0.1.5 ◀─ 169.254.169.254:80      restored   169.254.64.17 ◀─ 169.254.64.1:61080
//! ```
//!
//! The same way, told apart by Ethernet address ([`QUOTE_MAC`]), is taken by ICMP errors between guests and the outside:
//! they quote a packet inside, which a flow cannot rewrite. The agent does, and gives them back.
//!
//! So do packets whose time to live is spent ([`EXPIRED_MAC`]); what their senders are told comes back as from a service.
//!
//! The agent gives the device every address of [`device_addresses`] (so all of [`NETWORK`] and [`FURTHER`] is on the
//! device), listens on those of [`ALL`] with sockets bound to the device, and answers from the address that was
//! asked. Metadata answers should leave with TTL 1; nothing here changes it.

use std::net::Ipv4Addr;

use gon_types::MacAddr;
use ipnet::Ipv4Net;

/// Name of the integration bridge.
pub const BRIDGE: &str = "br-int";
/// Internal port toward the local services.
pub const META_DEVICE: &str = "gon-meta";
/// Port number (`ofport_request`) of [`META_DEVICE`].
pub const META_PORT: u32 = 1;
/// Internal port toward the outside.
pub const EXT_DEVICE: &str = "gon-ext";
/// Port number (`ofport_request`) of [`EXT_DEVICE`].
pub const EXT_PORT: u32 = 2;

/// The port of all tunnels.
pub const TUNNEL_DEVICE: &str = "gon-tun";
/// Port number (`ofport_request`) of [`TUNNEL_DEVICE`].
pub const TUNNEL_PORT: u32 = 3;
/// Geneve's port (RFC 8926), the same on every node.
pub const TUNNEL_UDP: u16 = 6081;
/// Bridge of the userspace datapath that has the node's address on the underlay; the kernel datapath needs none.
pub const UNDERLAY_BRIDGE: &str = "gon-under";
pub use gon_proto::TUNNEL_OVERHEAD;

/// Every address in this file is in here, or in [`FURTHER`]; reserved on the host for us.
pub const NETWORK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 64, 0), 18);
/// By these local services know the further addresses of ports, for which [`NETWORK`] has no room. Class E (RFC 1112): no VPC,
/// no guest and no host has an address there; Linux takes them for unicast.
pub const FURTHER: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 14);
/// The part of [`FURTHER`] that is no port's. The device has an address of it, so that answers find their way.
pub const FURTHER_OWN: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 18);
/// How many addresses of a port local services answer to: the first, and the fifteen further ones that it may have.
pub const MOST_ADDRESSES: usize = 16;

/// Metadata (guest: 169.254.169.254, TCP 80).
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 64, 1);
/// DNS as asked at the subnet's base + 2 (UDP and TCP 53).
pub const DNS_SUBNET: Ipv4Addr = Ipv4Addr::new(169, 254, 64, 2);
/// DNS as asked at 169.254.169.253.
pub const DNS_LINK_LOCAL: Ipv4Addr = Ipv4Addr::new(169, 254, 64, 3);
/// DHCP: requests arrive here (source port 68). An answer sent from here to `link_local(port_no):68` reaches
/// the guest with its own address as destination: for clients that renew, or that take unicast (RFC 2131 §4.1).
pub const DHCP: Ipv4Addr = Ipv4Addr::new(169, 254, 64, 4);
/// DHCP: an answer sent from here reaches the guest with destination 255.255.255.255: for clients that set the
/// broadcast flag. Nothing arrives here.
pub const DHCP_BROADCAST: Ipv4Addr = Ipv4Addr::new(169, 254, 64, 5);
/// DNS as asked at base + 2 of each of the VPC's blocks, in rising order of blocks; a ninth block has none.
pub const DNS_VPC: [Ipv4Addr; 8] = [
    Ipv4Addr::new(169, 254, 64, 8),
    Ipv4Addr::new(169, 254, 64, 9),
    Ipv4Addr::new(169, 254, 64, 10),
    Ipv4Addr::new(169, 254, 64, 11),
    Ipv4Addr::new(169, 254, 64, 12),
    Ipv4Addr::new(169, 254, 64, 13),
    Ipv4Addr::new(169, 254, 64, 14),
    Ipv4Addr::new(169, 254, 64, 15),
];
/// Every address on which DNS must be answered.
pub const DNS: [Ipv4Addr; 10] = [
    DNS_SUBNET,
    DNS_LINK_LOCAL,
    DNS_VPC[0],
    DNS_VPC[1],
    DNS_VPC[2],
    DNS_VPC[3],
    DNS_VPC[4],
    DNS_VPC[5],
    DNS_VPC[6],
    DNS_VPC[7],
];
/// Every address the device must have.
pub const ALL: [Ipv4Addr; 13] = [
    METADATA,
    DNS_SUBNET,
    DNS_LINK_LOCAL,
    DHCP,
    DHCP_BROADCAST,
    DNS_VPC[0],
    DNS_VPC[1],
    DNS_VPC[2],
    DNS_VPC[3],
    DNS_VPC[4],
    DNS_VPC[5],
    DNS_VPC[6],
    DNS_VPC[7],
];
/// What the device must have: [`ALL`], the networks that answers go to with them.
pub fn device_addresses() -> impl Iterator<Item = Ipv4Net> {
    let first = [Ipv4Net::new_assert(METADATA, NETWORK.prefix_len())];
    let others = ALL.into_iter().skip(1).map(Ipv4Net::from);
    let further = Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 1), FURTHER.prefix_len());
    first.into_iter().chain(others).chain([further])
}
/// The part of [`NETWORK`] that holds service addresses; port numbers start above it.
pub const SERVICES: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 64, 0), 28);

/// Where a guest finds metadata.
pub const GUEST_METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Where a guest finds DNS, besides base + 2.
pub const GUEST_DNS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
/// The metadata service's port, as guests know it.
pub const METADATA_TCP: u16 = 80;
/// DNS, as guests know it.
pub const DNS_TP: u16 = 53;
/// DHCP server, as guests know it.
pub const DHCP_SERVER_UDP: u16 = 67;
/// Where the metadata service listens. This and the next two are above what Linux gives to outgoing connections
/// (`ip_local_port_range`), and nobody's by IANA's list.
pub const METADATA_LISTEN: u16 = 61_080;
/// Where DNS listens.
pub const DNS_LISTEN: u16 = 61_053;
/// Where DHCP listens.
pub const DHCP_LISTEN: u16 = 61_067;
/// DHCP client.
pub const DHCP_CLIENT_UDP: u16 = 68;

/// Ethernet address at which the agent takes ICMP errors whose quotes it is to translate, and from which it gives them
/// back. Nobody's device has it, so the host's own stack does not listen. An error that leaves is sent to the agent from
/// this address, too; one that comes, from the router's.
pub const QUOTE_MAC: MacAddr = MacAddr([0x0a, 0x67, 0x6f, 0x6e, 0x00, 0x04]);
/// Ethernet address at which the agent takes packets whose time to live was spent at a router, to tell their senders. Nobody's
/// device has it, either. The source's last four bytes are the sender's [`source`].
pub const EXPIRED_MAC: MacAddr = MacAddr([0x0a, 0x67, 0x6f, 0x6e, 0x00, 0x05]);
/// What the agent tells them comes from here, and to them as from their subnet's router. Nothing listens here.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(169, 254, 64, 6);
/// ICMP's type of it (RFC 792).
pub const TIME_EXCEEDED: u8 = 11;
/// ICMP errors that quote the packet they are about: destination unreachable (fragmentation needed is one), time
/// exceeded, parameter problem.
pub const ICMP_ERRORS: [u8; 3] = [3, 11, 12];

/// Lowest `port_no` of a guest's port.
pub const FIRST_PORT_NO: u16 = 16;
/// Highest `port_no` of a guest's port.
pub const LAST_PORT_NO: u16 = 16_000;

/// How many low bits of a link-local address are the port number.
pub const PORT_NO_BITS: u8 = 14;

/// The address by which local services know a port, and its first address.
#[must_use]
pub fn link_local(port_no: u16) -> Ipv4Addr {
    within(NETWORK, 0, port_no)
}

/// The address by which local services know the `n`th address of a port, from 0; `None` beyond [`MOST_ADDRESSES`].
#[must_use]
pub fn source(port_no: u16, n: usize) -> Option<Ipv4Addr> {
    match u32::try_from(n) {
        Ok(0) => Some(link_local(port_no)),
        Ok(further) if n < MOST_ADDRESSES => Some(within(FURTHER, further, port_no)),
        _ => None,
    }
}

fn within(net: Ipv4Net, n: u32, port_no: u16) -> Ipv4Addr {
    let low = u32::from(port_no) & ((1 << PORT_NO_BITS) - 1);
    Ipv4Addr::from(u32::from(net.network()) | n << PORT_NO_BITS | low)
}

/// The port that a local service knows by this address.
#[must_use]
pub fn port_no(address: Ipv4Addr) -> Option<u16> {
    let low = (u32::from(address) & ((1 << PORT_NO_BITS) - 1)) as u16;
    let is_ports =
        NETWORK.contains(&address) || (FURTHER.contains(&address) && !FURTHER_OWN.contains(&address));
    (is_ports && (FIRST_PORT_NO..=LAST_PORT_NO).contains(&low)).then_some(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_has_an_address_of_its_own() {
        for no in FIRST_PORT_NO..=LAST_PORT_NO {
            let address = link_local(no);
            assert_eq!(port_no(address), Some(no));
            assert!(!SERVICES.contains(&address));
        }
        for service in ALL {
            assert!(SERVICES.contains(&service) && port_no(service).is_none());
        }
        assert_eq!(port_no(Ipv4Addr::new(10, 0, 64, 20)), None);
    }

    #[test]
    fn every_address_of_a_port_is_known_by_one_of_its_own() {
        let mut seen = std::collections::HashSet::new();
        for no in (FIRST_PORT_NO..=LAST_PORT_NO).step_by(7).chain([LAST_PORT_NO]) {
            for n in 0..MOST_ADDRESSES {
                let address = source(no, n).unwrap();
                assert!(seen.insert(address) || no == LAST_PORT_NO);
                assert_eq!(port_no(address), Some(no));
                // What the switch knows askers by.
                assert!(u32::from(address) >> 31 == 1);
            }
        }
        assert_eq!(source(FIRST_PORT_NO, MOST_ADDRESSES), None);
        for own in device_addresses() {
            assert_eq!(port_no(own.addr()), None);
        }
    }
}
