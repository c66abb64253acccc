//! Each role as a process of its own, over the same parts as standalone.
//!
//! Until the bus and liveness have their adapters for several processes, a controller in a process of its own hears
//! doorbells of that process only and finds everything else when it sweeps; agents reach their controller over its
//! socket in the data directory.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use gon_control::api::NoConsole;
use gon_control::documents::{self, NodeIdentity};
use gon_control::status::{self, Ready};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::agents::Worker;
use crate::api;
use crate::config::Config;
use crate::control::{self, CONTROLLER_CONNECTIONS, Shared};
use crate::layout::Layout;
use crate::lock::DataDirLock;
use crate::node;
use crate::notify::notify;
use crate::supervise::supervise;

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

/// Serves a router on TCP until it is told to stop.
async fn serve_tcp(address: SocketAddr, router: Router, stop: CancellationToken) -> anyhow::Result<()> {
    let listener =
        tokio::net::TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await?;
    Ok(())
}

/// Serves what a controller has for agents on its socket, and its own health on its port.
async fn serve_controller(
    config: &Config,
    name: &str,
    port: SocketAddr,
    router: Router,
    ready: Ready,
    shared: &Shared,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let layout = Layout::new(&config.data_dir);
    let _lock = DataDirLock::share(layout.data_dir())?;
    Layout::make(&layout.run())?;
    let identity = NodeIdentity(node::name(config, &layout)?);
    let socket = layout.controller_socket(name);
    let health = status::router(ready, Arc::clone(&shared.registry));
    tokio::try_join!(
        async {
            documents::serve_unix(&socket, router, identity, stop.clone())
                .await
                .with_context(|| socket.display().to_string())
        },
        serve_tcp(port, health, stop.clone()),
    )?;
    Ok(())
}

/// `gond network-controller`
pub async fn network_controller(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let shared = Shared::in_process(control::connect(&config, CONTROLLER_CONNECTIONS).await?);
    let controller = shared.network_controller(&config, stop.clone());
    let router = documents::network_router(Arc::clone(&controller));
    notify("READY=1");
    tokio::try_join!(
        controller.run(&*shared.liveness, &shared.holder, stop.clone()),
        gon_control::relay::run(
            shared.store.clone(),
            Arc::clone(&shared.bus),
            shared.nudge.clone(),
            Arc::clone(&shared.metrics),
            stop.clone()
        ),
        serve_controller(
            &config,
            gon_control::network::ROLE,
            config.roles.network_controller,
            router,
            controller.ready(),
            &shared,
            stop.clone()
        ),
    )?;
    Ok(())
}

/// `gond instance-manager`
pub async fn instance_manager(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let shared = Shared::in_process(control::connect(&config, CONTROLLER_CONNECTIONS).await?);
    let manager = shared.instance_manager(&config, stop.clone());
    let router = documents::compute_router(Arc::clone(&manager));
    notify("READY=1");
    tokio::try_join!(
        manager.run(&*shared.liveness, &shared.holder, stop.clone()),
        gon_control::relay::run(
            shared.store.clone(),
            Arc::clone(&shared.bus),
            shared.nudge.clone(),
            Arc::clone(&shared.metrics),
            stop.clone()
        ),
        serve_controller(
            &config,
            gon_control::compute::ROLE,
            config.roles.instance_manager,
            router,
            manager.ready(),
            &shared,
            stop.clone()
        ),
    )?;
    Ok(())
}

/// `gond api-server`
pub async fn api_server(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let layout = Layout::new(&config.data_dir);
    let _lock = DataDirLock::share(layout.data_dir())?;
    let store = control::connect(&config, CONTROLLER_CONNECTIONS).await?;
    control::prepare(&store, &config).await?;
    let shared = Shared::in_process(store);
    api::ensure_admin(&shared, &config, &layout).await?;
    let mut tasks = vec![supervise("relay", stop.clone(), {
        let shared = shared.clone();
        move |stop| {
            let s = shared.clone();
            gon_control::relay::run(s.store, s.bus, s.nudge, s.metrics, stop)
        }
    })];
    api::start(&config, &layout, &shared, Arc::new(NoConsole), &mut tasks, &stop).await?;
    notify("READY=1");
    for task in tasks {
        let _ = task.await;
    }
    Ok(())
}

fn worker(config: &Config) -> anyhow::Result<Worker> {
    let layout = Layout::new(&config.data_dir);
    let name = node::name(config, &layout)?;
    Ok(Worker::new(
        config,
        &layout,
        &name,
        &layout.controller_socket(gon_control::network::ROLE),
        &layout.controller_socket(gon_control::compute::ROLE),
    ))
}

/// `gond hypervisor-agent`
pub async fn hypervisor_agent(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let _lock = DataDirLock::share(&config.data_dir)?;
    let worker = worker(&config)?;
    let agent = worker.hypervisor().await?;
    let router = agent.router();
    let liveness = gon_cluster::MemoryLiveness::new();
    notify("READY=1");
    tokio::try_join!(
        worker.run_hypervisor(&liveness, stop.clone()),
        serve_tcp(config.roles.hypervisor_agent, router, stop.clone()),
    )?;
    Ok(())
}

/// `gond network-agent`
pub async fn network_agent(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let _lock = DataDirLock::share(&config.data_dir)?;
    let worker = worker(&config)?;
    let router = gon_agent::status::router(worker.network_status.subscribe());
    notify("READY=1");
    tokio::try_join!(
        worker.run_network(stop.clone()),
        serve_tcp(config.roles.network_agent, router, stop.clone()),
    )?;
    Ok(())
}
