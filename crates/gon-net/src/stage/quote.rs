//! The detour of ICMP errors through the agent, before `public`.
//!
//! "Fragmentation needed", "time exceeded" and "unreachable" quote the packet that they are about. Between a guest and the
//! outside that packet bears the guest's other address: from outside the public one, which the guest does not know it has
//! and conntrack has never seen; from the guest the private one, which nobody outside knows. No action of Open vSwitch
//! reaches a quote, so the agent rewrites it (`gon-agent`'s `quote`). Without this there is no path MTU discovery.
//!
//! Assumes public addresses outside, a guest's put there by `gateway`; so the agent can tell by them whose packet it is.
//! Promises: what comes back from the agent goes on in `public` as if it had not been away: toward a guest it is judged by
//! conntrack and groups as related to its connection, or dropped; from a guest it has been, before it came here. What the
//! agent refuses, or is not there to take, is lost, as ICMP may be.

use gon_types::MacAddr;

use super::{Sink, go};
use crate::flow::{Action, Field, Match, mac_bits};
use crate::pipeline::{FROM_PORT, QUOTED, Stage};
use crate::plan::Plan;
use crate::service::{ICMP_ERRORS, META_PORT, QUOTE_MAC};

pub(super) fn flows(plan: &Plan<'_>, sink: &mut Sink) {
    if plan.facts.external.is_none() {
        return;
    }
    let agent = mac_bits(QUOTE_MAC);
    let translated = Match::any().in_port(META_PORT).with(Field::EthSrc, agent);
    sink.fixed(Stage::Classify, 110, translated, vec![Action::Load(QUOTED, 1), go(Stage::Public)]);
    for kind in ICMP_ERRORS {
        // In fragments it would be none that anybody sends.
        let error = Match::icmp().with(Field::IpFrag, 0).with(Field::IcmpType, kind.into()).slice(QUOTED, 0);
        let to_agent = |from| {
            vec![
                Action::Set(Field::EthSrc, from),
                Action::Set(Field::EthDst, agent),
                Action::Output(META_PORT),
            ]
        };
        let comes = error.clone().with(FROM_PORT, 0);
        sink.fixed(Stage::Public, 160, comes, to_agent(mac_bits(MacAddr::ROUTER)));
        sink.fixed(Stage::Public, 150, error, to_agent(agent));
    }
}
