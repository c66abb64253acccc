//! The state of an instance: what a report makes of it.
//!
//! A user says what the power *should be* ([`Power`]); a node says what it *sees* ([`Observed`]); the state a user sees
//! ([`InstanceState`], EC2's six) follows from both and from where it stands. Assumes that stale reports (older
//! placement, older generation) were dropped before. Promises to move only along EC2's edges, and to be total: every
//! (state, power, observed) has an answer, printed in `instance/transitions.txt`.
//!
//! ```text
//!   pending ──▶ running ──▶ stopping ──▶ stopped ──▶ pending (start)
//!      │           │ └───────(guest)───────▲ │
//!      ├───────────┴──────────┬──────────────┘
//!      ▼                      ▼
//!   stopped (failed)    shutting-down ──▶ terminated (when every finalizer is gone: not here)
//! ```

use gon_types::InstanceState as State;

/// What an instance's power should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Power {
    /// On.
    Running,
    /// Off, disks kept.
    Stopped,
    /// Off and removed; no way back.
    Terminated,
}

impl Power {
    /// Every value.
    pub const ALL: [Self; 3] = [Self::Running, Self::Stopped, Self::Terminated];

    /// The word the database stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Terminated => "terminated",
        }
    }
}

impl std::str::FromStr for Power {
    type Err = gon_types::NetError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|p| p.as_str() == text)
            .ok_or_else(|| gon_types::NetError("must be one of running, stopped, terminated".to_owned()))
    }
}

/// What a node sees of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Observed {
    /// Being prepared or started.
    Starting,
    /// The guest's processors run.
    Running,
    /// The guest was asked to power off.
    Stopping,
    /// Off; its disks are there.
    Stopped,
    /// Off because the guest powered itself off.
    ShutDownByGuest,
    /// Nothing of it is left on the node.
    Gone,
    /// It could not be started; nothing of it runs.
    Failed,
    /// It cannot be told at the moment.
    Unknown,
}

impl Observed {
    /// Every value.
    pub const ALL: [Self; 8] = [
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Stopped,
        Self::ShutDownByGuest,
        Self::Gone,
        Self::Failed,
        Self::Unknown,
    ];
}

/// Why the platform moved an instance, with the beginning of EC2's state reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The guest powered itself off.
    GuestShutdown,
    /// The node could not start it, or lost it while it ran.
    Failed,
}

impl Reason {
    /// The text a user sees; `detail` is the node's one line, if it gave one.
    #[must_use]
    pub fn text(self, detail: Option<&str>) -> String {
        let text = match self {
            Self::GuestShutdown => "Client.InstanceInitiatedShutdown: the guest powered itself off",
            Self::Failed => "Server.InternalError: the instance could not be started",
        };
        match detail {
            Some(detail) => format!("{text}: {detail}"),
            None => text.to_owned(),
        }
    }
}

/// What follows from a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state from now on; the same if nothing moves.
    pub state: State,
    /// What the power should be from now on, where the guest or a failure decided that.
    pub power: Option<Power>,
    /// Why, where it was not the user.
    pub reason: Option<Reason>,
    /// Nothing is left on the node: the `compute` finalizer goes.
    pub compute_gone: bool,
}

/// What a current report of `observed` makes of an instance in `state` whose power should be `power`.
#[must_use]
pub fn next(state: State, power: Power, observed: Observed) -> Transition {
    let stay = Transition { state, power: None, reason: None, compute_gone: false };
    // Terminated is a tombstone: nothing moves it.
    if state == State::Terminated {
        return stay;
    }
    match power {
        Power::Terminated => {
            Transition { state: State::ShuttingDown, compute_gone: observed == Observed::Gone, ..stay }
        }
        Power::Stopped => match (state, observed) {
            // Off is off, however it came about: stopping a guest that was already gone has succeeded.
            (
                State::Pending | State::Running | State::Stopping,
                Observed::Stopped | Observed::ShutDownByGuest | Observed::Gone | Observed::Failed,
            ) => Transition { state: State::Stopped, ..stay },
            (State::Running, Observed::Stopping) => Transition { state: State::Stopping, ..stay },
            _ => stay,
        },
        Power::Running => match (state, observed) {
            (State::Pending, Observed::Running) => Transition { state: State::Running, ..stay },
            // The guest's own decision, or a failure that trying again would only repeat, becomes what should be.
            (State::Pending | State::Running | State::Stopping, Observed::ShutDownByGuest) => Transition {
                state: State::Stopped,
                power: Some(Power::Stopped),
                reason: Some(Reason::GuestShutdown),
                ..stay
            },
            (State::Pending | State::Running | State::Stopping, Observed::Failed) => Transition {
                state: State::Stopped,
                power: Some(Power::Stopped),
                reason: Some(Reason::Failed),
                ..stay
            },
            // Off or missing although it should run: the node starts it, the user's state does not flicker.
            _ => stay,
        },
    }
}

#[cfg(test)]
mod tests;
