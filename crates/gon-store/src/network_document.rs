//! What a node's network document is made of, read in one snapshot.
//!
//! An interface belongs to the document while it is placed on the node and its instance still has something there
//! (finalizer `compute`): a guest is disconnected before its port is unsecured (rules R9, R10). The rest of the
//! document is what those interfaces need, found in a fixed number of queries however many there are.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use uuid::Uuid;

use crate::route_tables::unroutable;
use crate::v4::{Block, Host, Mac, host};
use crate::{Conn, Result, Store, StoreError};

/// Everything about one node, each list sorted by its key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeNetworkRows {
    /// Interfaces whose port the node should have.
    pub ports: Vec<PortRow>,
    /// Interfaces that are still placed here but whose guest is gone: their ports are to be removed.
    pub leaving: Vec<LeavingRow>,
    /// VPCs of `ports`.
    pub vpcs: Vec<VpcRow>,
    /// All subnets of those VPCs.
    pub subnets: Vec<SubnetRow>,
    /// All routes of those VPCs.
    pub routes: Vec<RouteRow>,
    /// All placed addresses of those VPCs.
    pub addresses: Vec<AddressRow>,
    /// Groups of `ports`, and groups their rules name.
    pub groups: Vec<GroupRow>,
    /// Rules of the groups of `ports`.
    pub rules: Vec<RuleRow>,
    /// Entries of the network ACLs of `subnets`, by ACL, direction and number.
    pub acl_entries: Vec<crate::network_acls::EntryRow>,
    /// Other nodes that have one of `addresses`, with their ends of tunnels.
    pub peers: Vec<(Uuid, Ipv4Addr)>,
    /// The smallest MTU of any node's underlay; `None` while no node has an overlay.
    pub underlay_mtu: Option<i32>,
}

/// An interface with what its instance's document entries need.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct PortRow {
    /// The interface.
    pub id: Uuid,
    /// Its instance.
    pub instance_id: Uuid,
    /// Its VPC.
    pub vpc_id: Uuid,
    /// Its subnet.
    pub subnet_id: Uuid,
    /// Its number on the node.
    pub port_no: i32,
    /// Which placement of the instance that is.
    pub placement_epoch: i64,
    /// Who the guest's QEMU runs as.
    pub run_as_uid: i32,
    /// Its Ethernet address.
    #[sqlx(try_from = "mac_address::MacAddress")]
    pub mac_address: Mac,
    /// Its address.
    #[sqlx(try_from = "IpNet")]
    pub private_ip: Host,
    /// Its public address.
    pub public_ip: Option<IpNet>,
    /// Its further addresses, sorted.
    pub secondary_ips: Vec<IpNet>,
    /// EC2's source/destination check.
    pub source_dest_check: bool,
    /// Its groups, sorted.
    pub groups: Vec<Uuid>,
    /// Owner.
    pub account_id: Uuid,
    /// What the instance was launched from.
    pub image_id: Uuid,
    /// For example `t3.micro`.
    pub instance_type: String,
    /// Name of its key pair.
    pub key_name: Option<String>,
    /// Its line of `authorized_keys`.
    pub public_key: Option<String>,
    /// User data.
    pub user_data: Option<Vec<u8>>,
    /// Whether only token requests are answered.
    pub require_token: bool,
    /// Index within the launch.
    pub launch_index: i32,
    /// The launch.
    pub reservation_id: Uuid,
    /// The subnet's zone.
    pub availability_zone: String,
    present: bool,
    needs_network: bool,
}

impl VpcRow {
    /// Its blocks as words.
    pub fn blocks(&self) -> Result<Vec<Ipv4Net>> {
        let word = |net: &IpNet| Block::try_from(*net).map(|block| block.0);
        let blocks = self.cidr_blocks.iter().map(word).collect::<Result<_, _>>();
        blocks.map_err(|error| StoreError::Db(sqlx::Error::Decode(error.into())))
    }
}

impl PortRow {
    /// The further addresses as words.
    pub fn secondary_addresses(&self) -> Result<Vec<Ipv4Addr>> {
        Ok(self.secondary_ips.iter().copied().map(host).collect::<Result<_, _>>()?)
    }

    /// The public address as a word.
    pub fn public_address(&self) -> Result<Option<Ipv4Addr>> {
        Ok(self.public_ip.map(host).transpose()?)
    }
}

/// An interface whose port is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeavingRow {
    /// The interface.
    pub id: Uuid,
    /// Its instance.
    pub instance_id: Uuid,
    /// Whether the instance waits for it (finalizer `network`).
    pub awaited: bool,
}

/// A VPC.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct VpcRow {
    /// The VPC.
    pub id: Uuid,
    /// Its generation.
    pub generation: i64,
    /// Its network key.
    pub key: i32,
    /// Its blocks, the first one first.
    pub cidr_blocks: Vec<IpNet>,
    /// The gateway attached to it.
    pub internet_gateway_id: Option<Uuid>,
}

/// How far the changes of a VPC have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct StandRow {
    /// The VPC.
    pub id: Uuid,
    /// Its generation.
    pub generation: i64,
    /// The last one that changed anything but rules.
    pub shape_generation: i64,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct SubnetRow {
    /// The subnet.
    pub id: Uuid,
    /// Its VPC.
    pub vpc_id: Uuid,
    /// Its block.
    #[sqlx(try_from = "IpNet")]
    pub cidr_block: Block,
    /// The associated route table, or the VPC's main one.
    pub route_table_id: Option<Uuid>,
    /// Its network ACL.
    pub network_acl_id: Uuid,
}

/// A route to a block.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct RouteRow {
    /// Its table.
    pub route_table_id: Uuid,
    /// Where to.
    #[sqlx(try_from = "IpNet")]
    pub destination_cidr: Block,
    /// The gateway, if it is one that is attached to this VPC.
    pub gateway_id: Option<Uuid>,
    /// The address of the target interface, if it is one that exists.
    pub interface_ip: Option<IpNet>,
}

impl RouteRow {
    /// The address of the target interface as a word.
    pub fn interface_address(&self) -> Result<Option<Ipv4Addr>> {
        Ok(self.interface_ip.map(host).transpose()?)
    }
}

/// An address in use.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct AddressRow {
    /// Its VPC.
    pub vpc_id: Uuid,
    /// The address.
    #[sqlx(try_from = "IpNet")]
    pub private_ip: Host,
    /// Who has it.
    #[sqlx(try_from = "mac_address::MacAddress")]
    pub mac_address: Mac,
    /// In which subnet.
    pub subnet_id: Uuid,
    /// On which node.
    pub node_id: Uuid,
    /// EC2's source/destination check of its interface.
    pub source_dest_check: bool,
}

/// A security group.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupRow {
    /// The group.
    pub id: Uuid,
    /// Its VPC.
    pub vpc_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its members' private addresses, sorted.
    pub members: Vec<Ipv4Addr>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct RuleRow {
    /// The rule.
    pub id: Uuid,
    /// Its group.
    pub security_group_id: Uuid,
    /// `inbound` or `outbound`.
    pub direction: String,
    /// `all`, `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// First port, for TCP and UDP.
    pub first_port: Option<i32>,
    /// Last port, included.
    pub last_port: Option<i32>,
    /// ICMP type.
    pub icmp_type: Option<i16>,
    /// ICMP code.
    pub icmp_code: Option<i16>,
    /// The peer block.
    pub peer_cidr: Option<IpNet>,
    /// The peer group.
    pub peer_group_id: Option<Uuid>,
}

impl RuleRow {
    /// The peer block as a word.
    pub fn peer_block(&self) -> Result<Option<Ipv4Net>> {
        let block = self.peer_cidr.map(Block::try_from).transpose();
        block.map(|b| b.map(|b| b.0)).map_err(|error| StoreError::Db(sqlx::Error::Decode(error.into())))
    }
}

/// Reads everything about `node` in one snapshot.
pub async fn read(store: &Store, node: Uuid) -> Result<NodeNetworkRows> {
    let mut tx = store.snapshot().await?;
    let mut rows = NodeNetworkRows::default();
    let placed: Vec<PortRow> = sqlx::query_as(
        "select n.id, n.instance_id, n.vpc_id, n.subnet_id, n.port_no, i.placement_epoch, i.run_as_uid, n.mac_address,
           n.private_ip,
           p.address as public_ip,
           array(select a.private_ip from interface_addresses a
                 where a.network_interface_id = n.id and a.deleted_at is null and not a.is_primary
                 order by 1) as secondary_ips, n.source_dest_check,
           array(select m.security_group_id from network_interface_security_groups m
                 where m.network_interface_id = n.id order by 1) as groups,
           i.account_id, i.image_id, i.instance_type, i.key_name, i.public_key, i.user_data, i.require_token,
           i.launch_index, i.reservation_id, s.availability_zone,
           'compute' = any (i.finalizers) as present, 'network' = any (i.finalizers) as needs_network
         from network_interfaces n
           join instances i on i.id = n.instance_id
           join subnets s on s.id = n.subnet_id
           left join public_ips p on p.network_interface_id = n.id
         where n.node_id = $1
         order by n.id",
    )
    .bind(node)
    .fetch_all(&mut *tx)
    .await?;
    for row in placed {
        if row.present {
            rows.ports.push(row);
        } else {
            rows.leaving.push(LeavingRow {
                id: row.id,
                instance_id: row.instance_id,
                awaited: row.needs_network,
            });
        }
    }
    if rows.ports.is_empty() {
        return Ok(rows);
    }
    let mut vpcs: Vec<Uuid> = rows.ports.iter().map(|p| p.vpc_id).collect();
    vpcs.sort_unstable();
    vpcs.dedup();
    rows.vpcs = sqlx::query_as(
        "select v.id, v.generation, v.key,
           array(select b.cidr_block from vpc_cidr_blocks b
                 where b.vpc_id = v.id and b.deleted_at is null order by b.slot) as cidr_blocks,
           g.id as internet_gateway_id
         from vpcs v left join internet_gateways g on g.vpc_id = v.id
         where v.id = any ($1) order by v.id",
    )
    .bind(&vpcs)
    .fetch_all(&mut *tx)
    .await?;
    rows.subnets = sqlx::query_as(
        "select s.id, s.vpc_id, s.cidr_block, coalesce(a.route_table_id, m.id) as route_table_id, g.network_acl_id
         from subnets s
           join network_acl_associations g on g.subnet_id = s.id
           left join route_table_associations a on a.subnet_id = s.id
           left join route_tables m on m.vpc_id = s.vpc_id and m.is_main and m.deleted_at is null
         where s.vpc_id = any ($1) and s.deleted_at is null order by s.id",
    )
    .bind(&vpcs)
    .fetch_all(&mut *tx)
    .await?;
    let mut acls: Vec<Uuid> = rows.subnets.iter().map(|s| s.network_acl_id).collect();
    acls.sort_unstable();
    acls.dedup();
    rows.acl_entries = crate::network_acls::entries(&mut tx, &acls).await?;
    // A route is alive only if its gateway is attached to this VPC, or its interface still has a guest. One to a prefix
    // list is a route to each of its blocks, but for those that a route to the block itself, or an older one, has.
    rows.routes = sqlx::query_as(concat!(
        "select distinct on (r.route_table_id, d.cidr) r.route_table_id, d.cidr as destination_cidr, g.id as gateway_id,
           case when 'compute' = any (i.finalizers) then n.private_ip end as interface_ip
         from routes r
           cross join lateral (
             select r.destination_cidr as cidr where r.destination_cidr is not null
             union all
             select e.cidr from prefix_list_entries e
             where e.prefix_list_id = r.destination_prefix_list_id and not ",
        unroutable!(),
        ") d
           left join internet_gateways g on g.id = r.internet_gateway_id and g.vpc_id = r.vpc_id
           left join network_interfaces n
             on n.id = r.network_interface_id and n.vpc_id = r.vpc_id and n.deleted_at is null
           left join instances i on i.id = n.instance_id
         where r.vpc_id = any ($1)
         order by r.route_table_id, d.cidr, r.destination_cidr nulls last, r.id"
    ))
    .bind(&vpcs)
    .fetch_all(&mut *tx)
    .await?;
    rows.addresses = sqlx::query_as(
        "select n.vpc_id, a.private_ip, n.mac_address, n.subnet_id, n.node_id, n.source_dest_check
         from network_interfaces n join instances i on i.id = n.instance_id
           join interface_addresses a on a.network_interface_id = n.id and a.deleted_at is null
         where n.vpc_id = any ($1) and n.deleted_at is null and n.node_id is not null
           and 'compute' = any (i.finalizers)
         order by n.vpc_id, a.private_ip",
    )
    .bind(&vpcs)
    .fetch_all(&mut *tx)
    .await?;
    let mut groups: Vec<Uuid> = rows.ports.iter().flat_map(|p| p.groups.iter().copied()).collect();
    groups.sort_unstable();
    groups.dedup();
    rows.rules = rules_of(&mut tx, &groups).await?;
    groups.extend(rows.rules.iter().filter_map(|r| r.peer_group_id));
    groups.sort_unstable();
    groups.dedup();
    let named: Vec<(Uuid, Uuid, String, Vec<IpNet>)> = sqlx::query_as(
        "select g.id, g.vpc_id, g.name::text,
           array(select a.private_ip from network_interface_security_groups m
                   join network_interfaces n on n.id = m.network_interface_id
                   join instances i on i.id = n.instance_id
                   join interface_addresses a on a.network_interface_id = n.id and a.deleted_at is null
                 where m.security_group_id = g.id and 'compute' = any (i.finalizers) order by 1)
         from security_groups g where g.id = any ($1) order by g.id",
    )
    .bind(&groups)
    .fetch_all(&mut *tx)
    .await?;
    for (id, vpc_id, name, members) in named {
        let members = members.into_iter().map(host).collect::<Result<_, _>>()?;
        rows.groups.push(GroupRow { id, vpc_id, name, members });
    }
    let mut nodes: Vec<Uuid> = rows.addresses.iter().map(|a| a.node_id).filter(|n| *n != node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let (peers, addresses, mtu): (Vec<Uuid>, Vec<IpNet>, Option<i32>) = sqlx::query_as(
        "with live as (select id, overlay_address, overlay_mtu from nodes
                       where overlay_address is not null and removed_at is null)
         select coalesce(array_agg(id order by id) filter (where id = any ($1)), '{}'),
           coalesce(array_agg(overlay_address order by id) filter (where id = any ($1)), '{}'), min(overlay_mtu)
         from live",
    )
    .bind(&nodes)
    .fetch_one(&mut *tx)
    .await?;
    let addresses = addresses.into_iter().map(host).collect::<Result<Vec<_>, _>>()?;
    rows.peers = peers.into_iter().zip(addresses).collect();
    rows.underlay_mtu = mtu;
    // Nothing was written, so there is nothing to commit and nothing to wait for: dropping it rolls it back on the way
    // to the pool.
    drop(tx);
    Ok(rows)
}

async fn rules_of(conn: &mut Conn, groups: &[Uuid]) -> Result<Vec<RuleRow>> {
    Ok(sqlx::query_as(
        // A rule with a prefix list is a rule for each of its blocks.
        "select r.id, r.security_group_id, r.direction::text as direction, r.protocol::text as protocol,
           lower(r.port_range) as first_port, upper(r.port_range) - 1 as last_port, r.icmp_type, r.icmp_code,
           coalesce(r.peer_cidr, e.cidr) as peer_cidr, r.peer_group_id
         from security_group_rules r left join prefix_list_entries e on e.prefix_list_id = r.peer_prefix_list_id
         where r.security_group_id = any ($1) and (r.peer_prefix_list_id is null or e.cidr is not null)
         order by r.id, e.cidr",
    )
    .bind(groups)
    .fetch_all(conn)
    .await?)
}

/// The rules of `groups`, and how the VPCs stand, in one snapshot: all that has to be read anew where nothing else changed.
pub async fn read_rules(
    store: &Store,
    vpcs: &[Uuid],
    groups: &[Uuid],
) -> Result<(Vec<StandRow>, Vec<RuleRow>)> {
    let mut tx = store.snapshot().await?;
    let stand =
        sqlx::query_as("select id, generation, shape_generation from vpcs where id = any ($1) order by id")
            .bind(vpcs)
            .fetch_all(&mut *tx)
            .await?;
    let rules = rules_of(&mut tx, groups).await?;
    // As in `read`.
    drop(tx);
    Ok((stand, rules))
}

/// Records where a node's end of the tunnels is and how much fits through; `None`: it has none any more. If that is news,
/// every node's document is looked at again. True if it was.
pub async fn record_overlay(tx: &mut Conn, node: Uuid, overlay: Option<(Ipv4Addr, u16)>) -> Result<bool> {
    let address = overlay.map(|(address, _)| IpNet::from(std::net::IpAddr::V4(address)));
    let changed = sqlx::query(
        "update nodes set overlay_address = $2, overlay_mtu = $3
         where id = $1 and removed_at is null and (overlay_address, overlay_mtu) is distinct from ($2, $3)",
    )
    .bind(node)
    .bind(address)
    .bind(overlay.map(|(_, mtu)| i32::from(mtu)))
    .execute(&mut *tx)
    .await?;
    if changed.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(
        "insert into outbox (subject, subject_id) select 'node', id from nodes where removed_at is null",
    )
    .execute(tx)
    .await?;
    Ok(true)
}

/// Nodes that have an interface in one of the VPCs.
pub async fn nodes_of_vpcs(store: &Store, vpcs: &[Uuid]) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar(
        "select distinct node_id from network_interfaces
         where vpc_id = any ($1) and deleted_at is null and node_id is not null",
    )
    .bind(vpcs)
    .fetch_all(store.pool())
    .await?)
}
