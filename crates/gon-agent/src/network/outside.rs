//! The outside of a node that is one of several: who answers for the public addresses of its guests.
//!
//! Each public address belongs to the node that hosts it, and is routed there on the host as a single address out of
//! [`EXT_DEVICE`]. How the world finds the node is the mode: by ARP on a link ([`Uplink::OnLink`]: the node answers for its
//! guests' addresses, and says so when one arrives), or by routes that others make ([`Uplink::Routed`]). On a node by itself
//! ([`Uplink::Host`]) the whole pool is the host's, and nothing here is needed.
//!
//! A guest that speaks to the public address of a guest on another node leaves by its host like any other packet for the world,
//! and finds the other node the same way.
//!
//! Assumes one owner. Promises that only addresses in use are answered for, and that what an earlier life has left is found
//! and removed by [`Outside::settle`].

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use gon_driver::frames::{FrameSocket, announcement};
use gon_driver::netlink::{self, Netlink, NetlinkError};
use gon_net::Compiled;
use gon_net::service::EXT_DEVICE;
use gon_proto::NodeNetwork;
use ipnet::Ipv4Net;
use tokio::sync::watch;

/// How the world reaches public addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Uplink {
    /// The pool is this host's alone.
    #[default]
    Host,
    /// It is on the link of this device, with other nodes and the world's router.
    OnLink(String),
    /// Others route each address to its node.
    Routed,
}

/// When an arrival is announced: at once, and again for those who missed it.
const ANNOUNCEMENTS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(3)];

/// What is answered for now.
#[derive(Debug, Default)]
pub struct Outside {
    /// `None`: it must be asked, not remembered.
    hosted: Option<BTreeSet<Ipv4Addr>>,
    /// What is to be answered for, for those who announce: an address that has left in the meantime is another node's to
    /// announce.
    current: watch::Sender<BTreeSet<Ipv4Addr>>,
}

/// The public addresses of this node: of ports that are open, in a VPC with a gateway.
#[must_use]
pub fn hosted(document: &NodeNetwork, compiled: &Compiled) -> BTreeSet<Ipv4Addr> {
    let has_gateway = |port: &gon_proto::PortSpec| {
        let subnet = document.subnets.iter().find(|s| s.id == port.subnet);
        let vpc = subnet.and_then(|s| document.vpcs.iter().find(|v| v.id == s.vpc));
        vpc.is_some_and(|v| v.internet_gateway.is_some())
    };
    let open = |port: &&gon_proto::PortSpec| compiled.degraded.iter().all(|d| d.port != port.id);
    let ports = document.ports.iter().filter(open);
    ports.filter(|p| p.public_ip.is_some() && has_gateway(p)).filter_map(|p| p.public_ip).collect()
}

impl Outside {
    /// Forgets what is in force: the devices may be new ones.
    pub fn doubt(&mut self) {
        self.hosted = None;
    }

    /// Follows a change, in as many steps as addresses came and went. Does nothing before [`Outside::settle`] has looked.
    pub async fn follow(
        &mut self,
        uplink: &Uplink,
        device: Option<&str>,
        wanted: BTreeSet<Ipv4Addr>,
        netlink: &Netlink,
    ) -> Result<(), NetlinkError> {
        let (Some(now), false) = (&self.hosted, *uplink == Uplink::Host) else { return Ok(()) };
        if *now == wanted {
            return Ok(());
        }
        self.current.send_replace(wanted.clone());
        let before = self.hosted.take().unwrap_or_default();
        for address in before.difference(&wanted) {
            if let Some(device) = device {
                netlink.remove_proxy(device, *address).await?;
            }
            netlink.remove_host_route(EXT_DEVICE, *address).await?;
        }
        let arrived: Vec<Ipv4Addr> = wanted.difference(&before).copied().collect();
        for address in &arrived {
            // Where it goes first, then who answers for it.
            netlink.ensure_route(EXT_DEVICE, Ipv4Net::from(*address), None).await?;
            if let Some(device) = device {
                netlink.ensure_proxy(device, *address).await?;
            }
        }
        if let Some(device) = device {
            announce(netlink, device, arrived, self.current.subscribe()).await?;
        }
        self.hosted = Some(wanted);
        Ok(())
    }

    /// Makes it so, whatever was there. `pool` is what may be found and removed.
    pub async fn settle(
        &mut self,
        uplink: &Uplink,
        device: Option<&str>,
        pool: Ipv4Net,
        wanted: BTreeSet<Ipv4Addr>,
        netlink: &Netlink,
    ) -> Result<(), NetlinkError> {
        if *uplink == Uplink::Host {
            return Ok(());
        }
        let routed: BTreeSet<_> = netlink.host_routes(EXT_DEVICE).await?.into_iter().collect();
        let mut here = routed.clone();
        if let Some(device) = device {
            reach_pool(netlink, device, pool).await?;
            // Asked for a guest's address, the kernel would else think it over for up to a second.
            let _ = netlink::set_sysctl(&format!("net/ipv4/neigh/{device}/proxy_delay"), "0");
            let proxies: BTreeSet<_> =
                netlink.proxies(device).await?.into_iter().filter(|a| pool.contains(a)).collect();
            for stale in proxies.difference(&wanted) {
                netlink.remove_proxy(device, *stale).await?;
            }
            here.retain(|address| proxies.contains(address));
        }
        for stale in routed.difference(&wanted) {
            netlink.remove_host_route(EXT_DEVICE, *stale).await?;
        }
        here.retain(|address| wanted.contains(address));
        self.hosted = Some(here);
        self.follow(uplink, device, wanted, netlink).await
    }
}

/// Ends answering for whatever is answered for. Before the devices go, for they are how it is known.
pub async fn give_up(netlink: &Netlink) -> Result<(), NetlinkError> {
    if netlink.link(EXT_DEVICE).await?.is_some() {
        let links = netlink.links().await?;
        for address in netlink.host_routes(EXT_DEVICE).await? {
            for link in &links {
                netlink.remove_proxy(&link.name, address).await?;
            }
        }
    }
    netlink.remove_own_routes().await
}

/// Makes the host find the other addresses of the pool on the link, if none of its own addresses there says so.
async fn reach_pool(netlink: &Netlink, device: &str, pool: Ipv4Net) -> Result<(), NetlinkError> {
    let covered = netlink.addresses(device).await?.iter().any(|own| own.contains(&pool.network()));
    if covered { Ok(()) } else { netlink.ensure_route(device, pool, None).await }
}

async fn announce(
    netlink: &Netlink,
    device: &str,
    arrived: Vec<Ipv4Addr>,
    current: watch::Receiver<BTreeSet<Ipv4Addr>>,
) -> Result<(), NetlinkError> {
    let link = netlink.link(device).await?.ok_or_else(|| NetlinkError::NoLink(device.to_owned()))?;
    let (Some(mac), false) = (link.mac, arrived.is_empty()) else { return Ok(()) };
    tokio::spawn(async move {
        let started = tokio::time::Instant::now();
        for at in ANNOUNCEMENTS {
            tokio::time::sleep_until(started + at).await;
            // An agent that is gone announces nothing.
            if current.has_changed().is_err() {
                return;
            }
            for address in &arrived {
                if !current.borrow().contains(address) {
                    continue;
                }
                let sent = FrameSocket::mute(link.index).and_then(|s| s.send(&announcement(mac, *address)));
                if let Err(error) = sent {
                    tracing::warn!(%address, %error, "an address was not announced");
                }
            }
        }
    });
    Ok(())
}
