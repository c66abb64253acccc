//! Interfaces with several addresses against real packets.

use gon_net::{Mirror, service};

use crate::packets_lab::*;
use crate::topology::{Topology, allow, ip, mac};

fn site() -> Topology {
    Topology::new()
        .vpc(1, "10.0.0.0/16", false)
        .subnet(11, 1, "10.0.1.0/24", vec![])
        .subnet(12, 1, "10.0.2.0/24", vec![])
        .group(1, 1, vec![allow(1, "in all from sg 1"), allow(2, "out all from 0.0.0.0/0")])
        .port(16, 11, "10.0.1.10", &[1], None)
        .port(17, 11, "10.0.1.11", &[1], None)
        .port(18, 12, "10.0.2.10", &[1], None)
}

#[test]
fn a_further_address_is_reached_and_speaks_while_it_is_assigned() {
    let (without, with) = (site(), site().also(17, "10.0.1.20"));
    let mut lab = Lab::new(&without);
    let (g16, g17, g18) = (lab.guest(16), lab.guest(17), lab.guest(18));
    add_address(&g17, "eth0", "10.0.1.20/24");
    greeter(&g17, "10.0.1.20:22");
    // The guest has taken it by itself: nothing reaches it, and nothing leaves from it.
    assert!(is_cut_off(&g16, "10.0.1.20:22"));
    assert!(is_cut_off(&g18, "10.0.1.20:22"));
    lab.apply(&with, Mirror::Off);
    assert!(reaches(&g16, "10.0.1.20:22"), "a neighbour");
    assert!(reaches(&g18, "10.0.1.20:22"), "through the router");
    assert_eq!(neighbour_mac(&g16, ip("10.0.1.20")), mac(17));
    assert!(pings(&g16, "10.0.1.11") && pings(&g16, "10.0.1.20"));
    // Taken off: cut at once.
    lab.apply(&without, Mirror::Off);
    assert!(is_cut_off(&g18, "10.0.1.20:22"));
    assert!(pings(&g16, "10.0.1.11"));
}

#[test]
fn local_services_answer_to_the_address_that_asked() {
    let lab = Lab::new(&site().also(17, "10.0.1.20").also(17, "10.0.1.21"));
    let (guest, host) = (lab.guest(17), lab.host());
    for address in ["10.0.1.20", "10.0.1.21"] {
        add_address(&guest, "eth0", &format!("{address}/24"));
    }
    greeter(&host, &format!("{}:{}", service::METADATA, service::METADATA_LISTEN));
    let server = udp(&host, &format!("{}:{}", service::DNS_SUBNET, service::DNS_LISTEN));
    let mut buffer = [0; 100];
    for (n, address) in ["10.0.1.11", "10.0.1.20", "10.0.1.21"].into_iter().enumerate() {
        let known = service::source(17, n).unwrap();
        let client = udp(&guest, &format!("{address}:0"));
        client.send_to(b"question", "10.0.1.2:53").unwrap();
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from.ip()), (&b"question"[..], known.into()));
        server.send_to(b"answer", from).unwrap();
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from.to_string()), (&b"answer"[..], "10.0.1.2:53".to_owned()));
    }
    // A whole connection from a further one.
    add_route_from(&guest, "169.254.169.254", "10.0.1.1", "10.0.1.21");
    let seen = greeted(&guest, "169.254.169.254:80", PATIENCE).unwrap();
    assert!(seen.starts_with(&format!("{}:", service::source(17, 2).unwrap())), "{seen}");
}
