//! A VPC on several nodes, packets on the wire between them: a switch per node, the underlay a bridge, a stranger on it.

use std::net::Ipv4Addr;
use std::time::Duration;

use gon_net::pipeline::Stage;
use gon_net::{Mirror, service};
use gon_types::MacAddr;

use crate::packets_lab::*;
use crate::topology::{Topology, allow, ip, mac, underlay, via_gateway};

/// VPC 1: 16 and 18 on node 1, 17 and 19 on node 2, 21 on node 3. VPC 2, of the same blocks: 30 on node 1, 31 on node 2.
const PLACE: &[(u16, u32)] = &[(16, 1), (18, 1), (30, 1), (17, 2), (19, 2), (31, 2), (21, 3)];

fn site() -> Topology {
    Topology::new()
        .vpc(1, "10.0.0.0/16", true)
        .vpc(2, "10.0.0.0/16", false)
        .subnet(11, 1, "10.0.1.0/24", vec![via_gateway("0.0.0.0/0", 1)])
        .subnet(12, 1, "10.0.2.0/24", vec![])
        .subnet(21, 2, "10.0.1.0/24", vec![])
        .group(1, 1, vec![allow(1, "in all from sg 1"), allow(2, "out all from 0.0.0.0/0")])
        .group(2, 1, vec![allow(3, "in tcp 5432 from sg 1"), allow(4, "in icmp from sg 1")])
        .group(3, 2, vec![allow(5, "in all from 0.0.0.0/0"), allow(6, "out all from 0.0.0.0/0")])
        .port(16, 11, "10.0.1.10", &[1], None)
        .port(17, 11, "10.0.1.11", &[1], None)
        .port(18, 11, "10.0.1.12", &[1], None)
        .port(19, 12, "10.0.2.10", &[2], None)
        .port(21, 12, "10.0.2.11", &[1], None)
        .port(30, 21, "10.0.1.10", &[3], None)
        .port(31, 21, "10.0.1.11", &[3], None)
}

fn nodes(fabric: &Fabric, count: u32) -> Vec<Lab> {
    let labs: Vec<Lab> = (1..=count).map(|n| Lab::node(&site().on_node(n, PLACE), n, fabric)).collect();
    // The userspace datapath knows its peers' Ethernet addresses from the ARP it sees, and drops what it sends before (the
    // kernel keeps it until ARP is answered).
    for (from, lab) in (1..).zip(&labs) {
        for to in (1..=count).filter(|to| *to != from) {
            lab.meet(to);
        }
    }
    labs
}

#[test]
fn guests_on_different_nodes_are_neighbours() {
    let fabric = Fabric::new();
    let mut labs = nodes(&fabric, 3);
    let (g16, g17, g18) = (labs[0].guest(16), labs[1].guest(17), labs[0].guest(18));
    let (g19, g21) = (labs[1].guest(19), labs[2].guest(21));

    // Same subnet: no router between; whole, and in fragments.
    assert_eq!(ping(&g16, "10.0.1.11", 56, PATIENCE), Some(64));
    assert_eq!(ping(&g17, "10.0.1.10", 4000, PATIENCE), Some(64));
    // As large as the guest's MTU allows, unfragmented on the underlay.
    assert_eq!(ping(&g16, "10.0.1.11", 1422, PATIENCE), Some(64));
    greeter(&g17, "0.0.0.0:80");
    assert!(greeted(&g16, "10.0.1.11:80", PATIENCE).unwrap().starts_with("10.0.1.10:"));
    assert!(reaches(&g18, "10.0.1.11:80"));
    // Other subnet, other node: one hop. The receiver's group knows the sender by reference to its group.
    greeter(&g19, "0.0.0.0:5432");
    greeter(&g19, "0.0.0.0:80");
    assert_eq!(ping(&g16, "10.0.2.10", 56, PATIENCE), Some(63));
    assert!(greeted(&g16, "10.0.2.10:5432", PATIENCE).unwrap().starts_with("10.0.1.10:"));
    assert!(reaches(&g21, "10.0.2.10:5432"), "same subnet, third node");
    assert!(is_cut_off(&g16, "10.0.2.10:80"));
    assert!(pings_in_vain(&g19, "10.0.1.10"), "19 may begin nothing, and is refused on its own node");
    assert_eq!(ping(&g21, "10.0.1.11", 56, PATIENCE), Some(63));
    // The router of each subnet answers on each node.
    assert!(pings(&g16, "10.0.1.1") && pings(&g17, "10.0.1.1"));

    // Revoked at the receiver's node.
    let mut revoked = site();
    revoked.doc.groups[1].rules.remove(0);
    labs[1].apply(&revoked.on_node(2, PLACE), Mirror::Off);
    assert!(is_cut_off(&g16, "10.0.2.10:5432"));
    labs[1].apply(&site().on_node(2, PLACE), Mirror::Off);
    assert!(reaches(&g16, "10.0.2.10:5432"));
    // A member that leaves the group on one node is no peer on the other: once that one is told.
    let mut left = site();
    left.doc.groups[0].members.retain(|m| *m != ip("10.0.1.10"));
    labs[1].apply(&left.on_node(2, PLACE), Mirror::Off);
    assert!(is_cut_off(&g16, "10.0.2.10:5432") && reaches(&g18, "10.0.2.10:5432"));
}

const MARKER: &[u8] = b"gon-overlay-frame";

/// Marked, and sent by another: a receiver may quote what it received.
fn marked(listener: u16) -> impl Fn(&[u8]) -> bool {
    move |frame| frame[6..12] != mac(listener).0 && frame.windows(MARKER.len()).any(|w| w == MARKER)
}

/// Everything that 16 or 30 on node 1 sends, as a frame; the first is honest, in its VPC.
fn sprayed(from: u16, to: u16) -> Vec<Vec<u8>> {
    let (me, me_ip) = (mac(from), ip("10.0.1.10"));
    let all = MacAddr([0xff; 6]);
    let to_ip =
        |address, hop: MacAddr| ethernet(hop, me, 0x0800, &ipv4(me_ip, address, 17, &datagram(9, 9, MARKER)));
    let mut frames = vec![
        to_ip(ip("10.0.1.11"), mac(to)),
        to_ip(ip("10.0.1.11"), mac(17)),
        to_ip(ip("10.0.1.11"), mac(31)),
        to_ip(ip("10.0.1.11"), MacAddr::ROUTER),
        to_ip(ip("10.0.1.255"), all),
        to_ip(ip("255.255.255.255"), all),
        to_ip(ip("224.0.0.1"), MacAddr([1, 0, 0x5e, 0, 0, 1])),
        to_ip(underlay(2), MacAddr::ROUTER),
    ];
    for (op, sender, target) in [
        (1, (me, me_ip), (all, ip("10.0.1.11"))),
        (1, (me, me_ip), (all, me_ip)),
        (2, (me, ip("10.0.1.1")), (mac(to), ip("10.0.1.11"))),
    ] {
        frames.push(ethernet(all, me, 0x0806, &[&arp(op, sender, target)[..], MARKER].concat()));
    }
    // Router advertisement, and a sweep of what is neither IPv4 nor ARP.
    for eth_type in [0x86dd_u16, 0x88cc, 0x8100, 0x88a8, 0x8847, 0x0842] {
        frames.push(ethernet(all, me, eth_type, &ipv4(me_ip, ip("10.0.1.11"), 17, MARKER)));
    }
    frames
}

#[test]
fn vpcs_of_the_same_addresses_on_the_same_nodes_never_hear_each_other() {
    let fabric = Fabric::new();
    let labs = nodes(&fabric, 2);
    let mut wires = [Wire::tap(&labs[1].guest(17)), Wire::tap(&labs[1].guest(31))];
    for (from, to, stranger) in [(16, 17, 31), (30, 31, 17)] {
        let [hears, deaf] = &mut wires;
        let mut wire = Wire::tap(&labs[0].guest(from));
        let frames = sprayed(from, to);
        wire.send(&frames[0]);
        assert!(hears.wait(PATIENCE, marked(to)).is_some(), "{from} reaches its own neighbour");
        for frame in frames.iter().cycle().take(frames.len() * 20) {
            wire.send(frame);
        }
        assert_eq!(deaf.wait(SILENCE, marked(stranger)), None, "{from} is heard in the other VPC");
        while hears.wait(Duration::from_millis(50), marked(to)).is_some() {}
        wires.reverse();
    }
    assert_eq!(ping(&labs[0].guest(30), "10.0.1.11", 56, PATIENCE), Some(64));
}

/// A Geneve packet on the underlay.
struct Outer {
    from: Ipv4Addr,
    to: Ipv4Addr,
    key: u32,
    port: u16,
}

impl Outer {
    fn frame(&self, hop: MacAddr, me: MacAddr, inner: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = self.key.to_be_bytes();
        let geneve = [&[0, 0, 0x65, 0x58, a, b, c, 0][..], inner].concat();
        ethernet(hop, me, 0x0800, &ipv4(self.from, self.to, 17, &datagram(50_000, self.port, &geneve)))
    }
}

/// The counted drops of a stage: packets of its flows that do nothing.
fn dropped(lab: &Lab, stage: Stage, priority: u16) -> u64 {
    let table = format!("table={}, ", stage.table());
    let priority = if priority == 0 { "priority=0 ".to_owned() } else { format!("priority={priority},") };
    let lines = lab.flows();
    let line =
        lines.lines().find(|l| l.contains(&table) && l.contains(&priority) && l.ends_with("actions=drop"));
    let (_, rest) = line.unwrap_or_else(|| panic!("{lines}")).split_once("n_packets=").unwrap();
    rest.split(',').next().unwrap().parse().unwrap()
}

#[test]
fn a_neighbour_on_the_underlay_gets_nothing_in() {
    let mut fabric = Fabric::new();
    let rogue = fabric.neighbour("rogue", "192.0.2.66/24");
    let mut labs = nodes(&fabric, 2);
    let (mut victim, mut other) = (Wire::tap(&labs[0].guest(16)), Wire::tap(&labs[0].guest(30)));
    let mut wire = Wire::tap(&rogue);
    // Where node 1 is on the wire.
    assert!(pings(&rogue, &underlay(1).to_string()));
    let hop = neighbour_mac(&rogue, underlay(1));
    let me = MacAddr([0x02, 0x66, 0, 0, 0, 1]);
    let from_17 = |to: Ipv4Addr, at: MacAddr| {
        ethernet(at, mac(17), 0x0800, &ipv4(ip("10.0.1.11"), to, 17, &datagram(9, 9, MARKER)))
    };
    let honest = from_17(ip("10.0.1.10"), mac(16));
    let outer = |from| Outer { from, to: underlay(1), key: 1, port: service::TUNNEL_UDP };
    let node = outer(underlay(2));

    // The forged packets are well made: the very same from the peer's address is believed. (Whoever can forge the outer
    // address on the underlay, knows key, MAC and address, and can reach the port is not kept out by an overlay without
    // authentication; that is what an encrypted underlay is for.)
    wire.send(&node.frame(hop, me, &honest));
    assert!(victim.wait(PATIENCE, marked(16)).is_some());

    let routed = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        frame[6] &= !2;
        frame
    };
    let sender = |mac: MacAddr, address: &str| {
        ethernet(
            crate::topology::mac(16),
            mac,
            0x0800,
            &ipv4(ip(address), ip("10.0.1.10"), 17, &datagram(9, 9, MARKER)),
        )
    };
    let strangers: Vec<(&str, Vec<u8>)> = vec![
        ("from an unknown address", outer(ip("192.0.2.66")).frame(hop, me, &honest)),
        ("from the node itself", outer(underlay(1)).frame(hop, me, &honest)),
        ("foreign key", Outer { key: 3, ..outer(underlay(2)) }.frame(hop, me, &honest)),
        ("no key", Outer { key: 0, ..outer(underlay(2)) }.frame(hop, me, &honest)),
        ("the other VPC's key", Outer { key: 2, ..outer(underlay(2)) }.frame(hop, me, &honest)),
        ("a forged MAC", node.frame(hop, me, &sender(mac(99), "10.0.1.11"))),
        ("the receiver's MAC", node.frame(hop, me, &sender(mac(16), "10.0.1.11"))),
        ("another node's interface", node.frame(hop, me, &sender(mac(21), "10.0.2.11"))),
        ("a forged address", node.frame(hop, me, &sender(mac(17), "10.0.2.10"))),
        ("the receiver's address", node.frame(hop, me, &sender(mac(17), "10.0.1.10"))),
        ("another member's address", node.frame(hop, me, &sender(mac(17), "10.0.2.11"))),
        ("an outside address", node.frame(hop, me, &sender(mac(17), "198.51.100.7"))),
        ("routed, at another MAC", node.frame(hop, me, &routed(&from_17(ip("10.0.1.10"), mac(18))))),
        ("at another MAC", node.frame(hop, me, &from_17(ip("10.0.1.10"), mac(30)))),
        ("broadcast", node.frame(hop, me, &from_17(ip("10.0.1.10"), MacAddr([0xff; 6])))),
        ("to the metadata service", node.frame(hop, me, &from_17(service::GUEST_METADATA, MacAddr::ROUTER))),
        (
            "tagged",
            node.frame(hop, me, &{
                let inner = [&[0_u8, 5, 8, 0][..], &honest[14..]].concat();
                ethernet(mac(16), mac(17), 0x8100, &inner)
            }),
        ),
        (
            "ARP",
            node.frame(
                hop,
                me,
                &ethernet(
                    mac(16),
                    mac(17),
                    0x0806,
                    &[&arp(2, (mac(17), ip("10.0.1.1")), (mac(16), ip("10.0.1.10")))[..], MARKER].concat(),
                ),
            ),
        ),
        ("a truncated frame", node.frame(hop, me, &honest[..20])),
        ("VXLAN's port", Outer { port: 4789, ..outer(underlay(2)) }.frame(hop, me, &honest)),
    ];
    let (keys, senders) = (dropped(&labs[0], Stage::Classify, 50), dropped(&labs[0], Stage::TunnelIn, 0));
    for (name, frame) in &strangers {
        for _ in 0..10 {
            wire.send(frame);
        }
        assert_eq!(victim.wait(Duration::from_millis(40), marked(16)), None, "{name}");
    }
    assert_eq!(other.wait(SILENCE, marked(30)), None);
    // Tests of the test: without one of the checks, the frame that it is there for comes in.
    let sender = &["nw_src=10.0.1.11", "dl_src=02:00:00:00:00:11"];
    let without = |condition: &'static str| {
        move |flow: &str| flow.split(',').filter(|c| !c.starts_with(condition)).collect::<Vec<_>>().join(",")
    };
    let mut lets_in = |check: &str, name: &str, stage, words: &[&str], bug: &dyn Fn(&str) -> String| {
        labs[0].plant(stage, words, bug);
        let (_, frame) = strangers.iter().find(|(n, _)| *n == name).unwrap();
        wire.send(frame);
        assert!(victim.wait(PATIENCE, marked(16)).is_some(), "{check} is not what keeps {name} out");
        labs[0].weed();
        wire.send(frame);
        assert_eq!(victim.wait(Duration::from_millis(40), marked(16)), None, "{name}");
    };
    let any_key = |flow: &str| flow.replace("tun_id=0x1,", "tun_id=0x3,");
    let key = ["tun_id=0x1,", "dl_src=02:00:00:00:00:00/02:00:00:00:00:00"];
    lets_in("the key", "foreign key", Stage::Classify, &key, &any_key);
    lets_in("the node", "from an unknown address", Stage::TunnelIn, sender, &without("tun_src="));
    lets_in("the MAC", "a forged MAC", Stage::TunnelIn, sender, &without("dl_src="));
    lets_in("the address", "another member's address", Stage::TunnelIn, sender, &without("nw_src="));

    // A peer that is none any more is a stranger, whatever it knows.
    let mut left = site().on_node(1, PLACE);
    left.doc.peers.retain(|p| p.address != underlay(2));
    labs[0].apply(&left, Mirror::Off);
    wire.send(&node.frame(hop, me, &honest));
    assert_eq!(victim.wait(SILENCE, marked(16)), None, "from a node that is no peer any more");
    assert_eq!(ping(&labs[0].guest(16), "10.0.1.11", 56, SILENCE), None);
    labs[0].apply(&site().on_node(1, PLACE), Mirror::Off);
    assert!(dropped(&labs[0], Stage::Classify, 50) >= keys + 20, "foreign keys are counted");
    assert!(dropped(&labs[0], Stage::TunnelIn, 0) >= senders + 70, "forged senders are counted");
    // Still whole.
    wire.send(&node.frame(hop, me, &honest));
    assert!(victim.wait(PATIENCE, marked(16)).is_some());
    // The userspace datapath takes the outer Ethernet source of a tunnel packet for the peer's, so a forger may draw answers to
    // itself until the peer speaks again, as it may by forged ARP. (The kernel datapath learns by ARP alone.)
    let g17 = labs[1].guest(17);
    assert!((0..20).any(|_| ping(&g17, "10.0.1.10", 56, SILENCE).is_some()));
}
