//! Roles of a worker: hypervisor, network, container and storage agents.
//!
//! Assumes a ledger directory of its own and controllers that may be away at any time. Promises to be level-triggered:
//! a role pulls the whole desired document of its node, writes it down, makes it so, reports what is, and does the
//! same after a restart with nobody to ask. Knows neither the control plane's rules nor its database.

pub mod container;
pub mod facts;
pub mod hypervisor;
pub mod join;
pub mod ledger;
pub mod link;
pub mod network;
pub mod renew;
pub mod status;
pub mod storage;
pub mod tls;

/// An error with its causes, in a line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
