use std::fmt::Write as _;

use super::*;

/// EC2's edges, plus running → stopped; as in the trigger `instances_check_change`.
const EDGES: [(State, State); 10] = [
    (State::Pending, State::Running),
    (State::Pending, State::Stopped),
    (State::Pending, State::ShuttingDown),
    (State::Running, State::Stopping),
    (State::Running, State::Stopped),
    (State::Running, State::ShuttingDown),
    (State::Stopping, State::Stopped),
    (State::Stopping, State::ShuttingDown),
    (State::Stopped, State::Pending),
    (State::Stopped, State::ShuttingDown),
];

fn all() -> impl Iterator<Item = (State, Power, Observed)> {
    State::ALL.into_iter().flat_map(|state| {
        Power::ALL
            .into_iter()
            .flat_map(move |power| Observed::ALL.into_iter().map(move |observed| (state, power, observed)))
    })
}

/// Every pair, printed. After a change that is meant: `GON_BLESS=1 cargo test -p gon-core`.
#[test]
fn the_table_is_as_printed() {
    let mut table = String::from("# state × power × observed → state [power] [why] [compute gone]\n");
    for (state, power, observed) in all() {
        let t = next(state, power, observed);
        let _ = write!(
            table,
            "{:<13} {:<10} {:<15} → {}",
            state.as_str(),
            power.as_str(),
            format!("{observed:?}"),
            if t.state == state { "·" } else { t.state.as_str() }
        );
        if let Some(power) = t.power {
            let _ = write!(table, " power={}", power.as_str());
        }
        if let Some(reason) = t.reason {
            let _ = write!(table, " why={reason:?}");
        }
        if t.compute_gone {
            table.push_str(" compute-gone");
        }
        table.push('\n');
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/instance/transitions.txt");
    if std::env::var_os("GON_BLESS").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), table);
}

#[test]
fn every_move_is_an_edge_of_ec2() {
    for (state, power, observed) in all() {
        let to = next(state, power, observed).state;
        assert!(to == state || EDGES.contains(&(state, to)), "{state} → {to} on {power:?} {observed:?}");
    }
}

#[test]
fn the_same_report_again_moves_nothing_more() {
    for (state, power, observed) in all() {
        let first = next(state, power, observed);
        let again = next(first.state, first.power.unwrap_or(power), observed);
        assert_eq!(again.state, first.state, "{state} {power:?} {observed:?}");
        assert_eq!(again.power, None, "{state} {power:?} {observed:?}");
    }
}

#[test]
fn only_a_termination_cleans_up() {
    for (state, power, observed) in all() {
        if next(state, power, observed).compute_gone {
            assert_eq!((power, observed), (Power::Terminated, Observed::Gone));
        }
    }
}
