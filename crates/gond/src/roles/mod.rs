//! Each role as a process of its own, over the same parts as standalone.

mod agents;
mod control;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use agents::{container_agent, hypervisor_agent, network_agent, storage_agent};
pub use control::{api_server, instance_manager, network_controller};

use crate::notify::notify;

/// Cancelled when we are asked to end (SIGTERM, SIGINT).
pub fn stop_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("asked to end");
        notify("STOPPING=1");
        told.cancel();
        // A second request is an order.
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        std::process::exit(130);
    });
    Ok(stop)
}
