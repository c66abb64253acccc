//! Public addresses that users allocate (EC2's elastic IP addresses).

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::page::{Applied, list_query};

/// An address to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AllocateAddress {
    /// Its name.
    pub name: Option<String>,
}

/// What to map an address to: an instance's primary interface, or an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssociateAddress {
    /// The instance.
    pub instance_id: Option<String>,
    /// The interface.
    pub network_interface_id: Option<String>,
    /// Whether an address that is mapped elsewhere moves (true unless given).
    pub allow_reassociation: Option<bool>,
}

/// An allocated public address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Address {
    /// `eipalloc-…`.
    pub id: String,
    /// The whole id.
    pub uuid: Uuid,
    /// Its name.
    pub name: Option<String>,
    /// The address.
    pub public_ip: String,
    /// The instance it is mapped to.
    pub instance_id: Option<String>,
    /// The interface it is mapped to.
    pub network_interface_id: Option<String>,
    /// That interface's address.
    pub private_ip: Option<String>,
    /// That interface's VPC.
    pub vpc_id: Option<String>,
    /// How far a change has come; in answers to changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
    /// The VPC's generation with that change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When it was allocated.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

list_query! {
    /// Which addresses to list.
    ListAddresses {
        /// Those of exactly this name.
        name,
        /// Those mapped to this instance.
        instance_id,
    }
}
