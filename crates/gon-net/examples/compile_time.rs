//! How long a whole node takes to compile, to compare and to encode, by number of ports and by whose the rules are; and how
//! many flows that makes.
//!
//! `cargo run --release -p gon-net --example compile_time` prints the median of several runs. Goals: 1 000 ports compile
//! in at most 100 ms; 20 rules a port are at most 20 flows where a group is shared and 45 where each port has its own; a rule
//! added is one change, and so is a member.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for people")]

#[path = "../fixtures/topology.rs"]
mod topology;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use gon_net::{FlowTable, compile, diff, openflow};
use topology::{Topology, allow, facts_of, many_ports, via_gateway};

fn median(mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..15)
        .map(|_| {
            let before = Instant::now();
            run();
            before.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

/// A group of 20 rules for each port: 15 blocks, and 5 that name the group that all ports have besides.
fn own_groups(ports: u16) -> Topology {
    let routes = vec![via_gateway("0.0.0.0/0", 1)];
    let mut topology =
        Topology::new().vpc(1, "10.0.0.0/16", true).subnet(11, 1, "10.0.0.0/18", routes).group(1, 1, vec![]);
    for n in 0..u32::from(ports) {
        let rules = (0..20).map(|k| {
            let peer = if k < 15 { format!("10.{k}.0.0/16") } else { "sg 1".to_owned() };
            allow(1000 + n * 20 + k, &format!("in tcp {} from {peer}", 1000 + k))
        });
        topology = topology.group(n + 2, 1, rules.collect());
    }
    for n in 0..ports {
        let address = Ipv4Addr::from(0x0a00_0010 + u32::from(n)).to_string();
        topology = topology.port(16 + n, 11, &address, &[1, u32::from(n) + 2], None);
    }
    topology
}

fn main() {
    println!(
        "{:>7} {:>6} {:>7} {:>9} {:>12} {:>12} {:>12} {:>9} {:>7} {:>9}",
        "groups",
        "ports",
        "flows",
        "per port",
        "compile",
        "diff",
        "encode all",
        "bytes",
        "a rule",
        "a member"
    );
    type Make = fn(u16) -> Topology;
    for (name, make) in [("shared", many_ports as Make), ("own", own_groups as Make)] {
        let facts = facts_of(1);
        let base = compile(&make(1).doc, &facts).flows.len();
        for ports in [10, 100, 1000] {
            let topology = make(ports);
            let old = compile(&topology.doc, &facts);
            assert!(old.degraded.is_empty());
            let changed = |change: &dyn Fn(&mut Topology)| {
                let mut other = topology.clone();
                change(&mut other);
                compile(&other.doc, &facts)
            };
            let group = topology.doc.groups.len() - 1;
            let rule =
                changed(&|t| t.doc.groups[group].rules.push(allow(99, "in tcp 4000 from 10.3.0.0/16")));
            let member = changed(&|t| t.doc.groups[0].members.push(Ipv4Addr::new(10, 0, 63, 9)));
            let empty = FlowTable::default();
            println!(
                "{name:>7} {ports:>6} {:>7} {:>9.1} {:>12?} {:>12?} {:>12?} {:>9} {:>7} {:>9}",
                old.flows.len(),
                (old.flows.len() - base) as f64 / f64::from(ports - 1),
                median(|| drop(compile(&topology.doc, &facts))),
                median(|| drop(diff(&old.flows, &rule.flows))),
                median(|| drop(openflow::bundle(1, 1, &diff(&empty, &old.flows)))),
                openflow::bundle(1, 1, &diff(&empty, &old.flows)).len(),
                diff(&old.flows, &rule.flows).len(),
                diff(&old.flows, &member.flows).len(),
            );
        }
    }
}
