//! What the nodes report about instances and about themselves.

use std::collections::HashMap;
use std::time::Instant;

use gon_core::instance::{Observed, Power};
use gon_core::report::{self, is_news};
use gon_proto::{ComputeReport, ImageKind, InstanceReport, NodeAnswer, NodeReport, ObservedInstance};
use gon_store::StoreError;
use gon_store::nodes::{ImageFacts, NodeFacts, Reported};
use gon_store::reports::{self, Observation, ReportedRow};
use gon_types::crash;
use gon_types::id::NodeId;
use uuid::Uuid;

use super::InstanceManager;
use crate::documents::{NodeError, lock};

fn observed(said: ObservedInstance) -> Observed {
    match said {
        ObservedInstance::Starting => Observed::Starting,
        ObservedInstance::Running => Observed::Running,
        ObservedInstance::Stopping => Observed::Stopping,
        ObservedInstance::Stopped => Observed::Stopped,
        ObservedInstance::ShutDownByGuest => Observed::ShutDownByGuest,
        ObservedInstance::Gone => Observed::Gone,
        ObservedInstance::Failed => Observed::Failed,
        ObservedInstance::Unknown => Observed::Unknown,
    }
}

/// What the report makes of the row; `None` if nothing: [`report::judge`].
pub fn judge(row: &ReportedRow, report: &InstanceReport) -> Result<Option<Observation>, StoreError> {
    let word = |error: gon_types::NetError| StoreError::Db(gon_store::invalid(error.to_string()));
    let held = report::Held {
        state: row.state.parse().map_err(word)?,
        reason: row.state_reason.as_deref(),
        power: row.power.parse().map_err(word)?,
        generation: row.generation,
        observed_generation: row.observed_generation,
        placement_epoch: row.placement_epoch,
        has_compute: row.has_compute,
        is_leaving: row.leaving_node,
        awaited_reboots: row.awaited_reboots,
    };
    let said = report::Said {
        generation: report.generation,
        placement_epoch: report.placement_epoch,
        observed: observed(report.observed),
        reason: report.reason.as_deref(),
        reboots: report.reboot_seq,
    };
    Ok(report::judge(held, said).map(|change| Observation {
        state: change.state.as_str(),
        reason: change.reason,
        power: change.power.map(Power::as_str),
        compute_gone: change.compute_gone,
        left_node: change.left_node,
        reboots: change.reboots,
    }))
}

impl InstanceManager {
    /// Takes a report of `node`, which the caller has proved. A report of an older placement or generation changes
    /// nothing.
    pub async fn ingest(&self, node: NodeId, report: ComputeReport) -> Result<(), NodeError> {
        let result = self.seat.heed(self.take(node, report).await);
        match &result {
            Ok(()) => self.metrics.reports.inc(),
            Err(_) => self.metrics.reports_failed.inc(),
        };
        result
    }

    async fn take(&self, node: NodeId, report: ComputeReport) -> Result<(), NodeError> {
        let fence = self.seat.fence().map_err(|_| NodeError::NotLeading)?;
        let known = lock(&self.reports)
            .get(&node)
            .is_some_and(|(held, at)| !is_news(held.instances == report.instances, at.elapsed()));
        if known {
            return Ok(());
        }
        let said: HashMap<Uuid, &InstanceReport> =
            report.instances.iter().map(|i| (i.id.uuid(), i)).collect();
        let ids: Vec<Uuid> = said.keys().copied().collect();
        let mut tx = fence.begin_relaxed(&self.store).await?;
        if let Some(epoch) = report.node_epoch {
            let epoch = i64::try_from(epoch).map_err(|_| NodeError::OldEpoch)?;
            if !gon_store::nodes::is_current(&mut tx, node.uuid(), epoch).await? {
                return Err(NodeError::OldEpoch);
            }
        }
        let mut changed = 0;
        let mut ended = false;
        if !ids.is_empty() {
            for row in reports::lock_instances(&mut tx, node.uuid(), &ids).await? {
                let Some(report) = said.get(&row.id) else { continue };
                if let Some(change) = judge(&row, report)? {
                    if change.state != row.state {
                        let origin = self.origin(node, report.id);
                        tracing::info!(
                            request_id = origin.as_ref().map(|o| &*o.request_id),
                            operation_id = origin.as_ref().map(|o| tracing::field::display(o.operation)),
                            instance = %report.id, from = row.state, to = change.state, reason = change.reason,
                            "instance moved"
                        );
                    }
                    // At most the generation that was just compared.
                    reports::observe(&mut tx, &row, row.generation, &change).await?;
                    changed += 1;
                    ended |= change.compute_gone;
                }
            }
        }
        let gone: Vec<(Uuid, i64)> = report
            .instances
            .iter()
            .filter(|i| i.observed == ObservedInstance::Gone)
            .map(|i| (i.id.uuid(), i64::try_from(i.placement_epoch).unwrap_or(i64::MAX)))
            .collect();
        if !gone.is_empty() && gon_store::recovery::cleaned_up(&mut tx, node.uuid(), &gone).await? {
            changed += 1;
        }
        let step = |side: &str| {
            if ended {
                crash::point(&format!("D15:{side}"));
            } else if changed > 0 {
                crash::point(&format!("C30:{side}"));
            }
        };
        step("before");
        gon_store::commit(tx).await?;
        step("after");
        if changed > 0 {
            self.nudge.nudge();
        }
        let first = lock(&self.reports).insert(node, (report, Instant::now())).is_none();
        if first {
            // Now it is known what the node has, and so whether many may go.
            self.refresh(node).await?;
        }
        Ok(())
    }

    /// Takes what a node says of itself; a new one joins. One that was told of an epoch that is over changes nothing and
    /// is told of the one that is.
    pub async fn ingest_node(&self, report: NodeReport) -> Result<NodeAnswer, NodeError> {
        let result = self.seat.heed(self.take_node(report).await);
        match &result {
            Ok(_) => self.metrics.reports.inc(),
            Err(_) => self.metrics.reports_failed.inc(),
        };
        result
    }

    async fn take_node(&self, report: NodeReport) -> Result<NodeAnswer, NodeError> {
        let fence = self.seat.fence().map_err(|_| NodeError::NotLeading)?;
        let facts = facts(report)?;
        let stored = gon_store::nodes::report(&self.store, Some(&fence), &facts, Uuid::now_v7()).await;
        let (id, epoch) = match stored {
            Ok(Reported::Taken { id, epoch } | Reported::Old { id, epoch }) => (id, epoch),
            Ok(Reported::Removed) => return Err(NodeError::Removed),
            // Its name, zone or an image is not one we can keep: the node's to mend.
            Err(error @ StoreError::Constraint { .. }) => return Err(NodeError::Invalid(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        self.nudge.nudge();
        Ok(NodeAnswer { node: NodeId::from_uuid(id), epoch })
    }
}

fn facts(report: NodeReport) -> Result<NodeFacts, NodeError> {
    let too_much = |what: &str| NodeError::Invalid(format!("{what} is beyond what can be stored"));
    let images = report
        .images
        .into_iter()
        .map(|(name, image)| {
            Ok(ImageFacts {
                name,
                digest: image.digest,
                kind: match image.kind {
                    ImageKind::Initramfs => "initramfs",
                    ImageKind::Disk => "disk",
                },
                description: image.description,
                architecture: image.architecture,
                min_memory_mib: i32::try_from(image.min_memory_mib)
                    .map_err(|_| too_much("min_memory_mib"))?,
                disk_gib: i32::try_from(image.disk_gib).map_err(|_| too_much("disk_gib"))?,
            })
        })
        .collect::<Result<Vec<_>, NodeError>>()?;
    Ok(NodeFacts {
        name: report.name,
        availability_zone: report.availability_zone,
        vcpus: i32::try_from(report.vcpus).map_err(|_| too_much("vcpus"))?,
        memory_mib: i64::try_from(report.memory_mib).map_err(|_| too_much("memory_mib"))?,
        disk_gib: i64::try_from(report.disk_gib).map_err(|_| too_much("disk_gib"))?,
        accelerator: report.accelerator,
        ovs_datapath: report.ovs_datapath,
        versions: serde_json::json!(report.versions),
        images,
        labels: serde_json::json!(report.labels),
        address: report.address,
        boot_id: report.boot_id,
        told: match (report.node, report.epoch) {
            (Some(node), Some(epoch)) => Some((node.uuid(), i64::try_from(epoch).unwrap_or(0))),
            _ => None,
        },
    })
}
