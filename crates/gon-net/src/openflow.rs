//! OpenFlow 1.4 as Open vSwitch speaks it: the few messages the agent sends, and what it may get back.
//!
//! A session: send [`hello`], read until [`Incoming::Hello`]; answer every [`Incoming::EchoRequest`] with
//! [`echo_reply`]; to change flows send a [`bundle`] and wait for [`Incoming::BundleReply`].

mod action;
mod oxm;

use crate::cookie::Cookie;
use crate::diff::FlowMod;
use crate::flow::Flow;

/// OpenFlow 1.4.
pub const VERSION: u8 = 5;

/// A step of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleStep {
    /// Begin.
    Open,
    /// Do all of it at once, or nothing.
    Commit,
    /// Forget it.
    Discard,
    /// Another control message, by its wire number.
    Other(u16),
}

/// A message from the switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Transaction id: that of the request it answers.
    pub xid: u32,
    /// The message.
    pub message: Incoming,
}

/// What the switch may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// Its greeting; `true` if it speaks OpenFlow 1.4.
    Hello(bool),
    /// To be answered with [`echo_reply`] and the same bytes.
    EchoRequest(Vec<u8>),
    /// Answer to [`echo_request`].
    EchoReply,
    /// A request failed.
    Error(SwitchError),
    /// Everything sent before the barrier is done.
    BarrierReply,
    /// Answer to a step of a bundle.
    BundleReply {
        /// Which bundle.
        bundle: u32,
        /// Which step is done.
        step: BundleStep,
    },
    /// Part of the answer to [`flow_stats_request`].
    FlowStats {
        /// The flows.
        flows: Vec<FlowStats>,
        /// Whether another part follows.
        more: bool,
    },
    /// Anything else, by its type; to be ignored.
    Other(u8),
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("OpenFlow error type {kind} code {code}")]
pub struct SwitchError {
    /// Error type (`OFPET_*`).
    pub kind: u16,
    /// Code within the type.
    pub code: u16,
    /// The beginning of the request.
    pub request: Vec<u8>,
}

/// A flow as the switch reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowStats {
    /// The flow; `None` if it uses something we never send (a stranger's flow).
    pub flow: Option<Flow>,
    /// Its table.
    pub table: u8,
    /// Its cookie, ours or not.
    pub cookie: u64,
    /// Packets matched.
    pub packets: u64,
    /// Bytes matched.
    pub bytes: u64,
}

/// Bytes that are no OpenFlow message: the connection is lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A header that cannot be.
    #[error("bad OpenFlow header")]
    Header,
    /// A message shorter than its type needs.
    #[error("OpenFlow message of type {0} is cut short")]
    Short(u8),
}

const HELLO: u8 = 0;
const ERROR: u8 = 1;
const ECHO_REQUEST: u8 = 2;
const ECHO_REPLY: u8 = 3;
const SET_CONFIG: u8 = 9;
const FLOW_MOD: u8 = 14;
const MULTIPART_REQUEST: u8 = 18;
const MULTIPART_REPLY: u8 = 19;
const BARRIER_REQUEST: u8 = 20;
const BARRIER_REPLY: u8 = 21;
const BUNDLE_CONTROL: u8 = 33;
const BUNDLE_ADD_MESSAGE: u8 = 34;

const HEADER: usize = 8;
const MULTIPART_FLOW: u16 = 1;
/// Nicira's fourth way to treat fragments, besides normal, drop and reassemble.
const FRAGMENTS_NX_MATCH: u16 = 3;
const FLOW_STATS_FIXED: usize = 48;
const INSTRUCTION_APPLY: u16 = 4;
/// All tables, all ports, all groups, no buffer.
const ANY_TABLE: u8 = 0xff;
const ANY: u32 = 0xffff_ffff;
/// Atomic and ordered.
const BUNDLE_FLAGS: u16 = 0b11;

/// Greeting, and how we want fragments: with the ports of first fragments visible to matches. (Open vSwitch hides them
/// unless told; `admit` counts on them to recognise forged DHCP, and drops fragments without any.) The setting is the
/// bridge's, lives as long as ovs-vswitchd, and has no answer.
#[must_use]
pub fn hello(xid: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    // One element: the bitmap of versions, with only ours in it.
    put_message(&mut out, HELLO, xid, |out| {
        put16(out, 1);
        put16(out, 8);
        put32(out, 1 << VERSION);
    });
    put_message(&mut out, SET_CONFIG, xid, |out| {
        put16(out, FRAGMENTS_NX_MATCH);
        put16(out, 0);
    });
    out
}
/// Are you there?
#[must_use]
pub fn echo_request(xid: u32) -> Vec<u8> {
    message(ECHO_REQUEST, xid, |_| ())
}
/// Yes; `payload` is the request's.
#[must_use]
pub fn echo_reply(xid: u32, payload: &[u8]) -> Vec<u8> {
    message(ECHO_REPLY, xid, |out| out.extend_from_slice(payload))
}
/// Answer when all before is done.
#[must_use]
pub fn barrier_request(xid: u32) -> Vec<u8> {
    message(BARRIER_REQUEST, xid, |_| ())
}
/// One change, outside any bundle.
#[must_use]
pub fn flow_mod(xid: u32, change: FlowMod<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    put_flow_mod(&mut out, xid, change);
    out
}
/// An ordered change in one exchange: opens a bundle, puts all changes into it, commits it. Opening and committing carry `xid`,
/// the change at place n carries `xid + 1 + n`. Bundle ids are the sender's choice, unique among those that are open on a
/// connection.
///
/// The switch answers with [`Incoming::BundleReply`] and [`BundleStep::Commit`]: all changes were made at once, but for those
/// that it answered with an [`Incoming::Error`] of their number before. Or with an error of `xid`, after that of the change
/// that could not be made: then none was.
#[must_use]
pub fn bundle(xid: u32, bundle: u32, changes: &[FlowMod<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + changes.len() * 192);
    put_bundle_control(&mut out, xid, bundle, BundleStep::Open);
    for (change, xid) in changes.iter().zip(xid + 1..) {
        put_message(&mut out, BUNDLE_ADD_MESSAGE, xid, |out| {
            put32(out, bundle);
            put16(out, 0);
            put16(out, BUNDLE_FLAGS);
            put_flow_mod(out, xid, *change);
        });
    }
    put_bundle_control(&mut out, xid, bundle, BundleStep::Commit);
    out
}
/// All flows of the switch whose cookie agrees with `cookie` in the bits of `mask` (0, 0: all).
#[must_use]
pub fn flow_stats_request(xid: u32, cookie: u64, mask: u64) -> Vec<u8> {
    message(MULTIPART_REQUEST, xid, |out| {
        put16(out, MULTIPART_FLOW);
        put16(out, 0);
        put32(out, 0);
        out.extend_from_slice(&[ANY_TABLE, 0, 0, 0]);
        put32(out, ANY);
        put32(out, ANY);
        put32(out, 0);
        put64(out, cookie);
        put64(out, mask);
        oxm::put_match(out, &crate::flow::Match::any());
    })
}

fn put_bundle_control(out: &mut Vec<u8>, xid: u32, bundle: u32, step: BundleStep) {
    put_message(out, BUNDLE_CONTROL, xid, |out| {
        put32(out, bundle);
        put16(out, step.request());
        put16(out, BUNDLE_FLAGS);
    });
}

fn put_flow_mod(out: &mut Vec<u8>, xid: u32, change: FlowMod<'_>) {
    const ADD: u8 = 0;
    const DELETE_STRICT: u8 = 4;
    let (command, flow) = match change {
        FlowMod::Add(flow) => (ADD, flow),
        FlowMod::Delete(flow) => (DELETE_STRICT, flow),
    };
    put_message(out, FLOW_MOD, xid, |out| {
        put64(out, if command == ADD { flow.cookie.to_bits() } else { 0 });
        put64(out, 0); // Any cookie: the key alone says which flow.
        out.push(flow.table);
        out.push(command);
        put16(out, 0); // Neither idle
        put16(out, 0); // nor hard timeout.
        put16(out, flow.priority);
        put32(out, ANY);
        put32(out, ANY);
        put32(out, ANY);
        put16(out, 0);
        put16(out, 0);
        oxm::put_match(out, &flow.matches);
        if command == ADD && !flow.actions.is_empty() {
            let at = out.len();
            put16(out, INSTRUCTION_APPLY);
            put16(out, 0);
            put32(out, 0);
            for action in &flow.actions {
                action::put(out, action);
            }
            set_length(out, at + 2, at);
        }
    });
}

/// The first message in `bytes` and its length; `None` if it is not complete yet.
pub fn decode(bytes: &[u8]) -> Result<Option<(Received, usize)>, WireError> {
    let Some(header) = bytes.get(..HEADER) else { return Ok(None) };
    let mut read = Reader(header);
    let (version, kind) = (read.u8().ok_or(WireError::Header)?, read.u8().ok_or(WireError::Header)?);
    let length = usize::from(read.u16().ok_or(WireError::Header)?);
    let xid = read.u32().ok_or(WireError::Header)?;
    if length < HEADER {
        return Err(WireError::Header);
    }
    let Some(body) = bytes.get(HEADER..length) else { return Ok(None) };
    let message = if version == VERSION || kind == HELLO || kind == ERROR {
        decode_body(version, kind, body).ok_or(WireError::Short(kind))?
    } else {
        return Err(WireError::Header);
    };
    Ok(Some((Received { xid, message }, length)))
}

fn decode_body(version: u8, kind: u8, body: &[u8]) -> Option<Incoming> {
    let mut read = Reader(body);
    Some(match kind {
        HELLO => Incoming::Hello(hello_has_our_version(version, read)),
        ERROR => {
            Incoming::Error(SwitchError { kind: read.u16()?, code: read.u16()?, request: read.0.to_vec() })
        }
        ECHO_REQUEST => Incoming::EchoRequest(body.to_vec()),
        ECHO_REPLY => Incoming::EchoReply,
        BARRIER_REPLY => Incoming::BarrierReply,
        BUNDLE_CONTROL => {
            Incoming::BundleReply { bundle: read.u32()?, step: BundleStep::of_reply(read.u16()?) }
        }
        MULTIPART_REPLY => {
            let (part, flags) = (read.u16()?, read.u16()?);
            read.skip(4)?;
            if part != MULTIPART_FLOW {
                return Some(Incoming::Other(kind));
            }
            let mut flows = Vec::new();
            while !read.0.is_empty() {
                let length = usize::from(Reader(read.0).u16()?);
                if length < FLOW_STATS_FIXED {
                    return None;
                }
                flows.push(decode_flow_stats(Reader(read.take(length)?))?);
            }
            Incoming::FlowStats { flows, more: flags & 1 == 1 }
        }
        other => Incoming::Other(other),
    })
}

/// With a version bitmap it decides; without one, every version up to the header's is spoken (OpenFlow 1.3, 7.5.1).
fn hello_has_our_version(version: u8, mut read: Reader<'_>) -> bool {
    while let (Some(kind), Some(length)) = (read.u16(), read.u16()) {
        let Some(element) = usize::from(length).checked_sub(4).and_then(|n| read.take(n)) else { break };
        if kind == 1 {
            return Reader(element).u32().is_some_and(|bits| bits >> VERSION & 1 == 1);
        }
        let pad = usize::from(length).next_multiple_of(8) - usize::from(length);
        if read.skip(pad).is_none() {
            break;
        }
    }
    version >= VERSION
}

fn decode_flow_stats(mut read: Reader<'_>) -> Option<FlowStats> {
    read.skip(2)?;
    let table = read.u8()?;
    read.skip(1 + 8)?;
    let priority = read.u16()?;
    read.skip(2 + 2 + 2 + 2 + 2)?;
    let (cookie, packets, bytes) = (read.u64()?, read.u64()?, read.u64()?);
    let matches = oxm::read_match(&mut read)?;
    // Beyond here a surprise means a stranger's flow, not a broken message.
    let actions = decode_instructions(read);
    let flow = matches
        .zip(actions)
        .map(|(matches, actions)| Flow::new(table, priority, Cookie::foreign(cookie), matches, actions));
    Some(FlowStats { flow, table, cookie, packets, bytes })
}

fn decode_instructions(mut read: Reader<'_>) -> Option<Vec<crate::flow::Action>> {
    if read.0.is_empty() {
        return Some(Vec::new());
    }
    let (kind, length) = (read.u16()?, usize::from(read.u16()?));
    read.skip(4)?;
    let actions = action::read_all(Reader(read.take(length.checked_sub(8)?)?))?;
    (kind == INSTRUCTION_APPLY && read.0.is_empty()).then_some(actions)
}

impl BundleStep {
    const fn request(self) -> u16 {
        match self {
            Self::Open => 0,
            Self::Commit => 4,
            Self::Discard => 6,
            Self::Other(kind) => kind,
        }
    }
    const fn of_reply(kind: u16) -> Self {
        match kind {
            1 => Self::Open,
            5 => Self::Commit,
            7 => Self::Discard,
            other => Self::Other(other),
        }
    }
}

fn message(kind: u8, xid: u32, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    put_message(&mut out, kind, xid, body);
    out
}

fn put_message(out: &mut Vec<u8>, kind: u8, xid: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[VERSION, kind, 0, 0]);
    put32(out, xid);
    body(out);
    set_length(out, at + 2, at);
}

/// Writes the length of what follows `from` at `at`. Lengths are 16 bits; the compiler bounds what could be longer
/// ([`crate::compile::Reason::TooManyRules`]), an echo payload comes from a message of the same limit.
fn set_length(out: &mut [u8], at: usize, from: usize) {
    let length = u16::try_from(out.len() - from).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(at..at + 2) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}
fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}
fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Reads numbers off the front of a slice; `None` when it is too short.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(front)
    }
    fn skip(&mut self, n: usize) -> Option<()> {
        self.take(n).map(|_| ())
    }
    /// A big-endian number of `n` bytes, at most 8.
    fn number(&mut self, n: usize) -> Option<u64> {
        Some(self.take(n)?.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }
    fn u8(&mut self) -> Option<u8> {
        u8::try_from(self.number(1)?).ok()
    }
    fn u16(&mut self) -> Option<u16> {
        u16::try_from(self.number(2)?).ok()
    }
    fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.number(4)?).ok()
    }
    fn u64(&mut self) -> Option<u64> {
        self.number(8)
    }
}

#[cfg(test)]
mod tests;
