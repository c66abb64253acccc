//! For an operator: what becomes of one packet of an interface, stage by stage, and what decided: which rule of which group,
//! which entry of which network ACL, which route.
//!
//! Assumes the documents of the nodes concerned, as the controller gives them. Promises what the compiled flows do with the first
//! packet of a new connection, not what they should do; over a tunnel it goes on with the other node's document, if that is
//! among them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use gon_proto::{Direction, NodeNetwork, Peer, PortSpec, RouteTarget, RuleSpec};
use gon_types::MacAddr;
use gon_types::id::{NetworkInterfaceId, NodeId};

use crate::compile::{NodeFacts, Reason, compile};
use crate::flow::{Field, IP_ICMP, IP_TCP, IP_UDP};
use crate::pipeline::{SUBNET, Stage, VPC, acl_entry};
use crate::service::{EXT_PORT, META_PORT, TUNNEL_PORT};
use crate::trace::{Conntrack, Packet, Step, Verdict, trace};

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
}

/// What became of the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// On which nodes, one after another.
    pub hops: Vec<Hop>,
    /// In the end.
    pub end: String,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for hop in &self.hops {
            writeln!(f, "on node {}", hop.node)?;
            for Line { stage, because, dropped, step } in &hop.lines {
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
        let lines = verdict.path.iter().map(|step| line(document, step)).collect();
        hops.push(Hop { node: document.node, lines });
        let over = verdict.outputs.iter().find(|(port, _)| *port == TUNNEL_PORT);
        let Some((_, sent)) = over.filter(|_| in_port != TUNNEL_PORT) else {
            return Ok(Explanation { hops, end: ending(document, in_port, &verdict) });
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
                return Ok(Explanation { hops, end });
            }
        }
    }
}

/// As the guest would send it: to a neighbour if it is one, else through the router.
fn packet_of(document: &NodeNetwork, from: &PortSpec, question: &Question) -> Packet {
    let neighbour =
        document.addresses.iter().find(|a| a.subnet == from.subnet && a.private_ip == question.dst);
    let hop = neighbour.map_or(MacAddr::ROUTER, |a| a.mac);
    let packet = Packet::ip((from.mac, question.src), (hop, question.dst), question.proto);
    let (sport, dport) = (question.sport.into(), question.dport.into());
    match question.proto {
        IP_TCP => packet.with(Field::TcpSrc, sport).with(Field::TcpDst, dport).with(Field::TcpFlags, 2),
        IP_UDP => packet.with(Field::UdpSrc, sport).with(Field::UdpDst, dport),
        IP_ICMP => packet.with(Field::IcmpType, 8),
        _ => packet,
    }
}

fn ending(document: &NodeNetwork, in_port: u32, verdict: &Verdict) -> String {
    let Some((port, packet)) = verdict.outputs.first() else {
        let stage = verdict.last_stage().map_or("?", Stage::name);
        return format!("dropped in {stage}");
    };
    match *port {
        EXT_PORT => format!("leaves the node, as from {}", packet.addr(Field::IpSrc)),
        META_PORT => "is answered by the node's local services".to_owned(),
        port if port == in_port => "is answered by the router".to_owned(),
        port => {
            let to = document.ports.iter().find(|p| u32::from(p.port_no) == port);
            to.map_or_else(
                || format!("out of port {port}"),
                |p| format!("delivered to {} ({})", p.id, p.private_ip),
            )
        }
    }
}

fn line(document: &NodeNetwork, step: &Step) -> Line {
    let stage = Stage::of_table(step.table);
    let because = stage.map_or_else(String::new, |stage| because(document, stage, step));
    Line { stage: stage.map_or("?", Stage::name), because, dropped: step.drops, step: step.clone() }
}

fn because(document: &NodeNetwork, stage: Stage, step: &Step) -> String {
    let nothing = step.priority == 0;
    match stage {
        Stage::Classify if nothing => "no open port".to_owned(),
        Stage::Admit if step.drops => {
            "port security: not this port's own address or Ethernet address".to_owned()
        }
        Stage::Admit => "port security: its own".to_owned(),
        Stage::Policy if step.drops => "no rule of its security groups allows it".to_owned(),
        Stage::Policy => rule(document, step),
        Stage::AclOut | Stage::AclIn => acl(document, step),
        Stage::Route | Stage::Arrival if !nothing => route(document, stage, step),
        Stage::Route => "no route".to_owned(),
        Stage::Arrival => "the receiver's route table has no way back".to_owned(),
        Stage::Gateway if step.drops => "no public address".to_owned(),
        Stage::Locate if step.drops => "nobody has that address here".to_owned(),
        Stage::TunnelIn if step.drops => "the sender does not belong where it comes from".to_owned(),
        _ if nothing => "nothing allows it".to_owned(),
        _ => origin(document, step).unwrap_or_default(),
    }
}

/// The resource that a flow stands for.
fn origin(document: &NodeNetwork, step: &Step) -> Option<String> {
    let cookie = step.cookie;
    cookie.origin()?;
    let ports = document.ports.iter().filter(|p| cookie.is_of(p.id)).map(|p| p.id.to_string());
    let subnets = document.subnets.iter().filter(|s| cookie.is_of(s.id)).map(|s| s.id.to_string());
    let vpcs = document.vpcs.iter().filter(|v| cookie.is_of(v.id)).map(|v| v.id.to_string());
    let mut all = ports.chain(subnets).chain(vpcs);
    all.next()
}

fn rule(document: &NodeNetwork, step: &Step) -> String {
    // Of a conjunction the second clause is the rule, the first the group that the peer is a member of.
    let cookie = step.clauses.get(1).copied().unwrap_or(step.cookie);
    let mut rules = document.groups.iter().flat_map(|g| g.rules.iter().map(move |r| (g, r)));
    match rules.find(|(_, rule)| cookie.is_of(rule.id)) {
        Some((group, rule)) => format!("rule {} of {}: {}", rule.id, group.id, words(rule)),
        None => format!("rule …{}", cookie.origin().unwrap_or_default()),
    }
}

fn words(rule: &RuleSpec) -> String {
    let (way, from) = match rule.direction {
        Direction::Inbound => ("in", "from"),
        Direction::Outbound => ("out", "to"),
    };
    let ports = rule.ports.map(|p| format!(" {p}")).unwrap_or_default();
    let peer = match &rule.peer {
        Peer::Cidr(net) => net.to_string(),
        Peer::Group(id) => format!("members of {id}"),
    };
    format!("{way} {}{ports} {from} {peer}", rule.protocol)
}

fn acl(document: &NodeNetwork, step: &Step) -> String {
    let verb = if step.drops { "denies" } else { "allows" };
    let entry = acl_entry(step.priority).map_or_else(|| "*".to_owned(), |n| n.to_string());
    match document.acls.iter().find(|a| step.cookie.is_of(a.id)) {
        Some(acl) => format!("entry {entry} of {} {verb} it", acl.id),
        None => format!("no network ACL {verb} it"),
    }
}

fn route(document: &NodeNetwork, stage: Stage, step: &Step) -> String {
    let field = if stage == Stage::Route { Field::IpDst } else { Field::IpSrc };
    let key = step.matches.get(VPC).zip(step.matches.get(SUBNET));
    let (Some(_), Some(block)) = (key, step.matches.get(field).or(Some(NO_BLOCK))) else {
        return "no packet is routed to such an address, or with so little time to live".to_owned();
    };
    let address = Ipv4Addr::from(u32::try_from(block.value).unwrap_or(0));
    let net = format!("{address}/{}", block.mask.count_ones());
    let subnet = document.subnets.iter().find(|s| step.cookie.is_of(s.id));
    let target = subnet.and_then(|s| s.routes.iter().find(|r| r.destination.trunc().to_string() == net));
    let way = match target.map(|r| &r.target) {
        None => "local".to_owned(),
        Some(RouteTarget::InternetGateway(gateway)) => gateway.id.to_string(),
        Some(RouteTarget::Interface { private_ip }) => format!("the interface of {private_ip}"),
        Some(RouteTarget::Blackhole) => "blackhole".to_owned(),
    };
    let of = subnet.map(|s| format!(" of {}", s.id)).unwrap_or_default();
    let dead = if step.drops { ", which leads nowhere" } else { "" };
    format!("route {net} → {way}{of}{dead}")
}

/// What a route for everything matches: nothing in particular.
const NO_BLOCK: crate::flow::Condition = crate::flow::Condition { field: Field::IpDst, value: 0, mask: 0 };

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
        let end = explain(&site()[..1], id(16), &question).unwrap().end;
        assert!(end.contains("192.0.2.2"), "{end}");
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
