//! What a network agent reports: the generations in force, how its ports are, and, by leaving them out, which are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gon_proto::doorbell::Subject;
use gon_proto::{Doorbell, NetworkReport, PortStatus};
use gon_store::reports;
use gon_types::id::NodeId;
use uuid::Uuid;

use super::NetworkController;
use crate::documents::{NodeError, lock};

/// A report like the last one is taken in full this often all the same.
const FULL: Duration = Duration::from_secs(10);

impl NetworkController {
    /// Takes a report of `node`, which the caller has proved. A report of an older state of things changes nothing.
    pub async fn ingest(&self, node: NodeId, report: NetworkReport) -> Result<(), NodeError> {
        let result = self.take(node, report).await;
        match &result {
            Ok(()) => self.metrics.reports.inc(),
            Err(_) => self.metrics.reports_failed.inc(),
        };
        result
    }

    async fn take(&self, node: NodeId, report: NetworkReport) -> Result<(), NodeError> {
        let (gone, had) = {
            let memory = lock(&self.memory);
            let known = memory.get(&node);
            let last = known.and_then(|k| k.report.as_ref());
            let gone = self.gone(node, &report, known);
            if gone.is_empty() && last.is_some_and(|(held, at)| *held == report && at.elapsed() < FULL) {
                return Ok(());
            }
            (gone, last.map(|(held, _)| held.ports.clone()))
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

        let mut tx = reports::begin(&self.store).await?;
        let accounts = reports::record_applied(&mut tx, node.uuid(), &vpcs).await?;
        if had.as_ref() != Some(&report.ports) {
            reports::record_ports(&mut tx, node.uuid(), &ports).await?;
        }
        let freed = if gone.is_empty() {
            vec![]
        } else {
            reports::network_is_gone(&mut tx, node.uuid(), &gone).await?
        };
        gon_store::commit(tx).await?;
        if !freed.is_empty() {
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
        let mut memory = lock(&self.memory);
        let known = memory.entry(node).or_default();
        known.report = Some((report, Instant::now()));
        known.degraded = degraded;
        known.leaving.retain_mut(|leaving| {
            leaving.awaited &= !freed.contains(&leaving.instance_id);
            true
        });
        self.metrics.degraded_ports.set(memory.values().map(|m| m.degraded).sum());
        Ok(())
    }

    /// Instances all of whose ports are gone: left out of the report, which speaks of a document of this epoch that no
    /// longer had them.
    fn gone(&self, node: NodeId, report: &NetworkReport, known: Option<&super::NodeMemory>) -> Vec<Uuid> {
        let epoch = self.epoch.load(Ordering::Acquire);
        let (Some(known), true) = (known, report.applied.epoch == epoch) else { return vec![] };
        // Only what was published can have been applied.
        if self.documents.latest(node).is_none_or(|d| d.version < report.applied) {
            return vec![];
        }
        let there: BTreeSet<Uuid> = report.ports.iter().map(|p| p.id.uuid()).collect();
        let mut gone: BTreeMap<Uuid, bool> = BTreeMap::new();
        for leaving in known.leaving.iter().filter(|l| l.awaited) {
            let since = known.removed_at.get(&leaving.id).copied().unwrap_or(1);
            let is_gone = !there.contains(&leaving.id) && report.applied.generation >= since;
            *gone.entry(leaving.instance_id).or_insert(true) &= is_gone;
        }
        gone.into_iter().filter(|(_, all)| *all).map(|(instance, _)| instance).collect()
    }
}
