//! policy: the rules of every set of groups in use. A subroutine of the group stages, see `security_group.rs`.
//!
//! Assumes from `judge`: the packet looks as the one that began the connection, the lens says which side that was.
//! Promises: a packet reaches `admitted` exactly if a rule of the set allows that beginning.
//!
//! Rules are compiled once per distinct set of groups, whatever the number of ports. A rule with a CIDR peer is a flow
//! per port mask. A rule with a group peer is a conjunction of two clauses, "the peer is one of the members" and
//! "protocol and port are one of these", so members and ports add up instead of multiplying. Rules only ever allow, so
//! overlap needs no order; plain flows stand above conjunctions, because the two may have the same match.
//!
//! A later fragment has no ports. The kernel datapath never shows one here; the userspace datapath does, after it has
//! tracked all fragments of a packet together. It passes if some rule allows its protocol and peer, whatever the port:
//! without the first fragment, which is judged by its ports, no receiver can make anything of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use gon_proto::{Direction, Peer, RuleSpec};
use gon_types::id::SecurityGroupId;
use gon_types::{PortRange, Protocol};

use super::{LATER_FRAGMENT, Sink, go, security_group};
use crate::compile::Mirror;
use crate::cookie::Cookie;
use crate::flow::{Action, Field, Flow, FlowTable, IP_TCP, IP_UDP, Match};
use crate::pipeline::{LENS, POLICY, Stage, lens};
use crate::plan::{Hash, Plan, Policy};

const STAGE: Stage = Stage::Policy;
const PLAIN: u16 = 200;
const CONJUNCTION: u16 = 100;
const PEER: u8 = 1;
const TRAFFIC: u8 = 2;

pub(super) fn flows(plan: &Plan<'_>, sink: &mut Sink) {
    let mirror = plan.facts.mirror;
    let mut conjunctions = Conjunctions::default();
    for (number, policy) in &plan.policies {
        let lenses: &[Lens] = if mirror == Mirror::Off { &[Lens::Plain] } else { &Lens::ALL };
        for lens in lenses {
            of_policy(*number, policy, *lens, &mut conjunctions, sink);
        }
    }
    security_group::second_chance(mirror, sink);
}

/// From which side the rules look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lens {
    /// At the packet that began the connection.
    Plain,
    /// At the answer to it; only TCP.
    Mirrored,
}

impl Lens {
    const ALL: [Self; 2] = [Self::Plain, Self::Mirrored];

    const fn number(self, direction: Direction) -> u64 {
        match (self, direction) {
            (Self::Plain, Direction::Inbound) => lens::INBOUND,
            (Self::Plain, Direction::Outbound) => lens::OUTBOUND,
            (Self::Mirrored, Direction::Inbound) => lens::INBOUND_MIRRORED,
            (Self::Mirrored, Direction::Outbound) => lens::OUTBOUND_MIRRORED,
        }
    }
    /// Where the peer's address is.
    const fn peer(self, direction: Direction) -> Field {
        match (self, direction) {
            (Self::Plain, Direction::Inbound) | (Self::Mirrored, Direction::Outbound) => Field::IpSrc,
            (Self::Plain, Direction::Outbound) | (Self::Mirrored, Direction::Inbound) => Field::IpDst,
        }
    }
    const fn tcp_port(self) -> Field {
        match self {
            Self::Plain => Field::TcpDst,
            Self::Mirrored => Field::TcpSrc,
        }
    }
}

/// Ids of conjunctions: a number that depends on policy, direction, lens and peer group only, so that it stays the same
/// while rules and members come and go.
#[derive(Default)]
struct Conjunctions {
    taken: BTreeSet<u32>,
}

impl Conjunctions {
    fn id(&mut self, policy: u32, lens: u64, group: SecurityGroupId) -> u32 {
        let hash = Hash::new().add(&policy.to_be_bytes()).add(&lens.to_be_bytes());
        let id = hash.add(group.uuid().as_bytes()).free_number(|n| self.taken.contains(&n));
        self.taken.insert(id);
        id
    }
}

fn of_policy(number: u32, policy: &Policy<'_>, lens: Lens, conjunctions: &mut Conjunctions, sink: &mut Sink) {
    let admit = || vec![go(Stage::Admitted)];
    for direction in [Direction::Inbound, Direction::Outbound] {
        let base = || Match::ip().with(POLICY, number.into()).with(LENS, lens.number(direction));
        // What goes with which peer group; several rules may name one group.
        let mut by_group: BTreeMap<SecurityGroupId, Vec<(&RuleSpec, Match)>> = BTreeMap::new();
        for rule in policy.rules.iter().filter(|r| r.direction == direction) {
            for matches in traffic(rule, lens, &base()) {
                match rule.peer {
                    Peer::Cidr(net) => {
                        let matches = matches.net(lens.peer(direction), net.trunc());
                        sink.of(STAGE, rule.id, PLAIN, matches, admit());
                    }
                    Peer::Group(group) => by_group.entry(group).or_default().push((rule, matches)),
                }
            }
        }
        let mut clauses: BTreeMap<Match, (Cookie, BTreeSet<Action>)> = BTreeMap::new();
        for (group, traffic) in by_group {
            let id = conjunctions.id(number, lens.number(direction), group);
            let clause = |clause| Action::Conjunction { id, clause, of: 2 };
            let mut add = |matches, cookie: Cookie, action| {
                let entry = clauses.entry(matches).or_insert_with(|| (cookie, BTreeSet::new()));
                entry.0 = entry.0.min(cookie);
                entry.1.insert(action);
            };
            for member in members(policy, group) {
                let matches = base().addr(lens.peer(direction), member);
                add(matches, Cookie::of(STAGE, group), clause(PEER));
            }
            for (rule, matches) in traffic {
                add(matches, Cookie::of(STAGE, rule.id), clause(TRAFFIC));
            }
            let both = Match::any().with(Field::ConjId, id.into());
            // A flow matches what the packet is now, not what it looked like: only the id and the prerequisites.
            sink.of(STAGE, group, CONJUNCTION, both, admit());
        }
        for (matches, (cookie, actions)) in clauses {
            let actions = actions.into_iter().collect();
            sink.0.push(Flow::new(STAGE.table(), CONJUNCTION, cookie, matches, actions));
        }
    }
}

fn members(policy: &Policy<'_>, group: SecurityGroupId) -> impl Iterator<Item = Ipv4Addr> {
    policy.members.get(&group).into_iter().flatten().copied()
}

/// Protocol and ports of a rule as matches.
fn traffic(rule: &RuleSpec, lens: Lens, base: &Match) -> Vec<Match> {
    let proto = |proto: u8| base.clone().with(Field::IpProto, proto.into());
    let ports = |matches: Match, field| -> Vec<Match> {
        let range = rule.ports.unwrap_or(PortRange::ALL);
        let later = matches.clone().with(Field::IpFrag, LATER_FRAGMENT);
        let whole = masks(range)
            .into_iter()
            .map(|(value, mask)| matches.clone().masked(field, value.into(), mask.into()));
        // A rule for all ports matches later fragments as it is.
        whole.chain((range != PortRange::ALL).then_some(later)).collect()
    };
    match (rule.protocol, lens) {
        (Protocol::All, Lens::Plain) => vec![base.clone()],
        (Protocol::All, Lens::Mirrored) => vec![proto(IP_TCP)],
        (Protocol::Tcp, _) => ports(proto(IP_TCP), lens.tcp_port()),
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

/// A range of ports as the fewest (value, mask) pairs; at most 30, one for the whole range.
fn masks(range: PortRange) -> Vec<(u16, u16)> {
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

/// The rules that are installed: priority and match of each flow of the stage, the default drop and the like excepted.
pub(crate) fn policy_flows(flows: &FlowTable) -> impl Iterator<Item = (u16, &Match)> {
    let flows = flows.of_table(STAGE.table()).iter();
    flows.filter(|f| policy_of(&f.matches).is_some()).map(|f| (f.priority, &f.matches))
}

/// The set of groups that a policy flow belongs to.
pub(crate) fn policy_of(matches: &Match) -> Option<u32> {
    matches.get(POLICY).map(|c| c.value as u32)
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
