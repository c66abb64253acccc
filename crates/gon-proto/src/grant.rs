//! The grant to run: what keeps an instance that is recovered on another node from running twice.
//!
//! An instance with `auto_recover` runs on its node only while the node holds a *grant* of its present epoch. A grant is a
//! number that the leader of the instance manager raises in PostgreSQL (`nodes.grant_seq`, compared and set together with
//! the node's epoch) when the node's hypervisor agent asks. Nobody's wall clock is compared with anybody's: the agent counts
//! a grant's age on its own clock since boot, from the moment *it sent the request*; the leader counts how long the number
//! stands still on its own clock, from the moment it *saw* it. What was asked for was sent before it was recorded, and
//! recorded before it was seen, so whatever the two clocks show, the leader waits longest:
//!
//! ```text
//! age of the grant   0 ─────────── 10 s ─────────── 45 s ─────── 60 s ────────────── 90 s, counted later ──▶
//! on the node          may start     goes on, starts  the agent    the keeper ends
//!                                    nothing          ends it      what it has not
//! at the leader                                                                        raises the node's epoch and
//!                                                                                      places it elsewhere
//! ```
//!
//! The request says which number the agent knows. An agent that does not hear the answers does not know the number, and
//! raises it no further: a network that carries requests but no answers ends as one that carries nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// With a grant of this age nothing is started any more.
pub const NO_START_AFTER: Duration = Duration::from_secs(10);
/// With a grant of this age what runs is ended by the agent.
pub const END_AFTER: Duration = Duration::from_secs(45);
/// With a grant of this age what still runs is ended by the keeper, a process beside the agent.
pub const KEEP_UNTIL: Duration = Duration::from_secs(60);
/// A grant that the leader has seen unchanged for so long is over on every clock.
pub const OVER_AFTER: Duration = Duration::from_secs(90);

// The keeper may take so long to see it and to end a process (it looks every two seconds; a kill takes ten at most), and
// clocks may run apart by a percent.
const _: () = assert!(KEEP_UNTIL.as_secs() + 12 + 1 < OVER_AFTER.as_secs());
const _: () =
    assert!(NO_START_AFTER.as_secs() < END_AFTER.as_secs() && END_AFTER.as_secs() < KEEP_UNTIL.as_secs());

/// From the hypervisor agent, every few seconds while it has an instance that runs by grant only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    /// [`crate::FORMAT`] of the writer.
    pub format: u32,
    /// The node's epoch as it was told; one that is over gets no grant.
    pub epoch: u64,
    /// The number it was told last; `None` if it does not know any.
    pub known: Option<u64>,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantAnswer {
    /// The node's epoch by now.
    pub epoch: u64,
    /// The number by now.
    pub number: u64,
    /// Whether that is a grant. If not, what was asked with is not what is: ask again with what this answer says.
    pub granted: bool,
}
