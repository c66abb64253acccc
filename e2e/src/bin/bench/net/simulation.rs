//! A site in memory: the documents of all its nodes, what they compile to, and what one changed rule costs each node that
//! has to know of it. A process of its own, so that what it holds can be seen.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use e2e::process;
use gon_net::{Compiled, Mirror, NodeFacts, Overlay, compile, diff};
use gon_proto::{GroupSpec, NodeNetwork, PeerSpec, SubnetSpec, VpcSpec};
use gon_types::id::NodeId;
use gon_types::{DocumentVersion, MacAddr};
use serde_json::{Value, json};

use super::document;
use super::place::resident;

/// The first word of a command line that means this.
pub const WORD: &str = "network-site";
/// Changes of a rule.
const CHANGES: usize = 100;

/// Does it in a process of its own; what came of it.
pub fn measure(vpcs: usize, ports: usize, nodes: usize) -> anyhow::Result<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(WORD).args([vpcs, ports, nodes].map(|n| n.to_string()));
    Ok(serde_json::from_str(&process::check(&mut command, Duration::from_secs(1200))?)?)
}

fn node(n: u32) -> NodeId {
    document::id(1, n + 1)
}
fn underlay(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 10)) + n)
}

/// A VPC with everything that nodes are told of it.
struct Vpc {
    spec: VpcSpec,
    subnets: [SubnetSpec; 2],
    groups: [GroupSpec; 2],
    ports: Vec<(u32, gon_proto::PortSpec)>,
}

/// VPC `v`, whose ports are spread over the nodes.
fn vpc(v: u32, ports: usize, nodes: u32, taken: &mut [u16]) -> anyhow::Result<Vpc> {
    let spec = document::vpc(v + 1);
    let subnets = [1, 2]
        .map(|s: u8| document::subnet(v * 2 + u32::from(s), spec.id, Ipv4Addr::new(10, 0, s, 0), 24, v + 1));
    let [first, second] = subnets;
    let subnets = [first?, second?];
    let mut groups =
        [document::group(v * 2 + 1, spec.id, 5, vec![])?, document::group(v * 2 + 2, spec.id, 5, vec![])?];
    let mut all = Vec::new();
    for p in 0..u32::try_from(ports)? {
        let (n, at) = (v * u32::try_from(ports)? + p, (v * 7 + p * 13) % nodes);
        let number = taken.get_mut(at as usize).context("a node")?;
        *number += 1;
        let side = (p % 2) as usize;
        let address = Ipv4Addr::from(u32::from(subnets[side].cidr_block.network()) + 4 + p / 2);
        let mut port = document::port(n, 15 + *number, subnets[side].id, address, vec![groups[side].id]);
        let [a, b, c, d] = n.to_be_bytes();
        port.mac = MacAddr([0x0a, 1, a, b, c, d]);
        groups[side].members.push(address);
        all.push((at, port));
    }
    Ok(Vpc { spec, subnets, groups, ports: all })
}

/// The document of a node.
fn document_of(n: u32, vpcs: &[Vpc]) -> anyhow::Result<NodeNetwork> {
    let mut document = NodeNetwork::empty(node(n), DocumentVersion { epoch: 1, generation: 1 });
    let mut peers = BTreeSet::new();
    for vpc in vpcs.iter().filter(|vpc| vpc.ports.iter().any(|(at, _)| *at == n)) {
        document.vpcs.push(vpc.spec.clone());
        document.subnets.extend(vpc.subnets.iter().cloned());
        let used = |group: &&GroupSpec| {
            vpc.ports.iter().any(|(at, port)| *at == n && port.groups.contains(&group.id))
        };
        document.groups.extend(vpc.groups.iter().filter(used).cloned());
        document.acls.push(document::acl(vpc.spec.key, vpc.spec.id)?);
        let here = vpc.ports.iter().filter(|(at, _)| *at == n);
        document.ports.extend(here.map(|(_, port)| port.clone()));
        let addresses = vpc.ports.iter().map(|(at, p)| document::address(p, vpc.spec.id, node(*at)));
        document.addresses.extend(addresses);
        peers.extend(vpc.ports.iter().map(|(at, _)| *at).filter(|at| *at != n));
    }
    document.peers = peers.into_iter().map(|at| PeerSpec { node: node(at), address: underlay(at) }).collect();
    Ok(document)
}

fn facts(n: u32) -> NodeFacts {
    NodeFacts {
        node: node(n),
        meta_mac: MacAddr([0x0a, 0x67, 0x6f, 0x6e, 0, 2]),
        external: None,
        overlay: Some(Overlay { address: underlay(n) }),
        mirror: Mirror::Off,
    }
}

fn timed(node: &NodeNetwork, facts: &NodeFacts) -> (Compiled, f64) {
    let start = Instant::now();
    let compiled = compile(node, facts);
    (compiled, start.elapsed().as_secs_f64() * 1e3)
}

/// Is the process: words are numbers of VPCs, ports and nodes.
pub fn run(words: &[String]) -> anyhow::Result<()> {
    let number = |at: usize| -> anyhow::Result<u32> { Ok(words.get(at).context("a number")?.parse()?) };
    let (vpcs, ports, nodes) = (number(0)?, number(1)?, number(2)?);
    let own = std::process::id().cast_signed();
    let empty = resident(own)?;
    let mut documents = Vec::new();
    {
        let mut taken = vec![0; nodes as usize];
        let each = (ports / vpcs) as usize;
        let site: anyhow::Result<Vec<Vpc>> = (0..vpcs).map(|v| vpc(v, each, nodes, &mut taken)).collect();
        let site = site?;
        for n in 0..nodes {
            documents.push(document_of(n, &site)?);
        }
    }
    let with_documents = resident(own)?;
    let all_facts: Vec<NodeFacts> = (0..nodes).map(facts).collect();
    let (mut compiled, mut compiles): (Vec<Compiled>, Vec<f64>) =
        documents.iter().zip(&all_facts).map(|(document, facts)| timed(document, facts)).unzip();
    let with_flows = resident(own)?;
    anyhow::ensure!(compiled.iter().all(|c| c.degraded.is_empty()), "{:?}", compiled[0].degraded.first());
    compiles.sort_by(f64::total_cmp);

    let (mut changes, mut flow_mods, mut concerned) = (Vec::new(), 0, 0);
    for change in 0..CHANGES {
        // A rule of some group goes, then it is back: on every node that has a port of the group.
        let id = document::id(5, (u32::try_from(change)? * 17) % (vpcs * 2) + 1);
        for n in 0..nodes as usize {
            let Some(group) = documents[n].groups.iter_mut().find(|g| g.id == id) else { continue };
            let Some(rule) = group.rules.pop() else { continue };
            let start = Instant::now();
            let next = compile(&documents[n], &all_facts[n]);
            let mods = diff(&compiled[n].flows, &next.flows).len();
            changes.push(start.elapsed().as_secs_f64() * 1e3);
            flow_mods += mods;
            concerned += 1;
            compiled[n] = next;
            if let Some(group) = documents[n].groups.iter_mut().find(|g| g.id == id) {
                group.rules.push(rule);
            }
            compiled[n] = compile(&documents[n], &all_facts[n]);
        }
    }
    let flows: usize = compiled.iter().map(|c| c.flows.len()).sum();
    let told = json!({
        "compile_ms": compiles,
        "change_ms": changes,
        "flow_mods": flow_mods,
        "concerned": concerned,
        "flows": flows,
        "documents_mib": with_documents - empty,
        "flows_mib": with_flows - with_documents,
    });
    println!("{told}");
    Ok(())
}
