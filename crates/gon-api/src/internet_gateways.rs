//! Internet gateways.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::page::{Applied, list_query};

/// A gateway to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateInternetGateway {
    /// Its name; its id unless given.
    pub name: Option<String>,
}

/// What can be changed of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateInternetGateway {
    /// Its name.
    pub name: String,
}

/// Where to attach a gateway, or from where to detach it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachInternetGateway {
    /// The VPC.
    pub vpc_id: String,
}

/// From where to detach a gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DetachInternetGateway {
    /// The VPC; the one it is attached to unless given.
    pub vpc_id: Option<String>,
}

/// An internet gateway.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct InternetGateway {
    /// `igw-…`.
    pub id: String,
    /// The whole id.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// The VPC it is attached to.
    pub vpc_id: Option<String>,
    /// `attached` or `detached`.
    pub state: String,
    /// How far a change has come; in answers to changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
    /// The VPC's generation with that change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

list_query! {
    /// Which gateways to list.
    ListInternetGateways {
        /// Those attached to this VPC.
        vpc_id,
        /// Those of exactly this name.
        name,
    }
}
