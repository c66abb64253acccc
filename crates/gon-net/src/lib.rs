//! Compiler: a node's network document to OpenFlow flows and netfilter text. Pure, total, deterministic.
//!
//! ```text
//! NodeNetwork + NodeFacts ─ compile ─▶ Compiled { flows, zones, degraded } ─ diff against the last ─▶ FlowMods ─ openflow ─▶ bytes
//!                        HostGuard ─ netfilter::render ─▶ one nft transaction
//! ```
//!
//! Assumes nothing about who stores or sends the result. Promises: no IO, no clock, no panic; the same facts in any
//! order give the same flows; a port that cannot be compiled is closed and named, its neighbours are untouched;
//! everything that no flow allows is dropped and counted.
//!
//! Where to look: [`pipeline`] is the table of stages and registers, `stage` holds one file per stage, [`flow`] is
//! the typed language of flows, [`openflow`] its wire form, [`trace`](mod@trace) an interpreter of it for tests and
//! operators, [`explain`](mod@explain) what it found in an operator's words.

pub mod compile;
pub mod cookie;
pub mod diff;
pub mod explain;
pub mod flow;
pub mod netfilter;
pub mod openflow;
pub mod pipeline;
mod plan;
pub mod service;
mod stage;
pub mod trace;

pub use compile::{
    Before, Compiled, Degraded, External, Mirror, NodeFacts, Overlay, Owner, Reason, Zone, compile, recompile,
};
pub use cookie::Cookie;
pub use diff::{FlowMod, diff, zones_to_empty};
pub use flow::{Action, Field, Flow, FlowTable, Match};

#[cfg(test)]
extern crate self as gon_net;
#[cfg(test)]
mod testing;
#[cfg(test)]
#[path = "../fixtures/topology.rs"]
mod topology;
