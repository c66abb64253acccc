use gon_proto::Peer;
use gon_types::MacAddr;
use proptest::prelude::*;

use super::*;
use crate::flow::{Action, Field, IP_ICMP, IP_TCP, IP_UDP, Match};
use crate::pipeline::Stage;
use crate::service::{self, EXT_PORT, META_PORT};
use crate::testing::{Lab, any_address, any_topology, any_traffic, golden, model, packet};
use crate::topology::{
    EXT_MAC, META_MAC, Topology, allow, blackhole, facts, id, ip, mac, many_ports, net, two_vpcs,
    via_gateway, via_interface,
};
use crate::trace::Packet;

/// One VPC with a gateway, one public subnet, port 16 with 203.0.113.10, SSH and ping allowed in.
fn public() -> Topology {
    Topology::new()
        .vpc(1, "10.0.0.0/16", true)
        .subnet(11, 1, "10.0.1.0/24", vec![via_gateway("0.0.0.0/0", 1)])
        .group(1, 1, vec![allow(1, "in tcp 22 from 0.0.0.0/0"), allow(2, "in icmp from 0.0.0.0/0")])
        .port(16, 11, "10.0.1.10", &[1], Some("203.0.113.10"))
}

fn flows_text(topology: &Topology, facts: &NodeFacts) -> String {
    let compiled = compile(&topology.doc, facts);
    let degraded: String =
        compiled.degraded.iter().map(|d| format!("# port {} closed: {}\n", d.port_no, d.reason)).collect();
    let zones: String = compiled.zones.keys().map(|no| format!("# zone {no}\n")).collect();
    format!("{degraded}{zones}{}", compiled.flows)
}

#[test]
fn golden_files() {
    golden("empty", &flows_text(&Topology::new(), &facts()));
    golden("public", &flows_text(&public(), &facts()));
    golden("two_vpcs", &flows_text(&two_vpcs(), &facts()));
    let mirror = NodeFacts { mirror: Mirror::Accepting, ..facts() };
    golden("public_mirror", &flows_text(&public(), &mirror));
    let inside = NodeFacts { external: None, ..facts() };
    golden("public_without_outside", &flows_text(&public(), &inside));
    let routes = vec![via_interface("192.168.0.0/16", "10.0.1.11"), blackhole("198.51.100.0/24")];
    let appliance = Topology::new()
        .vpc(1, "10.0.0.0/16", false)
        .subnet(11, 1, "10.0.1.0/24", routes)
        .group(1, 1, vec![allow(1, "in all from sg 1"), allow(2, "out all from 0.0.0.0/0")])
        .port(16, 11, "10.0.1.10", &[1], None)
        .port(17, 11, "10.0.1.11", &[1], None)
        .with_port(17, |p| p.source_dest_check = false);
    golden("appliance", &flows_text(&appliance, &facts()));
    let split = two_vpcs().on_node(2, &[(16, 1), (17, 2), (18, 2), (19, 1), (20, 2)]);
    golden("node_of_two", &flows_text(&split, &crate::topology::facts_of(2)));
}

#[test]
fn what_is_taken_over_is_what_it_would_have_become() {
    let was = two_vpcs();
    let compiled = compile(&was.doc, &facts());
    let again = |doc: &NodeNetwork, now: &NodeFacts| {
        let before = Before { document: &was.doc, facts: &facts(), compiled: &compiled };
        let new = recompile(before, doc, now);
        assert_eq!(new, compile(doc, now));
        compiled.flows.tables_beside(&new.flows)
    };
    let changed = |change: fn(&mut NodeNetwork)| {
        let mut topology = was.clone();
        change(&mut topology.doc);
        again(&topology.doc, &facts()).into_iter().collect::<Vec<_>>()
    };
    let policy = [Stage::Policy.table()];
    assert_eq!(changed(|_| {}), policy);
    assert_eq!(changed(|doc| doc.groups[0].rules.push(allow(99, "in tcp 443 from 0.0.0.0/0"))), policy);
    assert_eq!(changed(|doc| doc.groups[1].rules.clear()), policy);
    assert_eq!(changed(|doc| doc.vpcs[0].generation = 77), policy);
    // An impossible rule closes ports; another member, fact or port is no matter of rules alone.
    assert!(changed(|doc| doc.groups[0].rules[0].ports = None).len() > 10);
    assert!(changed(|doc| doc.groups[0].members.clear()).len() > 10);
    assert!(changed(|doc| drop(doc.ports.pop())).len() > 10);
    let mirror = NodeFacts { mirror: Mirror::Accepting, ..facts() };
    assert!(again(&was.doc, &mirror).len() > 10);
}

#[test]
fn all_four_are_needed_from_outside() {
    let ping = Lab::from_outside("198.51.100.7", "203.0.113.10", IP_ICMP, 0);
    let ssh = Lab::from_outside("198.51.100.7", "203.0.113.10", IP_TCP, 22);
    let web = Lab::from_outside("198.51.100.7", "203.0.113.10", IP_TCP, 80);

    let mut lab = Lab::new(public());
    let at_guest = lab.arrives(EXT_PORT, &ssh, 16);
    assert_eq!(at_guest.addr(Field::IpDst), ip("10.0.1.10"));
    assert_eq!(at_guest.get(Field::IpTtl), 63);
    assert_eq!(at_guest.get(Field::EthDst), crate::flow::mac_bits(mac(16)));
    let back = lab.arrives(16, &at_guest.answer(), EXT_PORT);
    assert_eq!(back.addr(Field::IpSrc), ip("203.0.113.10"));
    assert_eq!(back.get(Field::EthDst), crate::flow::mac_bits(EXT_MAC));
    assert_eq!(back.get(Field::IpTtl), 63);
    lab.talks(EXT_PORT, &ping, 16);
    lab.drops(EXT_PORT, &web);

    // No gateway, another gateway, no route, a longer route elsewhere, no address, no rule.
    let mut no_gateway = public();
    no_gateway.doc.vpcs[0].internet_gateway = None;
    let mut other_gateway = public();
    other_gateway.doc.vpcs[0].internet_gateway = Some(id(9));
    let mut no_route = public();
    no_route.doc.subnets[0].routes.clear();
    let mut elsewhere = public();
    elsewhere.doc.subnets[0].routes.push(blackhole("198.51.100.0/24"));
    let no_address = public().with_port(16, |p| p.public_ip = None);
    let mut no_rule = public();
    no_rule.doc.groups[0].rules.clear();
    for without in [no_gateway, other_gateway, no_route, elsewhere, no_address, no_rule] {
        let mut lab = Lab::new(without);
        lab.drops(EXT_PORT, &ping);
        lab.drops(EXT_PORT, &ssh);
    }
}

#[test]
fn guests_reach_out_through_the_gateway() {
    let mut topology = public();
    topology.doc.groups[0].rules.push(allow(3, "out tcp 443 from 0.0.0.0/0"));
    let mut lab = Lab::new(topology);
    lab.talks(16, &lab.to(16, "8.8.8.8", IP_TCP, 443), EXT_PORT);
    lab.drops(16, &lab.to(16, "8.8.8.8", IP_TCP, 80));
    lab.arrives(16, &lab.to(16, "8.8.8.8", IP_TCP, 443).with(Field::IpTtl, 1), META_PORT);
    // A connection from outside that nobody asked for, however like an answer.
    lab.drops(EXT_PORT, &Lab::from_outside("9.9.9.9", "203.0.113.10", IP_TCP, 40_000));
    // Sources that cannot be outside.
    for source in ["127.0.0.1", "169.254.169.254", "224.0.0.1", "255.255.255.255", "203.0.113.10", "10.0.1.5"]
    {
        lab.drops(EXT_PORT, &Lab::from_outside(source, "203.0.113.10", IP_TCP, 22));
    }
}

#[test]
fn instances_meet_at_their_public_addresses() {
    let mut topology = public()
        .vpc(2, "10.0.0.0/16", true)
        .subnet(21, 2, "10.0.1.0/24", vec![via_gateway("203.0.113.0/24", 2)])
        .group(3, 2, vec![allow(8, "out all from 0.0.0.0/0"), allow(9, "in icmp from 203.0.113.30/32")])
        .port(30, 21, "10.0.1.10", &[3], Some("203.0.113.30"));
    let mut lab = Lab::new(topology.clone());
    let ssh = lab.to(30, "203.0.113.10", IP_TCP, 22);
    let there = lab.arrives(30, &ssh, 16);
    assert_eq!(there.addr(Field::IpSrc), ip("203.0.113.30"));
    assert_eq!(there.get(Field::IpTtl), 63);
    lab.talks(30, &ssh, 16);
    // Its own public address leads back to it.
    let itself = lab.to(30, "203.0.113.30", IP_ICMP, 0);
    let back = lab.arrives(30, &itself, 30);
    assert_eq!(back.addr(Field::IpDst), ip("10.0.1.10"));
    // The receiver's table decides about arrivals, too.
    topology.doc.subnets[0].routes = vec![via_gateway("8.8.8.0/24", 1)];
    Lab::new(topology).drops(30, &ssh);
}

#[test]
fn neighbours_and_subnets() {
    let mut lab = Lab::new(two_vpcs());
    // Same subnet, same group: by MAC, no hop lost.
    let hello = lab.between(16, 17, IP_TCP, 999);
    assert_eq!(lab.arrives(16, &hello, 17).get(Field::IpTtl), 64);
    lab.talks(16, &hello, 17);
    // Another subnet: one hop, the router's MAC, only what the group reference allows.
    let sql = lab.between(16, 18, IP_TCP, 5432);
    let there = lab.arrives(16, &sql, 18);
    assert_eq!(there.get(Field::IpTtl), 63);
    assert_eq!(there.get(Field::EthSrc), crate::flow::mac_bits(MacAddr::ROUTER));
    lab.talks(16, &sql, 18);
    lab.drops(16, &lab.between(16, 18, IP_TCP, 5434));
    lab.drops(18, &lab.between(18, 16, IP_TCP, 22));
    // The destination must be the frame's receiver.
    let wrong_mac = packet(lab.port(16), mac(20), ip("10.0.1.11"), IP_TCP, 22);
    lab.drops(16, &wrong_mac);
    for group in [0xffff_ffff_ffff, 0x0100_5e00_0001] {
        lab.drops(16, &hello.clone().with(Field::EthDst, group));
    }
    // Through the router within the subnet is a detour, not a way around.
    lab.talks(16, &lab.to(16, "10.0.1.11", IP_TCP, 999), 17);
}

#[test]
fn only_as_itself() {
    let mut lab = Lab::new(two_vpcs());
    let good = lab.between(16, 17, IP_UDP, 7);
    lab.arrives(16, &good, 17);
    let forged = [
        good.clone().with(Field::EthSrc, crate::flow::mac_bits(mac(17))),
        good.clone().with(Field::IpSrc, u32::from(ip("10.0.1.12")).into()),
        good.clone().with(Field::IpSrc, 0),
        good.clone().with(Field::VlanTci, 0x1000),
        good.clone().with(Field::VlanTci, 0x1005),
        good.clone().with(Field::EthType, 0x86dd),
        good.clone().with(Field::IpProto, 0),
        good.clone().with(Field::UdpSrc, 67),
        good.clone().with(Field::UdpDst, 68),
    ];
    for packet in &forged {
        let verdict = lab.drops(16, packet);
        assert!(verdict.last_stage() <= Some(Stage::Admit), "{verdict}");
    }
    // A port that the document does not have.
    lab.drops(99, &good);
    // Another port's frame, sent from the wrong one.
    lab.drops(20, &good);
}

#[test]
fn arp_is_answered_never_forwarded() {
    let mut lab = Lab::new(two_vpcs());
    let ask = |from: u16, spa: &str, tpa: &str| {
        Packet::frame(mac(from), MacAddr([0xff; 6]), crate::flow::ETH_ARP)
            .with(Field::ArpOp, 1)
            .with(Field::ArpSpa, u32::from(ip(spa)).into())
            .with(Field::ArpTpa, u32::from(ip(tpa)).into())
            .with(Field::ArpSha, crate::flow::mac_bits(mac(from)))
    };
    let known = [
        ("10.0.1.1", MacAddr::ROUTER),
        ("10.0.1.2", MacAddr::ROUTER),
        ("10.0.1.11", mac(17)),
        ("169.254.169.254", MacAddr::ROUTER),
        ("169.254.169.253", MacAddr::ROUTER),
    ];
    for (target, wanted) in known {
        for spa in ["10.0.1.10", "0.0.0.0"] {
            let answer = lab.arrives(16, &ask(16, spa, target), 16);
            assert_eq!(answer.get(Field::ArpOp), 2);
            assert_eq!(answer.addr(Field::ArpSpa), ip(target));
            assert_eq!(answer.addr(Field::ArpTpa), ip(spa));
            assert_eq!(answer.get(Field::ArpSha), crate::flow::mac_bits(wanted));
            assert_eq!(answer.get(Field::EthSrc), crate::flow::mac_bits(wanted));
            assert_eq!(answer.get(Field::ArpTha), crate::flow::mac_bits(mac(16)));
            assert_eq!(answer.get(Field::EthDst), crate::flow::mac_bits(mac(16)));
        }
    }
    // Its own address, strangers, other subnets, the other VPC's neighbours.
    for target in ["10.0.1.10", "10.0.1.99", "10.0.2.10", "10.0.2.1", "8.8.8.8"] {
        lab.drops(16, &ask(16, "10.0.1.10", target));
    }
    // Forged and unasked answers.
    lab.drops(16, &ask(16, "10.0.1.1", "10.0.1.11"));
    lab.drops(16, &ask(16, "10.0.1.10", "10.0.1.11").with(Field::ArpOp, 2));
    lab.drops(16, &ask(16, "10.0.1.10", "10.0.1.11").with(Field::ArpSha, 0x0200_0000_9999));
    // From outside: public addresses in use.
    let outside = |target| {
        Packet::frame(EXT_MAC, MacAddr([0xff; 6]), crate::flow::ETH_ARP)
            .with(Field::ArpOp, 1)
            .with(Field::ArpSpa, u32::from(ip("203.0.113.1")).into())
            .with(Field::ArpTpa, u32::from(ip(target)).into())
            .with(Field::ArpSha, crate::flow::mac_bits(EXT_MAC))
    };
    let answer = lab.arrives(EXT_PORT, &outside("203.0.113.10"), EXT_PORT);
    assert_eq!(answer.get(Field::ArpSha), crate::flow::mac_bits(MacAddr::ROUTER));
    lab.drops(EXT_PORT, &outside("203.0.113.11"));
}

#[test]
fn the_router_answers_echo_of_its_own_subnet() {
    let mut lab = Lab::new(two_vpcs());
    let answer = lab.arrives(16, &lab.to(16, "10.0.1.1", IP_ICMP, 0), 16);
    assert_eq!(answer.get(Field::IcmpType), 0);
    assert_eq!(answer.addr(Field::IpSrc), ip("10.0.1.1"));
    assert_eq!(answer.addr(Field::IpDst), ip("10.0.1.10"));
    assert_eq!(answer.get(Field::EthDst), crate::flow::mac_bits(mac(16)));
    lab.drops(16, &lab.to(16, "10.0.1.1", IP_TCP, 22));
    lab.drops(16, &lab.to(16, "10.0.2.1", IP_ICMP, 0));
}

#[test]
fn local_services_know_the_port_and_answer_as_asked() {
    let mut lab = Lab::new(two_vpcs());
    let cases = [
        (16, "169.254.169.254", IP_TCP, 80, service::METADATA),
        (19, "169.254.169.254", IP_TCP, 80, service::METADATA),
        (16, "169.254.169.253", IP_UDP, 53, service::DNS_LINK_LOCAL),
        (17, "10.0.1.2", IP_UDP, 53, service::DNS_SUBNET),
        (18, "10.0.2.2", IP_TCP, 53, service::DNS_SUBNET),
        (18, "10.0.0.2", IP_UDP, 53, service::DNS_VPC[0]),
    ];
    for (from, asked, proto, port, wanted) in cases {
        let question = lab.to(from, asked, proto, port);
        let at_service = lab.arrives(from.into(), &question, META_PORT);
        let dst = if proto == IP_TCP { Field::TcpDst } else { Field::UdpDst };
        assert_eq!(at_service.get(dst), 61_000 + u64::from(port), "beside the host's own services");
        assert_eq!(at_service.addr(Field::IpSrc), service::link_local(from));
        assert_eq!(at_service.addr(Field::IpDst), wanted);
        assert_eq!(at_service.get(Field::EthDst), crate::flow::mac_bits(META_MAC));
        let answer = lab.arrives(META_PORT, &at_service.answer(), from.into());
        assert_eq!(answer.addr(Field::IpSrc), ip(asked));
        let src = if proto == IP_TCP { Field::TcpSrc } else { Field::UdpSrc };
        assert_eq!(answer.get(src), port.into());
        assert_eq!(answer.addr(Field::IpDst), lab.port(from).private_ip);
        assert_eq!(answer.get(Field::EthDst), crate::flow::mac_bits(mac(from)));
    }
    assert!(lab.conntrack.is_empty(), "no group is asked");
    // Other ports of those addresses, other link-local addresses, fragments.
    lab.drops(16, &lab.to(16, "169.254.169.254", IP_TCP, 22));
    lab.drops(16, &lab.to(16, "169.254.64.1", IP_TCP, 80));
    lab.drops(16, &lab.to(16, "169.254.169.254", IP_TCP, 80).with(Field::IpFrag, 1));
    // The host starts nothing by this way.
    let host = (META_MAC, service::METADATA);
    let guest = (MacAddr::ROUTER, service::link_local(16));
    let odd = Packet::ip(host, guest, IP_TCP).with(Field::TcpSrc, 22).with(Field::TcpDst, 80);
    lab.drops(META_PORT, &odd);
    // ARP for guests is answered, for the services' own addresses not.
    let ask = |target| {
        Packet::frame(META_MAC, MacAddr([0xff; 6]), crate::flow::ETH_ARP)
            .with(Field::ArpOp, 1)
            .with(Field::ArpTpa, u32::from(target).into())
            .with(Field::ArpSpa, u32::from(service::METADATA).into())
    };
    let answer = lab.arrives(META_PORT, &ask(service::link_local(16)), META_PORT);
    assert_eq!(answer.addr(Field::ArpTpa), service::METADATA);
    lab.drops(META_PORT, &ask(service::DHCP));
}

#[test]
fn whose_time_to_live_is_spent_is_told_by_the_router() {
    let mut lab = Lab::new(two_vpcs());
    let spent = |lab: &Lab, to| lab.to(16, to, IP_ICMP, 0).with(Field::IpTtl, 1);
    for to in ["10.0.2.10", "8.8.8.8", "10.0.2.99"] {
        let at_agent = lab.arrives(16, &spent(&lab, to), META_PORT);
        assert_eq!(at_agent.get(Field::EthDst), crate::flow::mac_bits(service::EXPIRED_MAC));
        assert_eq!(at_agent.get(Field::EthSrc), u32::from(service::link_local(16)).into());
        assert_eq!((at_agent.addr(Field::IpSrc), at_agent.addr(Field::IpDst)), (ip("10.0.1.10"), ip(to)));
    }
    // What it says comes from the router of the subnet, whatever the groups say, and from nobody else.
    let told = Packet::ip((META_MAC, service::ROUTER), (MacAddr::ROUTER, service::link_local(16)), IP_ICMP)
        .with(Field::IcmpType, service::TIME_EXCEEDED.into());
    let told_guest = lab.arrives(META_PORT, &told, 16);
    assert_eq!(
        (told_guest.addr(Field::IpSrc), told_guest.addr(Field::IpDst)),
        (ip("10.0.1.1"), ip("10.0.1.10"))
    );
    lab.drops(META_PORT, &told.clone().with(Field::IcmpType, 3));
    lab.drops(META_PORT, &told.with(Field::IpSrc, u32::from(service::METADATA).into()));
    // Not of errors, of later fragments, of what goes nowhere; and a neighbour is no hop away.
    lab.drops(16, &spent(&lab, "10.0.2.10").with(Field::IpFrag, 3));
    lab.drops(16, &spent(&lab, "224.0.0.5"));
    lab.arrives(16, &lab.between(16, 17, IP_ICMP, 0).with(Field::IpTtl, 1), 17);
    // Not of what is sent for somebody else, whom the router does not know.
    let mut lab = Lab::new(two_vpcs().with_port(16, |p| p.source_dest_check = false));
    lab.arrives(16, &spent(&lab, "8.8.8.8"), META_PORT);
    lab.drops(16, &spent(&lab, "8.8.8.8").with(Field::IpSrc, u32::from(ip("192.0.2.7")).into()));
    let imposter = two_vpcs().with_port(16, |p| p.mac = service::EXPIRED_MAC);
    assert_eq!(compile(&imposter.doc, &facts()).degraded[0].reason, Reason::BadMac);
}

#[test]
fn icmp_errors_take_the_detour_for_their_quotes() {
    let mut topology = two_vpcs().with_port(17, |p| p.public_ip = Some(ip("203.0.113.17")));
    topology.doc.groups[0].rules.push(allow(20, "in all from 0.0.0.0/0"));
    let mut lab = Lab::new(topology);
    let agent = crate::flow::mac_bits(service::QUOTE_MAC);
    let router = crate::flow::mac_bits(MacAddr::ROUTER);
    let back = |packet: &Packet| packet.clone().with(Field::EthSrc, agent).with(Field::EthDst, router);
    let comes = |to| Lab::from_outside("198.51.100.1", to, IP_ICMP, 0).with(Field::IcmpCode, 4);
    for kind in service::ICMP_ERRORS {
        let error = comes("203.0.113.10").with(Field::IcmpType, kind.into());
        let at_agent = lab.arrives(EXT_PORT, &error, META_PORT);
        assert_eq!((at_agent.get(Field::EthSrc), at_agent.get(Field::EthDst)), (router, agent));
        assert_eq!(at_agent.addr(Field::IpDst), ip("203.0.113.10"));
        // Back from there it is the guest's, if conntrack knows what it is about (this model does not: no quotes here).
        let verdict = lab.drops(META_PORT, &back(&at_agent));
        assert_eq!(verdict.last_stage(), Some(Stage::Judge), "{verdict}");
    }
    // An echo takes none; nor does an error in fragments. For nobody it is nothing even if the agent says so.
    lab.arrives(EXT_PORT, &comes("203.0.113.10"), 16);
    let error = comes("203.0.113.10").with(Field::IcmpType, 3);
    lab.drops(EXT_PORT, &error.clone().with(Field::IpFrag, 1));
    // What a guest sends is shown as its own, and leaves when it comes back.
    let leaves = error.clone().with(Field::IpSrc, u32::from(ip("203.0.113.17")).into());
    let leaves = leaves.with(Field::IpDst, u32::from(ip("198.51.100.1")).into());
    let outside = lab.arrives(META_PORT, &back(&leaves), EXT_PORT);
    assert_eq!(outside.addr(Field::IpSrc), ip("203.0.113.17"));
    // By nobody else than the agent.
    lab.drops(META_PORT, &leaves.clone().with(Field::EthSrc, crate::flow::mac_bits(META_MAC)));
    lab.drops(16, &back(&leaves));
    let imposter = two_vpcs().with_port(16, |p| p.mac = service::QUOTE_MAC);
    assert_eq!(compile(&imposter.doc, &facts()).degraded[0].reason, Reason::BadMac);
    // A node without an outside has no detour.
    let flows = compile(&two_vpcs().doc, &NodeFacts { external: None, ..facts() }).flows;
    assert!(flows.flows().all(|f| f.table != Stage::Public.table() || f.actions.is_empty()));
}

#[test]
fn dhcp_goes_both_ways_with_and_without_an_address() {
    let mut lab = Lab::new(two_vpcs());
    let discover = Packet::ip((mac(18), ip("0.0.0.0")), (MacAddr([0xff; 6]), ip("255.255.255.255")), IP_UDP)
        .with(Field::UdpSrc, 68)
        .with(Field::UdpDst, 67);
    let renew = packet(lab.port(18), MacAddr::ROUTER, ip("10.0.2.1"), IP_UDP, 67).with(Field::UdpSrc, 68);
    let rebind = discover.clone().with(Field::IpSrc, u32::from(ip("10.0.2.10")).into());
    for request in [&discover, &renew, &rebind] {
        let at_server = lab.arrives(18, request, META_PORT);
        assert_eq!(at_server.addr(Field::IpSrc), service::link_local(18));
        assert_eq!(at_server.addr(Field::IpDst), service::DHCP);
        let answer = lab.arrives(META_PORT, &at_server.answer(), 18);
        assert_eq!(answer.addr(Field::IpSrc), ip("10.0.2.1"));
        assert_eq!(answer.addr(Field::IpDst), ip("10.0.2.10"));
        let broadcast = at_server.answer().with(Field::IpSrc, u32::from(service::DHCP_BROADCAST).into());
        let answer = lab.arrives(META_PORT, &broadcast, 18);
        assert_eq!(answer.addr(Field::IpDst), ip("255.255.255.255"));
        assert_eq!(answer.get(Field::EthDst), crate::flow::mac_bits(mac(18)));
    }
    // For another MAC, or as a server.
    lab.drops(18, &discover.clone().with(Field::EthSrc, crate::flow::mac_bits(mac(16))));
    lab.drops(18, &discover.with(Field::UdpSrc, 67).with(Field::UdpDst, 68));
}

#[test]
fn a_rule_taken_away_cuts_what_it_had_allowed() {
    let mut topology = two_vpcs();
    let mut lab = Lab::new(topology.clone());
    let sql = lab.between(16, 18, IP_TCP, 5432);
    let ping = lab.between(16, 17, IP_ICMP, 0);
    lab.talks(16, &sql, 18);
    lab.talks(16, &ping, 17);
    topology.doc.groups[1].rules.remove(0);
    lab.replace(topology, &facts());
    // Both directions stop at once, though the connection is known; the other connection lives.
    lab.drops(16, &sql);
    let answer = packet(lab.port(18), MacAddr::ROUTER, ip("10.0.1.10"), IP_TCP, 40_000)
        .with(Field::TcpSrc, 5432)
        .with(Field::TcpFlags, 0x10);
    let verdict = lab.drops(18, &answer);
    assert_eq!(verdict.last_stage(), Some(Stage::Policy), "{verdict}");
    lab.talks(16, &ping, 17);
}

#[test]
fn other_protocols_pass_by_a_rule_for_all_and_so_do_their_answers() {
    const GRE: u8 = 47;
    // Out of 16, which lets nobody in.
    let only_out = Topology::new()
        .vpc(1, "10.0.0.0/16", false)
        .subnet(11, 1, "10.0.1.0/24", vec![])
        .group(1, 1, vec![allow(1, "out all from 0.0.0.0/0")])
        .group(2, 1, vec![allow(2, "in all from 0.0.0.0/0")])
        .port(16, 11, "10.0.1.10", &[1], None)
        .port(17, 11, "10.0.1.11", &[2], None);
    let mut lab = Lab::new(only_out);
    lab.drops(17, &lab.between(17, 16, GRE, 0));
    let there = lab.arrives(16, &lab.between(16, 17, GRE, 0), 17);
    lab.arrives(17, &there.answer(), 16);
    lab.drops(17, &there.answer().with(Field::IpProto, 50));
    let mut lab = Lab::new(two_vpcs());
    let there = lab.arrives(16, &lab.between(16, 17, GRE, 0), 17);
    lab.arrives(17, &there.answer(), 16);
    lab.drops(16, &lab.between(16, 18, GRE, 0));
    lab.drops(18, &lab.between(18, 16, GRE, 0));
    // TCP, UDP and ICMP that conntrack calls invalid is another matter.
    lab.drops(16, &lab.between(16, 17, IP_ICMP, 0).with(Field::IcmpType, 5));
}

#[test]
fn routes_to_interfaces_need_the_check_off() {
    let routes = vec![via_interface("192.168.0.0/16", "10.0.1.11")];
    let topology = Topology::new()
        .vpc(1, "10.0.0.0/16", false)
        .subnet(11, 1, "10.0.1.0/24", routes)
        .group(1, 1, vec![allow(1, "in all from 0.0.0.0/0"), allow(2, "out all from 0.0.0.0/0")])
        .port(16, 11, "10.0.1.10", &[1], None)
        .port(17, 11, "10.0.1.11", &[1], None);
    let mut lab = Lab::new(topology.clone());
    let out = lab.to(16, "192.168.3.4", IP_UDP, 9);
    lab.drops(16, &out);
    let mut lab = Lab::new(topology.with_port(17, |p| p.source_dest_check = false));
    let there = lab.arrives(16, &out, 17);
    assert_eq!(there.addr(Field::IpDst), ip("192.168.3.4"));
    // It may speak as anybody behind it, but not as what cannot be.
    lab.arrives(17, &there.answer(), 16);
    for source in ["127.0.0.1", "169.254.1.1", "224.0.0.5", "0.0.0.1"] {
        lab.drops(17, &there.answer().with(Field::IpSrc, u32::from(ip(source)).into()));
    }
    lab.drops(17, &there.answer().with(Field::EthSrc, crate::flow::mac_bits(mac(16))));
}

#[test]
fn connections_survive_a_forgetful_switch() {
    const ACK: u64 = 0x10;
    let topology = two_vpcs();
    let sql = |lab: &Lab| lab.between(16, 18, IP_TCP, 5432);
    // 18 pushes: after the loss its segment looks as if it began something, which no rule of its allows.
    let mut lab = Lab::new(topology.clone());
    let push = lab.arrives(16, &sql(&lab), 18).answer().with(Field::TcpFlags, ACK);
    lab.conntrack = crate::trace::Conntrack::new();
    lab.drops(18, &push);
    let accepting = NodeFacts { mirror: Mirror::Accepting, ..facts() };
    lab.replace(topology.clone(), &accepting);
    lab.arrives(18, &push, 16);
    // A SYN is no answer, and what no rule allows the other way round is none either.
    lab.drops(18, &push.clone().with(Field::TcpSrc, 5433).with(Field::TcpFlags, 2));
    lab.drops(18, &push.clone().with(Field::TcpSrc, 80));
    // After the window the connection lives in both directions, and no other is taken in.
    let keeping = NodeFacts { mirror: Mirror::Keeping, ..facts() };
    lab.replace(topology.clone(), &keeping);
    let pushed = lab.arrives(18, &push, 16);
    let acknowledged = pushed.answer().with(Field::TcpFlags, ACK);
    lab.arrives(16, &acknowledged, 18);
    lab.drops(18, &push.clone().with(Field::TcpSrc, 5433));
    // It is judged as what it is: without the inbound rule it ends.
    let mut without = topology;
    without.doc.groups[1].rules.remove(0);
    lab.replace(without, &keeping);
    lab.drops(18, &push);
    lab.drops(16, &acknowledged);
}

#[test]
fn an_impossible_port_is_closed_and_its_neighbours_are_not() {
    type Break = fn(&mut NodeNetwork);
    let cases: Vec<(&str, Break, Reason)> = vec![
        ("number", |d| d.ports[1].port_no = 5, Reason::BadPortNumber),
        ("subnet", |d| d.ports[1].subnet = id(99), Reason::NoSuchSubnet),
        ("router", |d| d.ports[1].private_ip = ip("10.0.1.1"), Reason::BadAddress),
        ("broadcast", |d| d.ports[1].private_ip = ip("10.0.1.255"), Reason::BadAddress),
        ("outside", |d| d.ports[1].private_ip = ip("10.0.7.7"), Reason::BadAddress),
        ("claimed", |d| d.addresses[1].mac = mac(77), Reason::SharedAddress),
        ("mac", |d| d.ports[1].mac = MacAddr::ROUTER, Reason::BadMac),
        ("multicast", |d| d.ports[1].mac = MacAddr([3, 0, 0, 0, 0, 1]), Reason::BadMac),
        ("public", |d| d.ports[1].public_ip = Some(ip("203.0.113.1")), Reason::BadPublicAddress),
        ("not ours", |d| d.ports[1].public_ip = Some(ip("8.8.8.8")), Reason::BadPublicAddress),
        ("no group", |d| d.ports[1].groups.clear(), Reason::NoGroup),
        ("unknown group", |d| d.ports[1].groups = vec![id(99)], Reason::NoSuchGroup),
        ("foreign group", |d| d.ports[1].groups = vec![id(3)], Reason::NoSuchGroup),
    ];
    for (name, damage, reason) in cases {
        let mut topology = two_vpcs();
        // Port 17 gets a group of its own, to be broken alone.
        topology = topology.group(4, 1, vec![]).with_port(17, |p| p.groups = vec![id(4)]);
        damage(&mut topology.doc);
        let number = topology.doc.ports[1].port_no;
        let mut lab = Lab::new(topology);
        let wanted = [Degraded { port: id(17), port_no: number, reason }];
        assert_eq!(lab.compiled.degraded, wanted, "{name}");
        lab.drops(number.into(), &lab.between(16, 18, IP_TCP, 5432));
        lab.talks(16, &lab.between(16, 18, IP_TCP, 5432), 18);
        lab.talks(19, &lab.between(19, 20, IP_TCP, 1), 20);
    }
}

#[test]
fn a_contradiction_closes_both_sides_of_it() {
    type Break = fn(&mut NodeNetwork);
    let closed = |damage: Break| -> Vec<(u16, Reason)> {
        let mut topology = two_vpcs();
        damage(&mut topology.doc);
        let compiled = compile(&topology.doc, &facts());
        compiled.degraded.into_iter().map(|d| (d.port_no, d.reason)).collect()
    };
    let both = |a, b, reason: Reason| vec![(a, reason.clone()), (b, reason)];
    assert_eq!(closed(|d| d.ports[1].port_no = 16), both(16, 16, Reason::SharedPortNumber));
    assert_eq!(closed(|d| d.ports[1].id = id(16)), both(16, 17, Reason::Repeated));
    assert_eq!(closed(|d| d.ports[1].private_ip = ip("10.0.1.10")), both(16, 17, Reason::SharedAddress));
    assert_eq!(closed(|d| d.ports[1].mac = mac(16)).len(), 2);
    let public: Break = |d| d.ports[1].public_ip = Some(ip("203.0.113.10"));
    assert_eq!(closed(public), both(16, 17, Reason::SharedPublicAddress));
    assert_eq!(closed(|d| d.vpcs[1].key = 1).len(), 5);
    assert_eq!(closed(|d| d.vpcs[1].key = 1 << 24), both(19, 20, Reason::BadNetworkKey));
    assert_eq!(closed(|d| d.subnets[1].cidr_block = net("10.0.1.128/25")).len(), 3);
    assert_eq!(closed(|d| d.subnets[2].cidr_block = net("192.168.0.0/24")), both(19, 20, Reason::BadSubnet));
    let bad_rule: Break = |d| d.groups[2].rules[0].ports = gon_types::PortRange::new(1, 2);
    assert_eq!(closed(bad_rule), both(19, 20, Reason::BadRule));
    let bad_peer: Break = |d| d.groups[2].rules[0].peer = Peer::Group(id(1));
    assert_eq!(closed(bad_peer), both(19, 20, Reason::NoSuchGroup));
    assert_eq!(closed(|d| d.node = id(2)).len(), 5);
}

#[test]
fn flows_per_port_stay_few() {
    let flows = |n| compile(&many_ports(n).doc, &facts()).flows.len();
    let (ten, thousand) = (flows(10), flows(1000));
    // 20 shared rules, two of whose three peers are groups; 200 of the ports have a public address.
    let per_port = (thousand - ten) as f64 / 990.0;
    println!("{ten} flows at 10 ports, {thousand} at 1000: {per_port:.1} per port");
    assert!(per_port < 12.0);
}

#[test]
fn no_action_floods_and_every_table_ends_in_a_drop() {
    let compiled = compile(&two_vpcs().doc, &facts());
    for stage in Stage::ALL {
        let last = compiled.flows.of_table(stage.table()).last().unwrap();
        assert_eq!((last.priority, &last.matches, last.actions.len()), (0, &Match::any(), 0));
    }
    let known: Vec<u32> = vec![META_PORT, EXT_PORT];
    for flow in compiled.flows.flows() {
        for action in &flow.actions {
            if let Action::Output(port) = action {
                assert!(known.contains(port), "{flow}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The same facts in any order give the same flows.
    #[test]
    fn order_does_not_matter(topology in any_topology(), seed in any::<u64>()) {
        let mut shuffled = topology.doc.clone();
        let mut state = seed;
        let mut roll = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % n
        };
        fn shuffle<T>(items: &mut [T], roll: &mut impl FnMut(usize) -> usize) {
            for i in (1..items.len()).rev() {
                items.swap(i, roll(i + 1));
            }
        }
        shuffle(&mut shuffled.vpcs, &mut roll);
        shuffle(&mut shuffled.subnets, &mut roll);
        shuffle(&mut shuffled.addresses, &mut roll);
        shuffle(&mut shuffled.groups, &mut roll);
        shuffle(&mut shuffled.ports, &mut roll);
        for group in &mut shuffled.groups {
            shuffle(&mut group.rules, &mut roll);
            shuffle(&mut group.members, &mut roll);
        }
        for port in &mut shuffled.ports {
            shuffle(&mut port.groups, &mut roll);
        }
        for subnet in &mut shuffled.subnets {
            shuffle(&mut subnet.routes, &mut roll);
        }
        prop_assert_eq!(compile(&topology.doc, &facts()), compile(&shuffled, &facts()));
    }

    /// The first packet of any connection ends where the semantics say.
    #[test]
    fn the_pipeline_agrees_with_the_model(
        topology in any_topology(),
        packets in proptest::collection::vec((16..24u16, any_address(), any::<bool>(), any_traffic()), 1..40),
    ) {
        let mut lab = Lab::new(topology);
        prop_assert_eq!(&lab.compiled.degraded, &[]);
        for (from, to, direct, (proto, port)) in packets {
            let Some(spec) = lab.doc.ports.iter().find(|p| p.port_no == from) else { continue };
            // Answered by the node itself, whatever the groups say.
            if to == ip("10.0.1.1") || to == service::GUEST_METADATA || to == spec.private_ip {
                continue;
            }
            let neighbour = lab.doc.ports.iter().find(|p| p.private_ip == to && p.subnet == spec.subnet);
            let hop = neighbour.filter(|_| direct).map_or(MacAddr::ROUTER, |p| p.mac);
            let wanted = model(&lab.doc, from, hop, to, proto, port);
            let packet = packet(spec, hop, to, proto, port);
            lab.conntrack = crate::trace::Conntrack::new();
            let verdict = lab.send(from.into(), &packet);
            let got: Vec<u32> = verdict.outputs.iter().map(|(port, _)| *port).collect();
            prop_assert_eq!(got, wanted.into_iter().collect::<Vec<_>>(), "{}", verdict);
            // What arrives is answered, and nothing else about the answer is asked.
            if let Some((at, there)) = verdict.outputs.first() {
                let answer = if *at == EXT_PORT {
                    there.answer().with(Field::EthSrc, crate::flow::mac_bits(EXT_MAC))
                } else {
                    there.answer()
                };
                let back = lab.send(*at, &answer);
                let symmetric = *at == EXT_PORT || !verdict.to_string().contains("gateway");
                if symmetric && there.addr(Field::IpDst) == to {
                    let ports: Vec<u32> = back.outputs.iter().map(|(port, _)| *port).collect();
                    prop_assert!(
                        ports == [u32::from(from)] || asymmetric(&lab, *at, from),
                        "{}\nand back\n{}", verdict, back
                    );
                }
            }
        }
    }

    /// Without a rule nothing reaches a guest or the outside, from anywhere.
    #[test]
    fn default_deny(
        mut topology in any_topology(),
        packets in proptest::collection::vec((16..24u16, any_address(), any_traffic()), 1..20),
    ) {
        topology.doc.groups.iter_mut().for_each(|g| g.rules.clear());
        let mut lab = Lab::new(topology);
        for (from, to, (proto, port)) in packets {
            let Some(spec) = lab.doc.ports.iter().find(|p| p.port_no == from).cloned() else { continue };
            for hop in (16..24).map(mac).chain([MacAddr::ROUTER]) {
                let verdict = lab.send(from.into(), &packet(&spec, hop, to, proto, port));
                let local = |port: &u32| *port == META_PORT || *port == u32::from(from);
                prop_assert!(verdict.outputs.iter().all(|(port, _)| local(port)), "{}", verdict);
            }
            let outside = Lab::from_outside("198.51.100.7", &to.to_string(), proto, port);
            prop_assert!(lab.send(EXT_PORT, &outside).is_drop());
        }
    }

    /// VPCs of the same blocks never hear one another, except over public addresses.
    #[test]
    fn vpcs_are_apart(
        topology in any_topology(),
        packets in proptest::collection::vec((16..24u16, any_address(), any_traffic()), 1..20),
    ) {
        let topology = {
            let mut open = topology;
            // Groups that forbid nothing: only the VPC is left to stop anything.
            for (n, group) in (9000u32..).zip(&mut open.doc.groups) {
                group.rules = vec![
                    allow(n * 2, "in all from 0.0.0.0/0"),
                    allow(n * 2 + 1, "out all from 0.0.0.0/0"),
                ];
            }
            open.doc.ports.iter_mut().for_each(|p| p.public_ip = None);
            open
        };
        let mut lab = Lab::new(topology);
        let vpc_of = |lab: &Lab, no: u32| {
            let port = lab.doc.ports.iter().find(|p| u32::from(p.port_no) == no).unwrap();
            lab.doc.subnets.iter().find(|s| s.id == port.subnet).unwrap().vpc
        };
        for (from, to, (proto, port)) in packets {
            let Some(spec) = lab.doc.ports.iter().find(|p| p.port_no == from).cloned() else { continue };
            let mut hops: Vec<MacAddr> = lab.doc.ports.iter().map(|p| p.mac).collect();
            hops.push(MacAddr::ROUTER);
            for hop in hops {
                let verdict = lab.send(from.into(), &packet(&spec, hop, to, proto, port));
                for (at, _) in &verdict.outputs {
                    prop_assert!(*at == META_PORT || vpc_of(&lab, *at) == vpc_of(&lab, from.into()), "{}", verdict);
                }
            }
        }
    }

    /// A source that is not the port's own never gets past port security.
    #[test]
    fn forged_sources_never_pass(
        topology in any_topology(),
        from in 16..24u16,
        source in any_address(),
        fake_mac in any::<bool>(),
        to in any_address(),
        (proto, port) in any_traffic(),
        extra in prop_oneof![Just(None), Just(Some((Field::VlanTci, 0x1000 | 5))), Just(Some((Field::EthType, 0x86dd)))],
    ) {
        let mut lab = Lab::new(topology);
        let Some(spec) = lab.doc.ports.iter().find(|p| p.port_no == from) else { return Ok(()) };
        prop_assume!(fake_mac || extra.is_some() || (source != spec.private_ip && spec.source_dest_check));
        let mut packet = packet(spec, MacAddr::ROUTER, to, proto, port);
        if fake_mac {
            packet = packet.with(Field::EthSrc, crate::flow::mac_bits(mac(from + 1)));
        }
        if !fake_mac && extra.is_none() {
            packet = packet.with(Field::IpSrc, u32::from(source).into());
        }
        if let Some((field, value)) = extra {
            packet = packet.with(field, value);
        }
        let verdict = lab.send(from.into(), &packet);
        prop_assert!(verdict.is_drop(), "{}", verdict);
        prop_assert!(verdict.last_stage() <= Some(Stage::Admit), "{}", verdict);
    }
}

/// Whether the way back is another than the way there, by the receiver's own routes: then nothing is promised of it.
fn asymmetric(lab: &Lab, at: u32, from: u16) -> bool {
    let port = |no: u32| lab.doc.ports.iter().find(|p| u32::from(p.port_no) == no);
    match (port(at), port(from.into())) {
        (Some(a), Some(b)) => {
            let routes = |p: &gon_proto::PortSpec| {
                let subnet = lab.doc.subnets.iter().find(|s| s.id == p.subnet).unwrap();
                !subnet.routes.is_empty()
            };
            routes(a) || routes(b)
        }
        _ => false,
    }
}
