//! The compiled flows of a site against the model: every packet, and what answers it, ends where the semantics say, with the
//! addresses, Ethernet addresses and time to live that they say.
//!
//! `GON_TEST_LONG=1` tries a hundred thousand sets of rules instead of ten thousand; `GON_TEST_SEED=n` one case, in detail.

use std::net::Ipv4Addr;

use gon_net::pipeline::{self, Stage};
use gon_net::{Before, Field, Flow, FlowMod, FlowTable, compile, diff, recompile, zones_to_empty};

use crate::interpreted::{
    BUGS, Bug, Difference, FORGETFUL, NODES, Tally, compare, compare_change, measure, paths, right, say,
};
use crate::random::{Case, Dice};
use crate::topology::{Topology, allow, facts_of, via_gateway};

fn explain(case: &Case, bug: Bug) -> String {
    let smallest = case.shrink(|case| compare(case, bug, &mut Tally::default()).is_some());
    let Some(found) = compare(&smallest, bug, &mut Tally::default()) else { return String::new() };
    let path = paths(&smallest, bug);
    let Difference { probe, sent, wanted, got } = found;
    format!("{smallest:#?}\n{path}\nprobe  {probe:?}\nsent   {sent:?}\nwanted {wanted:?}\ngot    {got:?}")
}

#[test]
fn flows_do_what_the_semantics_say() {
    let one = std::env::var("GON_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let enough = measure(10_000, 100_000);
    let mut tally = Tally::default();
    for seed in one.unwrap_or(0).. {
        let case = Case::random(seed, 10);
        if compare(&case, right, &mut tally).is_some() {
            panic!("GON_TEST_SEED={seed}: {}", explain(&case, right));
        }
        if one.is_some() || tally.policies >= enough {
            let kinds = tally.kinds();
            let few: Vec<_> = tally.kinds.iter().filter(|(_, count)| **count < 30).collect();
            assert!(one.is_some() || (few.is_empty() && tally.kinds.len() == 15), "{kinds}");
            let Tally { policies, packets, delivered, answered, .. } = tally;
            let text = format!(
                "{policies} policies of {} sites: {packets} packets, {delivered} delivered, {answered} of them answers",
                seed + 1
            );
            say("flows and model", &text);
            say("of these sites and packets", &kinds);
            // Neither all let in nor all kept out.
            assert!(one.is_some() || (delivered * 10 > packets && delivered * 10 < packets * 9));
            assert!(one.is_some() || answered * 20 > packets);
            return;
        }
    }
}

fn explain_change(case: &Case, then: &Case, found: &Difference) -> String {
    let Difference { probe, sent, wanted, got } = found;
    format!(
        "{case:#?}\nthen\n{then:#?}\nprobe  {probe:?}\nsent   {sent:?}\nwanted {wanted:?}\ngot    {got:?}"
    )
}

/// What is open goes on or ends with what is allowed now, and so do its answers.
#[test]
fn what_is_open_is_judged_by_what_is_allowed_now() {
    let mut tally = Tally::default();
    let sites = measure(2_000, 20_000);
    for seed in 0..sites {
        let case = Case::random(seed, 10);
        let then = case.changed(&mut Dice::new(seed));
        if let Some(found) = compare_change(&case, &then, right, &mut tally) {
            panic!("seed {seed}: {}", explain_change(&case, &then, &found));
        }
    }
    let Tally { packets, delivered, .. } = tally;
    say("changes and model", &format!("{sites} changes of sites: {packets} packets, {delivered} delivered"));
    // A test of the test.
    let (name, bug) = FORGETFUL;
    let blind = (0..300).all(|seed| compare(&Case::random(seed, 10), bug, &mut Tally::default()).is_none());
    assert!(blind, "without a change nobody is to notice that {name}");
    let seen = (0..300).any(|seed| {
        let case = Case::random(seed, 10);
        let then = case.changed(&mut Dice::new(seed));
        compare_change(&case, &then, bug, &mut Tally::default()).is_some()
    });
    assert!(seen, "nobody notices that {name}");
}

/// The VPC that a flow is about, by its key, as far as it says so.
fn vpc_of(flow: &Flow, case: &Case) -> Option<u64> {
    let value = |field| flow.matches.get(field).map(|c| c.value);
    let of_port = || {
        let port = case.ports.iter().find(|p| value(Field::InPort) == Some(p.no.into()))?;
        Some(port.vpc as u64 + 1)
    };
    value(pipeline::VPC).or_else(|| value(Field::TunId)).or_else(of_port)
}

/// What is changed in one VPC is no other's matter, and what is changed in rules no other stage's; connections are kept.
#[test]
fn a_change_touches_only_what_it_concerns() {
    let (mut changes, mut of_rules) = (0, 0);
    for seed in 0..1_000 {
        let case = Case::random(seed, 10);
        let then = case.changed(&mut Dice::new(seed));
        let touched = |v: usize| {
            let ports = |case: &Case| case.ports.iter().filter(|p| p.vpc == v).cloned().collect::<Vec<_>>();
            case.vpcs[v] != then.vpcs[v] || ports(&case) != ports(&then)
        };
        let touched: Vec<u64> = (0..case.vpcs.len()).filter(|v| touched(*v)).map(|v| v as u64 + 1).collect();
        let mut only_rules = then.clone();
        for (vpc, before) in only_rules.vpcs.iter_mut().zip(&case.vpcs) {
            vpc.groups.clone_from(&before.groups);
        }
        let only_rules = only_rules == case;
        for node in 1..=NODES {
            let facts = facts_of(node);
            let document = |c: &Case| c.topology().on_node(node, &c.place()).doc;
            let (before, now) = (document(&case), document(&then));
            let (old, new) = (compile(&before, &facts), compile(&now, &facts));
            // What is taken over from before is what it would have become.
            let was = Before { document: &before, facts: &facts, compiled: &old };
            assert_eq!(recompile(was, &now, &facts), new, "seed {seed}");
            let owners = old.zones.iter().map(|(no, zone)| (*no, zone.owner)).collect();
            assert_eq!(zones_to_empty(&owners, &new), [] as [u16; 0], "seed {seed}");
            for change in diff(&old.flows, &new.flows) {
                let (FlowMod::Add(flow) | FlowMod::Delete(flow)) = change;
                changes += 1;
                of_rules += usize::from(only_rules);
                let about = vpc_of(flow, &case);
                assert!(about.is_none_or(|key| touched.contains(&key)), "seed {seed}: {flow}");
                assert!(!only_rules || flow.table == Stage::Policy.table(), "seed {seed}: {flow}");
            }
        }
    }
    println!("{changes} flows changed, {of_rules} of them by changes of rules alone");
    assert!(of_rules > 1_000);
}

/// A test of the test.
#[test]
fn planted_bugs_are_found() {
    for (name, bug) in BUGS {
        let found =
            (0..600).find(|seed| compare(&Case::random(*seed, 10), bug, &mut Tally::default()).is_some());
        let seed = found.unwrap_or_else(|| panic!("nobody notices that {name}"));
        let case = Case::random(seed, 10);
        let small = case.shrink(|case| compare(case, bug, &mut Tally::default()).is_some());
        println!("{name}: seed {seed}, {} ports and {} packets tell", small.ports.len(), small.probes.len());
        assert!(small.ports.len() <= 3 && small.probes.len() <= 2, "{name}: {small:#?}");
    }
}

/// Sizes that must not multiply: see ADR 11.
#[test]
fn a_group_that_many_name_is_listed_once() {
    let members: Vec<Ipv4Addr> = (0..1000).map(|n| Ipv4Addr::from(0x0a01_0000 + n)).collect();
    let site = |sets: u32, members: &[Ipv4Addr]| {
        let mut topology = Topology::new()
            .vpc(1, "10.0.0.0/15", false)
            .subnet(11, 1, "10.0.0.0/22", vec![])
            .group(999, 1, vec![]);
        for n in 0..sets {
            let rules = (0..60).map(|r| allow(n * 100 + r, &format!("in tcp {} from sg 999", 1000 + 2 * r)));
            topology = topology.group(n + 1, 1, rules.collect());
        }
        topology.doc.groups[0].members = members.to_vec();
        for n in 0..sets {
            let address = Ipv4Addr::from(0x0a00_0010 + n).to_string();
            topology = topology.port(16 + u16::try_from(n).unwrap(), 11, &address, &[n + 1], None);
        }
        compile(&topology.doc, &facts_of(1)).flows
    };
    let policy = |flows: &FlowTable| flows.of_table(Stage::Policy.table()).len() - 1;
    let (one, two, ten) = (site(1, &members), site(2, &members), site(10, &members));
    println!("1000 members x 60 rules: {} flows; ten sets of groups: {}", policy(&one), policy(&ten));
    // Members once, then each set's sixty ports and its line for later fragments, and the conjunction itself.
    assert_eq!(policy(&one), 1000 + 61 + 1);
    assert_eq!(policy(&two), 1000 + 2 * 61 + 1);
    assert_eq!(policy(&ten), 1000 + 10 * 61 + 1);
    // Who leaves is one flow, whoever names the group.
    assert_eq!(diff(&ten, &site(10, &members[1..])).len(), 1);
}

/// 20 rules per port (OVN 88 and 78 flows): in one group for all, and in a group for each; without public addresses.
#[test]
fn flows_per_port_with_twenty_rules() {
    let flows = |ports: u16, own: bool| {
        let mut topology = Topology::new().vpc(1, "10.0.0.0/16", true).subnet(
            11,
            1,
            "10.0.0.0/18",
            vec![via_gateway("0.0.0.0/0", 1)],
        );
        let groups = if own { u32::from(ports) } else { 1 };
        for g in 1..=groups {
            let rules = (0..20).map(|k| {
                let peer = if k < 15 { format!("10.{k}.0.0/16") } else { format!("sg {g}") };
                allow(g * 100 + k, &format!("in tcp {} from {peer}", 1000 + k))
            });
            topology = topology.group(g, 1, rules.collect());
        }
        for n in 0..ports {
            let address = Ipv4Addr::from(0x0a00_0010 + u32::from(n)).to_string();
            let group = if own { u32::from(n) + 1 } else { 1 };
            topology = topology.port(16 + n, 11, &address, &[group], None);
        }
        compile(&topology.doc, &facts_of(1)).flows.len()
    };
    for (own, most) in [(false, 20.0), (true, 45.0)] {
        let per_port = (flows(300, own) - flows(100, own)) as f64 / 200.0;
        println!("{} groups: {per_port:.1} flows per port", if own { "own" } else { "shared" });
        assert!(per_port <= most, "{per_port}");
    }
}
