//! Where an instance is: placing it on a node, and releasing all it held once nothing of it is left.
//!
//! Order of locks, the same everywhere: instance, node, interface, VPC.

use ipnet::IpNet;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::events::Watched;
use crate::leader::{self, Fence};
use crate::relay::ring;
use crate::{Conn, Result, Store, Tx};

/// An instance that waits for a node.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct UnplacedRow {
    /// The instance.
    pub id: Uuid,
    /// Its owner.
    pub account_id: Uuid,
    /// Its VPC.
    pub vpc_id: Uuid,
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
    /// What the user was last told.
    pub state_reason: Option<String>,
    /// When it was launched.
    pub created_at: OffsetDateTime,
    /// How many interfaces it has.
    pub nics: i64,
    /// Nodes that it was taken from and that have not cleaned up yet.
    pub remains_on: Vec<Uuid>,
}

/// Begins a transaction under `fence` and locks up to `limit` instances that wait for a node and come after `after`, oldest
/// first; those another manager holds are left to it.
pub async fn begin(store: &Store, fence: Fence, after: Uuid, limit: i64) -> Result<(Tx, Vec<UnplacedRow>)> {
    let mut tx = leader::begin(store).await?;
    // One statement, as below.
    let rows = sqlx::query_as(
        "select l.epoch as led, w.* from leader_epochs l left join lateral (
         select i.id, i.account_id, i.vpc_id, i.vcpus, i.memory_mib, i.disk_gib, s.availability_zone,
           m.name as image_name, m.digest as image_digest, i.state_reason, i.created_at,
           (select count(*) from network_interfaces n where n.instance_id = i.id and n.deleted_at is null) as nics,
           array(select r.node_id from node_remains r where r.instance_id = i.id) as remains_on
         from instances i join subnets s on s.id = i.subnet_id join images m on m.id = i.image_id
         where i.node_id is null and i.deleted_at is null and i.state = 'pending' and i.power = 'running' and i.id > $2
         order by i.id limit $1
         for update of i skip locked) w on true
         where l.role = $3 order by w.id for share of l",
    )
    .bind(limit)
    .bind(after)
    .bind(fence.role)
    .fetch_all(&mut *tx)
    .await?;
    Ok((tx, fence.only(rows)?))
}

/// A node that may take instances.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct CandidateRow {
    /// The node.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its zone.
    pub availability_zone: String,
    /// Whether the operator lets it take instances.
    pub schedulable: bool,
    /// Whether it is heard of (`node_is_silent`).
    pub heard: bool,
    /// Processors it lends.
    pub capacity_vcpus: i32,
    /// Memory it lends.
    pub capacity_memory_mib: i64,
    /// Disk it lends.
    pub capacity_disk_gib: i64,
    /// Processors lent.
    pub used_vcpus: i32,
    /// Memory lent.
    pub used_memory_mib: i64,
    /// Disk lent.
    pub used_disk_gib: i64,
    /// Image name to recipe digest.
    pub images: serde_json::Value,
    /// The port number given last.
    pub last_port_no: i32,
    /// The user id given last.
    pub last_run_as_uid: i32,
}

/// Locks every node that was not removed, by id: placements happen one after the other.
pub async fn lock_candidates(tx: &mut Conn) -> Result<Vec<CandidateRow>> {
    Ok(sqlx::query_as(
        "select id, name, availability_zone, cordoned_at is null and draining_at is null as schedulable,
           not node_is_silent(last_report_at) as heard, capacity_vcpus, capacity_memory_mib, capacity_disk_gib,
           used_vcpus, used_memory_mib, used_disk_gib, images, last_port_no, last_run_as_uid
         from nodes where removed_at is null order by id for update",
    )
    .fetch_all(tx)
    .await?)
}

/// The port numbers and the user ids in use on a node.
pub async fn numbers_in_use(tx: &mut Conn, node: Uuid) -> Result<(Vec<i32>, Vec<i32>)> {
    Ok(sqlx::query_as(
        "select array(select port_no from network_interfaces where node_id = $1
                      union all select unnest(port_nos) from node_remains where node_id = $1),
           array(select run_as_uid from instances where node_id = $1
                 union all select run_as_uid from node_remains where node_id = $1)",
    )
    .bind(node)
    .fetch_one(tx)
    .await?)
}

/// Where an instance goes and the numbers it gets there.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The instance.
    pub instance: Uuid,
    /// The node.
    pub node: Uuid,
    /// User id of its QEMU.
    pub run_as_uid: i32,
    /// Port numbers of its interfaces in slot order; as many as it has.
    pub port_nos: Vec<i32>,
}

/// Writes a placement: capacity, the instance with its new epoch and generation, its interfaces, and the doorbells.
/// `nodes_capacity_check` refuses more than the node has.
pub async fn place(tx: &mut Conn, placement: &Placement) -> Result<()> {
    place_for(tx, placement, None).await
}

/// The same for an instance that was elsewhere: it is started anew, for this reason.
pub(crate) async fn place_for(tx: &mut Conn, placement: &Placement, reason: Option<&str>) -> Result<()> {
    // One statement, since an instance waits for every round trip. The VPC's generation follows the interface, as the
    // order of locks wants; why the commit waits for the disk is said at `touch_vpc`.
    sqlx::query(
        "with placed as (
           update instances set node_id = $2, run_as_uid = $3, placement_epoch = placement_epoch + 1,
             generation = generation + 1, state = 'pending', state_reason = $5, updated_at = now()
           where id = $1 returning id, vpc_id, vcpus, memory_mib, disk_gib),
         lent as (
           update nodes n set used_vcpus = used_vcpus + p.vcpus, used_memory_mib = used_memory_mib + p.memory_mib,
             used_disk_gib = used_disk_gib + p.disk_gib, last_run_as_uid = $3,
             last_port_no = coalesce(($4::int[])[cardinality($4::int[])], last_port_no)
           from placed p where n.id = $2 returning n.id),
         wired as (
           update network_interfaces n set node_id = $2, port_no = ($4::int[])[slot.ordinal], port_state = 'unknown',
             port_reason = null
           from (select id, row_number() over (order by device_index) as ordinal
                 from network_interfaces where instance_id = $1 and deleted_at is null) slot
           where n.id = slot.id and exists (select from lent) returning n.id),
         changed as (
           update vpcs v set generation = generation + 1, updated_at = now()
           from placed p where v.id = p.vpc_id and (select count(*) from wired) >= 0 returning v.id),
         rung as (
           insert into outbox (subject, subject_id)
           select 'vpc', id from changed union all select 'instance', id from placed)
         select set_config('synchronous_commit', 'on', true) from placed",
    )
    .bind(placement.instance)
    .bind(placement.node)
    .bind(placement.run_as_uid)
    .bind(&placement.port_nos)
    .bind(reason)
    .fetch_one(&mut *tx)
    .await?;
    Ok(())
}

/// One more generation of a VPC: something its packets depend on changed. Agents keep the generations they have seen,
/// so none may be given twice: the transaction waits for the disk, whatever it was begun as.
pub(crate) async fn touch_vpc(tx: &mut Conn, vpc: Uuid) -> Result<()> {
    durable(tx).await?;
    sqlx::query("update vpcs set generation = generation + 1, updated_at = now() where id = $1")
        .bind(vpc)
        .execute(&mut *tx)
        .await?;
    ring(tx, "vpc", vpc).await
}

/// This transaction's commit waits for the disk.
pub(crate) async fn durable(tx: &mut Conn) -> Result<()> {
    sqlx::query("set local synchronous_commit = on").execute(tx).await?;
    Ok(())
}

/// Tells the user why the instance still waits.
pub async fn refuse(tx: &mut Conn, row: &UnplacedRow, reason: &str) -> Result<()> {
    sqlx::query("update instances set state_reason = $2, updated_at = now() where id = $1")
        .bind(row.id)
        .bind(reason)
        .execute(&mut *tx)
        .await?;
    event(tx, row.account_id, row.id, Some("pending"), "pending", Some(reason)).await
}

/// Gives up on an instance that found no node: it ends as EC2's do, with the reason.
pub async fn give_up(tx: &mut Conn, row: &UnplacedRow, reason: &str) -> Result<()> {
    sqlx::query(
        "update instances set power = 'terminated', state = 'shutting-down', state_reason = $2,
           generation = generation + 1, updated_at = now()
         where id = $1",
    )
    .bind(row.id)
    .bind(reason)
    .execute(&mut *tx)
    .await?;
    event(tx, row.account_id, row.id, Some("pending"), "shutting-down", Some(reason)).await?;
    crate::operations::settle(tx, row.id, None).await?;
    ring(tx, "instance", row.id).await
}

/// Takes an instance off its node, which has nothing of it any more. It keeps its addresses and is placed anew when it is
/// started.
pub(crate) async fn leave_node(tx: &mut Conn, instance: Uuid) -> Result<()> {
    durable(tx).await?;
    sqlx::query(
        "update nodes n set used_vcpus = used_vcpus - i.vcpus, used_memory_mib = used_memory_mib - i.memory_mib,
           used_disk_gib = used_disk_gib - i.disk_gib
         from instances i where i.id = $1 and n.id = i.node_id",
    )
    .bind(instance)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "update network_interfaces set node_id = null, port_no = null, port_state = 'unknown', port_reason = null
         where instance_id = $1 and deleted_at is null",
    )
    .bind(instance)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "update instances set node_id = null, run_as_uid = null, leaving_node = false, generation = generation + 1,
           updated_at = now()
         where id = $1",
    )
    .bind(instance)
    .execute(tx)
    .await?;
    Ok(())
}

/// Tells the node of a stopped instance to let go of it.
pub async fn ask_to_leave(tx: &mut Conn, instance: Uuid) -> Result<()> {
    sqlx::query(
        "update instances set leaving_node = true, generation = generation + 1, updated_at = now() where id = $1",
    )
    .bind(instance)
    .execute(&mut *tx)
    .await?;
    ring(tx, "instance", instance).await
}

/// Stops a running instance because its node is to be empty: asked, not cut, as its user would.
pub async fn stop_for_drain(
    tx: &mut Conn,
    instance: Uuid,
    account: Uuid,
    vpc: Uuid,
    reason: &str,
) -> Result<()> {
    sqlx::query(
        "update instances set power = 'stopped', state = 'stopping', force_stop = false, state_reason = $2,
           generation = generation + 1, updated_at = now()
         where id = $1",
    )
    .bind(instance)
    .bind(reason)
    .execute(&mut *tx)
    .await?;
    if release_public_ips(tx, instance, false).await? {
        touch_vpc(tx, vpc).await?;
    }
    crate::operations::cancel(tx, &[instance], reason).await?;
    event(tx, account, instance, Some("running"), "stopping", Some(reason)).await?;
    ring(tx, "instance", instance).await
}

/// Which of these instances PostgreSQL says are no longer the node's: a row that says so, not one that is missing.
pub async fn left(conn: &mut Conn, node: Uuid, instances: &[Uuid]) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar(
        "select id from instances where id = any ($2)
           and (node_id is distinct from $1 or leaving_node or not 'compute' = any (finalizers))",
    )
    .bind(node)
    .bind(instances)
    .fetch_all(conn)
    .await?)
}

/// The same for interfaces and their ports; and those that a restored database has forgotten
/// ([`crate::restoration::forgotten`]).
pub async fn ports_left(conn: &mut Conn, node: Uuid, interfaces: &[Uuid]) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar(
        "select n.id from network_interfaces n left join instances i on i.id = n.instance_id
         where n.id = any ($2) and (n.node_id is distinct from $1 or not 'compute' = any (i.finalizers))
         union all
         select said.id from unnest($2::uuid[]) as said (id)
         where is_restored() and not exists (select from network_interfaces n where n.id = said.id)",
    )
    .bind(node)
    .bind(interfaces)
    .fetch_all(conn)
    .await?)
}

/// Writes an event of an instance and rings for it.
pub(crate) async fn event(
    tx: &mut Conn,
    account: Uuid,
    instance: Uuid,
    from: Option<&str>,
    to: &str,
    reason: Option<&str>,
) -> Result<()> {
    sqlx::query(
        "insert into events (account_id, resource, resource_id, from_state, to_state, reason, actor)
         values ($1, $6, $2, $3, $4, $5, 'instance-manager')",
    )
    .bind(account)
    .bind(instance)
    .bind(from)
    .bind(to)
    .bind(reason)
    .bind(Watched::Instance.word())
    .execute(&mut *tx)
    .await?;
    ring(tx, "event", account).await
}

/// Whether an instance that is going has anything left that somebody must clean up first.
pub async fn lock_finishable(tx: &mut Conn, limit: i64) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar(
        "select id from instances
         where power = 'terminated' and deleted_at is null and state = 'shutting-down'
           and (node_id is null or cardinality(finalizers) = 0)
         order by id limit $1 for update skip locked",
    )
    .bind(limit)
    .fetch_all(tx)
    .await?)
}

/// Turns an instance of [`lock_finishable`] into a tombstone and releases everything it held: interfaces, group
/// memberships, public addresses, capacity. Interfaces that are to outlive it are detached, with what they have.
pub async fn finish(tx: &mut Conn, instance: Uuid) -> Result<()> {
    sqlx::query(
        "update network_interfaces set instance_id = null, device_index = null, attachment_id = null,
           attached_at = null, node_id = null, port_no = null, port_state = 'unknown', port_reason = null,
           updated_at = now()
         where instance_id = $1 and deleted_at is null and not delete_on_termination",
    )
    .bind(instance)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "delete from network_interface_security_groups m using network_interfaces n
         where n.id = m.network_interface_id and n.instance_id = $1",
    )
    .bind(instance)
    .execute(&mut *tx)
    .await?;
    release_public_ips(tx, instance, true).await?;
    let (vpc, account): (Uuid, Uuid) =
        sqlx::query_as("select vpc_id, account_id from instances where id = $1")
            .bind(instance)
            .fetch_one(&mut *tx)
            .await?;
    sqlx::query(
        "update nodes n set used_vcpus = used_vcpus - i.vcpus, used_memory_mib = used_memory_mib - i.memory_mib,
           used_disk_gib = used_disk_gib - i.disk_gib
         from instances i where i.id = $1 and n.id = i.node_id",
    )
    .bind(instance)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "update network_interfaces set deleted_at = now(), node_id = null, port_no = null, port_state = 'unknown',
           port_reason = null
         where instance_id = $1 and deleted_at is null",
    )
    .bind(instance)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "update instances set state = 'terminated', finalizers = '{}', node_id = null, run_as_uid = null,
           leaving_node = false, generation = generation + 1, terminated_at = now(), deleted_at = now(), updated_at = now()
         where id = $1",
    )
    .bind(instance)
    .execute(&mut *tx)
    .await?;
    event(tx, account, instance, Some("shutting-down"), "terminated", None).await?;
    crate::operations::settle(tx, instance, None).await?;
    touch_vpc(tx, vpc).await
}

/// Takes the public addresses off an instance: the platform's own are released to rest for ten minutes (rule R10), the user's are disassociated
/// if `also_elastic`. True if there were any.
pub(crate) async fn release_public_ips(tx: &mut Conn, instance: Uuid, also_elastic: bool) -> Result<bool> {
    let released = sqlx::query(
        "update public_ips p set network_interface_id = null, vpc_id = null,
           account_id = case when p.auto then null else p.account_id end,
           allocation_id = case when p.auto then null else p.allocation_id end,
           allocated_at = case when p.auto then null else p.allocated_at end,
           name = case when p.auto then null else p.name end,
           rests_until = case when p.auto then now() + interval '10 minutes' else p.rests_until end,
           auto = false
         from network_interfaces n
         where n.instance_id = $1 and p.network_interface_id = n.id and (p.auto or $2)",
    )
    .bind(instance)
    .bind(also_elastic)
    .execute(tx)
    .await?;
    Ok(released.rows_affected() > 0)
}

/// Adds the site's public addresses: every address of `pool` but the network's, the first (the host's) and the
/// broadcast. Addresses of an earlier pool that are free are removed; used ones stay until they are released.
pub async fn set_public_pool(tx: &mut Tx, pool: ipnet::Ipv4Net) -> Result<()> {
    let skip = [pool.network(), pool.broadcast(), std::net::Ipv4Addr::from(u32::from(pool.network()) + 1)];
    let addresses: Vec<IpNet> =
        pool.hosts().filter(|a| !skip.contains(a)).map(|a| IpNet::from(std::net::IpAddr::from(a))).collect();
    sqlx::query(
        "insert into public_ips (address) select unnest($1::inet[]) on conflict (address) do nothing",
    )
    .bind(&addresses)
    .execute(&mut **tx)
    .await?;
    sqlx::query("delete from public_ips where account_id is null and address <> all ($1)")
        .bind(&addresses)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// How many instances wait for a node: for the metrics.
pub async fn waiting(store: &Store) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "select count(*) from instances where node_id is null and deleted_at is null and power = 'running'",
    )
    .fetch_one(store.pool())
    .await?)
}
