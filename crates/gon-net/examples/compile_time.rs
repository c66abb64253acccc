//! How long a whole node takes to compile, to compare and to encode, by number of ports.
//!
//! `cargo run --release -p gon-net --example compile_time` prints the median of several runs. Goal: 1 000 ports compile
//! in at most 100 ms, and a rule added there is one change.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for people")]

#[path = "../fixtures/topology.rs"]
mod topology;

use std::time::{Duration, Instant};

use gon_net::{compile, diff, openflow};

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

fn main() {
    println!(
        "{:>6} {:>7} {:>12} {:>12} {:>12} {:>9} {:>16}",
        "ports", "flows", "compile", "diff", "encode all", "bytes", "a rule: changes"
    );
    for ports in [10, 100, 1000] {
        let topology = topology::many_ports(ports);
        let facts = topology::facts();
        let old = compile(&topology.doc, &facts);
        assert!(old.degraded.is_empty());
        let mut more = topology.clone();
        more.doc.groups[0].rules.push(topology::allow(99, "in tcp 4000 from 0.0.0.0/0"));
        let new = compile(&more.doc, &facts);
        let everything = diff(&gon_net::FlowTable::default(), &old.flows).len();
        assert_eq!(everything, old.flows.len());
        let empty = gon_net::FlowTable::default();
        println!(
            "{ports:>6} {:>7} {:>12?} {:>12?} {:>12?} {:>9} {:>16}",
            old.flows.len(),
            median(|| drop(compile(&topology.doc, &facts))),
            median(|| drop(diff(&old.flows, &new.flows))),
            median(|| drop(openflow::bundle_stage(1, 1, &diff(&empty, &old.flows)))),
            openflow::bundle_stage(1, 1, &diff(&empty, &old.flows)).len(),
            diff(&old.flows, &new.flows).len(),
        );
    }
}
