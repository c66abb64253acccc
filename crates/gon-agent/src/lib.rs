//! Roles of a worker: hypervisor and network agents (container and storage agents follow).
//!
//! Assumes a ledger directory of its own and controllers that may be away at any time. Promises to be level-triggered:
//! a role pulls the whole desired document of its node, writes it down, makes it so, reports what is, and does the
//! same after a restart with nobody to ask. Knows neither the control plane's rules nor its database.

pub mod hypervisor;
pub mod ledger;
pub mod link;
pub mod network;
pub mod status;
