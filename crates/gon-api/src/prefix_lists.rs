//! Managed prefix lists: blocks under one name.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::page::{Applied, list_query};

/// A block of a list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrefixListEntry {
    /// An IPv4 block. Host bits are dropped.
    pub cidr: String,
    /// For people, at most 255 characters.
    #[serde(default)]
    pub description: String,
}

/// A prefix list to be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePrefixList {
    /// Its name, 1 to 100 characters.
    pub name: String,
    /// How many entries it may have, 1 to 60: for so many rules or routes one that names it counts.
    pub max_entries: i64,
    /// Its entries.
    pub entries: Option<Vec<PrefixListEntry>>,
}

/// What can be changed of a prefix list; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdatePrefixList {
    /// Its name.
    pub name: Option<String>,
    /// How many entries it may have.
    pub max_entries: Option<i64>,
    /// Change only if this is still its version.
    pub current_version: Option<i64>,
    /// Entries it has from now on; one that is there gets the description.
    pub add_entries: Option<Vec<PrefixListEntry>>,
    /// Blocks it no longer has.
    pub remove_entries: Option<Vec<String>>,
}

/// A prefix list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct PrefixList {
    /// `pl-…`.
    pub id: String,
    /// The whole id.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// How many entries it may have.
    pub max_entries: i32,
    /// Counts every change of its entries.
    pub version: i64,
    /// Its entries, by block.
    pub entries: Vec<PrefixListEntry>,
    /// How far a change has come, on the nodes of every VPC whose rules or routes name it; in answers to changes. Its
    /// generation is the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

list_query! {
    /// Which prefix lists to list.
    ListPrefixLists {
        /// Those of exactly this name.
        name,
    }
}
