//! locate and deliver: from an exact (VPC, address) to a port.
//!
//! `locate` assumes the VPC register and, for routed packets, the next hop. Promises: the receiver's facts are in the
//! registers and the frame carries its MAC. A neighbour within the subnet is found only if sender and receiver share the
//! subnet *and* the frame was addressed to the receiver's MAC. What a route sends to an interface arrives only where the
//! source/destination check is off. Nothing else is found: unknown and broadcast addresses are dropped. (Flows to other
//! nodes are `tunnel.rs`'s.)
//!
//! `deliver` assumes an allowed packet and the port in its register.

use gon_types::MacAddr;

use super::{Sink, bits, go, reg};
use crate::flow::{Action, Field, Match, mac_bits};
use crate::pipeline::{NEXT_HOP, PHASE_IN, POLICY, ROUTED, SUBNET, Stage, TO_PORT, VIA, VPC, ZONE, low16};
use crate::plan::{Plan, Port};

pub(super) fn flows(plan: &Plan<'_>, sink: &mut Sink) {
    let stage = Stage::Locate;
    for port in &plan.ports {
        let (id, mac) = (port.spec.id, mac_bits(port.spec.mac));
        let in_vpc = || Match::ip().with(VPC, port.vpc.key.into());
        for ip in port.spec.addresses() {
            let neighbour = in_vpc()
                .with(SUBNET, bits(port.subnet.base()))
                .slice(ROUTED, 0)
                .with(Field::EthDst, mac)
                .addr(Field::IpDst, ip);
            sink.of(stage, id, 100, neighbour, arrive(port, Stage::GroupIn, false));

            let routed = |via| in_vpc().addr(NEXT_HOP, ip).slice(ROUTED, 1).slice(VIA, via);
            sink.of(stage, id, 100, routed(0), arrive(port, Stage::Enter, true));
            if !port.spec.source_dest_check {
                sink.of(stage, id, 100, routed(1), arrive(port, Stage::Enter, true));
            }
        }
    }
    let out = vec![Action::OutputTo(low16(TO_PORT))];
    sink.fixed(Stage::Deliver, 100, Match::ip().slice(PHASE_IN, 1), out);
}

pub(super) fn arrive(port: &Port<'_>, next: Stage, routed: bool) -> Vec<Action> {
    let no = port.spec.port_no;
    let mut actions = vec![];
    if routed {
        actions.push(Action::Set(Field::EthSrc, mac_bits(MacAddr::ROUTER)));
        actions.push(Action::Set(Field::EthDst, mac_bits(port.spec.mac)));
        actions.push(reg(SUBNET, u32::from(port.subnet.base())));
    }
    actions.extend([
        reg(TO_PORT, no),
        reg(POLICY, port.policy),
        reg(ZONE, no),
        Action::Load(PHASE_IN, 1),
        go(next),
    ]);
    actions
}
