//! An interpreter of flow tables: where would this packet go, and through which flows?
//!
//! Assumes tables that `compile` made (it knows their actions, and conjunctions of plain flows above them). Promises the
//! verdict of Open vSwitch for whole, untagged or tagged, IPv4 and ARP packets with a model of connection tracking that
//! knows addresses, ports (of TCP, UDP and ICMP) and direction, not sequence numbers or time. For pure tests, and for
//! telling an operator why.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use gon_types::MacAddr;

use crate::cookie::Cookie;
use crate::flow::{Action, ETH_IP, Field, Flow, FlowTable, IP_ICMP, IP_TCP, IP_UDP, Match, ZoneSource};
use crate::flow::{Slice, mac_bits};
use crate::pipeline::{Stage, ct_state};

/// TCP flags of the answer to the first packet.
const SYN_ACK: u64 = 0x12;

/// Deeper than this, Open vSwitch gives up too.
const DEPTH: usize = 64;

/// Every field, by its [`place`].
const FIELDS: [Field; 52] = [
    Field::InPort,
    Field::TunId,
    Field::TunSrc,
    Field::TunDst,
    Field::Metadata,
    Field::Reg(0),
    Field::Reg(1),
    Field::Reg(2),
    Field::Reg(3),
    Field::Reg(4),
    Field::Reg(5),
    Field::Reg(6),
    Field::Reg(7),
    Field::Reg(8),
    Field::Reg(9),
    Field::Reg(10),
    Field::Reg(11),
    Field::Reg(12),
    Field::Reg(13),
    Field::Reg(14),
    Field::Reg(15),
    Field::ConjId,
    Field::CtState,
    Field::CtZone,
    Field::CtMark,
    Field::VlanTci,
    Field::EthSrc,
    Field::EthDst,
    Field::EthType,
    Field::IpProto,
    Field::IpFrag,
    Field::IpTtl,
    Field::IpSrc,
    Field::IpDst,
    Field::CtIpSrc,
    Field::CtIpDst,
    Field::CtIpProto,
    Field::CtTpSrc,
    Field::CtTpDst,
    Field::TcpSrc,
    Field::TcpDst,
    Field::TcpFlags,
    Field::UdpSrc,
    Field::UdpDst,
    Field::IcmpType,
    Field::IcmpCode,
    Field::ArpOp,
    Field::ArpSpa,
    Field::ArpTpa,
    Field::ArpSha,
    Field::ArpTha,
    // There is none; registers beyond the last are nowhere.
    Field::Reg(255),
];

/// Where a packet keeps a field's value.
const fn place(field: Field) -> usize {
    match field {
        Field::InPort => 0,
        Field::TunId => 1,
        Field::TunSrc => 2,
        Field::TunDst => 3,
        Field::Metadata => 4,
        Field::Reg(n) if n < 16 => 5 + n as usize,
        Field::Reg(_) => 51,
        Field::ConjId => 21,
        Field::CtState => 22,
        Field::CtZone => 23,
        Field::CtMark => 24,
        Field::VlanTci => 25,
        Field::EthSrc => 26,
        Field::EthDst => 27,
        Field::EthType => 28,
        Field::IpProto => 29,
        Field::IpFrag => 30,
        Field::IpTtl => 31,
        Field::IpSrc => 32,
        Field::IpDst => 33,
        Field::CtIpSrc => 34,
        Field::CtIpDst => 35,
        Field::CtIpProto => 36,
        Field::CtTpSrc => 37,
        Field::CtTpDst => 38,
        Field::TcpSrc => 39,
        Field::TcpDst => 40,
        Field::TcpFlags => 41,
        Field::UdpSrc => 42,
        Field::UdpDst => 43,
        Field::IcmpType => 44,
        Field::IcmpCode => 45,
        Field::ArpOp => 46,
        Field::ArpSpa => 47,
        Field::ArpTpa => 48,
        Field::ArpSha => 49,
        Field::ArpTha => 50,
    }
}

/// A packet with its pipeline context: the value of every field; what is not set is 0.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet([u64; FIELDS.len()]);

impl Default for Packet {
    fn default() -> Self {
        Self([0; FIELDS.len()])
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(FIELDS.iter().zip(&self.0).filter(|(_, value)| **value != 0)).finish()
    }
}

impl Packet {
    /// An Ethernet frame.
    #[must_use]
    pub fn frame(from: MacAddr, to: MacAddr, eth_type: u16) -> Self {
        Self::default()
            .with(Field::EthSrc, mac_bits(from))
            .with(Field::EthDst, mac_bits(to))
            .with(Field::EthType, eth_type.into())
    }
    /// An IPv4 packet of a protocol with 64 hops to live.
    #[must_use]
    pub fn ip(from: (MacAddr, Ipv4Addr), to: (MacAddr, Ipv4Addr), proto: u8) -> Self {
        Self::frame(from.0, to.0, ETH_IP)
            .with(Field::IpSrc, u32::from(from.1).into())
            .with(Field::IpDst, u32::from(to.1).into())
            .with(Field::IpProto, proto.into())
            .with(Field::IpTtl, 64)
    }
    /// The packet with a field set.
    #[must_use]
    pub fn with(mut self, field: Field, value: u64) -> Self {
        self.set(field, value);
        self
    }
    /// A field's value.
    #[must_use]
    pub fn get(&self, field: Field) -> u64 {
        self.0[place(field)]
    }
    fn set(&mut self, field: Field, value: u64) {
        self.0[place(field)] = value & field.full_mask();
    }
    /// An address field.
    #[must_use]
    pub fn addr(&self, field: Field) -> Ipv4Addr {
        Ipv4Addr::from(u32::try_from(self.get(field)).unwrap_or(0))
    }
    /// The packet that answers: addresses and ports swapped, an echo answered; pipeline context gone.
    #[must_use]
    pub fn answer(&self) -> Self {
        let mut answer = self.on_the_wire();
        let pairs = [(Field::EthSrc, Field::EthDst), (Field::IpSrc, Field::IpDst)];
        for (a, b) in pairs.into_iter().chain([ports_of(self.get(Field::IpProto))]) {
            let (x, y) = (answer.get(a), answer.get(b));
            answer.set(a, y);
            answer.set(b, x);
        }
        if self.get(Field::IpProto) == IP_ICMP.into() {
            answer.set(Field::IcmpCode, 0);
            answer.set(Field::IcmpType, 0);
        }
        answer.set(Field::IpTtl, 64);
        answer
    }
    /// What leaves: without registers, connection state and ingress port. What goes with a tunnel stays: key and ends.
    #[must_use]
    pub fn on_the_wire(&self) -> Self {
        let mut packet = self.clone();
        for (field, value) in FIELDS.iter().zip(&mut packet.0) {
            if matches!(
                field,
                Field::InPort
                    | Field::Metadata
                    | Field::Reg(_)
                    | Field::ConjId
                    | Field::CtState
                    | Field::CtZone
                    | Field::CtMark
                    | Field::CtIpSrc
                    | Field::CtIpDst
                    | Field::CtIpProto
                    | Field::CtTpSrc
                    | Field::CtTpDst
            ) {
                *value = 0;
            }
        }
        packet
    }
    fn matches(&self, matches: &Match) -> bool {
        matches.conditions().iter().all(|c| self.get(c.field) & c.mask == c.value)
    }
    fn slice(&self, slice: Slice) -> u64 {
        slice.get(self.get(slice.field))
    }
    fn set_slice(&mut self, slice: Slice, value: u64) {
        let value = slice.set(self.get(slice.field), value);
        self.set(slice.field, value);
    }
    /// As the packet that began the connection looked; `None` if that is not known.
    fn as_first(&self) -> Option<Self> {
        let proto = self.get(Field::CtIpProto);
        if proto == 0 || self.get(Field::EthType) != ETH_IP.into() {
            return None;
        }
        let mut first = self.clone();
        first.set(Field::IpSrc, self.get(Field::CtIpSrc));
        first.set(Field::IpDst, self.get(Field::CtIpDst));
        first.set(Field::IpProto, proto);
        let (from, to) = ports_of(proto);
        first.set(from, self.get(Field::CtTpSrc));
        first.set(to, self.get(Field::CtTpDst));
        Some(first)
    }
}

/// Where a protocol's ports are; ICMP has type and code.
fn ports_of(proto: u64) -> (Field, Field) {
    if proto == u64::from(IP_TCP) {
        (Field::TcpSrc, Field::TcpDst)
    } else if proto == u64::from(IP_UDP) {
        (Field::UdpSrc, Field::UdpDst)
    } else {
        (Field::IcmpType, Field::IcmpCode)
    }
}

/// One end of a connection to the other: source, destination, protocol, ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Tuple {
    src: u64,
    dst: u64,
    proto: u64,
    tp_src: u64,
    tp_dst: u64,
}

impl Tuple {
    fn of(packet: &Packet) -> Self {
        let proto = packet.get(Field::IpProto);
        let (from, to) = ports_of(proto);
        Self {
            src: packet.get(Field::IpSrc),
            dst: packet.get(Field::IpDst),
            proto,
            tp_src: packet.get(from),
            tp_dst: packet.get(to),
        }
    }
    /// The tuple of an answer.
    const fn reversed(self) -> Self {
        let Self { src, dst, proto, tp_src, tp_dst } = self;
        if proto == IP_ICMP as u64 {
            Self { src: dst, dst: src, proto, tp_src: if tp_src == 0 { 8 } else { 0 }, tp_dst }
        } else {
            Self { src: dst, dst: src, proto, tp_src: tp_dst, tp_dst: tp_src }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Connection {
    mark: u32,
    answered: bool,
}

/// Known connections, by zone and first packet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conntrack(BTreeMap<(u16, Tuple), Connection>);

impl Conntrack {
    /// No connections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// How many connections are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Forgets the connections of a zone.
    pub fn flush(&mut self, zone: u16) {
        self.0.retain(|(z, _), _| *z != zone);
    }
    /// Sets the connection fields of a packet.
    fn track(&mut self, zone: u16, packet: &mut Packet) {
        let tuple = Tuple::of(packet);
        let request = tuple.proto != IP_ICMP.into() || tuple.tp_src == 8;
        // What answers a SYN begins nothing.
        let syn_ack = tuple.proto == IP_TCP.into() && packet.get(Field::TcpFlags) & SYN_ACK == SYN_ACK;
        let (mut state, mut first, mut mark) = (ct_state::TRK, tuple, 0);
        if let Some(known) = self.0.get(&(zone, tuple)) {
            state |= if known.answered { ct_state::EST } else { ct_state::NEW };
            mark = known.mark;
        } else if let Some(known) = self.0.get_mut(&(zone, tuple.reversed())) {
            known.answered = true;
            state |= ct_state::EST | ct_state::RPL;
            mark = known.mark;
            first = tuple.reversed();
        } else if !request || syn_ack {
            state |= ct_state::INV;
        } else {
            state |= ct_state::NEW;
        }
        packet.set(Field::CtState, state);
        packet.set(Field::CtZone, zone.into());
        packet.set(Field::CtMark, mark.into());
        if state & ct_state::INV == 0 {
            packet.set(Field::CtIpSrc, first.src);
            packet.set(Field::CtIpDst, first.dst);
            packet.set(Field::CtIpProto, first.proto);
            packet.set(Field::CtTpSrc, first.tp_src);
            packet.set(Field::CtTpDst, first.tp_dst);
        }
    }
    fn commit(&mut self, zone: u16, packet: &Packet, mark: Option<u32>) {
        let tuple = Tuple::of(packet);
        if !self.0.contains_key(&(zone, tuple.reversed())) {
            let known = self.0.entry((zone, tuple)).or_insert(Connection { mark: 0, answered: false });
            known.mark = mark.unwrap_or(known.mark);
        }
    }
}

/// A flow that the packet went through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its table.
    pub table: u8,
    /// Its priority; 0 is the default drop.
    pub priority: u16,
    /// Where it comes from.
    pub cookie: Cookie,
    /// What it matches.
    pub matches: Match,
    /// Whether it does nothing, so that the packet ends here.
    pub drops: bool,
    /// If it stands for all clauses of a conjunction: where the flows that are its clauses come from, in their order.
    pub clauses: Vec<Cookie>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Stage::of_table(self.table).map_or("?", Stage::name);
        write!(f, "{:>3} {name:<14} {:>5} {} [{}]", self.table, self.priority, self.matches, self.cookie)?;
        self.clauses.iter().try_for_each(|clause| write!(f, " [{clause}]"))
    }
}

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// The flows it went through, in order.
    pub path: Vec<Step>,
    /// What left, by which port.
    pub outputs: Vec<(u32, Packet)>,
}

impl Verdict {
    /// Whether nothing left.
    #[must_use]
    pub fn is_drop(&self) -> bool {
        self.outputs.is_empty()
    }
    /// The stage in which the packet ended.
    #[must_use]
    pub fn last_stage(&self) -> Option<Stage> {
        self.path.last().and_then(|step| Stage::of_table(step.table))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.iter().try_for_each(|step| writeln!(f, "{step}"))?;
        if self.outputs.is_empty() {
            return writeln!(f, "dropped");
        }
        self.outputs.iter().try_for_each(|(port, _)| writeln!(f, "out of port {port}"))
    }
}

/// Sends a packet into a port and follows it. Connections it begins are remembered in `conntrack`.
#[must_use]
pub fn trace(table: &FlowTable, in_port: u32, packet: &Packet, conntrack: &mut Conntrack) -> Verdict {
    Run { table, conntrack, explain: true, verdict: Verdict::default() }.whole(in_port, packet)
}

/// As [`trace`], what left alone: for very many packets.
#[must_use]
pub fn forward(
    table: &FlowTable,
    in_port: u32,
    packet: &Packet,
    conntrack: &mut Conntrack,
) -> Vec<(u32, Packet)> {
    Run { table, conntrack, explain: false, verdict: Verdict::default() }.whole(in_port, packet).outputs
}

struct Run<'a> {
    table: &'a FlowTable,
    conntrack: &'a mut Conntrack,
    explain: bool,
    verdict: Verdict,
}

impl Run<'_> {
    fn whole(mut self, in_port: u32, packet: &Packet) -> Verdict {
        let mut packet = packet.on_the_wire().with(Field::InPort, in_port.into());
        self.table(0, &mut packet, false, 0);
        self.verdict
    }

    /// Looks a table up and does what it says; `false` if the packet is dropped for good.
    fn table(&mut self, number: u8, packet: &mut Packet, as_first: bool, depth: usize) -> bool {
        if depth > DEPTH {
            return false;
        }
        let first = if as_first { packet.as_first() } else { Some(packet.clone()) };
        let Some(seen) = first else { return true };
        let table = self.table;
        let Some((flow, clauses)) = find(table.of_table(number), &seen) else { return true };
        if self.explain {
            self.verdict.path.push(Step {
                table: flow.table,
                priority: flow.priority,
                cookie: flow.cookie,
                matches: flow.matches.clone(),
                drops: flow.actions.is_empty(),
                clauses,
            });
        }
        flow.actions.iter().all(|action| self.act(action, packet, depth))
    }

    fn act(&mut self, action: &Action, packet: &mut Packet, depth: usize) -> bool {
        match action {
            Action::Output(port) => self.output(u64::from(*port), packet),
            Action::OutputTo(slice) => self.output(packet.slice(*slice), packet),
            Action::InPort => {
                let port = u32::try_from(packet.get(Field::InPort)).unwrap_or(0);
                self.verdict.outputs.push((port, packet.on_the_wire()));
            }
            Action::Set(field, value) => packet.set(*field, *value),
            Action::Load(slice, value) => packet.set_slice(*slice, *value),
            Action::Move { from, to } => packet.set_slice(*to, packet.slice(*from)),
            Action::Ct { commit, zone, table, mark } => {
                let zone = match zone {
                    ZoneSource::Number(zone) => *zone,
                    ZoneSource::Slice(slice) => u16::try_from(packet.slice(*slice)).unwrap_or(0),
                };
                if *commit {
                    self.conntrack.commit(zone, packet, *mark);
                }
                if let Some(table) = table {
                    let mut tracked = packet.clone();
                    self.conntrack.track(zone, &mut tracked);
                    self.table(*table, &mut tracked, false, depth + 1);
                }
            }
            Action::CtClear => clear_ct(packet),
            Action::Resubmit { table, ct } => return self.table(*table, packet, *ct, depth + 1),
            Action::DecTtl => {
                let ttl = packet.get(Field::IpTtl);
                if ttl <= 1 {
                    return false;
                }
                packet.set(Field::IpTtl, ttl - 1);
            }
            Action::Conjunction { .. } => {}
        }
        true
    }

    /// A packet never leaves by the port it came in by, unless that is asked for.
    fn output(&mut self, port: u64, packet: &Packet) {
        if port != packet.get(Field::InPort) {
            self.verdict.outputs.push((u32::try_from(port).unwrap_or(0), packet.on_the_wire()));
        }
    }
}

fn clear_ct(packet: &mut Packet) {
    for field in [
        Field::CtState,
        Field::CtZone,
        Field::CtMark,
        Field::CtIpSrc,
        Field::CtIpDst,
        Field::CtIpProto,
        Field::CtTpSrc,
        Field::CtTpDst,
    ] {
        packet.set(field, 0);
    }
}

/// The flow that wins: the first match in falling priority, where flows that are clauses count as soon as all clauses of their
/// conjunction match, in one priority. With it, the clauses.
fn find<'a>(flows: &'a [Flow], packet: &Packet) -> Option<(&'a Flow, Vec<Cookie>)> {
    let mut priority = 0;
    let mut clauses: BTreeMap<u32, BTreeMap<u8, Cookie>> = BTreeMap::new();
    for flow in flows.iter().filter(|f| packet.matches(&f.matches)) {
        if !matches!(flow.actions.first(), Some(Action::Conjunction { .. })) {
            return Some((flow, vec![]));
        }
        if flow.priority != priority {
            clauses.clear();
            priority = flow.priority;
        }
        for action in &flow.actions {
            let Action::Conjunction { id, clause, of } = action else { continue };
            let seen = clauses.entry(*id).or_default();
            seen.entry(*clause).or_insert(flow.cookie);
            if seen.len() == usize::from(*of) {
                let whole = packet.clone().with(Field::ConjId, (*id).into());
                let named = |f: &&Flow| f.matches.get(Field::ConjId).is_some() && whole.matches(&f.matches);
                if let Some(flow) = flows.iter().find(named) {
                    return Some((flow, seen.values().copied().collect()));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
