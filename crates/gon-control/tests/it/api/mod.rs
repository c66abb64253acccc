//! The REST API against a real PostgreSQL.

mod access;
mod addresses;
mod auth;
mod bad_input;
mod cloud;
mod harness;
mod idempotency;
mod instances;
mod key_pairs;
mod lists;
mod nodes;
mod operations;
mod route_tables;
mod security_groups;
mod server;
mod subnets;
mod vertical;
mod vpcs;

pub use harness::{Answer, Api, User};
