//! Documents as the network controller renders them, from a few numbers: one VPC with two subnets and a network ACL, a
//! client in one, a server in the other, and as many further ports as are asked for.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use gon_proto::{
    AclAction, AclEntrySpec, AclSpec, AddressSpec, DhcpSpec, Direction, GroupSpec, MetadataSpec, NodeNetwork,
    Peer, PortSpec, RuleSpec, SubnetSpec, VpcSpec,
};
use gon_types::id::{NodeId, SecurityGroupId, SubnetId, VpcId};
use gon_types::{DocumentVersion, Id, MacAddr, PortRange, Protocol, Resource};
use ipnet::Ipv4Net;
use uuid::Uuid;

/// Rules of a group, as in every figure of OVN that was ever recorded here.
pub const RULES: u16 = 20;
/// Port numbers of the two that packets are sent between. The further ones follow.
pub const CLIENT: u16 = 16;
pub const SERVER: u16 = 17;
/// What the client and the server are known by.
pub const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 10), Ipv4Addr::new(10, 0, 128, 10)];
/// Their routers, as `.1` of their subnets.
pub const ROUTERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 128, 1)];
/// Prefix length of both subnets.
pub const PREFIX: u8 = 17;
pub const MTU: u16 = 1450;
/// The UDP port that the rule opens which comes and goes.
pub const OPENED: u16 = 7009;
/// A TCP port that the first rule leaves open to the whole VPC.
pub const OPEN: u16 = 1000;

/// Who has which group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Groups {
    /// One group for all.
    Shared,
    /// Each port its own.
    Own,
}

pub fn id<R: Resource>(kind: u32, n: u32) -> Id<R> {
    let base = 0x0193_5a6c_0000_7000_8000_0000_0000_0000;
    Id::from_uuid(Uuid::from_u128(base | u128::from(kind) << 32 | u128::from(n)))
}
pub fn node() -> NodeId {
    id(1, 1)
}

/// The name of a port's device.
pub fn device(no: u16) -> String {
    format!("gt-{no}")
}
pub fn mac(no: u16) -> MacAddr {
    let [high, low] = no.to_be_bytes();
    MacAddr([0x0a, 0, 0, 0, high, low])
}
/// The address of further port `n`, from 0 on, in the client's subnet.
pub fn further(n: u16) -> Ipv4Addr {
    let [third, fourth] = [1 + n / 250, 4 + n % 250].map(|part| part.to_be_bytes()[1]);
    Ipv4Addr::new(10, 0, third, fourth)
}

fn block(address: Ipv4Addr, length: u8) -> anyhow::Result<Ipv4Net> {
    Ok(Ipv4Net::new(address, length)?.trunc())
}

/// A rule that lets TCP or UDP in.
fn rule(n: u32, protocol: Protocol, port: u16, peer: Peer) -> anyhow::Result<RuleSpec> {
    let (direction, ports) = (Direction::Inbound, PortRange::new(port, port));
    Ok(RuleSpec { id: id(6, n), direction, protocol, ports, icmp: None, peer })
}
fn everything_out(n: u32) -> RuleSpec {
    let (direction, protocol, peer) = (Direction::Outbound, Protocol::All, Peer::Cidr(Ipv4Net::default()));
    RuleSpec { id: id(6, n), direction, protocol, ports: None, icmp: None, peer }
}

/// Group `n` of `vpc` with [`RULES`] rules for what comes in, `named` of them about the members of a group, the others about
/// blocks.
pub fn group(n: u32, vpc: VpcId, named: u16, members: Vec<Ipv4Addr>) -> anyhow::Result<GroupSpec> {
    let own: SecurityGroupId = id(5, n);
    let mut rules = vec![everything_out(n * 100)];
    for k in 0..RULES {
        let peer = if k < RULES - named {
            Peer::Cidr(block(Ipv4Addr::new(10, k.to_be_bytes()[1], 0, 0), 16)?)
        } else {
            Peer::Group(own)
        };
        rules.push(rule(n * 100 + 1 + u32::from(k), Protocol::Tcp, OPEN + k, peer)?);
    }
    Ok(GroupSpec { id: own, vpc, rules, members })
}

/// An ACL of some entries that lets through what is asked here.
pub fn acl(n: u32, vpc: VpcId) -> anyhow::Result<AclSpec> {
    let mut entries = Vec::new();
    for direction in [Direction::Inbound, Direction::Outbound] {
        for number in [10, 20, 30] {
            let (action, protocol) = (AclAction::Deny, Some(6));
            let (ports, icmp) = (PortRange::new(20 + number, 20 + number), None);
            let cidr = block(Ipv4Addr::new(198, 51, 100, 0), 24)?;
            entries.push(AclEntrySpec { direction, number, action, protocol, ports, icmp, cidr });
        }
        let (number, action, cidr) = (100, AclAction::Allow, Ipv4Net::default());
        entries.push(AclEntrySpec {
            direction,
            number,
            action,
            protocol: None,
            ports: None,
            icmp: None,
            cidr,
        });
    }
    Ok(AclSpec { id: id(9, n), vpc, entries })
}

pub fn vpc(n: u32) -> VpcSpec {
    let cidr_blocks = vec![Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 16)];
    VpcSpec { id: id(2, n), generation: 1, key: n, cidr_blocks, internet_gateway: None }
}

/// Subnet `n` around an address.
pub fn subnet(n: u32, vpc: VpcId, address: Ipv4Addr, length: u8, acl: u32) -> anyhow::Result<SubnetSpec> {
    let cidr_block = block(address, length)?;
    Ok(SubnetSpec { id: id(4, n), vpc, cidr_block, routes: vec![], acl: Some(id(9, acl)) })
}

/// Port `n` of all, which its node knows as `no`.
pub fn port(
    n: u32,
    no: u16,
    subnet: SubnetId,
    private_ip: Ipv4Addr,
    groups: Vec<SecurityGroupId>,
) -> PortSpec {
    let hostname = format!("ip-{}", private_ip.to_string().replace('.', "-"));
    PortSpec {
        id: id(7, n),
        instance: id(8, n),
        port_no: no,
        device: device(no),
        owner_uid: 0,
        mac: mac(no),
        private_ip,
        secondary_ips: vec![],
        subnet,
        public_ip: None,
        source_dest_check: true,
        groups,
        dhcp: DhcpSpec {
            hostname: hostname.clone(),
            domain: "gon-1.compute.internal".to_owned(),
            dns_servers: vec![gon_net::service::GUEST_DNS],
            mtu: MTU,
            lease_seconds: 3600,
        },
        metadata: MetadataSpec {
            instance_id: "i-0123456789abcdef0".to_owned(),
            ami_id: "ami-0123456789abcdef0".to_owned(),
            instance_type: "t3.micro".to_owned(),
            local_hostname: format!("{hostname}.gon-1.compute.internal"),
            availability_zone: "gon-1a".to_owned(),
            vpc_id: "vpc-0123456789abcdef0".to_owned(),
            subnet_id: "subnet-0123456789abcdef0".to_owned(),
            account_id: "123456789012".to_owned(),
            security_groups: vec!["default".to_owned()],
            public_keys: BTreeMap::from([("laptop".to_owned(), "ssh-ed25519 AAAA laptop".to_owned())]),
            user_data: None,
            require_token: true,
            launch_index: 0,
            reservation_id: "r-0123456789abcdef0".to_owned(),
        },
    }
}

/// The address of a port as everybody in its VPC knows it.
pub fn address(port: &PortSpec, vpc: VpcId, node: NodeId) -> AddressSpec {
    let (private_ip, mac, subnet) = (port.private_ip, port.mac, port.subnet);
    AddressSpec { vpc, private_ip, mac, subnet, node, source_dest_check: true }
}

/// The document of a node with the client, the server and `ports` further ones. With `opened` one more rule lets UDP to
/// [`OPENED`] in.
pub fn document(generation: u64, ports: usize, groups: Groups, opened: bool) -> anyhow::Result<NodeNetwork> {
    let vpc = vpc(77);
    let subnets = [subnet(1, vpc.id, ADDRESSES[0], PREFIX, 1)?, subnet(2, vpc.id, ADDRESSES[1], PREFIX, 1)?];
    let group_of = |no: u16| match groups {
        Groups::Shared => 1,
        Groups::Own => u32::from(no),
    };
    let mut all = vec![(CLIENT, &subnets[0], ADDRESSES[0]), (SERVER, &subnets[1], ADDRESSES[1])];
    for n in 0..u16::try_from(ports)? {
        all.push((SERVER + 1 + n, &subnets[0], further(n)));
    }
    let ports: Vec<PortSpec> = all
        .into_iter()
        .map(|(no, subnet, address)| port(no.into(), no, subnet.id, address, vec![id(5, group_of(no))]))
        .collect();
    let mut specs = Vec::new();
    match groups {
        Groups::Shared => {
            let mut members: Vec<_> = ports.iter().map(|p| p.private_ip).collect();
            members.sort_unstable();
            specs.push(group(1, vpc.id, 5, members)?);
        }
        Groups::Own => {
            for port in &ports {
                specs.push(group(group_of(port.port_no), vpc.id, 0, vec![port.private_ip])?);
            }
        }
    }
    if opened && let Some(first) = specs.first_mut() {
        let peer = Peer::Cidr(block(ADDRESSES[0], 24)?);
        first.rules.push(rule(99, Protocol::Udp, OPENED, peer)?);
    }
    let mut addresses: Vec<_> = ports.iter().map(|p| address(p, vpc.id, node())).collect();
    addresses.sort_by_key(|a| a.private_ip);
    let acls = vec![acl(1, vpc.id)?];
    let version = DocumentVersion { epoch: 1, generation };
    let mut document = NodeNetwork::empty(node(), version);
    document.mass_change_ok = true;
    document.addresses = addresses;
    document.groups = specs;
    document.acls = acls;
    document.ports = ports;
    document.vpcs = vec![vpc];
    document.subnets = subnets.into();
    Ok(document)
}
