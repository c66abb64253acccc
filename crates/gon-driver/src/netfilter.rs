//! The host's packet filter: one nftables table of ours, replaced whole.
//!
//! Assumes that the text comes from `gon_net::netfilter`, which makes it from typed values. Promises that a text takes
//! effect whole or not at all (one netlink transaction), and that no other table is touched.

use crate::run::{Cmd, RunError, run};

/// The table that is ours.
pub const TABLE: (&str, &str) = ("inet", "gon");

/// Replaces the table by what the text says.
pub async fn apply(ruleset: &str) -> Result<(), RunError> {
    run(Cmd::new("nft").args(["-f", "-"]).stdin(ruleset)).await.map(drop)
}

/// Removes the table; it is no error if there is none.
pub async fn remove() -> Result<(), RunError> {
    let (family, name) = TABLE;
    // Adding what is there changes nothing, and makes the removal never fail for want of it.
    let text = format!("add table {family} {name}\ndelete table {family} {name}\n");
    run(Cmd::new("nft").args(["-f", "-"]).stdin(text)).await.map(drop)
}

/// Whether the table is there.
pub async fn is_present() -> Result<bool, RunError> {
    let (family, name) = TABLE;
    let tables = run(Cmd::new("nft").args(["list", "tables"])).await?.text();
    Ok(tables.lines().any(|line| line == format!("table {family} {name}")))
}
