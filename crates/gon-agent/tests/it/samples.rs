//! A small node for tests: of units (included from there) and of the whole agent.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use gon_proto::{
    AclAction, AclEntrySpec, AclSpec, AddressSpec, DhcpSpec, Direction, GatewayTarget, GroupSpec,
    MetadataSpec, NodeNetwork, Peer, PortSpec, RouteSpec, RouteTarget, RuleSpec, SubnetSpec, VpcSpec,
};
use gon_types::id::{
    InstanceId, InternetGatewayId, NetworkAclId, NetworkInterfaceId, NodeId, SecurityGroupId,
    SecurityGroupRuleId, SubnetId, VpcId,
};
use gon_types::{DocumentVersion, MacAddr, Protocol};
use uuid::Uuid;

fn uuid(kind: u128, n: u128) -> Uuid {
    Uuid::from_u128(0x0193_5a6c_0000_7000_8000_0000_0000_0000 + (kind << 32) + n)
}

pub(crate) fn node() -> NodeId {
    NodeId::from_uuid(uuid(1, 1))
}
pub(crate) fn vpc() -> VpcSpec {
    VpcSpec {
        id: VpcId::from_uuid(uuid(2, 1)),
        generation: 1,
        key: 77,
        cidr_blocks: vec!["10.0.0.0/16".parse().unwrap()],
        internet_gateway: Some(InternetGatewayId::from_uuid(uuid(3, 1))),
    }
}
pub(crate) fn subnet() -> SubnetSpec {
    SubnetSpec {
        id: SubnetId::from_uuid(uuid(4, 1)),
        vpc: vpc().id,
        cidr_block: "10.0.1.0/24".parse().unwrap(),
        routes: vec![RouteSpec {
            destination: "0.0.0.0/0".parse().unwrap(),
            target: RouteTarget::InternetGateway(GatewayTarget {
                id: InternetGatewayId::from_uuid(uuid(3, 1)),
            }),
        }],
        acl: Some(acl().id),
    }
}
/// Lets everything through.
pub(crate) fn acl() -> AclSpec {
    let entry = |direction| AclEntrySpec {
        direction,
        number: 100,
        action: AclAction::Allow,
        protocol: None,
        ports: None,
        icmp: None,
        cidr: "0.0.0.0/0".parse().unwrap(),
    };
    AclSpec {
        id: NetworkAclId::from_uuid(uuid(9, 1)),
        vpc: vpc().id,
        entries: vec![entry(Direction::Inbound), entry(Direction::Outbound)],
    }
}
pub(crate) fn group() -> GroupSpec {
    let rule = |n, direction| RuleSpec {
        id: SecurityGroupRuleId::from_uuid(uuid(6, n)),
        direction,
        protocol: Protocol::All,
        ports: None,
        icmp: None,
        peer: Peer::Cidr("0.0.0.0/0".parse().unwrap()),
    };
    GroupSpec {
        id: SecurityGroupId::from_uuid(uuid(5, 1)),
        vpc: vpc().id,
        rules: vec![rule(1, Direction::Outbound)],
        members: vec![],
    }
}
pub(crate) fn port(no: u16, address: &str) -> PortSpec {
    let private_ip: Ipv4Addr = address.parse().unwrap();
    let dashed = format!("ip-{}", address.replace('.', "-"));
    let [high, low] = no.to_be_bytes();
    PortSpec {
        id: NetworkInterfaceId::from_uuid(uuid(7, no.into())),
        instance: InstanceId::from_uuid(uuid(8, no.into())),
        port_no: no,
        device: format!("gt-{no}"),
        owner_uid: 0,
        mac: MacAddr([0x0a, 0, 0, 0, high, low]),
        private_ip,
        secondary_ips: vec![],
        subnet: subnet().id,
        public_ip: None,
        source_dest_check: true,
        groups: vec![group().id],
        dhcp: DhcpSpec {
            hostname: dashed.clone(),
            domain: "gon-1.compute.internal".to_owned(),
            dns_servers: vec![gon_net::service::GUEST_DNS],
            mtu: 1450,
            lease_seconds: 3600,
        },
        metadata: MetadataSpec {
            instance_id: "i-0123456789abcdef0".to_owned(),
            ami_id: "ami-0123456789abcdef0".to_owned(),
            instance_type: "t3.micro".to_owned(),
            local_hostname: format!("{dashed}.gon-1.compute.internal"),
            availability_zone: "gon-1a".to_owned(),
            vpc_id: "vpc-0123456789abcdef0".to_owned(),
            subnet_id: "subnet-0123456789abcdef0".to_owned(),
            account_id: "123456789012".to_owned(),
            security_groups: vec!["default".to_owned(), "web".to_owned()],
            public_keys: BTreeMap::from([("laptop".to_owned(), "ssh-ed25519 AAAA laptop".to_owned())]),
            user_data: None,
            require_token: false,
            launch_index: 0,
            reservation_id: "r-0123456789abcdef0".to_owned(),
        },
    }
}
pub(crate) fn document(generation: u64, ports: Vec<PortSpec>) -> NodeNetwork {
    let addresses = ports
        .iter()
        .map(|p| AddressSpec {
            vpc: vpc().id,
            private_ip: p.private_ip,
            mac: p.mac,
            subnet: p.subnet,
            node: node(),
            source_dest_check: true,
        })
        .collect();
    NodeNetwork {
        format: gon_proto::FORMAT,
        node: node(),
        version: DocumentVersion { epoch: 1, generation },
        mass_change_ok: false,
        vpcs: vec![vpc()],
        subnets: vec![subnet()],
        addresses,
        groups: vec![group()],
        acls: vec![acl()],
        ports,
        peers: vec![],
    }
}
