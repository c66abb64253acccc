//! What a flow does to a packet.

use std::fmt;

use super::Field;

/// Consecutive bits of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slice {
    /// The field.
    pub field: Field,
    /// Lowest bit.
    pub start: u8,
    /// How many bits, at least one.
    pub bits: u8,
}

impl Slice {
    /// The whole field.
    #[must_use]
    pub const fn whole(field: Field) -> Self {
        Self { field, start: 0, bits: field.bits() }
    }
    /// Bits `start` to `start + bits - 1` of a field.
    #[must_use]
    pub const fn new(field: Field, start: u8, bits: u8) -> Self {
        Self { field, start, bits }
    }
    /// The slice's bits as a mask of the field.
    #[must_use]
    pub const fn mask(self) -> u64 {
        (u64::MAX >> (64 - self.bits)) << self.start
    }
    /// The slice's value in a field that holds `value`.
    #[must_use]
    pub const fn get(self, value: u64) -> u64 {
        (value & self.mask()) >> self.start
    }
    /// `before` with the slice set to `bits`.
    #[must_use]
    pub const fn set(self, before: u64, bits: u64) -> u64 {
        (before & !self.mask()) | ((bits << self.start) & self.mask())
    }
}
impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.field.action_name();
        if *self == Self::whole(self.field) {
            write!(f, "{name}[]")
        } else if self.bits == 1 {
            write!(f, "{name}[{}]", self.start)
        } else {
            write!(f, "{name}[{}..{}]", self.start, self.start + self.bits - 1)
        }
    }
}

/// Where a connection tracking zone comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ZoneSource {
    /// A constant.
    Number(u16),
    /// Bits of a field.
    Slice(Slice),
}

/// One action; a flow has a list of them, the empty list drops.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Send out of a port.
    Output(u32),
    /// Send out of the port whose number is in these bits.
    OutputTo(Slice),
    /// Send back where it came from.
    InPort,
    /// Write a whole header field.
    Set(Field, u64),
    /// Write bits of a field or register.
    Load(Slice, u64),
    /// Copy bits between fields; both slices have the same width.
    Move {
        /// Copied from.
        from: Slice,
        /// Copied to.
        to: Slice,
    },
    /// Look the packet's connection up in a zone. With `table` the packet continues there with its connection state,
    /// and nothing else of this flow matters to it.
    Ct {
        /// Remember the connection.
        commit: bool,
        /// The zone.
        zone: ZoneSource,
        /// Where the packet continues.
        table: Option<u8>,
        /// With `commit`: the mark to store.
        mark: Option<u32>,
    },
    /// Forget the packet's connection state.
    CtClear,
    /// Look up another table; `ct` does it as if the packet were the first of its connection (addresses and ports of
    /// the original direction), so one rule judges both directions.
    Resubmit {
        /// The table.
        table: u8,
        /// With the connection's original addresses and ports.
        ct: bool,
    },
    /// One less time to live; a packet without any left is dropped.
    DecTtl,
    /// This flow is one clause of a conjunction: when all clauses match, a lookup with `conj_id = id` follows.
    Conjunction {
        /// Which conjunction.
        id: u32,
        /// Which clause, from 1.
        clause: u8,
        /// How many there are, at least 2.
        of: u8,
    },
}

impl Action {
    /// Continue in another table.
    #[must_use]
    pub const fn go(table: u8) -> Self {
        Self::Resubmit { table, ct: false }
    }
    /// Write a whole register or field.
    #[must_use]
    pub const fn load(field: Field, value: u64) -> Self {
        Self::Load(Slice::whole(field), value)
    }
    /// Copy a whole field to another of the same width.
    #[must_use]
    pub const fn copy(from: Field, to: Field) -> Self {
        Self::Move { from: Slice::whole(from), to: Slice::whole(to) }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output(port) => write!(f, "output:{port}"),
            Self::OutputTo(slice) => write!(f, "output:{slice}"),
            Self::InPort => f.write_str("IN_PORT"),
            Self::Set(field, value) => {
                f.write_str("set_field:")?;
                field.write_value(f, *value)?;
                write!(f, "->{}", set_field_name(*field))
            }
            Self::Load(slice, value) => write!(f, "load:{value:#x}->{slice}"),
            Self::Move { from, to } => write!(f, "move:{from}->{to}"),
            Self::Ct { commit, zone, table, mark } => {
                f.write_str("ct(")?;
                if *commit {
                    f.write_str("commit,")?;
                }
                if let Some(table) = table {
                    write!(f, "table={table},")?;
                }
                match zone {
                    ZoneSource::Number(zone) => write!(f, "zone={zone}")?,
                    ZoneSource::Slice(slice) => write!(f, "zone={slice}")?,
                }
                if let Some(mark) = mark {
                    write!(f, ",exec(load:{mark:#x}->NXM_NX_CT_MARK[])")?;
                }
                f.write_str(")")
            }
            Self::CtClear => f.write_str("ct_clear"),
            Self::Resubmit { table, ct: false } => write!(f, "resubmit(,{table})"),
            Self::Resubmit { table, ct: true } => write!(f, "resubmit(,{table},ct)"),
            Self::DecTtl => f.write_str("dec_ttl"),
            Self::Conjunction { id, clause, of } => write!(f, "conjunction({id},{clause}/{of})"),
        }
    }
}

/// `set_field` takes the match name, except that OpenFlow 1.2+ names Ethernet and IP fields its own way.
const fn set_field_name(field: Field) -> &'static str {
    match field {
        Field::EthSrc => "eth_src",
        Field::EthDst => "eth_dst",
        Field::IpSrc => "ip_src",
        Field::IpDst => "ip_dst",
        Field::TcpSrc => "tcp_src",
        Field::TcpDst => "tcp_dst",
        Field::UdpSrc => "udp_src",
        Field::UdpDst => "udp_dst",
        other => other.ofctl_name(),
    }
}
