//! Row E3 of the fault matrix: whatever starts first, everything gets ready by itself.

use std::time::{Duration, Instant};

use gon_testkit::{did, measure};
use gon_tls::Role;

use crate::site::{CONTROL, GATES, PATIENCE, SERVICES, Site, tell, until};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// A server comes.
    Opens(usize),
    /// The control plane is started.
    Control,
    /// The agents are started.
    Agents,
}
use Step::{Agents, Control, Opens};

const POSTGRES: usize = 0;
const RABBIT: usize = 1;
const ETCD: usize = 2;

/// All hundred and twenty orders, of which the long run takes every other, sixty.
fn all_orders() -> Vec<[Step; 5]> {
    let mut orders = vec![vec![]];
    for _ in 0..5 {
        let longer = |order: Vec<Step>| {
            let left = [Control, Agents, Opens(ETCD), Opens(RABBIT), Opens(POSTGRES)].into_iter();
            let left: Vec<_> = left.filter(|step| !order.contains(step)).collect();
            left.into_iter().map(move |step| [&order[..], &[step][..]].concat())
        };
        orders = orders.into_iter().flat_map(longer).collect();
    }
    orders.into_iter().map(|order| order.try_into().unwrap()).collect()
}

/// Of the hundred and twenty orders those that differ most: everything late, each server last, agents before and after.
const ORDERS: &[[Step; 5]] = &[
    [Control, Agents, Opens(ETCD), Opens(RABBIT), Opens(POSTGRES)],
    [Agents, Opens(POSTGRES), Control, Opens(ETCD), Opens(RABBIT)],
    [Opens(RABBIT), Control, Opens(POSTGRES), Agents, Opens(ETCD)],
];

fn start(site: &mut Site, roles: impl Iterator<Item = Role>) {
    for role in roles {
        site.start(role);
    }
}

#[test]
fn whatever_starts_first_everything_gets_ready() {
    tell(|site| {
        site.prepare();
        for gate in 0..GATES.len() {
            site.gate(gate, false);
        }
        // What waits ends as well as what works.
        start(site, CONTROL.iter().copied());
        for role in CONTROL {
            let process = &site.running[role];
            until("it is there", PATIENCE, || match process.told("READY=1").is_empty() {
                true => Err(process.tail()),
                false => Ok(()),
            });
            let (status, document) = site.until_dependency(*role, "postgresql", "down");
            assert_eq!(status, 503, "{role}: {document}");
        }
        for (role, process) in std::mem::take(&mut site.running) {
            let (status, took, _) = process.end();
            assert!(status.success() && took < Duration::from_secs(5), "{role}: {status} after {took:?}");
        }

        let orders = measure(ORDERS.to_vec(), all_orders().into_iter().step_by(2).collect());
        let mut slowest = Duration::ZERO;
        for order in &orders {
            let begin = Instant::now();
            for gate in 0..GATES.len() {
                site.gate(gate, false);
            }
            for step in order {
                match step {
                    Opens(gate) => site.gate(*gate, true),
                    Control => start(site, CONTROL.iter().copied()),
                    Agents => start(site, SERVICES.into_iter().filter(|role| !CONTROL.contains(role))),
                }
                std::thread::sleep(Duration::from_millis(700));
            }
            let pids: Vec<u32> = site.running.values().map(|process| process.pid()).collect();
            for role in SERVICES {
                if role == Role::ContainerAgent {
                    // There is no Docker here.
                    site.until_dependency(role, "docker", "down");
                    continue;
                }
                site.until_ready(role);
                let gates = if CONTROL.contains(&role) { &GATES[..] } else { &GATES[ETCD..] };
                for gate in gates {
                    site.until_dependency(role, gate, "up");
                }
            }
            // By itself, and without having been started again.
            let still: Vec<u32> = site.running.values().map(|process| process.pid()).collect();
            assert_eq!(pids, still);
            for (role, process) in &mut site.running {
                assert!(process.ended().is_none(), "{role}: {}", process.tail());
                assert_eq!(process.told("READY=1").len(), 1, "{role}");
            }
            println!("{order:?}: ready after {:?}", begin.elapsed());
            slowest = slowest.max(begin.elapsed());
            for (role, process) in std::mem::take(&mut site.running) {
                let (status, took, _) = process.end();
                assert!(status.success() && took < Duration::from_secs(5), "{role}: {status} after {took:?}");
            }
        }
        assert!(slowest < Duration::from_secs(60), "{slowest:?}");
        did("E3", &format!("{} orders, ready after {slowest:?} at most", orders.len()));
    });
}
