//! What nodes say back, written by compare-and-set: a report that speaks of an older placement, an older generation or
//! another node changes nothing.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::operations::settle;
use crate::placement::{durable, event, leave_node, release_public_ips, touch_vpc};
use crate::relay::ring;
use crate::{Conn, Result, commit};

/// Records the generation of each VPC that is in force on a node. Never backwards, never beyond what is asked for.
/// Returns the accounts whose VPCs moved.
pub async fn record_applied(tx: &mut Conn, node: Uuid, vpcs: &[(Uuid, i64)]) -> Result<Vec<Uuid>> {
    let (ids, generations): (Vec<Uuid>, Vec<i64>) = vpcs.iter().copied().unzip();
    let moved = sqlx::query_scalar(
        "with moved as (
           insert into vpc_nodes (vpc_id, node_id, applied_generation)
           select v.id, $1, said.generation
           from unnest($2::uuid[], $3::bigint[]) as said (id, generation)
             join vpcs v on v.id = said.id and v.deleted_at is null and said.generation <= v.generation
           on conflict (vpc_id, node_id) do update
             set applied_generation = excluded.applied_generation, applied_at = now()
             where vpc_nodes.applied_generation < excluded.applied_generation
           returning vpc_id)
         select distinct v.account_id from moved join vpcs v on v.id = moved.vpc_id",
    )
    .bind(node)
    .bind(&ids)
    .bind(&generations)
    .fetch_all(&mut *tx)
    .await?;
    // A node that no longer has a port in a VPC does not count for it.
    sqlx::query(
        "delete from vpc_nodes a where a.node_id = $1 and a.vpc_id <> all ($2)
           and not exists (select 1 from network_interfaces n where n.node_id = $1 and n.vpc_id = a.vpc_id)",
    )
    .bind(node)
    .bind(&ids)
    .execute(tx)
    .await?;
    Ok(moved)
}

/// Records how the ports of a node are: interface to (`ready` or `degraded`, reason).
pub async fn record_ports(
    tx: &mut Conn,
    node: Uuid,
    ports: &BTreeMap<Uuid, (&'static str, Option<String>)>,
) -> Result<()> {
    let ids: Vec<Uuid> = ports.keys().copied().collect();
    let states: Vec<&str> = ports.values().map(|(state, _)| *state).collect();
    let reasons: Vec<Option<&str>> = ports.values().map(|(_, reason)| reason.as_deref()).collect();
    sqlx::query(
        "update network_interfaces n set port_state = said.state, port_reason = said.reason
         from unnest($2::uuid[], $3::text[], $4::text[]) as said (id, state, reason)
         where n.id = said.id and n.node_id = $1
           and (n.port_state, n.port_reason) is distinct from (said.state, said.reason)",
    )
    .bind(node)
    .bind(&ids)
    .bind(&states)
    .bind(&reasons)
    .execute(tx)
    .await?;
    Ok(())
}

/// The ports of these instances are gone from the node: their `network` finalizer goes, after `compute` went.
/// Rings for those it went from, and returns them.
pub async fn network_is_gone(tx: &mut Conn, node: Uuid, instances: &[Uuid]) -> Result<Vec<Uuid>> {
    let gone: Vec<Uuid> = sqlx::query_scalar(
        "update instances set finalizers = array_remove(finalizers, 'network'), updated_at = now()
         where id = any ($2) and node_id = $1 and power = 'terminated' and deleted_at is null
           and 'network' = any (finalizers) and not 'compute' = any (finalizers)
         returning id",
    )
    .bind(node)
    .bind(instances)
    .fetch_all(&mut *tx)
    .await?;
    for id in &gone {
        ring(tx, "instance", *id).await?;
    }
    Ok(gone)
}

/// An instance as a report finds it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ReportedRow {
    /// The instance.
    pub id: Uuid,
    /// Its owner.
    pub account_id: Uuid,
    /// Its VPC.
    pub vpc_id: Uuid,
    /// What the user sees.
    pub state: String,
    /// Why.
    pub state_reason: Option<String>,
    /// What should be.
    pub power: String,
    /// Its generation.
    pub generation: i64,
    /// The last one a node spoke of.
    pub observed_generation: i64,
    /// Which placement.
    pub placement_epoch: i64,
    /// Whether its node still has something to clean up.
    pub has_compute: bool,
    /// Whether it is to leave its node although it is not to end.
    pub leaving_node: bool,
    /// The number of reboots somebody waits for.
    pub awaited_reboots: Option<i64>,
}

/// Locks those of `instances` that are placed on `node`, by id.
pub async fn lock_instances(tx: &mut Conn, node: Uuid, instances: &[Uuid]) -> Result<Vec<ReportedRow>> {
    Ok(sqlx::query_as(
        "select id, account_id, vpc_id, state::text as state, state_reason, power::text as power, generation,
           observed_generation, placement_epoch, 'compute' = any (finalizers) as has_compute, leaving_node,
           (select max(o.generation) from operations o
            where o.resource_id = instances.id and o.finished_at is null and o.goal = 'rebooted') as awaited_reboots
         from instances where node_id = $1 and id = any ($2) order by id for update",
    )
    .bind(node)
    .bind(instances)
    .fetch_all(tx)
    .await?)
}

/// What a report changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The state the user sees from now on.
    pub state: &'static str,
    /// Why; `None` clears it.
    pub reason: Option<String>,
    /// What should be from now on, if the guest or a failure decided that.
    pub power: Option<&'static str>,
    /// Nothing of the instance is left on the node.
    pub compute_gone: bool,
    /// Nothing of it is left there, and it is not to end: it is placed nowhere from now on.
    pub left_node: bool,
    /// How many reboots the node has done, if somebody waits for that many.
    pub reboots: Option<i64>,
}

/// Writes what a report changes of a row that [`lock_instances`] locked. An instance that stops loses the public
/// address the platform gave it (EC2: a new one at the next start).
pub async fn observe(tx: &mut Conn, row: &ReportedRow, said: i64, change: &Observation) -> Result<()> {
    let moved = change.state != row.state;
    let respecified = change.power.is_some_and(|p| p != row.power);
    if respecified {
        // A generation that agents may see is never given twice.
        durable(tx).await?;
    }
    sqlx::query(
        "update instances set state = $2::instance_state, state_reason = $3,
           power = coalesce($4::instance_power, power),
           generation = generation + case when $5 then 1 else 0 end,
           observed_generation = greatest(observed_generation, $6),
           finalizers = case when $7 then array_remove(finalizers, 'compute') else finalizers end,
           launched_at = case when $8 then now() else launched_at end,
           updated_at = case when $9 then now() else updated_at end
         where id = $1",
    )
    .bind(row.id)
    .bind(change.state)
    .bind(&change.reason)
    .bind(change.power)
    .bind(respecified)
    .bind(said)
    .bind(change.compute_gone)
    .bind(moved && change.state == "running")
    .bind(moved || change.compute_gone)
    .execute(&mut *tx)
    .await?;
    if moved {
        event(tx, row.account_id, row.id, Some(&row.state), change.state, change.reason.as_deref()).await?;
    }
    if moved && change.state == "stopped" && release_public_ips(tx, row.id, false).await? {
        touch_vpc(tx, row.vpc_id).await?;
    }
    if change.compute_gone {
        touch_vpc(tx, row.vpc_id).await?;
    }
    if change.left_node {
        leave_node(tx, row.id).await?;
        touch_vpc(tx, row.vpc_id).await?;
    }
    if respecified || change.compute_gone || change.left_node {
        ring(tx, "instance", row.id).await?;
    }
    if moved || change.reboots.is_some() {
        settle(tx, row.id, change.reboots).await?;
    }
    Ok(())
}

/// Commits a transaction of this module.
pub async fn finish(tx: crate::Tx) -> Result<()> {
    commit(tx).await
}
