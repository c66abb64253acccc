//! Ports with several addresses, and instances with several ports.

use gon_types::MacAddr;

use super::*;
use crate::flow::{ETH_ARP, Field, IP_ICMP, IP_TCP, IP_UDP, mac_bits};
use crate::service::{self, META_PORT};
use crate::testing::{Lab, packet};
use crate::topology::{META_MAC, Topology, allow, facts, id, ip, mac, via_interface};
use crate::trace::Packet;

/// 16 and 17 in one subnet, 18 in another; 17 has a second address.
fn site() -> Topology {
    Topology::new()
        .vpc(1, "10.0.0.0/16", false)
        .subnet(11, 1, "10.0.1.0/24", vec![])
        .subnet(12, 1, "10.0.2.0/24", vec![])
        .group(1, 1, vec![allow(1, "in all from sg 1"), allow(2, "out all from 0.0.0.0/0")])
        .port(16, 11, "10.0.1.10", &[1], None)
        .port(17, 11, "10.0.1.11", &[1], None)
        .port(18, 12, "10.0.2.10", &[1], None)
        .also(17, "10.0.1.20")
}

fn to(lab: &Lab, from: u16, hop: MacAddr, address: &str) -> Packet {
    packet(lab.port(from), hop, ip(address), IP_TCP, 22)
}

#[test]
fn every_address_of_a_port_is_its() {
    let mut lab = Lab::new(site());
    assert!(lab.compiled.degraded.is_empty(), "{:?}", lab.compiled.degraded);
    // From a neighbour and through the router; what answers comes from the address that was asked.
    let (near, far) = (to(&lab, 16, mac(17), "10.0.1.20"), to(&lab, 18, MacAddr::ROUTER, "10.0.1.20"));
    lab.talks(16, &near, 17);
    lab.talks(18, &far, 17);
    // It begins connections from either; the other's rules know both as the group's.
    for own in ["10.0.1.11", "10.0.1.20"] {
        let ping = Packet::ip((mac(17), ip(own)), (MacAddr::ROUTER, ip("10.0.2.10")), IP_ICMP)
            .with(Field::IcmpType, 8);
        lab.talks(17, &ping, 18);
    }
    // Nobody else sends from it, and it is no other address's.
    let forged = Packet::ip((mac(16), ip("10.0.1.20")), (mac(17), ip("10.0.1.11")), IP_ICMP);
    lab.drops(16, &forged.with(Field::IcmpType, 8));
    let elsewhere = to(&lab, 16, mac(17), "10.0.1.21");
    lab.drops(16, &elsewhere);
}

#[test]
fn neighbours_learn_who_has_a_further_address() {
    let mut lab = Lab::new(site());
    let ask = |from: u16, sender: &str, target: &str| {
        Packet::frame(mac(from), MacAddr([0xff; 6]), ETH_ARP)
            .with(Field::ArpOp, 1)
            .with(Field::ArpSpa, u32::from(ip(sender)).into())
            .with(Field::ArpTpa, u32::from(ip(target)).into())
            .with(Field::ArpSha, mac_bits(mac(from)))
    };
    let verdict = lab.send(16, &ask(16, "10.0.1.10", "10.0.1.20"));
    let (port, answer) = &verdict.outputs[0];
    assert_eq!((*port, answer.get(Field::ArpSha)), (16, mac_bits(mac(17))), "{verdict}");
    assert_eq!(answer.addr(Field::ArpSpa), ip("10.0.1.20"));
    // It may announce both; asked for its own, the switch is silent, so that it believes it may have it.
    let announced = lab.send(17, &ask(17, "10.0.1.20", "10.0.1.10"));
    assert_eq!(announced.outputs.len(), 1, "{announced}");
    lab.drops(17, &ask(17, "0.0.0.0", "10.0.1.20"));
    lab.drops(16, &ask(16, "10.0.1.20", "10.0.1.11"));
}

#[test]
fn local_services_answer_to_the_address_that_asked() {
    // The first, a further one, and the last that there can be.
    let mut site = site();
    for n in 2..service::MOST_ADDRESSES {
        site = site.also(17, &format!("10.0.1.{}", 100 + n));
    }
    let mut lab = Lab::new(site.clone().also(17, "10.0.1.200"));
    let asked = [
        ("169.254.169.254", IP_TCP, 80),
        ("169.254.169.253", IP_UDP, 53),
        ("10.0.1.2", IP_UDP, 53),
        ("10.0.0.2", IP_TCP, 53),
    ];
    let question = |own: &str, (server, proto, port): (&str, u8, u16)| {
        let (field, from) =
            if proto == IP_TCP { (Field::TcpDst, Field::TcpSrc) } else { (Field::UdpDst, Field::UdpSrc) };
        Packet::ip((mac(17), ip(own)), (MacAddr::ROUTER, ip(server)), proto)
            .with(field, port.into())
            .with(from, 40_000)
    };
    let mut seen = std::collections::BTreeSet::new();
    for own in ["10.0.1.11", "10.0.1.20", "10.0.1.102", "10.0.1.115"] {
        for server in asked {
            let question = question(own, server);
            let at_service = lab.arrives(17, &question, META_PORT);
            let source = at_service.addr(Field::IpSrc);
            seen.insert(source);
            assert_eq!(service::port_no(source), Some(17));
            let answer = lab.arrives(META_PORT, &at_service.answer(), 17);
            assert_eq!(answer.addr(Field::IpDst), ip(own));
            assert_eq!(answer.addr(Field::IpSrc), ip(server.0));
            assert_eq!(answer.get(Field::EthDst), mac_bits(mac(17)));
        }
    }
    assert_eq!(seen.len(), 4, "each address has one of its own: {seen:?}");
    // One more than an interface can have is an address like any other, but no service answers to it.
    for server in asked {
        lab.drops(17, &question("10.0.1.200", server));
    }
    // The host is told by whom it answers, and of itself nothing.
    let ask = |target| {
        Packet::frame(META_MAC, MacAddr([0xff; 6]), ETH_ARP)
            .with(Field::ArpOp, 1)
            .with(Field::ArpTpa, u32::from(target).into())
            .with(Field::ArpSpa, u32::from(service::METADATA).into())
    };
    lab.arrives(META_PORT, &ask(service::source(17, 3).unwrap()), META_PORT);
    lab.drops(META_PORT, &ask(ip("240.0.0.1")));
    // Who is not checked may send for others; services are not asked for them.
    let mut lab = Lab::new(site.with_port(17, |p| p.source_dest_check = false));
    for server in asked {
        lab.arrives(17, &question("10.0.1.20", server), META_PORT);
        lab.drops(17, &question("192.168.7.7", server));
    }
}

#[test]
fn an_address_that_is_taken_off_is_nobodys() {
    let mut lab = Lab::new(site());
    let near = to(&lab, 16, mac(17), "10.0.1.20");
    lab.talks(16, &near, 17);
    let mut without = site().with_port(17, |p| p.secondary_ips.clear());
    without.doc.addresses.retain(|a| a.private_ip != ip("10.0.1.20"));
    without.doc.groups[0].members.retain(|a| *a != ip("10.0.1.20"));
    lab.replace(without, &facts());
    lab.drops(16, &near);
    let from = Packet::ip((mac(17), ip("10.0.1.20")), (mac(16), ip("10.0.1.10")), IP_ICMP);
    lab.drops(17, &from.with(Field::IcmpType, 8));
}

#[test]
fn a_port_with_an_impossible_further_address_is_closed() {
    for (address, reason, closed) in [
        ("10.0.1.10", Reason::SharedAddress, vec![16, 17]),
        ("10.0.1.11", Reason::SharedAddress, vec![17]),
        ("10.0.1.1", Reason::BadAddress, vec![17]),
        ("10.0.1.255", Reason::BadAddress, vec![17]),
        ("10.0.2.20", Reason::BadAddress, vec![17]),
    ] {
        let topology = site().with_port(17, |p| p.secondary_ips = vec![ip(address)]);
        let compiled = compile(&topology.doc, &facts());
        let found: Vec<u16> = compiled.degraded.iter().map(|d| d.port_no).collect();
        assert_eq!(found, closed, "{address}");
        assert!(compiled.degraded.iter().all(|d| d.reason == reason), "{address}: {:?}", compiled.degraded);
    }
}

#[test]
fn an_instance_with_two_ports_forwards_between_subnets() {
    // 17 and 19 are one instance's, one in each subnet, neither checked: what 16 sends to 192.0.2.0/24 comes to 17, and
    // what leaves by 19 is from whoever sent it.
    let mut routed = Topology::new()
        .vpc(1, "10.0.0.0/16", false)
        .subnet(11, 1, "10.0.1.0/24", vec![via_interface("192.0.2.0/24", "10.0.1.11")])
        .subnet(12, 1, "10.0.2.0/24", vec![])
        .group(1, 1, vec![allow(1, "in all from 0.0.0.0/0"), allow(2, "out all from 0.0.0.0/0")])
        .port(16, 11, "10.0.1.10", &[1], None)
        .port(17, 11, "10.0.1.11", &[1], None)
        .port(18, 12, "10.0.2.10", &[1], None)
        .port(19, 12, "10.0.2.11", &[1], None);
    for no in [17, 19] {
        routed = routed.with_port(no, |p| {
            p.instance = id(17);
            p.source_dest_check = false;
        });
    }
    let mut lab = Lab::new(routed.clone());
    let through = to(&lab, 16, MacAddr::ROUTER, "192.0.2.7");
    let at_17 = lab.arrives(16, &through, 17);
    assert_eq!(at_17.addr(Field::IpDst), ip("192.0.2.7"));
    let onward =
        Packet::ip((mac(19), ip("192.0.2.7")), (mac(18), ip("10.0.2.10")), IP_ICMP).with(Field::IcmpType, 8);
    lab.arrives(19, &onward, 18);
    // Checked again: neither.
    for no in [17, 19] {
        routed = routed.with_port(no, |p| p.source_dest_check = true);
    }
    lab.replace(routed, &facts());
    lab.drops(16, &through);
    lab.drops(19, &onward);
}
