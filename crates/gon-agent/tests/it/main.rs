//! The agents against the real host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod controller;
mod guest;
mod ledger;
mod link;
mod network;
mod samples;
