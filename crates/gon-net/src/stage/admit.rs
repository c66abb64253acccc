//! admit: port security. A guest sends as itself or not at all.
//!
//! Assumes from `classify`: untagged, from a port that is open. Promises to the stages after: the Ethernet source is the
//! port's; an IPv4 source is one of the port's addresses, of which local services are told which it is (or 0.0.0.0 in a DHCP request to the broadcast address; or anything a
//! host may be, if the port's source check is off); an ARP packet speaks for the port's own addresses; nothing here is a
//! DHCP server. All else (IPv6, LLDP, other EtherTypes, tagged, forged) is dropped.
//!
//! Fragments pass, if the first of them shows its ports (the agent's greeting makes the switch show them); one too short
//! for that is dropped, and then the rest of its packet is worth nothing. The kernel datapath puts fragments together when
//! they are looked up in conntrack, the userspace datapath tracks them together but passes them on one by one; `policy`
//! knows both. What is answered by `local` is never a fragment.

use super::{ARP_REQUEST, FIRST_FRAGMENT, Sink, bits, go, reg};
use crate::flow::{Field, Match};
use crate::pipeline::{ASKER, Stage};
use crate::plan::{IMPOSSIBLE, Plan};
use crate::service::{self, DHCP_CLIENT_UDP, DHCP_SERVER_UDP};

pub(super) fn flows(plan: &Plan<'_>, sink: &mut Sink) {
    let stage = Stage::Admit;
    let pass = || vec![go(Stage::Local)];
    sink.fixed(stage, 200, Match::udp().with(Field::UdpSrc, DHCP_SERVER_UDP.into()), vec![]);
    sink.fixed(stage, 200, Match::udp().with(Field::UdpDst, DHCP_CLIENT_UDP.into()), vec![]);
    for (matches, port) in [(Match::tcp(), Field::TcpSrc), (Match::udp(), Field::UdpSrc)] {
        let portless = matches.with(Field::IpFrag, FIRST_FRAGMENT).with(port, 0);
        sink.fixed(stage, 200, portless, vec![]);
    }
    for port in &plan.ports {
        let spec = port.spec;
        let from = |matches: Match| matches.in_port(spec.port_no.into()).mac(Field::EthSrc, spec.mac);
        let arp = || from(Match::arp()).mac(Field::ArpSha, spec.mac);
        let known = |n| service::source(spec.port_no, n).map(|source| reg(ASKER, bits(source)));
        for (n, address) in spec.addresses().enumerate() {
            // "Who has my own address?": nobody else, so silence. An answer would make the guest refuse its address.
            let own = Match::arp().in_port(spec.port_no.into()).addr(Field::ArpTpa, address);
            sink.of(stage, spec.id, 150, own, vec![]);
            sink.of(stage, spec.id, 100, arp().addr(Field::ArpSpa, address), pass());
            let itself = from(Match::ip()).addr(Field::IpSrc, address);
            sink.of(stage, spec.id, 100, itself, known(n).into_iter().chain(pass()).collect());
        }
        // Probes before an address is taken (RFC 5227).
        let probe = arp().with(Field::ArpSpa, 0).with(Field::ArpOp, ARP_REQUEST);
        sink.of(stage, spec.id, 100, probe, pass());
        let discover = from(Match::udp())
            .with(Field::IpSrc, 0)
            .with(Field::IpDst, u32::MAX.into())
            .with(Field::UdpSrc, DHCP_CLIENT_UDP.into())
            .with(Field::UdpDst, DHCP_SERVER_UDP.into());
        sink.of(stage, spec.id, 100, discover, known(0).into_iter().chain(pass()).collect());
        if !spec.source_dest_check {
            for net in IMPOSSIBLE {
                sink.of(stage, spec.id, 95, from(Match::ip()).net(Field::IpSrc, net), vec![]);
            }
            sink.of(stage, spec.id, 90, from(Match::ip()), pass());
        }
    }
}
