//! The daemon's commands and services against the real host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

#[allow(dead_code, reason = "some of its guests are for others")]
#[path = "../../../gon-agent/tests/it/mini.rs"]
mod mini;
mod openmetrics;
mod order;
mod services;
mod site;
mod uplink;
mod watchdog;
