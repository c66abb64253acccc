//! Rows to a node's network document: names to addresses, group references to members, route targets to next hops.
//! Pure; sorted as the rows are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use base64::Engine as _;
use gon_proto::{
    AddressSpec, DhcpSpec, Direction, GatewayTarget, GroupSpec, MetadataSpec, NodeNetwork, Peer, PeerSpec,
    PortSpec, RouteSpec, RouteTarget, RuleSpec, SubnetSpec, TUNNEL_OVERHEAD, VpcSpec,
};
use gon_store::network_document::{NodeNetworkRows, PortRow, RouteRow, RuleRow};
use gon_store::{Result, StoreError};
use gon_types::id::{
    AccountId, ImageId, InstanceId, InternetGatewayId, NetworkInterfaceId, NodeId, SubnetId, VpcId,
};
use gon_types::{DocumentVersion, IcmpMatch, PortRange, Protocol};
use uuid::Uuid;

use super::NetworkSettings;

/// The tap device of an interface in one placement of its instance: `gt` and 12 hex digits of its id, which are random;
/// 10 of them and three of the placement from the second on. At most 15 bytes, which is what Linux takes.
///
/// That a device is there and up says that its policy is in force. So an instance that left a node and comes back before
/// the network agent has heard of either must not find the device of its last stay.
#[must_use]
pub fn device_name(interface: Uuid, placement: i64) -> String {
    let hex = interface.simple().to_string();
    match placement {
        ..=1 => format!("gt{}", &hex[20..]),
        later => format!("gt{}{:03x}", &hex[22..], later & 0xfff),
    }
}

/// The region of a zone: the zone without its last letter.
#[must_use]
pub fn region_of(availability_zone: &str) -> &str {
    availability_zone.strip_suffix(|c: char| c.is_ascii_lowercase()).unwrap_or(availability_zone)
}

/// A value that a CHECK of the schema forbids.
fn impossible(what: &str) -> StoreError {
    StoreError::Db(gon_store::invalid(what.to_owned()))
}

/// The document, unstamped.
pub fn document(node: NodeId, rows: NodeNetworkRows, settings: &NetworkSettings) -> Result<NodeNetwork> {
    let mut document = NodeNetwork::empty(node, DocumentVersion::default());
    let mtu = guest_mtu(settings, rows.underlay_mtu);
    let group_names: HashMap<Uuid, &str> = rows.groups.iter().map(|g| (g.id, g.name.as_str())).collect();
    let blocks: HashMap<Uuid, _> = rows.subnets.iter().map(|s| (s.id, s.cidr_block.0)).collect();
    for row in &rows.ports {
        let block = blocks.get(&row.subnet_id).ok_or_else(|| impossible("a port outside every subnet"))?;
        document.ports.push(port(row, block.network(), &group_names, settings, mtu)?);
    }
    for row in rows.vpcs {
        document.vpcs.push(VpcSpec {
            id: VpcId::from_uuid(row.id),
            generation: row.generation.unsigned_abs(),
            key: row.key.unsigned_abs(),
            cidr_blocks: vec![row.cidr_block.0],
            internet_gateway: row.internet_gateway_id.map(InternetGatewayId::from_uuid),
        });
    }
    let mut routes: HashMap<Uuid, Vec<RouteSpec>> = HashMap::new();
    for row in &rows.routes {
        routes.entry(row.route_table_id).or_default().push(route(row)?);
    }
    for row in rows.subnets {
        document.subnets.push(SubnetSpec {
            id: SubnetId::from_uuid(row.id),
            vpc: VpcId::from_uuid(row.vpc_id),
            cidr_block: row.cidr_block.0,
            routes: row.route_table_id.and_then(|t| routes.get(&t)).cloned().unwrap_or_default(),
            acl: None,
        });
    }
    for row in rows.addresses {
        document.addresses.push(AddressSpec {
            vpc: VpcId::from_uuid(row.vpc_id),
            private_ip: row.private_ip.0,
            mac: row.mac_address.0,
            subnet: SubnetId::from_uuid(row.subnet_id),
            node: NodeId::from_uuid(row.node_id),
            source_dest_check: row.source_dest_check,
        });
    }
    let mut rules: BTreeMap<Uuid, Vec<RuleSpec>> = BTreeMap::new();
    for row in &rows.rules {
        rules.entry(row.security_group_id).or_default().push(rule(row)?);
    }
    for row in rows.groups {
        document.groups.push(GroupSpec {
            id: gon_types::id::SecurityGroupId::from_uuid(row.id),
            vpc: VpcId::from_uuid(row.vpc_id),
            rules: rules.remove(&row.id).unwrap_or_default(),
            members: row.members,
        });
    }
    document.peers = rows
        .peers
        .into_iter()
        .map(|(id, address)| PeerSpec { node: NodeId::from_uuid(id), address })
        .collect();
    Ok(document)
}

/// What guests are told: the site's MTU, or what fits through a tunnel of the narrowest underlay. The same on every node, for
/// a guest cannot know which of its peers is on which.
fn guest_mtu(settings: &NetworkSettings, underlay: Option<i32>) -> u16 {
    let room =
        underlay.and_then(|mtu| u16::try_from(mtu).ok()).map(|mtu| mtu.saturating_sub(TUNNEL_OVERHEAD));
    room.map_or(settings.mtu, |room| room.min(settings.mtu))
}

fn port(
    row: &PortRow,
    subnet_base: Ipv4Addr,
    group_names: &HashMap<Uuid, &str>,
    settings: &NetworkSettings,
    mtu: u16,
) -> Result<PortSpec> {
    let address = row.private_ip.0;
    let [a, b, c, d] = address.octets();
    let hostname = format!("ip-{a}-{b}-{c}-{d}");
    let domain = format!("{}.compute.internal", region_of(&row.availability_zone));
    let names: BTreeSet<&str> = row.groups.iter().filter_map(|g| group_names.get(g).copied()).collect();
    let public_keys = match (&row.key_name, &row.public_key) {
        (Some(name), Some(key)) => BTreeMap::from([(name.clone(), key.clone())]),
        _ => BTreeMap::new(),
    };
    let reservation = row.reservation_id.simple().to_string();
    Ok(PortSpec {
        id: NetworkInterfaceId::from_uuid(row.id),
        instance: InstanceId::from_uuid(row.instance_id),
        port_no: u16::try_from(row.port_no).map_err(|_| impossible("a port number beyond 16 bits"))?,
        device: device_name(row.id, row.placement_epoch),
        owner_uid: row.run_as_uid.unsigned_abs(),
        mac: row.mac_address.0,
        private_ip: address,
        subnet: SubnetId::from_uuid(row.subnet_id),
        public_ip: row.public_address()?,
        source_dest_check: row.source_dest_check,
        groups: row.groups.iter().copied().map(gon_types::id::SecurityGroupId::from_uuid).collect(),
        dhcp: DhcpSpec {
            hostname: hostname.clone(),
            domain: domain.clone(),
            dns_servers: vec![Ipv4Addr::from(u32::from(subnet_base) + 2)],
            mtu,
            lease_seconds: settings.lease_seconds,
        },
        metadata: MetadataSpec {
            instance_id: InstanceId::from_uuid(row.instance_id).to_string(),
            ami_id: ImageId::from_uuid(row.image_id).to_string(),
            instance_type: row.instance_type.clone(),
            local_hostname: format!("{hostname}.{domain}"),
            availability_zone: row.availability_zone.clone(),
            vpc_id: VpcId::from_uuid(row.vpc_id).to_string(),
            subnet_id: SubnetId::from_uuid(row.subnet_id).to_string(),
            account_id: AccountId::from_uuid(row.account_id).to_string(),
            security_groups: names.into_iter().map(str::to_owned).collect(),
            public_keys,
            user_data: row
                .user_data
                .as_ref()
                .map(|bytes| base64::engine::general_purpose::STANDARD.encode(bytes)),
            require_token: row.require_token,
            launch_index: row.launch_index.unsigned_abs(),
            reservation_id: format!("r-{}", &reservation[reservation.len() - gon_types::id::SHORT_LEN..]),
        },
    })
}

fn route(row: &RouteRow) -> Result<RouteSpec> {
    let target = match (row.gateway_id, row.interface_address()?) {
        (Some(id), _) => RouteTarget::InternetGateway(GatewayTarget { id: InternetGatewayId::from_uuid(id) }),
        (None, Some(private_ip)) => RouteTarget::Interface { private_ip },
        (None, None) => RouteTarget::Blackhole,
    };
    Ok(RouteSpec { destination: row.destination_cidr.0, target })
}

fn rule(row: &RuleRow) -> Result<RuleSpec> {
    let direction = match row.direction.as_str() {
        "inbound" => Direction::Inbound,
        "outbound" => Direction::Outbound,
        _ => return Err(impossible("a rule that looks neither way")),
    };
    let protocol = match row.protocol.as_str() {
        "all" => Protocol::All,
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "icmp" => Protocol::Icmp,
        _ => return Err(impossible("a rule for an unknown protocol")),
    };
    let port = |n: i32| u16::try_from(n).map_err(|_| impossible("a port beyond 65535"));
    let ports = match (row.first_port, row.last_port) {
        (Some(first), Some(last)) => {
            Some(PortRange::new(port(first)?, port(last)?).ok_or_else(|| impossible("an empty port range"))?)
        }
        _ => None,
    };
    let byte = |n: i16| u8::try_from(n).map_err(|_| impossible("an ICMP type or code beyond 255"));
    let icmp = match row.icmp_type {
        Some(icmp_type) => {
            Some(IcmpMatch { icmp_type: byte(icmp_type)?, code: row.icmp_code.map(byte).transpose()? })
        }
        None => None,
    };
    let peer = match (row.peer_block()?, row.peer_group_id) {
        (Some(block), _) => Peer::Cidr(block),
        (None, Some(group)) => Peer::Group(gon_types::id::SecurityGroupId::from_uuid(group)),
        (None, None) => return Err(impossible("a rule without a peer")),
    };
    let id = gon_types::id::SecurityGroupRuleId::from_uuid(row.id);
    Ok(RuleSpec { id, direction, protocol, ports, icmp, peer })
}
