//! Removes what has had its time: tombstones, used keys and tokens, old events. Everything here is either no longer
//! shown or expired, and a row that something still refers to stays.

use crate::leader::Fence;
use crate::{Result, Store, commit};

/// Each: what it is, and the statement that removes at most a thousand of it.
const TARGETS: [(&str, &str); 20] = [
    ("join tokens", "delete from join_tokens where expires_at < now() - interval '30 days'"),
    ("certificates", "delete from certificates where not_after < now() - interval '30 days'"),
    (
        "idempotency keys",
        "delete from idempotency_keys where ctid = any (array(
        select ctid from idempotency_keys where created_at < now() - interval '25 hours' limit 1000))",
    ),
    (
        "refresh tokens",
        "delete from refresh_tokens where ctid = any (array(
        select ctid from refresh_tokens where expires_at < now() - interval '1 day' limit 1000))",
    ),
    (
        "events",
        "delete from events where seq = any (array(
        select seq from events where at < now() - interval '30 days' order by seq limit 1000))",
    ),
    (
        "operations",
        "delete from operations where id = any (array(
        select id from operations where finished_at < now() - interval '7 days' limit 1000))",
    ),
    // EC2 describes a terminated instance for about an hour. The address' and MAC's rest of a minute is over by then.
    (
        "network interfaces",
        "delete from network_interfaces n where n.id = any (array(
        select n.id from network_interfaces n join instances i on i.id = n.instance_id
        where i.deleted_at < now() - interval '1 hour'
          and not exists (select 1 from routes r where r.network_interface_id = n.id) limit 1000))",
    ),
    (
        "network interfaces without an instance",
        "delete from network_interfaces n where n.id = any (array(
        select n.id from network_interfaces n where n.deleted_at < now() - interval '1 hour' and n.instance_id is null
          and not exists (select 1 from routes r where r.network_interface_id = n.id) limit 1000))",
    ),
    (
        "addresses of interfaces",
        "delete from interface_addresses where id = any (array(
        select id from interface_addresses where deleted_at < now() - interval '1 hour' limit 1000))",
    ),
    (
        "instances",
        "delete from instances i where i.id = any (array(
        select i.id from instances i where i.deleted_at < now() - interval '1 hour'
          and not exists (select 1 from network_interfaces n where n.instance_id = i.id) limit 1000))",
    ),
    (
        "routes",
        "delete from routes r using route_tables t
        where t.id = r.route_table_id and t.deleted_at < now() - interval '1 day'",
    ),
    (
        "route tables",
        "delete from route_tables t where t.deleted_at < now() - interval '1 day'
        and not exists (select 1 from routes r where r.route_table_id = t.id)",
    ),
    ("security groups", "delete from security_groups where deleted_at < now() - interval '1 day'"),
    ("network ACLs", "delete from network_acls where deleted_at < now() - interval '1 day'"),
    (
        "internet gateways",
        "delete from internet_gateways g where g.deleted_at < now() - interval '1 day'
        and not exists (select 1 from routes r where r.internet_gateway_id = g.id)",
    ),
    (
        "subnets",
        "delete from subnets s where s.deleted_at < now() - interval '1 day'
        and not exists (select 1 from network_interfaces n where n.subnet_id = s.id)
        and not exists (select 1 from instances i where i.subnet_id = s.id)",
    ),
    (
        "prefix lists",
        "delete from prefix_lists where deleted_at < now() - interval '1 day'",
    ),
    ("blocks of VPCs", "delete from vpc_cidr_blocks where deleted_at < now() - interval '1 day'"),
    (
        "applied generations",
        "delete from vpc_nodes a using vpcs v
        where v.id = a.vpc_id and v.deleted_at is not null",
    ),
    (
        "VPCs",
        "delete from vpcs v where v.deleted_at < now() - interval '1 day'
        and not exists (select 1 from subnets s where s.vpc_id = v.id)
        and not exists (select 1 from route_tables t where t.vpc_id = v.id)
        and not exists (select 1 from security_groups g where g.vpc_id = v.id)
        and not exists (select 1 from network_acls a where a.vpc_id = v.id)
        and not exists (select 1 from vpc_nodes a where a.vpc_id = v.id)",
    ),
];

/// One round, by the leader of `fence`. Returns what was removed, by name; a target that fails is returned as its error
/// and does not hold up the others.
pub async fn round(store: &Store, fence: &Fence) -> Vec<(&'static str, Result<u64>)> {
    let mut done = Vec::with_capacity(TARGETS.len());
    for (name, statement) in TARGETS {
        done.push((name, remove(store, fence, statement).await));
    }
    done
}

async fn remove(store: &Store, fence: &Fence, statement: &'static str) -> Result<u64> {
    let mut tx = fence.begin(store).await?;
    let removed = sqlx::query(statement).execute(&mut *tx).await?.rows_affected();
    commit(tx).await?;
    Ok(removed)
}
