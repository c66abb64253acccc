//! What a node's report of an instance changes: compare-and-set by generation and placement, then [`instance::next`].
//!
//! Promises that a report of another generation or placement than the row's changes nothing, and that one which says what
//! is known already changes nothing either.

use std::time::Duration;

use gon_types::InstanceState as State;

use crate::instance::{self, Observed, Power};

/// A report like the last one is taken in full this often all the same.
pub const FULL: Duration = Duration::from_secs(10);
/// So much of a node's one line is kept.
const DETAIL: usize = 500;

/// Whether a report is looked at: not if it is the `same` as the last one, which was taken `age` ago, and that is not long.
#[must_use]
pub fn is_news(same: bool, age: Duration) -> bool {
    !same || age >= FULL
}

/// An instance as a report finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held<'a> {
    /// What the user sees.
    pub state: State,
    /// Why.
    pub reason: Option<&'a str>,
    /// What should be.
    pub power: Power,
    /// Its generation.
    pub generation: i64,
    /// The last one a node spoke of.
    pub observed_generation: i64,
    /// Which placement.
    pub placement_epoch: i64,
    /// Whether its node still has something to clean up.
    pub has_compute: bool,
    /// Whether it is to leave its node although it is not to end.
    pub is_leaving: bool,
    /// The number of reboots somebody waits for.
    pub awaited_reboots: Option<i64>,
}

/// What a node says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said<'a> {
    /// Of which generation it speaks.
    pub generation: u64,
    /// And of which placement.
    pub placement_epoch: u64,
    /// What it sees.
    pub observed: Observed,
    /// Why, in one line.
    pub reason: Option<&'a str>,
    /// Reboots done.
    pub reboots: u64,
}

/// What changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The state the user sees from now on.
    pub state: State,
    /// Why; `None` clears it.
    pub reason: Option<String>,
    /// What should be from now on, if the guest or a failure decided that.
    pub power: Option<Power>,
    /// Nothing of it is left on the node: the `compute` finalizer goes.
    pub compute_gone: bool,
    /// Nothing of it is left there, and it is not to end: it is placed nowhere from now on.
    pub left_node: bool,
    /// How many reboots the node has done, if somebody waits for that many.
    pub reboots: Option<i64>,
}

/// What the report changes; `None` if nothing.
#[must_use]
pub fn judge(held: Held<'_>, said: Said<'_>) -> Option<Change> {
    let current = i64::try_from(said.generation) == Ok(held.generation)
        && i64::try_from(said.placement_epoch) == Ok(held.placement_epoch);
    if !current {
        return None;
    }
    let kept = || held.reason.map(str::to_owned);
    if held.is_leaving && said.observed == Observed::Gone {
        return Some(Change {
            state: held.state,
            reason: kept(),
            power: None,
            compute_gone: false,
            left_node: true,
            reboots: None,
        });
    }
    let next = instance::next(held.state, held.power, said.observed);
    let detail = said.reason.map(|r| r.chars().take(DETAIL).collect::<String>());
    let reason = match next.reason {
        Some(reason) => Some(reason.text(detail.as_deref())),
        None if next.state == State::Running => None,
        // Why it takes so long is worth telling.
        None if held.state == State::Pending && said.observed == Observed::Starting && detail.is_some() => {
            detail
        }
        None => kept(),
    };
    let done = i64::try_from(said.reboots).ok();
    let change = Change {
        state: next.state,
        reason,
        power: next.power,
        compute_gone: next.compute_gone && held.has_compute,
        left_node: false,
        reboots: held
            .awaited_reboots
            .filter(|awaited| said.observed == Observed::Running && done.is_some_and(|done| done >= *awaited))
            .and(done),
    };
    let nothing = change.state == held.state
        && change.reason.as_deref() == held.reason
        && change.power.is_none()
        && !change.compute_gone
        && change.reboots.is_none()
        && held.observed_generation == held.generation;
    (!nothing).then_some(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: Held<'static> = Held {
        state: State::Running,
        reason: None,
        power: Power::Running,
        generation: 7,
        observed_generation: 7,
        placement_epoch: 2,
        has_compute: true,
        is_leaving: false,
        awaited_reboots: None,
    };
    const SAID: Said<'static> =
        Said { generation: 7, placement_epoch: 2, observed: Observed::Running, reason: None, reboots: 0 };

    /// Every held instance and what can be seen of it.
    fn all() -> impl Iterator<Item = (Held<'static>, Said<'static>)> {
        State::ALL.into_iter().flat_map(|state| {
            Power::ALL.into_iter().flat_map(move |power| {
                [false, true].into_iter().flat_map(move |is_leaving| {
                    Observed::ALL.into_iter().map(move |observed| {
                        (Held { state, power, is_leaving, ..HELD }, Said { observed, ..SAID })
                    })
                })
            })
        })
    }

    #[test]
    fn a_report_of_another_generation_or_placement_changes_nothing() {
        for (held, said) in all() {
            for generation in [0, 6, 8, u64::MAX] {
                assert_eq!(judge(held, Said { generation, ..said }), None);
            }
            for placement_epoch in [0, 1, 3, u64::MAX] {
                assert_eq!(judge(held, Said { placement_epoch, ..said }), None);
            }
        }
    }

    #[test]
    fn a_report_said_again_changes_nothing() {
        for (held, said) in all() {
            let Some(change) = judge(held, said).filter(|change| !change.left_node) else { continue };
            // A change of what should be is a new generation, of which the report does not speak.
            if change.power.is_some() {
                continue;
            }
            let after = Held {
                state: change.state,
                reason: change.reason.as_deref(),
                has_compute: held.has_compute && !change.compute_gone,
                ..held
            };
            assert_eq!(judge(after, said), None, "{held:?} {said:?}");
        }
    }

    #[test]
    fn only_what_is_gone_leaves_or_ends() {
        for (held, said) in all() {
            let Some(change) = judge(held, said) else { continue };
            if change.left_node || change.compute_gone {
                assert_eq!(said.observed, Observed::Gone);
            }
            assert!(!change.left_node || held.is_leaving);
            assert!(!change.compute_gone || held.power == Power::Terminated);
        }
    }

    #[test]
    fn the_first_word_of_a_generation_is_news() {
        let change = judge(Held { observed_generation: 6, ..HELD }, SAID).unwrap();
        assert_eq!((change.state, change.power), (State::Running, None));
        assert_eq!(judge(HELD, SAID), None);
    }

    #[test]
    fn reboots_count_once_somebody_waits_for_that_many() {
        let waits = Held { awaited_reboots: Some(2), ..HELD };
        assert_eq!(judge(waits, Said { reboots: 1, ..SAID }), None);
        assert_eq!(judge(waits, Said { reboots: 2, ..SAID }).and_then(|c| c.reboots), Some(2));
        let off = Said { reboots: 2, observed: Observed::Starting, ..SAID };
        assert_eq!(judge(waits, off).and_then(|c| c.reboots), None);
    }

    #[test]
    fn why_it_takes_long_is_told_and_cut() {
        let long = "x".repeat(600);
        let said = Said { observed: Observed::Starting, reason: Some(&long), ..SAID };
        let change = judge(Held { state: State::Pending, ..HELD }, said).unwrap();
        assert_eq!(change.reason.map(|r| r.len()), Some(DETAIL));
    }

    #[test]
    fn the_same_again_is_no_news_for_a_while() {
        assert!(is_news(false, Duration::ZERO));
        assert!(!is_news(true, Duration::from_secs(9)));
        assert!(is_news(true, FULL));
    }
}
