//! Matches on the wire: OXM fields, and Nicira's where OpenFlow has none.

use super::{Reader, put16};
use crate::flow::{Condition, Field, Match};

const NXM_0: u16 = 0x0000;
const NXM_1: u16 = 0x0001;
const BASIC: u16 = 0x8000;
const EXPERIMENTER: u16 = 0xffff;
const ONF: u32 = 0x4f4e_4600;

/// Class and number of a field in a match.
const fn match_id(field: Field) -> (u16, u8) {
    match field {
        Field::InPort => (BASIC, 0),
        Field::Metadata => (BASIC, 2),
        Field::EthDst => (BASIC, 3),
        Field::EthSrc => (BASIC, 4),
        Field::EthType => (BASIC, 5),
        Field::IpProto => (BASIC, 10),
        Field::IpSrc => (BASIC, 11),
        Field::IpDst => (BASIC, 12),
        Field::TcpSrc => (BASIC, 13),
        Field::TcpDst => (BASIC, 14),
        Field::UdpSrc => (BASIC, 15),
        Field::UdpDst => (BASIC, 16),
        Field::IcmpType => (BASIC, 19),
        Field::IcmpCode => (BASIC, 20),
        Field::ArpOp => (BASIC, 21),
        Field::ArpSpa => (BASIC, 22),
        Field::ArpTpa => (BASIC, 23),
        Field::ArpSha => (BASIC, 24),
        Field::ArpTha => (BASIC, 25),
        Field::TunId => (BASIC, 38),
        other => action_id(other),
    }
}

/// Class and number of a field in an action, where Open vSwitch uses its own names for most.
const fn action_id(field: Field) -> (u16, u8) {
    match field {
        Field::InPort => (NXM_0, 0),
        Field::EthDst => (NXM_0, 1),
        Field::EthSrc => (NXM_0, 2),
        Field::EthType => (NXM_0, 3),
        Field::VlanTci => (NXM_0, 4),
        Field::IpProto => (NXM_0, 6),
        Field::IpSrc => (NXM_0, 7),
        Field::IpDst => (NXM_0, 8),
        Field::TcpSrc => (NXM_0, 9),
        Field::TcpDst => (NXM_0, 10),
        Field::UdpSrc => (NXM_0, 11),
        Field::UdpDst => (NXM_0, 12),
        Field::IcmpType => (NXM_0, 13),
        Field::IcmpCode => (NXM_0, 14),
        Field::ArpOp => (NXM_0, 15),
        Field::ArpSpa => (NXM_0, 16),
        Field::ArpTpa => (NXM_0, 17),
        Field::Metadata => (BASIC, 2),
        Field::Reg(n) => (NXM_1, n & 15),
        Field::TunId => (NXM_1, 16),
        Field::TunSrc => (NXM_1, 31),
        Field::TunDst => (NXM_1, 32),
        Field::ArpSha => (NXM_1, 17),
        Field::ArpTha => (NXM_1, 18),
        Field::IpFrag => (NXM_1, 26),
        Field::IpTtl => (NXM_1, 29),
        Field::TcpFlags => (NXM_1, 34),
        Field::ConjId => (NXM_1, 37),
        Field::CtState => (NXM_1, 105),
        Field::CtZone => (NXM_1, 106),
        Field::CtMark => (NXM_1, 107),
        Field::CtIpProto => (NXM_1, 119),
        Field::CtIpSrc => (NXM_1, 120),
        Field::CtIpDst => (NXM_1, 121),
        Field::CtTpSrc => (NXM_1, 124),
        Field::CtTpDst => (NXM_1, 125),
    }
}

/// The field of a class and number, whichever of its names that is.
fn field_of(class: u16, number: u8) -> Option<Field> {
    Some(match (class, number) {
        (NXM_0, 0) | (BASIC, 0) => Field::InPort,
        (NXM_0, 1) | (BASIC, 3) => Field::EthDst,
        (NXM_0, 2) | (BASIC, 4) => Field::EthSrc,
        (NXM_0, 3) | (BASIC, 5) => Field::EthType,
        // OpenFlow's VLAN id carries "there is a tag" in bit 12, where the tag control has it too.
        (NXM_0, 4) | (BASIC, 6) => Field::VlanTci,
        (NXM_0, 6) | (BASIC, 10) => Field::IpProto,
        (NXM_0, 7) | (BASIC, 11) => Field::IpSrc,
        (NXM_0, 8) | (BASIC, 12) => Field::IpDst,
        (NXM_0, 9) | (BASIC, 13) => Field::TcpSrc,
        (NXM_0, 10) | (BASIC, 14) => Field::TcpDst,
        (NXM_0, 11) | (BASIC, 15) => Field::UdpSrc,
        (NXM_0, 12) | (BASIC, 16) => Field::UdpDst,
        (NXM_0, 13) | (BASIC, 19) => Field::IcmpType,
        (NXM_0, 14) | (BASIC, 20) => Field::IcmpCode,
        (NXM_0, 15) | (BASIC, 21) => Field::ArpOp,
        (NXM_0, 16) | (BASIC, 22) => Field::ArpSpa,
        (NXM_0, 17) | (BASIC, 23) => Field::ArpTpa,
        (NXM_1, 17) | (BASIC, 24) => Field::ArpSha,
        (NXM_1, 18) | (BASIC, 25) => Field::ArpTha,
        (NXM_1, 16) | (BASIC, 38) => Field::TunId,
        (NXM_1, 31) => Field::TunSrc,
        (NXM_1, 32) => Field::TunDst,
        (BASIC, 2) => Field::Metadata,
        (NXM_1, n @ 0..=15) => Field::Reg(n),
        (NXM_1, 26) => Field::IpFrag,
        (NXM_1, 29) => Field::IpTtl,
        (NXM_1, 34) => Field::TcpFlags,
        (NXM_1, 37) => Field::ConjId,
        (NXM_1, 105) => Field::CtState,
        (NXM_1, 106) => Field::CtZone,
        (NXM_1, 107) => Field::CtMark,
        (NXM_1, 119) => Field::CtIpProto,
        (NXM_1, 120) => Field::CtIpSrc,
        (NXM_1, 121) => Field::CtIpDst,
        (NXM_1, 124) => Field::CtTpSrc,
        (NXM_1, 125) => Field::CtTpDst,
        _ => return None,
    })
}

fn put_header(out: &mut Vec<u8>, (class, number): (u16, u8), masked: bool, length: usize) {
    put16(out, class);
    out.push(number << 1 | u8::from(masked));
    // At most 16: two values of 8 bytes.
    out.push(u8::try_from(length).unwrap_or(0));
}

fn put_number(out: &mut Vec<u8>, value: u64, bytes: usize) {
    out.extend_from_slice(&value.to_be_bytes()[8 - bytes..]);
}

/// The 32-bit name of a field inside an action.
pub(super) fn put_action_field(out: &mut Vec<u8>, field: Field) {
    put_header(out, action_id(field), false, field.wire_bytes());
}

/// The field that a 32-bit name inside an action means.
pub(super) fn read_action_field(read: &mut Reader<'_>) -> Option<Field> {
    let (class, number) = (read.u16()?, read.u8()?);
    read.skip(1)?;
    if number & 1 == 1 { None } else { field_of(class, number >> 1) }
}

/// A field with its whole value, as `set_field` carries it.
pub(super) fn put_value(out: &mut Vec<u8>, field: Field, value: u64) {
    put_header(out, match_id(field), false, field.wire_bytes());
    put_number(out, value, field.wire_bytes());
}

/// Reads what [`put_value`] wrote.
pub(super) fn read_value(read: &mut Reader<'_>) -> Option<(Field, u64)> {
    let (field, value, mask) = read_condition(read)??;
    (mask == field.full_mask()).then_some((field, value))
}

/// A match with its padding.
pub(super) fn put_match(out: &mut Vec<u8>, matches: &Match) {
    let at = out.len();
    put16(out, 1);
    put16(out, 0);
    for condition in matches.conditions() {
        put_condition(out, *condition);
    }
    super::set_length(out, at + 2, at);
    let padded = at + (out.len() - at).next_multiple_of(8);
    out.resize(padded, 0);
}

fn put_condition(out: &mut Vec<u8>, Condition { field, value, mask }: Condition) {
    if field == Field::InPort {
        // 16 bits in Open vSwitch, 32 in OpenFlow.
        put_header(out, match_id(field), false, 4);
        put_number(out, value, 4);
        return;
    }
    let bytes = field.wire_bytes();
    // The fragment bits are two of a byte; unmasked, the other six would be matched too.
    let masked = mask != field.full_mask() || field == Field::IpFrag;
    put_header(out, match_id(field), masked, if masked { 2 * bytes } else { bytes });
    put_number(out, value, bytes);
    if masked {
        put_number(out, mask, bytes);
    }
}

/// A match and its padding: `None` if the bytes are broken, `Some(None)` if it has a field that we never use.
pub(super) fn read_match(read: &mut Reader<'_>) -> Option<Option<Match>> {
    let (kind, length) = (read.u16()?, usize::from(read.u16()?));
    let content = length.checked_sub(4)?;
    let mut fields = Reader(read.take(content)?);
    read.skip(length.next_multiple_of(8) - length)?;
    let mut matches = Some(Match::any());
    while !fields.0.is_empty() {
        let condition = read_condition(&mut fields)?;
        matches =
            matches.zip(condition).map(|(matches, (field, value, mask))| matches.masked(field, value, mask));
    }
    Some(if kind == 1 { matches } else { None })
}

/// One field: outer `None` if the bytes are broken, inner if we never use it.
fn read_condition(read: &mut Reader<'_>) -> Option<Option<(Field, u64, u64)>> {
    let (class, number, length) = (read.u16()?, read.u8()?, usize::from(read.u8()?));
    let masked = number & 1 == 1;
    let mut content = Reader(read.take(length)?);
    let field = if class == EXPERIMENTER {
        // The only one that OVS uses for a field of ours.
        (content.u32()? == ONF && number >> 1 == 42).then_some(Field::TcpFlags)
    } else {
        field_of(class, number >> 1)
    };
    let Some(field) = field else { return Some(None) };
    let bytes = if masked { content.0.len() / 2 } else { content.0.len() };
    if bytes == 0 || bytes > 8 {
        return None;
    }
    let value = content.number(bytes)?;
    let mask = if masked { content.number(bytes)? } else { field.full_mask() };
    if value & !field.full_mask() != 0 {
        return Some(None);
    }
    Some(Some((field, value, mask & field.full_mask())))
}
