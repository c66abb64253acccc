//! Emptying a node: what becomes of each instance that is on it.
//!
//! The honest minimum of a node with disks of its own: what keeps nothing there moves, what runs is stopped only if the
//! operator said so, and what has a disk there stays and is named.

use gon_types::InstanceState as State;

use crate::instance::Power;

/// An instance on a node that is to be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupant {
    /// As its user last saw it.
    pub state: State,
    /// What should be.
    pub power: Power,
    /// Whether the node's disk holds something of it.
    pub has_disk: bool,
    /// Whether the node was told to let go of it.
    pub is_leaving: bool,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is off and has nothing here: it is told to leave, and goes elsewhere when it is started.
    Leave,
    /// It runs and the operator lets us stop it.
    Stop,
    /// Something is under way: look again.
    Wait,
    /// It runs, and only its user may stop it.
    Blocks,
    /// It is off, and its disk is here: it stays.
    Stays,
}

/// What becomes of `occupant`; `stop` says whether the operator lets us stop what runs.
#[must_use]
pub fn fate(occupant: Occupant, stop: bool) -> Fate {
    let Occupant { state, power, has_disk, is_leaving } = occupant;
    match (state, power) {
        (_, Power::Terminated) | (State::ShuttingDown | State::Terminated, _) => Fate::Wait,
        _ if is_leaving => Fate::Wait,
        (State::Stopped, Power::Stopped) if has_disk => Fate::Stays,
        (State::Stopped, Power::Stopped) => Fate::Leave,
        (State::Running, Power::Running) if stop => Fate::Stop,
        (State::Running, Power::Running) => Fate::Blocks,
        // Starting, stopping, or on the way between what was and what should be.
        _ => Fate::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(state: State, power: Power, has_disk: bool) -> Occupant {
        Occupant { state, power, has_disk, is_leaving: false }
    }

    #[test]
    fn nothing_that_runs_is_stopped_unasked_and_no_disk_is_left_behind() {
        for state in State::ALL {
            for power in Power::ALL {
                for has_disk in [false, true] {
                    for is_leaving in [false, true] {
                        for stop in [false, true] {
                            let occupant = Occupant { state, power, has_disk, is_leaving };
                            match fate(occupant, stop) {
                                Fate::Stop => assert!(stop && state == State::Running && !is_leaving),
                                Fate::Leave => assert!(state == State::Stopped && !has_disk && !is_leaving),
                                Fate::Blocks => assert!(!stop && state == State::Running),
                                Fate::Stays => assert!(has_disk && state == State::Stopped),
                                Fate::Wait => {}
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn each_has_its_fate() {
        assert_eq!(fate(of(State::Running, Power::Running, true), false), Fate::Blocks);
        assert_eq!(fate(of(State::Running, Power::Running, true), true), Fate::Stop);
        assert_eq!(fate(of(State::Stopping, Power::Stopped, true), true), Fate::Wait);
        assert_eq!(fate(of(State::Stopped, Power::Stopped, true), true), Fate::Stays);
        assert_eq!(fate(of(State::Stopped, Power::Stopped, false), false), Fate::Leave);
        let leaving = Occupant { is_leaving: true, ..of(State::Stopped, Power::Stopped, false) };
        assert_eq!(fate(leaving, true), Fate::Wait);
        assert_eq!(fate(of(State::ShuttingDown, Power::Terminated, true), true), Fate::Wait);
    }
}
