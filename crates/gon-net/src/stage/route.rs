//! route and arrival: effective route tables, longest prefix first.
//!
//! `route` assumes an allowed packet of the sender's subnet (registers) addressed to the router. Promises: one hop less to
//! live (none left: to the agent, which tells the sender; not of errors and later fragments, RFC 1812 §4.3.2.7, and not of what
//! somebody else has sent by way of the port), the next hop in its register, and the packet on its way to `locate` (within the VPC) or to
//! `gateway` (out). A gateway that is not the VPC's attached one, a target that is gone, and the absence of a route are
//! black holes.
//!
//! `arrival` reads the *receiver's* table for a packet from outside, by its source: only what an answer could leave
//! through the gateway for comes in. It also refuses sources that claim to be inside the VPC.
//!
//! Priority: 1000 + 8 per bit of prefix, + 4 for local routes, which win over a route for the same block.

use gon_proto::{RouteTarget, VpcSpec};
use gon_types::id::InternetGatewayId;
use ipnet::Ipv4Net;

use super::{LATER_FRAGMENT, Sink, bits, go, reg};
use crate::flow::{Action, Field, Match, Slice, mac_bits};
use crate::pipeline::{ASKER, ASKS, NEXT_HOP, ROUTED, SUBNET, Stage, VIA, VPC};
use crate::plan::{IMPOSSIBLE, Plan, Subnet};
use crate::service::{EXPIRED_MAC, ICMP_ERRORS, META_PORT};

pub(super) fn flows(plan: &Plan<'_>, sink: &mut Sink) {
    for ttl in [0, 1] {
        let spent = |matches: Match| matches.with(Field::IpTtl, ttl);
        sink.fixed(Stage::Route, 6000, spent(Match::ip()), vec![]);
        sink.fixed(Stage::Route, 6100, spent(Match::ip()).slice(ASKS, 1), tell());
        let later = spent(Match::ip()).with(Field::IpFrag, LATER_FRAGMENT);
        sink.fixed(Stage::Route, 6200, later, vec![]);
        for kind in ICMP_ERRORS {
            let error = spent(Match::icmp()).with(Field::IcmpType, kind.into());
            sink.fixed(Stage::Route, 6200, error, vec![]);
        }
    }
    for net in IMPOSSIBLE {
        sink.fixed(Stage::Route, 6500, Match::ip().net(Field::IpDst, net), vec![]);
    }
    for subnet in plan.subnets.values() {
        of_subnet(plan, subnet, sink);
    }
}

/// To the agent, with the address by which it knows the sender.
fn tell() -> Vec<Action> {
    vec![
        Action::Set(Field::EthSrc, 0),
        Action::Move { from: Slice::new(ASKER, 0, 32), to: Slice::new(Field::EthSrc, 0, 32) },
        Action::Set(Field::EthDst, mac_bits(EXPIRED_MAC)),
        Action::Output(META_PORT),
    ]
}

fn priority(net: Ipv4Net, local: bool) -> u16 {
    1000 + u16::from(net.prefix_len()) * 8 + if local { 4 } else { 0 }
}

/// Whether a route to this gateway leads anywhere: attached, and this node has an outside.
fn leads_out(plan: &Plan<'_>, vpc: &VpcSpec, gateway: InternetGatewayId) -> bool {
    plan.facts.external.is_some() && vpc.internet_gateway == Some(gateway)
}

fn of_subnet(plan: &Plan<'_>, subnet: &Subnet<'_>, sink: &mut Sink) {
    let id = subnet.spec.id;
    let here = |field, net| {
        Match::ip().with(VPC, subnet.vpc.key.into()).with(SUBNET, bits(subnet.base())).net(field, net)
    };
    for block in &subnet.vpc.cidr_blocks {
        let local = vec![
            Action::DecTtl,
            Action::Load(ROUTED, 1),
            Action::copy(Field::IpDst, NEXT_HOP),
            go(Stage::Locate),
        ];
        let priority = priority(*block, true);
        sink.of(Stage::Route, id, priority, here(Field::IpDst, block.trunc()), local);
        sink.of(Stage::Arrival, id, priority, here(Field::IpSrc, block.trunc()), vec![]);
    }
    for route in &subnet.spec.routes {
        let (out, back) = match &route.target {
            RouteTarget::InternetGateway(gateway) if leads_out(plan, subnet.vpc, gateway.id) => {
                (vec![Action::DecTtl, go(Stage::Gateway)], vec![go(Stage::Locate)])
            }
            RouteTarget::Interface { private_ip } => (
                vec![
                    Action::DecTtl,
                    Action::Load(ROUTED, 1),
                    Action::Load(VIA, 1),
                    reg(NEXT_HOP, u32::from(*private_ip)),
                    go(Stage::Locate),
                ],
                vec![],
            ),
            RouteTarget::InternetGateway(_) | RouteTarget::Blackhole => (vec![], vec![]),
        };
        let priority = priority(route.destination, false);
        let net = route.destination.trunc();
        sink.of(Stage::Route, id, priority, here(Field::IpDst, net), out);
        sink.of(Stage::Arrival, id, priority, here(Field::IpSrc, net), back);
    }
}
