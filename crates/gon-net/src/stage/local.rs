//! local: what the node answers itself, before any group or ACL is asked (neither can block DHCP, DNS or metadata).
//!
//! Assumes from `admit`: the sender is who it says. Promises to `group-out`: an IPv4 unicast frame that is not for a
//! service, and not to a link-local address. ARP never goes further than here: each request for a known address is
//! answered by a flow, each other ARP packet is dropped, nothing is flooded.
//!
//! Services answer to every address of a port, and to no other: what a port without source check sends for somebody else is
//! not asked by it.
//!
//! Answered with the router's MAC besides the router: the subnet's resolver (`.2`), and the two link-local services, for
//! guests that take 169.254/16 to be on the link.

use std::net::Ipv4Addr;

use super::{BROADCAST_MAC, Sink, answer_arp, arp_request, bits, go};
use crate::flow::{Action, Field, Match, mac_bits};
use crate::pipeline::{ASKER, ASKS, SCRATCH, SUBNET, Stage, VPC};
use crate::plan::{Plan, Subnet};
use crate::service;

const STAGE: Stage = Stage::Local;
const ROUTER: u64 = mac_bits(gon_types::MacAddr::ROUTER);

pub(super) fn flows(plan: &Plan<'_>, sink: &mut Sink) {
    fixed(plan, sink);
    for subnet in plan.subnets.values() {
        of_subnet(plan, subnet, sink);
    }
    for vpc in plan.vpcs.values() {
        for (service, dns) in super::local_reply::vpc_resolvers(vpc) {
            for (matches, port) in to_dns(dns) {
                let matches = matches.with(VPC, vpc.key.into());
                sink.of(STAGE, vpc.id, 500, matches, to_service(plan, service, port));
            }
        }
    }
    for ((subnet, address), mac) in &plan.neighbours {
        if let Some(subnet) = plan.subnets.get(subnet) {
            let matches = in_subnet(arp_request(*address), subnet);
            sink.of(STAGE, subnet.spec.id, 100, matches, answer_arp(*mac));
        }
    }
}

fn fixed(plan: &Plan<'_>, sink: &mut Sink) {
    let dhcp =
        from_client(Match::udp()).with(Field::EthDst, BROADCAST_MAC).with(Field::IpDst, u32::MAX.into());
    sink.fixed(STAGE, 500, dhcp, to_service(plan, service::DHCP, DHCP));
    let metadata =
        asks(to(Match::tcp(), service::GUEST_METADATA)).with(Field::TcpDst, service::METADATA_TCP.into());
    let port = (Field::TcpDst, service::METADATA_LISTEN);
    sink.fixed(STAGE, 500, metadata, to_service(plan, service::METADATA, port));
    for (matches, port) in to_dns(service::GUEST_DNS) {
        sink.fixed(STAGE, 500, matches, to_service(plan, service::DNS_LINK_LOCAL, port));
    }
    for address in [service::GUEST_METADATA, service::GUEST_DNS] {
        sink.fixed(STAGE, 100, arp_request(address), answer_arp(gon_types::MacAddr::ROUTER));
    }
    // Link-local is the node's own business: no other service there, and no way around through a route.
    let link_local = ipnet::Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);
    sink.fixed(STAGE, 400, Match::ip().net(Field::IpDst, link_local), vec![]);
    // Broadcast and multicast frames have no single receiver: dropped before they take a place in conntrack.
    let group = Match::ip().masked(Field::EthDst, 1 << 40, 1 << 40);
    sink.fixed(STAGE, 380, group, vec![]);
    sink.fixed(STAGE, 50, Match::ip(), vec![go(Stage::GroupOut)]);
}

fn of_subnet(plan: &Plan<'_>, subnet: &Subnet<'_>, sink: &mut Sink) {
    let id = subnet.spec.id;
    let renew = in_subnet(from_client(to(Match::udp(), subnet.router())), subnet);
    sink.of(STAGE, id, 510, renew, to_service(plan, service::DHCP, DHCP));
    for (matches, port) in to_dns(subnet.dns()) {
        // Above the VPC's resolver, whose address is the same in the VPC's first subnet.
        sink.of(STAGE, id, 510, in_subnet(matches, subnet), to_service(plan, service::DNS_SUBNET, port));
    }
    let echo = in_subnet(to(Match::icmp(), subnet.router()), subnet)
        .with(Field::IcmpType, 8)
        .with(Field::IcmpCode, 0);
    sink.of(STAGE, id, 510, echo, answer_echo());
    for address in [subnet.router(), subnet.dns()] {
        let matches = in_subnet(arp_request(address), subnet);
        sink.of(STAGE, id, 100, matches, answer_arp(gon_types::MacAddr::ROUTER));
    }
}

/// Only packets from the subnet.
fn in_subnet(matches: Match, subnet: &Subnet<'_>) -> Match {
    matches.with(VPC, subnet.vpc.key.into()).with(SUBNET, bits(subnet.base()))
}

/// To an address, through the router, whole.
fn to(matches: Match, address: Ipv4Addr) -> Match {
    matches.with(Field::EthDst, ROUTER).addr(Field::IpDst, address).with(Field::IpFrag, 0)
}

/// By the port itself.
fn asks(matches: Match) -> Match {
    matches.slice(ASKS, 1)
}

/// From a DHCP client to a server.
fn from_client(matches: Match) -> Match {
    asks(matches)
        .with(Field::IpFrag, 0)
        .with(Field::UdpSrc, service::DHCP_CLIENT_UDP.into())
        .with(Field::UdpDst, service::DHCP_SERVER_UDP.into())
}

/// DNS to an address, both ways it can be asked, and which port of which protocol is to be another.
fn to_dns(address: Ipv4Addr) -> [(Match, (Field, u16)); 2] {
    [(Match::udp(), Field::UdpDst), (Match::tcp(), Field::TcpDst)].map(|(asked, port)| {
        (asks(to(asked, address)).with(port, service::DNS_TP.into()), (port, service::DNS_LISTEN))
    })
}

/// Where DHCP requests go on.
const DHCP: (Field, u16) = (Field::UdpDst, service::DHCP_LISTEN);

/// To a local service, as the address by which it knows the port: the ingress port is the identity.
fn to_service(plan: &Plan<'_>, service: Ipv4Addr, (field, port): (Field, u16)) -> Vec<Action> {
    vec![
        Action::copy(ASKER, Field::IpSrc),
        Action::Set(Field::IpDst, bits(service)),
        Action::Set(field, port.into()),
        Action::Set(Field::EthSrc, ROUTER),
        Action::Set(Field::EthDst, mac_bits(plan.facts.meta_mac)),
        Action::Output(service::META_PORT),
    ]
}

/// An echo request becomes its reply (the switch keeps both checksums right).
fn answer_echo() -> Vec<Action> {
    vec![
        Action::copy(Field::EthSrc, Field::EthDst),
        Action::Set(Field::EthSrc, ROUTER),
        Action::copy(Field::IpSrc, SCRATCH),
        Action::copy(Field::IpDst, Field::IpSrc),
        Action::copy(SCRATCH, Field::IpDst),
        Action::Set(Field::IcmpType, 0),
        Action::load(Field::IpTtl, 64),
        Action::InPort,
    ]
}
