//! Which adapters carry doorbells and leases: those of one process, or RabbitMQ and etcd as configured.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gon_bus::{Bus, BusState, MemoryBus, Pem, RabbitConfig, RabbitTls};
use gon_cluster::{EtcdConfig, EtcdLiveness, Liveness, MemoryLiveness, TlsPem};
use gon_tls::Tls;
use secrecy::ExposeSecret as _;
use tokio::sync::watch;

use crate::config::host_of;
use crate::health::Need;
use crate::probes;
use crate::service::Service;

/// How often the state of the bus is looked at: a publisher's state costs nothing.
const STATE: Duration = Duration::from_millis(500);

/// The bus of a role, with a probe for it.
pub fn bus(service: &mut Service) -> anyhow::Result<Arc<dyn Bus>> {
    let Some(url) = service.config.bus.url.clone() else {
        service.health.fact(
            "bus",
            "in this process: other processes hear nothing and find everything when they sweep".into(),
        );
        return Ok(Arc::new(MemoryBus::new()));
    };
    let place = host_of(url.expose_secret(), &["amqp", "amqps"]).unwrap_or_default().to_owned();
    let mut config = RabbitConfig::new(url, service.role, &service.name);
    if let Some(tls) = &service.tls {
        let (dir, role) = (tls.dir(), service.role);
        config.tls = Some(RabbitTls {
            authority: Pem::File(dir.ca_certificates()),
            identity: Some((Pem::File(dir.certificate(role)), Pem::File(dir.key(role)))),
        });
    }
    let rabbit = gon_bus::connect(&config).context("bus.url")?;
    service.health.fact("bus", format!("RabbitMQ at {place}").into());
    // Without it everything still converges, slower.
    let probe = service.health.depends("rabbitmq", Need::Helps);
    service.task("bus probe", {
        let rabbit = rabbit.clone();
        move |stop| {
            let (rabbit, probe) = (rabbit.clone(), probe.clone());
            async move {
                loop {
                    match rabbit.state() {
                        BusState::Up => probe.up(),
                        BusState::Blocked(why) => probe.down(format!("it takes no messages: {why}")),
                        BusState::Down(why) => probe.down(why),
                        BusState::Starting => {}
                    }
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        () = tokio::time::sleep(STATE) => {}
                    }
                }
            }
        }
    });
    Ok(Arc::new(rabbit))
}

/// Liveness of a role, with a probe for it.
pub fn liveness(service: &mut Service) -> anyhow::Result<Arc<dyn Liveness>> {
    let endpoints = service.config.cluster.endpoints.clone();
    if endpoints.is_empty() {
        service.health.fact("cluster", "in this process".into());
        return Ok(Arc::new(MemoryLiveness::new()));
    }
    service.health.fact("cluster", format!("etcd at {}", endpoints.join(", ")).into());
    let mut config = EtcdConfig::new(endpoints.clone());
    config.prefix = format!("/{}/v1", service.config.cluster.prefix);
    if endpoints.iter().any(|url| url.starts_with("https://")) {
        let tls = service.tls.clone().with_context(|| {
            format!(
                "cluster.endpoints are https, but there are no certificates in {}",
                service.config.tls_dir().display()
            )
        })?;
        let (send, receive) = watch::channel(pem(&tls)?);
        config.tls = Some(receive);
        service.task("certificate for etcd", move |stop| {
            let (tls, send) = (tls.clone(), send.clone());
            async move {
                let mut replaced = tls.subscribe();
                loop {
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        changed = replaced.changed() => changed?,
                    }
                    send.send_replace(pem(&tls)?);
                }
            }
        });
    }
    let etcd = EtcdLiveness::new(config);
    let probe = service.health.depends("etcd", Need::Helps);
    service.task("etcd probe", {
        let etcd = etcd.clone();
        move |stop| probes::cluster(etcd.clone(), probe.clone(), stop)
    });
    Ok(Arc::new(etcd))
}

/// What etcd's client shows and believes: the files as they are now.
fn pem(tls: &Tls) -> anyhow::Result<TlsPem> {
    let dir = tls.dir();
    let (certificate, key) = dir.load(tls.role())?;
    let ca = dir.read(&dir.ca_certificates())?;
    Ok(TlsPem { ca: ca.into_bytes(), certificate: certificate.into_bytes(), key: key.into_bytes() })
}
