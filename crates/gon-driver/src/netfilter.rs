//! The host's packet filter: one nftables table of ours, replaced whole.
//!
//! Assumes that the text comes from `gon_net::netfilter`, which makes it from typed values. Promises that a text takes
//! effect whole or not at all (one netlink transaction), and that no other table is touched but Docker's chain for
//! exceptions ([`let_through_docker`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde_json::Value;

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

/// Lets what `device` carries to and from the outside through the packet filter of Docker, which drops everything it does
/// not know on its way through the host (<https://docs.docker.com/engine/network/packet-filtering-firewalls/>). Does nothing
/// where Docker has made no chain for such exceptions. What is there already is not added again; exceptions for `device`
/// that are not needed (any more) go.
///
/// Containers are no more guests' business than any stranger's: the exceptions name the ways out of the host, so that a
/// network of Docker's is not among them, whatever its bridge is called, and one that is made later is not either.
pub async fn let_through_docker(device: &str) -> Result<(), RunError> {
    let Some(rules) = docker_user().await else { return Ok(()) };
    let mut missing = exceptions(device, &ways_out(device).await?);
    let mut surplus = Vec::new();
    for rule in rules.iter().filter(|rule| is_exception(rule, device)) {
        match missing.iter().position(|wanted| wanted == rule) {
            Some(at) => drop(missing.swap_remove(at)),
            None => surplus.push(rule),
        }
    }
    missing.sort_unstable();
    // Each comes before those that are there: the last first.
    for rule in missing.iter().rev() {
        change("--insert", rule).await?;
    }
    // What restricts another exception stands before it, and goes after it.
    for rule in surplus.into_iter().rev() {
        change("--delete", rule).await?;
    }
    Ok(())
}

/// Takes those exceptions away.
pub async fn remove_from_docker(device: &str) -> Result<(), RunError> {
    let Some(rules) = docker_user().await else { return Ok(()) };
    for rule in rules.iter().filter(|rule| is_exception(rule, device)).rev() {
        change("--delete", rule).await?;
    }
    Ok(())
}

/// The exceptions, as `iptables -S` lists them.
fn exceptions(device: &str, ways_out: &BTreeSet<String>) -> Vec<String> {
    let out = ways_out.iter().map(|way| format!("-A {DOCKER_USER} -i {device} -o {way} -j ACCEPT"));
    out.chain([format!("-A {DOCKER_USER} -o {device} -j ACCEPT")]).collect()
}

/// Whether a listed rule is an exception for `device`, of this version or of an earlier one (which let everything in, but
/// for bridges of certain names). Rules that say more are somebody else's.
fn is_exception(rule: &str, device: &str) -> bool {
    match rule.split(' ').collect::<Vec<_>>()[..] {
        ["-A", DOCKER_USER, "-i", of, "-o", _, "-j", "ACCEPT" | "RETURN"]
        | ["-A", DOCKER_USER, "-i" | "-o", of, "-j", "ACCEPT"] => of == device,
        _ => false,
    }
}

/// `rule` is one as it is listed: what follows the chain's name is how it is given, too.
async fn change(what: &str, rule: &str) -> Result<(), RunError> {
    let words = rule.split(' ').skip(2);
    run(Cmd::new("iptables").args(["--wait", "5", what, DOCKER_USER]).args(words)).await.map(drop)
}

/// The lines of the chain as `iptables -S` lists them; `None` without Docker.
async fn docker_user() -> Option<Vec<String>> {
    let listed = run(Cmd::new("iptables").args(["--wait", "5", "--list-rules", DOCKER_USER])).await.ok()?;
    Some(listed.text().lines().map(|line| line.trim().to_owned()).collect())
}

/// The devices other than `device` by which packets leave this host for elsewhere.
async fn ways_out(device: &str) -> Result<BTreeSet<String>, RunError> {
    let routes = ask(&["-4", "route", "show", "table", "all", "type", "unicast"]).await?;
    let links = ask(&["-details", "link", "show"]).await?;
    let mut ways = read_ways_out(&routes, &links);
    ways.remove(device);
    Ok(ways)
}

async fn ask(args: &[&str]) -> Result<Value, RunError> {
    let text = run(Cmd::new("ip").arg("-json").args(args)).await?.text();
    // Nothing at all is what it says where there is nothing.
    let text = if text.trim().is_empty() { "[]" } else { &text };
    serde_json::from_str(text).map_err(|error| RunError::Io {
        program: "ip".to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidData, error),
    })
}

/// The devices that routes lead to, but no bridge of containers or of other machines: one that no gateway is on, and none of
/// whose ports (if it has any) leads out of the host. From `ip -json route show` and `ip -json -details link show`.
fn read_ways_out(routes: &Value, links: &Value) -> BTreeSet<String> {
    let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
    let all = |of: &Value| of.as_array().cloned().unwrap_or_default();
    let mut kinds = BTreeMap::new();
    let mut leads_out = BTreeSet::new();
    for link in all(links) {
        let Some(name) = text(&link, "ifname") else { continue };
        let kind = link.get("linkinfo").and_then(|info| text(info, "info_kind"));
        if let (Some(master), false) =
            (text(&link, "master"), matches!(kind.as_deref(), Some("veth" | "tun")))
        {
            leads_out.insert(master);
        }
        kinds.insert(name, kind);
    }
    let mut ways = BTreeSet::new();
    for route in all(routes) {
        // A route by several ways has each as an object of its own.
        for hop in all(&route["nexthops"]).iter().chain([&route]) {
            let Some(device) = text(hop, "dev") else { continue };
            if hop.get("gateway").or_else(|| hop.get("via")).is_some() {
                leads_out.insert(device.clone());
            }
            ways.insert(device);
        }
    }
    ways.retain(|device| match kinds.get(device) {
        Some(Some(kind)) if kind == "bridge" => leads_out.contains(device),
        // Of one that went away meanwhile nothing is known. A plus sign at the end stands for anything.
        known => known.is_some() && device != "lo" && !device.ends_with('+'),
    });
    ways
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn link(name: &str, kind: &str, master: Option<&str>) -> Value {
        json!({ "ifname": name, "linkinfo": { "info_kind": kind }, "master": master })
    }

    #[test]
    fn ways_out_are_devices_with_routes_and_no_bridges_of_containers() {
        let links = json!([
            { "ifname": "lo" }, { "ifname": "eth0" }, { "ifname": "eth1", "master": "lan" },
            { "ifname": "unused" },
            link("docker0", "bridge", None),
            link("backend", "bridge", None), link("veth1", "veth", Some("backend")),
            link("virbr0", "bridge", None), link("vnet0", "tun", Some("virbr0")),
            link("lan", "bridge", None),
            link("nested", "bridge", None), link("veth2", "veth", Some("nested")),
            link("wg0", "wireguard", None), link("vlan7", "vlan", None), link("any+", "dummy", None),
        ]);
        let connected = ["lo", "docker0", "backend", "virbr0", "lan", "nested", "wg0", "any+", "gone"];
        let mut routes: Vec<Value> =
            connected.map(|dev| json!({ "dst": "192.0.2.0/24", "dev": dev })).to_vec();
        routes.push(json!({ "dst": "198.51.100.0/24", "gateway": "192.0.2.1", "dev": "nested" }));
        routes.push(json!({ "dst": "default", "nexthops": [
            { "gateway": "192.0.2.1", "dev": "eth0" }, { "gateway": "192.0.2.9", "dev": "vlan7" },
        ] }));
        let ways: Vec<String> = read_ways_out(&Value::Array(routes), &links).into_iter().collect();
        assert_eq!(ways, ["eth0", "lan", "nested", "vlan7", "wg0"]);
        assert!(read_ways_out(&json!([{}]), &json!([{}])).is_empty());
    }

    #[test]
    fn exceptions_are_known_again_and_nothing_else_is() {
        let now = exceptions("gon-ext", &BTreeSet::from(["eth0".to_owned()]));
        let before = ["-i gon-ext -o br-+ -j RETURN", "-i gon-ext -j ACCEPT", "-o gon-ext -j ACCEPT"]
            .map(|rule| format!("-A DOCKER-USER {rule}"));
        assert!(now.iter().chain(&before).all(|rule| is_exception(rule, "gon-ext")));
        for other in [
            "-j RETURN",
            "-i gon-ext -j DROP",
            "-i eth0 -o gon-ext -j ACCEPT",
            "-s 192.0.2.1/32 -i gon-ext -j ACCEPT",
        ] {
            assert!(!is_exception(&format!("-A DOCKER-USER {other}"), "gon-ext"), "{other}");
        }
    }
}
