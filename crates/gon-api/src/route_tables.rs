//! Route tables, routes, associations.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::page::{Applied, list_query};

/// A route table to be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRouteTable {
    /// Its VPC.
    pub vpc_id: String,
    /// Its name; its id unless given.
    pub name: Option<String>,
}

/// What can be changed of a route table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateRouteTable {
    /// Its name.
    pub name: String,
}

/// A route table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct RouteTable {
    /// `rtb-…`.
    pub id: String,
    /// The whole id.
    pub uuid: Uuid,
    /// Its VPC.
    pub vpc_id: String,
    /// Its name.
    pub name: String,
    /// Whether subnets without a table of their own follow it.
    pub is_main: bool,
    /// Its routes, the local one first.
    pub routes: Vec<Route>,
    /// The subnets that follow it by an association of their own.
    pub associations: Vec<RouteTableAssociation>,
    /// Its association with the VPC, `rtbassoc-…`, if it is the main one: replacing that makes another table the main one.
    pub main_association_id: Option<String>,
    /// How far a change has come; in answers to changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
    /// The VPC's generation with that change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its name last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Route {
    /// Packets to these addresses; the longest prefix wins. Absent from a route to a prefix list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_cidr: Option<String>,
    /// `pl-…`: packets to any of that prefix list's blocks, whatever they are at the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_prefix_list_id: Option<String>,
    /// Blocks of the list that this route does not serve: the VPC's own or link-local, or another route of the table has
    /// them (a route to the block itself, or an older one to a list).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_cidrs: Vec<String>,
    /// `local`, `gateway` or `instance`.
    pub target_type: String,
    /// Where they go: `igw-…`, `eni-…`, or `local`.
    pub target_id: String,
    /// `active`, or `blackhole` when the target is gone or detached.
    pub state: String,
}

/// A route to be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRoute {
    /// Packets to these addresses.
    pub destination_cidr: Option<String>,
    /// `pl-…`, instead: packets to the blocks of that prefix list. Counts for as many routes as the list has room for.
    pub destination_prefix_list_id: Option<String>,
    /// `gateway` or `instance`; known from the target unless given.
    pub target_type: Option<String>,
    /// `igw-…`, `i-…` or `eni-…`.
    pub target_id: String,
}

/// Another target for a route that is there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplaceRoute {
    /// The destination of the route.
    pub destination_cidr: Option<String>,
    /// `pl-…`, instead: the prefix list that is its destination.
    pub destination_prefix_list_id: Option<String>,
    /// `gateway` or `instance`; known from the target unless given.
    pub target_type: Option<String>,
    /// `igw-…`, `i-…` or `eni-…`.
    pub target_id: String,
}

/// Another table for whoever follows this one by an association.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplaceRouteTableAssociation {
    /// The table to follow from now on.
    pub route_table_id: String,
}

/// Which route to remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeleteRoute {
    /// Its destination.
    pub destination_cidr: Option<String>,
    /// `pl-…`, instead: the prefix list that is its destination.
    pub destination_prefix_list_id: Option<String>,
    /// See the other calls.
    pub wait: Option<String>,
    /// See the other calls.
    pub timeout: Option<String>,
}

/// A subnet to follow a route table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRouteTableAssociation {
    /// The subnet.
    pub subnet_id: String,
}

/// That a subnet follows a route table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct RouteTableAssociation {
    /// `rtbassoc-…`.
    pub id: String,
    /// The subnet.
    pub subnet_id: String,
}

list_query! {
    /// Which route tables to list.
    ListRouteTables {
        /// Those of this VPC.
        vpc_id,
        /// Those of exactly this name.
        name,
    }
}
