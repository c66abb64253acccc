//! Contract of the REST API: requests, responses, errors, client.
//!
//! Field names follow the specification's columns. Requests refuse unknown fields. Ids travel as people see them
//! (`vpc-…`); resources also carry the whole `uuid`, and paths take both.

pub mod addresses;
pub mod auth;
pub mod client;
pub mod error;
pub mod images;
pub mod instances;
pub mod internet_gateways;
pub mod key_pairs;
pub mod network_acls;
pub mod network_interfaces;
pub mod nodes;
pub mod operations;
pub mod page;
pub mod prefix_lists;
pub mod route_tables;
pub mod security_groups;
pub mod subnets;
pub mod trace;
pub mod vpcs;

pub use error::Problem;
pub use page::{Applied, Page};

/// Where every path of the API begins.
pub const BASE: &str = "/api/v1";
