//! Network interfaces.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::page::list_query;

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
    /// Its instance.
    pub instance_id: String,
    /// Its slot; 0 is primary.
    pub device_index: i16,
    /// Whether it is primary.
    pub is_primary: bool,
    /// Its address.
    pub private_ip: String,
    /// Its public address.
    pub public_ip: Option<String>,
    /// Its Ethernet address.
    pub mac_address: String,
    /// Whether packets neither from nor to its address are dropped.
    pub source_dest_check: bool,
    /// Its groups.
    pub security_group_ids: Vec<String>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
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
    }
}
