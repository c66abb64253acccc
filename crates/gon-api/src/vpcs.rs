//! VPCs.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::page::{Applied, list_query};

/// A VPC to be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVpc {
    /// Its name, 1 to 100 characters.
    pub name: String,
    /// Its IPv4 block, /16 to /28. Host bits are dropped.
    pub cidr_block: String,
}

/// A further block of a VPC.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssociateVpcCidrBlock {
    /// An IPv4 block, /16 to /28, beside those the VPC has. Host bits are dropped.
    pub cidr_block: String,
}

/// That a VPC has a block.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct VpcCidrBlockAssociation {
    /// `vpc-cidr-assoc-…`.
    pub id: String,
    /// The block.
    pub cidr_block: String,
    /// `associated`.
    pub state: String,
    /// Whether it is the VPC's first one, which stays with it.
    pub is_primary: bool,
}

/// What can be changed of a VPC.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateVpc {
    /// Its name.
    pub name: String,
}

/// A VPC.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Vpc {
    /// `vpc-…`.
    pub id: String,
    /// The whole id.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// Its first IPv4 block.
    pub cidr_block: String,
    /// All its blocks, the first one first.
    pub cidr_block_associations: Vec<VpcCidrBlockAssociation>,
    /// Whether launches that name no subnet go into it.
    pub is_default: bool,
    /// `pending` or `available`.
    pub state: String,
    /// The route table of subnets that have none of their own.
    pub main_route_table_id: String,
    /// The group of instances that name none.
    pub default_security_group_id: String,
    /// The network ACL of subnets that no other is associated with.
    pub default_network_acl_id: String,
    /// Counts every change its packets depend on.
    pub generation: i64,
    /// How far that generation has come.
    pub applied: Applied,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

list_query! {
    /// Which VPCs to list.
    ListVpcs {
        /// Those of exactly this name.
        name,
        /// Those in this state.
        state,
        /// Those with exactly this block.
        cidr_block,
    }
}
