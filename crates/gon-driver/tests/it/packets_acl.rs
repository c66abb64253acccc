//! Network ACLs on real packets: stateless, at the subnet's edge, on each node for its own end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use gon_net::pipeline::Stage;
use gon_net::{Mirror, service};
use gon_types::MacAddr;

use crate::packets_lab::*;
use crate::topology::{Topology, allow, entry, ip, mac, underlay, via_gateway};

const ALL: [&str; 2] = ["100 in allow all 0.0.0.0/0", "100 out allow all 0.0.0.0/0"];

/// 16 and 17 in one subnet, 18 in another; groups that allow everything. What ACL 8 of the first and ACL 9 of the second
/// say.
fn guarded(first: &[&str], second: &[&str]) -> Topology {
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
        .guarded(11, 8)
        .guarded(12, 9)
}

/// Whether a byte arrives.
fn arrives(from: &mut TcpStream, to: &mut TcpStream, patience: Duration) -> bool {
    to.set_read_timeout(Some(patience)).unwrap();
    from.write_all(b"x").unwrap();
    to.read_exact(&mut [0]).is_ok()
}

#[test]
fn an_acl_judges_every_packet_for_itself() {
    let open = guarded(&ALL, &ALL);
    let mut lab = Lab::new(&open);
    let (g16, g17, g18) = (lab.guest(16), lab.guest(17), lab.guest(18));
    let listener = listen(&g18, "0.0.0.0:22");
    let mut client = connect(&g16, "10.0.2.10:22", PATIENCE).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    assert!(arrives(&mut client, &mut server, PATIENCE) && arrives(&mut server, &mut client, PATIENCE));

    // In is allowed, out is not: what the client sends on the open connection arrives, the answers do not.
    let inward = ["10 in allow tcp 22 0.0.0.0/0"];
    lab.apply(&guarded(&ALL, &inward), Mirror::Off);
    assert!(!arrives(&mut server, &mut client, SILENCE));
    assert!(arrives(&mut client, &mut server, PATIENCE));
    assert!(is_cut_off(&g17, "10.0.2.10:22"), "SSH hangs without an entry for the answers");
    // Ephemeral ports out: it goes on where it was, and new ones begin.
    let both = ["10 in allow tcp 22 0.0.0.0/0", "10 out allow tcp 1024-65535 0.0.0.0/0"];
    lab.apply(&guarded(&ALL, &both), Mirror::Off);
    client.set_read_timeout(Some(PATIENCE * 2)).unwrap();
    client.read_exact(&mut [0]).unwrap();
    assert!(arrives(&mut server, &mut client, PATIENCE));
    greeter(&g18, "0.0.0.0:80");
    assert!(is_cut_off(&g16, "10.0.2.10:80") && pings_in_vain(&g16, "10.0.2.10"));
    // A bug in the list would be seen: the entry for port 22 lets everything of TCP in.
    let acl_in = Stage::AclIn;
    lab.plant(acl_in, &["tp_dst=22"], |conditions| conditions.replace(",tp_dst=22", ""));
    assert!(reaches(&g16, "10.0.2.10:80"));
    lab.weed();
    assert!(is_cut_off(&g16, "10.0.2.10:80"));

    // A denial of a lower number cuts what is open at once, the way in; of a higher number it says nothing.
    let denied = [both[0], both[1], "5 in deny tcp 20-30 10.0.1.10/32"];
    lab.apply(&guarded(&ALL, &denied), Mirror::Off);
    assert!(!arrives(&mut client, &mut server, SILENCE));
    lab.apply(&guarded(&ALL, &[both[0], both[1], "15 in deny tcp 20-30 10.0.1.10/32"]), Mirror::Off);
    server.set_read_timeout(Some(PATIENCE * 2)).unwrap();
    server.read_exact(&mut [0]).unwrap();

    // Within the subnet nothing of this is asked.
    lab.apply(&guarded(&[], &[]), Mirror::Off);
    greeter(&g17, "0.0.0.0:1000");
    assert!(reaches(&g16, "10.0.1.11:1000"));
    assert_eq!(ping(&g17, "10.0.1.10", 4000, PATIENCE), Some(64));
    assert!(pings_in_vain(&g16, "10.0.2.10") && pings_in_vain(&lab.host(), "203.0.113.10"));

    // In pieces: all of them where no port matters. One port denied, and no piece passes: the first one of a packet to
    // that port is dropped, and must not be taken along by those after it.
    let whole = ["10 in allow udp 10.0.1.0/24"];
    lab.apply(&guarded(&ALL, &whole), Mirror::Off);
    let (from, seven, eight) = (udp(&g16, "0.0.0.0:5000"), udp(&g18, "0.0.0.0:7"), udp(&g18, "0.0.0.0:8"));
    let (large, mut buffer) = ([7; 5000], [0; 65536]);
    from.send_to(&large, "10.0.2.10:7").unwrap();
    assert_eq!(seven.recv(&mut buffer).unwrap(), large.len());
    for denied in ["5 in deny udp 8 0.0.0.0/0", "5 in deny udp 0-8 10.0.1.10/32"] {
        lab.apply(&guarded(&ALL, &[denied, whole[0]]), Mirror::Off);
        eight.set_read_timeout(Some(SILENCE)).unwrap();
        from.send_to(&large, "10.0.2.10:8").unwrap();
        assert!(eight.recv(&mut buffer).is_err(), "{denied}");
    }
}

#[test]
fn an_acl_cannot_block_what_the_node_answers() {
    let deny = ["1 in deny all 0.0.0.0/0", "1 out deny all 0.0.0.0/0"];
    let lab = Lab::new(&guarded(&deny, &deny));
    let (g16, host) = (lab.guest(16), lab.host());
    let mut buffer = [0; 1500];
    greeter(&host, &format!("{}:{}", service::METADATA, service::METADATA_LISTEN));
    assert!(greeted(&g16, "169.254.169.254:80", PATIENCE).is_some());
    let resolver = udp(&host, &format!("{}:{}", service::DNS_SUBNET, service::DNS_LISTEN));
    let client = udp(&g16, "0.0.0.0:0");
    client.send_to(b"question", "10.0.1.2:53").unwrap();
    let (_, from) = resolver.recv_from(&mut buffer).unwrap();
    resolver.send_to(b"answer", from).unwrap();
    assert_eq!(client.recv(&mut buffer).unwrap(), 6);
    let server = udp(&host, &format!("{}:{}", service::DHCP, service::DHCP_LISTEN));
    let mut wire = Wire::tap(&g16);
    let packet = ipv4(ip("0.0.0.0"), ip("255.255.255.255"), 17, &datagram(68, 67, b"discover"));
    wire.send(&ethernet(MacAddr([0xff; 6]), mac(16), 0x0800, &packet));
    let (_, from) = server.recv_from(&mut buffer).unwrap();
    server.send_to(b"an-offer", from).unwrap();
    assert!(wire.wait(PATIENCE, |frame| frame.windows(8).any(|w| w == b"an-offer")).is_some());
    // ARP and the router's echo.
    assert_eq!(ping(&g16, "10.0.1.1", 56, PATIENCE), Some(64));
    assert_eq!(ping(&g16, "10.0.1.11", 56, PATIENCE), Some(64));
    assert!(pings_in_vain(&g16, "10.0.2.10"));
}

#[test]
fn each_node_guards_its_own_end() {
    const PLACE: &[(u16, u32)] = &[(16, 1), (17, 2), (18, 2)];
    let fabric = Fabric::new();
    let open = guarded(&ALL, &ALL);
    let mut labs: Vec<Lab> = (1..=2).map(|n| Lab::node(&open.on_node(n, PLACE), n, &fabric)).collect();
    for (from, to) in [(0, 2), (1, 1)] {
        assert!(pings(&labs[from].host(), &underlay(to).to_string()));
    }
    let (g16, g17, g18) = (labs[0].guest(16), labs[1].guest(17), labs[1].guest(18));
    greeter(&g18, "0.0.0.0:80");
    assert!(reaches(&g16, "10.0.2.10:80"));
    // Only the receiver's node is told of its subnet's new list: it is the one that asks it.
    let closed = guarded(&ALL, &["10 in deny tcp 80 10.0.1.10/32", ALL[0], ALL[1]]);
    labs[1].apply(&closed.on_node(2, PLACE), Mirror::Off);
    assert!(is_cut_off(&g16, "10.0.2.10:80"));
    assert!(pings(&g16, "10.0.2.10") && reaches(&g17, "10.0.2.10:80"));
    // Only the sender's.
    labs[1].apply(&open.on_node(2, PLACE), Mirror::Off);
    assert!(reaches(&g16, "10.0.2.10:80"));
    let closed = guarded(&["10 out deny tcp 80 10.0.2.0/24", ALL[0], ALL[1]], &ALL);
    labs[0].apply(&closed.on_node(1, PLACE), Mirror::Off);
    assert!(is_cut_off(&g16, "10.0.2.10:80") && pings(&g16, "10.0.2.10"));
    // Within one subnet neither is asked, node or no node between.
    for (n, lab) in (1..).zip(&mut labs) {
        lab.apply(&guarded(&[], &[]).on_node(n, PLACE), Mirror::Off);
    }
    assert_eq!(ping(&g16, "10.0.1.11", 56, PATIENCE), Some(64));
    assert_eq!(ping(&g17, "10.0.1.10", 4000, PATIENCE), Some(64));
    assert!(pings_in_vain(&g16, "10.0.2.10"));
}
