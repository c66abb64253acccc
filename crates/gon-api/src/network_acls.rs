//! Network ACLs, their entries and their associations.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::page::{Applied, list_query};

/// A network ACL to be. It has no entries and denies everything.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateNetworkAcl {
    /// Its VPC.
    pub vpc_id: String,
    /// Its name; its id unless given.
    pub name: Option<String>,
}

/// What can be changed of a network ACL.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateNetworkAcl {
    /// Its name.
    pub name: String,
}

/// A network ACL: what may cross the edge of its subnets, packet by packet. It keeps no state: an answer needs an entry of
/// its own. In each direction the entry of the lowest number that matches decides.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct NetworkAcl {
    /// `acl-…`.
    pub id: String,
    /// The whole id.
    pub uuid: Uuid,
    /// Its VPC.
    pub vpc_id: String,
    /// Its name.
    pub name: String,
    /// Whether it came with the VPC: subnets that no other was said for have it.
    pub is_default: bool,
    /// Its entries, by direction and number; number 32767 is the end of each list, denies, and cannot be changed.
    pub entries: Vec<NetworkAclEntry>,
    /// The subnets it guards.
    pub associations: Vec<NetworkAclAssociation>,
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

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct NetworkAclEntry {
    /// `inbound` (into the subnet) or `outbound` (out of it).
    pub direction: String,
    /// Its place in the list.
    pub rule_number: i32,
    /// `allow` or `deny`.
    pub action: String,
    /// `tcp`, `udp`, `icmp`, `all`, or a protocol number.
    pub protocol: String,
    /// Destination ports: `80`, `80-443` or `all`.
    pub port_range: String,
    /// ICMP type; null is every one.
    pub icmp_type: Option<i16>,
    /// ICMP code; null is every one.
    pub icmp_code: Option<i16>,
    /// The other side: the source of what comes in, the destination of what goes out.
    pub cidr_block: String,
}

/// An entry to be, or to be put in the place of the one of its direction and number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutNetworkAclEntry {
    /// `inbound` (into the subnet) or `outbound` (out of it).
    pub direction: String,
    /// Its place in the list: 1 to 32766.
    pub rule_number: i64,
    /// `allow` or `deny`.
    pub action: String,
    /// `tcp`, `udp`, `icmp`, `all` (or `-1`), or a protocol number from 1 to 255.
    pub protocol: String,
    /// Destination ports: `80`, `80-443` or `all`. For TCP and UDP, and only for them.
    pub port_range: Option<String>,
    /// ICMP type, 0 to 255; every one unless given, or if -1.
    pub icmp_type: Option<i64>,
    /// ICMP code of that type, 0 to 255; every one unless given, or if -1.
    pub icmp_code: Option<i64>,
    /// The other side: an IPv4 block.
    pub cidr_block: String,
}

/// Which entry to remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeleteNetworkAclEntry {
    /// `inbound` or `outbound`.
    #[param(required = true)]
    pub direction: Option<String>,
    /// Its number.
    #[param(required = true)]
    pub rule_number: Option<String>,
    /// See the other calls.
    pub wait: Option<String>,
    /// See the other calls.
    pub timeout: Option<String>,
}

/// Which subnet the ACL is to guard, in the place of the ACL that does. One of the two must be given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplaceNetworkAclAssociation {
    /// The association that is replaced, `aclassoc-…`: refused if the subnet has another by now.
    pub association_id: Option<String>,
    /// The subnet.
    pub subnet_id: Option<String>,
}

/// That a network ACL guards a subnet. Every subnet has exactly one; replacing it gives a new one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct NetworkAclAssociation {
    /// `aclassoc-…`.
    pub id: String,
    /// The subnet.
    pub subnet_id: String,
}

list_query! {
    /// Which network ACLs to list.
    ListNetworkAcls {
        /// Those of this VPC.
        vpc_id,
        /// The one that guards this subnet.
        subnet_id,
        /// Those of exactly this name.
        name,
    }
}
