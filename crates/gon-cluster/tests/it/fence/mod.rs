//! The fence protocol (row N2), searched exhaustively: two controllers, two nodes, one instance with one disk.
//!
//! What it is about: nobody trusts the election. Any controller may take over at any time, any may sleep between any two
//! of its steps, messages are lost, repeated and reordered. What remains are the fences: epochs in PostgreSQL, versions
//! of documents, and reports that name the document they speak of. With all of them no state is reachable in which two
//! nodes run the instance; with any one of them left out the search finds one.

mod model;
mod search;

use model::{Fences, State, Wrong};
use search::{Outcome, search};

/// The bounds: take-overs, placements, documents of one epoch.
const LIMITS: model::Limits = model::Limits { epochs: 2, placements: 2, generations: 3 };

fn find(fences: Fences, wrong: Wrong) -> Outcome {
    search(State::start(), |state| state.next(&fences, &LIMITS), |state| state.wrong == Some(wrong))
}

fn must_find(name: &str, fences: Fences, wrong: Wrong) {
    let Outcome::Found { trace, states } = find(fences, wrong) else {
        panic!("without the fence '{name}' there is {wrong:?}, and the search is blind to it")
    };
    println!("without '{name}': {wrong:?} after {} steps, {states} states", trace.len());
    for step in trace {
        println!("    {step}");
    }
}

#[test]
fn with_all_fences_nothing_goes_wrong() {
    let outcome = search(State::start(), |state| state.next(&Fences::ALL, &LIMITS), |s| s.wrong.is_some());
    match outcome {
        Outcome::Found { trace, .. } => panic!("a way to go wrong:\n{}", trace.join("\n")),
        Outcome::Exhausted { states, goals } => {
            println!("{states} states, {goals:?}");
            // The model can do what it is about: an instance runs, is moved, and runs again under a later leader.
            assert!(goals.ran_first && goals.ran_moved && goals.ran_moved_by_another);
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
