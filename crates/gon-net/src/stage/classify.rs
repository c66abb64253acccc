//! classify: where does it come from?
//!
//! Assumes nothing: this is where packets enter. Promises to the stages after: the packet has no VLAN tag (an `ip` match
//! would match tagged frames too, and let copies of legal frames through) and is no IPv4 with protocol 0 (CVE-2023-1668);
//! from a guest, the port's facts are in the registers. A closed port's packets end here.

use super::{Sink, go, reg};
use crate::flow::{Field, Match};
use crate::pipeline::{FROM_PORT, POLICY, SUBNET, Stage, VPC, ZONE};
use crate::plan::Plan;
use crate::{compile::Reason, service};

pub(super) fn flows(plan: &Plan<'_>, sink: &mut Sink) {
    let stage = Stage::Classify;
    sink.fixed(stage, 1000, Match::any().masked(Field::VlanTci, 0x1000, 0x1000), vec![]);
    sink.fixed(stage, 900, Match::ip_proto(0), vec![]);
    sink.fixed(stage, 100, Match::any().in_port(service::META_PORT), vec![go(Stage::LocalReply)]);
    if plan.facts.external.is_some() {
        sink.fixed(stage, 100, Match::any().in_port(service::EXT_PORT), vec![go(Stage::External)]);
    }
    for port in &plan.ports {
        let no = u64::from(port.spec.port_no);
        sink.of(
            stage,
            port.spec.id,
            100,
            Match::any().in_port(port.spec.port_no.into()),
            vec![
                reg(VPC, port.vpc.key),
                reg(SUBNET, u32::from(port.subnet.base())),
                reg(FROM_PORT, no),
                reg(POLICY, port.policy),
                reg(ZONE, no),
                go(Stage::Admit),
            ],
        );
    }
    for closed in &plan.closed {
        // A number out of range, or used by several, could be another port's: then only the default drop speaks.
        if !matches!(closed.reason, Reason::BadPortNumber | Reason::SharedPortNumber) {
            let matches = Match::any().in_port(closed.port_no.into());
            sink.of(stage, closed.port, 100, matches, vec![]);
        }
    }
}
