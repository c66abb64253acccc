//! A VPC on several nodes: each node's flows interpreted, what leaves through the tunnel carried to the other.

use super::*;
use crate::flow::{Field, IP_ICMP, IP_TCP, mac_bits};
use crate::pipeline::Stage;
use crate::service::{EXT_PORT, TUNNEL_PORT};
use crate::testing::{Lab, any_topology, any_traffic, model, packet};
use crate::topology::{Topology, allow, facts_of, id, ip, mac, two_vpcs, underlay, via_interface};
use crate::trace::{Packet, Verdict};
use proptest::prelude::*;

/// Nodes 1, 2, … and which has which port.
struct Site {
    nodes: Vec<Lab>,
    place: Vec<(u16, u32)>,
}

impl Site {
    fn new(topology: &Topology, place: &[(u16, u32)]) -> Self {
        let count = place.iter().map(|(_, n)| *n).max().unwrap();
        let node = |n| Lab::with_facts(topology.on_node(n, place), &facts_of(n));
        Self { nodes: (1..=count).map(node).collect(), place: place.to_vec() }
    }
    fn node(&mut self, n: u32) -> &mut Lab {
        &mut self.nodes[n as usize - 1]
    }
    fn node_of(&self, port: u16) -> u32 {
        self.place.iter().find(|(p, _)| *p == port).unwrap().1
    }
    /// Everything that comes out of a guest's or an outside port in the end, and where; with the last verdict.
    fn send(&mut self, node: u32, port: u32, packet: &Packet) -> (Vec<(u32, u32, Packet)>, Verdict) {
        let verdict = self.node(node).send(port, packet);
        let mut out = vec![];
        let mut last = verdict.clone();
        for (to, packet) in &verdict.outputs {
            if *to != TUNNEL_PORT {
                out.push((node, *to, packet.clone()));
                continue;
            }
            assert_ne!(port, TUNNEL_PORT, "nothing is passed on");
            let peer = packet.get(Field::TunDst) - u64::from(u32::from(underlay(0)));
            let arrived =
                packet.clone().with(Field::TunDst, 0).with(Field::TunSrc, u32::from(underlay(node)).into());
            let (there, at) = self.send(peer.try_into().unwrap(), TUNNEL_PORT, &arrived);
            out.extend(there);
            last = at;
        }
        (out, last)
    }
    fn from(&mut self, port: u16, packet: &Packet) -> Option<(u16, Packet)> {
        let (out, _) = self.send(self.node_of(port), port.into(), packet);
        assert!(out.len() < 2);
        let (node, at, packet) = out.into_iter().next()?;
        let at = u16::try_from(at).unwrap();
        assert_eq!(self.node_of(at), node);
        Some((at, packet))
    }
    #[track_caller]
    fn talks(&mut self, port: u16, packet: &Packet, at: u16) -> Packet {
        let (there, seen) = self.from(port, packet).expect("it arrives");
        assert_eq!(there, at);
        let (back, answer) = self.from(at, &seen.answer()).expect("the answer arrives");
        assert_eq!((back, answer.get(Field::IpSrc)), (port, packet.get(Field::IpDst)));
        seen
    }
}

/// 16 alone on node 1, everything else on node 2.
const SPLIT: &[(u16, u32)] = &[(16, 1), (17, 2), (18, 2), (19, 1), (20, 2)];

#[test]
fn a_vpc_spans_nodes() {
    let mut site = Site::new(&two_vpcs(), SPLIT);
    let port = |no| two_vpcs().doc.ports.into_iter().find(|p| p.port_no == no).unwrap();
    // Same subnet: the frame as it was sent.
    let seen = site.talks(16, &packet(&port(16), mac(17), ip("10.0.1.11"), IP_TCP, 80), 17);
    assert_eq!((seen.get(Field::EthSrc), seen.get(Field::EthDst)), (mac_bits(mac(16)), mac_bits(mac(17))));
    assert_eq!(seen.get(Field::IpTtl), 64);
    // Other subnet: through the router, once, on the sender's node; by a reference to the sender's group.
    let seen = site.talks(16, &packet(&port(16), MacAddr::ROUTER, ip("10.0.2.10"), IP_TCP, 5432), 18);
    assert_eq!(
        (seen.get(Field::EthSrc), seen.get(Field::EthDst)),
        (mac_bits(MacAddr::ROUTER), mac_bits(mac(18)))
    );
    assert_eq!(seen.get(Field::IpTtl), 63);
    // The receiver's groups are asked on its node, the sender's on the sender's.
    assert_eq!(site.from(16, &packet(&port(16), MacAddr::ROUTER, ip("10.0.2.10"), IP_TCP, 5434)), None);
    assert_eq!(site.from(18, &packet(&port(18), MacAddr::ROUTER, ip("10.0.1.10"), IP_TCP, 22)), None);
    // A sender's groups never let a packet out that only the receiver's allow.
    let (_, verdict) = site.send(2, 18, &packet(&port(18), MacAddr::ROUTER, ip("10.0.1.10"), IP_TCP, 22));
    assert_eq!(verdict.last_stage(), Some(Stage::Policy));
    // The other VPC of the same addresses, between the same nodes.
    let seen = site.talks(19, &packet(&port(19), mac(20), ip("10.0.1.11"), IP_TCP, 80), 20);
    assert_eq!(seen.get(Field::EthSrc), mac_bits(mac(19)));
    // ARP for a neighbour on another node is answered here.
    let who_has = Packet::frame(mac(16), MacAddr([0xff; 6]), 0x0806)
        .with(Field::ArpOp, 1)
        .with(Field::ArpSha, mac_bits(mac(16)))
        .with(Field::ArpSpa, u32::from(ip("10.0.1.10")).into())
        .with(Field::ArpTpa, u32::from(ip("10.0.1.11")).into());
    let answer = site.node(1).arrives(16, &who_has, 16);
    assert_eq!(answer.get(Field::ArpSha), mac_bits(mac(17)));
}

#[test]
fn further_addresses_are_reached_from_other_nodes() {
    let topology = two_vpcs().also(17, "10.0.1.20").also(18, "10.0.2.20");
    let mut site = Site::new(&topology, SPLIT);
    let port = |no| topology.doc.ports.iter().find(|p| p.port_no == no).unwrap();
    // As a neighbour, and through the router.
    site.talks(16, &packet(port(16), mac(17), ip("10.0.1.20"), IP_TCP, 80), 17);
    site.talks(16, &packet(port(16), MacAddr::ROUTER, ip("10.0.2.20"), IP_TCP, 5432), 18);
    // From there, too: it is a member of its groups by each of them.
    let from_second = Packet::ip((mac(17), ip("10.0.1.20")), (mac(16), ip("10.0.1.10")), IP_TCP);
    site.talks(17, &from_second.with(Field::TcpDst, 80), 16);
    // At the right MAC but another address: nobody.
    assert_eq!(site.from(16, &packet(port(16), MacAddr::ROUTER, ip("10.0.2.21"), IP_TCP, 5432)), None);
}

#[test]
fn an_appliance_on_another_node_gets_what_routes_send_it() {
    let appliance = |check| {
        Topology::new()
            .vpc(1, "10.0.0.0/16", false)
            .subnet(11, 1, "10.0.1.0/24", vec![via_interface("192.168.0.0/16", "10.0.2.11")])
            .subnet(12, 1, "10.0.2.0/24", vec![])
            .group(1, 1, vec![allow(1, "in all from 0.0.0.0/0"), allow(2, "out all from 0.0.0.0/0")])
            .port(16, 11, "10.0.1.10", &[1], None)
            .port(17, 12, "10.0.2.11", &[1], None)
            .with_port(17, |p| p.source_dest_check = check)
    };
    let send = |check| {
        let topology = appliance(check);
        let packet = packet(&topology.doc.ports[0], MacAddr::ROUTER, ip("192.168.7.7"), IP_ICMP, 0);
        Site::new(&topology, &[(16, 1), (17, 2)]).from(16, &packet)
    };
    let (at, seen) = send(false).unwrap();
    assert_eq!((at, seen.addr(Field::IpDst), seen.get(Field::IpTtl)), (17, ip("192.168.7.7"), 63));
    assert_eq!(send(true), None);
    // And may send what is not from itself, but nothing impossible.
    let topology = appliance(false);
    let mut site = Site::new(&topology, &[(16, 1), (17, 2)]);
    let from = |source: &str| {
        Packet::ip((mac(17), ip(source)), (MacAddr::ROUTER, ip("10.0.1.10")), IP_ICMP)
            .with(Field::IcmpType, 8)
    };
    assert_eq!(site.from(17, &from("192.168.7.7")).unwrap().0, 16);
    assert_eq!(site.from(17, &from("169.254.1.1")), None);
    let forged = from("127.0.0.1")
        .with(Field::TunId, 1)
        .with(Field::TunSrc, u32::from(underlay(2)).into())
        .with(Field::EthSrc, mac_bits(mac(17)) & !(2 << 40));
    assert!(site.node(1).send(TUNNEL_PORT, &forged).is_drop());
}

#[test]
fn only_the_senders_node_may_speak_for_it() {
    let mut site = Site::new(&two_vpcs(), SPLIT);
    // From 17 on node 2 to 16 on node 1, as it is on the wire.
    let good = Packet::ip((mac(17), ip("10.0.1.11")), (mac(16), ip("10.0.1.10")), IP_ICMP)
        .with(Field::IcmpType, 8)
        .with(Field::TunId, 1)
        .with(Field::TunSrc, u32::from(underlay(2)).into());
    let lab = site.node(1);
    lab.arrives(TUNNEL_PORT, &good, 16);
    let as_if = |field, value: u64| good.clone().with(field, value);
    let addr = |a: Ipv4Addr| u64::from(u32::from(a));
    for (forged, stage) in [
        (as_if(Field::TunId, 3), Stage::Classify),
        (as_if(Field::TunId, 1 << 32 | 1), Stage::Classify),
        (as_if(Field::TunId, 2), Stage::TunnelIn),
        (as_if(Field::TunSrc, addr(underlay(3))), Stage::TunnelIn),
        (as_if(Field::TunSrc, addr(underlay(1))), Stage::TunnelIn),
        (as_if(Field::TunSrc, 0), Stage::TunnelIn),
        (as_if(Field::EthSrc, mac_bits(mac(18))), Stage::TunnelIn),
        (as_if(Field::EthSrc, mac_bits(mac(16))), Stage::TunnelIn),
        (as_if(Field::EthSrc, mac_bits(mac(17)) | 1 << 40), Stage::TunnelIn),
        (as_if(Field::IpSrc, addr(ip("10.0.2.10"))), Stage::TunnelIn),
        (as_if(Field::IpSrc, addr(ip("10.0.1.10"))), Stage::TunnelIn),
        (as_if(Field::IpSrc, addr(ip("198.51.100.7"))), Stage::TunnelIn),
        (as_if(Field::EthType, 0x86dd), Stage::TunnelIn),
        (as_if(Field::VlanTci, 0x1005), Stage::Classify),
        // At the MAC of another, to nobody, to another node's, to the router, to link-local.
        (as_if(Field::EthDst, mac_bits(mac(19))), Stage::Locate),
        (as_if(Field::EthDst, 0xffff_ffff_ffff), Stage::Locate),
        (as_if(Field::IpDst, addr(ip("10.0.1.99"))), Stage::Locate),
        (as_if(Field::IpDst, addr(ip("169.254.169.254"))), Stage::Locate),
        (as_if(Field::IpDst, addr(ip("203.0.113.10"))), Stage::Locate),
    ] {
        let verdict = lab.drops(TUNNEL_PORT, &forged);
        assert_eq!(verdict.last_stage(), Some(stage), "{verdict}");
    }
    // Addressed to another node's interface: nothing is passed on.
    let back = good.clone().with(Field::EthDst, mac_bits(mac(17))).with(Field::IpDst, addr(ip("10.0.1.11")));
    assert_eq!(lab.drops(TUNNEL_PORT, &back).last_stage(), Some(Stage::Encap));
    let onward =
        good.clone().with(Field::EthDst, mac_bits(mac(18))).with(Field::IpDst, addr(ip("10.0.2.10")));
    lab.drops(TUNNEL_PORT, &onward);
    let routed = onward.with(Field::EthSrc, mac_bits(mac(17)) & !(2 << 40));
    lab.drops(TUNNEL_PORT, &routed);
    // A guest cannot choose a tunnel, nor look like one.
    let guest = good.clone().with(Field::TunSrc, 0).with(Field::TunId, 0);
    for port in [16, 19, EXT_PORT] {
        assert!(lab.send(port, &guest).outputs.iter().all(|(at, _)| *at != 16));
    }
}

#[test]
fn contradictory_peers_are_not_believed() {
    let broken = |change: &dyn Fn(&mut NodeNetwork)| {
        let mut topology = two_vpcs().on_node(1, SPLIT);
        change(&mut topology.doc);
        compile(&topology.doc, &facts_of(1)).flows
    };
    let leads_out = |flows: &FlowTable| {
        flows
            .of_table(Stage::Locate.table())
            .iter()
            .any(|f| f.actions.contains(&crate::Action::go(Stage::Encap.table())))
    };
    assert!(leads_out(&broken(&|_| ())));
    assert!(!leads_out(&broken(&|d| d.peers.clear())));
    assert!(!leads_out(&broken(&|d| d.peers[0].address = underlay(1))));
    assert!(!leads_out(&broken(&|d| d.peers[0].address = ip("127.0.0.1"))));
    assert!(!leads_out(&broken(&|d| {
        let address = d.peers[0].address;
        d.peers.push(gon_proto::PeerSpec { node: id(9), address });
    })));
    assert!(!leads_out(&broken(&|d| d.addresses.iter_mut().for_each(|a| a.mac = MacAddr::ROUTER))));
    let alone = compile(&two_vpcs().on_node(1, SPLIT).doc, &NodeFacts { overlay: None, ..facts_of(1) });
    assert!(!leads_out(&alone.flows));
    assert!(alone.flows.flows().all(|f| f.matches.get(Field::InPort).is_none_or(|c| c.value != 3)));
}

#[test]
fn a_gateway_is_the_senders_nodes() {
    // 16 has a public address on node 1, 17 on node 2: between them the packet goes out of node 1, not through a tunnel.
    let topology = two_vpcs().with_port(17, |p| p.public_ip = Some(ip("203.0.113.17")));
    let mut site = Site::new(&topology, SPLIT);
    let packet = packet(&topology.doc.ports[0], MacAddr::ROUTER, ip("203.0.113.17"), IP_ICMP, 0);
    let (out, _) = site.send(1, 16, &packet);
    assert_eq!((out.len(), out[0].0, out[0].1), (1, 1, EXT_PORT));
    let (_, _, outside) = &out[0];
    let arriving = outside.clone().with(Field::EthDst, mac_bits(MacAddr::ROUTER));
    let (out, verdict) = site.send(2, EXT_PORT, &arriving);
    assert_eq!((out.len(), out.first().map(|o| (o.0, o.1))), (1, Some((2, 17))), "{verdict}");
    // Node 1 does not answer for it, nor takes it.
    let (out, _) = site.send(1, EXT_PORT, &arriving);
    assert!(out.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    /// Where a port lives changes nothing: what the model says of one node holds for any split over three.
    #[test]
    fn nodes_do_not_matter(topology in any_topology(), traffic in any_traffic(), seed in any::<u64>()) {
        let ports: Vec<u16> = topology.doc.ports.iter().map(|p| p.port_no).collect();
        prop_assume!(ports.len() > 1);
        let place: Vec<(u16, u32)> =
            ports.iter().map(|no| (*no, 1 + ((seed >> (*no % 60)) % 3) as u32)).collect();
        let mut whole = Lab::new(topology.clone());
        prop_assume!(whole.compiled.degraded.is_empty());
        let mut site = Site::new(&topology, &place);
        for from in &topology.doc.ports {
            for to in &topology.doc.ports {
                if from.id == to.id { continue; }
                let hop = if from.subnet == to.subnet { to.mac } else { MacAddr::ROUTER };
                let sent = packet(from, hop, to.private_ip, traffic.0, traffic.1);
                let alone = whole.send(from.port_no.into(), &sent).outputs;
                let (spread, _) = site.send(site.node_of(from.port_no), from.port_no.into(), &sent);
                let spread: Vec<_> = spread.into_iter().map(|(_, at, p)| (at, p.with(Field::TunId, 0).with(Field::TunSrc, 0))).collect();
                prop_assert_eq!(&alone, &spread);
                let wanted = model(&topology.doc, from.port_no, hop, to.private_ip, traffic.0, traffic.1);
                prop_assert_eq!(spread.first().map(|s| s.0), wanted);
            }
        }
    }
}
