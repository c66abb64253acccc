//! The document as local services look at it: who is the port behind this address of the services' side, and what is around it.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use gon_net::service;
use gon_proto::{NodeNetwork, PortSpec, SubnetSpec, VpcSpec};
use gon_types::id::VpcId;

/// A document with its indexes. Made once per document, shared by every request.
#[derive(Debug)]
pub struct View {
    document: Arc<NodeNetwork>,
    /// Port number to the places of port, subnet and VPC in the document. Ports whose subnet or VPC is missing, or whose
    /// number is used twice, have no place here: the compiler has closed them.
    ports: HashMap<u16, (usize, usize, usize)>,
    addresses: HashSet<(VpcId, Ipv4Addr)>,
    /// Public address to port number, of VPCs with a gateway. What two ports claim is nobody's.
    public: HashMap<Ipv4Addr, u16>,
}

/// A port with what it is in.
#[derive(Debug, Clone, Copy)]
pub struct PortView<'a> {
    /// The port.
    pub port: &'a PortSpec,
    /// Its subnet.
    pub subnet: &'a SubnetSpec,
    /// Its VPC.
    pub vpc: &'a VpcSpec,
}

impl View {
    /// Indexes a document. It is not copied: a document comes with every changed rule, and the switch waits.
    #[must_use]
    pub fn new(document: impl Into<Arc<NodeNetwork>>) -> Self {
        let document = document.into();
        let vpcs: HashMap<_, _> = document.vpcs.iter().enumerate().map(|(n, v)| (v.id, n)).collect();
        let subnets: HashMap<_, _> = document.subnets.iter().enumerate().map(|(n, s)| (s.id, n)).collect();
        let mut ports = HashMap::new();
        let mut twice = HashSet::new();
        for (n, port) in document.ports.iter().enumerate() {
            let Some(&subnet) = subnets.get(&port.subnet) else { continue };
            let Some(&vpc) = vpcs.get(&document.subnets[subnet].vpc) else { continue };
            if ports.insert(port.port_no, (n, subnet, vpc)).is_some() {
                twice.insert(port.port_no);
            }
        }
        ports.retain(|no, _| !twice.contains(no));
        let mut public = HashMap::new();
        let mut contested = HashSet::new();
        for (no, (n, _, vpc)) in &ports {
            let address =
                document.ports[*n].public_ip.filter(|_| document.vpcs[*vpc].internet_gateway.is_some());
            if let Some(address) = address
                && public.insert(address, *no).is_some()
            {
                contested.insert(address);
            }
        }
        public.retain(|address, _| !contested.contains(address));
        let addresses = document.addresses.iter().map(|a| (a.vpc, a.private_ip)).collect();
        Self { document, ports, addresses, public }
    }

    /// The document.
    #[must_use]
    pub fn document(&self) -> &NodeNetwork {
        &self.document
    }
    /// The port that a local service knows by this address: the switch wrote it, so it cannot be forged.
    #[must_use]
    pub fn port_at(&self, source: Ipv4Addr) -> Option<PortView<'_>> {
        self.port(service::port_no(source)?)
    }
    /// The port that the outside knows by this address.
    #[must_use]
    pub fn port_outside(&self, public: Ipv4Addr) -> Option<PortView<'_>> {
        self.port(*self.public.get(&public)?)
    }
    fn port(&self, number: u16) -> Option<PortView<'_>> {
        let (port, subnet, vpc) = *self.ports.get(&number)?;
        Some(PortView {
            port: &self.document.ports[port],
            subnet: &self.document.subnets[subnet],
            vpc: &self.document.vpcs[vpc],
        })
    }
    /// Whether an address is in use in a VPC, here or elsewhere.
    #[must_use]
    pub fn has_address(&self, vpc: VpcId, address: Ipv4Addr) -> bool {
        self.addresses.contains(&(vpc, address))
    }
}
