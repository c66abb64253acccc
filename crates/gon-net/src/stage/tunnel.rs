//! tunnel-in and encap, with their share of `classify` and `locate`: the same VPC on other nodes.
//!
//! A packet goes to another node as the guest sent it, source MAC included; only the destination MAC is the receiver's.
//! Whether the router was on its way (then time to live is one less already, and the receiver's side of ACLs is asked)
//! is told by the source MAC's "locally administered" bit, which every interface's MAC has: it is cleared on the way if
//! so. Nothing else is needed, so Geneve goes without options and costs no more MTU than VXLAN would.
//!
//! `classify` turns the key into the VPC and the bit into a flag. `tunnel-in` assumes nothing of the sender: key, outer
//! source, inner source MAC and inner source address must together be one interface of the document, as a network of
//! servers can be spoken to by anybody on it. Promises to `locate`: as if the sender had been here and its groups asked, which
//! its own node has done. The receiver's groups are asked here. Unknown keys, unknown nodes and forged senders are dropped
//! by flows that count nothing else.
//!
//! ARP never travels: each node answers for every address it knows of. No packet is ever sent to more than one node, and none
//! that came through a tunnel leaves through one.
//!
//! Datapaths: the kernel's gets the packet decapsulated from the host's UDP stack, so the host's packet filter sees the
//! outer packet first (`netfilter`), and only there; in userspace Open vSwitch takes it from the port of the underlay bridge,
//! before the host. Outer addresses are matched here in both.

use super::{Sink, bits, go, reg};
use crate::flow::{Action, Field, Match, Slice, mac_bits};
use crate::pipeline::{FROM_SUBNET, NEXT_HOP, ROUTED, SUBNET, Stage, VIA, VPC};
use crate::plan::{IMPOSSIBLE, Plan, Remote};
use crate::service::TUNNEL_PORT;

/// The "locally administered" bit of the source MAC.
const LOCAL_BIT: Slice = Slice::new(Field::EthSrc, 41, 1);

pub(super) fn flows(plan: &Plan<'_>, sink: &mut Sink) {
    if plan.facts.overlay.is_none() {
        return;
    }
    let from_tunnel = || Match::any().in_port(TUNNEL_PORT);
    sink.fixed(Stage::Classify, 50, from_tunnel(), vec![]);
    sink.fixed(Stage::Encap, 200, from_tunnel(), vec![]);
    sink.fixed(Stage::Encap, 100, Match::ip(), vec![Action::Output(TUNNEL_PORT)]);
    for vpc in plan.vpcs.values() {
        for routed in [false, true] {
            let matches =
                from_tunnel().with(Field::TunId, vpc.key.into()).slice(LOCAL_BIT, u64::from(!routed));
            let actions = vec![
                reg(VPC, vpc.key),
                Action::Load(ROUTED, routed.into()),
                Action::Load(LOCAL_BIT, 1),
                go(Stage::TunnelIn),
            ];
            sink.of(Stage::Classify, vpc.id, 100, matches, actions);
        }
    }
    for remote in &plan.remotes {
        come(remote, sink);
        leave(plan, remote, sink);
    }
    for port in &plan.ports {
        // The sender's node has routed it and says by the MAC to whom: it need not have the destination address, if a route
        // names an interface. (The next hop is not set, so no other flow is about it.)
        let routed = Match::ip()
            .in_port(TUNNEL_PORT)
            .with(VPC, port.vpc.key.into())
            .slice(ROUTED, 1)
            .mac(Field::EthDst, port.spec.mac);
        let all = if port.spec.source_dest_check {
            port.spec.addresses().map(|address| routed.clone().addr(Field::IpDst, address)).collect()
        } else {
            vec![routed]
        };
        for matches in all {
            let arrive = super::locate::arrive(port, Stage::Enter, true);
            sink.of(Stage::Locate, port.spec.id, 110, matches, arrive);
        }
    }
}

/// From an interface on another node.
fn come(remote: &Remote<'_>, sink: &mut Sink) {
    let (stage, id) = (Stage::TunnelIn, remote.subnet.spec.id);
    let sender = || {
        Match::ip()
            .with(VPC, remote.subnet.vpc.key.into())
            .addr(Field::TunSrc, remote.node)
            .mac(Field::EthSrc, remote.spec.mac)
    };
    let base = u32::from(remote.subnet.base());
    let pass = || vec![reg(SUBNET, base), reg(FROM_SUBNET, base), go(Stage::Locate)];
    sink.of(stage, id, 100, sender().addr(Field::IpSrc, remote.spec.private_ip), pass());
    if !remote.spec.source_dest_check {
        for net in IMPOSSIBLE {
            sink.of(stage, id, 95, sender().net(Field::IpSrc, net), vec![]);
        }
        sink.of(stage, id, 90, sender(), pass());
    }
}

/// To an interface on another node: what `locate` does for a port of this one, except that its groups are asked there.
fn leave(plan: &Plan<'_>, remote: &Remote<'_>, sink: &mut Sink) {
    let (stage, id, ip) = (Stage::Locate, remote.subnet.spec.id, remote.spec.private_ip);
    let in_vpc = || Match::ip().with(VPC, remote.subnet.vpc.key.into());
    let send = |routed| {
        let mut actions = vec![];
        if routed {
            actions.push(Action::Load(LOCAL_BIT, 0));
            actions.push(Action::Set(Field::EthDst, mac_bits(remote.spec.mac)));
        }
        actions.extend([
            Action::Set(Field::TunId, remote.subnet.vpc.key.into()),
            Action::Set(Field::TunDst, bits(remote.node)),
            go(Stage::Encap),
        ]);
        actions
    };
    if plan.subnets.contains_key(&remote.subnet.spec.id) {
        let neighbour = in_vpc()
            .with(SUBNET, bits(remote.subnet.base()))
            .slice(ROUTED, 0)
            .mac(Field::EthDst, remote.spec.mac)
            .addr(Field::IpDst, ip);
        sink.of(stage, id, 100, neighbour, send(false));
    }
    let routed = |via| in_vpc().addr(NEXT_HOP, ip).slice(ROUTED, 1).slice(VIA, via);
    sink.of(stage, id, 100, routed(0), send(true));
    if !remote.spec.source_dest_check {
        sink.of(stage, id, 100, routed(1), send(true));
    }
}
