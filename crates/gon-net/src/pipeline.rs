//! THE table of the pipeline: every stage with its number, its name and its contract, and what each register carries.
//!
//! ```text
//!  guest ──▶ classify ─▶ admit ─▶ local ──▶ group-out ─▶ edge ─▶ acl-out ─▶ route ──┐──▶ locate ─▶ enter ─▶ acl-in ─▶ group-in ─▶ deliver ─▶ guest
//!                          (port    │          │          └── same subnet ────────────│─────▶ ┘ (no ACL)       │
//!                        security)  ▼          ▼ judge ─▶ policy ─▶ admitted          ▼                        ▼ judge ─▶ policy ─▶ admitted
//!  gon-meta ─▶ classify ─▶ local-reply ─▶ local-restore ─▶ guest                 gateway ─▶ public ─▶ arrival ─▶ locate
//!  gon-meta ─▶ classify ─▶ public   (and public ─▶ gon-meta: ICMP errors, for their quotes to be translated by the agent)
//!  (route ─▶ gon-meta: packets whose time to live is spent, for the agent to tell their senders by way of local-reply)
//!  gon-ext ──▶ classify ─▶ external ─────────────────────────────────────────────────────▶ public                └─▶ gon-ext (not ours)
//!  gon-tun ──▶ classify ─▶ tunnel-in ─▶ locate (and on as above)                 locate ─▶ encap ─▶ gon-tun (another node's)
//! ```
//!
//! The order of checks is AWS's: the sender's group, the sender's subnet's ACL, the route, the receiver's subnet's ACL, the
//! receiver's group. `judge`, `policy` and `admitted` are one subroutine that both group stages use, told apart by
//! [`PHASE_IN`]; so a group's rule exists once and judges packets of both directions and of both phases.
//!
//! Promises that hold for the whole: every table ends in a counted drop; no action anywhere floods; every output is a
//! constant port, the port it came from, or a register that only `locate` and `local-reply` write.

use crate::flow::{Field, Slice};

macro_rules! stages {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, reads $reads:literal, writes $writes:literal;)*) => {
        /// A stage: one table of the switch.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Stage { $($(#[$doc])* $variant,)* }

        impl Stage {
            /// All stages, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Table number.
            #[must_use]
            pub const fn table(self) -> u8 {
                match self { $(Self::$variant => $number,)* }
            }
            /// Name, as cookies and traces show it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
            /// Registers it reads.
            #[must_use]
            pub const fn reads(self) -> &'static str {
                match self { $(Self::$variant => $reads,)* }
            }
            /// Registers it writes.
            #[must_use]
            pub const fn writes(self) -> &'static str {
                match self { $(Self::$variant => $writes,)* }
            }
            /// The stage of a table.
            #[must_use]
            pub const fn of_table(table: u8) -> Option<Self> {
                match table { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

stages! {
    /// Tagged frames go nowhere; who is it from? A port's facts into registers.
    Classify = 0, "classify", reads "-", writes "vpc subnet from-port policy zone";
    /// Port security: only the port's own MAC and address, IPv4 and ARP, no server's DHCP.
    Admit = 5, "admit", reads "from-port", writes "asker";
    /// What the node answers itself: ARP, router echo, and the way to DHCP, DNS and metadata.
    Local = 10, "local", reads "vpc subnet asker", writes "scratch";
    /// From local services: which port is it for?
    LocalReply = 12, "local-reply", reads "-", writes "vpc subnet to-port scratch";
    /// From local services: put back the address the guest had spoken to.
    LocalRestore = 13, "local-restore", reads "vpc subnet to-port", writes "-";
    /// From outside: ARP for public addresses, impossible sources out.
    External = 15, "external", reads "-", writes "scratch";
    /// From another node: does the sender belong there? Key, node, MAC and address are one row of the document.
    TunnelIn = 17, "tunnel-in", reads "vpc", writes "subnet from-subnet";
    /// Look the connection up in the sender's zone.
    GroupOut = 20, "group-out", reads "zone", writes "-";
    /// Through the router (by its MAC), or within the subnet?
    Edge = 25, "edge", reads "vpc subnet", writes "acl from-subnet";
    /// Network ACL of the sender's subnet.
    AclOut = 30, "acl-out", reads "acl", writes "-";
    /// Effective route table of the sender's subnet, longest prefix first; one hop less to live.
    Route = 40, "route", reads "vpc subnet asker", writes "next-hop routed via";
    /// Out of the internet gateway: private source becomes public, one to one.
    Gateway = 44, "gateway", reads "vpc from-port", writes "-";
    /// Is it one of this node's public addresses (from outside, or a neighbour's)? Else out of the node.
    Public = 46, "public", reads "from-port", writes "vpc subnet next-hop routed";
    /// Would an answer leave through the gateway? The receiver's route table must cover the source.
    Arrival = 47, "arrival", reads "vpc subnet", writes "-";
    /// Exact (VPC, address) to a port of this node, or to the node that has it.
    Locate = 48, "locate", reads "vpc subnet next-hop routed via", writes "to-port subnet policy zone phase-in";
    /// Did it come into the receiver's subnet? Which ACL guards that?
    Enter = 49, "enter", reads "vpc subnet from-subnet", writes "acl";
    /// Network ACL of the receiver's subnet.
    AclIn = 50, "acl-in", reads "acl", writes "-";
    /// Look the connection up in the receiver's zone.
    GroupIn = 60, "group-in", reads "zone", writes "phase-in";
    /// Out of the tunnel port: key and node are set. What came through a tunnel ends here.
    Encap = 65, "encap", reads "-", writes "-";
    /// Out of the port.
    Deliver = 70, "deliver", reads "to-port", writes "-";
    /// Which side began this connection, as seen from the instance whose group is asked?
    Judge = 80, "judge", reads "phase-in", writes "lens retry";
    /// Rules of a set of groups: does one allow the beginning of this connection?
    Policy = 81, "policy", reads "policy lens", writes "-";
    /// A rule allows it: remember new connections, go on with the phase.
    Admitted = 82, "admitted", reads "zone phase-in retry", writes "-";
}

/// Network key of the VPC whose packet it is.
pub const VPC: Field = Field::Reg(0);
/// Network address of the subnet: the sender's, from `locate` on the receiver's. Unique within the VPC, for subnets do
/// not overlap.
pub const SUBNET: Field = Field::Reg(1);
/// The port it came in by; 0 from outside.
pub const FROM_PORT: Field = Field::Reg(2);
/// Number of the set of groups to ask: the sender's, from `locate` on the receiver's.
pub const POLICY: Field = Field::Reg(3);
/// The port it goes to.
pub const TO_PORT: Field = Field::Reg(4);
/// Conntrack zone of the port whose groups are asked: its port number.
pub const ZONE: Field = Field::Reg(5);
/// How the rules are to look at the connection: one of [`lens`].
pub const LENS: Field = Field::Reg(6);
/// Single bits, below.
pub const FLAGS: Field = Field::Reg(7);
/// Which address to locate: the destination, or the interface a route names.
pub const NEXT_HOP: Field = Field::Reg(8);
/// For swapping two fields.
pub const SCRATCH: Field = Field::Reg(9);
/// Number of the network ACL to ask: the sender's subnet's, from `enter` on the receiver's.
pub const ACL: Field = Field::Reg(10);
/// Network address of the sender's subnet, if the packet may still be within it: from another node, or by the detour of the
/// router. 0 of what has left its subnet here, or came from outside.
pub const FROM_SUBNET: Field = Field::Reg(11);

/// By which address local services know the sender's (see [`crate::service::source`]). 0 of what is not one of the port's own: no
/// service answers to it.
pub const ASKER: Field = Field::Reg(12);
/// Set in every [`ASKER`].
pub const ASKS: Slice = Slice::new(ASKER, 31, 1);

/// Flag: the receiver's groups are asked, not the sender's.
pub const PHASE_IN: Slice = Slice::new(FLAGS, 0, 1);
/// Flag: it went through the router.
pub const ROUTED: Slice = Slice::new(FLAGS, 1, 1);
/// Flag: a route names an interface, which need not have the destination address.
pub const VIA: Slice = Slice::new(FLAGS, 2, 1);
/// Flag: an ICMP error whose quote the agent has translated.
pub const QUOTED: Slice = Slice::new(FLAGS, 4, 1);
/// Flag: the rules look through the mirrored lens, after the ordinary one allowed nothing (see [`crate::Mirror`]).
pub const RETRY: Slice = Slice::new(FLAGS, 3, 1);

/// Priority of a network ACL's entry: the lower its number, the higher.
#[must_use]
pub const fn acl_priority(number: u16) -> u16 {
    ABOVE_ENTRIES.saturating_sub(number)
}
/// The number of the entry that a flow of `acl-out` or `acl-in` stands for; `None` for the end of a list (EC2's `*`).
#[must_use]
pub const fn acl_entry(priority: u16) -> Option<u16> {
    let number = ABOVE_ENTRIES.saturating_sub(priority);
    if number > 0 && number <= crate::plan::LAST_NUMBER { Some(number) } else { None }
}
const ABOVE_ENTRIES: u16 = 33_000;

/// The 16 bits of a register that hold a port number or zone.
#[must_use]
pub const fn low16(field: Field) -> Slice {
    Slice::new(field, 0, 16)
}

/// Values of [`LENS`]. Rules that allow peers to come in look at `INBOUND`, those that allow going out at `OUTBOUND`.
pub mod lens {
    /// The peer began.
    pub const INBOUND: u64 = 1;
    /// The instance began.
    pub const OUTBOUND: u64 = 2;
    /// The peer began, but tracking started with an answer: addresses and ports of the "original" direction are the
    /// answer's.
    pub const INBOUND_MIRRORED: u64 = 3;
    /// The instance began, but tracking started with an answer.
    pub const OUTBOUND_MIRRORED: u64 = 4;
}

/// Bits of [`Field::CtState`].
pub mod ct_state {
    /// Begins a connection.
    pub const NEW: u64 = 1 << 0;
    /// Of a known connection.
    pub const EST: u64 = 1 << 1;
    /// Related to a known connection (an ICMP error about it).
    pub const REL: u64 = 1 << 2;
    /// Against the direction of the connection's first packet.
    pub const RPL: u64 = 1 << 3;
    /// Could not be tracked.
    pub const INV: u64 = 1 << 4;
    /// Was looked up.
    pub const TRK: u64 = 1 << 5;
}

/// `ct_mark` of connections whose tracking began with an answer, after the switch had lost its memory.
pub const MARK_MIRRORED: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_read_back() {
        for pair in Stage::ALL.windows(2) {
            assert!(pair[0].table() < pair[1].table());
        }
        for stage in Stage::ALL {
            assert_eq!(Stage::of_table(stage.table()), Some(*stage));
        }
    }
}
