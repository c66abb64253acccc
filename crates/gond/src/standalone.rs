//! Every role in one process.
//!
//! Assumes nothing but the data directory. Promises: one `gond` per data directory; what was committed stays and what
//! runs (guests, switch, database) goes on however this process ends, and is taken over by the next; a role that fails
//! is started again alone; and on SIGTERM an end within five seconds.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gon_agent::link::{Transport, UnixTransport};
use gon_control::documents::{self, NodeIdentity};
use gon_driver::postgres::{self, Postgres};
use secrecy::SecretString;
use tokio::task::JoinHandle;
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
use crate::tracer::PacketTracer;

/// How long the roles may take to end; the database gets what is left of five seconds.
const ROLES_END: Duration = Duration::from_secs(3);
/// How often we look whether our PostgreSQL still runs.
const DATABASE_WATCH: Duration = Duration::from_secs(1);

/// Runs until it is told to stop.
pub async fn run(mut config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let layout = Layout::new(&config.data_dir);
    let _lock = DataDirLock::take(&config.data_dir, &config.listen.to_string())?;
    Layout::make(&layout.run())?;
    let name = node::name(&config, &layout)?;

    let private = config.database.url.is_none();
    let server = if private {
        let server = Postgres::adopt_or_start(&postgres::Config::new(&layout.postgres()))
            .await
            .context("the private PostgreSQL")?;
        tracing::info!(adopted = server.was_adopted(), pid = server.pid().pid, "PostgreSQL runs");
        config.database.url = Some(SecretString::from(server.url()));
        Some(server)
    } else {
        None
    };
    let mut roles = Vec::new();
    let result = start(&config, &layout, &name, &mut roles, &server, &stop).await;
    if result.is_ok() {
        notify("READY=1");
        stop.cancelled().await;
    }
    stop.cancel();
    end(roles).await;
    if private && let Some(server) = Postgres::find(&layout.postgres()) {
        server.stop(postgres::Stop::Fast).await.context("stopping the private PostgreSQL")?;
    }
    tracing::info!("ended; guests and their network go on");
    result
}

async fn end(roles: Vec<JoinHandle<()>>) {
    let all = async {
        for role in &mut roles.into_iter() {
            let _ = role.await;
        }
    };
    if tokio::time::timeout(ROLES_END, all).await.is_err() {
        tracing::warn!("a role did not end in time and is left behind");
    }
}

async fn start(
    config: &Config,
    layout: &Layout,
    name: &Arc<str>,
    roles: &mut Vec<JoinHandle<()>>,
    server: &Option<Postgres>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let store = control::connect(config, CONTROLLER_CONNECTIONS).await?;
    control::prepare(&store, config).await?;
    let shared = Shared::in_process(store);
    api::ensure_admin(&shared, config, layout).await?;

    if server.is_some() {
        roles.push(supervise("postgres", stop.clone(), {
            let layout = layout.clone();
            move |stop| watch_database(layout.clone(), stop)
        }));
    }
    roles.push(supervise("relay", stop.clone(), {
        let shared = shared.clone();
        move |stop| {
            let s = shared.clone();
            gon_control::relay::run(s.store, s.bus, s.nudge, s.metrics, stop)
        }
    }));
    let controller = shared.network_controller(config, stop.clone());
    roles.push(supervise("network-controller", stop.clone(), {
        let (shared, controller) = (shared.clone(), Arc::clone(&controller));
        move |stop| {
            let (shared, controller) = (shared.clone(), Arc::clone(&controller));
            async move { controller.run(&*shared.liveness, &shared.holder, stop).await }
        }
    }));
    let manager = shared.instance_manager(config, stop.clone());
    roles.push(supervise("instance-manager", stop.clone(), {
        let (shared, manager) = (shared.clone(), Arc::clone(&manager));
        move |stop| {
            let (shared, manager) = (shared.clone(), Arc::clone(&manager));
            async move { manager.run(&*shared.liveness, &shared.holder, stop).await }
        }
    }));

    // Both controllers on one socket: the same paths, the same client as across machines.
    let socket = layout.controller_socket("controllers");
    roles.push(supervise("documents", stop.clone(), {
        let router = documents::network_router(controller).merge(documents::compute_router(manager));
        let (socket, who) = (socket.clone(), NodeIdentity(Arc::clone(name)));
        move |stop| {
            let (socket, router, who) = (socket.clone(), router.clone(), who.clone());
            async move {
                documents::serve_unix(&socket, router, who, stop)
                    .await
                    .with_context(|| socket.display().to_string())
            }
        }
    }));

    let transport: Arc<dyn Transport> = Arc::new(UnixTransport::new(&socket));
    let worker = Worker::new(config, layout, name, Arc::clone(&transport), transport);
    roles.push(supervise("hypervisor-agent", stop.clone(), {
        let (worker, liveness) = (worker.clone(), Arc::clone(&shared.liveness));
        move |stop| {
            let (worker, liveness) = (worker.clone(), Arc::clone(&liveness));
            async move { worker.run_hypervisor(&*liveness, stop).await }
        }
    }));
    roles.push(supervise("network-agent", stop.clone(), {
        let worker = worker.clone();
        move |stop| {
            let worker = worker.clone();
            async move { worker.run_network(stop).await }
        }
    }));
    let tracer = Arc::new(PacketTracer::here(config, layout, name));
    api::start(config, layout, &shared, Arc::new(worker), tracer, roles, stop).await
}

/// Starts our PostgreSQL again if it has died.
async fn watch_database(layout: Layout, stop: CancellationToken) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(DATABASE_WATCH) => {}
        }
        if Postgres::find(&layout.postgres()).is_none() && !stop.is_cancelled() {
            tracing::error!("PostgreSQL is gone; starting it again");
            let server = Postgres::adopt_or_start(&postgres::Config::new(&layout.postgres())).await?;
            tracing::info!(pid = server.pid().pid, "PostgreSQL runs again");
        }
    }
}
