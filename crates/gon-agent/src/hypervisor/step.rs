//! What to do next for one instance. Pure and total: the table of all answers is `step/table.txt`.
//!
//! Three things decide: what the document wants ([`Want`]), what the journal says was done ([`Past`]), and what is
//! seen of the machine now ([`Seen`]). Assumes that a journal entry was on the disk before the effect it announces.
//! Promises that repeating the question after a crash at any point leads to the same end, that nothing is started
//! while something may still run, that nothing is killed that the document does not want stopped or gone, and that
//! what is not ours is not touched.
//!
//! ```text
//!           Start            Resume               AskOff             Cut · Collect
//!   (new) ────────▶ Starting ──────▶ Running ──────────────▶ Asked ────────────────▶ Off
//!                      ▲  │             │  ▲ AskReboot · Reset                        │
//!                      │  └──── Bury ───┤  └──────────────▶ RebootAsked · Resetting   │
//!                      └── Failed ◀─────┘                                             │
//!                      └───────────────────────────── Start ─────────────────────────┘
//!   any ── Remove ──▶ Removing ──▶ (nothing left)
//! ```
//!
//! Two decisions that the contract leaves open:
//!
//! - A machine that vanished although it should run is started again, a few times with growing pauses, before it is
//!   reported as failed: EC2's automatic recovery of an instance, which is on by default there too.
//! - A guest that powered itself off stays off until its specification changes: whoever wants it on after it was seen
//!   off says so by a new generation.

use gon_proto::ObservedInstance;

use super::fence::Permit;

/// What the document wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Want {
    /// The document does not mention it: a mistake somewhere, to be reported and not acted on.
    Absent,
    /// It shall run.
    Run {
        /// A reboot was asked for that has not been done.
        reboot: bool,
    },
    /// It shall be off.
    Stop {
        /// Without asking the guest.
        force: bool,
    },
    /// It shall be off and everything of it removed.
    Terminate,
    /// The document speaks of an older placement or generation than was already acted on (rule R5).
    Stale,
    /// It shall run, and nobody has said lately that it may run here ([`under`]): it goes on, and is not started.
    GoOn,
    /// Nobody has said for long that it may run here: it may be started elsewhere.
    Fence,
}

/// What is wanted of an instance that runs by grant; others have no `permit`.
#[must_use]
pub const fn under(want: Want, permit: Option<Permit>) -> Want {
    match (want, permit) {
        (Want::Run { .. }, Some(Permit::GoOn)) => Want::GoOn,
        (Want::Run { .. } | Want::Absent | Want::Stale, Some(Permit::None)) => Want::Fence,
        _ => want,
    }
}

/// What the journal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Past {
    /// Nothing was ever done.
    New,
    /// A start was begun.
    Starting,
    /// It ran.
    Running,
    /// The guest was asked to power off.
    Asked {
        /// Its time for that is over.
        late: bool,
    },
    /// The guest was asked to power off for a reboot.
    RebootAsked {
        /// Its time for that is over.
        late: bool,
    },
    /// The reset button of a guest that was off was about to be pressed.
    Resetting,
    /// We ended it.
    Off,
    /// The guest powered itself off.
    OffByGuest {
        /// The specification has changed since: it is wanted on all the same.
        overruled: bool,
    },
    /// A start failed, or the machine vanished.
    Failed {
        /// The pause before the next attempt is over.
        due: bool,
        /// Tried often enough: reported as failed.
        last: bool,
    },
    /// Its removal was begun.
    Removing,
}

/// What is seen of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seen {
    /// There is no process, and nobody else can make one: we hold the lock.
    Gone,
    /// There is a process, or one in the making, that does not answer.
    Silent {
        /// For longer than any start takes.
        long: bool,
    },
    /// Its processors are stopped and have not run since start or reset, or somebody stopped them.
    Paused,
    /// Its processors run.
    Running,
    /// The guest powered itself off; the process waits.
    ShutDown,
    /// It is paused because a disk of this node is full.
    DiskFull,
    /// QEMU itself cannot go on with it.
    Broken,
    /// Another machine answers at its socket.
    Foreign,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Nothing: it is as it should be, or must not be touched.
    Rest,
    /// Nothing yet: look again soon.
    Wait,
    /// Prepare it and start its process, processors stopped.
    Start,
    /// Let its processors run.
    Resume,
    /// Write down that it runs.
    SettleRunning,
    /// Write down that it is off.
    SettleOff,
    /// Write down that it vanished or cannot go on, and why; what is left of its process is ended.
    Bury,
    /// Ask the guest to power off, and write down until when we wait.
    AskOff,
    /// End the process, whatever the guest does; it is off by our doing.
    Cut,
    /// Kill the process: it must not run here any longer.
    Fence,
    /// End the process of a guest that powered itself off, and write that down.
    Collect,
    /// Ask the guest to power off, for a reboot.
    AskReboot,
    /// Press reset, and let its processors run: the reboot is done.
    Reset,
    /// End the process and remove everything of it.
    Remove,
}

/// What to do next.
#[must_use]
pub fn next(want: Want, past: Past, seen: Seen) -> Action {
    if seen == Seen::Foreign {
        return Action::Rest;
    }
    // A removal that was begun is one-way, also if the document has forgotten it meanwhile.
    if past == Past::Removing {
        return Action::Remove;
    }
    match want {
        Want::Absent | Want::Stale => Action::Rest,
        Want::GoOn if seen == Seen::Running => Action::Rest,
        Want::GoOn => Action::Wait,
        Want::Fence => fence(past, seen),
        Want::Terminate if past == Past::New && seen == Seen::Gone => Action::Rest,
        Want::Terminate => Action::Remove,
        Want::Stop { force } => stop(force, past, seen),
        Want::Run { reboot } => run(reboot, past, seen),
    }
}

fn fence(past: Past, seen: Seen) -> Action {
    match seen {
        Seen::Gone => match past {
            Past::Starting
            | Past::Running
            | Past::Asked { .. }
            | Past::RebootAsked { .. }
            | Past::Resetting => Action::SettleOff,
            _ => Action::Rest,
        },
        Seen::Foreign => Action::Rest,
        _ => Action::Fence,
    }
}

fn stop(force: bool, past: Past, seen: Seen) -> Action {
    match seen {
        Seen::Gone => match past {
            Past::New | Past::Off | Past::OffByGuest { .. } => Action::Rest,
            _ => Action::SettleOff,
        },
        Seen::Silent { long } if force || long => Action::Cut,
        Seen::Silent { .. } => Action::Wait,
        // A guest that does not run cannot be asked, and loses nothing.
        Seen::Paused | Seen::DiskFull | Seen::Broken => Action::Cut,
        Seen::Running if force => Action::Cut,
        Seen::Running => match past {
            Past::Asked { late: true } => Action::Cut,
            Past::Asked { late: false } => Action::Wait,
            _ => Action::AskOff,
        },
        Seen::ShutDown => Action::Cut,
        Seen::Foreign => Action::Rest,
    }
}

fn run(reboot: bool, past: Past, seen: Seen) -> Action {
    match seen {
        Seen::Gone => match past {
            Past::New | Past::Off | Past::Starting | Past::Asked { .. } => Action::Start,
            Past::OffByGuest { overruled } => {
                if overruled {
                    Action::Start
                } else {
                    Action::Rest
                }
            }
            Past::Failed { due, .. } => {
                if due {
                    Action::Start
                } else {
                    Action::Wait
                }
            }
            Past::Running | Past::RebootAsked { .. } | Past::Resetting => Action::Bury,
            Past::Removing => Action::Remove,
        },
        // It has never run, and never will.
        Seen::Silent { long: true } if past == Past::Starting => Action::Bury,
        Seen::Silent { .. } => Action::Wait,
        Seen::Paused => Action::Resume,
        Seen::Running => match past {
            Past::RebootAsked { late: false } => Action::Wait,
            Past::RebootAsked { late: true } => Action::Reset,
            // The reset was announced while the guest was off: that it runs shows that it was done.
            Past::Resetting => Action::SettleRunning,
            // It was asked to power off and cannot be asked not to; when it has, or will not, we see further.
            Past::Asked { late: false } => Action::Wait,
            _ if reboot => Action::AskReboot,
            Past::Running => Action::Rest,
            _ => Action::SettleRunning,
        },
        Seen::ShutDown => match past {
            // It is off because we asked, or it is wanted on again: on it goes, in the same process.
            Past::RebootAsked { .. } | Past::Resetting | Past::Asked { .. } => Action::Reset,
            Past::OffByGuest { overruled: true } => Action::Reset,
            _ if reboot => Action::Reset,
            _ => Action::Collect,
        },
        Seen::DiskFull if reboot => Action::Reset,
        // Once there is room it goes on; until then this changes nothing.
        Seen::DiskFull => Action::Resume,
        Seen::Broken => Action::Bury,
        Seen::Foreign => Action::Rest,
    }
}

/// What is reported, once `action` is the answer and has been tried; `None` if there is nothing to speak of.
#[must_use]
pub fn report(want: Want, past: Past, seen: Seen) -> Option<ObservedInstance> {
    use ObservedInstance as O;
    let on_its_way = if want == Want::Terminate { O::Stopping } else { O::Starting };
    Some(match seen {
        Seen::Foreign => O::Unknown,
        Seen::Gone => match past {
            Past::New => match want {
                Want::Terminate => O::Gone,
                Want::Stop { .. } => O::Stopped,
                Want::Run { .. } | Want::GoOn | Want::Fence => O::Starting,
                Want::Absent | Want::Stale => return None,
            },
            Past::Removing => O::Stopping,
            Past::Off => match want {
                Want::Run { .. } | Want::GoOn | Want::Fence => O::Starting,
                _ => O::Stopped,
            },
            Past::OffByGuest { overruled } => match want {
                Want::Run { .. } if overruled => O::Starting,
                _ => O::ShutDownByGuest,
            },
            Past::Failed { last: true, .. } => O::Failed,
            Past::Failed { .. } | Past::Starting => on_its_way,
            // It vanished; what is done about it comes next.
            _ => match want {
                Want::Run { .. } | Want::GoOn | Want::Fence => O::Starting,
                Want::Absent | Want::Stale => O::Failed,
                _ => O::Stopping,
            },
        },
        Seen::Silent { .. } => match past {
            Past::Starting => on_its_way,
            _ => O::Unknown,
        },
        Seen::Paused => match past {
            Past::New | Past::Starting | Past::Off | Past::Failed { .. } => on_its_way,
            Past::Removing => O::Stopping,
            _ => O::Running,
        },
        Seen::Running | Seen::DiskFull | Seen::Broken => match past {
            Past::Removing => O::Stopping,
            Past::Asked { .. } => O::Stopping,
            _ if matches!(want, Want::Terminate) => O::Stopping,
            _ => O::Running,
        },
        Seen::ShutDown => match past {
            Past::RebootAsked { .. } | Past::Resetting => O::Running,
            Past::Asked { .. } | Past::Removing => O::Stopping,
            _ => match want {
                Want::Run { reboot: true } => O::Running,
                // Its process is about to be ended; off it is when that is gone.
                Want::Run { .. } | Want::GoOn | Want::Fence | Want::Stop { .. } | Want::Terminate => {
                    O::Stopping
                }
                Want::Absent | Want::Stale => O::ShutDownByGuest,
            },
        },
    })
}

#[cfg(test)]
mod tests;
