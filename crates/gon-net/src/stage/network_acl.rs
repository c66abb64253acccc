//! edge, acl-out, enter, acl-in: does the packet cross the edge of a subnet, and may it?
//!
//! `edge` assumes from the sender's group stage: allowed to be sent. What is addressed to a neighbour's MAC stays within the
//! subnet, which no ACL and no route concern. What is addressed to the router leaves it, by way of the subnet's ACL and the
//! route table; unless its destination is in the subnet's own block and the local route serves that: then the guest has
//! only made a detour, and no ACL is asked at either end. `enter` assumes that `locate` has put the receiver's subnet into
//! the register, and finds its ACL. Both promise the ACL's number to the stages after them.
//!
//! `acl-out` and `acl-in` are stateless lists: for each ACL in use, once, however many subnets and ports it guards, one flow per
//! entry and port mask, whose priority is the entry's number turned around. So the lowest number that matches decides, an
//! entry that comes or goes touches its own flows and no others, and the end of each list (EC2's `*`) drops. They promise
//! that what they pass is unchanged. Neither looks at connection tracking: an answer needs an entry of its own, and a new
//! entry counts for packets of connections that are open. They judge private addresses, as guests know them: of what goes
//! out before the gateway's translation, of what comes in after it. What the node answers itself (DHCP, DNS, metadata, ARP,
//! the router's echo) has branched off in `local` before.
//!
//! Fragments: only the first one has ports and ICMP types. A later one is judged by protocol and address, and passes only if
//! a first one would, whatever its ports: an entry that denies some ports holds it up, one that allows some does not let it
//! through. It must not be let through more easily, though without its first fragment no receiver can make anything of it: under
//! the userspace datapath the sender's zone has committed the first one already when a list drops it, and Open vSwitch still
//! holds it there; the fragments after it would complete the packet and take the first one with them past the list. (Under
//! the kernel's datapath conntrack has put packets together that come from guests of this node; out of tunnels fragments
//! come here with it, too.)

use gon_proto::{AclAction, AclEntrySpec, Direction};
use gon_types::{MacAddr, PortRange};

use super::policy::masks;
use super::{LATER_FRAGMENT, Sink, bits, go, reg};
use crate::flow::{Action, Field, IP_TCP, Match, mac_bits};
use crate::pipeline::{ACL, FROM_SUBNET, SUBNET, Stage, VPC, acl_priority};
use crate::plan::{Acl, Plan, Subnet};

/// The end of a list.
const REST: u16 = 100;

pub(super) fn flows(plan: &Plan<'_>, sink: &mut Sink) {
    let routed = || Match::ip().with(Field::EthDst, mac_bits(MacAddr::ROUTER));
    sink.fixed(Stage::Edge, 60, routed(), vec![]);
    sink.fixed(Stage::Edge, 50, Match::ip(), vec![go(Stage::Locate)]);
    for subnet in plan.subnets.values() {
        let id = subnet.spec.id;
        let of = |matches: Match| matches.with(VPC, subnet.vpc.key.into()).with(SUBNET, bits(subnet.base()));
        let ask = |list: Stage, without: Stage| match subnet.spec.acl {
            None => Some(vec![go(without)]),
            Some(acl) => plan.acls.get(&acl).map(|acl| vec![reg(ACL, acl.number), go(list)]),
        };
        if serves_itself(subnet) {
            let inside = |matches: Match| of(matches).net(Field::IpDst, subnet.spec.cidr_block.trunc());
            let detour = vec![reg(FROM_SUBNET, u32::from(subnet.base())), go(Stage::Route)];
            sink.of(Stage::Edge, id, 200, inside(routed()), detour);
            let back = inside(Match::ip()).with(FROM_SUBNET, bits(subnet.base()));
            sink.of(Stage::Enter, id, 200, back, vec![go(Stage::GroupIn)]);
        }
        if let Some(actions) = ask(Stage::AclOut, Stage::Route) {
            sink.of(Stage::Edge, id, 100, of(routed()), actions);
        }
        if let Some(actions) = ask(Stage::AclIn, Stage::GroupIn) {
            sink.of(Stage::Enter, id, 100, of(Match::ip()), actions);
        }
    }
    for acl in plan.acls.values() {
        list(acl, Direction::Outbound, sink);
        list(acl, Direction::Inbound, sink);
    }
}

/// Whether the local route serves all of the subnet's own block: no route that is longer than the VPC's block reaches into
/// it.
fn serves_itself(subnet: &Subnet<'_>) -> bool {
    let block = subnet.spec.cidr_block.trunc();
    let local = subnet.vpc.cidr_blocks.iter().filter(|b| b.contains(&block)).map(|b| b.prefix_len()).max();
    let diverts = |route: &gon_proto::RouteSpec| {
        let to = route.destination.trunc();
        (to.contains(&block) || block.contains(&to)) && Some(to.prefix_len()) > local
    };
    !subnet.spec.routes.iter().any(diverts)
}

fn list(acl: &Acl<'_>, direction: Direction, sink: &mut Sink) {
    let (stage, next, side) = match direction {
        Direction::Outbound => (Stage::AclOut, Stage::Route, Field::IpDst),
        Direction::Inbound => (Stage::AclIn, Stage::GroupIn, Field::IpSrc),
    };
    let all = || Match::ip().with(ACL, acl.number.into());
    for entry in acl.spec.entries.iter().filter(|e| e.direction == direction) {
        let base = all().net(side, entry.cidr.trunc());
        for matches in traffic(entry, &base) {
            let actions = match entry.action {
                AclAction::Allow => vec![go(next)],
                AclAction::Deny => vec![],
            };
            sink.of(stage, acl.spec.id, acl_priority(entry.number), matches, actions);
        }
    }
    sink.of(stage, acl.spec.id, REST, all(), Vec::<Action>::new());
}

/// Protocol, ports and ICMP messages of an entry as matches.
fn traffic(entry: &AclEntrySpec, base: &Match) -> Vec<Match> {
    let Some(protocol) = entry.protocol else { return vec![base.clone()] };
    let all = base.clone().with(Field::IpProto, protocol.into());
    // What a later fragment has in the place of ports is no port: a match for port 0 would take it for one.
    let whole = || all.clone().masked(Field::IpFrag, 0, LATER_BIT);
    let mut some: Vec<Match> = match (entry.ports, entry.icmp) {
        (Some(range), _) if range != PortRange::ALL => {
            let field = if protocol == IP_TCP { Field::TcpDst } else { Field::UdpDst };
            masks(range)
                .into_iter()
                .map(|(port, mask)| whole().masked(field, port.into(), mask.into()))
                .collect()
        }
        (_, Some(icmp)) => {
            let message = whole().with(Field::IcmpType, icmp.icmp_type.into());
            vec![match icmp.code {
                None => message,
                Some(code) => message.with(Field::IcmpCode, code.into()),
            }]
        }
        _ => return vec![all],
    };
    if entry.action == AclAction::Deny {
        some.push(all.clone().with(Field::IpFrag, LATER_FRAGMENT));
    }
    some
}

/// The bit of [`Field::IpFrag`] that only later fragments have.
const LATER_BIT: u64 = 2;
