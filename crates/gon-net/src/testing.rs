//! For this crate's tests: a compiled topology to send packets into, golden files, random topologies, and a model of what
//! should happen that knows nothing of flows.

use std::net::Ipv4Addr;

use gon_proto::{Direction, NodeNetwork, Peer, PortSpec, RouteTarget, SubnetSpec, VpcSpec};
use gon_types::{MacAddr, Protocol};
use ipnet::Ipv4Net;
use proptest::prelude::*;

use crate::flow::{Field, IP_ICMP, IP_TCP, IP_UDP};
use crate::service::EXT_PORT;
use crate::topology::{self, Topology, allow, blackhole, ip, via_gateway, via_interface};
use crate::trace::{Conntrack, Packet, Verdict, trace};
use crate::{Compiled, NodeFacts, compile};

/// Compares with `golden/NAME.txt`; `GON_UPDATE_GOLDEN=1` writes it instead.
pub fn golden(name: &str, text: &str) {
    let path = format!("{}/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("GON_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    for (n, (wanted, got)) in wanted.lines().zip(text.lines()).enumerate() {
        assert_eq!(wanted, got, "{path}:{}; GON_UPDATE_GOLDEN=1 accepts the change", n + 1);
    }
    assert_eq!(wanted.lines().count(), text.lines().count(), "{path}");
}

/// A compiled topology with its connections.
pub struct Lab {
    pub doc: NodeNetwork,
    pub compiled: Compiled,
    pub conntrack: Conntrack,
}

impl Lab {
    pub fn new(topology: Topology) -> Self {
        Self::with_facts(topology, &topology::facts())
    }
    pub fn with_facts(topology: Topology, facts: &NodeFacts) -> Self {
        let compiled = compile(&topology.doc, facts);
        Self { doc: topology.doc, compiled, conntrack: Conntrack::new() }
    }
    /// Other flows, the same connections.
    pub fn replace(&mut self, topology: Topology, facts: &NodeFacts) {
        self.compiled = compile(&topology.doc, facts);
        self.doc = topology.doc;
    }
    pub fn send(&mut self, port: u32, packet: &Packet) -> Verdict {
        trace(&self.compiled.flows, port, packet, &mut self.conntrack)
    }
    pub fn port(&self, no: u16) -> &PortSpec {
        self.doc.ports.iter().find(|p| p.port_no == no).unwrap()
    }
    /// A packet from a port to an address through the router.
    pub fn to(&self, no: u16, address: &str, proto: u8, port: u16) -> Packet {
        packet(self.port(no), MacAddr::ROUTER, ip(address), proto, port)
    }
    /// A packet from a port to another port's private address: to its MAC in the same subnet, else through the router.
    pub fn between(&self, from: u16, to: u16, proto: u8, port: u16) -> Packet {
        let (from, to) = (self.port(from), self.port(to));
        let hop = if from.subnet == to.subnet { to.mac } else { MacAddr::ROUTER };
        packet(from, hop, to.private_ip, proto, port)
    }
    /// A packet from outside.
    pub fn from_outside(source: &str, to: &str, proto: u8, port: u16) -> Packet {
        with_ports(Packet::ip((topology::EXT_MAC, ip(source)), (MacAddr::ROUTER, ip(to)), proto), proto, port)
    }
    /// Sends, expects it out of exactly one port, and gives what left.
    #[track_caller]
    pub fn arrives(&mut self, port: u32, packet: &Packet, at: u32) -> Packet {
        let verdict = self.send(port, packet);
        let ports: Vec<u32> = verdict.outputs.iter().map(|(port, _)| *port).collect();
        assert_eq!(ports, [at], "{verdict}");
        verdict.outputs[0].1.clone()
    }
    #[track_caller]
    pub fn drops(&mut self, port: u32, packet: &Packet) -> Verdict {
        let verdict = self.send(port, packet);
        assert!(verdict.is_drop(), "{verdict}");
        verdict
    }
    /// Sends a packet, expects it at a port and the answer to it back at the first.
    #[track_caller]
    pub fn talks(&mut self, port: u32, packet: &Packet, at: u32) {
        let there = self.arrives(port, packet, at);
        let back = self.arrives(at, &there.answer(), port);
        assert_eq!(back.get(Field::IpSrc), packet.get(Field::IpDst));
        assert_eq!(back.get(Field::IpDst), packet.get(Field::IpSrc));
    }
}

pub fn packet(from: &PortSpec, hop: MacAddr, to: Ipv4Addr, proto: u8, port: u16) -> Packet {
    with_ports(Packet::ip((from.mac, from.private_ip), (hop, to), proto), proto, port)
}

fn with_ports(packet: Packet, proto: u8, port: u16) -> Packet {
    const SYN: u64 = 2;
    match proto {
        IP_TCP => {
            packet.with(Field::TcpSrc, 40_000).with(Field::TcpDst, port.into()).with(Field::TcpFlags, SYN)
        }
        IP_UDP => packet.with(Field::UdpSrc, 40_000).with(Field::UdpDst, port.into()),
        IP_ICMP => packet.with(Field::IcmpType, 8),
        _ => packet,
    }
}

/// Where the first packet of a connection should end: at a port (`EXT_PORT` is outside), or nowhere. Written from
/// the semantics, not from the pipeline.
pub fn model(doc: &NodeNetwork, from: u16, hop: MacAddr, to: Ipv4Addr, proto: u8, port: u16) -> Option<u32> {
    let from = doc.ports.iter().find(|p| p.port_no == from)?;
    let (subnet, vpc) = home(doc, from);
    if to.is_multicast() || to.is_link_local() || !allowed(doc, from, Direction::Outbound, to, proto, port) {
        return None;
    }
    let receiver = |target: &PortSpec, source: Ipv4Addr| {
        (target.id != from.id && allowed(doc, target, Direction::Inbound, source, proto, port))
            .then_some(u32::from(target.port_no))
    };
    let in_vpc =
        |address: Ipv4Addr| doc.ports.iter().find(|p| p.private_ip == address && home(doc, p).1.id == vpc.id);
    if hop != MacAddr::ROUTER {
        let target = in_vpc(to).filter(|p| p.mac == hop && p.subnet == from.subnet)?;
        return receiver(target, from.private_ip);
    }
    match route(subnet, vpc, to)? {
        Hop::Local => receiver(in_vpc(to)?, from.private_ip),
        Hop::Interface(address) => {
            receiver(in_vpc(address).filter(|p| !p.source_dest_check)?, from.private_ip)
        }
        Hop::Gateway => {
            let source = from.public_ip?;
            let Some(target) = doc
                .ports
                .iter()
                .find(|p| p.public_ip == Some(to) && home(doc, p).1.internet_gateway.is_some())
            else {
                return Some(EXT_PORT);
            };
            let (subnet, vpc) = home(doc, target);
            matches!(route(subnet, vpc, source), Some(Hop::Gateway)).then_some(())?;
            allowed(doc, target, Direction::Inbound, source, proto, port).then_some(u32::from(target.port_no))
        }
    }
}

enum Hop {
    Local,
    Gateway,
    Interface(Ipv4Addr),
}

fn home<'a>(doc: &'a NodeNetwork, port: &PortSpec) -> (&'a SubnetSpec, &'a VpcSpec) {
    let subnet = doc.subnets.iter().find(|s| s.id == port.subnet).unwrap();
    (subnet, doc.vpcs.iter().find(|v| v.id == subnet.vpc).unwrap())
}

fn route(subnet: &SubnetSpec, vpc: &VpcSpec, to: Ipv4Addr) -> Option<Hop> {
    let local = vpc.cidr_blocks.iter().map(|b| (*b, Some(Hop::Local)));
    let routes = subnet.routes.iter().map(|r| {
        let hop = match &r.target {
            RouteTarget::InternetGateway(g) => (vpc.internet_gateway == Some(g.id)).then_some(Hop::Gateway),
            RouteTarget::Interface { private_ip } => Some(Hop::Interface(*private_ip)),
            RouteTarget::Blackhole => None,
        };
        (r.destination, hop)
    });
    // Of two equally long the first is taken: the local one.
    let mut best: Option<(Ipv4Net, Option<Hop>)> = None;
    for candidate in local.chain(routes).filter(|(net, _)| net.contains(&to)) {
        if best.as_ref().is_none_or(|(net, _)| candidate.0.prefix_len() > net.prefix_len()) {
            best = Some(candidate);
        }
    }
    best.and_then(|(_, hop)| hop)
}

fn allowed(
    doc: &NodeNetwork,
    port: &PortSpec,
    direction: Direction,
    peer: Ipv4Addr,
    proto: u8,
    dst_port: u16,
) -> bool {
    let groups = doc.groups.iter().filter(|g| port.groups.contains(&g.id));
    groups.flat_map(|g| &g.rules).filter(|r| r.direction == direction).any(|rule| {
        let traffic = match rule.protocol {
            Protocol::All => true,
            Protocol::Tcp => proto == IP_TCP && rule.ports.unwrap().contains(dst_port),
            Protocol::Udp => proto == IP_UDP && rule.ports.unwrap().contains(dst_port),
            Protocol::Icmp => {
                proto == IP_ICMP
                    && rule.icmp.is_none_or(|i| i.icmp_type == 8 && i.code.is_none_or(|c| c == 0))
            }
        };
        let side = match &rule.peer {
            Peer::Cidr(net) => net.contains(&peer),
            Peer::Group(id) => doc.groups.iter().any(|g| g.id == *id && g.members.contains(&peer)),
        };
        traffic && side
    })
}

/// A random topology: up to three VPCs, all with the same blocks, 203.0.113.x as public addresses.
pub fn any_topology() -> impl Strategy<Value = Topology> {
    let rule = prop_oneof![
        3 => (any::<bool>(), 0..4u8, 0..4u16, 0..5u8).prop_map(Some),
        1 => Just(None),
    ];
    let rules = proptest::collection::vec(rule, 0..6);
    let vpc = (any::<bool>(), proptest::collection::vec(rules, 3), 0..6u8, 0..6u8);
    let port = (0..3u32, 0..2u32, 1..8u8, any::<bool>(), any::<bool>());
    (proptest::collection::vec(vpc, 1..4), proptest::collection::vec(port, 1..9)).prop_map(|(vpcs, ports)| {
        let mut topology = Topology::new();
        for (n, (gateway, groups, first, second)) in (1..).zip(&vpcs) {
            topology = topology
                .vpc(n, "10.0.0.0/16", *gateway)
                .subnet(n * 10 + 1, n, "10.0.1.0/24", some_routes(n, *first))
                .subnet(n * 10 + 2, n, "10.0.2.0/24", some_routes(n, *second));
            for (g, rules) in (1..).zip(groups) {
                let rules = (1..).zip(rules.iter().flatten());
                let rules = rules.map(|(r, rule)| some_rule(n * 1000 + g * 100 + r, n, *rule)).collect();
                topology = topology.group(n * 10 + g, n, rules);
            }
        }
        let mut taken = vec![];
        for (no, (vpc, subnet, groups, public, check)) in (16..).zip(&ports) {
            let vpc = vpc % u32::try_from(vpcs.len()).unwrap() + 1;
            let subnet = subnet + 1;
            let address = format!("10.0.{subnet}.{}", 10 + taken.iter().filter(|v| **v == vpc).count());
            taken.push(vpc);
            let groups: Vec<u32> =
                (0..3).filter(|b| groups >> b & 1 == 1).map(|b| vpc * 10 + b + 1).collect();
            let public = public.then(|| format!("203.0.113.{}", 10 + no));
            topology = topology
                .port(no, vpc * 10 + subnet, &address, &groups, public.as_deref())
                .with_port(no, |p| p.source_dest_check = *check);
        }
        topology
    })
}

fn some_routes(vpc: u32, kind: u8) -> Vec<gon_proto::RouteSpec> {
    match kind {
        0 => vec![],
        1 => vec![via_gateway("0.0.0.0/0", vpc)],
        2 => vec![via_gateway("0.0.0.0/0", vpc + 1)],
        3 => vec![via_gateway("0.0.0.0/0", vpc), blackhole("198.51.100.0/25")],
        4 => vec![via_gateway("203.0.113.0/24", vpc), via_interface("0.0.0.0/0", "10.0.1.10")],
        _ => vec![via_interface("10.0.2.0/24", "10.0.1.11"), via_gateway("198.51.100.0/24", vpc)],
    }
}

fn some_rule(n: u32, vpc: u32, (inbound, proto, port, peer): (bool, u8, u16, u8)) -> gon_proto::RuleSpec {
    let direction = if inbound { "in" } else { "out" };
    let traffic = match proto {
        0 => "all".to_owned(),
        1 => format!("tcp {}-{}", port * 20, port * 40 + 60),
        2 => format!("udp {}", port * 40),
        _ if port == 0 => "icmp".to_owned(),
        _ => format!("icmp {}/0", port + 6),
    };
    let peer = match peer {
        0 => "0.0.0.0/0".to_owned(),
        1 => "10.0.1.0/28".to_owned(),
        2 => "203.0.113.16/28".to_owned(),
        g => format!("sg {}", vpc * 10 + u32::from(g) - 2),
    };
    allow(n, &format!("{direction} {traffic} from {peer}"))
}

/// Protocol and destination port of a random packet.
pub fn any_traffic() -> impl Strategy<Value = (u8, u16)> {
    prop_oneof![
        (Just(IP_TCP), (0..10u16).prop_map(|n| n * 20)),
        (Just(IP_UDP), (0..6u16).prop_map(|n| n * 40)),
        (Just(IP_ICMP), Just(0)),
    ]
}

/// Where a random packet goes.
pub fn any_address() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        (1..3u8, 9..17u8).prop_map(|(subnet, host)| Ipv4Addr::new(10, 0, subnet, host)),
        (26..36u8).prop_map(|host| Ipv4Addr::new(203, 0, 113, host)),
        Just(Ipv4Addr::new(198, 51, 100, 7)),
        Just(Ipv4Addr::new(198, 51, 100, 200)),
        Just(Ipv4Addr::new(8, 8, 8, 8)),
        Just(Ipv4Addr::new(10, 0, 1, 1)),
        Just(Ipv4Addr::new(169, 254, 169, 254)),
        Just(Ipv4Addr::new(224, 0, 0, 1)),
    ]
}
