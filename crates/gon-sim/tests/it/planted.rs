//! The test of the test: each planted defect must be found within the seeds.

use gon_sim::{Bug, Config, run, shrink};

/// As many as `make test` runs without a defect.
const SEEDS: u64 = 2_000;

/// The first seed that finds it, and as one of what. The seeds before it are runs as well: none may end otherwise.
fn found(bug: Bug, expected: &[&str]) {
    let _share = crate::share();
    let config = |seed| Config { seed, bug: Some(bug), only: None, trace: false, recovery: false };
    let found = (1..=SEEDS).find_map(|seed| run(&config(seed)).broken.map(|broken| (seed, broken)));
    let Some((seed, broken)) = found else { panic!("{bug:?} was not found in {SEEDS} seeds") };
    assert!(expected.iter().any(|text| broken.contains(text)), "{bug:?}: seed {seed} found it as: {broken}");
    let sound = run(&Config { bug: None, ..config(seed) });
    assert_eq!(sound.broken, None, "seed {seed} is broken without {bug:?}");
    let shrunk = shrink(&config(seed));
    println!("{bug:?}: seed {seed}: {broken} ({} faults needed)", shrunk.faults.len());
}

#[test]
fn an_epoch_that_is_not_checked() {
    found(Bug::EpochUnchecked, &["took"]);
}
#[test]
fn a_generation_that_is_not_checked() {
    found(Bug::GenerationUnchecked, &["took"]);
}
#[test]
fn a_leader_that_is_not_fenced() {
    found(Bug::NoLeaderFence, &[""]);
}
#[test]
fn rows_read_by_a_leader_of_yesterday() {
    found(Bug::UnfencedRead, &[""]);
}
#[test]
fn two_readers_at_once() {
    found(Bug::NoTurn, &[""]);
}
#[test]
fn reports_without_comparison() {
    found(Bug::ReportWithoutCompare, &["a stale report"]);
}
#[test]
fn no_brake() {
    found(Bug::NoBrake, &["and was ended", "lost its port"]);
}
#[test]
fn journal_after_spawn() {
    found(Bug::JournalAfterSpawn, &["unannounced"]);
}
#[test]
fn journal_removed_first() {
    found(Bug::JournalRemovedFirst, &[""]);
}
#[test]
fn a_failed_write_that_is_trusted() {
    found(Bug::TrustsFailedWrites, &["its journal says"]);
}
#[test]
fn outbox_row_deleted_before_it_is_published() {
    found(Bug::OutboxDeletedFirst, &["never published"]);
}
#[test]
fn a_cursor_that_skips_late_commits() {
    found(Bug::OutboxCursor, &["never published"]);
}
#[test]
fn placement_without_capacity() {
    found(Bug::NoCapacityCheck, &["has lent"]);
}
#[test]
fn addresses_that_do_not_rest() {
    found(Bug::NoQuarantine, &["rest"]);
}
#[test]
fn a_lease_taken_for_a_fence() {
    found(Bug::LeaseAsFence, &["lives on", "lost its port"]);
}
#[test]
fn a_doorbell_that_comes_twice_places_twice() {
    found(Bug::PlacedPerRing, &["lives on", "lost its port", "and was ended"]);
}
#[test]
fn a_request_that_comes_twice_is_done_twice() {
    found(Bug::KeyIgnored, &["one idempotency key", "2 times in the audit log"]);
}
#[test]
fn idempotency_key_in_another_transaction() {
    found(Bug::KeyApart, &["one idempotency key", "2 times in the audit log"]);
}
#[test]
fn audit_row_in_another_transaction() {
    found(Bug::AuditApart, &["audit log"]);
}
#[test]
fn acknowledged_before_it_is_on_the_disk() {
    found(Bug::AckBeforeDurable, &["acknowledged"]);
}
#[test]
fn patience_by_the_wall_clock() {
    found(Bug::WallClockPatience, &["before its time"]);
}
#[test]
fn a_tap_that_is_forgotten() {
    found(Bug::TapForgotten, &["has a port on", "is left on"]);
}
#[test]
fn a_tap_of_an_earlier_stay() {
    found(Bug::DeviceOfEveryPlacement, &["lost its port"]);
}
