//! The work of the instance manager besides its rounds: noticing nodes that fell silent, ending operations that were not
//! done in time, emptying nodes, and recovering what was on lost ones ([`super::recover`]).
//!
//! A drain is an operation with a lease: whoever holds it looks at the node once, does what `gon_core::drain` says, and
//! puts it back with how far it has come. Every look is one transaction, under the leader's fence and the lease, so one that
//! was taken over in the middle has done nothing.

use std::convert::Infallible;
use std::time::Duration;

use gon_cluster::Alive;
use gon_core::drain::{self, Occupant};
use gon_store::nodes::OccupantRow;
use gon_store::operations::{self, WorkRow};
use gon_store::{StoreError, nodes, placement};
use gon_types::id::InstanceId;
use serde_json::json;
use tokio::sync::watch;

use super::InstanceManager;

/// How often there is work to look for.
const TICK: Duration = Duration::from_secs(1);
/// How long one look at a node may take before somebody else may try, seconds.
const LEASE: i32 = 15;
/// How long until the next look, seconds.
const PAUSE: i32 = 1;
/// Ids that an operation names of those in its way.
const NAMED: usize = 50;

fn occupant(row: &OccupantRow) -> Result<Occupant, StoreError> {
    let word = |error: gon_types::NetError| StoreError::Db(gon_store::invalid(error.to_string()));
    Ok(Occupant {
        state: row.state.parse().map_err(word)?,
        power: row.power.parse().map_err(word)?,
        has_disk: row.disk_gib > 0,
        is_leaving: row.leaving_node,
    })
}

fn named(rows: &[&OccupantRow]) -> Vec<String> {
    rows.iter().take(NAMED).map(|row| InstanceId::from_uuid(row.id).to_string()).collect()
}

impl InstanceManager {
    /// Works until the future ends.
    pub(super) async fn work(&self, holder: &str, alive: &watch::Receiver<Alive>) -> Infallible {
        let mut failing = false;
        loop {
            tokio::time::sleep(TICK).await;
            let etcd_is_away = alive.borrow().stale;
            let worked = async {
                self.tick(holder).await?;
                self.recover(etcd_is_away).await.map(drop)
            };
            match self.seat.heed(worked.await) {
                Ok(()) => failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(error = &error as &dyn std::error::Error, "operations wait");
                    }
                }
            }
        }
    }

    /// One look at everything: silent nodes, late operations, drains that are due.
    pub async fn tick(&self, holder: &str) -> Result<(), StoreError> {
        let fence = self.seat.fence()?;
        let mut tx = fence.begin(&self.store).await?;
        let silent = nodes::notice_silence(&mut tx).await?;
        let late = operations::expire(&mut tx).await?;
        if silent.is_empty() && late == 0 {
            gon_store::rollback(tx).await?;
        } else {
            gon_store::commit(tx).await?;
            self.nudge.nudge();
        }
        for node in silent {
            tracing::warn!(node, "not heard of: what runs there is unknown");
        }
        while let Some(work) = self.claim(holder).await? {
            self.drain(&work, holder).await?;
        }
        Ok(())
    }

    /// Takes a drain that is due and that nobody works on.
    pub async fn claim(&self, holder: &str) -> Result<Option<WorkRow>, StoreError> {
        let mut tx = self.seat.fence()?.begin(&self.store).await?;
        let work = operations::claim(&mut tx, holder, LEASE).await?;
        gon_store::commit(tx).await?;
        Ok(work)
    }

    /// One look at a node that is to be empty. False: the lease was lost, and nothing was done.
    pub async fn drain(&self, work: &WorkRow, holder: &str) -> Result<bool, StoreError> {
        let may_stop = work.parameters["stop_instances"].as_bool().unwrap_or(false);
        let mut tx = self.seat.fence()?.begin(&self.store).await?;
        let occupants = nodes::lock_occupants(&mut tx, work.resource_id).await?;
        if !operations::hold(&mut tx, work, holder).await? {
            gon_store::rollback(tx).await?;
            return Ok(false);
        }
        let judged =
            occupants.iter().map(|row| Ok((row, occupant(row)?))).collect::<Result<Vec<_>, StoreError>>()?;
        let look = drain::look(judged, may_stop);
        for row in &look.leave {
            placement::ask_to_leave(&mut tx, row.id).await?;
        }
        for row in &look.stop {
            const WHY: &str = "Server.ScheduledStop: its node is being emptied";
            placement::stop_for_drain(&mut tx, row.id, row.account_id, row.vpc_id, WHY).await?;
        }
        let progress = json!({
            "instances": occupants.len(), "moving": look.leave.len() + look.leaving.len(),
            "stopping": look.stop.len() + look.waiting.len(),
            "blockers": named(&look.blockers), "staying": named(&look.staying),
        });
        if look.is_done() {
            operations::succeed(&mut tx, work.id, &progress).await?;
            tracing::info!(node = %work.resource_id, staying = look.staying.len(), "drained");
        } else {
            let why = match look.blockers.len() {
                0 => None,
                1 => Some("an instance runs: stop it, or drain with stop_instances".to_owned()),
                n => Some(format!("{n} instances run: stop them, or drain with stop_instances")),
            };
            operations::put_back(&mut tx, work.id, &progress, why.as_deref(), PAUSE).await?;
        }
        gon_store::commit(tx).await?;
        self.nudge.nudge();
        Ok(true)
    }
}
