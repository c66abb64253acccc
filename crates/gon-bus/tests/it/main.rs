//! Every adapter of the bus passes the same suite; the one over RabbitMQ also lives through what brokers and networks do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod conformance;
mod faults;
mod memory;
mod messages;
mod network;
mod permissions;
mod rabbit;
mod raw;
mod tls;
