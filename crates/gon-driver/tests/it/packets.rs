//! Compiled flows against real packets: a private switch, guests in namespaces, frames on wires.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use gon_net::{Mirror, netfilter, service};
use gon_types::MacAddr;

use crate::packets_lab::*;
use crate::topology::{Topology, allow, ip, mac, net, two_vpcs, via_gateway};

const PUBLIC: &str = "203.0.113.10";
const OUTSIDE: &str = "198.51.100.2";

/// A VPC with a public and a private subnet; 16 and 19 have public addresses, 17 and 18 have none.
fn one_vpc() -> Topology {
    Topology::new()
        .vpc(1, "10.0.0.0/16", true)
        .subnet(11, 1, "10.0.1.0/24", vec![via_gateway("0.0.0.0/0", 1)])
        .subnet(12, 1, "10.0.2.0/24", vec![])
        .group(
            1,
            1,
            vec![
                allow(1, "in tcp 22 from 0.0.0.0/0"),
                allow(2, "in icmp from 0.0.0.0/0"),
                allow(3, "in all from sg 1"),
                allow(4, "out all from 0.0.0.0/0"),
            ],
        )
        .group(2, 1, vec![allow(5, "in tcp 5432 from sg 1"), allow(6, "in udp 7 from 10.0.1.0/24")])
        .port(16, 11, "10.0.1.10", &[1], Some(PUBLIC))
        .port(17, 11, "10.0.1.11", &[1], None)
        .port(18, 12, "10.0.2.10", &[2], None)
        .port(19, 11, "10.0.1.12", &[1], Some("203.0.113.12"))
}

#[test]
fn reachable_only_with_gateway_route_address_and_rule() {
    let whole = one_vpc();
    let mut lab = Lab::new(&whole);
    let (world, host) = (lab.add_world(), lab.host());
    let (g16, g17, g19) = (lab.guest(16), lab.guest(17), lab.guest(19));
    let ssh = format!("{PUBLIC}:22");
    greeter(&g16, "0.0.0.0:22");
    greeter(&g16, "0.0.0.0:80");
    greeter(&world, "0.0.0.0:8080");

    // All four: from the host, from beyond it, and back out; with the translated address, one hop per router.
    assert!(pings(&host, PUBLIC) && reaches(&host, &ssh));
    assert_eq!(ping(&world, PUBLIC, 56, PATIENCE), Some(62));
    assert!(greeted(&world, &ssh, PATIENCE).unwrap().starts_with("198.51.100.2:"));
    assert!(is_cut_off(&world, &format!("{PUBLIC}:80")));
    let out = format!("{OUTSIDE}:8080");
    assert!(greeted(&g16, &out, PATIENCE).unwrap().starts_with(&format!("{PUBLIC}:")));
    assert!(is_cut_off(&g17, &out), "without an address there is no way out");

    // Over public addresses between instances, and to oneself.
    assert!(greeted(&g19, &ssh, PATIENCE).unwrap().starts_with("203.0.113.12:"));
    assert!(greeted(&g16, &ssh, PATIENCE).unwrap().starts_with(&format!("{PUBLIC}:")));
    assert!(is_cut_off(&g19, &format!("{PUBLIC}:80")), "group references mean private addresses");

    // Large packets, in fragments, translated. (Of TCP and UDP this datapath would damage them: none arrives.)
    assert!(ping(&world, PUBLIC, 4000, PATIENCE).is_some());
    let (there, here) = (udp(&world, "0.0.0.0:9"), udp(&g16, "0.0.0.0:9"));
    here.send_to(&[7; 4000], format!("{OUTSIDE}:9")).unwrap();
    here.send_to(b"whole", format!("{OUTSIDE}:9")).unwrap();
    let mut buffer = [0; 65536];
    let (n, from) = there.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..n], from.to_string()), (&b"whole"[..], format!("{PUBLIC}:9")));

    // Any three.
    let mut no_gateway = one_vpc();
    no_gateway.doc.vpcs[0].internet_gateway = None;
    let mut no_route = one_vpc();
    no_route.doc.subnets[0].routes.clear();
    let no_address = one_vpc().with_port(16, |p| p.public_ip = None);
    let mut no_rule = one_vpc();
    no_rule.doc.groups[0].rules.drain(..2);
    let cases = [("gateway", no_gateway), ("route", no_route), ("address", no_address), ("rule", no_rule)];
    for (missing, topology) in &cases {
        lab.apply(topology, Mirror::Off);
        assert!(pings_in_vain(&world, PUBLIC), "ping without {missing}");
        assert!(is_cut_off(&world, &ssh), "SSH without {missing}");
        assert!(pings_in_vain(&host, PUBLIC), "ping from the host without {missing}");
        if *missing != "rule" {
            assert!(is_cut_off(&g16, &out), "way out without {missing}");
        }
        lab.apply(&whole, Mirror::Off);
        assert!(pings(&world, PUBLIC), "and with {missing} again");
    }
}

#[test]
fn rules_take_effect_on_open_connections() {
    let whole = one_vpc();
    let mut lab = Lab::new(&whole);
    let (g16, g17, g18) = (lab.guest(16), lab.guest(17), lab.guest(18));
    // Within the subnet, between subnets, and what no rule allows.
    greeter(&g17, "0.0.0.0:1000");
    assert!(reaches(&g16, "10.0.1.11:1000"));
    assert_eq!(ping(&g16, "10.0.1.11", 56, PATIENCE), Some(64));
    greeter(&g18, "0.0.0.0:5433");
    assert!(is_cut_off(&g16, "10.0.2.10:5433"));
    assert!(pings_in_vain(&g16, "10.0.2.10"));
    assert!(pings_in_vain(&g18, "10.0.1.10"), "18 may begin nothing");
    // In fragments.
    assert!(ping(&g16, "10.0.1.11", 4000, PATIENCE).is_some());
    let (from, to) = (udp(&g16, "0.0.0.0:5000"), udp(&g18, "0.0.0.0:7"));
    let large = [7; 5000];
    from.send_to(&large, "10.0.2.10:7").unwrap();
    let mut buffer = [0; 65536];
    assert_eq!(to.recv(&mut buffer).unwrap(), large.len());

    // An open connection, both ways.
    let listener = listen(&g18, "0.0.0.0:5432");
    let mut client = connect(&g16, "10.0.2.10:5432", PATIENCE).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut letter = [0];
    let mut arrives = |from: &mut std::net::TcpStream, to: &mut std::net::TcpStream, patience| {
        to.set_read_timeout(Some(patience)).unwrap();
        from.write_all(b"x").unwrap();
        to.read_exact(&mut letter).is_ok()
    };
    assert!(arrives(&mut client, &mut server, PATIENCE));
    assert!(arrives(&mut server, &mut client, PATIENCE));
    // Revoked: cut at once in both directions; another connection between the same two is not there to be cut, but a new
    // one is refused, too.
    let mut revoked = one_vpc();
    revoked.doc.groups[1].rules.remove(0);
    lab.apply(&revoked, Mirror::Off);
    assert!(!arrives(&mut client, &mut server, SILENCE));
    assert!(!arrives(&mut server, &mut client, SILENCE));
    assert!(is_cut_off(&g16, "10.0.2.10:5432"));
    from.send_to(b"still", "10.0.2.10:7").unwrap();
    assert_eq!(to.recv(&mut buffer).unwrap(), 5);
    // Allowed again: what waited arrives (TCP sends it again by itself).
    lab.apply(&whole, Mirror::Off);
    let mut waited = [0; 2];
    server.set_read_timeout(Some(PATIENCE * 2)).unwrap();
    server.read_exact(&mut waited[..1]).unwrap();
    assert!(arrives(&mut client, &mut server, PATIENCE));

    // A rule added to a running instance.
    let mut more = one_vpc();
    more.doc.groups[1].rules.push(allow(9, "in tcp 5433 from 10.0.1.10/32"));
    lab.apply(&more, Mirror::Off);
    assert!(reaches(&g16, "10.0.2.10:5433"));
    assert!(is_cut_off(&g17, "10.0.2.10:5433"));
}

/// Frames that carry this are looked for where they must not arrive.
const MARKER: &[u8] = b"gon-forged-frame";

/// Marked, and not the listener's own (which may quote what it received).
fn marked(listener: u16) -> impl Fn(&[u8]) -> bool {
    move |frame| frame[6..12] != mac(listener).0 && frame.windows(MARKER.len()).any(|w| w == MARKER)
}

#[test]
fn forged_frames_go_nowhere() {
    let lab = Lab::new(&one_vpc());
    let mut wire = Wire::tap(&lab.guest(16));
    let mut victim = Wire::tap(&lab.guest(17));
    let (me, me_ip, it, it_ip) = (mac(16), ip("10.0.1.10"), mac(17), ip("10.0.1.11"));
    let router = ip("10.0.1.1");
    let udp_to = |from: Ipv4Addr, sport, dport| ipv4(from, it_ip, 17, &datagram(sport, dport, MARKER));
    let good = ethernet(it, me, 0x0800, &udp_to(me_ip, 9, 9));
    let tagged = |tpid: u16, rest: &[u8]| [&it.0[..], &me.0, &tpid.to_be_bytes(), &[0, 5], rest].concat();
    let inner = [&0x0800_u16.to_be_bytes()[..], &udp_to(me_ip, 9, 9)].concat();

    // The way is open for an honest frame.
    wire.send(&good);
    assert!(victim.wait(PATIENCE, marked(17)).is_some());

    let mut forged: Vec<(&str, Vec<u8>)> = vec![
        ("source MAC", ethernet(it, mac(19), 0x0800, &udp_to(me_ip, 9, 9))),
        ("source address", ethernet(it, me, 0x0800, &udp_to(ip("10.0.1.12"), 9, 9))),
        ("victim's own address", ethernet(it, me, 0x0800, &udp_to(it_ip, 9, 9))),
        ("router's address", ethernet(it, me, 0x0800, &udp_to(router, 9, 9))),
        ("both", ethernet(it, mac(19), 0x0800, &udp_to(ip("10.0.1.12"), 9, 9))),
        ("no address", ethernet(it, me, 0x0800, &udp_to(ip("0.0.0.0"), 9, 9))),
        ("802.1Q", tagged(0x8100, &inner)),
        ("802.1ad", tagged(0x88a8, &inner)),
        ("priority tag", [&it.0[..], &me.0, &[0x81, 0, 0, 0], &inner].concat()),
        ("two tags", tagged(0x88a8, &[&[0x81, 0, 0, 7][..], &inner].concat())),
        ("DHCP server", ethernet(it, me, 0x0800, &udp_to(me_ip, 67, 68))),
        ("to a DHCP client", ethernet(it, me, 0x0800, &udp_to(me_ip, 9, 68))),
        ("protocol 0", ethernet(it, me, 0x0800, &ipv4(me_ip, it_ip, 0, MARKER))),
        ("broadcast", ethernet(MacAddr([0xff; 6]), me, 0x0800, &udp_to(me_ip, 9, 9))),
        (
            "IP broadcast",
            ethernet(
                MacAddr([0xff; 6]),
                me,
                0x0800,
                &ipv4(me_ip, ip("10.0.1.255"), 17, &datagram(9, 9, MARKER)),
            ),
        ),
        (
            "multicast",
            ethernet(
                MacAddr([1, 0, 0x5e, 0, 0, 1]),
                me,
                0x0800,
                &ipv4(me_ip, ip("224.0.0.1"), 17, &datagram(9, 9, MARKER)),
            ),
        ),
        (
            "another address at its MAC",
            ethernet(it, me, 0x0800, &ipv4(me_ip, ip("10.0.1.99"), 17, &datagram(9, 9, MARKER))),
        ),
        ("its address at another MAC", ethernet(mac(19), me, 0x0800, &udp_to(me_ip, 9, 9))),
    ];
    // Every kind of frame that is neither IPv4 nor ARP: well-known ones, and a sweep.
    let known = [0x86dd, 0x8847, 0x8863, 0x8864, 0x88cc, 0x88e5, 0x0842, 0x8035, 0x9000, 0x0001, 0x05dc];
    for eth_type in known.into_iter().chain((0..237).map(|n| 0x0600 + n * 251)) {
        if ![0x0800, 0x0806, 0x8100, 0x88a8].contains(&eth_type) {
            forged.push(("EtherType", ethernet(it, me, eth_type, &udp_to(me_ip, 9, 9))));
        }
    }
    // ARP with the marker behind it: answers nobody asked for, in all shapes.
    let all = MacAddr([0xff; 6]);
    for (name, to, packet) in [
        ("ARP reply for the router", it, arp(2, (me, router), (it, it_ip))),
        ("ARP reply for a neighbour", it, arp(2, (me, ip("10.0.1.12")), (it, it_ip))),
        ("ARP reply, honest but unasked", it, arp(2, (me, me_ip), (it, it_ip))),
        ("gratuitous ARP", all, arp(1, (me, me_ip), (all, me_ip))),
        ("gratuitous ARP for another", all, arp(1, (me, it_ip), (all, it_ip))),
        ("ARP request as another", all, arp(1, (me, router), (all, it_ip))),
        ("ARP with another hardware address", all, arp(1, (mac(19), me_ip), (all, it_ip))),
    ] {
        forged.push((name, ethernet(to, me, 0x0806, &[&packet[..], MARKER].concat())));
    }
    // In fragments: a DHCP server's answer, and a first fragment without room for ports.
    let offer = udp_to(me_ip, 67, 68);
    let syn = ipv4(me_ip, it_ip, 6, &[&[0, 9, 0, 22][..], &[0; 16], MARKER].concat());
    for (name, packet, at) in [("DHCP server in fragments", offer, 16), ("tiny first fragment", syn, 8)] {
        for part in fragments(&packet, at) {
            forged.push((name, ethernet(it, me, 0x0800, &part)));
        }
    }
    for (name, frame) in &forged {
        for _ in 0..3 {
            wire.send(frame);
        }
        if !["EtherType"].contains(name) {
            assert_eq!(victim.wait(Duration::from_millis(30), marked(17)), None, "{name}");
        }
    }
    assert_eq!(victim.wait(SILENCE, marked(17)), None);
    // Nobody spoke of the guest's cache, and the honest way is still open.
    wire.send(&good);
    assert!(victim.wait(PATIENCE, marked(17)).is_some());
}

#[test]
fn vpcs_of_the_same_addresses_never_hear_one_another() {
    let mut open = two_vpcs();
    for (n, group) in (900u32..).zip(&mut open.doc.groups) {
        group.rules = vec![allow(2 * n, "in all from 0.0.0.0/0"), allow(2 * n + 1, "out all from 0.0.0.0/0")];
    }
    let lab = Lab::new(&open);
    let (g16, g17, g19, g20) = (lab.guest(16), lab.guest(17), lab.guest(19), lab.guest(20));
    // The same question in both, answered by each one's own.
    greeter(&g17, "0.0.0.0:80");
    greeter(&g20, "0.0.0.0:81");
    assert!(reaches(&g16, "10.0.1.11:80") && reaches(&g19, "10.0.1.11:81"));
    assert!(
        connect(&g16, "10.0.1.11:81", PATIENCE).is_none()
            && connect(&g19, "10.0.1.11:80", PATIENCE).is_none()
    );
    // 19 speaks to everybody in every way it can; nobody of the other VPC hears anything.
    let mut wire = Wire::tap(&g19);
    let mut ears = [16, 17, 18].map(|no| (no, Wire::tap(&lab.guest(no))));
    let macs =
        [mac(16), mac(17), mac(18), MacAddr::ROUTER, MacAddr([0xff; 6]), MacAddr([1, 0, 0x5e, 0, 0, 5])];
    let addresses =
        ["10.0.1.10", "10.0.1.11", "10.0.2.10", "10.0.1.255", "255.255.255.255", "224.0.0.5", PUBLIC];
    for to in macs {
        for address in addresses.map(ip) {
            let packet = ipv4(ip("10.0.1.10"), address, 17, &datagram(9, 9, MARKER));
            wire.send(&ethernet(to, mac(19), 0x0800, &packet));
            let question = arp(1, (mac(19), ip("10.0.1.10")), (MacAddr([0; 6]), address));
            wire.send(&ethernet(to, mac(19), 0x0806, &[&question[..], MARKER].concat()));
        }
    }
    for (no, ear) in &mut ears {
        assert_eq!(ear.wait(Duration::from_millis(100), marked(*no)), None);
    }
}

#[test]
fn the_node_answers_for_itself() {
    let lab = Lab::new(&one_vpc());
    let (g16, g18, host) = (lab.guest(16), lab.guest(18), lab.host());
    // The router answers echo in its own subnet, with a right checksum; nothing else of it answers.
    assert_eq!(ping(&g16, "10.0.1.1", 56, PATIENCE), Some(64));
    assert!(pings_in_vain(&g16, "10.0.2.1"));
    // Metadata: the service knows the port by its link-local address, the guest sees the address it asked.
    greeter(&host, &format!("{}:{}", service::METADATA, service::METADATA_LISTEN));
    for no in [16, 18] {
        let seen = greeted(&lab.guest(no), "169.254.169.254:80", PATIENCE).unwrap();
        assert!(seen.starts_with(&format!("{}:", service::link_local(no))), "{seen}");
    }
    for port in [service::METADATA_TCP, service::METADATA_LISTEN] {
        assert!(is_cut_off(&g16, &format!("{}:{port}", service::METADATA)));
        assert_eq!(is_cut_off(&g16, &format!("169.254.169.254:{port}")), port != service::METADATA_TCP);
    }
    // DNS at each of its addresses.
    let mut buffer = [0; 1500];
    for (guest, no, asked, at) in [
        (&g16, 16, "10.0.1.2", service::DNS_SUBNET),
        (&g18, 18, "10.0.2.2", service::DNS_SUBNET),
        (&g16, 16, "169.254.169.253", service::DNS_LINK_LOCAL),
        (&g18, 18, "10.0.0.2", service::DNS_VPC[0]),
    ] {
        let (server, client) =
            (udp(&host, &format!("{at}:{}", service::DNS_LISTEN)), udp(guest, "0.0.0.0:0"));
        client.send_to(b"question", format!("{asked}:53")).unwrap();
        let (n, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..n], from.ip()), (&b"question"[..], service::link_local(no).into()));
        server.send_to(b"answer", from).unwrap();
        let (n, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..n], from.to_string()), (&b"answer"[..], format!("{asked}:53")));
    }
    // DHCP for a guest without an address, and for one that has it.
    let server = udp(&host, &format!("{}:{}", service::DHCP, service::DHCP_LISTEN));
    let broadcaster = udp(&host, &format!("{}:{}", service::DHCP_BROADCAST, service::DHCP_LISTEN));
    let mut wire = Wire::tap(&g18);
    let request = datagram(68, 67, b"discover");
    let packet = ipv4(ip("0.0.0.0"), ip("255.255.255.255"), 17, &request);
    wire.send(&ethernet(MacAddr([0xff; 6]), mac(18), 0x0800, &packet));
    let (_, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(from.to_string(), format!("{}:68", service::link_local(18)));
    for (socket, text, wanted) in
        [(&server, "to-its-address", "10.0.2.10"), (&broadcaster, "to-everybody", "255.255.255.255")]
    {
        socket.send_to(text.as_bytes(), from).unwrap();
        let heard = |frame: &[u8]| frame.windows(text.len()).any(|w| w == text.as_bytes());
        let frame = wire.wait(PATIENCE, heard).unwrap();
        assert_eq!(frame[..6], mac(18).0);
        assert_eq!(frame[26..30], ip("10.0.2.1").octets());
        assert_eq!(frame[30..34], ip(wanted).octets());
        assert_eq!(frame[34..38], [0, 67, 0, 68]);
        assert_eq!(checksum(&frame[14..34]), 0);
    }
    // ARP: who is answered, with whose address, and who is not.
    let mut wire = Wire::tap(&g16);
    let mut ask = |target: &str, sender: &str, patience| {
        let question = arp(1, (mac(16), ip(sender)), (MacAddr([0; 6]), ip(target)));
        wire.send(&ethernet(MacAddr([0xff; 6]), mac(16), 0x0806, &question));
        let answer = |frame: &[u8]| {
            frame[12..14] == [8, 6] && frame[20..22] == [0, 2] && frame[28..32] == ip(target).octets()
        };
        wire.wait(patience, answer).map(|frame| frame[22..28].to_vec())
    };
    for (target, wanted) in [
        ("10.0.1.1", MacAddr::ROUTER),
        ("10.0.1.2", MacAddr::ROUTER),
        ("10.0.1.11", mac(17)),
        ("169.254.169.254", MacAddr::ROUTER),
    ] {
        assert_eq!(ask(target, "10.0.1.10", PATIENCE).unwrap(), wanted.0, "{target}");
        assert_eq!(ask(target, "0.0.0.0", PATIENCE).unwrap(), wanted.0, "probe for {target}");
    }
    for target in ["10.0.1.10", "10.0.1.99", "10.0.2.10", "8.8.8.8"] {
        assert_eq!(ask(target, "10.0.1.10", Duration::from_millis(100)), None, "{target}");
    }
}

#[test]
fn the_host_is_guarded() {
    let mut lab = Lab::new(&one_vpc());
    let (world, host, g16) = (lab.add_world(), lab.host(), lab.guest(16));
    let guard = netfilter::HostGuard {
        meta: netfilter::Device::new(service::META_DEVICE).unwrap(),
        ext: netfilter::Device::new(service::EXT_DEVICE).unwrap(),
        pool: net("203.0.113.0/24"),
        reachable: vec![],
        servers: vec![],
        control: vec![],
        open: false,
        masquerade: true,
    };
    let private = "192.168.77.1/24";
    add_address(&host, "up0", private);
    add_address(&world, "eth0", "192.168.77.2/24");
    greeter(&host, "0.0.0.0:8080");
    greeter(&host, &format!("{}:{}", service::METADATA, service::METADATA_LISTEN));
    greeter(&world, "0.0.0.0:9090");
    greeter(&g16, "0.0.0.0:22");
    // Without the guard the host is open to its guests: the test can tell the difference.
    assert!(reaches(&g16, "203.0.113.1:8080"));
    assert!(reaches(&g16, "192.168.77.2:9090"));
    for _ in 0..2 {
        nft(&host, &netfilter::render(&guard));
    }
    // Nothing on the host, by any of its addresses.
    for address in ["203.0.113.1", "198.51.100.1", "192.168.77.1"] {
        assert!(is_cut_off(&g16, &format!("{address}:8080")), "{address}");
        assert!(pings_in_vain(&g16, address), "{address}");
    }
    // Out to the world, behind the host's address; not to private networks there, unless they are named.
    assert!(greeted(&g16, &format!("{OUTSIDE}:9090"), PATIENCE).unwrap().starts_with("198.51.100.1:"));
    assert!(pings(&g16, OUTSIDE));
    assert!(is_cut_off(&g16, "192.168.77.2:9090"));
    let named = netfilter::HostGuard { reachable: vec![net("192.168.77.2/32")], ..guard.clone() };
    nft(&host, &netfilter::render(&named));
    assert!(reaches(&g16, "192.168.77.2:9090"));
    // Nor to a port of the control plane, which may have a public address.
    let serving =
        netfilter::HostGuard { control: vec!["198.51.100.2:9090".parse().unwrap()], ..guard.clone() };
    nft(&host, &netfilter::render(&serving));
    assert!(is_cut_off(&g16, &format!("{OUTSIDE}:9090")) && pings(&g16, OUTSIDE));
    nft(&host, &netfilter::render(&guard));
    // The host reaches its guests; the world beyond does not begin anything.
    assert!(reaches(&host, &format!("{PUBLIC}:22")) && pings(&host, PUBLIC));
    assert!(is_cut_off(&world, &format!("{PUBLIC}:22")));
    // Services: their own ports, from guests; not for the neighbours on the host's network.
    assert!(reaches(&g16, "169.254.169.254:80"));
    add_route(&world, &service::NETWORK.to_string(), "198.51.100.1");
    assert!(is_cut_off(&world, &format!("{}:{}", service::METADATA, service::METADATA_LISTEN)));
    // The host's own traffic is its own business.
    assert!(reaches(&host, &format!("{OUTSIDE}:9090")) && reaches(&world, "198.51.100.1:8080"));
    nft(&host, &netfilter::render_removal());
    assert!(reaches(&world, &format!("{PUBLIC}:22")));
}

#[test]
fn connections_survive_the_death_of_the_switch() {
    let whole = one_vpc();
    let mut lab = Lab::new(&whole);
    let (g16, g18) = (lab.guest(16), lab.guest(18));
    let listener = listen(&g18, "0.0.0.0:5432");
    // 18 may begin nothing, so what it pushes is an answer or nothing.
    let mut client = connect(&g16, "10.0.2.10:5432", PATIENCE).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"a").unwrap();
    let mut letter = [0];
    client.read_exact(&mut letter).unwrap();

    lab.murder_switch(&whole, Mirror::Accepting);
    server.write_all(b"b").unwrap();
    client.set_read_timeout(Some(PATIENCE * 4)).unwrap();
    let before = Instant::now();
    client.read_exact(&mut letter).unwrap();
    println!("a server's push took {:?} after the switch was back", before.elapsed());
    // What no rule allows either way round is not let in by the window.
    greeter(&g18, "0.0.0.0:5433");
    assert!(is_cut_off(&g16, "10.0.2.10:5433"));
    assert!(pings_in_vain(&g18, "10.0.1.10"));

    // After the window it lives on, both ways, until its rule goes.
    lab.apply(&whole, Mirror::Keeping);
    client.write_all(b"c").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    server.read_exact(&mut letter).unwrap();
    server.write_all(b"d").unwrap();
    client.read_exact(&mut letter).unwrap();
    let mut revoked = one_vpc();
    revoked.doc.groups[1].rules.remove(0);
    lab.apply(&revoked, Mirror::Keeping);
    server.write_all(b"e").unwrap();
    client.set_read_timeout(Some(SILENCE)).unwrap();
    assert!(client.read_exact(&mut letter).is_err());
}
