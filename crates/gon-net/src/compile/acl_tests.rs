//! Network ACLs: first match wins, every packet for itself, at the edge of the subnet and nowhere else.

use std::collections::BTreeMap;

use gon_proto::{AclAction, AclEntrySpec, Direction, NodeNetwork, PortSpec, RouteTarget, SubnetSpec};
use gon_types::MacAddr;
use proptest::prelude::*;

use super::*;
use crate::diff;
use crate::flow::{Field, IP_ICMP, IP_TCP, IP_UDP};
use crate::pipeline::{Stage, acl_entry, acl_priority};
use crate::service::{EXT_PORT, META_PORT};
use crate::testing::{Lab, any_address, any_topology, any_traffic, model, packet};
use crate::topology::{Topology, allow, entry, facts, facts_of, id, ip, net, via_gateway, via_interface};
use crate::trace::Packet;

/// Two subnets, two ports in each, groups that allow everything, the first subnet public; ACLs 8 and 9 to guard with.
fn open(first: &[&str], second: &[&str]) -> Topology {
    let entries = |texts: &[&str]| texts.iter().map(|t| entry(t)).collect();
    Topology::new()
        .vpc(1, "10.0.0.0/16", true)
        .acl(8, 1, entries(first))
        .acl(9, 1, entries(second))
        .subnet(11, 1, "10.0.1.0/24", vec![via_gateway("0.0.0.0/0", 1)])
        .subnet(12, 1, "10.0.2.0/24", vec![])
        .group(1, 1, vec![allow(1, "in all from 0.0.0.0/0"), allow(2, "out all from 0.0.0.0/0")])
        .port(16, 11, "10.0.1.10", &[1], Some("203.0.113.10"))
        .port(17, 11, "10.0.1.11", &[1], None)
        .port(18, 12, "10.0.2.10", &[1], None)
        .port(19, 12, "10.0.2.11", &[1], None)
        .guarded(11, 8)
        .guarded(12, 9)
}

const ALL: [&str; 2] = ["100 in allow all 0.0.0.0/0", "100 out allow all 0.0.0.0/0"];

#[test]
fn an_answer_needs_an_entry_of_its_own() {
    let ssh_in = ["100 in allow tcp 22 0.0.0.0/0"];
    let mut lab = Lab::new(open(&ALL, &ssh_in));
    let ssh = lab.between(16, 18, IP_TCP, 22);
    let there = lab.arrives(16, &ssh, 18);
    // The connection is known to the groups, and yet the answer is not let out of its subnet.
    let verdict = lab.drops(18, &there.answer());
    assert_eq!(verdict.last_stage(), Some(Stage::AclOut), "{verdict}");
    // Ephemeral ports out: now it is, on the same connection.
    let both = ["100 in allow tcp 22 0.0.0.0/0", "100 out allow tcp 1024-65535 10.0.0.0/16"];
    lab.replace(open(&ALL, &both), &facts());
    lab.arrives(18, &there.answer(), 16);
    // And into the client's subnet it needs one, too.
    lab.replace(open(&["100 out allow all 0.0.0.0/0"], &both), &facts());
    let verdict = lab.drops(18, &there.answer());
    assert_eq!(verdict.last_stage(), Some(Stage::AclIn), "{verdict}");
}

#[test]
fn a_denial_cuts_open_connections_at_once_and_says_which_entry_it_was() {
    let mut lab = Lab::new(open(&ALL, &ALL));
    let web = lab.between(16, 18, IP_TCP, 80);
    lab.talks(16, &web, 18);
    let denied = ["90 in deny tcp 80-89 10.0.1.0/24", ALL[0], ALL[1]];
    lab.replace(open(&ALL, &denied), &facts());
    let verdict = lab.drops(16, &web);
    let last = verdict.path.last().unwrap();
    assert_eq!((verdict.last_stage(), acl_entry(last.priority)), (Some(Stage::AclIn), Some(90)), "{verdict}");
    assert!(last.cookie.is_of(id::<gon_types::id::NetworkAcl>(9)), "{verdict}");
    // A lower number goes before it.
    let saved = ["89 in allow tcp 80 10.0.1.10/32", denied[0], ALL[0], ALL[1]];
    lab.replace(open(&ALL, &saved), &facts());
    lab.talks(16, &web, 18);
    // The end of the list.
    lab.replace(open(&ALL, &[]), &facts());
    let verdict = lab.drops(16, &web);
    let last = verdict.path.last().unwrap();
    assert_eq!((verdict.last_stage(), acl_entry(last.priority)), (Some(Stage::AclIn), None), "{verdict}");
    assert!(last.cookie.is_of(id::<gon_types::id::NetworkAcl>(9)), "{verdict}");
}

#[test]
fn entries_are_in_the_order_of_their_numbers() {
    for number in [1, 2, 100, 32_765, 32_766] {
        assert_eq!(acl_entry(acl_priority(number)), Some(number));
        assert!(acl_priority(number) < acl_priority(number - 1).max(33_000) || number == 1);
    }
    assert_eq!((acl_entry(100), acl_entry(0), acl_entry(60_000)), (None, None, None));
    assert!(acl_priority(32_766) > 100);
}

#[test]
fn within_a_subnet_no_acl_is_asked() {
    let mut lab = Lab::new(open(&[], &[]));
    lab.talks(16, &lab.between(16, 17, IP_TCP, 22), 17);
    // Not even if the guest makes a detour by the router.
    let detour = lab.to(16, "10.0.1.11", IP_UDP, 7);
    lab.arrives(16, &detour, 17);
    assert!(!lab.send(16, &detour).path.iter().any(|s| s.table == Stage::AclOut.table()));
    lab.drops(16, &lab.between(16, 18, IP_TCP, 22));
    lab.drops(16, &lab.to(16, "8.8.8.8", IP_TCP, 443));
    lab.drops(EXT_PORT, &Lab::from_outside("198.51.100.7", "203.0.113.10", IP_TCP, 22));

    // At each other's public addresses they meet outside of it.
    let topology = open(&[], &[]).with_port(17, |p| p.public_ip = Some(ip("203.0.113.11")));
    let mut lab = Lab::new(topology.clone());
    let public = lab.to(16, "203.0.113.11", IP_TCP, 22);
    lab.drops(16, &public);
    let out = ["100 out allow all 0.0.0.0/0"];
    let mut outward = topology.clone();
    outward.doc.acls[1].entries = out.iter().map(|t| entry(t)).collect();
    lab.replace(outward.clone(), &facts());
    let verdict = lab.drops(16, &public);
    assert_eq!(verdict.last_stage(), Some(Stage::AclIn), "{verdict}");
    outward.doc.acls[1].entries.push(entry("100 in allow tcp 22 203.0.113.10/32"));
    lab.replace(outward, &facts());
    lab.arrives(16, &public, 17);

    // What a route of its own sends out of the subnet's block has left it.
    let mut diverted = topology.with_port(18, |p| p.source_dest_check = false);
    diverted.doc.subnets[0].routes = vec![via_interface("10.0.1.0/24", "10.0.2.10")];
    lab.replace(diverted, &facts());
    lab.drops(16, &detour);
}

#[test]
fn what_the_node_answers_cannot_be_blocked() {
    let deny = ["1 in deny all 0.0.0.0/0", "1 out deny all 0.0.0.0/0"];
    let mut lab = Lab::new(open(&deny, &deny));
    let me = lab.port(16).clone();
    let discover = Packet::ip((me.mac, ip("0.0.0.0")), (MacAddr([0xff; 6]), ip("255.255.255.255")), IP_UDP)
        .with(Field::UdpSrc, 68)
        .with(Field::UdpDst, 67);
    lab.arrives(16, &discover, META_PORT);
    let renewal = packet(&me, MacAddr::ROUTER, ip("10.0.1.1"), IP_UDP, 67).with(Field::UdpSrc, 68);
    lab.arrives(16, &renewal, META_PORT);
    for (address, proto, port) in [
        ("10.0.1.2", IP_UDP, 53),
        ("10.0.0.2", IP_TCP, 53),
        ("169.254.169.253", IP_UDP, 53),
        ("169.254.169.254", IP_TCP, 80),
    ] {
        let there = lab.arrives(16, &lab.to(16, address, proto, port), META_PORT);
        lab.arrives(META_PORT, &there.answer(), 16);
    }
    // The router's echo, and ARP.
    lab.arrives(16, &lab.to(16, "10.0.1.1", IP_ICMP, 0), 16);
    let arp = Packet::frame(me.mac, MacAddr([0xff; 6]), crate::flow::ETH_ARP)
        .with(Field::ArpOp, 1)
        .with(Field::ArpSpa, u32::from(me.private_ip).into())
        .with(Field::ArpTpa, u32::from(ip("10.0.1.11")).into())
        .with(Field::ArpSha, crate::flow::mac_bits(me.mac));
    lab.arrives(16, &arp, 16);
    // Other ports of those addresses are nobody's exception.
    lab.drops(16, &lab.to(16, "10.0.1.2", IP_TCP, 22));
}

#[test]
fn protocols_messages_and_blocks() {
    let some = [
        "10 in allow icmp 8/0 10.0.1.0/28",
        "20 in allow icmp 3/4 0.0.0.0/0",
        "30 in deny udp 53 0.0.0.0/0",
        "40 in allow udp 10.0.0.0/8",
        "50 in allow 47 10.0.1.10/32",
        "60 out deny tcp 10.0.1.0/24",
        "70 out allow all 0.0.0.0/0",
    ];
    let mut lab = Lab::new(open(&ALL, &some));
    let ping = lab.between(16, 18, IP_ICMP, 0);
    lab.arrives(16, &ping, 18);
    lab.drops(16, &ping.clone().with(Field::IcmpType, 13));
    lab.arrives(16, &lab.between(16, 18, IP_UDP, 54), 18);
    lab.drops(16, &lab.between(16, 18, IP_UDP, 53));
    lab.drops(16, &lab.between(16, 18, IP_TCP, 54));
    let gre = |from: u16, lab: &Lab| lab.between(from, 18, 47, 0);
    lab.arrives(16, &gre(16, &lab), 18);
    lab.drops(17, &gre(17, &lab));
    // Outwards the block is the destination's.
    lab.drops(18, &lab.between(18, 16, IP_TCP, 80));
    lab.arrives(18, &lab.between(18, 16, IP_UDP, 80), 16);
}

/// A fragment of the packet that is not the first: no ports.
fn later(packet: &Packet) -> Packet {
    let packet = packet.clone().with(Field::IpFrag, 3);
    let blank = |p: Packet, field| p.with(field, 0);
    [
        Field::TcpSrc,
        Field::TcpDst,
        Field::TcpFlags,
        Field::UdpSrc,
        Field::UdpDst,
        Field::IcmpType,
        Field::IcmpCode,
    ]
    .into_iter()
    .fold(packet, blank)
}

/// Whether the lists of both subnets let a packet through that the groups of its connection know.
fn crosses(lab: &mut Lab, from: u16, packet: &Packet) -> bool {
    let stages = [Stage::AclOut, Stage::AclIn].map(Stage::table);
    let verdict = lab.send(from.into(), packet);
    let asked = verdict.path.iter().filter(|s| stages.contains(&s.table)).count();
    asked == 2 && verdict.last_stage() != Some(Stage::AclIn)
}

#[test]
fn later_fragments_pass_only_where_every_port_does() {
    // The first range begins at 0, which is what a fragment has in the place of a port.
    let some = ["10 in allow udp 0-6000 0.0.0.0/0", "20 in allow udp 10.0.1.0/24", ALL[1]];
    let mut lab = Lab::new(open(&ALL, &some));
    let first = lab.between(16, 18, IP_UDP, 5353).with(Field::IpFrag, 1);
    assert!(crosses(&mut lab, 16, &first) && crosses(&mut lab, 16, &later(&first)));
    let tcp = later(&lab.between(16, 18, IP_TCP, 5353));
    assert!(!crosses(&mut lab, 16, &tcp));
    // Some ports are allowed, or denied: the first fragment shows which, the later ones do not.
    lab.replace(open(&ALL, &[some[0], ALL[1]]), &facts());
    assert!(crosses(&mut lab, 16, &first) && !crosses(&mut lab, 16, &later(&first)));
    lab.replace(open(&ALL, &["10 in deny udp 53 0.0.0.0/0", ALL[0], ALL[1]]), &facts());
    let dns = lab.between(16, 18, IP_UDP, 53).with(Field::IpFrag, 1);
    assert!(!crosses(&mut lab, 16, &dns) && !crosses(&mut lab, 16, &later(&dns)));
    // Those of other protocols are none of this.
    lab.replace(open(&ALL, &["10 in deny tcp 53 0.0.0.0/0", ALL[0], ALL[1]]), &facts());
    assert!(crosses(&mut lab, 16, &later(&first)) && !crosses(&mut lab, 16, &tcp));
}

#[test]
fn each_node_asks_for_its_own_end() {
    let place = [(16, 1), (17, 2), (18, 2), (19, 1)];
    let labs =
        |topology: &Topology| [1, 2].map(|n| Lab::with_facts(topology.on_node(n, &place), &facts_of(n)));
    let carried = |packet: &Packet| {
        packet
            .clone()
            .with(Field::TunSrc, u32::from(crate::topology::underlay(1)).into())
            .with(Field::TunDst, 0)
    };
    let tunnel = crate::service::TUNNEL_PORT;
    let [mut one, mut two] = labs(&open(&ALL, &["10 in allow tcp 22 10.0.1.10/32"]));
    let over = |lab: &mut Lab, packet: &Packet| lab.arrives(16, packet, tunnel);
    let whole = open(&ALL, &ALL);
    let all = Lab::new(whole);
    let ssh = carried(&over(&mut one, &all.between(16, 18, IP_TCP, 22)));
    let at = two.arrives(tunnel, &ssh, 18);
    // The answer is stopped where it sets out.
    let verdict = two.drops(18, &at.answer());
    assert_eq!(verdict.last_stage(), Some(Stage::AclOut), "{verdict}");
    // What its own node has no entry against, the receiver's stops.
    let web = carried(&over(&mut one, &all.between(16, 18, IP_TCP, 80)));
    let verdict = two.drops(tunnel, &web);
    assert_eq!(verdict.last_stage(), Some(Stage::AclIn), "{verdict}");

    // Within one subnet neither is asked, by the neighbour's MAC or by the router's.
    let [mut one, mut two] = labs(&open(&[], &[]));
    for packet in [all.between(16, 17, IP_TCP, 80), all.to(16, "10.0.1.11", IP_TCP, 81)] {
        let carried = carried(&over(&mut one, &packet));
        two.arrives(tunnel, &carried, 17);
    }
    one.drops(16, &all.between(16, 18, IP_TCP, 22));
}

#[test]
fn an_acl_is_compiled_once_and_a_change_touches_only_it() {
    let count = |topology: &Topology, stage: Stage| {
        compile(&topology.doc, &facts()).flows.of_table(stage.table()).len()
    };
    let mut many = open(&ALL, &ALL);
    for stage in [Stage::Edge, Stage::Enter, Stage::AclOut, Stage::AclIn] {
        let before = count(&many, stage);
        many = many.port(
            30 + u16::from(stage.table()),
            11,
            &format!("10.0.1.{}", 30 + stage.table()),
            &[1],
            None,
        );
        assert_eq!(count(&many, stage), before, "{stage:?}: one more port");
    }
    // A range is as many flows as it has masks, not ports.
    let one = open(&["10 in allow tcp 1024-65535 0.0.0.0/0"], &[]);
    assert_eq!(count(&one, Stage::AclIn), 1 + 2 + 6, "default, two ends, masks");
    // An entry between two others.
    let before =
        compile(&open(&ALL, &["10 in allow tcp 22 0.0.0.0/0", "20 in deny all 0.0.0.0/0"]).doc, &facts());
    let texts = ["10 in allow tcp 22 0.0.0.0/0", "15 in allow tcp 80 0.0.0.0/0", "20 in deny all 0.0.0.0/0"];
    let after = compile(&open(&ALL, &texts).doc, &facts());
    let changes = diff(&before.flows, &after.flows);
    assert_eq!(changes.len(), 1, "{changes:?}");
    // Another ACL for a subnet: two flows say so, and its list comes.
    let other = open(&ALL, &ALL).guarded(12, 8);
    let (before, after) = (compile(&open(&ALL, &ALL).doc, &facts()), compile(&other.doc, &facts()));
    let changes = diff(&before.flows, &after.flows);
    let stages: Vec<_> = changes.iter().map(|c| format!("{c:?}")).collect();
    assert_eq!(changes.len(), 2 + 4, "{stages:?}");
}

#[test]
fn ports_of_impossible_acls_are_closed() {
    let closed = |topology: &Topology| {
        let degraded = compile(&topology.doc, &facts()).degraded;
        degraded.into_iter().map(|d| (d.port_no, d.reason)).collect::<Vec<_>>()
    };
    assert_eq!(closed(&open(&ALL, &ALL)), []);
    let missing = |reason: Reason| vec![(18, reason.clone()), (19, reason)];
    let mut none = open(&ALL, &ALL);
    none.doc.subnets[1].acl = None;
    assert_eq!(closed(&none), missing(Reason::NoSuchAcl));
    // From before there were ACLs nothing was kept back.
    none.doc.format = 2;
    assert_eq!(closed(&none), []);
    let mut lab = Lab::new(none);
    lab.talks(16, &lab.between(16, 18, IP_TCP, 22), 18);
    assert_eq!(closed(&open(&ALL, &ALL).guarded(12, 77)), missing(Reason::NoSuchAcl));
    let foreign = open(&ALL, &ALL).vpc(2, "10.0.0.0/16", false).guarded(12, 2);
    assert_eq!(closed(&foreign), missing(Reason::NoSuchAcl));
    let twice = open(&ALL, &ALL).acl(9, 1, vec![]);
    assert_eq!(closed(&twice), missing(Reason::NoSuchAcl));
    let bad: [fn(&mut AclEntrySpec); 5] = [
        |e| e.number = 0,
        |e| e.number = 32_767,
        |e| e.protocol = Some(6),
        |e| e.ports = Some(gon_types::PortRange::ALL),
        |e| e.icmp = Some(gon_types::IcmpMatch { icmp_type: 8, code: None }),
    ];
    for change in bad {
        let mut topology = open(&ALL, &ALL);
        change(&mut topology.doc.acls[2].entries[0]);
        assert_eq!(closed(&topology), missing(Reason::BadAcl), "{:?}", topology.doc.acls[2].entries[0]);
    }
    assert_eq!(closed(&open(&ALL, &[ALL[0], ALL[0]])), missing(Reason::BadAcl));
}

/// What a list says about a packet. Written from the semantics.
fn passes(
    doc: &NodeNetwork,
    subnet: &SubnetSpec,
    direction: Direction,
    peer: Ipv4Addr,
    (proto, port, icmp): (u8, u16, u8),
) -> bool {
    let acl = doc.acls.iter().find(|a| Some(a.id) == subnet.acl).unwrap();
    let matches = |e: &&AclEntrySpec| {
        e.direction == direction
            && e.cidr.contains(&peer)
            && e.protocol.is_none_or(|p| p == proto)
            && e.ports.is_none_or(|ports| ports.contains(port))
            && e.icmp.is_none_or(|i| i.icmp_type == icmp && i.code.is_none_or(|c| c == 0))
    };
    let first = acl.entries.iter().filter(matches).min_by_key(|e| e.number);
    first.is_some_and(|e| e.action == AclAction::Allow)
}

/// Where the first packet of a connection should end, by groups, routes and ACLs.
fn model_with_acls(
    doc: &NodeNetwork,
    from: u16,
    hop: MacAddr,
    to: Ipv4Addr,
    proto: u8,
    port: u16,
) -> Option<u32> {
    let end = model(doc, from, hop, to, proto, port)?;
    let find = |no: u32| doc.ports.iter().find(|p| u32::from(p.port_no) == no);
    let subnet_of = |p: &PortSpec| doc.subnets.iter().find(|s| s.id == p.subnet).unwrap();
    let sender = find(from.into())?;
    let subnet = subnet_of(sender);
    let route = subnet
        .routes
        .iter()
        .filter(|r| r.destination.contains(&to))
        .max_by_key(|r| r.destination.prefix_len());
    // Every VPC here is 10.0.0.0/16.
    let local = net("10.0.0.0/16").contains(&to) && route.is_none_or(|r| r.destination.prefix_len() <= 16);
    if hop != MacAddr::ROUTER || (local && subnet.cidr_block.contains(&to)) {
        return Some(end);
    }
    let what = (proto, port, 8);
    if !passes(doc, subnet, Direction::Outbound, to, what) {
        return None;
    }
    let Some(receiver) = find(end) else { return Some(end) };
    let by_gateway = !local && route.is_some_and(|r| matches!(r.target, RouteTarget::InternetGateway(_)));
    let source = if by_gateway { sender.public_ip? } else { sender.private_ip };
    passes(doc, subnet_of(receiver), Direction::Inbound, source, what).then_some(end)
}

/// Up to six entries, of few numbers, so that they get into each other's way.
fn any_entries() -> impl Strategy<Value = Vec<AclEntrySpec>> {
    let entry = (1..6u16, any::<bool>(), any::<bool>(), 0..6u8, 0..10u16, 0..6u8);
    proptest::collection::vec(entry, 0..8).prop_map(|entries| {
        let entries = entries.into_iter().map(|(number, inbound, allow, traffic, port, block)| {
            let traffic = match traffic {
                0 | 1 => "all".to_owned(),
                2 => format!("tcp {}-{}", port * 20, port * 30 + 90),
                3 => format!("udp {}-50000", port * 40),
                4 => "tcp".to_owned(),
                _ if port % 3 == 0 => "icmp".to_owned(),
                _ => format!("icmp {}/0", port % 3 * 8 - 8),
            };
            let block = match block {
                0 | 1 => "0.0.0.0/0",
                2 => "10.0.1.0/28",
                3 => "10.0.2.0/24",
                4 => "203.0.113.0/27",
                _ => "10.0.0.0/8",
            };
            let way = if inbound { "in" } else { "out" };
            let verb = if allow { "allow" } else { "deny" };
            self::entry(&format!("{number} {way} {verb} {traffic} {block}"))
        });
        let unique: BTreeMap<_, _> = entries.map(|e| ((e.direction, e.number), e)).collect();
        unique.into_values().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn flows_say_what_groups_routes_and_acls_say(
        topology in any_topology(),
        lists in proptest::collection::vec(any_entries(), 6),
        packets in proptest::collection::vec((any::<prop::sample::Index>(), any_address(), any_traffic(), any::<bool>()), 1..12),
    ) {
        let mut topology = topology;
        for (n, (list, subnet)) in lists.into_iter().zip(topology.doc.subnets.clone()).enumerate() {
            let acl = u32::try_from(n).unwrap() + 50;
            let mut more = topology;
            more.doc.acls.push(gon_proto::AclSpec { id: id(acl), vpc: subnet.vpc, entries: list });
            more.doc.subnets[n].acl = Some(id(acl));
            topology = more;
        }
        let compiled = compile(&topology.doc, &facts());
        prop_assert_eq!(&compiled.degraded, &vec![]);
        for (from, to, (proto, port), neighbour) in packets {
            let from = &topology.doc.ports[from.index(topology.doc.ports.len())];
            let hop = topology.doc.ports.iter().find(|p| neighbour && p.private_ip == to && p.subnet == from.subnet);
            let hop = hop.map_or(MacAddr::ROUTER, |p| p.mac);
            let wanted = model_with_acls(&topology.doc, from.port_no, hop, to, proto, port);
            // What the node answers itself is another test's.
            if to == ip("10.0.1.1") || to == ip("169.254.169.254") {
                continue;
            }
            let mut conntrack = crate::trace::Conntrack::new();
            let sent = packet(from, hop, to, proto, port);
            let verdict = crate::trace::trace(&compiled.flows, from.port_no.into(), &sent, &mut conntrack);
            let got = verdict.outputs.first().map(|(port, _)| *port);
            prop_assert_eq!(got, wanted, "from {} to {} {}/{}\n{}", from.port_no, to, proto, port, verdict);
        }
    }

    #[test]
    fn answers_pass_by_entries_of_their_own_and_fragments_never_more_easily(
        first in any_entries(), second in any_entries(), traffic in any_traffic(),
        pair in prop_oneof![Just((16u16, 18u16)), Just((18, 16)), Just((16, 17)), Just((19, 17))],
    ) {
        let mut topology = open(&[], &[]);
        topology.doc.acls[1].entries = first;
        topology.doc.acls[2].entries = second;
        let doc = topology.doc.clone();
        let ((from, to), (proto, port)) = (pair, traffic);
        let mut lab = Lab::new(topology);
        let sent = lab.between(from, to, proto, port);
        let subnets = [from, to].map(|no| {
            let port = lab.port(no);
            (doc.subnets.iter().find(|s| s.id == port.subnet).unwrap(), port.private_ip)
        });
        let crosses = |[(here, source), (there, target)]: [(&SubnetSpec, Ipv4Addr); 2], what| {
            here.id == there.id
                || passes(&doc, here, Direction::Outbound, target, what)
                    && passes(&doc, there, Direction::Inbound, source, what)
        };
        let forth = crosses(subnets, (proto, port, 8));
        let verdict = lab.send(from.into(), &sent);
        prop_assert_eq!(!verdict.is_drop(), forth, "{}", verdict);
        // (The interpreter's connection tracking would take a later fragment's ICMP type, 0, for an answer.)
        if subnets[0].0.id != subnets[1].0.id && proto != IP_ICMP {
            let first = sent.clone().with(Field::IpFrag, 1);
            prop_assert_eq!(super::acl_tests::crosses(&mut lab, from, &first), forth);
            prop_assert!(forth || !super::acl_tests::crosses(&mut lab, from, &later(&first)));
        }
        if let Some((_, arrived)) = verdict.outputs.first() {
            let back = crosses([subnets[1], subnets[0]], (proto, 40_000, 0));
            let verdict = lab.send(to.into(), &arrived.answer());
            prop_assert_eq!(!verdict.is_drop(), back, "{}", verdict);
        }
    }
}
