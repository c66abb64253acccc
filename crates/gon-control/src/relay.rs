//! Outbox to bus. Every process that writes the outbox runs a relay: it is nudged in memory right after a commit, and
//! looks once a second for what a process that died left behind. So a transaction needs no `NOTIFY`, whose lock would
//! make every commit of the site wait for every other; several relays share the work, since rows are claimed by lock.
//!
//! Promises that a committed doorbell is published at least once, also one whose transaction commits long after a
//! later-numbered one; and that nothing is lost while the bus is away.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use gon_bus::Bus;
use gon_proto::Doorbell;
use gon_proto::doorbell::Subject;
use gon_store::{Store, StoreError};
use gon_types::crash;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::status::Metrics;

/// How many rows are published at once.
const BATCH: i64 = 500;
/// How often to look without having been nudged.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a batch may take to end when we stop.
const GRACE: Duration = Duration::from_secs(1);

/// Says to the relay of this process: something was committed. Cheap; any number of nudges is one look.
#[derive(Debug, Clone, Default)]
pub struct Nudge(Arc<Notify>);

impl Nudge {
    /// A handle; give clones to whoever commits doorbells, and one to [`run`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Something was committed.
    pub fn nudge(&self) {
        self.0.notify_one();
    }
    /// Waits for a nudge; one that came since the last wait counts. For tests and other relays.
    pub async fn nudged(&self) {
        self.0.notified().await;
    }
}

/// Why a round did not publish.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// PostgreSQL.
    #[error("the outbox cannot be read")]
    Store(#[from] StoreError),
    /// The bus.
    #[error("the bus does not take doorbells")]
    Bus(#[from] gon_bus::BusError),
}

/// Publishes what is in the outbox now. Returns how many rows that were.
pub async fn round(store: &Store, bus: &dyn Bus) -> Result<usize, RelayError> {
    let mut all = 0;
    loop {
        let published = batch(store, bus, BATCH).await?;
        all += published;
        if (published as i64) < BATCH {
            return Ok(all);
        }
    }
}

/// Publishes up to `limit` rows. Returns how many there were.
async fn batch(store: &Store, bus: &dyn Bus, limit: i64) -> Result<usize, RelayError> {
    let (tx, rows) = gon_store::relay::claim(store, limit).await?;
    let claimed = rows.len();
    if claimed == 0 {
        return Ok(0);
    }
    // Each once; the schema knows no subject that we do not know.
    let doorbells: HashSet<Doorbell> = rows
        .into_iter()
        .filter_map(|row| {
            let subject = Subject::ALL.into_iter().find(|subject| subject.as_str() == row.subject)?;
            Some(Doorbell { subject, id: row.subject_id })
        })
        .collect();
    let mut doorbells: Vec<_> = doorbells.into_iter().collect();
    // Those for whose work somebody waits longest hear first, those who only look on last.
    doorbells.sort_by_key(|doorbell| match doorbell.subject {
        Subject::Instance => 0,
        Subject::Vpc | Subject::Node => 1,
        Subject::Event => 2,
    });
    // Published before the rows are gone: if the commit fails they are published again, which is harmless.
    crash::point("C11:before");
    bus.publish(&doorbells).await?;
    crash::point("C11:after");
    crash::point("C13:before");
    gon_store::commit(tx).await?;
    crash::point("C13:after");
    Ok(claimed)
}

/// Publishes until it is told to stop; then it ends the batch in its hands if the bus lets it soon, and otherwise what it
/// holds goes back to the outbox.
pub async fn run(
    store: Store,
    bus: Arc<dyn Bus>,
    nudge: Nudge,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut failing: Option<RelayError> = None;
    loop {
        // Every batch is a round: one that drains a long outage is at work, and not hanging.
        metrics.relay_rounds.inc();
        // One row shows whether the bus is back: claiming all that waits, in vain and every second, costs PostgreSQL.
        let limit = if failing.is_some() { 1 } else { BATCH };
        let mut batch = std::pin::pin!(batch(&store, &*bus, limit));
        let published = tokio::select! {
            biased;
            published = &mut batch => published,
            () = stop.cancelled() => {
                if let Ok(Ok(published)) = tokio::time::timeout(GRACE, batch).await {
                    metrics.doorbells.inc_by(published as u64);
                }
                return Ok(());
            }
        };
        match published {
            // Another relay holds what waits, or it is empty: that says nothing of a bus that was away.
            Ok(0) if matches!(failing, Some(RelayError::Bus(_))) => {}
            Ok(published) => {
                metrics.doorbells.inc_by(published as u64);
                if failing.take().is_some() {
                    tracing::info!("doorbells are published again");
                }
                if published as i64 == limit {
                    continue;
                }
            }
            Err(error) => {
                if failing.is_none() {
                    tracing::warn!(error = &error as &dyn std::error::Error, "doorbells wait in the outbox");
                }
                failing = Some(error);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = nudge.nudged(), if failing.is_none() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}
