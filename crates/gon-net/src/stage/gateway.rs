//! gateway and public: the internet gateway, a stateless one-to-one translation.
//!
//! `gateway` assumes a routed packet whose route leads to the attached gateway. Promises: its source is the port's public
//! address. A port without one has no way out; a packet with another source than the port's own (source check off) has
//! none either.
//!
//! `public` assumes a packet with public addresses, from outside or from `gateway`. Is the destination one of this node's
//! public addresses, of a VPC with a gateway? Then it becomes the private address, and the registers the receiver's, as if
//! it had come from outside: two instances speak over public addresses by the same way as strangers do. Otherwise it
//! leaves the node, or is dropped if it came from there.
//!
//! Fragments: the userspace datapath "corrects" a checksum in later fragments, which have none, and so damages two bytes of
//! their payload when it translates an address (`packet_set_ipv4_addr` of OVS 2.17 to 3.1; the kernel datapath looks first).
//! On the way out a later fragment of TCP or UDP exists only there (the kernel datapath has put it together by now), and is
//! dropped. On the way in the receiver notices by its checksum. So public addresses carry fragmented UDP only with the
//! kernel datapath.
//!
//! ICMP errors quote a packet with the address inside, which a stateless rewrite does not reach: `quote.rs`.

use gon_types::MacAddr;

use super::{LATER_FRAGMENT, Sink, bits, go, reg};
use crate::flow::{Action, Field, IP_TCP, IP_UDP, Match, mac_bits};
use crate::pipeline::{FROM_PORT, NEXT_HOP, ROUTED, SUBNET, Stage, VPC};
use crate::plan::{Plan, Port};
use crate::service::EXT_PORT;

/// "None": so that a packet may leave by the port it came in by (an instance that speaks to its own public address).
const NO_PORT: u64 = 0xffff;

pub(super) fn flows(plan: &Plan<'_>, sink: &mut Sink) {
    let Some(external) = &plan.facts.external else { return };
    sink.fixed(Stage::Public, 60, Match::ip().in_port(EXT_PORT), vec![]);
    let leave = vec![
        Action::Set(Field::EthSrc, mac_bits(MacAddr::ROUTER)),
        Action::Set(Field::EthDst, mac_bits(external.gateway_mac)),
        Action::Output(EXT_PORT),
    ];
    sink.fixed(Stage::Public, 50, Match::ip(), leave);
    for proto in [IP_TCP, IP_UDP] {
        let later = Match::ip_proto(proto).with(Field::IpFrag, LATER_FRAGMENT);
        sink.fixed(Stage::Gateway, 200, later, vec![]);
    }
    for port in &plan.ports {
        let Some(public) = port.public(Some(external)) else { continue };
        let spec = port.spec;
        let own = Match::ip()
            .with(VPC, port.vpc.key.into())
            .with(FROM_PORT, spec.port_no.into())
            .addr(Field::IpSrc, spec.private_ip);
        let become_public = vec![Action::Set(Field::IpSrc, bits(public)), go(Stage::Public)];
        sink.of(Stage::Gateway, spec.id, 100, own, become_public);
        let to_it = Match::ip().addr(Field::IpDst, public);
        sink.of(Stage::Public, spec.id, 100, to_it, become_private(port));
    }
}

/// What comes from outside to a port's public address: now to its private one, in its VPC.
fn become_private(port: &Port<'_>) -> Vec<Action> {
    vec![
        // Its connection in the sender's zone must not be taken for the one in the receiver's.
        Action::CtClear,
        Action::load(Field::InPort, NO_PORT),
        Action::Set(Field::IpDst, bits(port.spec.private_ip)),
        reg(VPC, port.vpc.key),
        reg(SUBNET, u32::from(port.subnet.base())),
        reg(NEXT_HOP, u32::from(port.spec.private_ip)),
        Action::Load(ROUTED, 1),
        go(Stage::Arrival),
    ]
}
