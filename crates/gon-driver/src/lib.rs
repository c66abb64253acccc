//! Door to the host: processes, Open vSwitch, QEMU, Docker, netfilter, images, the private PostgreSQL.
//!
//! Assumes Linux and enough privilege for what is asked. Promises that nothing above this crate spawns a process or
//! speaks netlink, QMP, OVSDB or OpenFlow; that no string of a user becomes syntax of any of them; and that every
//! failure comes back as a value.

pub mod docker;
pub mod doctor;
pub mod frames;
pub mod host;
pub mod image;
pub mod netfilter;
pub mod netlink;
pub mod ovs;
pub mod postgres;
pub mod qemu;
pub mod qmp;
pub mod run;
pub mod tap;
pub mod uplink;
