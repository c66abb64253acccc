//! local-reply and local-restore: what local services answer goes back to the port it is for, from the address that the
//! guest had spoken to.
//!
//! Assumes the host's side of the device: it sends to `source(port_no, n)` from a service address. Promises: only
//! answers from the services' own ports leave, only to the guest's MAC and the address that asked, and no group is asked. The host cannot start
//! anything toward a guest by this way; what it sends from another port or address is dropped.
//!
//! DHCP answers come in two kinds, told apart by the service address they are sent from, because a client that has no
//! address yet may only hear 255.255.255.255, and one that renews may only hear its own.

use std::net::Ipv4Addr;

use gon_proto::VpcSpec;
use gon_types::MacAddr;

use super::{ARP_REQUEST, Sink, answer_arp, bits, go, reg};
use crate::flow::{Action, Field, Match, mac_bits};
use crate::pipeline::{SUBNET, Stage, TO_PORT, VPC, low16};
use crate::plan::{Plan, Subnet};
use crate::service;

pub(super) fn flows(plan: &Plan<'_>, sink: &mut Sink) {
    reply(plan, sink);
    restore(plan, sink);
}

fn reply(plan: &Plan<'_>, sink: &mut Sink) {
    let stage = Stage::LocalReply;
    let asks = |net| Match::arp().with(Field::ArpOp, ARP_REQUEST).net(Field::ArpTpa, net);
    // The services' own addresses are the host's; all others are guests, behind the router.
    for own in [service::SERVICES, service::FURTHER_OWN] {
        sink.fixed(stage, 110, asks(own), vec![]);
    }
    for guests in [service::NETWORK, service::FURTHER] {
        sink.fixed(stage, 100, asks(guests), answer_arp(MacAddr::ROUTER));
    }
    for port in &plan.ports {
        let spec = port.spec;
        for (n, address) in spec.addresses().enumerate() {
            let Some(source) = service::source(spec.port_no, n) else { continue };
            sink.of(
                stage,
                spec.id,
                100,
                Match::ip().addr(Field::IpDst, source),
                vec![
                    Action::Set(Field::EthSrc, mac_bits(MacAddr::ROUTER)),
                    Action::Set(Field::EthDst, mac_bits(spec.mac)),
                    Action::Set(Field::IpDst, bits(address)),
                    reg(VPC, port.vpc.key),
                    reg(SUBNET, u32::from(port.subnet.base())),
                    reg(TO_PORT, spec.port_no),
                    go(Stage::LocalRestore),
                ],
            );
        }
    }
}

fn restore(plan: &Plan<'_>, sink: &mut Sink) {
    let stage = Stage::LocalRestore;
    let from = |matches: Match, service| matches.addr(Field::IpSrc, service);
    let metadata = from(Match::tcp(), service::METADATA).with(Field::TcpSrc, service::METADATA_LISTEN.into());
    let port = (Field::TcpSrc, service::METADATA_TCP);
    sink.fixed(stage, 100, metadata, send(service::GUEST_METADATA, port));
    for (matches, port) in dns_answers(service::DNS_LINK_LOCAL) {
        sink.fixed(stage, 100, matches, send(service::GUEST_DNS, port));
    }
    for subnet in plan.subnets.values() {
        let here =
            |matches: Match| matches.with(VPC, subnet.vpc.key.into()).with(SUBNET, bits(subnet.base()));
        let id = subnet.spec.id;
        for (matches, port) in dns_answers(service::DNS_SUBNET) {
            sink.of(stage, id, 100, here(matches), send(subnet.dns(), port));
        }
        // What the router tells about packets of theirs.
        let spent =
            here(from(Match::icmp(), service::ROUTER)).with(Field::IcmpType, service::TIME_EXCEEDED.into());
        let as_router =
            vec![Action::Set(Field::IpSrc, bits(subnet.router())), Action::OutputTo(low16(TO_PORT))];
        sink.of(stage, id, 100, spent, as_router);
        let dhcp = |service| {
            here(from(Match::udp(), service))
                .with(Field::UdpSrc, service::DHCP_LISTEN.into())
                .with(Field::UdpDst, service::DHCP_CLIENT_UDP.into())
        };
        sink.of(stage, id, 100, dhcp(service::DHCP), send(subnet.router(), DHCP));
        sink.of(stage, id, 100, dhcp(service::DHCP_BROADCAST), send_to_everybody(subnet));
    }
    for vpc in plan.vpcs.values() {
        for (service, dns) in vpc_resolvers(vpc) {
            for (matches, port) in dns_answers(service) {
                sink.of(stage, vpc.id, 100, matches.with(VPC, vpc.key.into()), send(dns, port));
            }
        }
    }
}

/// The resolvers at base + 2 of a VPC's blocks: service address, and the address the guest speaks to.
pub(super) fn vpc_resolvers(vpc: &VpcSpec) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let mut bases: Vec<u32> = vpc.cidr_blocks.iter().map(|b| u32::from(b.network())).collect();
    bases.sort_unstable();
    bases.dedup();
    let addresses = bases.into_iter().map(|base| Ipv4Addr::from(base.wrapping_add(2)));
    service::DNS_VPC.into_iter().zip(addresses).collect()
}

/// Which port of which protocol guests know DHCP by.
const DHCP: (Field, u16) = (Field::UdpSrc, service::DHCP_SERVER_UDP);

/// Answers of DNS, and which port of which protocol guests know it by.
fn dns_answers(service: Ipv4Addr) -> [(Match, (Field, u16)); 2] {
    [(Match::udp(), Field::UdpSrc), (Match::tcp(), Field::TcpSrc)].map(|(answer, port)| {
        (answer.addr(Field::IpSrc, service).with(port, service::DNS_LISTEN.into()), (port, service::DNS_TP))
    })
}

/// As if from this address and port.
fn send(as_from: Ipv4Addr, (field, port): (Field, u16)) -> Vec<Action> {
    vec![
        Action::Set(Field::IpSrc, bits(as_from)),
        Action::Set(field, port.into()),
        Action::OutputTo(low16(TO_PORT)),
    ]
}

fn send_to_everybody(subnet: &Subnet<'_>) -> Vec<Action> {
    let mut actions = vec![Action::Set(Field::IpDst, u32::MAX.into())];
    actions.extend(send(subnet.router(), DHCP));
    actions
}
