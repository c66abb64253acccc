//! external: what comes in from outside.
//!
//! Assumes nothing of the sender. Promises to `public`: an IPv4 packet to the router's MAC, with a source that can exist
//! outside (not link-local, loopback, multicast, and not one of this node's own public addresses), one hop less to live.
//! ARP requests for public addresses in use are answered here; nothing else is.

use gon_types::MacAddr;

use super::{Sink, answer_arp, arp_request, go};
use crate::flow::{Action, Field, Match, mac_bits};
use crate::pipeline::Stage;
use crate::plan::{IMPOSSIBLE, Plan};

pub(super) fn flows(plan: &Plan<'_>, sink: &mut Sink) {
    if plan.facts.external.is_none() {
        return;
    }
    let stage = Stage::External;
    for net in IMPOSSIBLE {
        sink.fixed(stage, 300, Match::ip().net(Field::IpSrc, net), vec![]);
    }
    for ttl in [0, 1] {
        sink.fixed(stage, 200, Match::ip().with(Field::IpTtl, ttl), vec![]);
    }
    let to_router = Match::ip().with(Field::EthDst, mac_bits(MacAddr::ROUTER));
    sink.fixed(stage, 100, to_router, vec![Action::DecTtl, go(Stage::Public)]);
    for port in &plan.ports {
        if let Some(public) = port.public(plan.facts.external.as_ref()) {
            let id = port.spec.id;
            sink.of(stage, id, 250, Match::ip().addr(Field::IpSrc, public), vec![]);
            sink.of(stage, id, 200, arp_request(public), answer_arp(MacAddr::ROUTER));
        }
    }
}
