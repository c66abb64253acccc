//! The isolation matrix: two VPCs of the same addresses on the same two nodes, everything that a guest can put on its wire,
//! and who hears it.
//!
//! It is a table: a frame, who sends it, and the exact list of who is to hear it; for nearly all of them that is nobody. Every
//! frame carries a number, and everybody listens to everything: all guests of both VPCs, the nodes' local services, their
//! ways out, the wire between them and a stranger on it. So each row is checked at every place, and rows that are heard (each
//! VPC's own traffic) show that the way is open and the ears are. Planted bugs show that a hole would be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gon_net::pipeline::Stage;
use gon_net::{Mirror, netfilter, service};
use gon_types::MacAddr;
use gon_types::id::VpcId;
use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nameindex;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket};

use crate::packets_lab::*;
use crate::topology::{EXT_MAC, META_MAC, Topology, allow, id, ip, mac, net, underlay, via_gateway};

/// Guests of the first VPC: number, node, subnet, address. Those with public addresses are 17 and its twin.
const FIRST: [(u16, u32, u32, &str); 5] = [
    (16, 1, 11, "10.0.1.10"),
    (17, 1, 11, "10.0.1.11"),
    (18, 2, 11, "10.0.1.12"),
    (19, 2, 11, "10.0.1.13"),
    (20, 2, 12, "10.0.2.10"),
];
/// Each has a twin in the second VPC, of the same address on the same node, whose number is so much higher.
const TWIN: u16 = 14;
const ALL: MacAddr = MacAddr([0xff; 6]);
const ROUTER: MacAddr = MacAddr::ROUTER;

#[derive(Clone, Copy)]
struct Guest {
    no: u16,
    vpc: u32,
    node: u32,
    ip: Ipv4Addr,
    mac: MacAddr,
}

/// With `alike`, twins have the same MAC address, too. (MAC addresses are unique in a VPC, and need not be beyond it.)
fn guest(no: u16, alike: bool) -> Guest {
    let first = if no >= FIRST[0].0 + TWIN { no - TWIN } else { no };
    let (_, node, _, address) = FIRST.into_iter().find(|g| g.0 == first).unwrap();
    let vpc = if no == first { 1 } else { 2 };
    Guest { no, vpc, node, ip: ip(address), mac: mac(if alike { first } else { no }) }
}

fn twin(no: u16, alike: bool) -> Guest {
    guest(if FIRST.iter().any(|g| g.0 == no) { no + TWIN } else { no - TWIN }, alike)
}

fn place() -> Vec<(u16, u32)> {
    FIRST.iter().flat_map(|(no, node, ..)| [(*no, *node), (no + TWIN, *node)]).collect()
}

/// Groups, ACLs and routes let everything through: what keeps the two apart is that they are two.
fn open_site(alike: bool) -> Topology {
    let mut site = Topology::new();
    for vpc in [1, 2] {
        let way_out = || vec![via_gateway("0.0.0.0/0", vpc)];
        site = site
            .vpc(vpc, "10.0.0.0/16", true)
            .subnet(vpc * 10 + 1, vpc, "10.0.1.0/24", way_out())
            .subnet(vpc * 10 + 2, vpc, "10.0.2.0/24", way_out())
            .group(
                vpc,
                vpc,
                vec![allow(vpc * 2, "in all from 0.0.0.0/0"), allow(vpc * 2 + 1, "out all from 0.0.0.0/0")],
            );
    }
    for (no, _, subnet, address) in FIRST {
        let public = |address| (no == 17).then_some(address);
        site = site.port(no, subnet, address, &[1], public("203.0.113.10")).port(
            no + TWIN,
            subnet + 10,
            address,
            &[2],
            public("203.0.113.11"),
        );
    }
    if alike {
        let first_of = |mac: MacAddr| MacAddr([0x02, 0, 0, 0, 0, mac.0[5] - TWIN.to_be_bytes()[1]]);
        for port in site.doc.ports.iter_mut().filter(|p| p.port_no >= 16 + TWIN) {
            port.mac = first_of(port.mac);
        }
        let second: VpcId = id(2);
        for address in site.doc.addresses.iter_mut().filter(|a| a.vpc == second) {
            address.mac = first_of(address.mac);
        }
    }
    site
}

/// A frame, its number, who sends it (0: the stranger), and who is to hear it.
struct Row {
    name: String,
    from: u16,
    mark: u32,
    frame: Vec<u8>,
    heard: BTreeSet<String>,
}

const MARK: &[u8] = b"gon-cell";

fn row(
    from: u16,
    name: impl Into<String>,
    heard: impl IntoIterator<Item = String>,
    frame: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Row {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let mark = NEXT.fetch_add(1, Ordering::Relaxed);
    let frame = frame(&[MARK, &mark.to_be_bytes()].concat());
    Row { name: name.into(), from, mark, frame, heard: heard.into_iter().collect() }
}

fn mark_in(frame: &[u8]) -> Option<u32> {
    let at = frame.windows(MARK.len()).position(|w| w == MARK)? + MARK.len();
    Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().unwrap()))
}

fn geneve(key: u32, inner: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = key.to_be_bytes();
    [&[0, 0, 0x65, 0x58, a, b, c, 0][..], inner].concat()
}

/// A UDP frame as `from` sends it to `to`, without a router between.
fn honest(from: Guest, to: Guest, mark: &[u8]) -> Vec<u8> {
    ethernet(to.mac, from.mac, 0x0800, &ipv4(from.ip, to.ip, 17, &datagram(9, 9, mark)))
}

/// ICMPv6 from a link-local address to one of them, or to all nodes.
fn icmp6(from: MacAddr, to: Option<MacAddr>, kind: u8, rest: &[u8]) -> Vec<u8> {
    let link_local = |mac: MacAddr| [&[0xfe, 0x80][..], &[0; 8], &mac.0].concat();
    let source = link_local(from);
    let all_nodes = || [&[0xff, 0x02][..], &[0; 13], &[1]].concat();
    let target = to.map_or_else(all_nodes, link_local);
    let mut message = [&[kind, 0, 0, 0], rest].concat();
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    let pseudo = [&source[..], &target, &[0, 0], &length, &[0, 0, 0, 58], &message].concat();
    message[2..4].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    let header = [&[0x60, 0, 0, 0][..], &length, &[58, 255], &source, &target].concat();
    let hop = to.unwrap_or(MacAddr([0x33, 0x33, 0, 0, 0, 1]));
    ethernet(hop, from, 0x86dd, &[header, message].concat())
}

/// An offer of a DHCP server, with everything a client would take.
fn offer(from: Ipv4Addr, mark: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..4].copy_from_slice(&[2, 1, 6, 0]);
    message[16..20].copy_from_slice(&[10, 0, 1, 77]);
    message.extend([99, 130, 83, 99, 53, 1, 2, 54, 4]);
    message.extend(from.octets());
    message.extend([3, 4]);
    message.extend(from.octets());
    message.push(255);
    message.extend(mark);
    datagram(67, 68, &message)
}

/// What one guest can send.
fn table(from: u16, alike: bool) -> Vec<Row> {
    let me = guest(from, alike);
    let offset = if me.vpc == 1 { 0 } else { TWIN };
    let [near, far, over] =
        if me.node == 1 { [17, 18, 20] } else { [19, 16, 20] }.map(|no| guest(no + offset, alike));
    let (me_too, near_too, far_too) = (twin(from, alike), twin(near.no, alike), twin(far.no, alike));
    let mut rows = vec![];

    // What is to be heard, and by whom.
    let reaches = |it: Guest| {
        let wire = (it.node != me.node).then(|| format!("wire{} key {}", me.node, me.vpc));
        [Some(it.no.to_string()), wire].into_iter().flatten().collect::<Vec<_>>()
    };
    let told = |mac: MacAddr| vec![format!("{} is told {mac}", me.no)];
    let to_services = || vec![format!("meta{} as {}", me.node, me.no)];
    let udp = move |hop: MacAddr, to: Ipv4Addr, ports: (u16, u16)| {
        move |m: &[u8]| ethernet(hop, me.mac, 0x0800, &ipv4(me.ip, to, 17, &datagram(ports.0, ports.1, m)))
    };
    let tcp = move |hop: MacAddr, from: Ipv4Addr, to: Ipv4Addr, port: u16| {
        move |m: &[u8]| {
            let rest = [0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0x40, 0, 0, 0, 0, 0];
            let syn = [&[0xc0, 0][..], &port.to_be_bytes(), &rest, m].concat();
            ethernet(hop, me.mac, 0x0800, &ipv4(from, to, 6, &syn))
        }
    };
    let arp_frame = move |hop: MacAddr, op, sender, target| {
        move |m: &[u8]| ethernet(hop, me.mac, 0x0806, &[&arp(op, sender, target)[..], m].concat())
    };
    let nobody = MacAddr([0; 6]);
    let mut hears = |name: &str, heard: Vec<String>, frame: &dyn Fn(&[u8]) -> Vec<u8>| {
        rows.push(row(from, name, heard, frame));
    };
    hears("a neighbour on the node", reaches(near), &|m| honest(me, near, m));
    hears("a neighbour on the other node", reaches(far), &|m| honest(me, far, m));
    hears("another subnet", reaches(over), &udp(ROUTER, over.ip, (9, 9)));
    hears("a neighbour by way of the router", reaches(near), &udp(ROUTER, near.ip, (9, 9)));
    for (name, it) in [("ARP for a neighbour on the node", near), ("ARP for one on the other node", far)] {
        hears(name, told(it.mac), &arp_frame(ALL, 1, (me.mac, me.ip), (nobody, it.ip)));
    }
    hears("ARP for the router", told(ROUTER), &arp_frame(ALL, 1, (me.mac, me.ip), (nobody, ip("10.0.1.1"))));
    hears("the router's echo", vec![me.no.to_string()], &|m| {
        let echo = ipv4(me.ip, ip("10.0.1.1"), 1, &[&[8, 0, 0, 0, 0, 1, 0, 1], m].concat());
        ethernet(ROUTER, me.mac, 0x0800, &echo)
    });
    hears("metadata", to_services(), &tcp(ROUTER, me.ip, service::GUEST_METADATA, 80));
    hears("DNS", to_services(), &udp(ROUTER, ip("10.0.1.2"), (1053, 53)));
    hears("DHCP", to_services(), &|m| {
        let discover = ipv4(ip("0.0.0.0"), ip("255.255.255.255"), 17, &datagram(68, 67, m));
        ethernet(ALL, me.mac, 0x0800, &discover)
    });
    // By the other VPC's MAC: nobody, unless a neighbour of our own has the same.
    let same = |it: Guest| if alike { reaches(it) } else { vec![] };
    hears("a MAC of the other VPC on the node", same(near), &udp(near_too.mac, near.ip, (9, 9)));
    hears("a MAC of the other VPC on the other node", same(far), &udp(far_too.mac, far.ip, (9, 9)));

    // From here on nobody is to hear anything.
    let mut crosses = |name: String, frame: &dyn Fn(&[u8]) -> Vec<u8>| rows.push(row(from, name, [], frame));
    let multicast = MacAddr([1, 0, 0x5e, 0, 0, 251]);
    for (name, hop, to) in [
        ("the twin's own address", me_too.mac, me.ip),
        ("the router of another subnet", ROUTER, ip("10.0.2.1")),
        ("an address nobody has", ROUTER, ip("10.0.1.99")),
        ("a neighbour's address at another's MAC", far.mac, near.ip),
        (
            "the other VPC's public address",
            ROUTER,
            ip(if me.vpc == 1 { "203.0.113.11" } else { "203.0.113.10" }),
        ),
        ("an address far away", ROUTER, ip("198.51.100.7")),
        ("broadcast of the subnet", ALL, ip("10.0.1.255")),
        ("broadcast", ALL, ip("255.255.255.255")),
        ("a broadcast frame to a neighbour", ALL, near.ip),
        ("a broadcast frame to one on the other node", ALL, far.ip),
        ("a multicast frame to a neighbour", multicast, near.ip),
        ("all hosts", MacAddr([1, 0, 0x5e, 0, 0, 1]), ip("224.0.0.1")),
        ("mDNS", multicast, ip("224.0.0.251")),
        ("multicast by way of the router", ROUTER, ip("239.1.2.3")),
        ("loopback", ROUTER, ip("127.0.0.1")),
    ] {
        crosses(name.to_owned(), &udp(hop, to, (9, 9)));
    }

    // IPv6: nobody has it, so nobody is told anything by it.
    let prefix =
        [&[3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0, 0x20, 1, 0xd, 0xb8][..], &[0; 12]].concat();
    let advertisement = [&[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], &prefix].concat();
    let about = [&[0, 0, 0, 0, 0xfe, 0x80][..], &[0; 14]].concat();
    for (name, to) in [
        ("to all", None),
        ("to a neighbour", Some(near.mac)),
        ("to one on the other node", Some(far.mac)),
        ("to the other VPC", Some(near_too.mac)),
    ] {
        for (what, kind, rest) in [
            ("router solicitation", 133, &[0; 4][..]),
            ("router advertisement", 134, &advertisement[..]),
            ("neighbour solicitation", 135, &about[..]),
            ("neighbour advertisement", 136, &about[..]),
            ("redirect", 137, &[0; 36][..]),
            ("echo", 128, &[0, 1, 0, 1][..]),
        ] {
            crosses(format!("{what} {name}"), &|m| icmp6(me.mac, to, kind, &[rest, m].concat()));
        }
    }
    // Other kinds of frames, and tags that name the other's key.
    for eth_type in
        [0x8035_u16, 0x8847, 0x8863, 0x8864, 0x88cc, 0x88e5, 0x0842, 0x9000, 0x6558, 0x05dc, 0x0001]
    {
        for (name, hop) in [("", near.mac), (" to the other VPC", near_too.mac), (" to all", ALL)] {
            crosses(format!("EtherType {eth_type:04x}{name}"), &|m| ethernet(hop, me.mac, eth_type, m));
        }
    }
    for (tpid, tag) in [(0x8100_u16, 1_u16), (0x8100, 2), (0x8100, 0), (0x88a8, 1), (0x88a8, 2)] {
        for it in [near, far, near_too, far_too] {
            crosses(format!("tagged {tpid:04x} {tag} to {}", it.no), &|m| {
                let inner = honest(me, it, m);
                ethernet(it.mac, me.mac, tpid, &[&tag.to_be_bytes()[..], &inner[12..]].concat())
            });
        }
    }

    // Servers that are none.
    for (name, hop, to) in [
        ("to all", ALL, ip("255.255.255.255")),
        ("to a neighbour", near.mac, near.ip),
        ("to one on the other node", far.mac, far.ip),
        ("to the other VPC", near_too.mac, near.ip),
    ] {
        crosses(format!("DHCP offer {name}"), &|m| {
            ethernet(hop, me.mac, 0x0800, &ipv4(me.ip, to, 17, &offer(me.ip, m)))
        });
        crosses(format!("DHCP offer as the router {name}"), &|m| {
            ethernet(hop, ROUTER, 0x0800, &ipv4(ip("10.0.1.1"), to, 17, &offer(ip("10.0.1.1"), m)))
        });
    }

    // As somebody else: by MAC, by address, by both; to a neighbour here, one there, and the other VPC's.
    for (name, it) in
        [("to a neighbour", near), ("to one on the other node", far), ("to the other VPC", near_too)]
    {
        let forged = move |mac: MacAddr, from: Ipv4Addr| {
            move |m: &[u8]| ethernet(it.mac, mac, 0x0800, &ipv4(from, it.ip, 17, &datagram(9, 9, m)))
        };
        for (who, mac) in [
            ("a neighbour", near.mac),
            ("one on the other node", far.mac),
            ("the router", ROUTER),
            ("the services", META_MAC),
            ("a stranger", MacAddr([2, 9, 9, 9, 9, 9])),
            ("all", ALL),
        ] {
            crosses(format!("MAC of {who} {name}"), &forged(mac, me.ip));
        }
        if !alike {
            crosses(format!("MAC of the twin {name}"), &forged(me_too.mac, me.ip));
        }
        for (who, address) in [
            ("a neighbour", near.ip),
            ("one on the other node", far.ip),
            ("another subnet", over.ip),
            ("the router", ip("10.0.1.1")),
            ("the resolver", ip("10.0.1.2")),
            ("nobody", ip("10.0.1.99")),
            ("the unspecified", ip("0.0.0.0")),
            ("loopback", ip("127.0.0.1")),
            ("multicast", ip("224.0.0.1")),
            ("all", ip("255.255.255.255")),
            ("the metadata service", service::GUEST_METADATA),
            ("the metadata service on the node", service::METADATA),
            ("a guest on the node's side", service::link_local(near.no)),
            ("a public address", ip("203.0.113.10")),
            ("the node", underlay(me.node)),
            ("the other node", underlay(3 - me.node)),
        ] {
            crosses(format!("address of {who} {name}"), &forged(me.mac, address));
        }
        crosses(format!("MAC and address of a neighbour {name}"), &forged(near.mac, near.ip));
        crosses(format!("MAC and address of one on the other node {name}"), &forged(far.mac, far.ip));
    }
    let claims = [
        ("asks as a neighbour", 1, (me.mac, near.ip), (nobody, far.ip)),
        ("asks as a neighbour, by its MAC", 1, (near.mac, near.ip), (nobody, far.ip)),
        ("asks as the twin", 1, (MacAddr([2, 9, 9, 9, 9, 9]), me.ip), (nobody, near.ip)),
        ("tells its own address to all", 1, (me.mac, me.ip), (nobody, me.ip)),
        ("tells a neighbour's address to all", 1, (me.mac, near.ip), (nobody, near.ip)),
        ("answers for itself, unasked", 2, (me.mac, me.ip), (near.mac, near.ip)),
        ("answers for the router", 2, (me.mac, ip("10.0.1.1")), (near.mac, near.ip)),
        ("answers for a neighbour", 2, (me.mac, far.ip), (near.mac, near.ip)),
        ("answers for the metadata service", 2, (me.mac, service::GUEST_METADATA), (near.mac, near.ip)),
        ("asks for nobody", 1, (me.mac, me.ip), (nobody, ip("10.0.1.99"))),
        ("asks for another subnet", 1, (me.mac, me.ip), (nobody, over.ip)),
        ("asks for the node", 1, (me.mac, me.ip), (nobody, underlay(me.node))),
        ("asks for the other node", 1, (me.mac, me.ip), (nobody, underlay(3 - me.node))),
        ("asks for the node's services", 1, (me.mac, me.ip), (nobody, service::METADATA)),
        ("asks for the way out", 1, (me.mac, me.ip), (nobody, ip("203.0.113.1"))),
        ("asks for a public address", 1, (me.mac, me.ip), (nobody, ip("203.0.113.10"))),
    ];
    for (name, op, sender, target) in claims {
        for (whom, hop) in [
            ("all", ALL),
            ("a neighbour", near.mac),
            ("the other node", far.mac),
            ("the other VPC", near_too.mac),
        ] {
            crosses(format!("ARP, {name}, to {whom}"), &arp_frame(hop, op, sender, target));
        }
    }

    // The underlay, the nodes, what runs on them, and what others are told there.
    for (hop_name, hop) in
        [("the router", ROUTER), ("the node", EXT_MAC), ("the services", META_MAC), ("all", ALL)]
    {
        for (name, to, port) in [
            ("the node's end of tunnels", underlay(me.node), service::TUNNEL_UDP),
            ("the other node's end of tunnels", underlay(3 - me.node), service::TUNNEL_UDP),
            ("the node's control plane", underlay(me.node), 8443),
            ("the other node's control plane", underlay(3 - me.node), 8443),
            ("the node's way out", ip("203.0.113.1"), 8443),
            ("the node's metadata service", service::METADATA, service::METADATA_LISTEN),
            ("the node's resolver", service::DNS_SUBNET, service::DNS_LISTEN),
            ("the node's DHCP server", service::DHCP, service::DHCP_LISTEN),
            ("a neighbour on the node's side", service::link_local(near.no), 68),
            ("the twin on the node's side", service::link_local(me_too.no), 80),
        ] {
            crosses(format!("UDP to {name} by {hop_name}"), &udp(hop, to, (50_000, port)));
            crosses(format!("TCP to {name} by {hop_name}"), &tcp(hop, me.ip, to, port));
        }
        // As a node would send it: a frame of the other VPC in an envelope with its key.
        for to in [1, 2] {
            crosses(format!("Geneve to node {to} by {hop_name}"), &|m| {
                let inner = honest(me_too, if to == me.node { near_too } else { far_too }, m);
                let outer = datagram(50_000, service::TUNNEL_UDP, &geneve(me_too.vpc, &inner));
                ethernet(hop, me.mac, 0x0800, &ipv4(me.ip, underlay(to), 17, &outer))
            });
        }
    }
    for (name, source) in [
        ("a neighbour", near.ip),
        ("one on the other node", far.ip),
        ("the twin on the node's side", service::link_local(me_too.no)),
        ("itself on the node's side", service::link_local(me.no)),
    ] {
        for to in [service::GUEST_METADATA, service::METADATA] {
            crosses(format!("metadata {to} of {name}"), &tcp(ROUTER, source, to, 80));
        }
    }
    rows
}

/// Where somebody listens.
#[derive(Clone, Copy)]
enum Place {
    Guest(u16),
    Node(u32),
    Stranger,
}

/// Everything on every device of a namespace.
struct Ear {
    place: Place,
    socket: OwnedFd,
    devices: BTreeMap<usize, String>,
}

impl Ear {
    fn new(place: Place, ns: &str) -> Self {
        inside(ns, move || {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap();
            let all = if_nameindex().unwrap();
            let devices = all
                .iter()
                .map(|d| (usize::try_from(d.index()).unwrap(), d.name().to_string_lossy().into_owned()))
                .collect();
            Self { place, socket, devices }
        })
    }

    /// The next numbered frame: its number, and how it was heard, if that is of interest.
    fn next(&self) -> Option<(u32, String)> {
        let mut frame = [0; 2048];
        loop {
            let (n, from) = match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut frame) {
                Ok((n, Some(from))) => (n, from),
                Err(Errno::EAGAIN) => return None,
                other => panic!("{other:?}"),
            };
            let outgoing = from.pkttype() == libc::PACKET_OUTGOING;
            let device = self.devices.get(&from.ifindex()).map_or("?", String::as_str);
            if let Some(how) = self.hears(device, outgoing, &frame[..n])
                && let Some(mark) = mark_in(&frame[..n])
            {
                return Some((mark, how));
            }
        }
    }

    fn hears(&self, device: &str, outgoing: bool, frame: &[u8]) -> Option<String> {
        match (self.place, device, outgoing) {
            (Place::Guest(no), "eth0", false) => Some(match frame.get(12..28) {
                Some([8, 6, _, _, _, _, _, _, 0, 2, mac @ ..]) => {
                    format!("{no} is told {}", MacAddr(mac.try_into().unwrap()))
                }
                _ => no.to_string(),
            }),
            (Place::Stranger, "eth0", false) => Some("stranger".to_owned()),
            (Place::Node(n), "eth0", true) => Some(format!("wire{n} {}", envelope(n, frame))),
            (Place::Node(n), service::META_DEVICE, false) => {
                let source: [u8; 4] = frame.get(26..30)?.try_into().unwrap();
                let who = service::port_no(source.into()).map_or_else(|| "?".to_owned(), |no| no.to_string());
                Some(format!("meta{n} as {who}"))
            }
            (Place::Node(n), service::EXT_DEVICE, false) => Some(format!("ext{n}")),
            (Place::Node(n), service::UNDERLAY_BRIDGE | service::BRIDGE, false) => {
                Some(format!("{device} of node {n}"))
            }
            _ => None,
        }
    }
}

/// What a frame that a node puts on the wire is: one in an envelope to the other node, or naked.
fn envelope(node: u32, frame: &[u8]) -> String {
    let (from, to) = (underlay(node).octets(), underlay(3 - node).octets());
    let is = |at: usize, bytes: &[u8]| frame.get(at..at + bytes.len()) == Some(bytes);
    let between_nodes = is(12, &[8, 0, 0x45]) && is(23, &[17]) && is(26, &from) && is(30, &to);
    match frame.get(46..49) {
        Some(&[a, b, c]) if between_nodes && is(36, &service::TUNNEL_UDP.to_be_bytes()) => {
            format!("key {}", u32::from_be_bytes([0, a, b, c]))
        }
        _ => "naked".to_owned(),
    }
}

struct Site {
    labs: Vec<Lab>,
    /// By guest; 0 is the stranger's.
    wires: BTreeMap<u16, Wire>,
    ears: Vec<Ear>,
    /// Where the nodes are on the wire.
    nodes: [MacAddr; 2],
    _fabric: Fabric,
}

impl Site {
    fn new() -> Self {
        let mut fabric = Fabric::new();
        let stranger = fabric.neighbour("rogue", "192.0.2.66/24");
        let labs: Vec<Lab> =
            (1..=2).map(|n| Lab::node(&open_site(false).on_node(n, &place()), n, &fabric)).collect();
        let mut wires = BTreeMap::from([(0, Wire::tap(&stranger))]);
        let mut ears = vec![Ear::new(Place::Stranger, &stranger)];
        for (n, lab) in (1..).zip(&labs) {
            for (no, _) in place().into_iter().filter(|(_, node)| *node == n) {
                let ns = lab.guest(no);
                // Mute: a guest that answers would be one more that sends.
                let flushed = Command::new("ip").args(["-n", &ns, "addr", "flush", "dev", "eth0"]).status();
                assert!(flushed.unwrap().success());
                ears.push(Ear::new(Place::Guest(no), &ns));
                wires.insert(no, Wire::tap(&ns));
            }
            ears.push(Ear::new(Place::Node(n), &lab.host()));
        }
        let nodes = [1, 2].map(|n| {
            assert!(pings(&stranger, &underlay(n).to_string()));
            neighbour_mac(&stranger, underlay(n))
        });
        let site = Self { labs, wires, ears, nodes, _fabric: fabric };
        site.meet();
        site
    }

    fn meet(&self) {
        for (from, to) in [(0, 2), (1, 1)] {
            self.labs[from].meet(to);
        }
    }

    fn apply(&mut self, topology: &Topology) {
        for (n, lab) in (1..).zip(&mut self.labs) {
            lab.apply(&topology.on_node(n, &place()), Mirror::Off);
        }
    }

    fn listen(&self, heard: &mut BTreeMap<u32, BTreeSet<String>>) {
        for ear in &self.ears {
            while let Some((mark, how)) = ear.next() {
                if let Some(all) = heard.get_mut(&mark) {
                    all.insert(how);
                }
            }
        }
    }

    /// Sends everything, some times, and says which rows were not heard as they are to be.
    fn run(&mut self, rows: &[Row], patience: Duration) -> Vec<String> {
        let mut heard: BTreeMap<u32, BTreeSet<String>> =
            rows.iter().map(|r| (r.mark, BTreeSet::new())).collect();
        // More than once: the first frame of its kind is judged by the tables, others by what is cached then.
        for _ in 0..3 {
            for row in rows {
                self.wires.get_mut(&row.from).unwrap().send(&row.frame);
                std::thread::sleep(Duration::from_micros(100));
                self.listen(&mut heard);
            }
        }
        let (deadline, tick) = (Instant::now() + patience, Duration::from_millis(5));
        while rows.iter().any(|r| !r.heard.is_subset(&heard[&r.mark])) && Instant::now() < deadline {
            std::thread::sleep(tick);
            self.listen(&mut heard);
        }
        let quiet = Instant::now() + SILENCE;
        while Instant::now() < quiet {
            std::thread::sleep(tick);
            self.listen(&mut heard);
        }
        let wrong = rows.iter().filter(|r| heard[&r.mark] != r.heard);
        wrong
            .map(|r| format!("{}: {}: heard {:?}, not {:?}", r.from, r.name, heard[&r.mark], r.heard))
            .collect()
    }
}

/// Envelopes that the stranger sends to node 1: as the other node, or as others; with either key; of each VPC's guests.
fn envelopes(nodes: [MacAddr; 2], alike: bool) -> Vec<Row> {
    let mut rows = vec![];
    for key in [1, 2, 3, 0] {
        for offset in [0, TWIN] {
            let [to, near, from, other] = [16, 17, 18, 19].map(|no| guest(no + offset, alike));
            let own = twin(to.no, alike);
            let with_key = if key == to.vpc { to } else { own };
            let believed = [1, 2].contains(&key) && (alike || key == to.vpc);
            let udp = |mac, address, hop, m: &[u8]| {
                ethernet(hop, mac, 0x0800, &ipv4(address, to.ip, 17, &datagram(9, 9, m)))
            };
            let mut send = |name: &str, outer: Ipv4Addr, heard: bool, inner: &dyn Fn(&[u8]) -> Vec<u8>| {
                let heard = (heard && believed).then(|| with_key.no.to_string());
                let name = format!("envelope of {name}, VPC {}, key {key}", to.vpc);
                rows.push(row(0, name, heard, |m| {
                    let datagram = datagram(50_000, service::TUNNEL_UDP, &geneve(key, &inner(m)));
                    ethernet(nodes[0], nodes[1], 0x0800, &ipv4(outer, underlay(1), 17, &datagram))
                }));
            };
            let node = underlay(2);
            send("the other node", node, true, &|m| honest(from, to, m));
            send("a stranger", ip("192.0.2.66"), false, &|m| honest(from, to, m));
            send("the receiver's node", underlay(1), false, &|m| honest(from, to, m));
            send("a node that is none", underlay(3), false, &|m| honest(from, to, m));
            send("a sender of the receiver's node", node, false, &|m| honest(near, to, m));
            send("the receiver itself", node, false, &|m| honest(to, to, m));
            send("a forged MAC", node, false, &|m| udp(MacAddr([2, 9, 9, 9, 9, 9]), from.ip, to.mac, m));
            send("another's MAC", node, false, &|m| udp(other.mac, from.ip, to.mac, m));
            send("another's address", node, false, &|m| udp(from.mac, other.ip, to.mac, m));
            send("a forged address", node, false, &|m| udp(from.mac, ip("10.0.1.99"), to.mac, m));
            send("an outside address", node, false, &|m| udp(from.mac, ip("198.51.100.7"), to.mac, m));
            send("a broadcast frame", node, false, &|m| udp(from.mac, from.ip, ALL, m));
            send("a frame to the router", node, false, &|m| udp(from.mac, from.ip, ROUTER, m));
            send("a frame at another's MAC", node, false, &|m| udp(from.mac, from.ip, near.mac, m));
            send("an ARP answer", node, false, &|m| {
                let answer = arp(2, (from.mac, ip("10.0.1.1")), (to.mac, to.ip));
                ethernet(to.mac, from.mac, 0x0806, &[&answer[..], m].concat())
            });
            send("a router advertisement", node, false, &|m| {
                icmp6(from.mac, None, 134, &[&[64, 0, 7, 8][..], &[0; 8], m].concat())
            });
            send("a tagged frame", node, false, &|m| {
                let inner = honest(from, to, m);
                ethernet(to.mac, from.mac, 0x8100, &[&[0, 2][..], &inner[12..]].concat())
            });
            send("a question to metadata", node, false, &|m| {
                let question = ipv4(from.ip, service::GUEST_METADATA, 17, &datagram(9, 80, m));
                ethernet(ROUTER, from.mac, 0x0800, &question)
            });
        }
    }
    rows
}

const SENDERS: [u16; 4] = [16, 30, 18, 32];

/// What all of them send, by turns, so that no switch has more waiting at one port than it can hold.
fn tables(alike: bool) -> Vec<Row> {
    let mut tables = SENDERS.map(|from| table(from, alike).into_iter());
    let turns = std::iter::from_fn(|| Some(tables.each_mut().map(Iterator::next)));
    turns.take_while(|turn| turn.iter().any(Option::is_some)).flatten().flatten().collect()
}

/// A planted bug: on which node, which flow (of a stage, with these words) with what change; and the row that shows it: who
/// sends, what, and where it is heard then.
struct Hole {
    node: usize,
    stage: Stage,
    words: &'static [&'static str],
    change: Box<dyn Fn(&str) -> String>,
    row: (u16, &'static str),
    heard: &'static str,
}

/// The same conditions without one.
fn without(condition: &'static str) -> Box<dyn Fn(&str) -> String> {
    Box::new(move |flow| flow.split(',').filter(|c| !c.starts_with(condition)).collect::<Vec<_>>().join(","))
}

fn holes() -> [Hole; 4] {
    [
        // A port of the other VPC is found by packets of any.
        Hole {
            node: 0,
            stage: Stage::Locate,
            words: &["reg0=0x2", "reg1=0xa000100", "nw_dst=10.0.1.11"],
            change: without("reg0="),
            row: (16, "a neighbour on the node"),
            heard: "31",
        },
        // A guest sends by any MAC address.
        Hole {
            node: 0,
            stage: Stage::Admit,
            words: &["ip,in_port=16", "nw_src=10.0.1.10"],
            change: without("dl_src="),
            row: (16, "MAC of a neighbour to one on the other node"),
            heard: "wire1 key 1",
        },
        // By any address.
        Hole {
            node: 0,
            stage: Stage::Admit,
            words: &["ip,in_port=16", "nw_src=10.0.1.10"],
            change: without("nw_src="),
            row: (16, "address of another subnet to a neighbour"),
            heard: "17",
        },
        // One VPC's key is taken for the other's.
        Hole {
            node: 1,
            stage: Stage::Classify,
            words: &["tun_id=0x1,", "dl_src=02:00:00:00:00:00/02:00:00:00:00:00"],
            change: Box::new(|flow| flow.replace("tun_id=0x1,", "tun_id=0x2,")),
            row: (30, "a neighbour on the other node"),
            heard: "18",
        },
    ]
}

const NOTHING: [String; 0] = [];
/// How long a planted bug is given to silence somebody.
const BRIEFLY: Duration = Duration::from_millis(300);

#[test]
fn nothing_crosses_between_vpcs_of_the_same_addresses_on_the_same_nodes() {
    let mut site = Site::new();
    let begun = Instant::now();
    let mut cells = 0;
    for alike in [false, true] {
        site.apply(&open_site(alike));
        let rows = tables(alike);
        assert!(rows.iter().filter(|r| !r.heard.is_empty()).count() >= SENDERS.len() * 11);
        assert_eq!(site.run(&rows, PATIENCE), NOTHING, "alike: {alike}");
        let forged = envelopes(site.nodes, alike);
        assert_eq!(site.run(&forged, PATIENCE), NOTHING, "alike: {alike}");
        cells += (rows.len() + forged.len()) * site.ears.len();
        site.meet();
    }
    println!("{cells} cells in {:?}", begun.elapsed());

    // Holes, one at a time: each is seen, by the row that it is about.
    for Hole { node, stage, words, change, row: (from, name), heard } in holes() {
        site.labs[node].plant(stage, words, change);
        let found = site.run(&table(from, true), BRIEFLY);
        site.labs[node].weed();
        let row = found.iter().find(|line| line.contains(&format!(": {name}: ")));
        let what = row.and_then(|line| line.split(", not").next()).unwrap_or_default();
        assert!(what.contains(&format!("\"{heard}\"")), "{name} by {heard}: {found:#?}");
    }
    // Flows that are missing: what is to be heard is not.
    let mut less = open_site(true);
    less.doc.ports.retain(|p| p.port_no != 17);
    site.apply(&less);
    let found = site.run(&table(16, true), BRIEFLY);
    assert!(found.iter().any(|line| line.contains("a neighbour on the node: heard {}")), "{found:#?}");
    site.apply(&open_site(true));
    assert_eq!(site.run(&table(16, true), PATIENCE), NOTHING);

    a_way_out_is_none_to_the_nodes(&mut site);
}

/// A guest with a public address has a way out of the node, and the host is its next hop: there the packet filter decides.
fn a_way_out_is_none_to_the_nodes(site: &mut Site) {
    let (from, host) = (guest(17, true), site.labs[0].host());
    let guard = netfilter::HostGuard {
        meta: netfilter::Device::new(service::META_DEVICE).unwrap(),
        ext: netfilter::Device::new(service::EXT_DEVICE).unwrap(),
        pool: net("203.0.113.0/24"),
        reachable: vec![],
        servers: vec![underlay(2)],
        control: vec![],
        open: false,
        masquerade: true,
    };
    let text = netfilter::render(&guard) + &netfilter::render_tunnel(&[underlay(2)], None);
    inside(&host, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    let ports = [service::TUNNEL_UDP, 8443];
    let sockets = ports.map(|port| {
        let socket = udp(&host, &format!("0.0.0.0:{port}"));
        socket.set_nonblocking(true).unwrap();
        socket
    });
    let hear = |socket: &UdpSocket| {
        let mut count = 0;
        loop {
            match socket.recv(&mut [0; 2048]) {
                Ok(_) => count += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
                Err(error) => panic!("{error}"),
            }
        }
    };
    // In it is an honest frame of the other VPC, in an envelope with its key.
    let send = |to: Ipv4Addr, port: u16| {
        let name = format!("out to {to} port {port}");
        // In userspace whatever has an address of the host's is an end of tunnels, the way out, too: that envelope is opened by
        // the switch, and thrown away, for no node sends from a guest's public address.
        let opened = (to, port) == (ip("203.0.113.1"), service::TUNNEL_UDP);
        row(17, name, (!opened).then(|| "ext1".to_owned()), |m| {
            let inner = geneve(2, &honest(guest(30, true), guest(32, true), m));
            ethernet(ROUTER, from.mac, 0x0800, &ipv4(from.ip, to, 17, &datagram(50_000, port, &inner)))
        })
    };
    let to_host = || {
        let addresses = [underlay(1), ip("203.0.113.1")];
        addresses.into_iter().flat_map(|to| ports.map(|port| send(to, port))).collect::<Vec<_>>()
    };
    let to_other = || Vec::from(ports.map(|port| send(underlay(2), port)));

    nft(&host, &text);
    assert_eq!(site.run(&to_host(), PATIENCE), NOTHING);
    assert_eq!(site.run(&to_other(), PATIENCE), NOTHING);
    assert_eq!(sockets.each_ref().map(hear), [0, 0]);
    // Each of two lines keeps an envelope out that would come to the other node as from this one, which it believes; and the
    // second keeps everything else from the other node's ports.
    let about_tunnels = format!("udp dport {} counter drop", service::TUNNEL_UDP);
    let about_servers = format!("ip daddr {{ {}/32 }} counter drop", underlay(2));
    let less = |lines: &[&String]| {
        lines.iter().fold(text.clone(), |text, line| {
            assert!(text.contains(*line), "{line}");
            text.replace(*line, "counter")
        })
    };
    nft(&host, &less(&[&about_tunnels]));
    assert_eq!(site.run(&to_other(), PATIENCE), NOTHING);
    let naked = |site: &mut Site| {
        let found = site.run(&to_other(), BRIEFLY);
        let at_other = |l: &&String| l.contains("\"gon-under of node 2\"");
        (found.iter().filter(at_other).count(), found.iter().any(|l| l.contains("\"32\"")), found)
    };
    nft(&host, &less(&[&about_servers]));
    let (reached, believed, found) = naked(site);
    assert!(reached == 1 && !believed, "{found:#?}");
    nft(&host, &less(&[&about_tunnels, &about_servers]));
    let (_, believed, found) = naked(site);
    assert!(believed, "the lines are not what keeps it out: {found:#?}");
    // Without the guard the host hears it all.
    nft(&host, &netfilter::render_removal());
    site.run(&to_host(), BRIEFLY);
    assert!(sockets.each_ref().map(hear).iter().all(|count| *count >= 2));
    nft(&host, &text);
    assert_eq!(site.run(&to_other(), PATIENCE), NOTHING);
}
