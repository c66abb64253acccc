//! Instances.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::page::{Applied, list_query};

/// An instance to be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LaunchInstance {
    /// Its name, 1 to 100 characters.
    pub name: String,
    /// Its image.
    pub image_id: String,
    /// Its type (`g1.micro`).
    pub instance_type: String,
    /// Its subnet.
    pub subnet_id: Option<String>,
    /// Its address in the subnet; a free one unless given. Only for a single instance.
    pub private_ip: Option<String>,
    /// Its groups, 1 to 5; the VPC's default group unless given.
    pub security_group_ids: Option<Vec<String>>,
    /// The key pair whose public half it gets.
    pub key_name: Option<String>,
    /// Base64 of at most 16 KiB.
    pub user_data: Option<String>,
    /// Whether it gets a public address; as the subnet says unless given.
    pub associate_public_ip: Option<bool>,
    /// Whether its metadata service answers only requests with a token (IMDSv2); false unless given.
    pub metadata_require_token: Option<bool>,
    /// Whether it is recovered when its node is lost; false unless given. When its node has not been heard of for 90 seconds,
    /// it is started anew from its image on another node, with the same id, addresses, groups and user data. What was
    /// written to its root disk is lost. Without it, an instance waits, `unknown`, for its node.
    pub auto_recover: Option<bool>,
    /// How many alike, 1 to 20; all or none. 1 unless given.
    pub count: Option<u32>,
}

/// What can be changed of an instance; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateInstance {
    /// Its name.
    pub name: Option<String>,
    /// Its type; only while it is stopped.
    pub instance_type: Option<String>,
    /// Whether it is recovered when its node is lost; only while it is stopped.
    pub auto_recover: Option<bool>,
}

/// How to stop an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StopInstance {
    /// Whether to cut the power without asking the guest.
    #[serde(default)]
    pub force: bool,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Instance {
    /// `i-…`.
    pub id: String,
    /// The whole id.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// `pending`, `running`, `stopping`, `stopped`, `shutting-down` or `terminated`; or `unknown` while its node is not
    /// heard of.
    pub state: String,
    /// EC2's number for that state; 255 while it is unknown.
    pub state_code: u8,
    /// Why, when there is something to say.
    pub state_reason: Option<String>,
    /// Its type.
    pub instance_type: String,
    /// Virtual processors.
    pub vcpus: i32,
    /// Memory, MiB.
    pub memory_mib: i32,
    /// Root disk, GiB; 0 when it runs from memory.
    pub disk_gib: i32,
    /// Its image.
    pub image_id: String,
    /// Its VPC.
    pub vpc_id: String,
    /// Its subnet.
    pub subnet_id: String,
    /// Its zone.
    pub availability_zone: String,
    /// Its primary interface.
    pub network_interface_id: Option<String>,
    /// Its address.
    pub private_ip: Option<String>,
    /// Its public address.
    pub public_ip: Option<String>,
    /// Its Ethernet address.
    pub mac_address: Option<String>,
    /// Its groups.
    pub security_group_ids: Vec<String>,
    /// The key pair it was launched with.
    pub key_name: Option<String>,
    /// The node it is on.
    pub worker_node: Option<String>,
    /// Whether it is started anew from its image on another node when its node is lost. What it wrote to its root disk is
    /// lost then.
    #[serde(default)]
    pub auto_recover: bool,
    /// The launch it is of (`r-…`).
    pub reservation_id: String,
    /// Its place in that.
    pub launch_index: i32,
    /// Counts changes of what it should be.
    pub generation: i64,
    /// How far that has come.
    pub applied: Applied,
    /// When it last started.
    #[serde(with = "time::serde::rfc3339::option")]
    pub launched_at: Option<OffsetDateTime>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub terminated_at: Option<OffsetDateTime>,
    /// The operation that was begun, in the answer that began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<String>,
}

/// The answer to a launch: the first instance, and all of them when there are several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct LaunchedInstance {
    /// The first.
    #[serde(flatten)]
    pub instance: Instance,
    /// All, when more than one was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<Instance>,
}

/// What an instance's serial console has said.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct ConsoleOutput {
    /// Base64 of the raw bytes, the last 64 KiB at least.
    pub output: String,
    /// When that was read.
    #[serde(with = "time::serde::rfc3339")]
    pub timestamp: OffsetDateTime,
}

list_query! {
    /// Which instances to list.
    ListInstances {
        /// Those in this VPC.
        vpc_id,
        /// Those in this subnet.
        subnet_id,
        /// Those in this state.
        state,
        /// Those of exactly this name.
        name,
        /// Those of this type.
        instance_type,
    }
}
