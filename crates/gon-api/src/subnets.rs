//! Subnets.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::page::{Applied, list_query};

/// A subnet to be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSubnet {
    /// Its name, 1 to 100 characters.
    pub name: String,
    /// Its IPv4 block inside the VPC's, /16 to /28. Host bits are dropped.
    pub cidr_block: String,
    /// Its zone; the site's first unless given.
    pub availability_zone: Option<String>,
    /// Whether launches get a public address unless they say otherwise; false unless given.
    pub map_public_ip_on_launch: Option<bool>,
}

/// What can be changed of a subnet; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateSubnet {
    /// Its name.
    pub name: Option<String>,
    /// Whether launches get a public address unless they say otherwise.
    pub map_public_ip_on_launch: Option<bool>,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Subnet {
    /// `subnet-…`.
    pub id: String,
    /// The whole id.
    pub uuid: Uuid,
    /// Its VPC.
    pub vpc_id: String,
    /// Its name.
    pub name: String,
    /// Its IPv4 block.
    pub cidr_block: String,
    /// Its zone.
    pub availability_zone: String,
    /// `public` when its effective route table leads to an attached internet gateway, `private` otherwise.
    pub subnet_type: String,
    /// The effective route table.
    pub route_table_id: String,
    /// The network ACL it is associated with.
    pub network_acl_id: String,
    /// Whether launches get a public address unless they say otherwise.
    pub map_public_ip_on_launch: bool,
    /// Whether launches that name no subnet may go into it.
    pub default_for_az: bool,
    /// How many more interfaces it has room for, exactly.
    pub available_ip_address_count: i64,
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
    /// Which subnets to list.
    ListSubnets {
        /// Those of this VPC.
        vpc_id,
        /// Those of exactly this name.
        name,
        /// Those in this zone.
        availability_zone,
    }
}

list_query! {
    /// Which subnets of a VPC to list.
    ListVpcSubnets {
        /// Those of exactly this name.
        name,
        /// Those in this zone.
        availability_zone,
    }
}
