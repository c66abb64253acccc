//! Role `api-server`: REST, WebSocket, console, authentication; writes intent.
//!
//! Assumes a migrated database. Promises that no route exists without an action (or a place in the short list of public
//! ones), that every answer that is not 2xx is a problem with EC2's code and a request id, that 2xx is sent after
//! COMMIT, and that no request can end the process.

mod addresses;
mod auth;
mod console;
mod error;
mod events;
mod extract;
mod images;
mod instances;
mod internet_gateways;
mod key_pairs;
mod metrics;
mod network_acls;
mod network_interfaces;
mod nodes;
mod openapi;
mod operations;
mod password;
mod prefix_lists;
mod route;
mod route_tables;
mod router;
mod security_groups;
mod state;
mod subnets;
mod tokens;
mod trace;
mod vpcs;
mod ws;

pub use error::ApiError;
pub use events::{EventHub, watch_events};
pub(crate) use extract::{Json, One, Optional, Two};
pub use openapi::document as openapi_document;
pub use password::hash as hash_password;
pub use route::RouteInfo;
pub use router::{router, routes};
pub use state::{ApiConfig, AppState, ConsoleError, ConsoleSource, NoConsole};
pub use tokens::{Claims, Tokens};
pub use trace::{NoTrace, Tracer};
