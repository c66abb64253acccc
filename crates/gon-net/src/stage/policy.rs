//! policy: the rules of every set of groups in use. A subroutine of the group stages, see `security_group.rs`.
//!
//! Assumes from `judge`: the packet looks as the one that began the connection, the lens says which side that was.
//! Promises: a packet reaches `admitted` exactly if a rule of the set allows that beginning.
//!
//! Rules are compiled once per distinct set of groups, whatever the number of ports. A rule with a CIDR peer is a flow
//! per port mask. A rule with a group peer is a conjunction of two clauses, and neither knows of the other:
//!
//! ```text
//! 1/2  VPC, lens, peer's address      → the groups it is a member of        one flow per address and lens
//! 2/2  set of groups, lens, traffic   → the groups that rules let send it   one flow per port mask
//!      id = (group, lens)             → admitted                            one flow per group named and lens
//! ```
//!
//! The id says "a member of this group", not "of this group as that set of groups sees it": a set of groups stands in the
//! second clause alone, so any pair of a member and a line of traffic that names its group is a rule. Hence addresses
//! and rules add up, however many sets of groups name a group (ADR 11), and who joins a group or leaves it is one flow for
//! each lens that the group is looked at through. Rules only ever allow, so overlap needs no order; plain flows stand above
//! conjunctions, because the two may have the same match.
//!
//! A later fragment has no ports. The kernel datapath never shows one here; the userspace datapath does, after it has
//! tracked all fragments of a packet together. It passes if some rule allows its protocol and peer, whatever the port:
//! without the first fragment, which is judged by its ports, no receiver can make anything of it. Blocks that rules name
//! are put together for that, so that it costs few flows.

use std::collections::{BTreeMap, BTreeSet};

use gon_proto::{Direction, Peer, RuleSpec};
use gon_types::id::SecurityGroupId;
use gon_types::{PortRange, Protocol};
use ipnet::Ipv4Net;

use super::{LATER_FRAGMENT, Sink, go, security_group};
use crate::compile::Mirror;
use crate::cookie::Cookie;
use crate::flow::{Action, Field, Flow, IP_TCP, IP_UDP, Match};
use crate::pipeline::{LENS, POLICY, Stage, VPC, lens};
use crate::plan::{Hash, MOST_PEER_GROUPS, Plan, Policy};

const STAGE: Stage = Stage::Policy;
const PLAIN: u16 = 200;
const CONJUNCTION: u16 = 100;
const PEER: u8 = 1;
const TRAFFIC: u8 = 2;

pub(super) fn flows(plan: &Plan<'_>, sink: &mut Sink) {
    let mirror = plan.facts.mirror;
    let lenses: &[Lens] = if mirror == Mirror::Off { &[Lens::Plain] } else { &Lens::ALL };
    let named = Named::new(plan, lenses);
    named.flows(plan, sink);
    for (number, policy) in &plan.policies {
        for lens in lenses {
            for direction in Direction::ALL {
                of_policy(*number, policy, View { lens: *lens, direction }, &named, sink);
            }
        }
    }
    security_group::second_chance(mirror, sink);
}

/// At which packet the rules look.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lens {
    /// At the packet that began the connection.
    Plain,
    /// At the answer to it; only TCP.
    Mirrored,
}

impl Lens {
    const ALL: [Self; 2] = [Self::Plain, Self::Mirrored];
}

/// A lens, and which way the rules are that look through it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct View {
    lens: Lens,
    direction: Direction,
}

impl View {
    const fn number(self) -> u64 {
        match (self.lens, self.direction) {
            (Lens::Plain, Direction::Inbound) => lens::INBOUND,
            (Lens::Plain, Direction::Outbound) => lens::OUTBOUND,
            (Lens::Mirrored, Direction::Inbound) => lens::INBOUND_MIRRORED,
            (Lens::Mirrored, Direction::Outbound) => lens::OUTBOUND_MIRRORED,
        }
    }
    /// Where the peer's address is.
    const fn peer(self) -> Field {
        match (self.lens, self.direction) {
            (Lens::Plain, Direction::Inbound) | (Lens::Mirrored, Direction::Outbound) => Field::IpSrc,
            (Lens::Plain, Direction::Outbound) | (Lens::Mirrored, Direction::Inbound) => Field::IpDst,
        }
    }
    const fn tcp_port(self) -> Field {
        match self.lens {
            Lens::Plain => Field::TcpDst,
            Lens::Mirrored => Field::TcpSrc,
        }
    }
    /// Whether a rule is about anything that is seen here.
    fn sees(self, rule: &RuleSpec) -> bool {
        let tcp = matches!(rule.protocol, Protocol::All | Protocol::Tcp);
        rule.direction == self.direction && (self.lens == Lens::Plain || tcp)
    }
}

/// The groups that rules name, with the id of "its members", by how they are looked at. An id depends on group and view
/// only, so that it stays the same while sets of groups, rules and members come and go.
struct Named(BTreeMap<(View, SecurityGroupId), u32>);

impl Named {
    fn new(plan: &Plan<'_>, lenses: &[Lens]) -> Self {
        let mut ids = BTreeMap::new();
        for rule in plan.policies.values().flat_map(|p| &p.rules) {
            let Peer::Group(group) = rule.peer else { continue };
            for lens in lenses {
                let view = View { lens: *lens, direction: rule.direction };
                if view.sees(rule) {
                    ids.insert((view, group), 0);
                }
            }
        }
        let mut taken = BTreeSet::new();
        for ((view, group), id) in &mut ids {
            let hash = Hash::new().add(&view.number().to_be_bytes()).add(group.uuid().as_bytes());
            *id = hash.free_number(|n| taken.contains(&n));
            taken.insert(*id);
        }
        Self(ids)
    }

    fn clause(&self, view: View, group: SecurityGroupId, clause: u8) -> Option<Action> {
        self.0.get(&(view, group)).map(|id| Action::Conjunction { id: *id, clause, of: 2 })
    }

    /// Who is a member of which, and that both clauses together allow.
    fn flows(&self, plan: &Plan<'_>, sink: &mut Sink) {
        let mut clauses = Clauses::default();
        for ((view, group), id) in &self.0 {
            let both = Match::any().with(Field::ConjId, (*id).into());
            // A flow matches what the packet is now, not what it looked like: only the id.
            sink.of(STAGE, *group, CONJUNCTION, both, vec![go(Stage::Admitted)]);
            let (Some(named), Some(clause)) = (plan.named.get(group), self.clause(*view, *group, PEER))
            else {
                continue;
            };
            let base = Match::ip().with(VPC, named.vpc.key.into()).with(LENS, view.number());
            for member in &named.members {
                let matches = base.clone().addr(view.peer(), *member);
                clauses.add(matches, Cookie::of(STAGE, *group), clause.clone());
            }
        }
        clauses.flows(sink);
    }
}

/// Clauses by what they match: one flow may be a clause of several conjunctions.
#[derive(Default)]
struct Clauses(BTreeMap<Match, (Cookie, BTreeSet<Action>)>);

impl Clauses {
    fn add(&mut self, matches: Match, cookie: Cookie, clause: Action) {
        let entry = self.0.entry(matches).or_insert_with(|| (cookie, BTreeSet::new()));
        entry.0 = entry.0.min(cookie);
        entry.1.insert(clause);
    }
    fn flows(self, sink: &mut Sink) {
        for (matches, (cookie, actions)) in self.0 {
            // What does not fit into a message to the switch allows nothing. (No document of ours comes near: an interface
            // has a handful of groups, and `plan` bounds how many a set of groups may name.)
            let actions = actions.into_iter().take(MOST_PEER_GROUPS).collect();
            sink.0.push(Flow::new(STAGE.table(), CONJUNCTION, cookie, matches, actions));
        }
    }
}

fn of_policy(number: u32, policy: &Policy<'_>, view: View, named: &Named, sink: &mut Sink) {
    let admit = || vec![go(Stage::Admitted)];
    let base = Match::ip().with(POLICY, number.into()).with(LENS, view.number());
    let mut clauses = Clauses::default();
    // Blocks whose fragments may pass, and the first rule that says so.
    let mut fragments: BTreeMap<Match, (Cookie, Vec<Ipv4Net>)> = BTreeMap::new();
    for rule in policy.rules.iter().filter(|r| view.sees(r)) {
        let cookie = Cookie::of(STAGE, rule.id);
        match rule.peer {
            Peer::Cidr(net) => {
                for matches in traffic(rule, view, &base) {
                    let matches = matches.net(view.peer(), net.trunc());
                    sink.of(STAGE, rule.id, PLAIN, matches, admit());
                }
                if let Some(later) = later_fragments(rule, &base) {
                    fragments.entry(later).or_insert((cookie, vec![])).1.push(net.trunc());
                }
            }
            Peer::Group(group) => {
                let Some(clause) = named.clause(view, group, TRAFFIC) else { continue };
                for matches in traffic(rule, view, &base).into_iter().chain(later_fragments(rule, &base)) {
                    clauses.add(matches, cookie, clause.clone());
                }
            }
        }
    }
    for (later, (cookie, blocks)) in fragments {
        for block in Ipv4Net::aggregate(&blocks) {
            let matches = later.clone().net(view.peer(), block);
            sink.0.push(Flow::new(STAGE.table(), PLAIN, cookie, matches, admit()));
        }
    }
    clauses.flows(sink);
}

/// Protocol and ports of a rule as matches.
fn traffic(rule: &RuleSpec, view: View, base: &Match) -> Vec<Match> {
    let proto = |proto: u8| base.clone().with(Field::IpProto, proto.into());
    let ports = |matches: Match, field| -> Vec<Match> {
        let masks = masks(rule.ports.unwrap_or(PortRange::ALL)).into_iter();
        masks.map(|(value, mask)| matches.clone().masked(field, value.into(), mask.into())).collect()
    };
    match (rule.protocol, view.lens) {
        (Protocol::All, Lens::Plain) => vec![base.clone()],
        (Protocol::All, Lens::Mirrored) => vec![proto(IP_TCP)],
        (Protocol::Tcp, _) => ports(proto(IP_TCP), view.tcp_port()),
        (Protocol::Udp, Lens::Plain) => ports(proto(IP_UDP), Field::UdpDst),
        (Protocol::Icmp, Lens::Plain) => {
            let matches = proto(crate::flow::IP_ICMP);
            vec![match rule.icmp {
                None => matches,
                Some(icmp) => {
                    let matches = matches.with(Field::IcmpType, icmp.icmp_type.into());
                    match icmp.code {
                        None => matches,
                        Some(code) => matches.with(Field::IcmpCode, code.into()),
                    }
                }
            }]
        }
        (Protocol::Udp | Protocol::Icmp, Lens::Mirrored) => vec![],
    }
}

/// Later fragments of what a rule for some ports allows. (A rule for all ports matches them as it is.)
fn later_fragments(rule: &RuleSpec, base: &Match) -> Option<Match> {
    let proto = match rule.protocol {
        Protocol::Tcp => IP_TCP,
        Protocol::Udp => IP_UDP,
        Protocol::All | Protocol::Icmp => return None,
    };
    let later = base.clone().with(Field::IpProto, proto.into()).with(Field::IpFrag, LATER_FRAGMENT);
    (rule.ports? != PortRange::ALL).then_some(later)
}

/// A range of ports as the fewest (value, mask) pairs; at most 30, one for the whole range.
pub(super) fn masks(range: PortRange) -> Vec<(u16, u16)> {
    let (mut first, last) = (u32::from(range.first()), u32::from(range.last()));
    let mut masks = Vec::new();
    while first <= last {
        // The largest block that begins at `first` and does not go past `last`.
        let aligned = if first == 0 { 16 } else { first.trailing_zeros() };
        let bits = aligned.min((last - first + 1).ilog2());
        let mask = (u32::from(u16::MAX) >> bits) << bits;
        masks.push((u16::try_from(first).unwrap_or(0), u16::try_from(mask).unwrap_or(0)));
        first += 1 << bits;
    }
    masks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_cover_exactly_the_range() {
        let ranges = [(0, 65535), (80, 80), (1, 65534), (1024, 65535), (0, 0), (65535, 65535), (80, 443)];
        for (first, last) in ranges {
            let masks = masks(PortRange::new(first, last).unwrap());
            assert!(masks.len() <= 30, "{first}-{last}: {}", masks.len());
            for port in 0..=u16::MAX {
                let hits = masks.iter().filter(|(value, mask)| port & mask == *value).count();
                assert_eq!(hits, usize::from((first..=last).contains(&port)), "{port} in {first}-{last}");
            }
        }
        assert_eq!(super::masks(PortRange::ALL), [(0, 0)]);
    }
}
