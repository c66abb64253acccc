//! `NodeNetwork`: everything a node must know to carry the packets of its ports, names already resolved (group
//! references to addresses, route targets to next hops).
//!
//! A document is complete, sorted by id in every list, and made of facts only: how they become flows is the business
//! of `gon-net`. Devices, ports and numbers are assigned by the control plane, so the compiled result depends on
//! nothing the node finds at run time.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use gon_types::id::{
    InstanceId, InternetGatewayId, NetworkAclId, NetworkInterfaceId, NodeId, SecurityGroupId,
    SecurityGroupRuleId, SubnetId, VpcId,
};
use gon_types::{DocumentVersion, Generation, IcmpMatch, MacAddr, PortRange, Protocol};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// What a tunnel takes from the MTU of the underlay: outer IPv4 (20), UDP (8), Geneve without options (8), inner Ethernet
/// (14).
pub const TUNNEL_OVERHEAD: u16 = 50;

/// The whole desired network of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeNetwork {
    /// [`crate::FORMAT`] of the writer.
    pub format: u32,
    /// The node this document is for; another node refuses it.
    pub node: NodeId,
    /// Its place in the order of this node's network documents.
    pub version: DocumentVersion,
    /// Whether removing most of the node's ports is meant (rule R11): without it an agent refuses such a document.
    pub mass_change_ok: bool,
    /// VPCs that have a port on this node, by id.
    pub vpcs: Vec<VpcSpec>,
    /// Every subnet of those VPCs, by id.
    pub subnets: Vec<SubnetSpec>,
    /// Every address in use in those VPCs, local and remote, by (VPC, address): who answers ARP, where a packet goes.
    pub addresses: Vec<AddressSpec>,
    /// The security groups that ports here use, by id, references resolved.
    pub groups: Vec<GroupSpec>,
    /// The network ACLs of `subnets`, by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acls: Vec<AclSpec>,
    /// The ports of this node, by id.
    pub ports: Vec<PortSpec>,
    /// The other nodes that have an interface in one of those VPCs, by id: where tunnels lead, and may come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerSpec>,
}

impl NodeNetwork {
    /// The document of a node without any port: what a node starts from.
    #[must_use]
    pub fn empty(node: NodeId, version: DocumentVersion) -> Self {
        Self {
            format: crate::FORMAT,
            node,
            version,
            mass_change_ok: false,
            vpcs: vec![],
            subnets: vec![],
            addresses: vec![],
            groups: vec![],
            acls: vec![],
            ports: vec![],
            peers: vec![],
        }
    }
}

impl NodeNetwork {
    /// Says it in this format: what that one has no words for is left out. Format 2 has none for network ACLs. One that
    /// lets everything through says nothing, so it can be left out; any other cannot be without opening what it closes.
    /// Then the document stays as it is, and an agent of that format refuses it whole and goes on with the one it has.
    pub fn speak(&mut self, format: u32) {
        if format < 3 {
            if self.acls.iter().any(|acl| !acl.passes_everything()) {
                return;
            }
            self.acls.clear();
            for subnet in &mut self.subnets {
                subnet.acl = None;
            }
            // Without them a guest reaches less, and nobody else anything.
            for port in &mut self.ports {
                port.secondary_ips.clear();
            }
        }
        self.format = format;
    }
}

/// Another node on the underlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSpec {
    /// Which node.
    pub node: NodeId,
    /// Where its end of the tunnels is.
    pub address: Ipv4Addr,
}

/// A VPC as a node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VpcSpec {
    /// Which VPC.
    pub id: VpcId,
    /// Counts every change that its packets depend on; the agent reports the one it has applied.
    pub generation: Generation,
    /// Network key (VNI), 1 to 2^24-1, unique in the site: keeps equal addresses of two VPCs apart.
    pub key: u32,
    /// Its blocks: what "local" routes cover.
    pub cidr_blocks: Vec<Ipv4Net>,
    /// The attached internet gateway, if any. Routes that name another gateway are black holes.
    pub internet_gateway: Option<InternetGatewayId>,
}

/// A subnet with its effective route table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubnetSpec {
    /// Which subnet.
    pub id: SubnetId,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its block; `.1` of it is the router.
    pub cidr_block: Ipv4Net,
    /// Routes of the effective table, without the local ones, which are implied by the VPC's blocks.
    pub routes: Vec<RouteSpec>,
    /// Its network ACL, in the document's `acls`. Every subnet has one; `None` is said by documents from before there were
    /// any (format 2), and means that nothing is kept back at the subnet's edge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<NetworkAclId>,
}

/// A route: longest prefix wins, local routes are always there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// Packets to these addresses.
    pub destination: Ipv4Net,
    /// Where they go.
    pub target: RouteTarget,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RouteTarget {
    /// Out through the VPC's internet gateway, if the sender has a public address.
    InternetGateway(GatewayTarget),
    /// To an interface of the VPC, whatever the destination address; works only with its source/dest check off.
    Interface {
        /// The interface's address in the VPC.
        private_ip: Ipv4Addr,
    },
    /// Nowhere: the target is gone (EC2's `blackhole`).
    Blackhole,
}

/// The gateway a route names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayTarget {
    /// Which gateway.
    pub id: InternetGatewayId,
}

/// An address of a VPC in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressSpec {
    /// The VPC.
    pub vpc: VpcId,
    /// The address.
    pub private_ip: Ipv4Addr,
    /// Who has it.
    pub mac: MacAddr,
    /// Which subnet it is in.
    pub subnet: SubnetId,
    /// Which node it lives on.
    pub node: NodeId,
    /// Whether its interface sends and takes packets of this address only (EC2's source/destination check).
    #[serde(default = "checked", skip_serializing_if = "Clone::clone")]
    pub source_dest_check: bool,
}

const fn checked() -> bool {
    true
}

/// A security group with its rules. Rules only ever allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// Which group.
    pub id: SecurityGroupId,
    /// Its VPC.
    pub vpc: VpcId,
    /// By id.
    pub rules: Vec<RuleSpec>,
    /// Private addresses of its members in the VPC, sorted: what rules that name this group as a peer match.
    pub members: Vec<Ipv4Addr>,
}

/// Which way a rule looks, from the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To the instance.
    Inbound,
    /// From the instance.
    Outbound,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Inbound, Self::Outbound];
}

/// A rule: packets of the protocol, ports and peer are allowed to start a connection in that direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// Which rule.
    pub id: SecurityGroupRuleId,
    /// Which way.
    pub direction: Direction,
    /// Which protocol.
    pub protocol: Protocol,
    /// Destination ports; present exactly for TCP and UDP.
    pub ports: Option<PortRange>,
    /// Which ICMP messages; `None` is all of them. Only for ICMP.
    pub icmp: Option<IcmpMatch>,
    /// The other side.
    pub peer: Peer,
}

/// The other side of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Peer {
    /// Addresses in a block.
    Cidr(Ipv4Net),
    /// Members of a group of the same VPC, which is in the document's `groups`.
    Group(SecurityGroupId),
}

/// A network ACL: what may cross the edge of its subnets, packet by packet, whatever connection a packet belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AclSpec {
    /// Which ACL.
    pub id: NetworkAclId,
    /// Its VPC.
    pub vpc: VpcId,
    /// By direction and number. In each direction the entry of the lowest number that matches decides; what none matches is
    /// denied.
    pub entries: Vec<AclEntrySpec>,
}

impl AclSpec {
    /// Whether it is as if there were none: in each direction everything is allowed before anything is denied.
    #[must_use]
    pub fn passes_everything(&self) -> bool {
        [Direction::Inbound, Direction::Outbound].into_iter().all(|direction| {
            let mut entries: Vec<_> = self.entries.iter().filter(|e| e.direction == direction).collect();
            entries.sort_by_key(|e| e.number);
            let whole = |e: &AclEntrySpec| e.protocol.is_none() && e.cidr.prefix_len() == 0;
            let decisive = entries.into_iter().find(|e| e.action == AclAction::Deny || whole(e));
            decisive.is_some_and(|e| e.action == AclAction::Allow)
        })
    }
}

/// What an entry does with the packets it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AclAction {
    /// They pass.
    Allow,
    /// They are dropped.
    Deny,
}

/// An entry of a network ACL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AclEntrySpec {
    /// Which way, seen from the subnet: inbound is into it, outbound out of it.
    pub direction: Direction,
    /// 1 to 32766; unique in its ACL and direction.
    pub number: u16,
    /// What it does.
    pub action: AclAction,
    /// IP protocol number; `None` is every protocol.
    pub protocol: Option<u8>,
    /// Destination ports; present exactly for TCP (6) and UDP (17).
    pub ports: Option<PortRange>,
    /// Which ICMP messages; `None` is all of them. Only for ICMP (1).
    pub icmp: Option<IcmpMatch>,
    /// The other side: the source of what comes in, the destination of what goes out.
    pub cidr: Ipv4Net,
}

/// A port: one network interface of an instance on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortSpec {
    /// Which interface.
    pub id: NetworkInterfaceId,
    /// Whose it is.
    pub instance: InstanceId,
    /// 16 to 16000, unique on the node: the switch's port number, the conntrack zone, and the port's place among the
    /// link-local addresses by which local services know it.
    pub port_no: u16,
    /// Name of the tap device, at most 15 bytes of `[a-z0-9-]`.
    pub device: String,
    /// User id that may open the tap: the one the guest's QEMU runs as.
    pub owner_uid: u32,
    /// The guest's Ethernet address.
    pub mac: MacAddr,
    /// The guest's address: what DHCP gives it, and what its public address is translated to.
    pub private_ip: Ipv4Addr,
    /// Its further addresses in the subnet, sorted: it may send from them, and what is for them comes to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secondary_ips: Vec<Ipv4Addr>,
    /// Its subnet, in the document's `subnets`.
    pub subnet: SubnetId,
    /// Its public address, if any: translated one to one at the internet gateway.
    pub public_ip: Option<Ipv4Addr>,
    /// Whether packets that are neither from nor to `private_ip` are dropped (EC2's source/destination check).
    pub source_dest_check: bool,
    /// Its groups, sorted; at least one.
    pub groups: Vec<SecurityGroupId>,
    /// What DHCP tells the guest.
    pub dhcp: DhcpSpec,
    /// What the metadata service tells the guest.
    pub metadata: MetadataSpec,
}

impl PortSpec {
    /// All its addresses, the first one first.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        std::iter::once(self.private_ip).chain(self.secondary_ips.iter().copied())
    }
}

/// DHCP answers beyond the address itself (RFC 2131/2132; classless routes RFC 3442). Router is the subnet's `.1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DhcpSpec {
    /// Host name, a valid DNS label.
    pub hostname: String,
    /// Search domain.
    pub domain: String,
    /// Resolvers, in order.
    pub dns_servers: Vec<Ipv4Addr>,
    /// Interface MTU (option 26).
    pub mtu: u16,
    /// Lease time in seconds.
    pub lease_seconds: u32,
}

/// What `http://169.254.169.254/` answers to this port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetadataSpec {
    /// `i-…` as users see it.
    pub instance_id: String,
    /// `ami-…`.
    pub ami_id: String,
    /// For example `t3.micro`.
    pub instance_type: String,
    /// `ip-10-0-1-5.<region>.compute.internal`.
    pub local_hostname: String,
    /// The availability zone; the region is it without its last letter.
    pub availability_zone: String,
    /// `vpc-…`.
    pub vpc_id: String,
    /// `subnet-…`.
    pub subnet_id: String,
    /// The account that owns the instance, as users see it.
    pub account_id: String,
    /// Names of the security groups.
    pub security_groups: Vec<String>,
    /// Key name to the line of `authorized_keys`.
    pub public_keys: BTreeMap<String, String>,
    /// User data, base64 of at most 16 KiB; opaque to us.
    pub user_data: Option<String>,
    /// Whether only token requests (IMDSv2) are answered.
    pub require_token: bool,
    /// Index within the launch.
    pub launch_index: u32,
    /// `r-…` of the launch.
    pub reservation_id: String,
}
