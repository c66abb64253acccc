//! Links, addresses, routes and neighbours of the host, over one netlink socket that stays open; and the few sysctls
//! that go with them.
//!
//! Assumes that it is opened in the network namespace it is to speak of. Promises that every `ensure_…` may be
//! repeated and leaves what is already right alone.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt as _;
use gon_types::MacAddr;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

/// The link group of devices that guests are behind (`go` in ASCII): how the packet filter and a later process know
/// them whatever their names. Nothing else on a host uses it.
pub const GROUP: u32 = 0x676f;

/// Who made our routes, as the kernel keeps it (`g` in ASCII): not one of the numbers that routing daemons use.
const OWN: RouteProtocol = RouteProtocol::Other(0x67);

/// The group of devices of ours that are to be removed.
const LEAVING: u32 = 0x676e;

/// Why the kernel did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be opened.
    #[error("opening a netlink socket")]
    Open(#[source] io::Error),
    /// There is no such link.
    #[error("there is no network device '{0}'")]
    NoLink(String),
    /// The kernel refused.
    #[error("{what}: {source}")]
    Refused {
        /// What was asked.
        what: String,
        /// Why not.
        source: Box<rtnetlink::Error>,
    },
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is up (administratively).
    pub up: bool,
    /// Its MTU.
    pub mtu: u32,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddr>,
    /// Its kind (`tun`, `veth`), if it has one.
    pub kind: Option<String>,
    /// Its group.
    pub group: u32,
}

/// A netlink socket.
#[derive(Clone)]
pub struct Netlink {
    handle: Handle,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Netlink")
    }
}

impl Netlink {
    /// A socket in the calling thread's network namespace. Must be called inside the runtime.
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetlinkError::Open)?;
        // Ends when the last handle is dropped.
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The link of that name.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut answer = self.handle.link().get().match_name(name).execute();
        match answer.try_next().await {
            Ok(message) => Ok(message.as_ref().map(link_of)),
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ENODEV => Ok(None),
            Err(error) => Err(refused(format!("looking for {name}"), error)),
        }
    }

    /// Every device of ours that guests are behind: those of [`GROUP`].
    pub async fn guest_links(&self) -> Result<Vec<Link>, NetlinkError> {
        let mut links = self.links().await?;
        links.retain(|link| link.group == GROUP);
        Ok(links)
    }

    /// Those of these names that are there, and devices of ours that guests are behind.
    pub async fn links_named(&self, names: &HashSet<String>) -> Result<Vec<Link>, NetlinkError> {
        let mut links = vec![];
        for name in names {
            links.extend(self.link(name).await?.filter(|link| link.group == GROUP));
        }
        Ok(links)
    }

    /// Every link.
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let all: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| refused("listing links".to_owned(), error))?;
        Ok(all.iter().map(link_of).collect())
    }

    async fn index(&self, name: &str) -> Result<u32, NetlinkError> {
        self.link(name).await?.map(|l| l.index).ok_or_else(|| NetlinkError::NoLink(name.to_owned()))
    }

    async fn set(&self, what: impl FnOnce() -> String, message: LinkMessage) -> Result<(), NetlinkError> {
        self.handle.link().change(message).execute().await.map_err(|error| refused(what(), error))
    }

    /// Readies a port of the switch on which the host itself must stay silent and deaf: no ARP, no multicast, the
    /// MTU, and [`GROUP`], by which the packet filter knows it. A new device stays down.
    pub async fn silence(&self, name: &str, mtu: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(self.index(name).await?)
            .arp(false)
            .multicast(false)
            .mtu(mtu)
            .link_group(GROUP)
            .build();
        self.set(|| format!("preparing {name}"), message).await
    }

    /// Sets a link up or down.
    pub async fn set_up(&self, name: &str, up: bool) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(self.index(name).await?);
        let message = if up { message.up() } else { message.down() };
        self.set(|| format!("setting {name} {}", if up { "up" } else { "down" }), message.build()).await
    }

    /// Sets a link's MTU.
    pub async fn set_mtu(&self, name: &str, mtu: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(self.index(name).await?).mtu(mtu).build();
        self.set(|| format!("setting the MTU of {name}"), message).await
    }

    /// Gives a link its Ethernet address; on some kinds only while it is down.
    pub async fn set_mac(&self, name: &str, mac: MacAddr) -> Result<(), NetlinkError> {
        let link = self.link(name).await?.ok_or_else(|| NetlinkError::NoLink(name.to_owned()))?;
        if link.mac == Some(mac) {
            return Ok(());
        }
        let message = LinkUnspec::new_with_index(link.index).address(mac.0.to_vec()).build();
        self.set(|| format!("setting the address of {name}"), message).await
    }

    /// Whether the host asks and answers ARP on the link.
    pub async fn set_arp(&self, name: &str, on: bool) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(self.index(name).await?).arp(on).build();
        self.set(|| format!("setting ARP of {name}"), message).await
    }

    /// Puts an address on a link (the prefix makes its connected route).
    pub async fn ensure_address(&self, name: &str, address: Ipv4Net) -> Result<(), NetlinkError> {
        let index = self.index(name).await?;
        self.handle
            .address()
            .add(index, IpAddr::V4(address.addr()), address.prefix_len())
            .replace()
            .execute()
            .await
            .map_err(|error| refused(format!("putting {address} on {name}"), error))
    }

    /// Routes a block directly out of a link, with `source` as the host's own address there.
    pub async fn ensure_route(
        &self,
        name: &str,
        destination: Ipv4Net,
        source: Option<Ipv4Addr>,
    ) -> Result<(), NetlinkError> {
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(destination.network(), destination.prefix_len())
            .output_interface(self.index(name).await?)
            .protocol(OWN)
            .scope(RouteScope::Link);
        if let Some(source) = source {
            route = route.pref_source(source);
        }
        self.handle
            .route()
            .add(route.build())
            .replace()
            .execute()
            .await
            .map_err(|error| refused(format!("routing {destination} to {name}"), error))
    }

    /// The IPv4 addresses of a link, with their prefixes.
    pub async fn addresses(&self, name: &str) -> Result<Vec<Ipv4Net>, NetlinkError> {
        let index = self.index(name).await?;
        let all = self.every_address().await?;
        Ok(all.iter().filter(|m| m.header.index == index).filter_map(address_of).collect())
    }

    /// The link that has an address.
    pub async fn holder(&self, address: Ipv4Addr) -> Result<Option<Link>, NetlinkError> {
        let all = self.every_address().await?;
        let Some(found) = all.iter().find(|m| address_of(m).is_some_and(|net| net.addr() == address)) else {
            return Ok(None);
        };
        Ok(self.links().await?.into_iter().find(|link| link.index == found.header.index))
    }

    async fn every_address(&self) -> Result<Vec<AddressMessage>, NetlinkError> {
        let listed = self.handle.address().get().execute().try_collect().await;
        listed.map_err(|error| refused("listing addresses".to_owned(), error))
    }

    /// Takes an address off a link; it is no error if it is not there.
    pub async fn remove_address(&self, name: &str, address: Ipv4Net) -> Result<(), NetlinkError> {
        let index = self.index(name).await?;
        let all = self.every_address().await?;
        for message in all {
            if message.header.index == index && address_of(&message) == Some(address) {
                let removed = self.handle.address().del(message).execute().await;
                removed.map_err(|error| refused(format!("taking {address} off {name}"), error))?;
            }
        }
        Ok(())
    }

    /// The unicast routes of the main table through a gateway on a link: destination and gateway.
    pub async fn gateway_routes(&self, name: &str) -> Result<Vec<(Ipv4Net, Ipv4Addr)>, NetlinkError> {
        let index = self.index(name).await?;
        let all = self.routes().await?;
        Ok(all.iter().filter_map(|message| gateway_route(message, index)).collect())
    }

    /// Routes a block through a gateway on a link.
    pub async fn ensure_gateway_route(
        &self,
        name: &str,
        destination: Ipv4Net,
        gateway: Ipv4Addr,
    ) -> Result<(), NetlinkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(destination.network(), destination.prefix_len())
            .output_interface(self.index(name).await?)
            .gateway(gateway)
            .build();
        let made = self.handle.route().add(route).replace().execute().await;
        made.map_err(|error| refused(format!("routing {destination} to {gateway}"), error))
    }

    /// States for good which Ethernet address a neighbour has.
    pub async fn ensure_neighbour(
        &self,
        name: &str,
        address: Ipv4Addr,
        mac: MacAddr,
    ) -> Result<(), NetlinkError> {
        self.handle
            .neighbours()
            .add(self.index(name).await?, IpAddr::V4(address))
            .link_layer_address(&mac.0)
            .state(NeighbourState::Permanent)
            .replace()
            .execute()
            .await
            .map_err(|error| refused(format!("naming neighbour {address} of {name}"), error))
    }

    /// The single addresses that are routed directly out of a link, by routes that somebody made.
    pub async fn host_routes(&self, name: &str) -> Result<Vec<Ipv4Addr>, NetlinkError> {
        let index = self.index(name).await?;
        let routes = self.routes().await?;
        Ok(routes.iter().filter_map(|message| host_route(message, index)).collect())
    }

    /// Removes the route to a single address out of a link; it is no error if there is none.
    pub async fn remove_host_route(&self, name: &str, address: Ipv4Addr) -> Result<(), NetlinkError> {
        let index = self.index(name).await?;
        for message in self.routes().await? {
            if host_route(&message, index) == Some(address) {
                let removed = self.handle.route().del(message).execute().await;
                removed.map_err(|error| refused(format!("removing the route to {address}"), error))?;
            }
        }
        Ok(())
    }

    /// Removes every route that [`Netlink::ensure_route`] has made.
    pub async fn remove_own_routes(&self) -> Result<(), NetlinkError> {
        for message in self.routes().await? {
            if message.header.protocol == OWN {
                let removed = self.handle.route().del(message).execute().await;
                removed.map_err(|error| refused("removing a route".to_owned(), error))?;
            }
        }
        Ok(())
    }

    async fn routes(&self) -> Result<Vec<RouteMessage>, NetlinkError> {
        let query = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let listed = self.handle.route().get(query).execute().try_collect().await;
        listed.map_err(|error| refused("listing routes".to_owned(), error))
    }

    /// Answers ARP on a link for an address that is reached by another.
    pub async fn ensure_proxy(&self, name: &str, address: Ipv4Addr) -> Result<(), NetlinkError> {
        self.handle
            .neighbours()
            .add(self.index(name).await?, IpAddr::V4(address))
            .flags(NeighbourFlags::Proxy)
            .replace()
            .execute()
            .await
            .map_err(|error| refused(format!("answering for {address} on {name}"), error))
    }

    /// The addresses that ARP is answered for on a link.
    pub async fn proxies(&self, name: &str) -> Result<Vec<Ipv4Addr>, NetlinkError> {
        let index = self.index(name).await?;
        Ok(self.every_proxy().await?.iter().filter_map(|m| proxy_of(m, index)).collect())
    }

    /// Answers no longer; it is no error if nobody did.
    pub async fn remove_proxy(&self, name: &str, address: Ipv4Addr) -> Result<(), NetlinkError> {
        let index = self.index(name).await?;
        for message in self.every_proxy().await? {
            if proxy_of(&message, index) == Some(address) {
                let removed = self.handle.neighbours().del(message).execute().await;
                removed.map_err(|error| refused(format!("ending to answer for {address}"), error))?;
            }
        }
        Ok(())
    }

    async fn every_proxy(&self) -> Result<Vec<NeighbourMessage>, NetlinkError> {
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Inet).proxies();
        let listed = request.execute().try_collect().await;
        listed.map_err(|error| refused("listing proxies".to_owned(), error))
    }

    /// Sets a device aside for [`Netlink::remove_leaving`]. It is no error if it is gone.
    pub async fn set_leaving(&self, name: &str) -> Result<(), NetlinkError> {
        let Some(link) = self.link(name).await? else { return Ok(()) };
        let message = LinkUnspec::new_with_index(link.index).down().link_group(LEAVING).build();
        self.set(|| format!("setting {name} aside"), message).await
    }

    /// Removes every device that was set aside, in one go: the kernel takes some 30 ms to remove a device, and hardly
    /// longer for a hundred together.
    pub async fn remove_leaving(&self) -> Result<(), NetlinkError> {
        let message = LinkMessageBuilder::<LinkUnspec>::default().link_group(LEAVING).build();
        match self.handle.link().del_with_message(message).execute().await {
            // There is none.
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ENODEV => Ok(()),
            other => other.map_err(|error| refused("removing devices".to_owned(), error)),
        }
    }

    /// Removes a link; it is no error if there is none.
    pub async fn delete_link(&self, name: &str) -> Result<(), NetlinkError> {
        let Some(link) = self.link(name).await? else { return Ok(()) };
        match self.handle.link().del(link.index).execute().await {
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ENODEV => Ok(()),
            other => other.map_err(|error| refused(format!("removing {name}"), error)),
        }
    }
}

fn refused(what: String, source: rtnetlink::Error) -> NetlinkError {
    NetlinkError::Refused { what, source: Box::new(source) }
}

fn address_of(message: &AddressMessage) -> Option<Ipv4Net> {
    // On a point-to-point link `Address` is the other end.
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(IpAddr::V4(local)) => Some(*local),
        _ => None,
    });
    let plain = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Address(IpAddr::V4(address)) => Some(*address),
        _ => None,
    });
    Ipv4Net::new(local.or(plain)?, message.header.prefix_len).ok()
}

fn host_route(message: &RouteMessage, index: u32) -> Option<Ipv4Addr> {
    let header = &message.header;
    let single = header.table == RouteHeader::RT_TABLE_MAIN
        && header.kind == RouteType::Unicast
        && header.protocol != RouteProtocol::Kernel
        && header.destination_prefix_length == 32;
    let out = message.attributes.contains(&RouteAttribute::Oif(index));
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) if single && out => Some(*address),
        _ => None,
    })
}

fn proxy_of(message: &NeighbourMessage, index: u32) -> Option<Ipv4Addr> {
    let ours = message.header.ifindex == index && message.header.flags.contains(NeighbourFlags::Proxy);
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) if ours => Some(*address),
        _ => None,
    })
}

fn gateway_route(message: &RouteMessage, index: u32) -> Option<(Ipv4Net, Ipv4Addr)> {
    let header = &message.header;
    let ours = header.table == RouteHeader::RT_TABLE_MAIN
        && header.kind == RouteType::Unicast
        && header.protocol != RouteProtocol::Kernel;
    let (mut gateway, mut destination, mut out) = (None, Ipv4Addr::UNSPECIFIED, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = *address,
            RouteAttribute::Oif(oif) => out = Some(*oif),
            _ => {}
        }
    }
    let net = Ipv4Net::new(destination, header.destination_prefix_length).ok()?;
    (ours && out == Some(index)).then_some((net, gateway?))
}

fn link_of(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        up: message.header.flags.contains(LinkFlags::Up),
        mtu: 0,
        mac: None,
        kind: None,
        group: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Group(group) => link.group = *group,
            LinkAttribute::Address(bytes) => {
                link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr)
            }
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = Some(kind.to_string());
                    }
                }
            }
            _ => {}
        }
    }
    link
}

/// Whether the text can be the name of a device of ours: 1 to 15 bytes of `[a-z0-9-]`. Such a name is also safe as
/// part of a path below `/proc/sys`.
#[must_use]
pub fn is_device_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Turns IPv6 off on a device. On a host without IPv6 there is nothing to turn off.
pub fn disable_ipv6(device: &str) -> io::Result<()> {
    if !is_device_name(device) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    match set_sysctl(&format!("net/ipv6/conf/{device}/disable_ipv6"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Lets the host route IPv4.
pub fn enable_forwarding() -> io::Result<()> {
    set_sysctl("net/ipv4/ip_forward", "1")
}

/// Writes a sysctl unless it already has that value.
pub fn set_sysctl(name: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/{name}");
    if std::fs::read_to_string(&path)?.trim() == value {
        return Ok(());
    }
    std::fs::write(path, value)
}
