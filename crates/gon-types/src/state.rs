//! States and counters.
//!
//! `InstanceState` is what a user sees (EC2's six states). `Generation` counts changes of a specification.
//! `DocumentVersion` orders the documents a node receives.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How many times the specification of a resource has changed; starts at 1.
pub type Generation = u64;

/// The order of node documents: first the epoch of the controller that made it (raised in PostgreSQL whenever a
/// controller takes over), then its own counter. A node refuses what is not newer than what it has, so a controller
/// that lost its place can do no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentVersion {
    /// The controller's epoch; 0 is "no document yet".
    pub epoch: u64,
    /// The controller's counter within its epoch.
    pub generation: u64,
}
impl fmt::Display for DocumentVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.generation)
    }
}
impl FromStr for DocumentVersion {
    type Err = crate::NetError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || crate::NetError("must be EPOCH.GENERATION".to_owned());
        let (epoch, generation) = text.split_once('.').ok_or_else(bad)?;
        Ok(Self {
            epoch: epoch.parse().map_err(|_| bad())?,
            generation: generation.parse().map_err(|_| bad())?,
        })
    }
}

/// The state of an instance, with EC2's names and codes
/// (docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceState.html).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// Being placed or started.
    Pending,
    /// Running.
    Running,
    /// On its way to stopped.
    Stopping,
    /// Off, and can be started again.
    Stopped,
    /// On its way to terminated; no way back.
    ShuttingDown,
    /// Gone; still described for about an hour.
    Terminated,
}
impl InstanceState {
    /// Every state, in EC2's order of codes.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Running, Self::ShuttingDown, Self::Terminated, Self::Stopping, Self::Stopped];

    /// The word a user sees and the database stores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
        }
    }
    /// EC2's number (low byte).
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
            Self::Stopping => 64,
            Self::Stopped => 80,
        }
    }
}
impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl FromStr for InstanceState {
    type Err = crate::NetError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| {
            crate::NetError(
                "must be one of pending, running, stopping, stopped, shutting-down, terminated".to_owned(),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_read_back_as_written() {
        for state in InstanceState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
    }

    #[test]
    fn an_epoch_outranks_every_generation() {
        let old: DocumentVersion = "1.900".parse().unwrap();
        let new: DocumentVersion = "2.1".parse().unwrap();
        assert!(new > old);
        assert_eq!(old.to_string(), "1.900");
    }
}
