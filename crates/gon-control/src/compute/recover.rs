//! Recovery of instances of a node that is lost, and the grants that make it safe (`gon_proto::grant`).
//!
//! Assumes nothing of clocks but that this process's own goes forward. Promises that an instance is placed elsewhere only in
//! a transaction in which the node's grant is the one that this leader has seen standing still for [`grant::OVER_AFTER`],
//! and that raises the node's epoch, so that no grant of before can come any more; that nothing is moved while etcd is away
//! (row D2) or too many nodes are lost at once, and never many at a time onto one node (rule R11).

use std::collections::BTreeSet;
use std::time::Duration;

use gon_core::placement::{Batch, Request};
use gon_core::recovery::{self, Budget, Grant, Watch};
use gon_proto::{GrantAnswer, GrantRequest, grant};
use gon_store::placement::Placement;
use gon_store::recovery::{RecoverableRow, WatchedRow};
use gon_store::{StoreError, nodes};
use gon_types::id::{InstanceId, NodeId};
use uuid::Uuid;

use super::place::{candidate, numbers};
use super::{BATCH, InstanceManager};
use crate::documents::{NodeError, lock};

/// What the leader remembers between two looks.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    watch: Watch,
    budget: Budget,
    /// Why nothing is done at the moment, as it was last said.
    waits_for: Option<String>,
}

impl Recovery {
    /// Another leader's eyes.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// What one look came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// No node is lost that has something to recover.
    Nothing,
    /// Something is to be recovered, and is not, for this reason.
    Waits(String),
    /// So many were placed elsewhere.
    Recovered(usize),
}

fn shown(row: &WatchedRow) -> Grant {
    Grant { epoch: row.epoch.unsigned_abs(), number: row.grant_seq.unsigned_abs() }
}

fn request(row: &RecoverableRow) -> Request {
    Request {
        vcpus: row.vcpus.unsigned_abs(),
        memory_mib: u64::from(row.memory_mib.unsigned_abs()),
        disk_gib: u64::from(row.disk_gib.unsigned_abs()),
        availability_zone: row.availability_zone.clone(),
        image: (row.image_name.clone(), row.image_digest.clone()),
        remains: row.remains_on.iter().copied().map(NodeId::from_uuid).collect(),
    }
}

impl InstanceManager {
    /// Answers a node that asks whether what is recovered elsewhere may run there.
    pub async fn grant(&self, node: NodeId, asked: GrantRequest) -> Result<GrantAnswer, NodeError> {
        self.seat.heed(self.raise(node, asked).await)
    }

    async fn raise(&self, node: NodeId, asked: GrantRequest) -> Result<GrantAnswer, NodeError> {
        let fence = self.seat.fence().map_err(|_| NodeError::NotLeading)?;
        let epoch = i64::try_from(asked.epoch).map_err(|_| NodeError::OldEpoch)?;
        let known = asked.known.and_then(|known| i64::try_from(known).ok());
        let row = nodes::grant(&self.store, &fence, node.uuid(), epoch, known).await?;
        let row = row.ok_or(NodeError::Removed)?;
        Ok(GrantAnswer {
            epoch: row.epoch.unsigned_abs(),
            number: row.number.unsigned_abs(),
            granted: row.granted,
        })
    }

    /// One look at every node's grant; recovers what is to be recovered. `etcd_is_away`: then nothing is.
    pub async fn recover(&self, etcd_is_away: bool) -> Result<Look, StoreError> {
        self.recover_at(etcd_is_away, &|| self.born.elapsed()).await
    }

    /// The same by another clock, for tests: what time it is when it is asked, later than whatever was read before.
    pub async fn recover_at(
        &self,
        etcd_is_away: bool,
        clock: &(dyn Fn() -> Duration + Sync),
    ) -> Result<Look, StoreError> {
        self.seat.fence()?;
        let rows = gon_store::recovery::watched(&self.store).await?;
        let now = clock();
        let lost: Vec<(&WatchedRow, Grant)> = {
            let mut recovery = lock(&self.recovery);
            let watched = rows.iter().filter(|row| row.has_recoverable);
            recovery.watch.look(now, watched.map(|row| (NodeId::from_uuid(row.id), shown(row))));
            let over =
                |row: &WatchedRow| recovery.watch.over(NodeId::from_uuid(row.id), now, grant::OVER_AFTER);
            rows.iter().filter_map(|row| Some((row, over(row)?))).collect()
        };
        if lost.is_empty() {
            lock(&self.recovery).waits_for = None;
            return Ok(Look::Nothing);
        }
        // Whoever is silent because an operator took it away says nothing about us.
        let missing = |row: &&WatchedRow| row.silent || lost.iter().any(|(lost, _)| lost.id == row.id);
        let gone = rows.iter().filter(|row| !row.cordoned).filter(missing).count();
        let all = rows.iter().filter(|row| !row.cordoned || !row.silent).count();
        if etcd_is_away {
            return Ok(self.waits("etcd is away".to_owned()));
        }
        if recovery::is_cut_off(all, gone) {
            return Ok(
                self.waits(format!("{gone} of {all} nodes are lost at once: it may be us that are cut off"))
            );
        }
        let mut recovered = 0;
        let mut why = None;
        let all_lost: BTreeSet<Uuid> = lost.iter().map(|(row, _)| row.id).collect();
        for (row, grant) in lost {
            let (done, refused) = self.recover_from(row, grant, &all_lost, now).await?;
            recovered += done;
            why = why.or(refused);
        }
        match (recovered, why) {
            (0, None) => Ok(Look::Nothing),
            (0, Some(why)) => Ok(self.waits(why)),
            _ => Ok(Look::Recovered(recovered)),
        }
    }

    /// Says it once.
    fn waits(&self, why: String) -> Look {
        let told = lock(&self.recovery).waits_for.replace(why.clone());
        if told.as_ref() != Some(&why) {
            tracing::warn!(why, "instances of lost nodes are not recovered");
        }
        Look::Waits(why)
    }

    /// One transaction: takes what can be taken from a node whose grant is over. How many, and why not the others.
    async fn recover_from(
        &self,
        lost: &WatchedRow,
        grant: Grant,
        all_lost: &BTreeSet<Uuid>,
        now: Duration,
    ) -> Result<(usize, Option<String>), StoreError> {
        let mut tx = self.seat.fence()?.begin(&self.store).await?;
        let waiting = gon_store::recovery::lock_recoverable(&mut tx, lost.id, BATCH).await?;
        let rows = gon_store::placement::lock_candidates(&mut tx).await?;
        // It gives numbers, too.
        lock(&self.numbers).clear();
        let (epoch, number) = (grant.epoch.cast_signed(), grant.number.cast_signed());
        // From here on no grant is given until the epoch is another one.
        if !gon_store::recovery::grant_is(&mut tx, lost.id, epoch, number).await? {
            gon_store::rollback(tx).await?;
            return Ok((0, None));
        }
        let mut batch = Batch::new(rows.iter().map(|row| candidate(row, &BTreeSet::new())).collect());
        let mut room: Vec<usize> = {
            let budget = &mut lock(&self.recovery).budget;
            rows.iter().map(|row| budget.room(NodeId::from_uuid(row.id), now)).collect()
        };
        for (index, row) in rows.iter().enumerate() {
            // Heard of or not: what is moved there would be moved again.
            if all_lost.contains(&row.id) || room[index] == 0 {
                batch.close(index);
            }
        }
        let reason = format!(
            "Server.NodeLost: its node {} was lost; it is started anew from its image on another node",
            lost.name
        );
        let (mut moved, mut refused) = (Vec::new(), None);
        for row in &waiting {
            let need = request(row);
            let index = match batch.choose(&need) {
                Ok(index) => index,
                Err(none) => {
                    refused.get_or_insert_with(|| none.to_string());
                    continue;
                }
            };
            let node = &rows[index];
            if batch.lacks_numbers(index) {
                let in_use = gon_store::placement::numbers_in_use(&mut tx, node.id).await?;
                batch.learn(index, numbers(in_use, node));
            }
            let nics = usize::try_from(row.nics).unwrap_or(0);
            let Some(given) = batch.place(index, &need, nics) else { continue };
            let placement = Placement {
                instance: row.id,
                node: node.id,
                run_as_uid: given.uid.cast_signed(),
                port_nos: given.ports.into_iter().map(u32::cast_signed).collect(),
            };
            gon_store::recovery::recover(&mut tx, row, &placement, &reason).await?;
            moved.push((InstanceId::from_uuid(row.id), NodeId::from_uuid(node.id), node.name.clone()));
            room[index] -= 1;
            if room[index] == 0 {
                batch.close(index);
            }
        }
        if moved.is_empty() {
            gon_store::rollback(tx).await?;
            return Ok((0, refused));
        }
        let epoch = gon_store::recovery::raise_epoch(&mut tx, lost.id).await?;
        gon_store::commit(tx).await?;
        {
            let mut recovery = lock(&self.recovery);
            recovery.watch.raised(NodeId::from_uuid(lost.id), epoch.unsigned_abs());
            moved.iter().for_each(|(_, node, _)| recovery.budget.give(*node, now));
            recovery.waits_for = None;
        }
        self.nudge.nudge();
        for (instance, _, to) in &moved {
            tracing::warn!(%instance, from = lost.name, to, "its node is lost: started anew on another one");
        }
        Ok((moved.len(), refused))
    }
}
