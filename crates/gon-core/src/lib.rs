//! Rules: pure decisions, no IO, no clock, no randomness. Data in, decision out; the error enum stands beside it.

pub mod ask;
pub mod authz;
pub mod catalog;
pub mod document;
pub mod drain;
pub mod instance;
pub mod ipam;
pub mod network_acl;
pub mod placement;
pub mod recovery;
pub mod removal;
pub mod report;
pub mod route;
pub mod security_group;
pub mod subnet;
pub mod vpc;
