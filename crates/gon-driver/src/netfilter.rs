//! The host's packet filter: one nftables table of ours, replaced whole.
//!
//! Assumes that the text comes from `gon_net::netfilter`, which makes it from typed values. Promises that a text takes
//! effect whole or not at all (one netlink transaction), and that no other table is touched but Docker's chain for
//! exceptions ([`let_through_docker`]).

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

/// Docker's chain for other people's rules; Docker keeps it over its own restarts and looks into it first.
const DOCKER_USER: &str = "DOCKER-USER";

/// What [`let_through_docker`] wants at the beginning of the chain, last line first.
fn exceptions(device: &str) -> [Vec<&str>; 4] {
    [
        vec!["--in-interface", device, "--jump", "ACCEPT"],
        vec!["--out-interface", device, "--jump", "ACCEPT"],
        // But containers are no more guests' business than any stranger's.
        vec!["--in-interface", device, "--out-interface", "docker0", "--jump", "RETURN"],
        vec!["--in-interface", device, "--out-interface", "br-+", "--jump", "RETURN"],
    ]
}

/// Lets what `device` carries through the packet filter of Docker, which drops everything it does not know on its way
/// through the host (<https://docs.docker.com/engine/network/packet-filtering-firewalls/>). Does nothing where Docker has
/// made no chain for such exceptions. What is there already is not added again.
pub async fn let_through_docker(device: &str) -> Result<(), RunError> {
    let Some(rules) = docker_user().await else { return Ok(()) };
    let exceptions = exceptions(device);
    // They count in their order: all of them anew, or none.
    let there = exceptions.iter().filter(|rule| rules.contains(&listed(rule))).count();
    if there == exceptions.len() {
        return Ok(());
    }
    remove_from_docker(device).await?;
    for rule in &exceptions {
        iptables("--insert", rule).await?;
    }
    Ok(())
}

/// Takes those exceptions away.
pub async fn remove_from_docker(device: &str) -> Result<(), RunError> {
    let Some(rules) = docker_user().await else { return Ok(()) };
    for rule in exceptions(device) {
        if rules.contains(&listed(&rule)) {
            iptables("--delete", &rule).await?;
        }
    }
    Ok(())
}

async fn iptables(what: &str, rule: &[&str]) -> Result<(), RunError> {
    run(Cmd::new("iptables").args(["--wait", "5", what, DOCKER_USER]).args(rule)).await.map(drop)
}

/// The lines of the chain as `iptables -S` lists them; `None` without Docker.
async fn docker_user() -> Option<Vec<String>> {
    let listed = run(Cmd::new("iptables").args(["--wait", "5", "--list-rules", DOCKER_USER])).await.ok()?;
    Some(listed.text().lines().map(|line| line.trim().to_owned()).collect())
}

/// A rule as it is listed.
fn listed(rule: &[&str]) -> String {
    let mut line = format!("-A {DOCKER_USER}");
    for word in rule {
        line.push(' ');
        line.push_str(match *word {
            "--in-interface" => "-i",
            "--out-interface" => "-o",
            "--jump" => "-j",
            word => word,
        });
    }
    line
}
