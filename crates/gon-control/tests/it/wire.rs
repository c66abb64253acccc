//! A site's controllers on TCP, and members with certificates that are on record.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use gon_agent::link::{Link, LinkError};
use gon_agent::tls::TlsTransport;
use gon_control::join::{self, Admission};
use gon_control::peers;
use gon_proto::SiteAnswer;
use gon_tls::{Limits, Role, Tls, TlsDir};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::site::Site;

/// A site whose controllers listen.
pub struct Wire {
    pub site: Site,
    pub root: tempfile::TempDir,
    pub network: SocketAddr,
    pub compute: SocketAddr,
    pub stop: CancellationToken,
}
impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn site_answer() -> SiteAnswer {
    SiteAnswer {
        control_servers: vec!["s1.example".to_owned()],
        cluster_endpoints: vec!["https://s1.example:2379".to_owned()],
        public_pool: Some("198.51.100.0/24".parse().unwrap()),
    }
}

impl Wire {
    pub async fn over(site: Site) -> Self {
        Self::with(site, None).await
    }

    /// Certificates that are given out live so long.
    pub async fn with(site: Site, lifetime: Option<Duration>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let unbound = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut wire = Self { site, root, network: unbound, compute: unbound, stop };
        let first = wire.first();
        first.authority_or_create().unwrap();
        let store = wire.site.database.store.clone();
        let mut admission = Admission::new(store.clone(), first.clone(), site_answer());
        if let Some(lifetime) = lifetime {
            admission = admission.with_lifetime(lifetime);
        }
        let health = Router::new().route("/healthz", get(|| async { "ok\n" }));
        let compute = health
            .clone()
            .merge(peers::compute_routes(&wire.site.compute, &store))
            .merge(Arc::new(admission).router());
        let network = health.merge(peers::network_routes(&wire.site.network, &store));
        wire.compute = wire.listen(Role::InstanceManager, compute).await;
        wire.network = wire.listen(Role::NetworkController, network).await;
        wire
    }

    /// Routes of a role of the first server, listening.
    pub async fn listen(&self, role: Role, routes: Router) -> SocketAddr {
        let store = &self.site.database.store;
        join::issue_here(store, &self.first(), role, "s1", &["127.0.0.1".to_owned()]).await.unwrap();
        let tls = Tls::open(&self.first(), role).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits { connections_per_address: 1000, ..Limits::default() };
        tokio::spawn(gon_tls::serve(listener, Some(tls), routes, limits, self.stop.clone()));
        address
    }

    /// The directory of the server with the authority's key.
    pub fn first(&self) -> TlsDir {
        TlsDir::new(&self.root.path().join("s1"))
    }

    /// The directory of another server.
    pub fn dir(&self, name: &str) -> TlsDir {
        TlsDir::new(&self.root.path().join(name))
    }

    /// A member with a certificate that is on record.
    pub async fn member(&self, role: Role, name: &str) -> Tls {
        let (first, dir) = (self.first(), self.dir(&format!("{name}-{role}")));
        dir.make().unwrap();
        dir.trust(&first.read(&first.ca_certificates()).unwrap()).unwrap();
        // Issued where the key is, and carried over.
        let before = first.load(role).ok();
        join::issue_here(&self.site.database.store, &first, role, name, &[]).await.unwrap();
        let (certificate, key) = first.load(role).unwrap();
        dir.install(role, &key, &certificate).unwrap();
        if let Some((certificate, key)) = before {
            first.install(role, &key, &certificate).unwrap();
        }
        Tls::open(&dir, role).unwrap()
    }

    pub fn network_link(&self, tls: &Tls) -> Link {
        link(tls, Role::NetworkController, &[self.network])
    }

    pub fn compute_link(&self, tls: &Tls) -> Link {
        link(tls, Role::InstanceManager, &[self.compute])
    }
}

pub fn link(tls: &Tls, role: Role, addresses: &[SocketAddr]) -> Link {
    let addresses = addresses.iter().map(ToString::to_string).collect();
    Link::new(Arc::new(TlsTransport::fixed(tls.clone(), role, addresses)))
}

/// The status of a call that was not answered well.
pub fn refused<T: std::fmt::Debug>(result: Result<T, LinkError>) -> u16 {
    match result {
        Err(LinkError::Refused { status, .. }) => status,
        other => panic!("not refused: {other:?}"),
    }
}

pub fn roles(roles: &[Role]) -> BTreeSet<Role> {
    roles.iter().copied().collect()
}
