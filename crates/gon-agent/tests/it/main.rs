//! The agents against the real host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod controller;
mod guest;
mod hypervisor;
mod ledger;
mod link;
mod manager;
mod mini;
mod network;
mod overlay;
mod samples;
mod storage;
