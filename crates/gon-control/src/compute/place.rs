//! Placing: every instance that waits for a node gets one, or its user is told which node refused it for what.

use std::collections::{BTreeMap, BTreeSet};

use gon_core::placement::{self, Candidate, PORT_NOS, RUN_AS_UIDS, Request, Room};
use gon_store::placement::{CandidateRow, Placement, UnplacedRow};
use gon_store::{Conn, StoreError};
use gon_types::crash;
use gon_types::id::NodeId;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{BATCH, InstanceManager};

/// The numbers of a node: in use, and given last.
#[derive(Debug, Clone)]
pub struct Numbers {
    ports: BTreeSet<u32>,
    uids: BTreeSet<u32>,
    last_port: u32,
    last_uid: u32,
}

impl Numbers {
    async fn load(tx: &mut Conn, node: &CandidateRow) -> Result<Self, StoreError> {
        Ok(Self::new(gon_store::placement::numbers_in_use(tx, node.id).await?, node))
    }

    /// The numbers of `node` of which these ports and user ids are in use.
    #[must_use]
    pub fn new((ports, uids): (Vec<i32>, Vec<i32>), node: &CandidateRow) -> Self {
        Self {
            ports: ports.into_iter().map(i32::unsigned_abs).collect(),
            uids: uids.into_iter().map(i32::unsigned_abs).collect(),
            last_port: node.last_port_no.unsigned_abs(),
            last_uid: node.last_run_as_uid.unsigned_abs(),
        }
    }

    /// A user id and as many port numbers as the instance has interfaces; `None` if the node has no more of either.
    pub fn take(&mut self, nics: i64) -> Option<(i32, Vec<i32>)> {
        let uid = placement::next_free(&RUN_AS_UIDS, self.last_uid, &self.uids)?;
        let mut taken = Vec::new();
        for _ in 0..nics {
            let port = placement::next_free(&PORT_NOS, self.last_port, &self.ports)?;
            self.ports.insert(port);
            self.last_port = port;
            taken.push(port as i32);
        }
        self.uids.insert(uid);
        self.last_uid = uid;
        Some((uid as i32, taken))
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
    }
}

impl InstanceManager {
    /// Places what waits, in transactions of [`BATCH`]. Returns the nodes that got something.
    pub async fn place(&self, alive: &BTreeSet<String>) -> Result<BTreeSet<Uuid>, StoreError> {
        let mut touched = BTreeSet::new();
        let mut after = Uuid::nil();
        loop {
            let mut tx = self.seat.fence()?.begin(&self.store).await?;
            let waiting = gon_store::placement::lock_unplaced(&mut tx, after, BATCH).await?;
            let Some(last) = waiting.last() else { return Ok(touched) };
            after = last.id;
            let rows = gon_store::placement::lock_candidates(&mut tx).await?;
            let mut nodes: Vec<Candidate> = rows.iter().map(|row| candidate(row, alive)).collect();
            let mut numbers: BTreeMap<usize, Numbers> = BTreeMap::new();
            let (mut placed, mut written) = (0, 0);
            for row in &waiting {
                let need = request(row);
                match placement::choose(&need, &nodes) {
                    Ok(index) => {
                        let numbers = match numbers.entry(index) {
                            std::collections::btree_map::Entry::Occupied(held) => held.into_mut(),
                            std::collections::btree_map::Entry::Vacant(slot) => {
                                slot.insert(Numbers::load(&mut tx, &rows[index]).await?)
                            }
                        };
                        let Some((run_as_uid, port_nos)) = numbers.take(row.nics) else {
                            // Sixteen thousand ports on one node: not a size that is lent.
                            nodes[index].schedulable = false;
                            continue;
                        };
                        nodes[index].take(&need);
                        let node = rows[index].id;
                        let placement = Placement { instance: row.id, node, run_as_uid, port_nos };
                        gon_store::placement::place(&mut tx, &placement).await?;
                        touched.insert(node);
                        placed += 1;
                    }
                    Err(none) => written += i32::from(self.refuse(&mut tx, row, &none.to_string()).await?),
                }
            }
            if placed > 0 || written > 0 {
                crash::point("C14:before");
                gon_store::commit(tx).await?;
                crash::point("C14:after");
                self.nudge.nudge();
            }
            if placed > 0 {
                tracing::info!(placed, "instances placed");
            }
            if (waiting.len() as i64) < BATCH {
                return Ok(touched);
            }
        }
    }

    /// Tells the user why the instance waits, or, when it has waited long enough, ends it. True if anything was
    /// written.
    async fn refuse(&self, tx: &mut Conn, row: &UnplacedRow, reason: &str) -> Result<bool, StoreError> {
        let waited = OffsetDateTime::now_utc() - row.created_at;
        if waited >= self.settings.placement_patience {
            tracing::warn!(instance = %row.id, reason, "no node took it; giving up");
            gon_store::placement::give_up(tx, row, reason).await?;
            return Ok(true);
        }
        if row.state_reason.as_deref() == Some(reason) {
            return Ok(false);
        }
        tracing::info!(instance = %row.id, reason, "no node takes it yet");
        gon_store::placement::refuse(tx, row, reason).await?;
        Ok(true)
    }
}
