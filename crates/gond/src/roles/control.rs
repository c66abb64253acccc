//! Roles of the control plane: api-server, network-controller, instance-manager.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use gon_cluster::{Announcement, Liveness};
use gon_control::api::{self, AppState, ConsoleSource};
use gon_control::documents::{self, NodeIdentity};
use gon_control::join::Admission;
use gon_control::peers;
use gon_control::status::Ready;
use gon_proto::SiteAnswer;
use gon_tls::{Role, TlsDir};
use tokio_util::sync::CancellationToken;

use crate::agents::or_stop;
use crate::api::{ensure_admin, state};
use crate::config::Config;
use crate::console::{NoCertificates, NodeConsoles};
use crate::control::{self, CONTROLLER_CONNECTIONS, Shared};
use crate::health::{Condition, Need, metrics};
use crate::service::Service;
use crate::tracer::PacketTracer;
use crate::{probes, wiring};

/// How long to wait before the database is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What every role of the control plane has: the database, the bus, liveness, a relay of the outbox. Waits for the
/// database, for days if need be; `None` if it is told to end meanwhile.
async fn shared(service: &mut Service) -> anyhow::Result<Option<Shared>> {
    control::require_database(&service.config)?;
    let bus = wiring::bus(service)?;
    let liveness = wiring::liveness(service)?;
    let probe = service.health.depends("postgresql", Need::Must);
    let store = loop {
        match control::connect(&service.config, CONTROLLER_CONNECTIONS).await {
            Ok(store) => break store,
            Err(error) => probe.down(format!("{error:#}")),
        }
        if or_stop(tokio::time::sleep(AGAIN), &service.stop).await.is_none() {
            return Ok(None);
        }
    };
    let shared = Shared::new(store, bus, liveness, Arc::clone(&service.registry), &service.name);
    service.task("database probe", {
        let shared = shared.clone();
        move |stop| probes::database(shared.store.clone(), Arc::clone(&shared.metrics), probe.clone(), stop)
    });
    service.task("relay", {
        let shared = shared.clone();
        move |stop| {
            let s = shared.clone();
            gon_control::relay::run(s.store, s.bus, s.nudge, s.metrics, stop)
        }
    });
    let metrics = Arc::clone(&shared.metrics);
    service.watch("relay loop", Arc::new(move || metrics.relay_rounds.get()));
    Ok(Some(shared))
}

/// Keeps the certificate of a role of the control plane fresh.
fn renew(service: &mut Service, liveness: &Arc<dyn Liveness>) {
    let Some(tls) = service.tls.clone() else { return };
    let port = service.config.roles.instance_manager.port();
    let transport = crate::link::tls(service, &tls, Role::InstanceManager, port, liveness);
    service.renew(transport);
}

/// Where others reach a port of ours: as the node's address says, or as it is listened on.
fn announced(config: &Config, listen: SocketAddr) -> String {
    let ip = match config.node.address {
        Some(address) => address,
        None if listen.ip().is_unspecified() => {
            // Nothing is sent; the kernel only says which of our addresses it would take.
            let outward = || {
                let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
                socket.connect(("192.0.2.1", 9)).ok()?;
                Some(socket.local_addr().ok()?.ip())
            };
            outward().unwrap_or(listen.ip())
        }
        None => listen.ip(),
    };
    SocketAddr::new(ip, listen.port()).to_string()
}

fn announce(service: &Service, liveness: &dyn Liveness, listen: SocketAddr) -> Announcement {
    liveness.announce(service.role.as_str(), &announced(&service.config, listen))
}

/// Says whether a controller leads, to readiness and to the metrics.
fn watch_leadership(service: &mut Service, ready: &Ready) {
    let probe = service.health.depends("leadership", Need::Must);
    let health = service.health.clone();
    service.task("leadership probe", {
        let ready = ready.clone();
        move |stop| {
            let health = health.clone();
            let can_win = move || health.condition("etcd").is_none_or(|etcd| etcd == Condition::Up);
            probes::leadership(ready.clone(), can_win, probe.clone(), stop)
        }
    });
    let turning = ready.clone();
    service.watch("controller loop", Arc::new(move || turning.rounds()));
    let ready = ready.clone();
    service.count(move |registry| {
        registry.register_collector(Box::new(metrics::Samples(move || {
            let gauge = |name, help, value| metrics::Sample { name, help, counter: false, value };
            let epoch = ready.leads();
            vec![
                gauge("gon_leader", "Whether this controller leads", f64::from(u8::from(epoch.is_some()))),
                gauge("gon_leader_epoch", "The epoch under which it leads", epoch.unwrap_or(0) as f64),
                metrics::Sample {
                    name: "gon_loop_rounds_total",
                    help: "Rounds of the role's loop",
                    counter: true,
                    value: ready.rounds() as f64,
                },
            ]
        })));
    });
}

/// Serves what a controller has for agents: over TLS on its port, or, without certificates, on its socket in the data
/// directory, where whoever can open it is the node of this machine.
fn serve_agents(service: &mut Service, socket: &str, guarded: Router, bare: Router) {
    service.routes(guarded);
    if service.tls.is_some() {
        return;
    }
    let socket = service.layout.controller_socket(socket);
    let identity = NodeIdentity(Arc::clone(&service.name));
    service.task("documents", move |stop| {
        let (socket, bare, identity) = (socket.clone(), bare.clone(), identity.clone());
        async move {
            documents::serve_unix(&socket, bare, identity, stop)
                .await
                .with_context(|| socket.display().to_string())
        }
    });
}

/// `gond network-controller`
pub async fn network_controller(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let mut service = Service::begin(Role::NetworkController, config, stop)?;
    let port = service.config.roles.network_controller;
    service.listen(port).await?;
    let Some(shared) = shared(&mut service).await? else {
        service.run().await;
        return Ok(());
    };
    let controller = shared.network_controller(&service.config, service.stop.clone());
    let ready = controller.ready();
    watch_leadership(&mut service, &ready);
    let guarded = peers::network_routes(&controller, &shared.store);
    let bare = documents::network_router(Arc::clone(&controller));
    serve_agents(&mut service, gon_control::network::ROLE, guarded, bare);
    let _announced = announce(&service, &*shared.liveness, port);
    service.task("network-controller", {
        let (shared, controller) = (shared.clone(), Arc::clone(&controller));
        move |stop| {
            let (shared, controller) = (shared.clone(), Arc::clone(&controller));
            async move { controller.run(&*shared.liveness, &shared.holder, stop).await }
        }
    });
    renew(&mut service, &shared.liveness);
    service.run().await;
    Ok(())
}

/// `gond instance-manager`
pub async fn instance_manager(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let mut service = Service::begin(Role::InstanceManager, config, stop)?;
    let port = service.config.roles.instance_manager;
    service.listen(port).await?;
    let Some(shared) = shared(&mut service).await? else {
        service.run().await;
        return Ok(());
    };
    let manager = shared.instance_manager(&service.config, service.stop.clone());
    let ready = manager.ready();
    watch_leadership(&mut service, &ready);
    let mut guarded = peers::compute_routes(&manager, &shared.store);
    if service.tls.is_some() {
        let site = site(&service);
        let dir = TlsDir::new(&service.config.tls_dir());
        let admission = Arc::new(Admission::new(shared.store.clone(), dir, site));
        guarded = guarded.merge(Arc::clone(&admission).router());
        service.task("admission", move |stop| {
            let admission = Arc::clone(&admission);
            async move {
                admission.run(stop).await;
                Ok(())
            }
        });
    }
    let bare = documents::compute_router(Arc::clone(&manager));
    serve_agents(&mut service, gon_control::compute::ROLE, guarded, bare);
    let _announced = announce(&service, &*shared.liveness, port);
    service.task("instance-manager", {
        let (shared, manager) = (shared.clone(), Arc::clone(&manager));
        move |stop| {
            let (shared, manager) = (shared.clone(), Arc::clone(&manager));
            async move { manager.run(&*shared.liveness, &shared.holder, stop).await }
        }
    });
    renew(&mut service, &shared.liveness);
    service.run().await;
    Ok(())
}

/// What a new server has to know of this site.
fn site(service: &Service) -> SiteAnswer {
    let config = &service.config;
    let mut servers = config.control.servers.clone();
    if servers.is_empty() {
        servers.push(host_part(&announced(config, config.roles.instance_manager)));
    }
    // The default is one machine's own, and nobody's on a network.
    let pool = config.network.public_pool;
    let public_pool = (pool != Config::default().network.public_pool).then_some(pool);
    SiteAnswer { control_servers: servers, cluster_endpoints: config.cluster.endpoints.clone(), public_pool }
}

fn host_part(address: &str) -> String {
    address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']).to_owned()
}

/// `gond api-server`
pub async fn api_server(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let mut service = Service::begin(Role::ApiServer, config, stop)?;
    service.listen_for_users().await?;
    let Some(shared) = shared(&mut service).await? else {
        service.run().await;
        return Ok(());
    };
    control::prepare(&shared.store, &service.config).await?;
    ensure_admin(&shared, &service.config, &service.layout).await?;
    let consoles: Arc<dyn ConsoleSource> = match &service.tls {
        Some(tls) => Arc::new(NodeConsoles::new(
            shared.store.clone(),
            tls.clone(),
            service.config.roles.hypervisor_agent.port(),
        )),
        None => Arc::new(NoCertificates),
    };
    let tracer = Arc::new(PacketTracer::of_site(&service.config, &shared.store, service.tls.as_ref()));
    let app: AppState = state(&service.config, &service.layout, &shared, consoles, tracer).await?;
    service.task("events", {
        let (app, bus) = (app.clone(), Arc::clone(&shared.bus));
        move |stop| api::watch_events(app.clone(), Arc::clone(&bus), stop)
    });
    service.routes(api::router(app));
    let _announced = announce(&service, &*shared.liveness, service.config.listen);
    renew(&mut service, &shared.liveness);
    service.run().await;
    Ok(())
}
