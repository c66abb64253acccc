//! What a user may ask of an instance that is there: start, stop, reboot, terminate.
//!
//! Assumes that the state is the row's, locked until what follows is written. Promises that a refusal names the state in
//! which the same would be granted, that every change moves along one of EC2's edges, and that asking twice for the end of
//! an instance is asking once.

use gon_types::InstanceState as State;

use crate::instance::Power;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ask {
    /// On again.
    Start,
    /// Off, disks kept.
    Stop {
        /// Without asking the guest.
        force: bool,
    },
    /// Off and on in one.
    Reboot,
    /// Off and removed.
    Terminate,
}

/// What becomes of the public addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Public {
    /// They stay.
    Keep,
    /// It gets one of the platform's, if it was launched with one and has none.
    Give,
    /// The platform's goes; the user's own stay.
    ReleasePlatforms,
    /// The platform's goes, and the user's are taken off it.
    ReleaseAll,
}

/// What is written; the generation rises by one with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Change {
    /// What should be from now on.
    pub power: Power,
    /// What the user sees from now on.
    pub state: State,
    /// Whether a stop skips asking the guest.
    pub force: bool,
    /// One more reboot is asked for, and nothing else changes.
    pub is_reboot: bool,
    /// What becomes of the public addresses.
    pub public: Public,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// This is written.
    Change(Change),
    /// It is so already: nothing is written.
    Already,
    /// Not in this state.
    Refused {
        /// In which it would be granted.
        must_be: State,
    },
}

/// What follows from asking an instance in `state`.
#[must_use]
pub fn decide(state: State, ask: Ask) -> Decision {
    let change = |power, state, force, public| {
        Decision::Change(Change { power, state, force, is_reboot: false, public })
    };
    match (ask, state) {
        (Ask::Start, State::Stopped) => change(Power::Running, State::Pending, false, Public::Give),
        (Ask::Start, _) => Decision::Refused { must_be: State::Stopped },
        // Asking again, more firmly, is how one cuts a guest that does not listen.
        (Ask::Stop { force }, State::Running) | (Ask::Stop { force: force @ true }, State::Stopping) => {
            change(Power::Stopped, State::Stopping, force, Public::ReleasePlatforms)
        }
        (Ask::Stop { .. }, _) => Decision::Refused { must_be: State::Running },
        (Ask::Reboot, State::Running) => Decision::Change(Change {
            power: Power::Running,
            state: State::Running,
            force: false,
            is_reboot: true,
            public: Public::Keep,
        }),
        (Ask::Reboot, _) => Decision::Refused { must_be: State::Running },
        (Ask::Terminate, State::ShuttingDown | State::Terminated) => Decision::Already,
        (Ask::Terminate, _) => change(Power::Terminated, State::ShuttingDown, false, Public::ReleaseAll),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKS: [Ask; 5] =
        [Ask::Start, Ask::Stop { force: false }, Ask::Stop { force: true }, Ask::Reboot, Ask::Terminate];

    /// Rows: states; columns: start, stop, stop with force, reboot, terminate. `!` is refused, `=` is so already.
    const TABLE: [(State, [&str; 5]); 6] = [
        (State::Pending, ["!stopped", "!running", "!running", "!running", "shutting-down"]),
        (State::Running, ["!stopped", "stopping", "stopping", "running", "shutting-down"]),
        (State::Stopping, ["!stopped", "!running", "stopping", "!running", "shutting-down"]),
        (State::Stopped, ["pending", "!running", "!running", "!running", "shutting-down"]),
        (State::ShuttingDown, ["!stopped", "!running", "!running", "!running", "="]),
        (State::Terminated, ["!stopped", "!running", "!running", "!running", "="]),
    ];

    #[test]
    fn each_state_has_its_answers() {
        for (state, row) in TABLE {
            for (ask, wanted) in ASKS.into_iter().zip(row) {
                let said = match decide(state, ask) {
                    Decision::Change(change) => change.state.as_str().to_owned(),
                    Decision::Already => "=".to_owned(),
                    Decision::Refused { must_be } => format!("!{}", must_be.as_str()),
                };
                assert_eq!(said, wanted, "{state:?} {ask:?}");
            }
        }
    }

    #[test]
    fn a_refusal_names_a_state_that_is_granted_and_an_end_is_final() {
        for (state, ask) in State::ALL.into_iter().flat_map(|s| ASKS.map(|a| (s, a))) {
            match decide(state, ask) {
                Decision::Refused { must_be } => {
                    assert!(matches!(decide(must_be, ask), Decision::Change(_)), "{state:?} {ask:?}");
                }
                Decision::Change(change) => {
                    assert!(!matches!(state, State::ShuttingDown | State::Terminated), "{state:?} {ask:?}");
                    assert_eq!(change.is_reboot, ask == Ask::Reboot);
                    assert_eq!(change.force, matches!(ask, Ask::Stop { force: true }));
                    // What is given up on an end is given up on every way there.
                    assert_eq!(change.public == Public::ReleaseAll, change.power == Power::Terminated);
                }
                Decision::Already => assert_eq!(ask, Ask::Terminate),
            }
        }
    }
}
