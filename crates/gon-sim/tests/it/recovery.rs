//! Instances that are recovered when their node is lost (row D5): many seeds in which nodes are lost in every way, agents and
//! leaders sleep, and nodes start again while nobody is there; and the defects that must be found.
//!
//! `GON_SIM_LOSS=17 cargo test -p gon-sim --test it -- nobody_runs_twice --nocapture` repeats a run with its trace.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use gon_sim::{Bug, Config, Outcome, run, shrink};

use crate::seeds::tell;

/// As many as `make test` runs.
const SEEDS: u64 = 1_000;

fn config(seed: u64, bug: Option<Bug>) -> Config {
    Config { seed, bug, only: None, trace: false, recovery: true }
}

fn all(count: u64) -> Vec<Outcome> {
    let next = AtomicU64::new(1);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut ended = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > count {
                return ended;
            }
            let outcome = run(&config(seed, None));
            if outcome.broken.is_some() {
                next.store(count + 1, Ordering::Relaxed);
            }
            ended.push(outcome);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    })
}

/// No instance runs on two nodes at any moment; no other instance is touched; and what is on a node that stays away runs
/// elsewhere within 180 s.
#[test]
fn nobody_runs_twice_and_everybody_is_recovered() {
    let _share = crate::share();
    let started = Instant::now();
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("GON_SIM_LOSS") {
        let outcome = run(&Config { trace: true, ..config(seed, None) });
        println!("{}", tell(&outcome, usize::MAX));
        assert_eq!(outcome.broken, None);
        return;
    }
    let outcomes = all(number("GON_SIM_LOSSES").unwrap_or(SEEDS));
    if let Some(failed) = outcomes.iter().find(|o| o.broken.is_some()) {
        let shrunk = shrink(&Config { trace: true, ..config(failed.seed, None) });
        panic!("{}GON_SIM_LOSS={}", tell(&shrunk, 400), failed.seed);
    }
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let recovered = sum(|o| o.recovered);
    println!(
        "{} seeds, {} events, {} faults, {} guests started, {recovered} instances recovered; {:.1} s",
        outcomes.len(),
        sum(|o| o.events),
        sum(|o| o.faults.len() as u64),
        sum(|o| o.spawns),
        started.elapsed().as_secs_f64(),
    );
    assert!(recovered > outcomes.len() as u64 / 2, "hardly anything was recovered");
}

/// The first seed that finds it, and as one of what.
fn found(bug: Bug, expected: &[&str]) {
    let _share = crate::share();
    let found =
        (1..=SEEDS).find_map(|seed| run(&config(seed, Some(bug))).broken.map(|broken| (seed, broken)));
    let Some((seed, broken)) = found else { panic!("{bug:?} was not found in {SEEDS} seeds") };
    assert!(expected.iter().any(|text| broken.contains(text)), "{bug:?}: seed {seed} found it as: {broken}");
    assert_eq!(run(&config(seed, None)).broken, None, "seed {seed} is broken without {bug:?}");
    println!("{bug:?}: seed {seed}: {broken}");
}

const TWICE: &[&str] = &["lives on", "lost its port"];

#[test]
fn a_fence_of_another_margin() {
    found(Bug::FenceMargin, TWICE);
}
#[test]
fn a_leader_with_another_margin() {
    found(Bug::MovesEarly, TWICE);
}
#[test]
fn a_grant_that_counts_from_its_answer() {
    found(Bug::GrantFromAnswer, TWICE);
}
#[test]
fn a_grant_of_any_epoch() {
    found(Bug::GrantOfAnyEpoch, TWICE);
}
#[test]
fn a_grant_that_survives_a_reboot() {
    found(Bug::GrantSurvivesReboot, TWICE);
}
#[test]
fn an_agent_that_sleeps_and_has_no_keeper() {
    found(Bug::NoKeeper, TWICE);
}
#[test]
fn a_node_that_does_not_hear() {
    found(Bug::GrantToTheDeaf, &["which is lost for"]);
}
