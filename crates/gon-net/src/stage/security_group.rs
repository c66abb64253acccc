//! group-out, group-in, judge, admitted: security groups, connection-tracked, each port in a zone of its own.
//!
//! Assumes: the zone and the number of the set of groups are in their registers (of the sender, and from `locate` on of
//! the receiver). Promises: only packets go on whose *connection* a rule allows to be begun, by the side that began it.
//!
//! **Every packet is judged by the rules, in both directions.** `judge` finds out from conntrack who began the
//! connection, then asks `policy` about the packet that began it: this one looks the same if it goes the same way; for
//! an answer or an ICMP error `resubmit(,ct)` asks with the addresses and ports of the original direction. An answer passes because the connection it belongs to is allowed, and an ICMP error because the connection
//! it is about is. So a rule that is taken away cuts the connections it had allowed at once, in both directions and
//! without touching the connection table; connections that another rule allows live on.
//!
//! TCP, UDP and ICMP that conntrack calls invalid is dropped. Other protocols (GRE, ESP, …) are tracked by their addresses
//! alone, and a rule for all protocols is about them; what conntrack cannot make out of them passes statelessly, each
//! direction by a rule of its own.

use super::{Sink, go, reg};
use crate::compile::Mirror;
use crate::flow::{Action, Field, IP_ICMP, IP_TCP, IP_UDP, Match, ZoneSource};
use crate::pipeline::ct_state::{INV, NEW, REL, RPL, TRK};
use crate::pipeline::{LENS, MARK_MIRRORED, PHASE_IN, RETRY, Stage, ZONE, lens, low16};
use crate::plan::Plan;

pub(super) fn flows(plan: &Plan<'_>, sink: &mut Sink) {
    for stage in [Stage::GroupOut, Stage::GroupIn] {
        let track = Action::Ct { commit: false, zone: zone(), table: Some(Stage::Judge.table()), mark: None };
        sink.fixed(stage, 100, Match::ip(), vec![track]);
    }
    judge(plan.facts.mirror, sink);
    admitted(plan.facts.mirror, sink);
}

fn zone() -> ZoneSource {
    ZoneSource::Slice(low16(ZONE))
}

/// In state: wanted flags set, unwanted clear.
fn state(matches: Match, set: u64, clear: u64) -> Match {
    matches.masked(Field::CtState, set, set | clear)
}

/// Ask the rules about the packet that began the connection.
const fn ask_about_first() -> Action {
    Action::Resubmit { table: Stage::Policy.table(), ct: true }
}

fn judge(mirror: Mirror, sink: &mut Sink) {
    let stage = Stage::Judge;
    for proto in [IP_TCP, IP_UDP, IP_ICMP] {
        sink.fixed(stage, 300, state(Match::ip_proto(proto), INV | TRK, 0), vec![]);
    }
    for phase_in in [false, true] {
        let phase = |matches: Match| matches.slice(PHASE_IN, phase_in.into());
        let (forward, backward) =
            if phase_in { (lens::INBOUND, lens::OUTBOUND) } else { (lens::OUTBOUND, lens::INBOUND) };
        let untracked = phase(state(Match::ip(), INV | TRK, 0));
        sink.fixed(stage, 200, untracked, vec![reg(LENS, forward), go(Stage::Policy)]);
        let tracked = |set, clear| phase(state(Match::ip(), set | TRK, clear | INV));
        sink.fixed(stage, 100, tracked(0, RPL | REL), vec![reg(LENS, forward), go(Stage::Policy)]);
        sink.fixed(stage, 100, tracked(REL, RPL), vec![reg(LENS, forward), ask_about_first()]);
        sink.fixed(stage, 100, tracked(RPL, 0), vec![reg(LENS, backward), ask_about_first()]);
        if mirror != Mirror::Off {
            // The connection's "first" packet was an answer: who seems to have begun it did not.
            let mark = |matches: Match| matches.with(Field::CtMark, MARK_MIRRORED.into());
            let (forward, backward) = (mirrored(backward), mirrored(forward));
            let seems_first = mark(tracked(0, RPL));
            sink.fixed(stage, 150, seems_first, vec![reg(LENS, forward), ask_about_first()]);
            let seems_reply = mark(tracked(RPL, 0));
            sink.fixed(stage, 150, seems_reply, vec![reg(LENS, backward), ask_about_first()]);
        }
    }
}

const fn mirrored(plain: u64) -> u64 {
    if plain == lens::INBOUND { lens::INBOUND_MIRRORED } else { lens::OUTBOUND_MIRRORED }
}

/// In `policy`, below all rules: no rule allows this to be begun. While [`Mirror::Accepting`], a TCP segment without SYN
/// may be an answer whose question the switch has forgotten: ask once more, about the question.
pub(super) fn second_chance(mirror: Mirror, sink: &mut Sink) {
    if mirror != Mirror::Accepting {
        return;
    }
    const SYN: u64 = 1 << 1;
    for (phase_in, tried, other) in
        [(false, lens::OUTBOUND, lens::INBOUND_MIRRORED), (true, lens::INBOUND, lens::OUTBOUND_MIRRORED)]
    {
        let forgotten = state(Match::tcp(), NEW | TRK, RPL | INV)
            .masked(Field::TcpFlags, 0, SYN)
            .slice(PHASE_IN, phase_in.into())
            .slice(RETRY, 0)
            .with(LENS, tried);
        let again = vec![reg(LENS, other), Action::Load(RETRY, 1), go(Stage::Policy)];
        sink.fixed(Stage::Policy, 10, forgotten, again);
    }
}

fn admitted(mirror: Mirror, sink: &mut Sink) {
    let stage = Stage::Admitted;
    for (phase_in, next) in [(false, Stage::Edge), (true, Stage::Deliver)] {
        let phase = |matches: Match| matches.slice(PHASE_IN, phase_in.into());
        let commit = |mark| Action::Ct { commit: true, zone: zone(), table: None, mark };
        let new = || phase(state(Match::ip(), NEW | TRK, INV));
        sink.fixed(stage, 100, phase(Match::ip()), vec![go(next)]);
        sink.fixed(stage, 200, new(), vec![commit(None), go(next)]);
        if mirror == Mirror::Accepting {
            // The retry flag is for one phase; the receiver's groups begin without it.
            let clear = Action::Load(RETRY, 0);
            let retried = new().slice(RETRY, 1);
            let actions = vec![commit(Some(MARK_MIRRORED)), clear, go(next)];
            sink.fixed(stage, 300, retried, actions);
        }
    }
}
