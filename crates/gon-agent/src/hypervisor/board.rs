//! What is to be reported: the last word on every instance.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use gon_proto::InstanceReport;
use gon_types::id::InstanceId;
use tokio::sync::Notify;

/// The last word on every instance, and a bell that rings when one changes.
#[derive(Debug, Default)]
pub struct Board {
    reports: Mutex<BTreeMap<InstanceId, InstanceReport>>,
    changed: Notify,
}

impl Board {
    /// Puts up an instance's report.
    pub fn publish(&self, report: InstanceReport) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        if reports.get(&report.id) != Some(&report) {
            reports.insert(report.id, report);
            self.changed.notify_one();
        }
    }
    /// Takes an instance's report down: there is nothing to speak of.
    pub fn withdraw(&self, id: InstanceId) {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
    /// All reports, by id.
    #[must_use]
    pub fn reports(&self) -> Vec<InstanceReport> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
    /// Waits for a change since the last time this returned.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}
