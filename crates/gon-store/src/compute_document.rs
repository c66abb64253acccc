//! What a node's compute document is made of: one statement, hence one snapshot.

use uuid::Uuid;

use crate::leader::{Fence, Led};
use crate::v4::Mac;
use crate::{Result, Store};

/// An instance placed on the node that still has something there (finalizer `compute`).
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceRow {
    /// The instance.
    pub id: Uuid,
    /// Its generation.
    pub generation: i64,
    /// Which placement.
    pub placement_epoch: i64,
    /// `running`, `stopped` or `terminated`; of one that is to leave the node, or was taken from it, `terminated`.
    pub power: String,
    /// The node's epoch, if it runs by grant only.
    pub fence: Option<i64>,
    /// Whether a stop skips asking the guest.
    pub force_stop: bool,
    /// Reboots ever asked for.
    pub reboot_seq: i64,
    /// Processors.
    pub vcpus: i32,
    /// Memory.
    pub memory_mib: i32,
    /// Root disk; 0 for none.
    pub disk_gib: i32,
    /// Who its QEMU runs as.
    pub run_as_uid: i32,
    /// The image.
    pub image_id: Uuid,
    /// Its name in the node's store.
    pub image_name: String,
    /// Its recipe digest.
    pub image_digest: String,
    /// Interfaces and their Ethernet addresses in slot order.
    pub nics: Vec<(Uuid, Mac)>,
    /// The operation that is open for it, and the request it was asked for in.
    pub origin: Option<(Uuid, String)>,
}

#[derive(sqlx::FromRow)]
struct Raw {
    id: Uuid,
    generation: i64,
    placement_epoch: i64,
    power: String,
    fence: Option<i64>,
    force_stop: bool,
    reboot_seq: i64,
    vcpus: i32,
    memory_mib: i32,
    disk_gib: i32,
    run_as_uid: i32,
    image_id: Uuid,
    image_name: String,
    image_digest: String,
    nic_ids: Vec<Uuid>,
    nic_macs: Vec<mac_address::MacAddress>,
    operation_id: Option<Uuid>,
    request_id: Option<String>,
}

const INSTANCES: &str = "
  select l.epoch as led, d.*
  from (select (select epoch from leader_epochs where role = $2) as epoch) l left join (
    select i.id, i.generation, i.placement_epoch,
      case when i.leaving_node then 'terminated' else i.power::text end as power,
      case when i.auto_recover then w.epoch end as fence, i.force_stop, i.reboot_seq, i.vcpus,
      i.memory_mib, i.disk_gib, i.run_as_uid, i.image_id, m.name as image_name, m.digest as image_digest,
      array(select n.id from network_interfaces n
            where n.instance_id = i.id and n.deleted_at is null order by n.device_index) as nic_ids,
      array(select n.mac_address from network_interfaces n
            where n.instance_id = i.id and n.deleted_at is null order by n.device_index) as nic_macs,
      o.id as operation_id, o.request_id
    from instances i join images m on m.id = i.image_id join nodes w on w.id = i.node_id
      left join lateral (select o.id, o.request_id from operations o
        where o.resource_id = i.id and o.finished_at is null order by o.id desc limit 1) o on true
    where i.node_id = $1 and 'compute' = any (i.finalizers)
    union all
    -- What was taken from it while it was not heard of is to be removed there: only that counts of it.
    select r.instance_id, r.generation, r.placement_epoch, 'terminated', null, true, 0, 1, 64, 0, r.run_as_uid,
      '00000000-0000-0000-0000-000000000000', 'none', repeat('0', 64), '{}', '{}', null, null
    from node_remains r where r.node_id = $1) d on true
order by d.id";

/// Reads the instances of `node`, by id; only for who leads at that moment.
pub async fn read(store: &Store, fence: Fence, node: Uuid) -> Result<Vec<InstanceRow>> {
    let mut rested = store.rested();
    let rows: Vec<Led<Raw>> = loop {
        let mut conn = store.untested().await?;
        match sqlx::query_as(INSTANCES).bind(node).bind(fence.role).fetch_all(&mut *conn).await {
            Err(error) if rested.has_died(&error) => {}
            rows => break rows?,
        }
    };
    Ok(fence
        .only(rows)?
        .into_iter()
        .map(|r| InstanceRow {
            id: r.id,
            generation: r.generation,
            placement_epoch: r.placement_epoch,
            power: r.power,
            fence: r.fence,
            force_stop: r.force_stop,
            reboot_seq: r.reboot_seq,
            vcpus: r.vcpus,
            memory_mib: r.memory_mib,
            disk_gib: r.disk_gib,
            run_as_uid: r.run_as_uid,
            image_id: r.image_id,
            image_name: r.image_name,
            image_digest: r.image_digest,
            nics: r.nic_ids.into_iter().zip(r.nic_macs.into_iter().map(Mac::from)).collect(),
            origin: r.operation_id.zip(r.request_id),
        })
        .collect())
}

/// The nodes on which these instances are.
pub async fn nodes_of_instances(store: &Store, instances: &[Uuid]) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar(
        "select distinct node_id from instances where id = any ($1) and node_id is not null",
    )
    .bind(instances)
    .fetch_all(store.pool())
    .await?)
}
