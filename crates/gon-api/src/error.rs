//! The body of every answer that is not 2xx: RFC 9457 (`application/problem+json`), with EC2's code.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What kind of problem, as a URI: `urn:gon:problem:<code>`.
    pub r#type: String,
    /// The HTTP status in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// EC2's error code, for example `InvalidVpcID.NotFound`.
    pub code: String,
    /// What is wrong, for people.
    pub detail: String,
    /// The field of the body, path or query that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Names this request in our logs.
    pub request_id: String,
    /// Ids of what stands in the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blockers: Vec<String>,
}
