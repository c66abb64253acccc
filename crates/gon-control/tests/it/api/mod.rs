//! The REST API against a real PostgreSQL.

mod access;
mod addresses;
mod applied;
mod auth;
mod auto_recover;
mod bad_input;
mod cloud;
mod harness;
mod idempotency;
mod instances;
mod key_pairs;
mod lists;
mod network_acls;
mod network_interfaces;
mod network_objects;
mod nodes;
mod operations;
mod prefix_list_routes;
mod prefix_lists;
mod route_tables;
mod security_groups;
mod server;
mod subnets;
mod trace;
mod vertical;
mod vpcs;

pub use harness::{Answer, Api, User};
