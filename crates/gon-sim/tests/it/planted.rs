//! The test of the test: each planted defect must be found within the seeds.

use gon_sim::{Bug, Config, run, shrink};

/// The first seed that finds it, and what it finds.
fn found(bug: Bug, expected: &str) {
    let found = (1..=2_000).find_map(|seed| {
        let outcome = run(&Config { seed, bug: Some(bug), only: None, trace: false });
        outcome.broken.map(|broken| (seed, broken, outcome.faults.len()))
    });
    let Some((seed, broken, faults)) = found else { panic!("{bug:?} was not found in 2 000 seeds") };
    assert!(broken.contains(expected), "{bug:?} was found as: {broken}");
    let shrunk = shrink(&Config { seed, bug: Some(bug), only: None, trace: true });
    println!("{bug:?}: seed {seed}: {broken} ({faults} faults, {} needed)", shrunk.faults.len());
}

#[test]
fn documents_of_any_epoch() {
    found(Bug::EpochUnchecked, "took");
}
#[test]
fn reports_without_comparison() {
    found(Bug::ReportWithoutCompare, "a stale report");
}
#[test]
fn no_brake() {
    found(Bug::NoBrake, "");
}
#[test]
fn journal_after_spawn() {
    found(Bug::JournalAfterSpawn, "unannounced");
}
#[test]
fn journal_removed_first() {
    found(Bug::JournalRemovedFirst, "");
}
#[test]
fn outbox_row_deleted_before_it_is_published() {
    found(Bug::OutboxDeletedFirst, "never published");
}
#[test]
fn placement_without_capacity() {
    found(Bug::NoCapacityCheck, "has lent");
}
#[test]
fn addresses_that_do_not_rest() {
    found(Bug::NoQuarantine, "rest");
}
#[test]
fn a_lease_taken_for_a_fence() {
    found(Bug::LeaseAsFence, "lives on");
}
#[test]
fn idempotency_key_in_another_transaction() {
    found(Bug::KeyApart, "one idempotency key");
}
#[test]
fn acknowledged_before_it_is_on_the_disk() {
    found(Bug::AckBeforeDurable, "acknowledged");
}
#[test]
fn patience_by_the_wall_clock() {
    found(Bug::WallClockPatience, "");
}
