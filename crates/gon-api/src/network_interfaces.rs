//! Network interfaces.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::page::{Applied, list_query};

/// A network interface to be. It is of no instance until it is attached to one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateNetworkInterface {
    /// Its subnet.
    pub subnet_id: String,
    /// Its groups, 1 to 5; the VPC's default one unless given.
    pub security_group_ids: Option<Vec<String>>,
    /// Its address; any free one of the subnet unless given.
    pub private_ip: Option<String>,
    /// Further addresses it has, besides those counted next.
    pub secondary_private_ips: Option<Vec<String>>,
    /// How many further addresses it gets, any free ones; at most 15 in all.
    pub secondary_private_ip_count: Option<u32>,
    /// For people, at most 255 characters.
    pub description: Option<String>,
    /// Whether packets neither from nor to its addresses are dropped; true unless given.
    pub source_dest_check: Option<bool>,
}

/// What can be changed of a network interface; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateNetworkInterface {
    /// For people, at most 255 characters.
    pub description: Option<String>,
    /// Its groups from now on, 1 to 5.
    pub security_group_ids: Option<Vec<String>>,
    /// Whether packets neither from nor to its addresses are dropped.
    pub source_dest_check: Option<bool>,
    /// Whether it ends with its instance. Only while it is attached.
    pub delete_on_termination: Option<bool>,
}

/// Which instance an interface becomes part of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachNetworkInterface {
    /// The instance: stopped, of the same VPC and zone.
    pub instance_id: String,
    /// Its slot, 1 to 7.
    pub device_index: i64,
}

/// Further addresses for an interface: those named, or so many free ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignPrivateIps {
    /// These.
    pub private_ips: Option<Vec<String>>,
    /// So many.
    pub count: Option<u32>,
}

/// Addresses to take from an interface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UnassignPrivateIps {
    /// These, all of them secondary ones of the interface.
    pub private_ips: Vec<String>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct NetworkInterface {
    /// `eni-…`.
    pub id: String,
    /// The whole id.
    pub uuid: Uuid,
    /// Its VPC.
    pub vpc_id: String,
    /// Its subnet.
    pub subnet_id: String,
    /// That subnet's zone.
    pub availability_zone: String,
    /// `available`, or `in-use` when it is attached.
    pub status: String,
    /// For people.
    pub description: String,
    /// Its instance, while it is attached.
    pub instance_id: Option<String>,
    /// Its slot there; 0 is primary.
    pub device_index: Option<i16>,
    /// The attachment, `eni-attach-…`.
    pub attachment_id: Option<String>,
    /// Whether it is the primary interface of its instance.
    pub is_primary: bool,
    /// Whether it ends with its instance.
    pub delete_on_termination: bool,
    /// Its primary address.
    pub private_ip: String,
    /// Its further addresses.
    pub secondary_private_ips: Vec<String>,
    /// Its public address.
    pub public_ip: Option<String>,
    /// Its Ethernet address.
    pub mac_address: String,
    /// Whether packets neither from nor to its addresses are dropped.
    pub source_dest_check: bool,
    /// Its groups.
    pub security_group_ids: Vec<String>,
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
    /// Which interfaces to list.
    ListNetworkInterfaces {
        /// Those of this VPC.
        vpc_id,
        /// Those of this subnet.
        subnet_id,
        /// Those of this instance.
        instance_id,
        /// Those that are `available` or `in-use`.
        status,
    }
}
