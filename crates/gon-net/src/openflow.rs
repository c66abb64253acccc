//! OpenFlow 1.4 as Open vSwitch speaks it: the few messages the agent sends, and what it may get back.
//!
//! A session: send [`hello`], read until [`Incoming::Hello`]; answer every [`Incoming::EchoRequest`] with
//! [`echo_reply`]; to change flows send [`bundle`], which ends in a commit, and wait for
//! [`Incoming::BundleReply`] with [`BundleStep::Commit`], or an [`Incoming::Error`] (the bundle is void then).

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

/// Greeting.
#[must_use]
pub fn hello(_xid: u32) -> Vec<u8> {
    Vec::new()
}
/// Are you there?
#[must_use]
pub fn echo_request(_xid: u32) -> Vec<u8> {
    Vec::new()
}
/// Yes; `payload` is the request's.
#[must_use]
pub fn echo_reply(_xid: u32, _payload: &[u8]) -> Vec<u8> {
    Vec::new()
}
/// Answer when all before is done.
#[must_use]
pub fn barrier_request(_xid: u32) -> Vec<u8> {
    Vec::new()
}
/// One change, outside any bundle.
#[must_use]
pub fn flow_mod(_xid: u32, _change: FlowMod<'_>) -> Vec<u8> {
    Vec::new()
}
/// All changes as one atomic, ordered bundle: open, the changes, commit. Every message carries `xid`.
#[must_use]
pub fn bundle(_xid: u32, _bundle: u32, _changes: &[FlowMod<'_>]) -> Vec<u8> {
    Vec::new()
}
/// All flows of the switch whose cookie agrees with `cookie` in the bits of `mask` (0, 0: all).
#[must_use]
pub fn flow_stats_request(_xid: u32, _cookie: u64, _mask: u64) -> Vec<u8> {
    Vec::new()
}
/// The first message in `bytes` and its length; `None` if it is not complete yet.
pub fn decode(_bytes: &[u8]) -> Result<Option<(Received, usize)>, WireError> {
    Ok(None)
}
