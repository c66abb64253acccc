//! Roles of a node: hypervisor-, network-, container- and storage-agent.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::{Json, Router, routing::get};
use gon_agent::container::{self, ContainerStatus};
use gon_agent::hypervisor::HypervisorStatus;
use gon_agent::link::{Transport, UnixTransport};
use gon_agent::status::NetworkStatus;
use gon_agent::storage::{self, StorageStatus};
use gon_cluster::Liveness;
use gon_tls::Role;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agents::Worker;
use crate::config::Config;
use crate::health::{Need, Probe, metrics};
use crate::link::Watched;
use crate::service::{Service, for_roles};
use crate::{probes, wiring};

/// Who may ask an agent for more than its health.
const CALLERS: &[Role] = &[Role::ApiServer, Role::Operator];

/// The way to the controllers of a role, with a probe for it: an agent without them goes on with what it knows.
fn controllers(service: &mut Service, liveness: &Arc<dyn Liveness>, controller: Role) -> Arc<dyn Transport> {
    let probe = service.health.depends("controller", Need::Helps);
    let inner: Arc<dyn Transport> = match service.tls.clone() {
        Some(tls) => {
            let port = match controller {
                Role::NetworkController => service.config.roles.network_controller.port(),
                _ => service.config.roles.instance_manager.port(),
            };
            crate::link::tls(service, &tls, controller, port, liveness)
        }
        None => Arc::new(UnixTransport::new(&service.layout.controller_socket(controller.as_str()))),
    };
    Arc::new(Watched::new(inner, probe))
}

/// Keeps the certificate of a role fresh that has no other business with the instance manager.
fn renew(service: &mut Service, liveness: &Arc<dyn Liveness>) {
    let Some(tls) = service.tls.clone() else { return };
    let port = service.config.roles.instance_manager.port();
    let transport = crate::link::tls(service, &tls, Role::InstanceManager, port, liveness);
    service.renew(transport);
}

/// Keeps a probe in step with an agent's status, and the metrics.
fn follow<S, F>(service: &mut Service, status: watch::Receiver<S>, name: &'static str, look: F)
where
    S: Clone + Send + Sync + 'static,
    F: Fn(&S, &Probe) + Clone + Send + Sync + 'static,
{
    let probe = service.health.depends(name, Need::Must);
    service.task(name, move |stop| {
        let (mut status, probe, look) = (status.clone(), probe.clone(), look.clone());
        async move {
            loop {
                look(&status.borrow_and_update().clone(), &probe);
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    changed = status.changed() => changed?,
                }
            }
        }
    });
}

fn count<S: Send + Sync + 'static>(
    service: &Service,
    status: watch::Receiver<S>,
    samples: fn(&S) -> Vec<gon_agent::status::Sample>,
) {
    service.count(|registry| {
        registry.register_collector(Box::new(metrics::Samples(move || samples(&status.borrow()))));
    });
}

/// `/debug/state` of an agent that has no more to show.
fn debug<S: Clone + Serialize + Send + Sync + 'static>(status: watch::Receiver<S>) -> Router {
    for_roles(CALLERS, state_page(status))
}

fn state_page<S: Clone + Serialize + Send + Sync + 'static>(status: watch::Receiver<S>) -> Router {
    let state = move || {
        let status = status.borrow().clone();
        async move { Json(status) }
    };
    Router::new().route("/debug/state", get(state))
}

/// Where the other nodes reach this one: as configured, or the address from which it reaches a controller.
fn address(config: &Config) -> Option<IpAddr> {
    config.node.address.or_else(|| {
        let server = config.control.servers.first()?;
        let port = config.roles.instance_manager.port();
        // Nothing is sent; the kernel only says which of our addresses it would take.
        let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
        socket.connect((server.as_str(), port)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
}

/// `gond hypervisor-agent`
pub async fn hypervisor_agent(mut config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    config.node.address = address(&config);
    let mut service = Service::begin(Role::HypervisorAgent, config, stop)?;
    service.listen(service.config.roles.hypervisor_agent).await?;
    let liveness = wiring::liveness(&mut service)?;
    let transport = controllers(&mut service, &liveness, Role::InstanceManager);
    service.renew(Arc::clone(&transport));
    let worker =
        Worker::new(&service.config, &service.layout, &service.name, Arc::clone(&transport), transport);
    let agent = worker.hypervisor().await.context("the hypervisor agent")?;
    follow(&mut service, agent.status(), "qemu", |status: &HypervisorStatus, probe| {
        match &status.accelerator {
            Some(accelerator) => {
                let version = status.qemu.as_deref().unwrap_or("of unknown version");
                probe.up_with(format!("QEMU {version}, {accelerator}"));
            }
            None if status.note.is_empty() => {}
            None => probe.down(status.note.clone()),
        }
    });
    count(&service, agent.status(), HypervisorStatus::samples);
    let (identity, state_dir) = (service.health.depends("identity", Need::Must), service.layout.compute());
    service.task("identity", move |stop| probes::identity(state_dir.clone(), identity.clone(), stop));
    service.routes(for_roles(CALLERS, agent.router()));
    service.task("hypervisor-agent", {
        let worker = worker.clone();
        move |stop| {
            let (worker, liveness) = (worker.clone(), Arc::clone(&liveness));
            async move { worker.run_hypervisor(&*liveness, stop).await }
        }
    });
    let status = agent.status();
    service.watch("agent loop", Arc::new(move || status.borrow().rounds));
    service.run().await;
    Ok(())
}

/// `gond network-agent`
pub async fn network_agent(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let mut service = Service::begin(Role::NetworkAgent, config, stop)?;
    service.listen(service.config.roles.network_agent).await?;
    let liveness = wiring::liveness(&mut service)?;
    let transport = controllers(&mut service, &liveness, Role::NetworkController);
    renew(&mut service, &liveness);
    let worker =
        Worker::new(&service.config, &service.layout, &service.name, Arc::clone(&transport), transport);
    let status = worker.network_status.subscribe();
    follow(&mut service, status.clone(), "openvswitch", |status: &NetworkStatus, probe| {
        match &status.error {
            None if status.ready => {
                let text = |part: &Option<String>| part.clone().unwrap_or_default();
                probe.up_with(format!("{} {}", text(&status.datapath), text(&status.ovs_version)));
            }
            None => {}
            Some(why) => probe.down(why.clone()),
        }
    });
    count(&service, status.clone(), NetworkStatus::samples);
    let switch = crate::agents::ovs_config(&service.config, &service.layout);
    let pages = state_page(status.clone()).merge(gon_agent::network::trace::router(switch));
    service.routes(for_roles(CALLERS, pages));
    service.task("network-agent", {
        let worker = worker.clone();
        move |stop| {
            let worker = worker.clone();
            async move { worker.run_network(stop).await }
        }
    });
    // A node that nobody knows yet has no loop to look at.
    let waiting = worker.waiting();
    let rounds =
        Arc::new(move || status.borrow().rounds + waiting.load(std::sync::atomic::Ordering::Relaxed));
    service.watch("agent loop", rounds);
    service.run().await;
    Ok(())
}

/// `gond container-agent`
pub async fn container_agent(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let mut service = Service::begin(Role::ContainerAgent, config, stop)?;
    service.listen(service.config.roles.container_agent).await?;
    let liveness = wiring::liveness(&mut service)?;
    renew(&mut service, &liveness);
    let status = watch::Sender::new(ContainerStatus::default());
    service.health.fact("serves", "what Docker this node has; no containers yet".into());
    let health = service.health.clone();
    follow(&mut service, status.subscribe(), "docker", move |status: &ContainerStatus, probe| {
        match (&status.docker, &status.error) {
            (Some(docker), _) => {
                probe.up_with(format!(
                    "Docker {}, API {}, cgroup {}",
                    docker.version, docker.api, docker.cgroup
                ));
                health.fact("docker", serde_json::to_value(docker).unwrap_or_default());
            }
            (None, Some(why)) => probe.down(why.clone()),
            (None, None) => {}
        }
    });
    count(&service, status.subscribe(), ContainerStatus::samples);
    service.routes(debug(status.subscribe()));
    let config = container::Config {
        socket: service.config.container.socket.clone(),
        facts: service.layout.facts(),
        status: status.clone(),
    };
    service.task("container-agent", move |stop| {
        let config = config.clone();
        async move { container::run(config, stop.cancelled()).await }
    });
    service.watch("agent loop", Arc::new(move || status.borrow().rounds));
    service.run().await;
    Ok(())
}

/// `gond storage-agent`
pub async fn storage_agent(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let mut service = Service::begin(Role::StorageAgent, config, stop)?;
    service.listen(service.config.roles.storage_agent).await?;
    let liveness = wiring::liveness(&mut service)?;
    renew(&mut service, &liveness);
    let status = watch::Sender::new(StorageStatus::default());
    service.health.fact("serves", "the image store and disk figures; no volumes yet".into());
    let health = service.health.clone();
    follow(
        &mut service,
        status.subscribe(),
        "image store",
        move |status: &StorageStatus, probe| match &status.error {
            Some(why) => probe.down(why.clone()),
            None if status.rounds > 0 => {
                probe.up_with(format!("{} images", status.images.len()));
                health.fact("images", serde_json::to_value(&status.images).unwrap_or_default());
                health.fact(
                    "disk",
                    serde_json::json!({ "bytes": status.total_bytes, "free_bytes": status.free_bytes }),
                );
            }
            None => {}
        },
    );
    let integrity = service.health.depends("image integrity", Need::Helps);
    let disk = service.health.depends("disk space", Need::Helps);
    service.task("storage probes", {
        let status = status.clone();
        move |stop| {
            let (mut status, integrity, disk) = (status.subscribe(), integrity.clone(), disk.clone());
            async move {
                loop {
                    {
                        let status = status.borrow_and_update();
                        let damaged: Vec<&str> = status.damaged().collect();
                        match damaged.as_slice() {
                            _ if status.rounds == 0 => {}
                            [] => integrity.up(),
                            names => integrity.down(format!("damaged: {}", names.join(", "))),
                        }
                        if status.rounds > 0 && status.is_low() {
                            disk.down(format!("only {} MiB are free", status.free_bytes >> 20));
                        } else if status.rounds > 0 {
                            disk.up();
                        }
                    }
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        changed = status.changed() => changed?,
                    }
                }
            }
        }
    });
    count(&service, status.subscribe(), StorageStatus::samples);
    service.routes(debug(status.subscribe()));
    let config = storage::Config {
        images: service.config.images_dir(),
        state_dir: service.layout.storage(),
        facts: service.layout.facts(),
        status: status.clone(),
    };
    service.task("storage-agent", move |stop| {
        let config = config.clone();
        async move { storage::run(config, stop.cancelled()).await }
    });
    service.watch("agent loop", Arc::new(move || status.borrow().rounds));
    service.run().await;
    Ok(())
}
