//! Where the controllers serve documents and take reports. The node is never in the path: it is who the peer's
//! certificate (or, in one process, the private socket) says it is.

/// GET: the network document. Query `after=EPOCH.GENERATION` waits until there is a newer one, at most `wait` seconds
/// (default 25), then 204. The body is a [`crate::NodeNetwork`] of the `format` that is asked for, 1 if none is; header
/// `etag` repeats the version.
pub const NETWORK_DOCUMENT: &str = "/node/v1/network";
/// POST: a [`crate::NetworkReport`].
pub const NETWORK_REPORT: &str = "/node/v1/network/report";
/// GET: the compute document, like [`NETWORK_DOCUMENT`]; the body is a [`crate::NodeCompute`].
pub const COMPUTE_DOCUMENT: &str = "/node/v1/compute";
/// POST: a [`crate::ComputeReport`].
pub const COMPUTE_REPORT: &str = "/node/v1/compute/report";
/// POST: a [`crate::NodeReport`]: who I am and what I can do. Answers a [`crate::NodeAnswer`].
pub const NODE_REPORT: &str = "/node/v1/node";
/// POST: a [`crate::GrantRequest`]: may what is recovered elsewhere run here? Answers a [`crate::GrantAnswer`].
pub const GRANT: &str = "/node/v1/grant";
/// POST, without a client certificate: a [`crate::JoinRequest`]; answers a [`crate::JoinAnswer`].
pub const JOIN: &str = "/v1/join";
/// POST: a [`crate::RenewRequest`]; answers a [`crate::RenewAnswer`].
pub const CERTIFICATES: &str = "/v1/certificates";
/// GET: whom to believe, a [`crate::AuthoritiesAnswer`].
pub const AUTHORITIES: &str = "/v1/authorities";
