//! The doors against the real host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod doctor;
mod flows;
mod image;
mod namespace;
mod netfilter;
mod netlink;
mod ovs;
mod packets;
mod packets_acl;
mod packets_addresses;
mod packets_lab;
mod packets_overlay;
mod postgres;
mod qemu;
mod run;
#[path = "../../../gon-net/fixtures/topology.rs"]
mod topology;
