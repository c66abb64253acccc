//! Rows to a node's network document: names to addresses, group references to members, route targets to next hops.
//! Pure; sorted as the rows are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use base64::Engine as _;
use gon_proto::{
    AclAction, AclEntrySpec, AclSpec, AddressSpec, DhcpSpec, Direction, GatewayTarget, GroupSpec,
    MetadataSpec, NodeNetwork, Peer, PeerSpec, PortSpec, RouteSpec, RouteTarget, RuleSpec, SubnetSpec,
    TUNNEL_OVERHEAD, VpcSpec,
};
use gon_store::network_acls::EntryRow;
use gon_store::network_document::{NodeNetworkRows, PortRow, RouteRow, RuleRow, StandRow};
use gon_store::{Result, StoreError};
use gon_types::id::{
    AccountId, ImageId, InstanceId, InternetGatewayId, NetworkAclId, NetworkInterfaceId, NodeId, SubnetId,
    VpcId,
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
        let cidr_blocks = row.blocks()?;
        document.vpcs.push(VpcSpec {
            id: VpcId::from_uuid(row.id),
            generation: row.generation.unsigned_abs(),
            key: row.key.unsigned_abs(),
            cidr_blocks,
            internet_gateway: row.internet_gateway_id.map(InternetGatewayId::from_uuid),
        });
    }
    let mut acls: BTreeMap<Uuid, AclSpec> = BTreeMap::new();
    for row in &rows.subnets {
        let (id, vpc) = (NetworkAclId::from_uuid(row.network_acl_id), VpcId::from_uuid(row.vpc_id));
        acls.entry(row.network_acl_id).or_insert_with(|| AclSpec { id, vpc, entries: vec![] });
    }
    for row in &rows.acl_entries {
        let acl = acls.get_mut(&row.network_acl_id).ok_or_else(|| impossible("an entry of no ACL"))?;
        acl.entries.push(acl_entry(row)?);
    }
    document.acls = acls.into_values().collect();
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
            acl: Some(NetworkAclId::from_uuid(row.network_acl_id)),
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
    let mut rules = rules_by_group(&rows.rules)?;
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

fn rules_by_group(rows: &[RuleRow]) -> Result<BTreeMap<Uuid, Vec<RuleSpec>>> {
    let mut rules: BTreeMap<Uuid, Vec<RuleSpec>> = BTreeMap::new();
    for row in rows {
        rules.entry(row.security_group_id).or_default().push(rule(row)?);
    }
    Ok(rules)
}

/// The groups that ports have: those whose rules are in the document.
#[must_use]
pub fn groups_of_ports(document: &NodeNetwork) -> Vec<Uuid> {
    let groups: BTreeSet<Uuid> = document.ports.iter().flat_map(|p| &p.groups).map(|g| g.uuid()).collect();
    groups.into_iter().collect()
}

/// The document with the rules as they are now; `None` if something else changed in its VPCs too, or a rule names a group
/// that is not in it, or nothing at all changed that is counted.
pub fn with_rules(
    document: &NodeNetwork,
    stand: &[StandRow],
    rules: &[RuleRow],
) -> Result<Option<NodeNetwork>> {
    let mut newer = false;
    for vpc in &document.vpcs {
        let now = stand.iter().find(|row| row.id == vpc.id.uuid());
        let Some(now) = now.filter(|now| now.shape_generation.unsigned_abs() <= vpc.generation) else {
            return Ok(None);
        };
        newer |= now.generation.unsigned_abs() > vpc.generation;
    }
    let mut of_ports: BTreeMap<Uuid, Vec<RuleSpec>> =
        groups_of_ports(document).into_iter().map(|group| (group, vec![])).collect();
    of_ports.append(&mut rules_by_group(rules)?);
    let named: BTreeSet<Uuid> = rules.iter().filter_map(|rule| rule.peer_group_id).collect();
    if !newer || named.iter().any(|group| document.groups.iter().all(|g| g.id.uuid() != *group)) {
        return Ok(None);
    }
    let mut next = document.clone();
    for vpc in &mut next.vpcs {
        let now = stand.iter().find(|row| row.id == vpc.id.uuid());
        vpc.generation = now.map_or(vpc.generation, |now| now.generation.unsigned_abs());
    }
    // One that was only named, and is no longer, goes.
    next.groups.retain(|group| of_ports.contains_key(&group.id.uuid()) || named.contains(&group.id.uuid()));
    for group in &mut next.groups {
        group.rules = of_ports.remove(&group.id.uuid()).unwrap_or_default();
    }
    Ok(Some(next))
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
        secondary_ips: row.secondary_addresses()?,
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

fn direction(text: &str) -> Result<Direction> {
    match text {
        "inbound" => Ok(Direction::Inbound),
        "outbound" => Ok(Direction::Outbound),
        _ => Err(impossible("a rule that looks neither way")),
    }
}

fn ports((first, last): (Option<i32>, Option<i32>)) -> Result<Option<PortRange>> {
    let port = |n: i32| u16::try_from(n).map_err(|_| impossible("a port beyond 65535"));
    let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
    let range = PortRange::new(port(first)?, port(last)?);
    range.map(Some).ok_or_else(|| impossible("an empty port range"))
}

fn icmp((icmp_type, code): (Option<i16>, Option<i16>)) -> Result<Option<IcmpMatch>> {
    let byte = |n: i16| u8::try_from(n).map_err(|_| impossible("an ICMP type or code beyond 255"));
    let Some(icmp_type) = icmp_type else { return Ok(None) };
    Ok(Some(IcmpMatch { icmp_type: byte(icmp_type)?, code: code.map(byte).transpose()? }))
}

fn acl_entry(row: &EntryRow) -> Result<AclEntrySpec> {
    let protocol = |n: i16| u8::try_from(n).map_err(|_| impossible("a protocol beyond 255"));
    Ok(AclEntrySpec {
        direction: direction(&row.direction)?,
        number: u16::try_from(row.rule_number).map_err(|_| impossible("a rule number beyond 32766"))?,
        action: match row.action.as_str() {
            "allow" => AclAction::Allow,
            "deny" => AclAction::Deny,
            _ => return Err(impossible("an entry that neither allows nor denies")),
        },
        protocol: row.protocol.map(protocol).transpose()?,
        ports: ports((row.first_port, row.last_port))?,
        icmp: icmp((row.icmp_type, row.icmp_code))?,
        cidr: row.cidr_block.0,
    })
}

fn rule(row: &RuleRow) -> Result<RuleSpec> {
    let direction = direction(&row.direction)?;
    let protocol = match row.protocol.as_str() {
        "all" => Protocol::All,
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "icmp" => Protocol::Icmp,
        _ => return Err(impossible("a rule for an unknown protocol")),
    };
    let ports = ports((row.first_port, row.last_port))?;
    let icmp = icmp((row.icmp_type, row.icmp_code))?;
    let peer = match (row.peer_block()?, row.peer_group_id) {
        (Some(block), _) => Peer::Cidr(block),
        (None, Some(group)) => Peer::Group(gon_types::id::SecurityGroupId::from_uuid(group)),
        (None, None) => return Err(impossible("a rule without a peer")),
    };
    let id = gon_types::id::SecurityGroupRuleId::from_uuid(row.id);
    Ok(RuleSpec { id, direction, protocol, ports, icmp, peer })
}
