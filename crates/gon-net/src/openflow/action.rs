//! Actions on the wire: OpenFlow's where it has them, Nicira's extensions for the rest.

use super::{Reader, oxm, put16, put32, put64};
use crate::flow::{Action, Field, Slice, ZoneSource};

const OUTPUT: u16 = 0;
const DEC_TTL: u16 = 24;
const SET_FIELD: u16 = 25;
const EXPERIMENTER: u16 = 0xffff;
const NICIRA: u32 = 0x0000_2320;

const NX_MOVE: u16 = 6;
const NX_LOAD: u16 = 7;
const NX_RESUBMIT_TABLE: u16 = 14;
const NX_OUTPUT_REG: u16 = 15;
const NX_DEC_TTL: u16 = 18;
const NX_CONJUNCTION: u16 = 34;
const NX_CT: u16 = 35;
const NX_CT_CLEAR: u16 = 43;
const NX_RESUBMIT_TABLE_CT: u16 = 44;

/// "Where it came from", as an output port and as a resubmit's port.
const IN_PORT: u32 = 0xffff_fff8;
const IN_PORT_16: u16 = 0xfff8;
const NO_TABLE: u8 = 0xff;
const CT_COMMIT: u16 = 1;

/// Writes one action with its header and padding.
pub(super) fn put(out: &mut Vec<u8>, action: &Action) {
    match action {
        Action::Output(port) => put_output(out, *port),
        Action::InPort => put_output(out, IN_PORT),
        Action::OutputTo(slice) => nicira(out, NX_OUTPUT_REG, |out| {
            put16(out, ofs_nbits(*slice));
            oxm::put_action_field(out, slice.field);
            put16(out, 0);
        }),
        Action::Set(field, value) => padded(out, SET_FIELD, |out| oxm::put_value(out, *field, *value)),
        Action::Load(slice, value) => put_load(out, *slice, *value),
        Action::Move { from, to } => nicira(out, NX_MOVE, |out| {
            put16(out, from.bits.into());
            put16(out, from.start.into());
            put16(out, to.start.into());
            oxm::put_action_field(out, from.field);
            oxm::put_action_field(out, to.field);
        }),
        Action::Ct { commit, zone, table, mark } => nicira(out, NX_CT, |out| {
            put16(out, if *commit { CT_COMMIT } else { 0 });
            match zone {
                ZoneSource::Number(number) => {
                    put32(out, 0);
                    put16(out, *number);
                }
                ZoneSource::Slice(slice) => {
                    oxm::put_action_field(out, slice.field);
                    put16(out, ofs_nbits(*slice));
                }
            }
            out.push(table.unwrap_or(NO_TABLE));
            out.extend_from_slice(&[0; 3]);
            put16(out, 0);
            if let Some(mark) = mark {
                put_load(out, Slice::whole(Field::CtMark), u64::from(*mark));
            }
        }),
        Action::CtClear => nicira(out, NX_CT_CLEAR, |_| ()),
        Action::Resubmit { table, ct } => {
            nicira(out, if *ct { NX_RESUBMIT_TABLE_CT } else { NX_RESUBMIT_TABLE }, |out| {
                put16(out, IN_PORT_16);
                out.push(*table);
            });
        }
        Action::DecTtl => padded(out, DEC_TTL, |_| ()),
        Action::Conjunction { id, clause, of } => nicira(out, NX_CONJUNCTION, |out| {
            // Clauses are counted from 1 by people, from 0 on the wire.
            out.push(clause.saturating_sub(1));
            out.push(*of);
            put32(out, *id);
        }),
    }
}

fn put_output(out: &mut Vec<u8>, port: u32) {
    padded(out, OUTPUT, |out| {
        put32(out, port);
        put16(out, 0);
    });
}

fn put_load(out: &mut Vec<u8>, slice: Slice, value: u64) {
    nicira(out, NX_LOAD, |out| {
        put16(out, ofs_nbits(slice));
        oxm::put_action_field(out, slice.field);
        put64(out, value);
    });
}

fn ofs_nbits(slice: Slice) -> u16 {
    u16::from(slice.start) << 6 | u16::from(slice.bits.saturating_sub(1) & 0x3f)
}

fn nicira(out: &mut Vec<u8>, subtype: u16, body: impl FnOnce(&mut Vec<u8>)) {
    padded(out, EXPERIMENTER, |out| {
        put32(out, NICIRA);
        put16(out, subtype);
        body(out);
    });
}

fn padded(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    put16(out, kind);
    put16(out, 0);
    body(out);
    let end = at + (out.len() - at).next_multiple_of(8);
    out.resize(end, 0);
    super::set_length(out, at + 2, at);
}

/// Reads actions to the end; `None` if there is one that we never send.
pub(super) fn read_all(mut read: Reader<'_>) -> Option<Vec<Action>> {
    let mut actions = Vec::new();
    while !read.0.is_empty() {
        let (kind, length) = (read.u16()?, usize::from(read.u16()?));
        let body = Reader(read.take(length.checked_sub(4)?)?);
        actions.push(read_one(kind, body)?);
    }
    Some(actions)
}

fn read_one(kind: u16, mut read: Reader<'_>) -> Option<Action> {
    match kind {
        OUTPUT => Some(match read.u32()? {
            IN_PORT => Action::InPort,
            port => Action::Output(port),
        }),
        DEC_TTL => Some(Action::DecTtl),
        SET_FIELD => oxm::read_value(&mut read).map(|(field, value)| Action::Set(field, value)),
        EXPERIMENTER if read.u32()? == NICIRA => {
            let subtype = read.u16()?;
            read_nicira(subtype, read)
        }
        _ => None,
    }
}

fn read_nicira(subtype: u16, mut read: Reader<'_>) -> Option<Action> {
    Some(match subtype {
        NX_MOVE => {
            let (bits, from, to) = (read.u16()?, read.u16()?, read.u16()?);
            let bits = u8::try_from(bits).ok()?;
            Action::Move {
                from: slice(oxm::read_action_field(&mut read)?, u8::try_from(from).ok()?, bits)?,
                to: slice(oxm::read_action_field(&mut read)?, u8::try_from(to).ok()?, bits)?,
            }
        }
        NX_LOAD => {
            let slice = read_slice(&mut read)?;
            Action::Load(slice, read.u64()?)
        }
        NX_OUTPUT_REG => Action::OutputTo(read_slice(&mut read)?),
        NX_RESUBMIT_TABLE | NX_RESUBMIT_TABLE_CT if read.u16()? == IN_PORT_16 => {
            Action::Resubmit { table: read.u8()?, ct: subtype == NX_RESUBMIT_TABLE_CT }
        }
        NX_DEC_TTL => Action::DecTtl,
        NX_CT_CLEAR => Action::CtClear,
        NX_CONJUNCTION => {
            let (clause, of, id) = (read.u8()?, read.u8()?, read.u32()?);
            Action::Conjunction { id, clause: clause.checked_add(1)?, of }
        }
        NX_CT => read_ct(read)?,
        _ => return None,
    })
}

fn read_ct(mut read: Reader<'_>) -> Option<Action> {
    let flags = read.u16()?;
    let mut source = Reader(read.take(6)?);
    let zone = if Reader(source.0).u32()? == 0 {
        source.skip(4)?;
        ZoneSource::Number(source.u16()?)
    } else {
        let field = oxm::read_action_field(&mut source)?;
        let (start, bits) = split_ofs_nbits(source.u16()?);
        ZoneSource::Slice(slice(field, start, bits)?)
    };
    let table = read.u8()?;
    read.skip(3)?;
    let alg = read.u16()?;
    let mark = match read_all(read)?.as_slice() {
        [] => None,
        [Action::Load(at, mark)] if *at == Slice::whole(Field::CtMark) => Some(u32::try_from(*mark).ok()?),
        [Action::Set(Field::CtMark, mark)] => Some(u32::try_from(*mark).ok()?),
        _ => return None,
    };
    if flags & !CT_COMMIT != 0 || alg != 0 {
        return None;
    }
    Some(Action::Ct {
        commit: flags & CT_COMMIT == CT_COMMIT,
        zone,
        table: (table != NO_TABLE).then_some(table),
        mark,
    })
}

fn read_slice(read: &mut Reader<'_>) -> Option<Slice> {
    let (start, bits) = split_ofs_nbits(read.u16()?);
    slice(oxm::read_action_field(read)?, start, bits)
}

const fn split_ofs_nbits(ofs_nbits: u16) -> (u8, u8) {
    ((ofs_nbits >> 6) as u8, (ofs_nbits & 0x3f) as u8 + 1)
}

/// A slice that lies within its field.
fn slice(field: Field, start: u8, bits: u8) -> Option<Slice> {
    (bits > 0 && start.checked_add(bits)? <= field.bits()).then_some(Slice { field, start, bits })
}
