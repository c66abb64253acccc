//! Nodes and the images they hold, as they report themselves; and what operators say of nodes.
//!
//! Order of locks, the same everywhere: instance, node, interface, VPC.

use std::net::IpAddr;

use ipnet::IpNet;
use uuid::Uuid;

use crate::events::Watched;
use crate::leader::Fence;
use crate::placement::event;
use crate::reference::Ref;
use crate::relay::ring;
use crate::{Conn, Result, Store, commit, rollback};

/// What a node says of itself.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// Its name, unique in the site.
    pub name: String,
    /// Its zone.
    pub availability_zone: String,
    /// Processors it lends.
    pub vcpus: i32,
    /// Memory it lends.
    pub memory_mib: i64,
    /// Disk it lends.
    pub disk_gib: i64,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// `system` or `netdev`.
    pub ovs_datapath: String,
    /// Versions of what it runs.
    pub versions: serde_json::Value,
    /// Images in its store.
    pub images: Vec<ImageFacts>,
    /// What its operator calls it by: an object of texts.
    pub labels: serde_json::Value,
    /// Where other nodes reach it.
    pub address: Option<IpAddr>,
    /// Which boot of its kernel this is.
    pub boot_id: Option<Uuid>,
    /// Who it was told that it is, if it ever was, and its epoch then.
    pub told: Option<(Uuid, i64)>,
}

/// An image in a node's store.
#[derive(Debug, Clone)]
pub struct ImageFacts {
    /// Its name in the store.
    pub name: String,
    /// Its recipe digest.
    pub digest: String,
    /// `initramfs` or `disk`.
    pub kind: &'static str,
    /// For people.
    pub description: String,
    /// For example `x86_64`.
    pub architecture: String,
    /// The least memory that boots it.
    pub min_memory_mib: i32,
    /// Size of its root disk; 0 for none.
    pub disk_gib: i32,
}

/// What became of a node's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// It was taken.
    Taken {
        /// The node.
        id: Uuid,
        /// Its epoch.
        epoch: u64,
    },
    /// It came from an epoch that is over: nothing was changed.
    Old {
        /// The node.
        id: Uuid,
        /// Its epoch by now.
        epoch: u64,
    },
    /// It came from a node that was removed: nothing was changed.
    Removed,
}

/// Records what a node says of itself; a node of an unknown name joins with `new_id`. An image of an unknown (name,
/// digest) is registered for everybody, and one that no node has any more while its name has another is retired.
/// Whoever waits for a node or an image is rung if anything but the time changed; whoever watches its instances is told
/// if nobody had heard of it for a while. With a `fence`, only by the leader it names.
pub async fn report(
    store: &Store,
    fence: Option<&Fence>,
    facts: &NodeFacts,
    new_id: Uuid,
) -> Result<Reported> {
    let images: serde_json::Value = facts
        .images
        .iter()
        .map(|i| (i.name.clone(), serde_json::Value::String(i.digest.clone())))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let address = facts.address.map(IpNet::from);
    let (told, told_epoch) = facts.told.unzip();
    // The usual case: nothing changed but that it is alive.
    let unchanged: Option<(Uuid, i64)> = sqlx::query_as(
        "update nodes set last_report_at = now()
         where name = $1 and availability_zone = $2 and capacity_vcpus = $3 and capacity_memory_mib = $4
           and capacity_disk_gib = $5 and accelerator = $6 and ovs_datapath = $7 and versions = $8 and images = $9
           and labels = $10 and address is not distinct from $11 and boot_id is not distinct from $12
           and removed_at is null and silent_since is null
           and ($13::uuid is null or (id, epoch) = ($13, $14))
           and ($15::text is null or exists (
             select from leader_epochs l where l.role = $15 and l.epoch = $16 for share))
           -- It will be said again: the commit waits neither for the disk nor for a standby.
           and set_config('synchronous_commit', 'off', true) = 'off'
         returning id, epoch",
    )
    .bind(&facts.name)
    .bind(&facts.availability_zone)
    .bind(facts.vcpus)
    .bind(facts.memory_mib)
    .bind(facts.disk_gib)
    .bind(&facts.accelerator)
    .bind(&facts.ovs_datapath)
    .bind(&facts.versions)
    .bind(&images)
    .bind(&facts.labels)
    .bind(address)
    .bind(facts.boot_id)
    .bind(told)
    .bind(told_epoch)
    .bind(fence.map(|f| f.role))
    .bind(fence.map_or(0, |f| f.epoch.cast_signed()))
    .fetch_optional(store.pool())
    .await?;
    if let Some((id, epoch)) = unchanged {
        return Ok(Reported::Taken { id, epoch: epoch.unsigned_abs() });
    }
    let mut tx = match fence {
        Some(fence) => fence.begin(store).await?,
        None => store.begin().await?,
    };
    let held: Option<Held> = sqlx::query_as(
        "select id, epoch, removed_at is not null as is_removed, silent_since is not null as was_silent
         from nodes where id = $1 or (name = $2 and removed_at is null)
         order by (id = $1) is true desc limit 1 for update",
    )
    .bind(told)
    .bind(&facts.name)
    .fetch_optional(&mut *tx)
    .await?;
    if let (Some(held), Some((id, epoch))) = (&held, facts.told)
        && held.id == id
        && (held.is_removed || held.epoch != epoch)
    {
        rollback(tx).await?;
        return Ok(match held.is_removed {
            true => Reported::Removed,
            false => Reported::Old { id, epoch: held.epoch.unsigned_abs() },
        });
    }
    let (id, epoch): (Uuid, i64) = sqlx::query_as(
        "insert into nodes (id, name, availability_zone, capacity_vcpus, capacity_memory_mib, capacity_disk_gib,
           accelerator, ovs_datapath, versions, images, labels, address, boot_id)
         values ($13, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         on conflict (name) where removed_at is null do update set
           availability_zone = excluded.availability_zone, capacity_vcpus = excluded.capacity_vcpus,
           capacity_memory_mib = excluded.capacity_memory_mib, capacity_disk_gib = excluded.capacity_disk_gib,
           accelerator = excluded.accelerator, ovs_datapath = excluded.ovs_datapath, versions = excluded.versions,
           images = excluded.images, labels = excluded.labels, address = excluded.address,
           boot_id = excluded.boot_id, last_report_at = now(), silent_since = null
         returning id, epoch",
    )
    .bind(&facts.name)
    .bind(&facts.availability_zone)
    .bind(facts.vcpus)
    .bind(facts.memory_mib)
    .bind(facts.disk_gib)
    .bind(&facts.accelerator)
    .bind(&facts.ovs_datapath)
    .bind(&facts.versions)
    .bind(&images)
    .bind(&facts.labels)
    .bind(address)
    .bind(facts.boot_id)
    .bind(new_id)
    .fetch_one(&mut *tx)
    .await?;
    if held.is_some_and(|held| held.was_silent) {
        tell_of_instances(&mut tx, &[id], false).await?;
    }
    for image in &facts.images {
        register(&mut tx, image).await?;
    }
    sqlx::query(
        "update images m set deleted_at = now()
         where m.account_id is null and m.deleted_at is null
           and exists (select 1 from nodes n where n.removed_at is null and n.images ? m.name)
           and not exists (select 1 from nodes n where n.removed_at is null and n.images ->> m.name = m.digest)",
    )
    .execute(&mut *tx)
    .await?;
    ring(&mut tx, "node", id).await?;
    commit(tx).await?;
    Ok(Reported::Taken { id, epoch: epoch.unsigned_abs() })
}

#[derive(sqlx::FromRow)]
struct Held {
    id: Uuid,
    epoch: i64,
    is_removed: bool,
    was_silent: bool,
}

/// Tells those who watch the instances of these nodes that their state is unknown from now on, or known again.
async fn tell_of_instances(tx: &mut Conn, nodes: &[Uuid], unknown: bool) -> Result<()> {
    sqlx::query(
        "with told as (
           insert into events (account_id, resource, resource_id, from_state, to_state, reason, actor)
           select i.account_id, $3, i.id, case when $2 then i.state::text else 'unknown' end,
             case when $2 then 'unknown' else i.state::text end,
             case when $2 then 'its node is not heard of' else 'its node is heard of again' end, 'instance-manager'
           from instances i where i.node_id = any ($1) returning account_id)
         insert into outbox (subject, subject_id) select distinct 'event', account_id from told",
    )
    .bind(nodes)
    .bind(unknown)
    .bind(Watched::Instance.word())
    .execute(tx)
    .await?;
    Ok(())
}

/// Notices the nodes that have fallen silent, and tells those who watch their instances. Returns their names.
pub async fn notice_silence(tx: &mut Conn) -> Result<Vec<String>> {
    let silent: Vec<(Uuid, String)> = sqlx::query_as(
        "update nodes set silent_since = now()
         where removed_at is null and silent_since is null and node_is_silent(last_report_at) returning id, name",
    )
    .fetch_all(&mut *tx)
    .await?;
    let (ids, names): (Vec<Uuid>, Vec<String>) = silent.into_iter().unzip();
    if !ids.is_empty() {
        tell_of_instances(tx, &ids, true).await?;
    }
    Ok(names)
}

/// One that was retired comes back under its old id.
async fn register(tx: &mut crate::Conn, image: &ImageFacts) -> Result<()> {
    let back = sqlx::query(
        "update images set deleted_at = null
         where id = (select id from images where account_id is null and name = $1 and digest = $2
                     order by (deleted_at is null) desc, id limit 1)
         returning id",
    )
    .bind(&image.name)
    .bind(&image.digest)
    .fetch_optional(&mut *tx)
    .await?;
    if back.is_some() {
        return Ok(());
    }
    sqlx::query(
        "insert into images (id, name, description, kind, architecture, digest, min_memory_mib, disk_gib)
         values ($1, $2, $3, $4::image_kind, $5, $6, $7, $8)
         on conflict (name, digest) where deleted_at is null do nothing",
    )
    .bind(Uuid::now_v7())
    .bind(&image.name)
    .bind(&image.description)
    .bind(image.kind)
    .bind(&image.architecture)
    .bind(&image.digest)
    .bind(image.min_memory_mib)
    .bind(image.disk_gib)
    .execute(tx)
    .await?;
    Ok(())
}

/// A node as the controllers see it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct NodeRow {
    /// The node.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Whether nobody hears of it.
    pub silent: bool,
    /// How many instances are placed there.
    pub instances: i64,
}

/// Every node that was not removed, by id.
pub async fn list(store: &Store) -> Result<Vec<NodeRow>> {
    Ok(sqlx::query_as(
        "select id, name, node_is_silent(last_report_at) as silent,
           (select count(*) from instances i where i.node_id = nodes.id) as instances
         from nodes where removed_at is null order by id",
    )
    .fetch_all(store.pool())
    .await?)
}

/// The id of the node of this name, if it ever reported and was not removed.
pub async fn id_by_name(store: &Store, name: &str) -> Result<Option<Uuid>> {
    Ok(sqlx::query_scalar("select id from nodes where name = $1 and removed_at is null")
        .bind(name)
        .fetch_optional(store.pool())
        .await?)
}

/// Where the node of this name says that others reach it.
pub async fn address_by_name(store: &Store, name: &str) -> Result<Option<IpAddr>> {
    let found: Option<Option<IpNet>> =
        sqlx::query_scalar("select address from nodes where name = $1 and removed_at is null")
            .bind(name)
            .fetch_optional(store.pool())
            .await?;
    Ok(found.flatten().map(|address| address.addr()))
}

/// Whether the node's epoch is this one, and it was not removed.
pub async fn is_current(conn: &mut Conn, node: Uuid, epoch: i64) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "select exists (select from nodes where id = $1 and epoch = $2 and removed_at is null)",
    )
    .bind(node)
    .bind(epoch)
    .fetch_one(conn)
    .await?)
}

/// What a change of a node needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct LockedRow {
    /// The node.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// `ready`, `cordoned`, `draining`, `unknown` or `removed`.
    pub state: String,
    /// Whether it is being drained, heard of or not.
    pub is_draining: bool,
    /// Whether an operator keeps instances away from it.
    pub is_cordoned: bool,
}

/// Reads a node; nobody changes it until the transaction ends. Lock instances before.
pub async fn lock(tx: &mut Conn, id: &Ref) -> Result<LockedRow> {
    Ok(sqlx::query_as(
        "select id, name, node_state(removed_at, draining_at, cordoned_at, last_report_at) as state,
           draining_at is not null as is_draining, cordoned_at is not null as is_cordoned
         from nodes where id = coalesce($1, (select id from nodes where short_id = $2)) for update",
    )
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(tx)
    .await?)
}

/// Keeps new instances away from a node, or lets them come again; that also ends a drain.
pub async fn set_cordoned(tx: &mut Conn, node: Uuid, cordoned: bool) -> Result<()> {
    sqlx::query(
        "update nodes set cordoned_at = case when $2 then coalesce(cordoned_at, now()) end,
           draining_at = case when $2 then draining_at end, schedulable = not $2 where id = $1",
    )
    .bind(node)
    .bind(cordoned)
    .execute(&mut *tx)
    .await?;
    ring(tx, "node", node).await
}

/// Begins to empty a node.
pub async fn set_draining(tx: &mut Conn, node: Uuid) -> Result<()> {
    sqlx::query(
        "update nodes set draining_at = coalesce(draining_at, now()), schedulable = false where id = $1",
    )
    .bind(node)
    .execute(&mut *tx)
    .await?;
    ring(tx, "node", node).await
}

/// Ends a drain that was called off: what has left has left, and nothing new comes.
pub async fn end_draining(tx: &mut Conn, node: Uuid) -> Result<()> {
    sqlx::query(
        "update nodes set cordoned_at = coalesce(cordoned_at, now()), draining_at = null, schedulable = false
         where id = $1",
    )
    .bind(node)
    .execute(&mut *tx)
    .await?;
    ring(tx, "node", node).await
}

/// What became of a node's wish for a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct GrantRow {
    /// Its epoch.
    pub epoch: i64,
    /// The number of its grant.
    #[sqlx(rename = "grant_seq")]
    pub number: i64,
    /// Whether it was raised for this wish.
    pub granted: bool,
}

/// Raises the number of a node's grant if it is of this epoch and knows the number there is. When that is answered it is on
/// the disk: a grant that is forgotten would be one that nobody counts. Only by the leader. `None`: there is no such node.
pub async fn grant(
    store: &Store,
    fence: &Fence,
    node: Uuid,
    epoch: i64,
    known: Option<i64>,
) -> Result<Option<GrantRow>> {
    let granted: Option<GrantRow> = sqlx::query_as(
        "update nodes set grant_seq = grant_seq + 1
         where id = $1 and epoch = $2 and grant_seq = $3 and removed_at is null
           and exists (select from leader_epochs l where l.role = $4 and l.epoch = $5 for share)
           and set_config('synchronous_commit', 'on', true) = 'on'
         returning epoch, grant_seq, true as granted",
    )
    .bind(node)
    .bind(epoch)
    .bind(known)
    .bind(fence.role)
    .bind(fence.epoch.cast_signed())
    .fetch_optional(store.pool())
    .await?;
    if granted.is_some() {
        return Ok(granted);
    }
    fence.check(&mut *store.conn().await?).await?;
    Ok(sqlx::query_as(
        "select epoch, grant_seq, false as granted from nodes where id = $1 and removed_at is null",
    )
    .bind(node)
    .fetch_optional(store.pool())
    .await?)
}

/// An instance that is on a node.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct OccupantRow {
    /// The instance.
    pub id: Uuid,
    /// Its owner.
    pub account_id: Uuid,
    /// Its VPC.
    pub vpc_id: Uuid,
    /// Its state, as last heard.
    pub state: String,
    /// What should be.
    pub power: String,
    /// Its disk on the node, GiB.
    pub disk_gib: i32,
    /// Whether the node was told to let go of it.
    pub leaving_node: bool,
}

/// Locks what is on a node, by id.
pub async fn lock_occupants(tx: &mut Conn, node: Uuid) -> Result<Vec<OccupantRow>> {
    Ok(sqlx::query_as(
        "select id, account_id, vpc_id, state::text as state, power::text as power, disk_gib, leaving_node
         from instances where node_id = $1 order by id for update",
    )
    .bind(node)
    .fetch_all(tx)
    .await?)
}

/// Removes a node that has nothing: `nodes_removed_empty` otherwise. Its epoch is raised, so that nothing it may still
/// say counts.
pub async fn remove(tx: &mut Conn, node: Uuid) -> Result<()> {
    sqlx::query("delete from vpc_nodes where node_id = $1").bind(node).execute(&mut *tx).await?;
    // Whatever is left there is left with it.
    sqlx::query("delete from node_remains where node_id = $1").bind(node).execute(&mut *tx).await?;
    sqlx::query("update nodes set removed_at = now(), epoch = epoch + 1, schedulable = false where id = $1")
        .bind(node)
        .execute(&mut *tx)
        .await?;
    ring(tx, "node", node).await
}

/// Gives up what is on a node that will not come back: each instance of `occupants` ends, with the reason, and
/// everything it held is free. What they had on the node's disks is lost.
pub async fn abandon(tx: &mut Conn, occupants: &[OccupantRow], reason: &str) -> Result<()> {
    for occupant in occupants {
        sqlx::query(
            "update instances set power = 'terminated', state = 'shutting-down', state_reason = $2, finalizers = '{}',
               leaving_node = false, generation = generation + 1, updated_at = now()
             where id = $1",
        )
        .bind(occupant.id)
        .bind(reason)
        .execute(&mut *tx)
        .await?;
        if occupant.state != "shutting-down" {
            event(tx, occupant.account_id, occupant.id, Some(&occupant.state), "shutting-down", Some(reason))
                .await?;
        }
        crate::placement::finish(tx, occupant.id).await?;
    }
    Ok(())
}
