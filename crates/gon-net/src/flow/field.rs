//! The fields of a packet (and of its pipeline context) that flows match and actions read or write.

use std::fmt;
use std::net::Ipv4Addr;

use super::{ETH_ARP, ETH_IP, mac_from_bits};

/// A field. The order is canonical and puts each field after those it needs (OpenFlow's prerequisites).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// Port the packet came in by.
    InPort,
    /// Tunnel key: of the tunnel a packet came through, or for the one it will leave by.
    TunId,
    /// Outer source of the tunnel it came through.
    TunSrc,
    /// Outer destination of the tunnel it will leave by.
    TunDst,
    /// OpenFlow's 64-bit metadata.
    Metadata,
    /// Register `n`, 0 to 15.
    Reg(u8),
    /// Set by the switch when all clauses of a conjunction matched; 0 otherwise.
    ConjId,
    /// Connection state bits, see [`crate::pipeline::ct_state`].
    CtState,
    /// Connection tracking zone of the last lookup.
    CtZone,
    /// Mark stored with the connection.
    CtMark,
    /// 802.1Q tag control; bit 12 says that there is a tag.
    VlanTci,
    /// Ethernet source.
    EthSrc,
    /// Ethernet destination.
    EthDst,
    /// Ethernet type.
    EthType,
    /// IP protocol.
    IpProto,
    /// Fragment bits: 1 = any fragment, 2 = a later one.
    IpFrag,
    /// IP time to live.
    IpTtl,
    /// IPv4 source.
    IpSrc,
    /// IPv4 destination.
    IpDst,
    /// Source address of the connection's first packet; 0 when untracked.
    CtIpSrc,
    /// Destination address of the connection's first packet.
    CtIpDst,
    /// Protocol of the connection.
    CtIpProto,
    /// Source port (ICMP type) of the connection's first packet.
    CtTpSrc,
    /// Destination port (ICMP code) of the connection's first packet.
    CtTpDst,
    /// TCP source port.
    TcpSrc,
    /// TCP destination port.
    TcpDst,
    /// TCP flags, 12 bits.
    TcpFlags,
    /// UDP source port.
    UdpSrc,
    /// UDP destination port.
    UdpDst,
    /// ICMP type.
    IcmpType,
    /// ICMP code.
    IcmpCode,
    /// ARP operation.
    ArpOp,
    /// ARP sender's protocol address.
    ArpSpa,
    /// ARP target's protocol address.
    ArpTpa,
    /// ARP sender's hardware address.
    ArpSha,
    /// ARP target's hardware address.
    ArpTha,
}

/// How a field's value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseKind {
    /// Decimal, mask in hex.
    Decimal,
    /// Hex.
    Hex,
    /// `a.b.c.d`.
    Ip,
    /// `aa:bb:…`.
    Mac,
}

impl Field {
    /// Width in bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Metadata | Self::TunId => 64,
            Self::EthSrc | Self::EthDst | Self::ArpSha | Self::ArpTha => 48,
            Self::Reg(_)
            | Self::ConjId
            | Self::CtState
            | Self::CtMark
            | Self::TunSrc
            | Self::TunDst
            | Self::IpSrc
            | Self::IpDst
            | Self::CtIpSrc
            | Self::CtIpDst
            | Self::ArpSpa
            | Self::ArpTpa => 32,
            Self::InPort
            | Self::CtZone
            | Self::VlanTci
            | Self::EthType
            | Self::CtTpSrc
            | Self::CtTpDst
            | Self::TcpSrc
            | Self::TcpDst
            | Self::UdpSrc
            | Self::UdpDst
            | Self::ArpOp => 16,
            Self::TcpFlags => 12,
            Self::IpProto | Self::IpTtl | Self::CtIpProto | Self::IcmpType | Self::IcmpCode => 8,
            Self::IpFrag => 2,
        }
    }
    /// Width on the wire in bytes.
    #[must_use]
    pub const fn wire_bytes(self) -> usize {
        self.bits().div_ceil(8) as usize
    }
    /// All bits of the field.
    #[must_use]
    pub const fn full_mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }
    /// Whether a condition may have a mask.
    #[must_use]
    pub const fn maskable(self) -> bool {
        !matches!(
            self,
            Self::InPort
                | Self::ConjId
                | Self::CtZone
                | Self::EthType
                | Self::IpProto
                | Self::IpTtl
                | Self::CtIpProto
                | Self::IcmpType
                | Self::IcmpCode
                | Self::ArpOp
        )
    }
    /// The field's name in `field=value`.
    #[must_use]
    pub const fn ofctl_name(self) -> &'static str {
        match self {
            Self::InPort => "in_port",
            Self::TunId => "tun_id",
            Self::TunSrc => "tun_src",
            Self::TunDst => "tun_dst",
            Self::Metadata => "metadata",
            Self::Reg(n) => REGISTERS[(n & 15) as usize].0,
            Self::ConjId => "conj_id",
            Self::CtState => "ct_state",
            Self::CtZone => "ct_zone",
            Self::CtMark => "ct_mark",
            Self::VlanTci => "vlan_tci",
            Self::EthSrc => "dl_src",
            Self::EthDst => "dl_dst",
            Self::EthType => "dl_type",
            Self::IpProto => "nw_proto",
            Self::IpFrag => "ip_frag",
            Self::IpTtl => "nw_ttl",
            Self::IpSrc => "nw_src",
            Self::IpDst => "nw_dst",
            Self::CtIpSrc => "ct_nw_src",
            Self::CtIpDst => "ct_nw_dst",
            Self::CtIpProto => "ct_nw_proto",
            Self::CtTpSrc => "ct_tp_src",
            Self::CtTpDst => "ct_tp_dst",
            Self::TcpSrc | Self::UdpSrc => "tp_src",
            Self::TcpDst | Self::UdpDst => "tp_dst",
            Self::TcpFlags => "tcp_flags",
            Self::IcmpType => "icmp_type",
            Self::IcmpCode => "icmp_code",
            Self::ArpOp => "arp_op",
            Self::ArpSpa => "arp_spa",
            Self::ArpTpa => "arp_tpa",
            Self::ArpSha => "arp_sha",
            Self::ArpTha => "arp_tha",
        }
    }
    /// The field's name inside an action (`load`, `move`, `set_field`), where OVS prints NXM or OXM names.
    #[must_use]
    pub const fn action_name(self) -> &'static str {
        match self {
            Self::InPort => "NXM_OF_IN_PORT",
            Self::TunId => "NXM_NX_TUN_ID",
            Self::TunSrc => "NXM_NX_TUN_IPV4_SRC",
            Self::TunDst => "NXM_NX_TUN_IPV4_DST",
            Self::Metadata => "OXM_OF_METADATA",
            Self::Reg(n) => REGISTERS[(n & 15) as usize].1,
            Self::ConjId => "NXM_NX_CONJ_ID",
            Self::CtState => "NXM_NX_CT_STATE",
            Self::CtZone => "NXM_NX_CT_ZONE",
            Self::CtMark => "NXM_NX_CT_MARK",
            Self::VlanTci => "NXM_OF_VLAN_TCI",
            Self::EthSrc => "NXM_OF_ETH_SRC",
            Self::EthDst => "NXM_OF_ETH_DST",
            Self::EthType => "NXM_OF_ETH_TYPE",
            Self::IpProto => "NXM_OF_IP_PROTO",
            Self::IpFrag => "NXM_NX_IP_FRAG",
            Self::IpTtl => "NXM_NX_IP_TTL",
            Self::IpSrc => "NXM_OF_IP_SRC",
            Self::IpDst => "NXM_OF_IP_DST",
            Self::CtIpSrc => "NXM_NX_CT_NW_SRC",
            Self::CtIpDst => "NXM_NX_CT_NW_DST",
            Self::CtIpProto => "NXM_NX_CT_NW_PROTO",
            Self::CtTpSrc => "NXM_NX_CT_TP_SRC",
            Self::CtTpDst => "NXM_NX_CT_TP_DST",
            Self::TcpSrc => "NXM_OF_TCP_SRC",
            Self::TcpDst => "NXM_OF_TCP_DST",
            Self::TcpFlags => "NXM_NX_TCP_FLAGS",
            Self::UdpSrc => "NXM_OF_UDP_SRC",
            Self::UdpDst => "NXM_OF_UDP_DST",
            Self::IcmpType => "NXM_OF_ICMP_TYPE",
            Self::IcmpCode => "NXM_OF_ICMP_CODE",
            Self::ArpOp => "NXM_OF_ARP_OP",
            Self::ArpSpa => "NXM_OF_ARP_SPA",
            Self::ArpTpa => "NXM_OF_ARP_TPA",
            Self::ArpSha => "NXM_NX_ARP_SHA",
            Self::ArpTha => "NXM_NX_ARP_THA",
        }
    }
    /// How values are written.
    #[must_use]
    pub const fn kind(self) -> ParseKind {
        match self {
            Self::EthSrc | Self::EthDst | Self::ArpSha | Self::ArpTha => ParseKind::Mac,
            Self::TunSrc
            | Self::TunDst
            | Self::IpSrc
            | Self::IpDst
            | Self::CtIpSrc
            | Self::CtIpDst
            | Self::ArpSpa
            | Self::ArpTpa => ParseKind::Ip,
            Self::Metadata
            | Self::TunId
            | Self::Reg(_)
            | Self::CtMark
            | Self::VlanTci
            | Self::EthType
            | Self::TcpFlags
            | Self::CtState
            | Self::IpFrag => ParseKind::Hex,
            _ => ParseKind::Decimal,
        }
    }
    /// Writes a value of the field.
    pub fn write_value(self, f: &mut fmt::Formatter<'_>, value: u64) -> fmt::Result {
        match self.kind() {
            ParseKind::Decimal => write!(f, "{value}"),
            ParseKind::Hex => write!(f, "{value:#x}"),
            ParseKind::Ip => write!(f, "{}", Ipv4Addr::from(value as u32)),
            ParseKind::Mac => write!(f, "{}", mac_from_bits(value)),
        }
    }
    /// Writes `field=value/mask` the way `ovs-ofctl` reads it.
    pub(super) fn write_condition(self, f: &mut fmt::Formatter<'_>, value: u64, mask: u64) -> fmt::Result {
        match self {
            Self::CtState => return write_flags(f, "ct_state", CT_STATE_NAMES, value, mask),
            Self::TcpFlags => return write_flags(f, "tcp_flags", TCP_FLAG_NAMES, value, mask),
            Self::IpFrag => {
                return f.write_str(match (value, mask) {
                    (0, 3) => "ip_frag=no",
                    (1, 3) => "ip_frag=first",
                    (3, 3) => "ip_frag=later",
                    (0, 2) => "ip_frag=not_later",
                    (2, 2) => "ip_frag=later",
                    _ => "ip_frag=yes",
                });
            }
            Self::EthType if value == ETH_IP.into() => return f.write_str("ip"),
            Self::EthType if value == ETH_ARP.into() => return f.write_str("arp"),
            _ => {}
        }
        write!(f, "{}=", self.ofctl_name())?;
        self.write_value(f, value)?;
        if mask != self.full_mask() {
            f.write_str("/")?;
            match self.kind() {
                ParseKind::Decimal => write!(f, "{mask:#x}")?,
                ParseKind::Ip => {
                    let ones = mask.count_ones();
                    if mask == u64::from(u32::MAX.checked_shl(32 - ones).unwrap_or(0)) {
                        write!(f, "{ones}")?;
                    } else {
                        self.write_value(f, mask)?;
                    }
                }
                _ => self.write_value(f, mask)?,
            }
        }
        Ok(())
    }
}

const CT_STATE_NAMES: &[&str] = &["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];
const TCP_FLAG_NAMES: &[&str] =
    &["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]"];

fn write_flags(f: &mut fmt::Formatter<'_>, name: &str, flags: &[&str], value: u64, mask: u64) -> fmt::Result {
    write!(f, "{name}=")?;
    for (bit, flag) in flags.iter().enumerate() {
        if mask >> bit & 1 == 1 {
            write!(f, "{}{flag}", if value >> bit & 1 == 1 { '+' } else { '-' })?;
        }
    }
    Ok(())
}

const REGISTERS: [(&str, &str); 16] = [
    ("reg0", "NXM_NX_REG0"),
    ("reg1", "NXM_NX_REG1"),
    ("reg2", "NXM_NX_REG2"),
    ("reg3", "NXM_NX_REG3"),
    ("reg4", "NXM_NX_REG4"),
    ("reg5", "NXM_NX_REG5"),
    ("reg6", "NXM_NX_REG6"),
    ("reg7", "NXM_NX_REG7"),
    ("reg8", "NXM_NX_REG8"),
    ("reg9", "NXM_NX_REG9"),
    ("reg10", "NXM_NX_REG10"),
    ("reg11", "NXM_NX_REG11"),
    ("reg12", "NXM_NX_REG12"),
    ("reg13", "NXM_NX_REG13"),
    ("reg14", "NXM_NX_REG14"),
    ("reg15", "NXM_NX_REG15"),
];
