//! "Look again": a kind and an id, no data. Losing, repeating or reordering doorbells is harmless, because whoever
//! hears one reads the truth from PostgreSQL, and reads it anyway on a timer.
//!
//! Between processes a doorbell travels in an [`Envelope`], as JSON:
//!
//! ```json
//! {"v":1,"from":"0196f0c2-6c1e-7cc3-98c4-dc0c0c07398f","seq":17,"subject":"vpc","id":"0196f0c2-6c1e-7d11-8a7f-2f1d8f5a9b10"}
//! ```
//!
//! A receiver that does not know `v` sets the message aside and looks at everything instead; so a newer sender is
//! harmless, too. Nothing in it belongs to a tenant, and it is never longer than [`LONGEST`].

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Something that a VPC's packets depend on; the id is the VPC's. Heard by the network controller.
    Vpc,
    /// The specification of an instance; heard by the instance manager.
    Instance,
    /// A node joined, left, or changed what it can do; heard by both.
    Node,
    /// Something a user watches; the id is the account's. Heard by the API servers, which tell the browsers.
    Event,
}

impl Subject {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Vpc, Self::Instance, Self::Node, Self::Event];

    /// Its name: in JSON, in the outbox, and as the key by which messages find their queues.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vpc => "vpc",
            Self::Instance => "instance",
            Self::Node => "node",
            Self::Event => "event",
        }
    }
}

/// A doorbell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Doorbell {
    /// What changed.
    pub subject: Subject,
    /// Whose it was.
    pub id: Uuid,
}

/// The version of [`Envelope`] that is sent, and the only one that is understood.
pub const VERSION: u32 = 1;

/// A message with more bytes than this is no doorbell.
pub const LONGEST: usize = 64 * 1024;

/// A doorbell on its way from one process to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Version of this shape: [`VERSION`].
    pub v: u32,
    /// Who rings: made anew whenever a sender starts.
    pub from: Uuid,
    /// The sender's count of its doorbells of this subject, from 1. A receiver that finds a number left out knows that
    /// something was lost on the way.
    pub seq: u64,
    /// What changed.
    pub subject: Subject,
    /// Whose it was.
    pub id: Uuid,
}
