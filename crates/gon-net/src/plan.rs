//! The document, checked and indexed: what the stages compile from.
//!
//! Assumes nothing of the document, not even that it is sorted or that its references lead anywhere. Promises that
//! every port in [`Plan::ports`] can be compiled: its references resolve, its addresses are its own. Every other port
//! is in [`Plan::closed`] with the first reason found. Where two things contradict each other, neither is believed.

mod acl;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use gon_proto::{AddressSpec, NodeNetwork, Peer, PortSpec, RuleSpec, SubnetSpec, VpcSpec};
use gon_types::id::{NetworkAclId, SecurityGroupId, SubnetId, VpcId};
use gon_types::{MacAddr, Protocol};
use ipnet::Ipv4Net;

use crate::compile::{Degraded, External, NodeFacts, Reason};
use crate::service;

pub(crate) use acl::{Acl, LAST_NUMBER};

/// Nothing that a guest may be, or speak to beyond its VPC: "this" network, loopback, link-local, multicast, reserved.
pub(crate) const IMPOSSIBLE: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// More clauses than this and a flow would not fit into an OpenFlow message (65 535 bytes, 16 per clause).
pub(crate) const MOST_PEER_GROUPS: usize = 1_000;

/// The checked document.
pub(crate) struct Plan<'a> {
    pub facts: &'a NodeFacts,
    /// Ports that are compiled, by id.
    pub ports: Vec<Port<'a>>,
    /// Ports that are closed, by id.
    pub closed: Vec<Degraded>,
    /// Subnets with an open port, by id.
    pub subnets: BTreeMap<SubnetId, Subnet<'a>>,
    /// VPCs with an open port, by id.
    pub vpcs: BTreeMap<VpcId, &'a VpcSpec>,
    /// Interfaces of those VPCs on other nodes, by (VPC, address).
    pub remotes: Vec<Remote<'a>>,
    /// Addresses of those subnets: who has which.
    pub neighbours: BTreeMap<(SubnetId, Ipv4Addr), MacAddr>,
    /// The network ACLs of those subnets.
    pub acls: BTreeMap<NetworkAclId, Acl<'a>>,
    /// Sets of groups in use, by number.
    pub policies: BTreeMap<u32, Policy<'a>>,
    /// Groups that their rules name.
    pub named: BTreeMap<SecurityGroupId, Named<'a>>,
}

/// A port that is compiled.
pub(crate) struct Port<'a> {
    pub spec: &'a PortSpec,
    pub vpc: &'a VpcSpec,
    pub subnet: Subnet<'a>,
    /// Number of its set of groups.
    pub policy: u32,
}

/// An interface on another node.
pub(crate) struct Remote<'a> {
    pub spec: &'a AddressSpec,
    pub subnet: Subnet<'a>,
    /// That node's end of the tunnels.
    pub node: Ipv4Addr,
}

/// A subnet whose VPC is known.
#[derive(Clone, Copy)]
pub(crate) struct Subnet<'a> {
    pub spec: &'a SubnetSpec,
    pub vpc: &'a VpcSpec,
}

/// The rules of a set of groups.
pub(crate) struct Policy<'a> {
    /// Without repetition, sorted.
    pub rules: Vec<&'a RuleSpec>,
}

/// A group as rules see it that name it.
pub(crate) struct Named<'a> {
    pub vpc: &'a VpcSpec,
    /// Without repetition, sorted.
    pub members: BTreeSet<Ipv4Addr>,
}

impl Subnet<'_> {
    /// Its network address, which is its number in the [`crate::pipeline::SUBNET`] register.
    pub fn base(&self) -> Ipv4Addr {
        self.spec.cidr_block.network()
    }
    /// The address `offset` above the base.
    pub fn at(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base()).wrapping_add(offset))
    }
    /// The router, `.1`.
    pub fn router(&self) -> Ipv4Addr {
        self.at(1)
    }
    /// The resolver, `.2`.
    pub fn dns(&self) -> Ipv4Addr {
        self.at(2)
    }
}

impl Port<'_> {
    /// Its public address, if packets can reach it: this node has an outside and the VPC a gateway.
    pub fn public(&self, external: Option<&External>) -> Option<Ipv4Addr> {
        external.and(self.vpc.internet_gateway).and(self.spec.public_ip)
    }
}

impl<'a> Plan<'a> {
    pub fn new(document: &'a NodeNetwork, facts: &'a NodeFacts) -> Self {
        let index = Index::new(document);
        let mut closed = Vec::new();
        let mut open: Vec<Port<'a>> = Vec::new();
        for spec in &document.ports {
            match check_port(document, facts, &index, spec) {
                Ok(port) => open.push(port),
                Err(reason) => closed.push(Degraded { port: spec.id, port_no: spec.port_no, reason }),
            }
        }
        open.sort_by_key(|p| (p.spec.id, p.spec.port_no));
        closed.sort();
        let policies = number_policies(&index, &mut open);
        let named = named_groups(&index, &policies);
        let subnets: BTreeMap<_, _> = open.iter().map(|p| (p.subnet.spec.id, p.subnet)).collect();
        let acls = index.acls.of(subnets.values());
        let vpcs: BTreeMap<_, _> = open.iter().map(|p| (p.vpc.id, p.vpc)).collect();
        let remotes = remotes(document, facts, &index, &open, &vpcs);
        let mut neighbours: BTreeMap<_, _> = index
            .addresses
            .values()
            .filter(|a| {
                subnets.get(&a.subnet).is_some_and(|s| {
                    s.vpc.id == a.vpc && s.spec.cidr_block.contains(&a.private_ip) && usable(s, a.private_ip)
                })
            })
            .map(|a| ((a.subnet, a.private_ip), a.mac))
            .collect();
        let own = |p: &Port<'_>| (p.subnet.spec.id, p.spec.mac);
        neighbours.extend(open.iter().flat_map(|p| {
            let (subnet, mac) = own(p);
            p.spec.addresses().map(move |address| ((subnet, address), mac))
        }));
        Self { facts, ports: open, closed, subnets, vpcs, remotes, neighbours, acls, policies, named }
    }
}

/// Everything that ports refer to, by what they refer to it with; contradictions are left out.
struct Index<'a> {
    vpcs: BTreeMap<VpcId, &'a VpcSpec>,
    subnets: BTreeMap<SubnetId, &'a SubnetSpec>,
    groups: BTreeMap<SecurityGroupId, &'a gon_proto::GroupSpec>,
    acls: acl::Acls<'a>,
    addresses: BTreeMap<(VpcId, Ipv4Addr), &'a AddressSpec>,
    bad_keys: BTreeSet<u32>,
    overlapping: BTreeSet<SubnetId>,
    shared: Shared,
}

/// What more than one port claims.
struct Shared {
    ids: BTreeSet<gon_types::id::NetworkInterfaceId>,
    numbers: BTreeSet<u16>,
    macs: BTreeSet<(VpcId, MacAddr)>,
    addresses: BTreeSet<(VpcId, Ipv4Addr)>,
    public: BTreeSet<Ipv4Addr>,
}

/// By key; a key that stands for two different things is left out, as if there were none.
fn unique<K: Ord + Copy, T: PartialEq>(items: &[T], key: impl Fn(&T) -> K) -> BTreeMap<K, &T> {
    let mut map: BTreeMap<K, &T> = BTreeMap::new();
    let mut contradictory = BTreeSet::new();
    for item in items {
        if map.insert(key(item), item).is_some_and(|before| before != item) {
            contradictory.insert(key(item));
        }
    }
    map.retain(|key, _| !contradictory.contains(key));
    map
}

/// Keys that occur more than once.
fn repeated<K: Ord>(keys: impl Iterator<Item = K>) -> BTreeSet<K> {
    let mut keys: Vec<K> = keys.collect();
    keys.sort_unstable();
    let mut repeated = BTreeSet::new();
    let mut keys = keys.into_iter().peekable();
    while let Some(key) = keys.next() {
        if keys.peek() == Some(&key) {
            repeated.insert(key);
        }
    }
    repeated
}

impl<'a> Index<'a> {
    fn new(document: &'a NodeNetwork) -> Self {
        let vpcs = unique(&document.vpcs, |v| v.id);
        let subnets = unique(&document.subnets, |s| s.id);
        let vpc_of = |subnet: &SubnetId| subnets.get(subnet).map(|s| s.vpc);
        let ports = || document.ports.iter();
        let in_vpc = |p: &PortSpec| vpc_of(&p.subnet);
        let shared = Shared {
            ids: repeated(ports().map(|p| p.id)),
            numbers: repeated(ports().map(|p| p.port_no)),
            macs: repeated(ports().filter_map(|p| in_vpc(p).map(|vpc| (vpc, p.mac)))),
            addresses: repeated(ports().flat_map(|p| {
                in_vpc(p).into_iter().flat_map(|vpc| p.addresses().map(move |address| (vpc, address)))
            })),
            public: repeated(ports().filter_map(|p| p.public_ip)),
        };
        let bad_keys = repeated(vpcs.values().map(|v| v.key));
        let overlapping = overlapping(subnets.values().copied());
        Self {
            groups: unique(&document.groups, |g| g.id),
            acls: acl::Acls::new(document),
            addresses: unique(&document.addresses, |a| (a.vpc, a.private_ip)),
            vpcs,
            subnets,
            bad_keys,
            overlapping,
            shared,
        }
    }

    /// Whether a subnet can be one of its VPC.
    fn is_possible(&self, subnet: &SubnetSpec, vpc: &VpcSpec) -> bool {
        let block = subnet.cidr_block;
        vpc.cidr_blocks.iter().any(|b| b.contains(&block))
            && !IMPOSSIBLE.iter().any(|net| net.contains(&block) || block.contains(net))
            && !self.overlapping.contains(&subnet.id)
    }
}

/// Whether a MAC address can be an interface's.
fn is_guest_mac(facts: &NodeFacts, mac: MacAddr) -> bool {
    mac.is_local_unicast()
        && ![MacAddr::ROUTER, service::QUOTE_MAC, service::EXPIRED_MAC, facts.meta_mac].contains(&mac)
        && facts.external.as_ref().is_none_or(|e| e.gateway_mac != mac)
}

/// The interfaces on other nodes. One that contradicts a port of this node, or whose node or subnet is not known, is left
/// out: nothing leads to it, and nothing from it is believed.
fn remotes<'a>(
    document: &NodeNetwork,
    facts: &NodeFacts,
    index: &Index<'a>,
    open: &[Port<'_>],
    vpcs: &BTreeMap<VpcId, &'a VpcSpec>,
) -> Vec<Remote<'a>> {
    let Some(overlay) = &facts.overlay else { return vec![] };
    let addresses = repeated(document.peers.iter().map(|p| p.address));
    let peers: BTreeMap<_, _> = unique(&document.peers, |p| p.node)
        .into_iter()
        .filter(|(_, p)| {
            p.address != overlay.address
                && !addresses.contains(&p.address)
                && !IMPOSSIBLE.iter().any(|net| net.contains(&p.address))
        })
        .collect();
    let here: BTreeSet<_> = open.iter().map(|p| (p.vpc.id, p.spec.mac)).collect();
    let ours: BTreeSet<_> =
        open.iter().flat_map(|p| p.spec.addresses().map(|address| (p.vpc.id, address))).collect();
    let remote = |spec: &'a AddressSpec| {
        let (vpc, subnet) = (*vpcs.get(&spec.vpc)?, *index.subnets.get(&spec.subnet)?);
        let peer = peers.get(&spec.node).filter(|_| spec.node != facts.node)?;
        let fits = subnet.vpc == vpc.id && index.is_possible(subnet, vpc);
        let subnet = Subnet { spec: subnet, vpc };
        let is_theirs = !here.contains(&(vpc.id, spec.mac)) && !ours.contains(&(vpc.id, spec.private_ip));
        (fits && usable(&subnet, spec.private_ip) && is_guest_mac(facts, spec.mac) && is_theirs)
            .then_some(Remote { spec, subnet, node: peer.address })
    };
    index.addresses.values().filter_map(|spec| remote(spec)).collect()
}

/// Subnets that overlap another of their VPC.
fn overlapping<'a>(subnets: impl Iterator<Item = &'a SubnetSpec>) -> BTreeSet<SubnetId> {
    let mut sorted: Vec<_> = subnets.collect();
    // A containing block sorts before what it contains, so what overlaps follows it directly.
    sorted.sort_by_key(|s| (s.vpc, s.cidr_block.network(), s.cidr_block.prefix_len(), s.id));
    let mut bad = BTreeSet::new();
    for (i, outer) in sorted.iter().enumerate() {
        let inside = sorted[i + 1..]
            .iter()
            .take_while(|s| s.vpc == outer.vpc && outer.cidr_block.contains(&s.cidr_block.network()));
        for inner in inside {
            bad.extend([outer.id, inner.id]);
        }
    }
    bad
}

/// Whether an address of the subnet can be an interface's: not the base, the router, the resolver, the reserved fourth,
/// nor the broadcast address.
fn usable(subnet: &Subnet<'_>, address: Ipv4Addr) -> bool {
    let block = subnet.spec.cidr_block;
    block.contains(&address)
        && u32::from(address) - u32::from(block.network()) >= 4
        && address != block.broadcast()
}

fn check_port<'a>(
    document: &NodeNetwork,
    facts: &NodeFacts,
    index: &Index<'a>,
    spec: &'a PortSpec,
) -> Result<Port<'a>, Reason> {
    let deny = |wrong: bool, reason: Reason| if wrong { Err(reason) } else { Ok(()) };

    deny(document.node != facts.node, Reason::WrongNode)?;
    let numbers = service::FIRST_PORT_NO..=service::LAST_PORT_NO;
    deny(!numbers.contains(&spec.port_no), Reason::BadPortNumber)?;
    deny(index.shared.numbers.contains(&spec.port_no), Reason::SharedPortNumber)?;
    deny(index.shared.ids.contains(&spec.id), Reason::Repeated)?;

    let subnet = *index.subnets.get(&spec.subnet).ok_or(Reason::NoSuchSubnet)?;
    let vpc = *index.vpcs.get(&subnet.vpc).ok_or(Reason::NoSuchVpc)?;
    let key_ok = (1..1 << 24).contains(&vpc.key) && !index.bad_keys.contains(&vpc.key);
    deny(!key_ok, Reason::BadNetworkKey)?;
    deny(!index.is_possible(subnet, vpc), Reason::BadSubnet)?;
    index.acls.check(subnet)?;
    let subnet = Subnet { spec: subnet, vpc };

    deny(!spec.addresses().all(|address| usable(&subnet, address)), Reason::BadAddress)?;
    deny(!is_guest_mac(facts, spec.mac), Reason::BadMac)?;
    for address in spec.addresses().map(|address| (vpc.id, address)) {
        deny(index.shared.addresses.contains(&address), Reason::SharedAddress)?;
        let claimed = index.addresses.get(&address);
        let claimed_ok = claimed.is_none_or(|a| a.mac == spec.mac && a.subnet == spec.subnet);
        deny(!claimed_ok, Reason::SharedAddress)?;
    }
    deny(index.shared.macs.contains(&(vpc.id, spec.mac)), Reason::SharedMac)?;
    if let Some(public) = spec.public_ip {
        let possible = facts.external.as_ref().is_none_or(|external| {
            external.pool.contains(&public)
                && ![external.gateway, external.pool.network(), external.pool.broadcast()].contains(&public)
        });
        deny(!possible, Reason::BadPublicAddress)?;
        deny(index.shared.public.contains(&public), Reason::SharedPublicAddress)?;
    }
    check_groups(index, spec, vpc.id)?;
    Ok(Port { spec, vpc, subnet, policy: 0 })
}

fn check_groups(index: &Index<'_>, spec: &PortSpec, vpc: VpcId) -> Result<(), Reason> {
    if spec.groups.is_empty() {
        return Err(Reason::NoGroup);
    }
    let mut peers = BTreeSet::new();
    for id in &spec.groups {
        let group = index.groups.get(id).filter(|g| g.vpc == vpc).ok_or(Reason::NoSuchGroup)?;
        for rule in &group.rules {
            let shape_ok = match rule.protocol {
                Protocol::Tcp | Protocol::Udp => rule.ports.is_some() && rule.icmp.is_none(),
                Protocol::Icmp => rule.ports.is_none(),
                Protocol::All => rule.ports.is_none() && rule.icmp.is_none(),
            };
            if !shape_ok {
                return Err(Reason::BadRule);
            }
            if let Peer::Group(peer) = rule.peer {
                index.groups.get(&peer).filter(|g| g.vpc == vpc).ok_or(Reason::NoSuchGroup)?;
                peers.insert(peer);
            }
        }
    }
    if peers.len() > MOST_PEER_GROUPS { Err(Reason::TooManyRules) } else { Ok(()) }
}

/// Gives every distinct set of groups a number that depends on nothing but the set, so that unrelated changes do not
/// renumber it. (Two sets of one hash, one in four billion per pair, take neighbouring numbers in the order of sets.)
fn number_policies<'a>(index: &Index<'a>, ports: &mut [Port<'a>]) -> BTreeMap<u32, Policy<'a>> {
    let set_of = |spec: &PortSpec| spec.groups.iter().copied().collect::<BTreeSet<_>>();
    let mut numbers: BTreeMap<BTreeSet<SecurityGroupId>, u32> =
        ports.iter().map(|p| (set_of(p.spec), 0)).collect();
    let mut policies = BTreeMap::new();
    for (set, number) in &mut numbers {
        let hash = set.iter().fold(Hash::new(), |hash, id| hash.add(id.uuid().as_bytes()));
        *number = hash.free_number(|n| policies.contains_key(&n));
        policies.insert(*number, policy_of_set(index, set));
    }
    for port in ports {
        port.policy = numbers.get(&set_of(port.spec)).copied().unwrap_or(0);
    }
    policies
}

fn policy_of_set<'a>(index: &Index<'a>, set: &BTreeSet<SecurityGroupId>) -> Policy<'a> {
    let mut rules: Vec<&RuleSpec> =
        set.iter().filter_map(|id| index.groups.get(id)).flat_map(|g| &g.rules).collect();
    rules.sort_by_key(|r| (r.id, r.direction, r.protocol, r.ports, r.icmp, r.peer.clone()));
    Policy { rules }
}

fn named_groups<'a>(
    index: &Index<'a>,
    policies: &BTreeMap<u32, Policy<'a>>,
) -> BTreeMap<SecurityGroupId, Named<'a>> {
    let ids: BTreeSet<_> = policies
        .values()
        .flat_map(|p| &p.rules)
        .filter_map(|rule| match rule.peer {
            Peer::Group(id) => Some(id),
            Peer::Cidr(_) => None,
        })
        .collect();
    let named = |id: SecurityGroupId| {
        let group = *index.groups.get(&id)?;
        let vpc = *index.vpcs.get(&group.vpc)?;
        Some((id, Named { vpc, members: group.members.iter().copied().collect() }))
    };
    ids.into_iter().filter_map(named).collect()
}

/// FNV-1a: a stable hash, for numbers that must not change from one build or run to the next.
#[derive(Clone, Copy)]
pub(crate) struct Hash(u64);

impl Hash {
    pub const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
    pub fn add(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3)))
    }
    /// A number from 1 that is not taken; the next free one if the hash's is.
    pub fn free_number(self, taken: impl Fn(u32) -> bool) -> u32 {
        let mut number = (self.0 ^ (self.0 >> 32)) as u32;
        while number == 0 || taken(number) {
            number = number.wrapping_add(1);
        }
        number
    }
}
