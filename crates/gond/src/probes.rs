//! Who looks after what the services depend on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gon_cluster::EtcdLiveness;
use gon_control::status::{Metrics, Ready};
use gon_store::Store;
use tokio_util::sync::CancellationToken;

use crate::health::Probe;

/// How often.
const LOOK: Duration = Duration::from_secs(2);
/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(3);

/// Waits for the next look. False: it is time to end.
async fn again(stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(LOOK) => true,
    }
}

/// PostgreSQL, and how much waits in the outbox.
pub async fn database(
    store: Store,
    metrics: Arc<Metrics>,
    probe: Probe,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        match tokio::time::timeout(DEADLINE, store.ping()).await {
            Ok(Ok(())) => {
                probe.up();
                if let Ok(Ok(waiting)) =
                    tokio::time::timeout(DEADLINE, gon_store::relay::waiting(&store)).await
                {
                    metrics.outbox.set(waiting);
                }
            }
            Ok(Err(error)) => probe.down(chain(&error)),
            Err(_) => probe.down(format!("no answer within {DEADLINE:?}")),
        }
        if !again(&stop).await {
            return Ok(());
        }
    }
}

/// etcd.
pub async fn cluster(etcd: EtcdLiveness, probe: Probe, stop: CancellationToken) -> anyhow::Result<()> {
    loop {
        match tokio::time::timeout(DEADLINE, etcd.check()).await {
            Ok(Ok(())) => probe.up(),
            Ok(Err(error)) => probe.down(chain(&error)),
            Err(_) => probe.down(format!("no answer within {DEADLINE:?}")),
        }
        if !again(&stop).await {
            return Ok(());
        }
    }
}

/// Whether a controller does its job: it leads and has looked at everything, or it stands by and could lead.
pub async fn leadership(
    ready: Ready,
    can_win: impl Fn() -> bool,
    probe: Probe,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        match (ready.leads(), ready.get()) {
            (Some(epoch), true) => probe.up_with(format!("leads, epoch {epoch}")),
            (Some(epoch), false) => {
                probe.down(format!("leads since epoch {epoch}, but has not looked at everything yet"));
            }
            (None, _) if can_win() => probe.up_with("stands by"),
            (None, _) => probe.down("it does not lead, and nobody can win while etcd is away"),
        }
        if !again(&stop).await {
            return Ok(());
        }
    }
}

/// Whether this node was told who it is: once it was, it is so for good.
pub async fn identity(state_dir: PathBuf, probe: Probe, stop: CancellationToken) -> anyhow::Result<()> {
    loop {
        match gon_agent::hypervisor::node_id(&state_dir) {
            Ok(Some(node)) => {
                probe.up_with(node.to_string());
                stop.cancelled().await;
                return Ok(());
            }
            Ok(None) => probe.down("no instance manager has told this node who it is yet"),
            Err(error) => probe.down(chain(&error)),
        }
        if !again(&stop).await {
            return Ok(());
        }
    }
}

/// An error with its causes, in a line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
