//! The agents against the real host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod controller;
mod guest;
mod hypervisor;
mod ledger;
mod link;
mod manager;
mod mini;
#[path = "../../../gon-net/fixtures/model.rs"]
mod model;
mod network;
mod overlay;
#[path = "../../../gon-net/fixtures/random.rs"]
mod random;
mod samples;
mod storage;
#[path = "../../../gon-net/fixtures/topology.rs"]
mod topology;
