//! What protects the host from its guests, and lets them out: the ruleset of [`gon_net::netfilter`], and deafness on the
//! devices that guests are behind.
//!
//! With the userspace datapath the host's own network stack hears every frame that a guest sends on its device, beside
//! the switch. What a guest addresses to the host's stack (a broadcast frame is enough, whatever address is in it) must
//! not be heard: ARP is off on the device ([`gon_driver::tap`]), IPv6 too, and IPv4 is dropped here, by the device's
//! group, before connection tracking. The kernel datapath takes the frames away before; there the rule never matches.

use std::net::Ipv4Addr;

use gon_driver::netlink::GROUP;
use gon_net::netfilter::{Device, HostGuard, render, render_tunnel};
use gon_net::service;
use ipnet::Ipv4Net;

use super::{ExternalConfig, Uplink};

/// The whole ruleset, as one transaction. `peers` are the other nodes, `taken` is the device that the switch has taken over.
#[must_use]
pub fn ruleset(external: Option<&ExternalConfig>, tunnels: Option<(&[Ipv4Addr], Option<&str>)>) -> String {
    let peers = tunnels.map(|(peers, _)| peers).unwrap_or_default();
    let guard = external.and_then(|external| host_guard(external, peers));
    let mut text = guard.map(|guard| render(&guard)).unwrap_or_default();
    if text.is_empty() {
        text = gon_net::netfilter::render_removal();
    }
    if let Some((peers, taken)) = tunnels {
        text.push_str(&render_tunnel(peers, taken.and_then(Device::new).as_ref()));
    }
    let chain = "inet gon taps";
    text.push_str("add table inet gon\n");
    text.push_str(&format!("add chain {chain} {{ type filter hook prerouting priority -310; }}\n"));
    text.push_str(&format!("flush chain {chain}\nadd rule {chain} iifgroup {GROUP} counter drop\n"));
    text
}

fn host_guard(external: &ExternalConfig, peers: &[Ipv4Addr]) -> Option<HostGuard> {
    Some(HostGuard {
        meta: Device::new(service::META_DEVICE)?,
        ext: Device::new(service::EXT_DEVICE)?,
        pool: pool(external.gateway),
        reachable: external.reachable.clone(),
        servers: peers.to_vec(),
        control: external.control.clone(),
        open: external.uplink != Uplink::Host,
        masquerade: external.masquerade,
    })
}

/// The block that a gateway address with its prefix is in.
#[must_use]
pub fn pool(gateway: Ipv4Net) -> Ipv4Net {
    gateway.trunc()
}
