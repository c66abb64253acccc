//! For an operator: what becomes of one packet of an interface, stage by stage, and what decided: which rule of which group,
//! which entry of which network ACL, which route.
//!
//! Assumes the documents of the nodes concerned, as the controller gives them. Promises what the compiled flows do with the first
//! packet of a new connection, not what they should do; over a tunnel it goes on with the other node's document, if that is
//! among them.

mod words;

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use gon_proto::{NodeNetwork, PortSpec};
use gon_types::MacAddr;
use gon_types::id::{NetworkInterfaceId, NodeId, SubnetId};

use crate::compile::{NodeFacts, Reason, compile};
use crate::flow::{Field, IP_ICMP, IP_TCP, IP_UDP};
use crate::service::{EXT_PORT, META_PORT, TUNNEL_PORT};
use crate::trace::{Conntrack, Packet, Step, Verdict, trace};
use words::Reader;

/// A packet to ask about: `tcp,10.0.1.5:40000>10.0.2.7:22`, `icmp,10.0.1.5>8.8.8.8` (an echo request), `47,10.0.1.5>10.0.2.7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// IP protocol.
    pub proto: u8,
    /// Source.
    pub src: Ipv4Addr,
    /// Source port; 0 where there are none.
    pub sport: u16,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Destination port; 0 where there are none.
    pub dport: u16,
}

/// What is wrong with the words for a packet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// Not of the shape at all.
    #[error("a packet is written PROTOCOL,SOURCE>DESTINATION, for example tcp,10.0.1.5:40000>10.0.2.7:22")]
    Shape,
    /// Not a protocol.
    #[error("'{0}' is no protocol: tcp, udp, icmp, or a number from 1 to 255")]
    Protocol(String),
    /// Not an address.
    #[error("'{0}' is no IPv4 address")]
    Address(String),
    /// Not a port.
    #[error("'{0}' is no port: a number from 0 to 65535")]
    Port(String),
    /// TCP and UDP need ports.
    #[error("'{0}' needs a port: ADDRESS:PORT")]
    NoPort(String),
    /// Other protocols have none.
    #[error("'{0}' has a port, and its protocol has none")]
    HasPort(String),
}

impl FromStr for Question {
    type Err = QuestionError;
    fn from_str(text: &str) -> Result<Self, QuestionError> {
        let (proto, ends) = text.split_once(',').ok_or(QuestionError::Shape)?;
        let (src, dst) = ends.split_once('>').ok_or(QuestionError::Shape)?;
        let proto = match proto.trim() {
            "tcp" => IP_TCP,
            "udp" => IP_UDP,
            "icmp" => IP_ICMP,
            other => match other.parse() {
                Ok(number) if number != 0 => number,
                _ => return Err(QuestionError::Protocol(other.to_owned())),
            },
        };
        let end = |text: &str| {
            let text = text.trim();
            let has_ports = proto == IP_TCP || proto == IP_UDP;
            let (address, port) = match (text.split_once(':'), has_ports) {
                (Some((address, port)), true) => {
                    (address, port.parse().map_err(|_| QuestionError::Port(port.to_owned()))?)
                }
                (None, false) => (text, 0),
                (None, true) => return Err(QuestionError::NoPort(text.to_owned())),
                (Some(_), false) => return Err(QuestionError::HasPort(text.to_owned())),
            };
            let address = address.parse().map_err(|_| QuestionError::Address(address.to_owned()))?;
            Ok((address, port))
        };
        let ((src, sport), (dst, dport)) = (end(src)?, end(dst)?);
        Ok(Self { proto, src, sport, dst, dport })
    }
}

/// Why there is nothing to explain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// No document has the interface.
    #[error("the interface is on none of these nodes")]
    NoSuchPort,
    /// It is closed, whatever the packet.
    #[error("the interface is closed: {0}")]
    Closed(Reason),
}

/// A stage that the packet went through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The stage's name.
    pub stage: &'static str,
    /// What decided, in words.
    pub because: String,
    /// If a route decided, or that there is none: the subnet whose route table was asked.
    pub routes_of: Option<SubnetId>,
    /// Whether the packet ended here.
    pub dropped: bool,
    /// The flow.
    pub step: Step,
}

/// What became of the packet on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Which node.
    pub node: NodeId,
    /// Its stages.
    pub lines: Vec<Line>,
    /// By which port of the switch it came.
    pub in_port: u32,
    /// As it came.
    pub packet: Packet,
    /// The ports of the switch that it left by.
    pub outputs: Vec<u32>,
}

/// What became of the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// On which nodes, one after another.
    pub hops: Vec<Hop>,
    /// In the end.
    pub end: String,
    /// Where the tunnel leads that it went into, if that node's document is needed to go on.
    pub onward: Option<Ipv4Addr>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for hop in &self.hops {
            writeln!(f, "on node {}", hop.node)?;
            for Line { stage, because, dropped, step, .. } in &hop.lines {
                let mark = if *dropped { "✗" } else { "·" };
                writeln!(f, "{}", format!("  {mark} {stage:<14} {because}").trim_end())?;
                write!(f, "      table={},priority={}", step.table, step.priority)?;
                let comma = if step.matches.conditions().is_empty() { "" } else { "," };
                writeln!(f, "{comma}{}", step.matches)?;
            }
        }
        writeln!(f, "{}", self.end)
    }
}

/// Follows the first packet of a connection that an interface begins.
///
/// # Errors
/// If none of the documents has the interface, or it is closed.
pub fn explain(
    nodes: &[(NodeNetwork, NodeFacts)],
    port: NetworkInterfaceId,
    question: &Question,
) -> Result<Explanation, ExplainError> {
    let has = |(document, _): &&(NodeNetwork, NodeFacts)| document.ports.iter().any(|p| p.id == port);
    let mut at = nodes.iter().find(has).ok_or(ExplainError::NoSuchPort)?;
    let spec = at.0.ports.iter().find(|p| p.id == port).ok_or(ExplainError::NoSuchPort)?;
    let mut packet = packet_of(&at.0, spec, question);
    let mut in_port = u32::from(spec.port_no);
    let mut hops = vec![];
    loop {
        let (document, facts) = at;
        let compiled = compile(document, facts);
        if hops.is_empty()
            && let Some(closed) = compiled.degraded.iter().find(|d| d.port == port)
        {
            return Err(ExplainError::Closed(closed.reason.clone()));
        }
        let verdict = trace(&compiled.flows, in_port, &packet, &mut Conntrack::new());
        let mut reader = Reader::new(document, in_port, &packet);
        let lines: Vec<_> = verdict.path.iter().map(|step| reader.line(step)).collect();
        let outputs = verdict.outputs.iter().map(|(port, _)| *port).collect();
        let hop = Hop { node: document.node, lines, in_port, packet: packet.clone(), outputs };
        let end = ending(document, &hop, &verdict);
        hops.push(hop);
        let over = verdict.outputs.iter().find(|(port, _)| *port == TUNNEL_PORT);
        let Some((_, sent)) = over.filter(|_| in_port != TUNNEL_PORT) else {
            return Ok(Explanation { hops, end, onward: None });
        };
        let (here, there) = (facts.overlay.as_ref().map(|o| o.address), sent.addr(Field::TunDst));
        let next = nodes.iter().find(|(_, f)| f.overlay.as_ref().is_some_and(|o| o.address == there));
        match (next, here) {
            (Some(node), Some(here)) => {
                packet = sent.clone().with(Field::TunDst, 0).with(Field::TunSrc, u64::from(u32::from(here)));
                (at, in_port) = (node, TUNNEL_PORT);
            }
            _ => {
                let end = format!("goes through a tunnel to the node at {there}, whose document is not here");
                return Ok(Explanation { hops, end, onward: Some(there) });
            }
        }
    }
}

/// As the guest would send it: to a neighbour if it is one, else through the router.
fn packet_of(document: &NodeNetwork, from: &PortSpec, question: &Question) -> Packet {
    let there =
        |port: &&PortSpec| port.subnet == from.subnet && port.addresses().any(|ip| ip == question.dst);
    let here = document.ports.iter().find(there).map(|port| port.mac);
    let known =
        || document.addresses.iter().find(|a| a.subnet == from.subnet && a.private_ip == question.dst);
    let hop = here.or_else(|| known().map(|a| a.mac)).unwrap_or(MacAddr::ROUTER);
    let packet = Packet::ip((from.mac, question.src), (hop, question.dst), question.proto);
    let (sport, dport) = (question.sport.into(), question.dport.into());
    match question.proto {
        IP_TCP => packet.with(Field::TcpSrc, sport).with(Field::TcpDst, dport).with(Field::TcpFlags, 2),
        IP_UDP => packet.with(Field::UdpSrc, sport).with(Field::UdpDst, dport),
        IP_ICMP => packet.with(Field::IcmpType, 8),
        _ => packet,
    }
}

fn ending(document: &NodeNetwork, hop: &Hop, verdict: &Verdict) -> String {
    let Some((port, packet)) = verdict.outputs.first() else {
        return match hop.lines.last() {
            Some(Line { stage, because, .. }) => format!("dropped in {stage}: {because}"),
            None => "dropped".to_owned(),
        };
    };
    match *port {
        EXT_PORT => format!("leaves through the internet gateway, as from {}", packet.addr(Field::IpSrc)),
        META_PORT => "is answered by the node's local services".to_owned(),
        port if port == hop.in_port => "is answered by the router".to_owned(),
        port => {
            let to = document.ports.iter().find(|p| u32::from(p.port_no) == port);
            to.map_or_else(
                || format!("out of port {port}"),
                |p| format!("delivered to {} ({}) of {}", p.id, p.private_ip, p.instance),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden;
    use crate::topology::{entry, facts_of, id, two_vpcs};

    fn site() -> Vec<(NodeNetwork, NodeFacts)> {
        let place = [(16, 1), (17, 1), (18, 2), (19, 1), (20, 2)];
        let topology = two_vpcs().acl(
            9,
            1,
            vec![entry("90 in deny tcp 5433 0.0.0.0/0"), entry("100 in allow all 0.0.0.0/0")],
        );
        let topology = topology.guarded(12, 9);
        [1, 2].map(|n| (topology.on_node(n, &place).doc, facts_of(n))).into()
    }

    #[test]
    fn an_operator_reads_who_decided() {
        let mut text = String::new();
        for packet in [
            "tcp,10.0.1.10:40000>10.0.2.10:5432",
            "tcp,10.0.1.10:40000>10.0.2.10:5433",
            "tcp,10.0.1.10:40000>10.0.2.10:22",
            "udp,10.0.1.10:40000>8.8.8.8:53",
            "icmp,10.0.1.10>10.0.1.1",
            "tcp,10.0.1.99:40000>10.0.2.10:5432",
        ] {
            let question = packet.parse().unwrap();
            text += &format!("{packet}\n{}\n", explain(&site(), id(16), &question).unwrap());
        }
        golden("explain", &text);
        // Without the other node's document it says where the packet went.
        let question = "tcp,10.0.1.10:40000>10.0.2.10:5432".parse().unwrap();
        let cut = explain(&site()[..1], id(16), &question).unwrap();
        assert!(cut.end.contains("192.0.2.2"), "{}", cut.end);
        assert_eq!(cut.onward, Some(Ipv4Addr::new(192, 0, 2, 2)));
        let whole = explain(&site(), id(16), &question).unwrap();
        assert_eq!((whole.onward, whole.hops[0].outputs.clone()), (None, vec![TUNNEL_PORT]));
        assert_eq!((whole.hops[1].in_port, whole.hops[1].outputs.clone()), (TUNNEL_PORT, vec![18]));
        assert_eq!(explain(&site(), id(99), &question), Err(ExplainError::NoSuchPort));
        let mut broken = site();
        broken[0].0.ports[0].groups.clear();
        assert_eq!(explain(&broken, id(16), &question), Err(ExplainError::Closed(Reason::NoGroup)));
    }

    #[test]
    fn wrong_words_are_told_apart() {
        let wrong = |text: &str| text.parse::<Question>().unwrap_err();
        assert_eq!(wrong("10.0.0.1>10.0.0.2"), QuestionError::Shape);
        assert_eq!(wrong("tcp,10.0.0.1:1"), QuestionError::Shape);
        assert_eq!(wrong("sctp,10.0.0.1>10.0.0.2"), QuestionError::Protocol("sctp".into()));
        assert_eq!(wrong("0,10.0.0.1>10.0.0.2"), QuestionError::Protocol("0".into()));
        assert_eq!(wrong("tcp,10.0.0.1>10.0.0.2:80"), QuestionError::NoPort("10.0.0.1".into()));
        assert_eq!(wrong("icmp,10.0.0.1:8>10.0.0.2"), QuestionError::HasPort("10.0.0.1:8".into()));
        assert_eq!(wrong("tcp,10.0.0.1:80>10.0.0:80"), QuestionError::Address("10.0.0".into()));
        assert_eq!(wrong("tcp,10.0.0.1:80>10.0.0.2:70000"), QuestionError::Port("70000".into()));
        let right: Question = "udp, 10.0.0.1:53 > 10.0.0.2:54".parse().unwrap();
        assert_eq!((right.proto, right.sport, right.dport), (IP_UDP, 53, 54));
    }
}
