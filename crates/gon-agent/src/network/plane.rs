//! The data plane of the node: the switch, its ports, the devices, the guard. Makes them be what a document says.
//!
//! Assumes one owner, who calls one method at a time. Promises the order of rule R9 — a port's flows are in before its
//! device is up, and its device is down before its flows go — and that every method may be repeated: what was left
//! half done by a crash or a refusal is found by comparing with what is really there, not by remembering.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use gon_driver::netlink::{self, Netlink, NetlinkError};
use gon_driver::ovs::{Datapath, OpenFlowError, Ovs, OvsError, PortKind, PortSpec as SwitchPort, Switch};
use gon_driver::run::RunError;
use gon_driver::tap::{self, TapSpec};
use gon_driver::{netfilter, ovs};
use gon_net::{
    Before, Compiled, Degraded, External, FlowMod, FlowTable, Mirror, NodeFacts, Overlay, compile, diff,
    recompile, service, zones_to_empty,
};
use gon_proto::{NetworkReport, NodeNetwork, OverlayReport, PortReport, PortSpec, PortStatus, VpcReport};
use gon_types::crash;
use gon_types::id::NetworkInterfaceId;
use gon_types::{DocumentVersion, MacAddr};
use ipnet::Ipv4Net;

use super::memory::Memory;
use super::outside::{self, Outside, Uplink};
use super::services::{Knowledge, Services, boot_seconds};
use super::underlay::{self, Underlay, UnderlayError};
use super::{Config, chain, guard};

/// Ethernet address of the host's side of the device toward local services: of no vendor, the same on every node, never
/// seen outside it.
pub(super) const META_MAC: MacAddr = MacAddr([0x0a, 0x67, 0x6f, 0x6e, 0x00, 0x02]);
/// Ethernet address of the host's side of the device toward the outside.
pub(super) const EXT_MAC: MacAddr = MacAddr([0x0a, 0x67, 0x6f, 0x6e, 0x00, 0x03]);
/// MTU toward local services: that of the host's own network.
const HOST_MTU: u16 = 1500;
/// Connections one port may have (rule R13).
const ZONE_LIMIT: u32 = 65_536;
/// So many flows are asked for at a time, and in at most so many parts.
const PART: usize = 64;
const MOST_PARTS: usize = 64;
/// Up to so many ports are looked at one by one.
const FEW: usize = 8;
/// How long a starting switch may take to open its management socket.
const CONNECT: Duration = Duration::from_secs(10);

/// Why the data plane is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// Open vSwitch.
    #[error(transparent)]
    Ovs(#[from] OvsError),
    /// The connection to the bridge.
    #[error(transparent)]
    OpenFlow(#[from] OpenFlowError),
    /// A device of the host.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The packet filter.
    #[error("the packet filter")]
    Guard(#[source] RunError),
    /// The end of the tunnels.
    #[error("the underlay")]
    Underlay(#[from] UnderlayError),
    /// A file or a socket.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An internal port of the switch.
    #[error("device {device}: {reason}")]
    Device {
        /// Which.
        device: String,
        /// In the switch's words.
        reason: String,
    },
}

impl PlaneError {
    /// Whether the switch has to be found again before anything else.
    #[must_use]
    pub fn lost_switch(&self) -> bool {
        matches!(self, Self::OpenFlow(error) if error.is_transport())
    }
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> PlaneError {
    move |source| PlaneError::Io { what, source }
}

/// What a comparison with reality has put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repairs {
    /// Flows added, changed or removed.
    pub flows: usize,
    /// Ports made again.
    pub ports: usize,
    /// Flows that we cannot read and leave alone.
    pub strangers: usize,
}

/// The data plane.
#[derive(Debug)]
pub struct Plane {
    config: Arc<Config>,
    ovs: Ovs,
    netlink: Netlink,
    switch: Option<Arc<Switch>>,
    memory: Memory,
    knowledge: Knowledge,
    /// This node's end of the tunnels, if it has one now; and as it last was, for reports: a hitch here is no reason for other
    /// nodes to forget the way.
    underlay: Option<Underlay>,
    overlay: Option<OverlayReport>,
    /// The other nodes that the packet filter lets through, and the device it keeps the host deaf to.
    guarded: (Vec<Ipv4Addr>, Option<String>),
    /// Which public addresses the host answers for.
    outside: Outside,
    /// The services, and the index of the device that their sockets are bound to.
    services: Option<(u32, Services)>,
    /// The document that is, or is being made, real.
    document: Option<Arc<NodeNetwork>>,
    /// What was last compiled, and sent to the switch: of which document, with which facts.
    compiled: Compiled,
    compiled_of: Option<(Arc<NodeNetwork>, NodeFacts)>,
    /// Whether the switch has exactly the compiled flows, as far as we know. If not, it is asked before the next change.
    certain: bool,
    /// Ports that are closed or not there, and why.
    broken: BTreeMap<NetworkInterfaceId, String>,
    /// Ports that were closed when all were last seen to.
    closed: Vec<Degraded>,
    /// The version whose flows are all in, and the generations of its VPCs; until [`Plane::confirm`] it may be that packets
    /// are still carried by what was before.
    wired: Option<(DocumentVersion, Vec<VpcReport>)>,
    /// The version that every packet is judged by.
    applied: (DocumentVersion, Vec<VpcReport>),
}

impl Plane {
    /// Brings up what every node has, whatever its document: the guard first, then switch, devices and services. Then
    /// what the last document says, if there is one; without one no port and no flow that is there is touched.
    pub async fn bring_up(
        config: Arc<Config>,
        knowledge: Knowledge,
        document: Option<Arc<NodeNetwork>>,
    ) -> Result<Self, PlaneError> {
        let guarded = (peers(document.as_deref()), underlay::taken(&config.ovs.dir));
        guard_host(&config, &guarded).await?;
        let ovs = Ovs::connect_or_start(&config.ovs, service::BRIDGE).await?;
        let mut plane = Self {
            netlink: Netlink::open()?,
            memory: Memory::open(&config.dir),
            config,
            ovs,
            switch: None,
            knowledge,
            underlay: None,
            overlay: None,
            guarded,
            outside: Outside::default(),
            services: None,
            document,
            compiled: Compiled::default(),
            compiled_of: None,
            certain: false,
            broken: BTreeMap::new(),
            closed: vec![],
            wired: None,
            applied: (DocumentVersion::default(), vec![]),
        };
        plane.restore().await?;
        Ok(plane)
    }

    /// The connection to the bridge, to be watched; `None` while there is none.
    #[must_use]
    pub fn switch(&self) -> Option<Arc<Switch>> {
        self.switch.clone()
    }
    /// The datapath in use.
    #[must_use]
    pub fn datapath(&self) -> Datapath {
        self.ovs.datapath()
    }
    /// The version of Open vSwitch.
    pub async fn version(&self) -> Option<String> {
        self.ovs.version().await.ok()
    }
    /// How many flows the document became.
    #[must_use]
    pub fn flow_count(&self) -> usize {
        self.compiled.flows.len()
    }

    /// Finds the switch again (starting it if it is ours and died), and makes everything be as it should: after a start,
    /// and whenever the connection broke.
    pub async fn restore(&mut self) -> Result<(), PlaneError> {
        self.switch = None;
        self.certain = false;
        self.outside.doubt();
        self.ovs.heal().await?;
        let process = self.ovs.switch_process().await;
        self.memory
            .meet(process, self.ovs.datapath(), boot_seconds())
            .map_err(io_error("remembering the switch"))?;
        self.ovs.database().ensure_bridge(service::BRIDGE, self.ovs.datapath()).await?;
        self.switch = Some(Arc::new(self.connect().await?));
        if let Err(error) = self.ovs.limit_zones(ZONE_LIMIT).await {
            // Old kernels have no limits.
            tracing::warn!(%error, "connections per port are not limited");
        }
        self.settle_underlay().await?;
        // Flows before devices: a port's packets are judged from the first one on.
        self.change_flows(None).await?;
        self.host_devices().await?;
        self.settle_outside().await?;
        // What an earlier life had set aside.
        self.remove_leaving();
        // Each time a switch with a thousand ports carries no packet for some hundred milliseconds, so only when it waits.
        if !self.memory.is_released(process) {
            self.ovs.release().await?;
            self.memory.release(process).map_err(io_error("remembering the switch"))?;
        }
        self.change_ports(None).await?;
        self.confirm().await
    }

    /// Finds this node's end of the tunnels. That it is not there is an error to be told, not one to stop at: what is on this
    /// node alone works without. True if something changed.
    async fn settle_underlay(&mut self) -> Result<bool, PlaneError> {
        let Some(address) = self.config.overlay else { return Ok(false) };
        let dir = &self.config.ovs.dir;
        let found = match Underlay::establish(address, &self.netlink, &self.ovs, dir).await {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::error!(error = chain(&error), "guests on other nodes cannot be reached");
                None
            }
        };
        let changed = self.underlay != found;
        if let Some(found) = &found {
            if changed {
                tracing::info!(address = %found.report.address, mtu = found.report.mtu, "the node's end of tunnels");
            }
            self.overlay = Some(found.report);
        }
        self.underlay = found;
        self.guard_tunnels(self.guarded.0.clone()).await?;
        Ok(changed)
    }

    /// Lets tunnel packets of these nodes in.
    async fn guard_tunnels(&mut self, peers: Vec<Ipv4Addr>) -> Result<(), PlaneError> {
        let taken = self.underlay.as_ref().and_then(|underlay| underlay.taken.clone());
        let wanted = (peers, taken.or_else(|| self.guarded.1.clone()));
        if wanted != self.guarded {
            guard_host(&self.config, &wanted).await?;
            self.guarded = wanted;
        }
        Ok(())
    }

    /// Makes sure that the userspace datapath knows the Ethernet addresses of its peers: it learns them from ARP that passes by,
    /// forgets them after some time, and drops the first packet to one that it does not know. So the host is made to
    /// ask. (The kernel's keeps packets until it knows.)
    fn greet_peers(&self) {
        let Some(underlay) = self.underlay.as_ref().filter(|u| u.taken.is_some()) else { return };
        let socket = std::net::UdpSocket::bind((underlay.report.address, 0));
        let socket = socket.and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
        match socket {
            Ok(socket) => {
                for peer in &self.guarded.0 {
                    // To the discard port. Whether it arrives does not matter.
                    let _ = socket.send_to(&[], (*peer, 9));
                }
            }
            Err(error) => tracing::debug!(%error, "the peers were not greeted"),
        }
    }

    async fn connect(&self) -> Result<Switch, PlaneError> {
        let socket = self.ovs.bridge_socket(service::BRIDGE);
        let until = tokio::time::Instant::now() + CONNECT;
        loop {
            match Switch::connect(&socket).await {
                Ok(switch) => return Ok(switch),
                Err(error) if tokio::time::Instant::now() >= until => return Err(error.into()),
                // The socket appears when a starting switch has read its database.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    fn facts(&self, mirror: Mirror) -> NodeFacts {
        NodeFacts {
            node: self.config.node,
            meta_mac: META_MAC,
            external: self.config.external.as_ref().map(|external| External {
                gateway_mac: EXT_MAC,
                gateway: external.gateway.addr(),
                pool: guard::pool(external.gateway),
            }),
            overlay: self.underlay.as_ref().map(|underlay| Overlay { address: underlay.report.address }),
            mirror,
        }
    }

    /// First half of a change: the flows of `next` (or of the document at hand), in one bundle. Devices that leave are
    /// down before their flows go. Nothing that has to survive a crash is done here, so the document may still be on
    /// its way to the disk.
    pub async fn change_flows(&mut self, next: Option<Arc<NodeNetwork>>) -> Result<(), PlaneError> {
        if let Some(next) = next {
            crash::point("D05:before");
            self.silence_leaving(&next).await;
            crash::point("D05:after");
            self.document = Some(next);
        }
        let Some(document) = self.document.clone() else { return Ok(()) };
        let switch = self.switch.clone().ok_or(OpenFlowError::Broken)?;
        let facts = self.facts(self.memory.mirror(boot_seconds()));
        let compiled = match &self.compiled_of {
            Some((before, then)) => {
                let before = Before { document: before, facts: then, compiled: &self.compiled };
                recompile(before, &document, &facts)
            }
            None => compile(&document, &facts),
        };
        self.memory.expect(&compiled).map_err(io_error("remembering zones"))?;
        let peers = peers(Some(&document));
        let met = peers.iter().any(|peer| !self.guarded.0.contains(peer));
        self.guard_tunnels(peers).await?;
        if met {
            self.greet_peers();
        }
        let known = self.certain;
        // Until the switch has confirmed, nobody knows which of both it has.
        self.certain = false;
        crash::point("C20:before");
        crash::point("D06:before");
        let refused = if known {
            push(&switch, &diff(&self.compiled.flows, &compiled.flows)).await?
        } else {
            push(&switch, &diff(&installed(&switch, compiled.flows.len()).await?.0, &compiled.flows)).await?
        };
        crash::point("C20:after");
        crash::point("D06:after");
        self.compiled = compiled;
        self.compiled_of = Some((Arc::clone(&document), facts));
        self.certain = refused.is_empty();
        self.broken.retain(|_, why| !why.starts_with(REFUSED));
        for flow in &refused {
            tracing::error!(flow, "the switch refused a flow");
        }
        for port in &document.ports {
            let of_port = |flow: &&String| flow.contains(&port.id.short()[5..]);
            if let Some(flow) = refused.iter().find(of_port) {
                self.broken.insert(port.id, format!("{REFUSED}: {flow}"));
            }
        }
        if let Some(external) = &self.config.external {
            let hosted = outside::hosted(&document, &self.compiled);
            let device = self.uplink();
            self.outside.follow(&external.uplink, device.as_deref(), hosted, &self.netlink).await?;
        }
        if refused.is_empty() {
            let vpcs = document.vpcs.iter().map(|v| VpcReport { id: v.id, generation: v.generation });
            self.wired = Some((document.version, vpcs.collect()));
        }
        Ok(())
    }

    /// Waits until every packet is judged by the flows that are in; from then on they may be reported. Nothing to do if that
    /// is so already.
    pub async fn confirm(&mut self) -> Result<(), PlaneError> {
        let Some(wired) = self.wired.clone() else { return Ok(()) };
        let switch = self.switch.clone().ok_or(OpenFlowError::Broken)?;
        // Some drop that is always there.
        let same = self.compiled.flows.flows().find(|flow| flow.priority == 0);
        let touch = || async {
            let Some(same) = same else { return Ok(()) };
            switch.touch(same).await.map_err(PlaneError::from)
        };
        self.ovs.catch_up(touch).await?;
        self.applied = wired;
        self.wired = None;
        Ok(())
    }

    /// The device on whose link public addresses are answered for, if that is the mode: the bridge's, if the switch has taken
    /// the link's own.
    fn uplink(&self) -> Option<String> {
        let Uplink::OnLink(device) = &self.config.external.as_ref()?.uplink else { return None };
        let taken = self.underlay.as_ref().and_then(|underlay| underlay.taken.as_ref());
        Some(if taken == Some(device) { service::UNDERLAY_BRIDGE.to_owned() } else { device.clone() })
    }

    /// Makes the host answer for exactly the public addresses of this node.
    async fn settle_outside(&mut self) -> Result<(), PlaneError> {
        let (Some(external), Some(document)) = (&self.config.external, &self.document) else { return Ok(()) };
        let hosted = outside::hosted(document, &self.compiled);
        let (device, pool) = (self.uplink(), guard::pool(external.gateway));
        let settled = self.outside.settle(&external.uplink, device.as_deref(), pool, hosted, &self.netlink);
        Ok(settled.await?)
    }

    /// The devices of ports that a document has and the one at hand has not, or in another shape, or the other way round.
    #[must_use]
    pub fn changed_ports(&self, next: &NodeNetwork) -> HashSet<String> {
        let shape =
            |p: &PortSpec| ((p.id, p.port_no, p.owner_uid, p.dhcp.mtu), (p.mac, p.private_ip, p.subnet));
        let shapes = |document: &NodeNetwork| -> HashMap<String, _> {
            document.ports.iter().map(|p| (p.device.clone(), shape(p))).collect()
        };
        let (mut before, now) = (self.document.as_deref().map(shapes).unwrap_or_default(), shapes(next));
        let mut changed: HashSet<String> = HashSet::new();
        for (device, shape) in now {
            if before.remove(&device) != Some(shape) {
                changed.insert(device);
            }
        }
        changed.extend(before.into_keys());
        changed
    }

    /// Whether other ports are closed than when ports were last seen to: for what a document says of rules or subnets, say.
    #[must_use]
    pub fn closes_others(&self) -> bool {
        self.compiled.degraded != self.closed
    }

    /// Takes the devices down that `next` no longer has.
    async fn silence_leaving(&self, next: &NodeNetwork) {
        let Some(now) = &self.document else { return };
        let stay: HashSet<&str> = next.ports.iter().map(|p| p.device.as_str()).collect();
        for port in now.ports.iter().filter(|p| !stay.contains(p.device.as_str())) {
            match self.netlink.set_up(&port.device, false).await {
                Ok(()) | Err(NetlinkError::NoLink(_)) => {}
                Err(error) => {
                    tracing::warn!(device = port.device, %error, "a leaving port was not taken down")
                }
            }
        }
    }

    /// Second half of a change: what leaves is removed, zones that change hands are emptied, what is new comes up.
    /// Compares with what is really on the switch and the host; changes nothing if that is right. Without a document
    /// nothing is touched. With `only` nothing but these devices is looked at: a thousand others take a hundred milliseconds to
    /// read, and the next audit looks at them.
    pub async fn change_ports(&mut self, only: Option<&HashSet<String>>) -> Result<(), PlaneError> {
        // Nobody vouches for the others while something is wrong.
        let few =
            |only: &&HashSet<String>| only.len() <= FEW && !self.closes_others() && self.broken.is_empty();
        let only = only.filter(few);
        self.settle_ports(only).await.map(drop)
    }

    /// Returns how many ports were not as they should.
    async fn settle_ports(&mut self, only: Option<&HashSet<String>>) -> Result<usize, PlaneError> {
        let Some(document) = self.document.clone() else { return Ok(0) };
        let closed: HashMap<NetworkInterfaceId, String> =
            self.compiled.degraded.iter().map(|d| (d.port, d.reason.to_string())).collect();
        let concerned = |p: &&PortSpec| only.is_none_or(|only| only.contains(&p.device));
        let open = document.ports.iter().filter(|p| !closed.contains_key(&p.id));
        let wanted: Vec<&PortSpec> = open.filter(concerned).collect();
        let names: HashSet<&str> = wanted.iter().map(|p| p.device.as_str()).collect();
        let own = self.host_ports();

        let database = self.ovs.database();
        let (on_switch, links) = match only {
            Some(only) => tokio::join!(database.interfaces(only), self.netlink.links_named(only)),
            None => tokio::join!(database.ports(service::BRIDGE), self.netlink.guest_links()),
        };
        let (on_switch, links) = (on_switch?, links?);
        let leaving: Vec<&str> = on_switch
            .iter()
            .map(|p| p.name.as_str())
            .filter(|name| !names.contains(name) && !own.iter().any(|o| o.name == **name))
            .collect();
        let mut changed = leaving.len();
        for link in links.iter().filter(|l| !names.contains(l.name.as_str()) && l.up) {
            self.netlink.set_up(&link.name, false).await?;
        }
        if !leaving.is_empty() {
            crash::point("D07:before");
            self.ovs.database().delete_ports(service::BRIDGE, &leaving).await?;
            crash::point("D07:after");
        }
        self.empty_zones().await?;
        let mut aside = false;
        for link in links.iter().filter(|l| !names.contains(l.name.as_str())) {
            crash::point("D10:before");
            self.netlink.set_leaving(&link.name).await?;
            crash::point("D10:after");
            aside = true;
        }
        if aside {
            self.remove_leaving();
        }

        let up: HashMap<&str, u32> =
            links.iter().filter(|l| l.up).map(|link| (link.name.as_str(), link.mtu)).collect();
        let numbered: HashMap<&str, Option<u32>> =
            on_switch.iter().filter(|s| s.error.is_none()).map(|s| (s.name.as_str(), s.ofport)).collect();
        let is_ready = |port: &&PortSpec| {
            up.get(port.device.as_str()) == Some(&u32::from(port.dhcp.mtu))
                && numbered.get(port.device.as_str()) == Some(&Some(port.port_no.into()))
        };
        let missing: Vec<&PortSpec> = wanted.iter().copied().filter(|port| !is_ready(port)).collect();
        changed += missing.len();
        let mut broken: BTreeMap<_, _> = closed.into_iter().collect();
        broken.extend(
            self.broken.iter().filter(|(_, w)| w.starts_with(REFUSED)).map(|(id, w)| (*id, w.clone())),
        );
        self.plug(&missing, on_switch, &mut broken).await?;
        self.broken = broken;
        self.closed.clone_from(&self.compiled.degraded);
        Ok(changed)
    }

    /// Removes the devices set aside, beside everything else: it takes tens of milliseconds, which the next document
    /// should not wait for. A device of the same name that is wanted again at just that moment is made anew by the
    /// next look ([`Plane::is_missing_devices`]).
    fn remove_leaving(&self) {
        let netlink = self.netlink.clone();
        tokio::spawn(async move {
            if let Err(error) = netlink.remove_leaving().await {
                tracing::warn!(%error, "devices that nobody needs could not be removed");
            }
        });
    }

    /// Whether a port is not there that could be.
    #[must_use]
    pub fn is_missing_devices(&self) -> bool {
        let closed = |id| self.compiled.degraded.iter().any(|d| d.port == id);
        self.broken.iter().any(|(id, why)| !why.starts_with(REFUSED) && !closed(*id))
    }

    /// Makes device and switch port of each, and sets those up that are in order. What is wrong with one is its own
    /// matter.
    async fn plug(
        &self,
        missing: &[&PortSpec],
        on_switch: Vec<ovs::PortStatus>,
        broken: &mut BTreeMap<NetworkInterfaceId, String>,
    ) -> Result<(), PlaneError> {
        let mut made = Vec::new();
        for port in missing {
            let spec = TapSpec { name: &port.device, owner_uid: port.owner_uid, mtu: port.dhcp.mtu };
            crash::point("C22:before");
            match tap::create(&self.netlink, spec).await {
                Ok(()) => {
                    crash::point("C22:after");
                    made.push(*port);
                }
                Err(error) => drop(broken.insert(port.id, chain(&error))),
            }
        }
        if made.is_empty() {
            return Ok(());
        }
        let ports: Vec<SwitchPort> = made
            .iter()
            .map(|port| SwitchPort {
                name: port.device.clone(),
                ofport: port.port_no.into(),
                kind: PortKind::System,
                mtu: None,
                mac: None,
            })
            .collect();
        crash::point("C23:before");
        let database = self.ovs.database();
        let statuses = database.ensure_ports_beside(service::BRIDGE, on_switch, &ports).await?;
        for (port, status) in made.iter().zip(statuses) {
            let result = match status.error {
                Some(error) => Err(error),
                None => tap::up(&self.netlink, &port.device).await.map_err(|error| chain(&error)),
            };
            if let Err(reason) = result {
                tracing::error!(port = %port.id, device = port.device, reason, "a port is not ready");
                broken.insert(port.id, reason);
            }
        }
        crash::point("C23:after");
        Ok(())
    }

    /// Empties the zones whose connections are no longer their port's.
    async fn empty_zones(&mut self) -> Result<(), PlaneError> {
        for zone in zones_to_empty(self.memory.zones(), &self.compiled) {
            crash::point("D08:before");
            self.ovs.flush_zone(zone).await?;
            crash::point("D08:after");
        }
        self.memory.settle(&self.compiled).map_err(io_error("remembering zones"))
    }

    /// The switch's ports toward the host itself.
    fn host_ports(&self) -> Vec<SwitchPort> {
        let port = |name: &str, ofport, mac, mtu| SwitchPort {
            name: name.to_owned(),
            ofport,
            kind: PortKind::Internal,
            mtu,
            mac: Some(mac),
        };
        let mut ports = vec![port(service::META_DEVICE, service::META_PORT, META_MAC, Some(HOST_MTU))];
        if self.config.external.is_some() {
            // Open vSwitch gives it the smallest MTU of the guests. So the host tells whoever sends them larger packets from
            // outside ("fragmentation needed"), which no switch does.
            ports.push(port(service::EXT_DEVICE, service::EXT_PORT, EXT_MAC, None));
        }
        if let Some(underlay) = &self.underlay {
            let kind = PortKind::Tunnel { local: underlay.report.address, udp: service::TUNNEL_UDP };
            let name = service::TUNNEL_DEVICE.to_owned();
            ports.push(SwitchPort { name, ofport: service::TUNNEL_PORT, kind, mtu: None, mac: None });
        }
        ports
    }

    /// Makes the host's own devices and starts the services on them, if that is not so already. A restarted switch makes
    /// new devices of the old names.
    async fn host_devices(&mut self) -> Result<(), PlaneError> {
        let statuses = self.ovs.database().ensure_ports(service::BRIDGE, &self.host_ports()).await?;
        for status in statuses {
            if let Some(reason) = status.error {
                return Err(PlaneError::Device { device: status.name, reason });
            }
        }
        let bound =
            self.services.as_mut().and_then(|(index, services)| services.is_whole().then_some(*index));
        let meta = self.netlink.link(service::META_DEVICE).await?;
        if bound.is_some() && meta.is_some_and(|link| link.up && Some(link.index) == bound) {
            return Ok(());
        }
        self.services = None;
        let addresses: Vec<Ipv4Net> = service::device_addresses().collect();
        let index = self.host_device(service::META_DEVICE, META_MAC, &addresses).await?;
        if let Some(external) = self.config.external.clone() {
            let own: &[Ipv4Net] = if external.uplink == Uplink::Host { &[external.gateway] } else { &[] };
            self.host_device(service::EXT_DEVICE, EXT_MAC, own).await?;
            for other in self.netlink.addresses(service::EXT_DEVICE).await? {
                if !own.contains(&other) {
                    self.netlink.remove_address(service::EXT_DEVICE, other).await?;
                }
            }
        }
        let services = Services::start(service::META_DEVICE, index, &self.knowledge)
            .map_err(io_error("starting DHCP, DNS and metadata"))?;
        self.services = Some((index, services));
        Ok(())
    }

    async fn host_device(&self, name: &str, mac: MacAddr, addresses: &[Ipv4Net]) -> Result<u32, PlaneError> {
        netlink::disable_ipv6(name).map_err(io_error("turning IPv6 off"))?;
        self.netlink.set_mac(name, mac).await?;
        for address in addresses {
            self.netlink.ensure_address(name, *address).await?;
        }
        self.netlink.set_up(name, true).await?;
        let link = self.netlink.link(name).await?;
        Ok(link.ok_or_else(|| NetlinkError::NoLink(name.to_owned()))?.index)
    }

    /// Compares everything with reality and puts right what differs.
    pub async fn audit(&mut self) -> Result<Repairs, PlaneError> {
        let mut repairs = Repairs::default();
        if self.settle_underlay().await? {
            self.change_flows(None).await?;
        }
        self.greet_peers();
        let switch = self.switch.clone().ok_or(OpenFlowError::Broken)?;
        if self.document.is_some() {
            let (installed, strangers) = installed(&switch, self.compiled.flows.len()).await?;
            repairs.strangers = strangers;
            repairs.flows = diff(&installed, &self.compiled.flows).len();
            if repairs.flows > 0 || !self.certain {
                self.certain = false;
                self.change_flows(None).await?;
            }
        }
        self.host_devices().await?;
        self.settle_outside().await?;
        repairs.ports = self.settle_ports(None).await?;
        if !netfilter::is_present().await.map_err(PlaneError::Guard)? {
            guard_host(&self.config, &self.guarded).await?;
        }
        if self.config.external.is_some() {
            // Docker may have been installed since, or another firewall may have made its chain anew.
            netfilter::let_through_docker(service::EXT_DEVICE).await.map_err(PlaneError::Guard)?;
        }
        Ok(repairs)
    }

    /// What has to be looked after between changes: servers of ours that died, and the next treatment of forgotten
    /// connections when its time has come. True if something was done.
    pub async fn tick(&mut self) -> Result<bool, PlaneError> {
        let mut done = false;
        self.ovs.heal().await?;
        let mirror = self.compiled_of.as_ref().map(|(_, facts)| facts.mirror);
        if self.document.is_some() && mirror != Some(self.memory.mirror(boot_seconds())) {
            self.change_flows(None).await?;
            done = true;
        }
        Ok(done)
    }

    /// What is in force.
    #[must_use]
    pub fn report(&self) -> NetworkReport {
        let status = |port: &PortSpec| match self.broken.get(&port.id) {
            Some(reason) => PortStatus::Degraded { reason: reason.clone() },
            None => PortStatus::Ready,
        };
        let ports = self.document.iter().flat_map(|d| &d.ports);
        NetworkReport {
            format: gon_proto::FORMAT,
            node: self.config.node,
            applied: self.applied.0,
            vpcs: self.applied.1.clone(),
            ports: ports.map(|p| PortReport { id: p.id, status: status(p) }).collect(),
            overlay: self.overlay,
        }
    }
}

/// How the reason of a port begins whose flow was refused.
const REFUSED: &str = "the switch refused";

/// The flows that are really there, and how many there are that we cannot read; some `expected` are.
///
/// While a switch in userspace writes flows down it carries no packet: a quarter of a second for eleven thousand, and what its
/// ports cannot hold as long is lost. So it is asked for a part at a time, by the last bits of the cookie, which are random
/// in those of resources.
async fn installed(switch: &Switch, expected: usize) -> Result<(FlowTable, usize), OpenFlowError> {
    let parts = (expected / PART).next_power_of_two().min(MOST_PARTS) as u64;
    let (mut flows, mut all) = (Vec::with_capacity(expected), 0);
    for part in 0..parts {
        let stats = switch.flows(part, parts - 1).await?;
        all += stats.len();
        flows.extend(stats.into_iter().filter_map(|s| s.flow));
    }
    let strangers = all - flows.len();
    if strangers > 0 {
        tracing::warn!(strangers, "the bridge has flows that are not ours");
    }
    Ok((FlowTable::from_flows(flows), strangers))
}

/// Makes the changes at once; the refused ones in words.
async fn push(switch: &Switch, changes: &[FlowMod<'_>]) -> Result<Vec<String>, OpenFlowError> {
    let refused = switch.apply(changes).await?;
    let words = refused.into_iter().filter_map(|refused| {
        let (FlowMod::Add(flow) | FlowMod::Delete(flow)) = changes.get(refused.place)?;
        Some(format!("{flow}: {}", refused.error))
    });
    Ok(words.collect())
}

/// The other nodes that tunnel packets may come from.
fn peers(document: Option<&NodeNetwork>) -> Vec<Ipv4Addr> {
    document.map(|d| d.peers.iter().map(|p| p.address).collect()).unwrap_or_default()
}

async fn guard_host(config: &Config, guarded: &(Vec<Ipv4Addr>, Option<String>)) -> Result<(), PlaneError> {
    let tunnels = config.overlay.map(|_| (guarded.0.as_slice(), guarded.1.as_deref()));
    let ruleset = guard::ruleset(config.external.as_ref(), tunnels);
    netfilter::apply(&ruleset).await.map_err(PlaneError::Guard)?;
    if config.external.is_some() {
        netlink::enable_forwarding().map_err(io_error("letting the host route"))?;
        netfilter::let_through_docker(service::EXT_DEVICE).await.map_err(PlaneError::Guard)?;
    }
    Ok(())
}

/// Removes everything from the host: ports, bridge, our own switch, guard. For guests that are gone.
pub async fn tear_down(config: &ovs::Config) -> Result<(), PlaneError> {
    let netlink = Netlink::open()?;
    let links = netlink.guest_links().await?;
    for link in &links {
        netlink.set_up(&link.name, false).await?;
    }
    outside::give_up(&netlink).await?;
    if let Some(switch) = Ovs::find(config, service::BRIDGE).await? {
        if let Err(error) = switch.database().delete_bridge(service::UNDERLAY_BRIDGE).await {
            tracing::warn!(%error, "the underlay's bridge could not be removed");
        }
        switch.tear_down(service::BRIDGE).await?;
    }
    Ovs::forget_choice(config)?;
    Underlay::give_back(&netlink, &config.dir).await?;
    for link in &links {
        netlink.set_leaving(&link.name).await?;
    }
    netlink.remove_leaving().await?;
    netfilter::remove_from_docker(service::EXT_DEVICE).await.map_err(PlaneError::Guard)?;
    netfilter::remove().await.map_err(PlaneError::Guard)
}
