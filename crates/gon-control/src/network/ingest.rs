//! What a network agent reports: the generations in force, how its ports are, and, by leaving them out, which are gone.

use std::collections::BTreeMap;
use std::time::Instant;

use gon_core::report::is_news;
use gon_proto::doorbell::Subject;
use gon_proto::{Doorbell, NetworkReport, PortStatus};
use gon_store::reports;
use gon_types::id::NodeId;
use uuid::Uuid;

use super::NetworkController;
use crate::documents::{NodeError, lock};

impl NetworkController {
    /// Takes a report of `node`, which the caller has proved. A report of an older state of things changes nothing.
    pub async fn ingest(&self, node: NodeId, report: NetworkReport) -> Result<(), NodeError> {
        let result = self.seat.heed(self.take(node, report).await);
        match &result {
            Ok(()) => self.metrics.reports.inc(),
            Err(_) => self.metrics.reports_failed.inc(),
        };
        result
    }

    async fn take(&self, node: NodeId, report: NetworkReport) -> Result<(), NodeError> {
        let fence = self.seat.fence().map_err(|_| NodeError::NotLeading)?;
        let (gone, had, had_overlay) = {
            let memory = lock(&self.memory);
            let known = memory.get(&node);
            let last = known.and_then(|k| k.report.as_ref());
            let gone = known.map_or_else(Vec::new, |known| {
                let latest = self.documents.latest(node).map(|document| document.version);
                known.gone(fence.epoch, latest, &report)
            });
            if gone.is_empty() && last.is_some_and(|(held, at)| !is_news(*held == report, at.elapsed())) {
                return Ok(());
            }
            (gone, last.map(|(held, _)| held.ports.clone()), last.and_then(|(held, _)| held.overlay))
        };
        let mut degraded = 0;
        let mut ports = BTreeMap::new();
        for port in &report.ports {
            let status = match &port.status {
                PortStatus::Ready => ("ready", None),
                PortStatus::Degraded { reason } => {
                    degraded += 1;
                    let news = had.as_ref().is_none_or(|ports| !ports.contains(port));
                    if news {
                        tracing::warn!(%node, port = %port.id, reason, "a port is closed");
                    }
                    ("degraded", Some(reason.chars().take(500).collect()))
                }
            };
            ports.insert(port.id.uuid(), status);
        }
        let vpcs: Vec<(Uuid, i64)> = report
            .vpcs
            .iter()
            .filter_map(|v| Some((v.id.uuid(), i64::try_from(v.generation).ok()?)))
            .collect();

        let mut tx = fence.begin_relaxed(&self.store).await?;
        let accounts = reports::record_applied(&mut tx, node.uuid(), &vpcs).await?;
        if had.as_ref() != Some(&report.ports) {
            reports::record_ports(&mut tx, node.uuid(), &ports).await?;
        }
        let overlay = report.overlay.map(|o| (o.address, o.mtu));
        let moved = if had.is_none() || had_overlay != report.overlay {
            gon_store::network_document::record_overlay(&mut tx, node.uuid(), overlay).await?
        } else {
            false
        };
        let freed = if gone.is_empty() {
            vec![]
        } else {
            reports::network_is_gone(&mut tx, node.uuid(), &gone).await?
        };
        gon_store::commit(tx).await?;
        if moved || !freed.is_empty() {
            self.nudge.nudge();
        }
        // What was applied is seen by users who wait for it. A doorbell that is lost costs them a look on a timer.
        if !accounts.is_empty() {
            let bells: Vec<_> =
                accounts.into_iter().map(|id| Doorbell { subject: Subject::Event, id }).collect();
            if let Err(error) = self.bus.0.publish(&bells).await {
                tracing::debug!(%error, "nobody was told what was applied");
            }
        }
        let first = {
            let mut memory = lock(&self.memory);
            let known = memory.entry(node).or_default();
            let first = known.report.replace((report, Instant::now())).is_none();
            known.degraded = degraded;
            known.freed(&freed);
            self.metrics.degraded_ports.set(memory.values().map(|m| m.degraded).sum());
            first
        };
        if first {
            // Now it is known what the node has, and so whether many may go.
            self.refresh(node).await?;
        }
        Ok(())
    }
}
