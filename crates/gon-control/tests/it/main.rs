//! The roles of the control plane against a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod api;
mod bell;
mod documents;
mod faults;
mod ingest;
mod join;
mod leaders;
mod overlay;
mod peers;
mod placement;
mod recovery;
mod relay;
mod site;
mod wire;
