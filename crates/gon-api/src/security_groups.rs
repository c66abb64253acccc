//! Security groups and their rules.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::page::{Applied, list_query};

/// A group to be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSecurityGroup {
    /// Its VPC.
    pub vpc_id: String,
    /// Its name: 1 to 255 characters, unique in the VPC in any case, not beginning with `sg-`.
    pub name: String,
    /// For people, at most 255 characters.
    pub description: Option<String>,
}

/// What can be changed of a group; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateSecurityGroup {
    /// Its name.
    pub name: Option<String>,
    /// For people.
    pub description: Option<String>,
}

/// A security group. Its rules only ever allow; what no rule allows is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct SecurityGroup {
    /// `sg-…`.
    pub id: String,
    /// The whole id.
    pub uuid: Uuid,
    /// Its VPC.
    pub vpc_id: String,
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Whether it came with the VPC.
    pub is_default: bool,
    /// Its rules, oldest first.
    pub rules: Vec<SecurityGroupRule>,
    /// How far a change has come; in answers to changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
    /// The VPC's generation with that change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its name or description last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// A rule to be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSecurityGroupRule {
    /// `inbound` or `outbound`.
    pub direction: String,
    /// `tcp`, `udp`, `icmp` or `all`.
    pub protocol: String,
    /// Destination ports: `80`, `80-443` or `all`. For TCP and UDP, and only for them.
    pub port_range: Option<String>,
    /// ICMP type, 0 to 255; every one unless given.
    pub icmp_type: Option<i64>,
    /// ICMP code of that type, 0 to 255; every one unless given.
    pub icmp_code: Option<i64>,
    /// The other side: an IPv4 block, or the id of a group of the same VPC or of a prefix list.
    pub source_destination: String,
    /// For people, at most 255 characters.
    pub description: Option<String>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct SecurityGroupRule {
    /// `sgr-…`.
    pub id: String,
    /// Its group.
    pub security_group_id: String,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// `tcp`, `udp`, `icmp` or `all`.
    pub protocol: String,
    /// Destination ports: `80`, `80-443` or `all`.
    pub port_range: String,
    /// ICMP type; null is every one.
    pub icmp_type: Option<i16>,
    /// ICMP code; null is every one.
    pub icmp_code: Option<i16>,
    /// The other side: an IPv4 block, or the id of a group or of a prefix list.
    pub source_destination: String,
    /// `allow`.
    pub action: String,
    /// For people.
    pub description: String,
    /// How far a change has come; in answers to changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
    /// The VPC's generation with that change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

list_query! {
    /// Which groups to list.
    ListSecurityGroups {
        /// Those of this VPC.
        vpc_id,
        /// Those of this name, in any case.
        name,
    }
}
