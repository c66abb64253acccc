//! Operations: what was answered before it was done.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::page::list_query;

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Operation {
    /// `op-…`.
    pub id: String,
    /// The whole id.
    pub uuid: Uuid,
    /// EC2's name of the action (`RunInstances`).
    pub action: String,
    /// `pending`, `running`, `succeeded`, `failed` or `cancelled`.
    pub state: String,
    /// What it is about: `instance` or `node`.
    pub resource: String,
    /// Which (`i-…`, `node-…`).
    pub resource_id: String,
    /// How far it has come, in words of its action.
    #[schema(value_type = Object)]
    pub progress: Value,
    /// Why it failed or was cancelled; or what it waits for.
    pub error: Option<String>,
    /// How often the platform worked on it; 0 for what is only watched.
    pub tries: i32,
    /// The request that asked for it.
    pub request_id: String,
    /// What is not done by then has failed.
    #[serde(with = "time::serde::rfc3339")]
    pub deadline: OffsetDateTime,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it last got on.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
}

list_query! {
    /// Which operations to list.
    ListOperations {
        /// Those in this state.
        state,
        /// Those of this action.
        action,
        /// Those about this resource (`i-…`, `node-…`).
        resource_id,
    }
}
