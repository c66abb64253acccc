//! A running QEMU, as far as we steer it: the dozen QMP commands we use, with types at the edge.

use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use uuid::Uuid;

use super::command::{CONSOLE, CONSOLE_RING};
use super::spawn::GuestDir;
use crate::qmp::{Events, Qmp, QmpError};

/// How long an answer may take. QEMU answers at once, but not while it starts on a busy machine.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a guest's processors do, as QEMU tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunState {
    /// They have not run since start or reset.
    Prelaunch,
    /// They run.
    Running,
    /// Somebody stopped them.
    Paused,
    /// The guest powered itself off.
    Shutdown,
    /// A disk of the host is full; they go on when told to, once there is room.
    IoError,
    /// QEMU or KVM cannot go on with this guest.
    Broken,
}

impl RunState {
    fn parse(word: &str) -> Self {
        match word {
            "prelaunch" | "inmigrate" => Self::Prelaunch,
            "paused" | "postmigrate" | "save-vm" | "restore-vm" | "finish-migrate" | "debug" | "colo" => {
                Self::Paused
            }
            "shutdown" => Self::Shutdown,
            "io-error" => Self::IoError,
            "internal-error" | "guest-panicked" => Self::Broken,
            // `running`, `suspended`, `watchdog` and what later versions may add: the guest's own affair.
            _ => Self::Running,
        }
    }
}

/// The connection to a guest's QEMU, whose identity has been checked.
#[derive(Debug, Clone)]
pub struct Monitor(Qmp);

impl Monitor {
    /// Connects to the QEMU of `dir` and makes sure that it is the machine `uuid`.
    pub async fn connect(dir: &GuestDir, uuid: Uuid, deadline: Duration) -> Result<(Self, Events), QmpError> {
        let (qmp, events) = Qmp::connect(&dir.monitor(), deadline).await?;
        let answer = qmp.execute("query-uuid", Value::Null, deadline).await?;
        let theirs = answer["UUID"].as_str().unwrap_or_default();
        if theirs != uuid.to_string() {
            return Err(QmpError::Protocol(format!("this is machine '{theirs}', not {uuid}")));
        }
        Ok((Self(qmp), events))
    }
    /// The connection itself, for what has no word here.
    #[must_use]
    pub fn raw(&self) -> &Qmp {
        &self.0
    }
    /// QEMU's version.
    #[must_use]
    pub fn version(&self) -> (u32, u32, u32) {
        self.0.version()
    }
    /// What its processors do.
    pub async fn run_state(&self) -> Result<RunState, QmpError> {
        let answer = self.call("query-status", Value::Null).await?;
        Ok(RunState::parse(answer["status"].as_str().unwrap_or_default()))
    }
    /// Lets the processors run.
    pub async fn cont(&self) -> Result<(), QmpError> {
        self.call("cont", Value::Null).await.map(drop)
    }
    /// Presses the power button: the guest is asked to power itself off.
    pub async fn press_power_button(&self) -> Result<(), QmpError> {
        self.call("system_powerdown", Value::Null).await.map(drop)
    }
    /// Presses the reset button. A guest that was off is stopped before its first instruction afterwards.
    pub async fn reset(&self) -> Result<(), QmpError> {
        self.call("system_reset", Value::Null).await.map(drop)
    }
    /// Ends QEMU, disks flushed. That the connection closes before the answer comes is success.
    pub async fn quit(&self, deadline: Duration) -> Result<(), QmpError> {
        match self.0.execute("quit", Value::Null, deadline).await {
            Ok(_) | Err(QmpError::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }
    /// Takes what the guest has written to its console since the last call; at most the last [`CONSOLE_RING`] bytes.
    pub async fn take_console(&self) -> Result<Vec<u8>, QmpError> {
        let arguments = json!({"device": CONSOLE, "size": CONSOLE_RING, "format": "base64"});
        // Taken is taken: an answer that comes late is better than one that is thrown away.
        let answer = self.0.execute("ringbuf-read", arguments, DEADLINE * 6).await?;
        base64::engine::general_purpose::STANDARD
            .decode(answer.as_str().unwrap_or_default())
            .map_err(|error| QmpError::Protocol(format!("the console: {error}")))
    }

    async fn call(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.0.execute(command, arguments, DEADLINE).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_states_are_the_guests_own_affair() {
        assert_eq!(RunState::parse("shutdown"), RunState::Shutdown);
        assert_eq!(RunState::parse("prelaunch"), RunState::Prelaunch);
        assert_eq!(RunState::parse("hibernating-in-2031"), RunState::Running);
    }
}
