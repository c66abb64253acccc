//! A deterministic simulation of the platform: controllers, agents and users on virtual hosts, with everything between
//! them that can fail, in virtual time and on one thread. A seed is a run; the same seed is the same run.
//!
//! What decides is the product's own code: `gon_core`'s rules of what users may ask, placement and patience, drains, numbers
//! of documents, reports and large removals; the agent's ledger rule, its step function, plan and journal; the network
//! controller's memory of ports. What is simulated is what surrounds it: hosts, network, PostgreSQL with its statements,
//! broker, etcd, disks, QEMU; and the loops that ask for decisions and carry them out ([`compute`], [`network`],
//! [`hypervisor`], [`guest`], [`wires`], [`api`]).
//!
//! Assumes that a transaction of the platform happens at one instant, since each takes its locks first. Promises that a
//! broken invariant ([`check`]) ends the run with the seed that repeats it. See docs/guides/simulation.md.

pub mod api;
pub mod bus;
pub mod check;
pub mod compute;
pub mod db;
pub mod etcd;
pub mod exec;
pub mod fault;
pub mod guest;
pub mod hypervisor;
pub mod machine;
pub mod net;
pub mod network;
pub mod recovery;
pub mod rng;
pub mod rows;
pub mod run;
pub mod server;
pub mod tables;
pub mod user;
pub mod wires;
pub mod world;

pub use run::{Outcome, run, shrink};
pub use world::{Bug, Config};
