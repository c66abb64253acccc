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

/// What one look at a node that is to be empty finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look<I> {
    /// These are told to leave.
    pub leave: Vec<I>,
    /// These are stopped.
    pub stop: Vec<I>,
    /// These were told to leave before.
    pub leaving: Vec<I>,
    /// With these something else is under way.
    pub waiting: Vec<I>,
    /// These run, and only their users may stop them.
    pub blockers: Vec<I>,
    /// These stay for good.
    pub staying: Vec<I>,
}

impl<I> Look<I> {
    /// Whether everything that can leave has left.
    #[must_use]
    pub fn is_done(&self) -> bool {
        [&self.leave, &self.stop, &self.leaving, &self.waiting, &self.blockers]
            .iter()
            .all(|ids| ids.is_empty())
    }
    /// Whether anything is to be done now.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.leave.is_empty() && self.stop.is_empty()
    }
}

/// Looks at everything on a node; each is in one of the lists, in the order it came.
#[must_use]
pub fn look<I>(occupants: impl IntoIterator<Item = (I, Occupant)>, may_stop: bool) -> Look<I> {
    let mut look = Look {
        leave: vec![],
        stop: vec![],
        leaving: vec![],
        waiting: vec![],
        blockers: vec![],
        staying: vec![],
    };
    for (id, occupant) in occupants {
        let list = match fate(occupant, may_stop) {
            Fate::Leave => &mut look.leave,
            Fate::Stop => &mut look.stop,
            Fate::Wait if occupant.is_leaving => &mut look.leaving,
            Fate::Wait => &mut look.waiting,
            Fate::Blocks => &mut look.blockers,
            Fate::Stays => &mut look.staying,
        };
        list.push(id);
    }
    look
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
    #[test]
    fn a_node_is_empty_when_only_what_stays_is_left() {
        let all = [
            (1, of(State::Running, Power::Running, false)),
            (2, of(State::Stopped, Power::Stopped, false)),
            (3, of(State::Stopped, Power::Stopped, true)),
            (4, of(State::Stopping, Power::Stopped, false)),
            (5, Occupant { is_leaving: true, ..of(State::Stopped, Power::Stopped, false) }),
        ];
        let found = look(all, false);
        assert_eq!((found.blockers.as_slice(), found.leave.as_slice()), ([1].as_slice(), [2].as_slice()));
        assert_eq!((found.staying.as_slice(), found.waiting.as_slice()), ([3].as_slice(), [4].as_slice()));
        assert_eq!(found.leaving, [5]);
        assert!(!found.is_done() && !found.is_idle());
        assert_eq!(look(all, true).stop, [1]);
        // Each alone: done only where nothing but what stays is there.
        for (id, occupant) in all {
            assert_eq!(look([(id, occupant)], false).is_done(), id == 3);
        }
        assert!(look::<u8>([], false).is_done());
    }
}
