//! This node's end of the tunnels: the address on the underlay, and the device that has it.
//!
//! With the kernel datapath there is nothing to do but look: the host's own UDP stack sends and receives, and the address
//! stays where it is. With the userspace datapath Open vSwitch begins and ends tunnels only on a bridge of its own, so the
//! device is put under one ([`gon_net::service::UNDERLAY_BRIDGE`]), and its addresses and gateway routes move to the bridge's own
//! device, which has the same Ethernet address: the host speaks as before, through the switch. What was moved is written down
//! before anything is touched, because a restarted switch makes its device anew without addresses, and because it must all go
//! back in the end.
//!
//! Assumes that nobody else configures the device meanwhile. Promises that every step may be repeated, and that
//! [`Underlay::give_back`] leaves the device as it was found.

use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use gon_driver::netlink::{Netlink, NetlinkError};
use gon_driver::ovs::{Datapath, Ovs, OvsError};
use gon_net::service::{TUNNEL_OVERHEAD, UNDERLAY_BRIDGE};
use gon_proto::OverlayReport;
use gon_types::MacAddr;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The least MTU that leaves guests the 576 bytes that every host must take.
const LEAST_MTU: u16 = 576 + TUNNEL_OVERHEAD;

/// Why the node has no end of tunnels.
#[derive(Debug, thiserror::Error)]
pub enum UnderlayError {
    /// Nobody has it.
    #[error("no device has the address {0} of this node on the underlay")]
    NoDevice(Ipv4Addr),
    /// Nothing fits.
    #[error("the MTU of {device} is {mtu}: too small for a tunnel")]
    Narrow {
        /// Which device.
        device: String,
        /// Its MTU.
        mtu: u32,
    },
    /// It cannot be put under the switch.
    #[error("{0} has no Ethernet address")]
    NoMac(String),
    /// The host's devices.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The switch.
    #[error(transparent)]
    Ovs(#[from] OvsError),
    /// What was moved could not be written down.
    #[error("{path}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What was on a device before it was put under the switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Moved {
    device: String,
    mac: MacAddr,
    addresses: Vec<Ipv4Net>,
    routes: Vec<(Ipv4Net, Ipv4Addr)>,
}

/// The end of the tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// Address and MTU.
    pub report: OverlayReport,
    /// The device that the switch has taken over, if it has.
    pub taken: Option<String>,
}

impl Underlay {
    /// Finds it, and puts its device under the switch if the datapath needs that. `dir` is the switch's.
    pub async fn establish(
        address: Ipv4Addr,
        netlink: &Netlink,
        ovs: &Ovs,
        dir: &Path,
    ) -> Result<Self, UnderlayError> {
        let moved = if ovs.datapath() == Datapath::Netdev {
            let moved = match read(dir) {
                Some(moved) if moved.addresses.iter().any(|a| a.addr() == address) => moved,
                _ => take_stock(address, netlink, dir).await?,
            };
            put_under(&moved, netlink, ovs).await?;
            Some(moved)
        } else {
            None
        };
        let link = match &moved {
            Some(moved) => netlink.link(&moved.device).await?,
            None => netlink.holder(address).await?,
        };
        let link = link.ok_or(UnderlayError::NoDevice(address))?;
        let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
        if mtu < LEAST_MTU {
            return Err(UnderlayError::Narrow { device: link.name, mtu: link.mtu });
        }
        Ok(Self { report: OverlayReport { address, mtu }, taken: moved.map(|m| m.device) })
    }

    /// Gives a device that was put under the switch back what it had, after the switch has let go of it.
    pub async fn give_back(netlink: &Netlink, dir: &Path) -> Result<(), UnderlayError> {
        let Some(moved) = read(dir) else { return Ok(()) };
        netlink.set_arp(&moved.device, true).await?;
        for address in &moved.addresses {
            netlink.ensure_address(&moved.device, *address).await?;
        }
        for (destination, gateway) in &moved.routes {
            netlink.ensure_gateway_route(&moved.device, *destination, *gateway).await?;
        }
        let path = path(dir);
        std::fs::remove_file(&path).map_err(|source| UnderlayError::Io { path, source })
    }
}

/// The device that is, or was about to be, under the switch.
#[must_use]
pub fn taken(dir: &Path) -> Option<String> {
    read(dir).map(|moved| moved.device)
}

fn path(dir: &Path) -> PathBuf {
    dir.join("underlay.json")
}

fn read(dir: &Path) -> Option<Moved> {
    serde_json::from_slice(&std::fs::read(path(dir)).ok()?).ok()
}

/// Writes down what is to be moved, to stay.
async fn take_stock(address: Ipv4Addr, netlink: &Netlink, dir: &Path) -> Result<Moved, UnderlayError> {
    let link = netlink.holder(address).await?.ok_or(UnderlayError::NoDevice(address))?;
    let moved = Moved {
        mac: link.mac.ok_or_else(|| UnderlayError::NoMac(link.name.clone()))?,
        addresses: netlink.addresses(&link.name).await?,
        routes: netlink.gateway_routes(&link.name).await?,
        device: link.name,
    };
    let path = path(dir);
    let write = || {
        let beside = path.with_extension("new");
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(&serde_json::to_vec(&moved)?)?;
        file.sync_all()?;
        std::fs::rename(&beside, &path)?;
        std::fs::File::open(dir)?.sync_all()
    };
    write().map_err(|source| UnderlayError::Io { path: path.clone(), source })?;
    Ok(moved)
}

/// Joins device and host by the bridge. Routes are last: they need the addresses.
async fn put_under(moved: &Moved, netlink: &Netlink, ovs: &Ovs) -> Result<(), UnderlayError> {
    let bridge = UNDERLAY_BRIDGE;
    ovs.database().ensure_uplink(bridge, &moved.device, moved.mac).await?;
    let device = netlink.link(&moved.device).await?;
    let device = device.ok_or_else(|| NetlinkError::NoLink(moved.device.clone()))?;
    // The host speaks by the bridge alone: two devices would answer ARP for one address.
    netlink.set_arp(&moved.device, false).await?;
    netlink.set_up(&moved.device, true).await?;
    if netlink.link(bridge).await?.is_none_or(|link| link.mtu != device.mtu) {
        netlink.set_mtu(bridge, device.mtu).await?;
    }
    netlink.set_mac(bridge, moved.mac).await?;
    for address in &moved.addresses {
        netlink.remove_address(&moved.device, *address).await?;
        netlink.ensure_address(bridge, *address).await?;
    }
    netlink.set_up(bridge, true).await?;
    for (destination, gateway) in &moved.routes {
        netlink.ensure_gateway_route(bridge, *destination, *gateway).await?;
    }
    Ok(())
}
