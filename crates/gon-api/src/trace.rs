//! What becomes of a packet, for operators.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A packet to follow.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TracePacket {
    /// The interface that sends it (`eni-…`), whoever has it.
    pub network_interface_id: String,
    /// The first packet of a connection: `tcp,10.0.1.5:40000>10.0.2.7:22`, `icmp,10.0.1.5>8.8.8.8` (an echo request),
    /// `47,10.0.1.5>10.0.2.7` (another IP protocol).
    pub packet: String,
    /// Whether the switches of the nodes are asked, too. Nothing is sent for that.
    #[serde(default)]
    pub live: bool,
}

/// What becomes of a packet: as what the API knows is compiled for the nodes it comes through.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct PacketTrace {
    /// The interface that sends it.
    pub network_interface_id: String,
    /// The packet.
    pub packet: String,
    /// Whether it ended on its way; `false` if it came to an interface, was answered or left the last node.
    pub dropped: bool,
    /// In words, where it ended.
    pub end: String,
    /// The nodes it comes through, in order.
    pub hops: Vec<TraceHop>,
}

/// What becomes of a packet on a node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct TraceHop {
    /// `node-…`.
    pub node_id: String,
    /// Its name.
    pub node_name: String,
    /// The stages it goes through, in order.
    pub stages: Vec<TraceStage>,
    /// What the node's switch says, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveTrace>,
}

/// What one stage does with a packet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct TraceStage {
    /// Its name.
    pub stage: String,
    /// What decides, in words: which rule of which group, which entry of which ACL, which route; may be empty.
    pub because: String,
    /// Whether the packet ends here.
    pub dropped: bool,
    /// The flow: its table.
    pub table: u8,
    /// The flow: its priority.
    pub priority: u16,
    /// The flow: what it matches, in Open vSwitch's words.
    pub matches: String,
}

/// What the switch of a node says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct LiveTrace {
    /// `same`: the same flows, the same end. `differs`. `unavailable`: the node or its switch did not answer.
    pub verdict: String,
    /// In words: how many flows, or where they part, or why there is no answer.
    pub detail: String,
    /// The flows that the switch takes it through, in its words, if they are not the same.
    pub flows: Vec<String>,
}
