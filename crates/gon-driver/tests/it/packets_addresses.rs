//! Interfaces with several addresses against real packets.

use gon_net::Mirror;

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
