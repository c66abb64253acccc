//! `compile`: a node's network document and the node's own facts to flows.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use gon_proto::{GroupSpec, NodeNetwork, VpcSpec};
use gon_types::MacAddr;
use gon_types::id::{NetworkInterfaceId, NodeId};
use ipnet::Ipv4Net;

use crate::flow::FlowTable;
use crate::plan::Plan;
use crate::stage;

/// What the compiler must know of the node and the document cannot say. All of it is fixed once the bridge exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// This node.
    pub node: NodeId,
    /// Ethernet address of the host's side of [`crate::service::META_DEVICE`], port [`crate::service::META_PORT`].
    pub meta_mac: MacAddr,
    /// The way out of the node; `None` if this node has none (no internet gateway works on it then).
    pub external: Option<External>,
    /// Its end of the tunnels, port [`crate::service::TUNNEL_PORT`]; `None` if it has none (addresses of other nodes lead
    /// nowhere then).
    pub overlay: Option<Overlay>,
    /// See [`Mirror`].
    pub mirror: Mirror,
}

/// The outside, as reached through [`crate::service::EXT_DEVICE`], port [`crate::service::EXT_PORT`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// Ethernet address of the next hop: the host's side of the device.
    pub gateway_mac: MacAddr,
    /// Address of the next hop: the host's, in the pool. Never a guest's.
    pub gateway: Ipv4Addr,
    /// Public addresses come from here.
    pub pool: Ipv4Net,
}

/// The way to the other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// This node's address on the underlay. A peer that claims it is not believed.
    pub address: Ipv4Addr,
}

/// What to do about connections that were open when the switch lost its connection table (rule R14). Only Open
/// vSwitch's own conntrack (userspace datapath) loses it, with ovs-vswitchd; the kernel's survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Mirror {
    /// The table was never lost: nothing to do.
    #[default]
    Off,
    /// For some 60 s after the loss: a TCP segment that begins nothing (no SYN) and that no rule allows in its own
    /// direction is taken for an answer, if a rule allows what it would answer to.
    Accepting,
    /// After that window, until the switch starts with a fresh table again: connections taken in live on, judged in
    /// their true direction on every packet; no more are taken in.
    Keeping,
}

/// The result for a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compiled {
    /// All flows of the bridge.
    pub flows: FlowTable,
    /// Conntrack zones in use, by number (= `port_no`).
    pub zones: BTreeMap<u16, Zone>,
    /// Ports that are closed because the document says something impossible about them, by id.
    pub degraded: Vec<Degraded>,
}

/// Interface, VPC key, MAC and address of whoever a zone's connections belong to: when one changes, they are somebody else's.
pub type Owner = (NetworkInterfaceId, u32, MacAddr, Ipv4Addr);

/// Who uses a conntrack zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Whose the connections are.
    pub owner: Owner,
    /// Number of the port's set of groups.
    pub policy: u32,
}

/// A port that is closed: nothing in, nothing out (rule R12).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Degraded {
    /// The interface.
    pub port: NetworkInterfaceId,
    /// Its number as the document has it.
    pub port_no: u16,
    /// What is impossible.
    pub reason: Reason,
}

/// Why a port is closed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Reason {
    /// The document is another node's.
    #[error("the document is for another node")]
    WrongNode,
    /// Port numbers are 16 to 16000.
    #[error("its port number is out of range")]
    BadPortNumber,
    /// Two ports have one number.
    #[error("another port has its number")]
    SharedPortNumber,
    /// Two ports have one id.
    #[error("the document has it twice")]
    Repeated,
    /// The subnet is not in the document, or twice and differently.
    #[error("its subnet is not in the document")]
    NoSuchSubnet,
    /// The VPC is not in the document, or twice and differently.
    #[error("its VPC is not in the document")]
    NoSuchVpc,
    /// Network keys are 1 to 2^24-1, each VPC its own.
    #[error("its VPC's network key is out of range or another VPC's")]
    BadNetworkKey,
    /// The subnet is outside its VPC's blocks, overlaps another, or is no unicast block.
    #[error("its subnet's block is impossible")]
    BadSubnet,
    /// The address is outside the subnet or one of its reserved ones.
    #[error("its address cannot be an interface's")]
    BadAddress,
    /// Another port, or another interface in the list of addresses, has it.
    #[error("its address is another interface's too")]
    SharedAddress,
    /// Not a locally administered unicast address, or one of the node's own.
    #[error("its MAC address cannot be an interface's")]
    BadMac,
    /// Two ports of the VPC have one MAC address.
    #[error("its MAC address is another port's too")]
    SharedMac,
    /// Outside the pool, or the pool's own.
    #[error("its public address is not one of the pool's")]
    BadPublicAddress,
    /// Two ports have one public address.
    #[error("its public address is another port's too")]
    SharedPublicAddress,
    /// Every port has a group.
    #[error("it has no security group")]
    NoGroup,
    /// A group, or one that its rules name, is not in the document or of another VPC.
    #[error("a security group is not in the document or of another VPC")]
    NoSuchGroup,
    /// The network ACL is not in the document, twice and differently, or of another VPC.
    #[error("its subnet's network ACL is not in the document or of another VPC")]
    NoSuchAcl,
    /// Ports without TCP or UDP, two entries of one number, or the like.
    #[error("its subnet's network ACL says something impossible")]
    BadAcl,
    /// Ports without TCP or UDP, or the like.
    #[error("a rule of its groups says something impossible")]
    BadRule,
    /// More peer groups than fit into one message to the switch.
    #[error("its groups have too many rules")]
    TooManyRules,
}

/// The flows of a node. Total: every document has an answer, in which impossible ports are closed and named.
#[must_use]
pub fn compile(document: &NodeNetwork, facts: &NodeFacts) -> Compiled {
    let plan = Plan::new(document, facts);
    let zones = plan
        .ports
        .iter()
        .map(|p| {
            let owner = (p.spec.id, p.vpc.key, p.spec.mac, p.spec.private_ip);
            (p.spec.port_no, Zone { owner, policy: p.policy })
        })
        .collect();
    Compiled { flows: stage::all(&plan), zones, degraded: plan.closed }
}

/// What [`compile`] was asked, and what it said.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    /// The document.
    pub document: &'a NodeNetwork,
    /// The node's facts.
    pub facts: &'a NodeFacts,
    /// The answer.
    pub compiled: &'a Compiled,
}

/// The same as [`compile`], in a fraction of the time where the document differs from the one before in the rules of
/// groups only, which is by far the most frequent change: then only their table is made anew.
#[must_use]
pub fn recompile(before: Before<'_>, document: &NodeNetwork, facts: &NodeFacts) -> Compiled {
    if before.facts == facts && only_rules_differ(before.document, document) {
        let plan = Plan::new(document, facts);
        // An impossible rule closes ports, of which every table speaks.
        if plan.closed == before.compiled.degraded {
            return Compiled {
                flows: stage::with_rules(&before.compiled.flows, &plan),
                ..before.compiled.clone()
            };
        }
    }
    compile(document, facts)
}

/// Whether nothing that packets depend on differs but the rules of groups.
fn only_rules_differ(one: &NodeNetwork, other: &NodeNetwork) -> bool {
    // Whoever adds a field has to say here whether packets depend on it.
    let NodeNetwork {
        format: _,
        node,
        version: _,
        mass_change_ok: _,
        vpcs,
        subnets,
        addresses,
        groups,
        acls,
        ports,
        peers,
    } = one;
    let same_vpc = |(a, b): (&VpcSpec, &VpcSpec)| {
        let VpcSpec { id, generation: _, key, cidr_blocks, internet_gateway } = a;
        (id, key, cidr_blocks, internet_gateway) == (&b.id, &b.key, &b.cidr_blocks, &b.internet_gateway)
    };
    let same_but_rules = |(a, b): (&GroupSpec, &GroupSpec)| {
        let GroupSpec { id, vpc, rules: _, members } = a;
        (id, vpc, members) == (&b.id, &b.vpc, &b.members)
    };
    *node == other.node
        && vpcs.len() == other.vpcs.len()
        && vpcs.iter().zip(&other.vpcs).all(same_vpc)
        && groups.len() == other.groups.len()
        && groups.iter().zip(&other.groups).all(same_but_rules)
        && (subnets, addresses, acls, ports, peers)
            == (&other.subnets, &other.addresses, &other.acls, &other.ports, &other.peers)
}

#[cfg(test)]
mod acl_tests;
#[cfg(test)]
mod address_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tunnel_tests;
