//! `GON_SIM_SEED=17 cargo test -p gon-sim seeds -- --nocapture` repeats a run with its trace; `GON_SIM_SEEDS=100000` makes
//! that many.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use gon_sim::{Config, Outcome, run, shrink};

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// Everything about a run that went wrong.
pub fn tell(outcome: &Outcome, steps: usize) -> String {
    let mut text = String::new();
    let from = outcome.trace.len().saturating_sub(steps);
    for line in &outcome.trace[from..] {
        text.push_str(line);
        text.push('\n');
    }
    let Outcome { seed, broken, faults, chaos, .. } = outcome;
    let broken = broken.as_deref().unwrap_or("nothing");
    format!(
        "{text}seed {seed}: {broken}\nfaults: {faults:#?}\n{chaos:?}\nGON_SIM_SEED={seed} cargo test -p gon-sim seeds -- --nocapture"
    )
}

/// Seeds on all processors until one fails: how they ended.
fn all(first: u64, count: u64) -> Vec<Outcome> {
    let next = AtomicU64::new(first);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut ended = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return ended;
            }
            let outcome = run(&Config { seed, bug: None, only: None, trace: false, recovery: false });
            if outcome.broken.is_some() {
                next.store(first + count, Ordering::Relaxed);
            }
            ended.push(outcome);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    })
}

#[test]
fn seeds_break_nothing() {
    let _share = crate::share();
    let started = Instant::now();
    if let Some(seed) = number("GON_SIM_SEED") {
        let outcome = run(&Config { seed, bug: None, only: None, trace: true, recovery: false });
        println!("{}", tell(&outcome, usize::MAX));
        assert_eq!(outcome.broken, None);
        return;
    }
    let outcomes = all(
        number("GON_SIM_FIRST").unwrap_or(1),
        number("GON_SIM_SEEDS").unwrap_or(gon_testkit::measure(2_000, 20_000)),
    );
    if let Some(failed) = outcomes.iter().find(|o| o.broken.is_some()) {
        let shrunk =
            shrink(&Config { seed: failed.seed, bug: None, only: None, trace: true, recovery: false });
        panic!("{}", tell(&shrunk, 300));
    }
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let mut settled: Vec<u64> = outcomes.iter().map(|o| o.settled_in / 1_000_000).collect();
    settled.sort_unstable();
    println!(
        "{} seeds, {} events, {} faults, {} requests, {} commits, {} guests started; settled after the last fault within \
         {} s (median), {} s (99 %), {} s (all); {:.1} s, {:.0} seeds/s",
        outcomes.len(),
        sum(|o| o.events),
        sum(|o| o.faults.len() as u64),
        sum(|o| o.requests as u64),
        sum(|o| o.commits),
        sum(|o| o.spawns),
        settled[settled.len() / 2],
        settled[settled.len() * 99 / 100],
        settled.last().unwrap(),
        started.elapsed().as_secs_f64(),
        outcomes.len() as f64 / started.elapsed().as_secs_f64(),
    );
}

#[test]
fn a_seed_repeats() {
    let _share = crate::share();
    for seed in 1..=20 {
        let config = Config { seed, bug: None, only: None, trace: true, recovery: false };
        let (one, other) = (run(&config), run(&config));
        assert_eq!(one.digest, other.digest, "seed {seed}");
        assert_eq!(one.trace, other.trace, "seed {seed}");
        // Looking changes nothing; nor does which thread it is.
        let unseen = std::thread::spawn(move || run(&Config { trace: false, ..config })).join().unwrap();
        assert_eq!(one.digest, unseen.digest, "seed {seed}");
    }
    let digest = |seed| run(&Config { seed, bug: None, only: None, trace: false, recovery: false }).digest;
    assert_ne!(digest(1), digest(2));
}
