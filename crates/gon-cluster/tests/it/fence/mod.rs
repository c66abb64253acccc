//! The fence protocol (row N2), searched exhaustively: two controllers, two nodes, one instance with one disk.
//!
//! What it is about: nobody trusts the election. Any controller may take over at any time, any may sleep between any two
//! of its steps, messages are lost, repeated and reordered. What remains are the fences: epochs in PostgreSQL, versions
//! of documents, and reports that name the document they speak of. With all of them no state is reachable in which two
//! nodes run the instance; with any one of them left out the search finds one, which is its planted bug.
//!
//! | fence | where it stands | left out |
//! |---|---|---|
//! | epoch at the write | `gon_store::leader::Fence::begin`, in the transaction of every effect | a deposed leader frees or places |
//! | version at the fetch | `gon_agent::ledger`, before a document replaces the one that is kept | an old document starts it again |
//! | version at the effect | `gon_agent`, between plan and effect | a plan of yesterday starts it again |
//! | version in the report | `gon_control::compute::ingest`, before the instance is placed elsewhere | an old report frees it too early |
//! | turns at publishing | `gon_control::documents::Documents::turn`, from read to publish | old rows get a new version |
//!
//! Bounds: two take-overs with three placements and three documents of an epoch, or three take-overs with two of each;
//! all of it, two million states up to the names of nodes and controllers. Beyond them nothing is claimed here: `gon-sim`
//! runs the real code further out.
//! Not modelled: disks that forget what was synced, and a node's clock, for no fence reads one. That a stopped process
//! really is refused, by a real PostgreSQL, is shown in `pause.rs`.

mod model;
mod search;

use model::{Fences, Limits, State, Wrong};
use search::{Outcome, search};

/// The bounds: take-overs, placements, documents of one epoch. Each is wider than the others in something.
const ALL_LIMITS: [Limits; 2] = [
    Limits { epochs: 2, placements: 3, generations: 3 },
    Limits { epochs: 3, placements: 2, generations: 2 },
];
/// Narrower ones, tried first when something is looked for: what happens within them can happen.
const NARROWER: [Limits; 3] = [
    Limits { epochs: 1, placements: 2, generations: 2 },
    Limits { epochs: 1, placements: 2, generations: 3 },
    Limits { epochs: 2, placements: 2, generations: 2 },
];

fn must_find(name: &str, fences: Fences, wrong: Wrong) {
    for limits in NARROWER.iter().chain(&ALL_LIMITS) {
        let outcome =
            search(State::start(), |state| state.next(&fences, limits), |state| state.wrong == Some(wrong));
        if let Outcome::Found { trace, states } = outcome {
            println!("without '{name}': {wrong:?} after {} steps, {states} states, {limits:?}", trace.len());
            for step in trace {
                println!("    {step:?}");
            }
            return;
        }
    }
    panic!("without the fence '{name}' there is {wrong:?}, and the search is blind to it")
}

#[test]
fn versions_of_the_model_are_ordered_as_the_real_ones() {
    assert!(model::Version::agrees_with_the_real_one());
}

#[test]
fn with_all_fences_nothing_goes_wrong() {
    for limits in ALL_LIMITS {
        let outcome =
            search(State::start(), |state| state.next(&Fences::ALL, &limits), |s| s.wrong.is_some());
        match outcome {
            Outcome::Found { trace, .. } => panic!("a way to go wrong: {trace:#?}"),
            Outcome::Exhausted { states, goals } => {
                println!("{limits:?}: {states} states, {goals:?}");
                // The model can do what it is about: an instance runs, is moved, and runs again under a later leader.
                assert!(goals.ran_first && goals.ran_moved && goals.ran_moved_by_another);
            }
        }
    }
}

#[test]
fn without_the_epoch_at_the_write_a_deposed_leader_starts_a_second_one() {
    let fences = Fences { epoch_at_the_write: false, ..Fences::ALL };
    must_find("epoch at the write", fences, Wrong::StaleWrite);
    must_find("epoch at the write", fences, Wrong::RunsTwice);
}

#[test]
fn without_the_version_at_the_fetch_an_old_document_starts_a_second_one() {
    must_find(
        "version at the fetch",
        Fences { version_at_the_fetch: false, ..Fences::ALL },
        Wrong::RunsTwice,
    );
}

#[test]
fn without_the_version_at_the_effect_an_old_plan_starts_a_second_one() {
    must_find(
        "version at the effect",
        Fences { version_at_the_effect: false, ..Fences::ALL },
        Wrong::RunsTwice,
    );
}

#[test]
fn without_the_version_in_the_report_an_old_report_frees_too_early() {
    must_find(
        "version in the report",
        Fences { version_in_the_report: false, ..Fences::ALL },
        Wrong::RunsTwice,
    );
}

#[test]
fn without_turns_at_publishing_old_rows_get_a_new_version() {
    must_find("turns at publishing", Fences { one_reader_at_a_time: false, ..Fences::ALL }, Wrong::RunsTwice);
}
