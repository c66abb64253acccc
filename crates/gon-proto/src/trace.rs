//! What becomes of one packet: as the compiled flows say, and what a switch is asked about it and answers.
//!
//! Nothing here is kept or acted upon; it is shown to an operator.

use std::net::Ipv4Addr;

use gon_types::MacAddr;
use gon_types::id::{NodeId, SubnetId};
use serde::{Deserialize, Serialize};

/// A packet as it comes into a node's switch: the first of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchQuestion {
    /// By which port of the switch.
    pub in_port: u32,
    /// Ethernet source.
    pub src_mac: MacAddr,
    /// Ethernet destination.
    pub dst_mac: MacAddr,
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// IP protocol.
    pub proto: u8,
    /// Time to live.
    pub ttl: u8,
    /// TCP and UDP: source and destination port; ICMP: type and code; else nothing.
    pub ports: (u16, u16),
    /// If it comes out of a tunnel.
    pub tunnel: Option<TunnelEnds>,
}

/// What a tunnel says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelEnds {
    /// The VPC's network key.
    pub key: u32,
    /// The node it comes from, on the underlay.
    pub src: Ipv4Addr,
    /// This node, on the underlay.
    pub dst: Ipv4Addr,
}

/// What a switch says would become of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchAnswer {
    /// The flows it would go through, in order.
    pub steps: Vec<SwitchStep>,
    /// The ports of the switch that it would leave by.
    pub outputs: Vec<u32>,
}

/// A flow of a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchStep {
    /// Its table.
    pub table: u8,
    /// Its priority.
    pub priority: u16,
    /// Its cookie; 0 if it has none.
    pub cookie: u64,
    /// Whether it is one of an agent's, or of somebody else.
    pub ours: bool,
    /// It, in the switch's words.
    pub text: String,
}

/// What the compiled flows of one or several nodes make of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// On which nodes, one after another.
    pub hops: Vec<FollowedHop>,
    /// What became of it.
    pub end: String,
    /// Where the tunnel leads that it went into, if that node's document is needed to go on.
    pub onward: Option<Ipv4Addr>,
}

/// On one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedHop {
    /// Which.
    pub node: NodeId,
    /// The same, to ask its switch.
    pub question: SwitchQuestion,
    /// The flows that it went through, in order.
    pub lines: Vec<FollowedLine>,
    /// The ports of the switch that it left by.
    pub outputs: Vec<u32>,
}

/// A flow that a packet went through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedLine {
    /// The stage's name.
    pub stage: String,
    /// What decided, in words; may be empty.
    pub because: String,
    /// If a route decided, or that there is none: the subnet whose route table was asked.
    pub routes_of: Option<SubnetId>,
    /// Whether the packet ended here.
    pub dropped: bool,
    /// The flow's table.
    pub table: u8,
    /// Its priority.
    pub priority: u16,
    /// Its cookie.
    pub cookie: u64,
    /// What it matches, in Open vSwitch's words.
    pub matches: String,
    /// Whether it stands for a rule that names a group. If several such rules allow the packet, a switch chooses one of them as it
    /// likes: their flows have one table, one priority and one effect.
    pub conjunction: bool,
}

impl FollowedLine {
    /// Whether a switch that went through this flow did the same.
    #[must_use]
    pub const fn is(&self, step: &SwitchStep) -> bool {
        self.table == step.table
            && self.priority == step.priority
            && (self.cookie == step.cookie || self.conjunction && step.ours)
    }
}
