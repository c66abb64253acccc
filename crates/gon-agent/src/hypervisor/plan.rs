//! The effects of an [`Action`], in the order in which they must happen. Pure: the agent performs them, the simulation
//! of the platform performs the same ones and crashes between any two.
//!
//! The order is the promise of [`super::journal`]: what is about to happen is on the disk first, so that a crash leaves
//! at most an announcement of something that did not happen; and a removal takes the journal away last.

use gon_proto::InstanceSpec;

use super::journal::{Journal, Phase};
use super::step::{Action, Seen};

/// What is written into the journal; see [`Journal::with`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entry {
    /// A start begins.
    Begin,
    /// Its processors run; a reboot that was under way is done.
    Running,
    /// The guest is asked to power off.
    Asked,
    /// The guest is asked to power off, for a reboot.
    RebootAsked,
    /// The guest is off and will be reset.
    Resetting,
    /// It was reset and runs: the reboot is done.
    Rebooted,
    /// We ended it.
    Off,
    /// We ended it because nobody says that it may run here.
    Fenced,
    /// The guest powered itself off.
    OffByGuest,
    /// It is being removed.
    Removing,
}

/// One thing that is done for an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Write into the journal, to stay.
    Write(Entry),
    /// Make the files it runs from; again is harmless.
    MakeFiles,
    /// Go on only when its taps are up.
    AwaitTaps,
    /// Start its process, processors stopped.
    Spawn,
    /// Write down which process that is.
    NoteProcess,
    /// Go on only when the process has answered.
    AwaitAnswer,
    /// Let its processors run.
    Continue,
    /// Keep what its console has said.
    SaveConsole,
    /// Press the power button.
    PressPower,
    /// Press the power button once and give the guest a moment; it ends all the same.
    PressLast,
    /// Press the reset button.
    PressReset,
    /// End its process and wait until it is gone.
    End,
    /// Kill its process, without a word to it, and wait until it is gone.
    Kill,
    /// Write down that an attempt to run it ended badly.
    Bury,
    /// Remove its files, all but the journal.
    RemoveFiles,
    /// Remove the journal, to stay removed.
    RemoveJournal,
    /// Remove the directory.
    RemoveDirectory,
}

/// Whether the journal says already that a start of this specification was begun in this boot.
#[must_use]
pub fn is_begun(journal: Option<&Journal>, spec: Option<&InstanceSpec>, boot: u64) -> bool {
    journal.zip(spec).is_some_and(|(journal, spec)| {
        journal.phase == Phase::Starting && journal.generation == spec.generation && journal.boot == boot
    })
}

/// What `action` consists of. When an effect fails, the rest is left out and the question is asked again.
#[must_use]
pub fn plan(action: Action, seen: Seen, phase: Option<Phase>, begun: bool) -> Vec<Effect> {
    use Effect::*;
    match action {
        Action::Rest | Action::Wait => vec![],
        Action::Start => {
            let start = [MakeFiles, AwaitTaps, Spawn, NoteProcess, AwaitAnswer];
            // Once is enough while it waits for its taps.
            let first = (!begun).then_some(Write(Entry::Begin));
            first.into_iter().chain(start).collect()
        }
        Action::Resume if phase == Some(Phase::Running) => vec![Continue],
        Action::Resume => vec![Continue, Write(Entry::Running)],
        Action::SettleRunning => vec![Write(Entry::Running)],
        Action::SettleOff => vec![Write(Entry::Off)],
        Action::Bury if seen == Seen::Gone => vec![Bury],
        Action::Bury => vec![End, Bury],
        Action::AskOff => vec![Write(Entry::Asked), PressPower],
        Action::AskReboot => vec![Write(Entry::RebootAsked), PressPower],
        Action::Reset => match seen {
            // Announced, so that a crash after the button does not press it twice. A guest that runs and did not
            // listen is reset again after a crash: it has only just begun to boot.
            Seen::ShutDown => {
                vec![Write(Entry::Resetting), SaveConsole, PressReset, Continue, Write(Entry::Rebooted)]
            }
            Seen::Running => vec![SaveConsole, PressReset, Write(Entry::Rebooted)],
            _ => vec![SaveConsole, PressReset, Continue, Write(Entry::Rebooted)],
        },
        // A disk that hangs must not keep it alive: this is announced by the grant's age, for everybody to see.
        Action::Fence => vec![Kill, Write(Entry::Fenced)],
        Action::Cut => vec![SaveConsole, End, Write(Entry::Off)],
        // First what happened: nobody can ask once the process is gone.
        Action::Collect => vec![SaveConsole, Write(Entry::OffByGuest), End],
        Action::Remove => {
            let announce =
                phase.is_some_and(|phase| phase != Phase::Removing).then_some(Write(Entry::Removing));
            let remove = [PressLast, End, RemoveFiles, RemoveJournal, RemoveDirectory];
            announce.into_iter().chain(remove).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIONS: [Action; 14] = [
        Action::Fence,
        Action::Rest,
        Action::Wait,
        Action::Start,
        Action::Resume,
        Action::SettleRunning,
        Action::SettleOff,
        Action::Bury,
        Action::AskOff,
        Action::Cut,
        Action::Collect,
        Action::AskReboot,
        Action::Reset,
        Action::Remove,
    ];

    #[test]
    fn what_cannot_be_undone_is_announced() {
        let seen = [Seen::Gone, Seen::Paused, Seen::Running, Seen::ShutDown, Seen::Broken];
        let phases =
            [None, Some(Phase::Starting), Some(Phase::Running), Some(Phase::Off), Some(Phase::Removing)];
        for action in ACTIONS {
            for (seen, phase) in seen.into_iter().flat_map(|s| phases.map(|p| (s, p))) {
                let effects = plan(action, seen, phase, false);
                let at = |effect| effects.iter().position(|e| *e == effect);
                let before =
                    |first, then| at(then).is_none_or(|then| at(first).is_some_and(|first| first < then));
                assert!(before(Effect::Write(Entry::Begin), Effect::Spawn), "{action:?}");
                assert!(before(Effect::End, Effect::RemoveFiles), "{action:?}");
                assert!(before(Effect::RemoveFiles, Effect::RemoveJournal), "{action:?}");
                assert!(before(Effect::RemoveJournal, Effect::RemoveDirectory), "{action:?}");
                if phase.is_some_and(|phase| phase != Phase::Removing) {
                    assert!(before(Effect::Write(Entry::Removing), Effect::RemoveFiles), "{action:?}");
                }
            }
        }
        let begun = plan(Action::Start, Seen::Gone, Some(Phase::Starting), true);
        assert_eq!(begun[0], Effect::MakeFiles);
    }
}
