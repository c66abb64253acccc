//! Nodes and the images they hold, as they report themselves.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::relay::ring;
use crate::{Result, Store, commit};

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

/// Records what a node says of itself; a node of an unknown name joins with `new_id`. An image of an unknown (name,
/// digest) is registered for everybody, and one that no node has any more while its name has another is retired.
/// Returns the node's id and epoch. Whoever waits for a node or an image is rung if anything but the time changed.
pub async fn report(store: &Store, facts: &NodeFacts, new_id: Uuid) -> Result<(Uuid, u64)> {
    let images: serde_json::Value = facts
        .images
        .iter()
        .map(|i| (i.name.clone(), serde_json::Value::String(i.digest.clone())))
        .collect::<serde_json::Map<_, _>>()
        .into();
    // The usual case: nothing changed but that it is alive.
    let unchanged: Option<(Uuid, i64)> = sqlx::query_as(
        "update nodes set last_report_at = now()
         where name = $1 and availability_zone = $2 and capacity_vcpus = $3 and capacity_memory_mib = $4
           and capacity_disk_gib = $5 and accelerator = $6 and ovs_datapath = $7 and versions = $8 and images = $9
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
    .fetch_optional(store.pool())
    .await?;
    if let Some((id, epoch)) = unchanged {
        return Ok((id, epoch.unsigned_abs()));
    }
    let mut tx = store.begin().await?;
    let (id, epoch): (Uuid, i64) = sqlx::query_as(
        "insert into nodes (id, name, availability_zone, capacity_vcpus, capacity_memory_mib, capacity_disk_gib,
           accelerator, ovs_datapath, versions, images)
         values ($10, $1, $2, $3, $4, $5, $6, $7, $8, $9)
         on conflict on constraint nodes_name_key do update set
           availability_zone = excluded.availability_zone, capacity_vcpus = excluded.capacity_vcpus,
           capacity_memory_mib = excluded.capacity_memory_mib, capacity_disk_gib = excluded.capacity_disk_gib,
           accelerator = excluded.accelerator, ovs_datapath = excluded.ovs_datapath, versions = excluded.versions,
           images = excluded.images, last_report_at = now()
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
    .bind(new_id)
    .fetch_one(&mut *tx)
    .await?;
    for image in &facts.images {
        register(&mut tx, image).await?;
    }
    sqlx::query(
        "update images m set deleted_at = now()
         where m.account_id is null and m.deleted_at is null
           and exists (select 1 from nodes n where n.images ? m.name)
           and not exists (select 1 from nodes n where n.images ->> m.name = m.digest)",
    )
    .execute(&mut *tx)
    .await?;
    ring(&mut tx, "node", id).await?;
    commit(tx).await?;
    Ok((id, epoch.unsigned_abs()))
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
    /// When it last reported.
    pub last_report_at: OffsetDateTime,
    /// How many instances are placed there.
    pub instances: i64,
}

/// Every node, by id.
pub async fn list(store: &Store) -> Result<Vec<NodeRow>> {
    Ok(sqlx::query_as(
        "select id, name, last_report_at,
           (select count(*) from instances i where i.node_id = nodes.id) as instances
         from nodes order by id",
    )
    .fetch_all(store.pool())
    .await?)
}

/// The id of the node of this name, if it ever reported.
pub async fn id_by_name(store: &Store, name: &str) -> Result<Option<Uuid>> {
    Ok(sqlx::query_scalar("select id from nodes where name = $1")
        .bind(name)
        .fetch_optional(store.pool())
        .await?)
}
