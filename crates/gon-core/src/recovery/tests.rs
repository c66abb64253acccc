use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn node(n: u128) -> NodeId {
    NodeId::from_uuid(Uuid::from_u128(n))
}
fn grant(epoch: u64, number: u64) -> Grant {
    Grant { epoch, number }
}
fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
const OVER: Duration = Duration::from_secs(90);

#[test]
fn only_what_is_to_run_and_asked_for_it_is_recovered() {
    for state in State::ALL {
        for power in Power::ALL {
            for (asked, leaving) in [(false, false), (false, true), (true, true), (true, false)] {
                let wanted = asked
                    && !leaving
                    && power == Power::Running
                    && [State::Pending, State::Running].contains(&state);
                assert_eq!(is_recovered(asked, state, power, leaving), wanted, "{state:?} {power:?}");
            }
        }
    }
}

#[test]
fn a_grant_is_over_when_it_stood_still_for_the_whole_time_before_one_pair_of_eyes() {
    let mut watch = Watch::default();
    // It may have stood still for days: nobody here saw that.
    watch.look(s(1000), [(node(1), grant(1, 7))]);
    assert_eq!(watch.over(node(1), s(1000), OVER), None);
    watch.look(s(1089), [(node(1), grant(1, 7))]);
    assert_eq!(watch.over(node(1), s(1089), OVER), None);
    assert_eq!(watch.over(node(1), s(1090), OVER), Some(grant(1, 7)));
    // Its epoch is raised by us: still over. By somebody else: its time begins.
    watch.raised(node(1), 2);
    watch.look(s(1091), [(node(1), grant(2, 7))]);
    assert_eq!(watch.over(node(1), s(1091), OVER), Some(grant(2, 7)));
    watch.look(s(1092), [(node(1), grant(3, 7))]);
    assert_eq!(watch.over(node(1), s(1092), OVER), None);
    // It had nothing for a while.
    watch.look(s(1200), []);
    watch.look(s(1300), [(node(1), grant(3, 7))]);
    assert_eq!(watch.over(node(1), s(1300), OVER), None);
    watch.look(s(1300), [(node(1), grant(3, 7))]);
    watch.clear();
    watch.look(s(1400), [(node(1), grant(3, 7))]);
    assert_eq!(watch.over(node(1), s(1400), OVER), None);
    // A clock that went back proves nothing.
    assert_eq!(watch.over(node(1), s(1), OVER), None);
    assert_eq!(watch.over(node(2), s(9999), OVER), None);
}

#[test]
fn too_many_at_once_is_us() {
    for (all, lost, us) in [
        (1, 1, false),
        (2, 1, false),
        (2, 2, true),
        (3, 2, true),
        (9, 1, false),
        (9, 2, true),
        (10, 2, false),
        (10, 3, true),
        (200, 40, false),
        (200, 41, true),
        (0, 0, false),
    ] {
        assert_eq!(is_cut_off(all, lost), us, "{lost} of {all}");
    }
}

#[test]
fn a_node_gets_so_many_a_minute() {
    let mut budget = Budget::default();
    for n in 0..PER_MINUTE {
        assert_eq!(budget.room(node(1), s(5)), PER_MINUTE - n);
        budget.give(node(1), s(5));
    }
    assert_eq!((budget.room(node(1), s(64)), budget.room(node(2), s(64))), (0, PER_MINUTE));
    assert_eq!(budget.room(node(1), s(65)), PER_MINUTE);
}

proptest! {
    /// However it is looked at: whoever is given up has not been seen to change for the whole time.
    #[test]
    fn nobody_is_given_up_early(steps in prop::collection::vec((0u64..40, 0u64..2, 0u64..10), 1..60)) {
        let mut watch = Watch::default();
        let (mut now, mut number, mut changed) = (0, 0, None);
        for (pause, raise, look) in steps {
            now += pause;
            number += raise;
            if look == 0 {
                watch.clear();
                changed = None;
            }
            if changed.is_none_or(|(held, _)| held != number) {
                changed = Some((number, now));
            }
            watch.look(s(now), [(node(1), grant(1, number))]);
            let since = changed.map_or(now, |(_, at)| at);
            prop_assert_eq!(watch.over(node(1), s(now), OVER).is_some(), now - since >= 90);
        }
    }
}
