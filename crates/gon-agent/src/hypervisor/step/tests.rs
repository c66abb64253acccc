use std::fmt::Write as _;

use super::*;

const WANTS: [Want; 9] = [
    Want::GoOn,
    Want::Fence,
    Want::Absent,
    Want::Run { reboot: false },
    Want::Run { reboot: true },
    Want::Stop { force: false },
    Want::Stop { force: true },
    Want::Terminate,
    Want::Stale,
];
const PASTS: [Past; 15] = [
    Past::New,
    Past::Starting,
    Past::Running,
    Past::Asked { late: false },
    Past::Asked { late: true },
    Past::RebootAsked { late: false },
    Past::RebootAsked { late: true },
    Past::Resetting,
    Past::Off,
    Past::OffByGuest { overruled: false },
    Past::OffByGuest { overruled: true },
    Past::Failed { due: false, last: false },
    Past::Failed { due: true, last: false },
    Past::Failed { due: false, last: true },
    Past::Removing,
];
const SEEN: [Seen; 9] = [
    Seen::Gone,
    Seen::Silent { long: false },
    Seen::Silent { long: true },
    Seen::Paused,
    Seen::Running,
    Seen::ShutDown,
    Seen::DiskFull,
    Seen::Broken,
    Seen::Foreign,
];

fn all() -> impl Iterator<Item = (Want, Past, Seen)> {
    WANTS.into_iter().flat_map(|want| {
        PASTS.into_iter().flat_map(move |past| SEEN.into_iter().map(move |seen| (want, past, seen)))
    })
}

fn word(value: impl std::fmt::Debug) -> String {
    format!("{value:?}")
        .replace(": true", "")
        .replace(", last: false", "")
        .replace("due: false", "not due")
        .replace("late: false", "in time")
        .replace(" { reboot: false }", "")
        .replace(" { force: false }", "")
        .replace(" { overruled: false }", "")
        .replace(" { long: false }", "")
        .replace([' ', '{', '}'], " ")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Every combination, printed. After a change that is meant: `GON_BLESS=1 cargo test -p gon-agent`.
#[test]
fn the_table_is_as_printed() {
    let mut table = String::from("# want | past | seen | action | reported\n");
    for (want, past, seen) in all() {
        let observed = report(want, past, seen).map_or_else(|| "-".to_owned(), |o| format!("{o:?}"));
        let action = next(want, past, seen);
        let _ = writeln!(
            table,
            "{:<10} | {:<16} | {:<11} | {:<13} | {observed}",
            word(want),
            word(past),
            word(seen),
            word(action)
        );
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/hypervisor/step/table.txt");
    if std::env::var_os("GON_BLESS").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), table);
}

#[test]
fn what_is_not_ours_or_not_mentioned_is_not_touched() {
    for (want, past, seen) in all() {
        let action = next(want, past, seen);
        if seen == Seen::Foreign {
            assert_eq!(action, Action::Rest, "{want:?} {past:?}");
        }
        if matches!(want, Want::Absent | Want::Stale) && past != Past::Removing {
            assert_eq!(action, Action::Rest, "{past:?} {seen:?}");
        }
    }
}

#[test]
fn a_start_needs_that_nothing_runs() {
    for (want, past, seen) in all() {
        if next(want, past, seen) == Action::Start {
            assert_eq!(seen, Seen::Gone);
            assert!(matches!(want, Want::Run { .. }));
        }
    }
}

#[test]
fn nothing_that_should_run_and_runs_is_ended() {
    for (want, past, seen) in all() {
        if matches!(want, Want::Run { .. }) && past != Past::Removing && seen == Seen::Running {
            let action = next(want, past, seen);
            assert!(
                !matches!(
                    action,
                    Action::Cut | Action::Remove | Action::Collect | Action::Bury | Action::AskOff
                ),
                "{past:?} {action:?}"
            );
        }
    }
}

#[test]
fn only_terminate_removes_and_gone_is_said_only_when_it_is_true() {
    for (want, past, seen) in all() {
        if next(want, past, seen) == Action::Remove {
            assert!(want == Want::Terminate || past == Past::Removing);
        }
        if report(want, past, seen) == Some(ObservedInstance::Gone) {
            assert_eq!((want, past, seen), (Want::Terminate, Past::New, Seen::Gone));
        }
    }
}

/// A model of the effects: from every state, with every want held, the agent comes to rest, and where it should.
#[test]
fn every_state_converges() {
    // What an action makes of journal and machine, if it succeeds.
    fn effect(action: Action, past: Past, seen: Seen) -> (Past, Seen) {
        match action {
            Action::Rest => (past, seen),
            Action::Wait => match (past, seen) {
                (Past::Asked { .. }, Seen::Running) => (Past::Asked { late: true }, seen),
                (Past::RebootAsked { .. }, Seen::Running) => (Past::RebootAsked { late: true }, seen),
                (Past::Failed { last, .. }, Seen::Gone) => (Past::Failed { due: true, last }, seen),
                // A process that does not answer ends, or does.
                (_, Seen::Silent { long: false }) => (past, Seen::Silent { long: true }),
                (_, Seen::Silent { long: true }) => (past, Seen::Running),
                _ => panic!("nothing to wait for: {past:?} {seen:?}"),
            },
            Action::Start => (Past::Starting, Seen::Paused),
            Action::Resume | Action::SettleRunning | Action::Reset => (Past::Running, Seen::Running),
            Action::SettleOff | Action::Cut | Action::Fence => (Past::Off, Seen::Gone),
            Action::Bury => (Past::Failed { due: false, last: false }, Seen::Gone),
            Action::AskOff => (Past::Asked { late: false }, seen),
            Action::Collect => (Past::OffByGuest { overruled: false }, Seen::Gone),
            Action::AskReboot => (Past::RebootAsked { late: false }, seen),
            Action::Remove => (Past::New, Seen::Gone),
        }
    }
    // What only goes on waits for a grant, or for its end: not for anything here.
    for (want, past, seen) in all().filter(|(want, ..)| *want != Want::GoOn) {
        let (mut now_past, mut now_seen, mut now_want) = (past, seen, want);
        let mut steps = 0;
        loop {
            let action = next(now_want, now_past, now_seen);
            if action == Action::Rest {
                break;
            }
            if matches!(action, Action::Reset | Action::Start) {
                // Both satisfy a reboot.
                if now_want == (Want::Run { reboot: true }) {
                    now_want = Want::Run { reboot: false };
                }
            }
            (now_past, now_seen) = effect(action, now_past, now_seen);
            steps += 1;
            assert!(steps < 12, "{want:?} {past:?} {seen:?} does not come to rest");
        }
        let reported = report(now_want, now_past, now_seen);
        let fine = match want {
            _ if seen == Seen::Foreign => reported == Some(ObservedInstance::Unknown),
            Want::Terminate => reported == Some(ObservedInstance::Gone),
            Want::Stop { .. } => {
                matches!(reported, Some(ObservedInstance::Stopped | ObservedInstance::ShutDownByGuest))
            }
            Want::Run { .. } => {
                matches!(reported, Some(ObservedInstance::Running | ObservedInstance::ShutDownByGuest))
            }
            Want::Fence => now_seen == Seen::Gone,
            Want::Absent | Want::Stale | Want::GoOn => true,
        };
        assert!(fine, "{want:?} {past:?} {seen:?} → {now_past:?} {now_seen:?}: {reported:?}");
    }
}

#[test]
fn without_a_grant_nothing_begins_and_at_last_nothing_runs() {
    for (want, past, seen) in
        all().filter(|(_, past, seen)| *past != Past::Removing && *seen != Seen::Foreign)
    {
        let action = next(want, past, seen);
        if want == Want::GoOn {
            assert!(matches!(action, Action::Rest | Action::Wait), "{past:?} {seen:?}: {action:?}");
        }
        if want == Want::Fence {
            let ends = matches!(action, Action::Fence);
            assert_eq!(ends, seen != Seen::Gone, "{past:?} {seen:?}: {action:?}");
            assert!(ends || matches!(action, Action::Rest | Action::SettleOff), "{past:?}: {action:?}");
            // Nobody asked for that: it is not told as a stop.
            let told = report(want, past, seen);
            assert!(
                !matches!(told, Some(ObservedInstance::Stopped | ObservedInstance::Gone)),
                "{past:?} {seen:?}"
            );
        }
    }
}

#[test]
fn only_what_runs_by_grant_minds_it() {
    for want in WANTS {
        assert_eq!(under(want, None), want);
        assert_eq!(under(want, Some(Permit::Run)), want);
    }
    let run = Want::Run { reboot: true };
    assert_eq!((under(run, Some(Permit::GoOn)), under(run, Some(Permit::None))), (Want::GoOn, Want::Fence));
    // What is on its way out goes on its way.
    for want in [Want::Stop { force: false }, Want::Stop { force: true }, Want::Terminate] {
        assert_eq!(under(want, Some(Permit::None)), want);
    }
    // Nobody may start it elsewhere as long as the document is only late; when nobody says so any more, it is ended.
    for want in [Want::Absent, Want::Stale] {
        assert_eq!((under(want, Some(Permit::GoOn)), under(want, Some(Permit::None))), (want, Want::Fence));
    }
}
