//! The doors against the real host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod doctor;
mod flows;
mod image;
#[path = "../../../gon-net/fixtures/interpreted.rs"]
mod interpreted;
#[path = "../../../gon-net/fixtures/model.rs"]
mod model;
mod namespace;
mod netfilter;
mod netlink;
mod ovs;
mod packets;
mod packets_acl;
mod packets_addresses;
mod packets_isolation;
mod packets_lab;
mod packets_overlay;
mod packets_random;
mod packets_restart;
mod postgres;
mod qemu;
#[path = "../../../gon-net/fixtures/random.rs"]
mod random;
mod run;
#[path = "../../../gon-net/fixtures/spoiled.rs"]
mod spoiled;
#[path = "../../../gon-net/fixtures/topology.rs"]
mod topology;
