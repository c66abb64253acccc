//! Images and instance types: what can be launched.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::page::list_query;

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Image {
    /// `ami-…`.
    pub id: String,
    /// The whole id.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// `initramfs` or `disk`.
    pub kind: String,
    /// For example `x86_64`.
    pub architecture: String,
    /// `available`.
    pub state: String,
    /// The least memory that boots it, MiB.
    pub min_memory_mib: i32,
    /// Size of its root disk, GiB; 0 when it runs from memory.
    pub disk_gib: i32,
    /// Whether it is everybody's.
    pub public: bool,
    /// When it was registered.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// An instance type.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct InstanceType {
    /// Its name (`g1.micro`).
    pub name: String,
    /// Virtual processors.
    pub vcpus: u16,
    /// Memory, MiB.
    pub memory_mib: u32,
}

list_query! {
    /// Which images to list.
    ListImages {
        /// Those of exactly this name.
        name,
    }
}

list_query! {
    /// Which instance types to list.
    ListInstanceTypes {
        /// The one of exactly this name.
        name,
    }
}
