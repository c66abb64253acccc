//! Recovery of instances of a node that is lost (`gon_core::recovery` says when): what is watched, what is taken from it,
//! and what is left of that on it.
//!
//! Order of locks, the same everywhere: instance, node, interface, VPC.

use uuid::Uuid;

use crate::placement::{Placement, event, place_for};
use crate::relay::ring;
use crate::{Conn, Result, Store};

/// A node as the one sees it who looks after its grants.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct WatchedRow {
    /// The node.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its epoch.
    pub epoch: i64,
    /// The number of its grant.
    pub grant_seq: i64,
    /// Whether nobody hears of it.
    pub silent: bool,
    /// Whether an operator keeps instances away from it: then its silence surprises nobody.
    pub cordoned: bool,
    /// Whether it has an instance that would be recovered.
    pub has_recoverable: bool,
}

/// Every node that was not removed, by id.
pub async fn watched(store: &Store) -> Result<Vec<WatchedRow>> {
    Ok(sqlx::query_as(
        "select id, name, epoch, grant_seq, node_is_silent(last_report_at) as silent,
           cordoned_at is not null or draining_at is not null as cordoned,
           exists (select from instances i where i.node_id = nodes.id and i.auto_recover and i.power = 'running'
                     and i.state in ('pending', 'running') and not i.leaving_node) as has_recoverable
         from nodes where removed_at is null order by id",
    )
    .fetch_all(store.pool())
    .await?)
}

/// An instance that can be taken from its node.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct RecoverableRow {
    /// The instance.
    pub id: Uuid,
    /// Its owner.
    pub account_id: Uuid,
    /// Its state, as last heard.
    pub state: String,
    /// Processors it needs.
    pub vcpus: i32,
    /// Memory it needs.
    pub memory_mib: i32,
    /// Disk it needs.
    pub disk_gib: i32,
    /// Where it must be.
    pub availability_zone: String,
    /// Name of its image in the nodes' stores.
    pub image_name: String,
    /// And its recipe digest.
    pub image_digest: String,
    /// How many interfaces it has.
    pub nics: i64,
    /// Nodes that it was taken from and that have not cleaned up yet.
    pub remains_on: Vec<Uuid>,
}

/// Locks up to `limit` of them, oldest first.
pub async fn lock_recoverable(tx: &mut Conn, node: Uuid, limit: i64) -> Result<Vec<RecoverableRow>> {
    Ok(sqlx::query_as(
        "select i.id, i.account_id, i.state::text as state, i.vcpus, i.memory_mib, i.disk_gib, s.availability_zone,
           m.name as image_name, m.digest as image_digest,
           (select count(*) from network_interfaces n where n.instance_id = i.id and n.deleted_at is null) as nics,
           array(select r.node_id from node_remains r where r.instance_id = i.id) as remains_on
         from instances i join subnets s on s.id = i.subnet_id join images m on m.id = i.image_id
         where i.node_id = $1 and i.auto_recover and i.power = 'running' and i.state in ('pending', 'running')
           and not i.leaving_node
         order by i.id limit $2 for update of i",
    )
    .bind(node)
    .bind(limit)
    .fetch_all(tx)
    .await?)
}

/// Whether the node's grant is still this one. To be asked while its row is locked: so it stays.
pub async fn grant_is(tx: &mut Conn, node: Uuid, epoch: i64, number: i64) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "select exists (select from nodes where id = $1 and epoch = $2 and grant_seq = $3 and removed_at is null)",
    )
    .bind(node)
    .bind(epoch)
    .bind(number)
    .fetch_one(tx)
    .await?)
}

/// Raises a node's epoch: whatever grant it has, or asks for under the old one, counts for nothing. Returns the new one.
pub async fn raise_epoch(tx: &mut Conn, node: Uuid) -> Result<i64> {
    let epoch = sqlx::query_scalar("update nodes set epoch = epoch + 1 where id = $1 returning epoch")
        .bind(node)
        .fetch_one(&mut *tx)
        .await?;
    ring(tx, "node", node).await?;
    Ok(epoch)
}

/// Takes an instance from its node and places it elsewhere, to be started anew; its addresses go with it. What is left of
/// it is remembered until the node says that it is gone.
pub async fn recover(tx: &mut Conn, row: &RecoverableRow, placement: &Placement, reason: &str) -> Result<()> {
    sqlx::query(
        "with taken as (
           select i.id, i.node_id, i.placement_epoch, i.generation, i.run_as_uid, i.vcpus, i.memory_mib, i.disk_gib,
             array(select n.port_no from network_interfaces n
                   where n.instance_id = i.id and n.deleted_at is null and n.port_no is not null) as port_nos
           from instances i where i.id = $1),
         given_back as (
           update nodes n set used_vcpus = used_vcpus - t.vcpus, used_memory_mib = used_memory_mib - t.memory_mib,
             used_disk_gib = used_disk_gib - t.disk_gib
           from taken t where n.id = t.node_id)
         insert into node_remains (node_id, instance_id, placement_epoch, generation, run_as_uid, port_nos)
         select node_id, id, placement_epoch, generation + 1, run_as_uid, port_nos from taken",
    )
    .bind(row.id)
    .execute(&mut *tx)
    .await?;
    place_for(tx, placement, Some(reason)).await?;
    // Whoever waits for it to run goes on waiting; if nobody does, it is to be seen all the same.
    sqlx::query(
        "insert into operations (id, account_id, user_id, request_id, action, resource, resource_id, goal, generation,
           parameters, deadline)
         select $2, i.account_id, i.user_id, 'auto-recover', 'RecoverInstances', 'instance', i.id, 'running', i.generation,
           jsonb_build_object('reason', $3::text), now() + interval '10 minutes'
         from instances i
         where i.id = $1
           and not exists (select from operations o where o.resource_id = i.id and o.finished_at is null)",
    )
    .bind(row.id)
    .bind(Uuid::now_v7())
    .bind(reason)
    .execute(&mut *tx)
    .await?;
    event(tx, row.account_id, row.id, Some(&row.state), "pending", Some(reason)).await
}

/// A node says that these instances (id, placement) are gone: of those that were taken from it, nothing is left there.
/// True if there was any.
pub async fn cleaned_up(tx: &mut Conn, node: Uuid, gone: &[(Uuid, i64)]) -> Result<bool> {
    let (ids, epochs): (Vec<Uuid>, Vec<i64>) = gone.iter().copied().unzip();
    let cleaned = sqlx::query(
        "delete from node_remains r using unnest($2::uuid[], $3::bigint[]) as g (id, epoch)
         where r.node_id = $1 and r.instance_id = g.id and r.placement_epoch = g.epoch",
    )
    .bind(node)
    .bind(ids)
    .bind(epochs)
    .execute(&mut *tx)
    .await?;
    if cleaned.rows_affected() == 0 {
        return Ok(false);
    }
    ring(tx, "node", node).await?;
    Ok(true)
}
