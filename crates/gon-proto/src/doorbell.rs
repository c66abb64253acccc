//! "Look again": a kind and an id, no data. Losing, repeating or reordering doorbells is harmless, because whoever
//! hears one reads the truth from PostgreSQL, and reads it anyway on a timer.

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

/// A doorbell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Doorbell {
    /// What changed.
    pub subject: Subject,
    /// Whose it was.
    pub id: Uuid,
}
