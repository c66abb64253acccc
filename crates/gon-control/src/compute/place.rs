//! Placing: every instance that waits for a node gets one, or its user is told which node refused it for what.

use std::collections::BTreeSet;

use gon_core::placement::{self, Batch, Candidate, Numbers, Refusal, Request, Room};
use gon_store::placement::{CandidateRow, Placement, UnplacedRow};
use gon_store::{Conn, StoreError};
use gon_types::crash;
use gon_types::id::{InstanceId, NodeId};
use uuid::Uuid;

use super::{BATCH, InstanceManager};
use crate::documents::lock;

/// With so many ports a node's numbers are asked for anew: among those that are remembered are some that are free again.
///
/// They are remembered because asking costs an instance a round trip. Nobody but the leader gives any, and PostgreSQL
/// refuses one that is given twice.
const REMEMBERED: usize = 1000;

/// The numbers of `node` of which these ports and user ids are in use.
#[must_use]
pub fn numbers((ports, uids): (Vec<i32>, Vec<i32>), node: &CandidateRow) -> Numbers {
    Numbers {
        ports: ports.into_iter().map(i32::unsigned_abs).collect(),
        uids: uids.into_iter().map(i32::unsigned_abs).collect(),
        last_port: node.last_port_no.unsigned_abs(),
        last_uid: node.last_run_as_uid.unsigned_abs(),
    }
}

fn room(capacity: i64, used: i64) -> Room {
    Room { capacity: u64::try_from(capacity).unwrap_or(0), used: u64::try_from(used).unwrap_or(0) }
}

/// A row as something to choose from; `alive` are the nodes that hold a lease.
#[must_use]
pub fn candidate(row: &CandidateRow, alive: &BTreeSet<String>) -> Candidate {
    let images = row.images.as_object().into_iter().flatten();
    Candidate {
        id: NodeId::from_uuid(row.id),
        name: row.name.clone(),
        availability_zone: row.availability_zone.clone(),
        schedulable: row.schedulable,
        // Its lease or its own word: either is as old as the time to live at most.
        alive: row.heard || alive.contains(&row.name),
        vcpus: room(row.capacity_vcpus.into(), row.used_vcpus.into()),
        memory_mib: room(row.capacity_memory_mib, row.used_memory_mib),
        disk_gib: room(row.capacity_disk_gib, row.used_disk_gib),
        images: images
            .filter_map(|(name, digest)| Some((name.clone(), digest.as_str()?.to_owned())))
            .collect(),
    }
}

/// What a row asks for.
#[must_use]
pub fn request(row: &UnplacedRow) -> Request {
    Request {
        vcpus: row.vcpus.unsigned_abs(),
        memory_mib: u64::from(row.memory_mib.unsigned_abs()),
        disk_gib: u64::from(row.disk_gib.unsigned_abs()),
        availability_zone: row.availability_zone.clone(),
        image: (row.image_name.clone(), row.image_digest.clone()),
        remains: row.remains_on.iter().copied().map(NodeId::from_uuid).collect(),
    }
}

/// What [`InstanceManager::place`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// The instances that have a node now.
    pub instances: BTreeSet<Uuid>,
    /// Their nodes.
    pub nodes: BTreeSet<Uuid>,
    /// Whether doorbells lie in the outbox: the relay is to be nudged.
    pub doorbells: bool,
}

impl InstanceManager {
    /// Places what waits, in transactions of [`BATCH`].
    pub async fn place(&self, alive: &BTreeSet<String>) -> Result<Placed, StoreError> {
        let mut all = Placed::default();
        let mut after = Uuid::nil();
        lock(&self.waiting).begin(self.born.elapsed());
        loop {
            let fence = self.seat.fence()?;
            let (mut tx, waiting) = gon_store::placement::begin(&self.store, fence, after, BATCH).await?;
            let Some(last) = waiting.last() else { return Ok(all) };
            after = last.id;
            let rows = gon_store::placement::lock_candidates(&mut tx).await?;
            let mut batch = Batch::new(rows.iter().map(|row| candidate(row, alive)).collect());
            let mut placed = Vec::new();
            let mut written = 0;
            for row in &waiting {
                let need = request(row);
                let index = match batch.choose(&need) {
                    Ok(index) => index,
                    Err(none) => {
                        written += i32::from(self.refuse(&mut tx, row, &none.to_string()).await?);
                        continue;
                    }
                };
                let node = &rows[index];
                if batch.lacks_numbers(index) {
                    let known = lock(&self.numbers).remove(&node.id).filter(|n| n.ports.len() < REMEMBERED);
                    let known = match known {
                        Some(known) => Numbers {
                            last_port: node.last_port_no.unsigned_abs(),
                            last_uid: node.last_run_as_uid.unsigned_abs(),
                            ..known
                        },
                        None => numbers(gon_store::placement::numbers_in_use(&mut tx, node.id).await?, node),
                    };
                    batch.learn(index, known);
                }
                let nics = usize::try_from(row.nics).unwrap_or(0);
                let Some(given) = batch.place(index, &need, nics) else { continue };
                // Far below what an i32 holds.
                let placement = Placement {
                    instance: row.id,
                    node: node.id,
                    run_as_uid: given.uid.cast_signed(),
                    port_nos: given.ports.into_iter().map(u32::cast_signed).collect(),
                };
                gon_store::placement::place(&mut tx, &placement).await?;
                all.nodes.insert(node.id);
                all.instances.insert(row.id);
                placed.push(InstanceId::from_uuid(row.id));
            }
            // While the nodes are still locked: nobody else gives numbers meanwhile.
            lock(&self.numbers).extend(batch.into_numbers().map(|(index, known)| (rows[index].id, known)));
            if !placed.is_empty() || written > 0 {
                crash::point("C14:before");
                gon_store::commit(tx).await?;
                crash::point("C14:after");
                all.doorbells = true;
            }
            if !placed.is_empty() {
                let mut waiting = lock(&self.waiting);
                placed.iter().for_each(|id| waiting.placed(*id));
                tracing::info!(placed = placed.len(), "instances placed");
            }
            if (waiting.len() as i64) < BATCH {
                return Ok(all);
            }
        }
    }

    /// Tells the user why the instance waits, or, when it has waited long enough, ends it. True if anything was
    /// written.
    async fn refuse(&self, tx: &mut Conn, row: &UnplacedRow, reason: &str) -> Result<bool, StoreError> {
        let waited = lock(&self.waiting).refused(InstanceId::from_uuid(row.id), self.born.elapsed());
        match placement::refuse(waited, self.settings.placement_patience, row.state_reason.as_deref(), reason)
        {
            Refusal::Wait => return Ok(false),
            Refusal::Tell => {
                tracing::info!(instance = %row.id, reason, "no node takes it yet");
                gon_store::placement::refuse(tx, row, reason).await?;
            }
            Refusal::GiveUp => {
                tracing::warn!(instance = %row.id, reason, "no node took it; giving up");
                gon_store::placement::give_up(tx, row, reason).await?;
            }
        }
        Ok(true)
    }
}
