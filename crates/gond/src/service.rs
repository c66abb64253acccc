//! The frame of a role in a process of its own: lock, name, certificates, listener, health, watchdog, end.
//!
//! Promises that a process that reached READY listens; that its tasks are started again when they fail, each alone; that
//! it ends within five seconds of being asked (requests drained, leadership resigned), and that nothing but loopback is
//! listened on without certificates.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use gon_agent::link::Transport;
use gon_agent::renew;
use gon_tls::{Peer, Role, Tls, TlsDir};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::config::{ApiTls, Config};
use crate::health::metrics::{Sample, Samples};
use crate::health::{self, Health, Need, Ops, Probe};
use crate::layout::Layout;
use crate::lock::DataDirLock;
use crate::node;
use crate::notify::{Rounds, Watch, notify};
use crate::supervise::supervise;

/// How long requests in work may take to end when we stop.
const GRACE: Duration = Duration::from_secs(2);
/// How long all tasks may take to end; five seconds with what is around it.
const END: Duration = Duration::from_secs(4);

/// A role's process.
pub struct Service {
    /// Which role.
    pub role: Role,
    /// What it was told.
    pub config: Config,
    /// Where it keeps what is its own.
    pub layout: Layout,
    /// The name of this machine in the site.
    pub name: Arc<str>,
    /// How it is.
    pub health: Health,
    /// What it counts.
    pub registry: Arc<Mutex<Registry>>,
    /// Its certificate, if this machine has any.
    pub tls: Option<Tls>,
    /// Cancelled when it is to end.
    pub stop: CancellationToken,
    started: Probe,
    watch: Watch,
    routes: Late,
    tasks: Vec<JoinHandle<()>>,
    _lock: DataDirLock,
}

/// Routes that come later than their listener: until then they are answered 503.
#[derive(Clone, Default)]
struct Late(Arc<OnceLock<Router>>);

async fn late(State(late): State<Late>, request: Request) -> Response {
    match late.0.get() {
        Some(router) => router.clone().oneshot(request).await.into_response(),
        None => {
            let wait = [(header::RETRY_AFTER, "1")];
            (StatusCode::SERVICE_UNAVAILABLE, wait, "starting: see /readyz\n").into_response()
        }
    }
}

impl Service {
    /// Takes its place in the data directory. Nothing runs yet.
    pub fn begin(role: Role, mut config: Config, stop: CancellationToken) -> anyhow::Result<Self> {
        let layout = Layout::new(&config.data_dir);
        let lock = DataDirLock::share(layout.data_dir())?;
        Layout::make(&layout.run())?;
        let tls = if config.has_tls() {
            let dir = TlsDir::new(&config.tls_dir());
            Some(
                Tls::open(&dir, role)
                    .with_context(|| {
                        format!(
                            "there is no usable certificate of {role} in {} (on the first server 'gond admin init' makes \
                             it, on every other one 'gond join TOKEN')",
                            dir.path().display()
                        )
                    })?,
            )
        } else {
            None
        };
        if let Some(tls) = &tls {
            // Who we are was decided when we joined.
            let certified = tls.current().facts().identity.name().to_owned();
            match &config.node.name {
                Some(name) if *name != certified => {
                    bail!(
                        "node.name is '{name}', but the certificate in {} is of '{certified}'",
                        tls.dir().path().display()
                    )
                }
                _ => config.node.name = Some(certified),
            }
        }
        let name = node::name(&config, &layout)?;
        let health = Health::new(role.as_str(), &name);
        let watch = Watch::new(&health);
        let started = health.depends("start", Need::Must);
        Ok(Self {
            started,
            role,
            config,
            layout,
            name,
            watch,
            routes: Late::default(),
            health,
            registry: Arc::default(),
            tls,
            stop,
            tasks: vec![],
            _lock: lock,
        })
    }

    /// Runs a task of the service, and again if it fails.
    pub fn task<F, R>(&mut self, name: &'static str, task: F)
    where
        F: Fn(CancellationToken) -> R + Send + Sync + 'static,
        R: Future<Output = anyhow::Result<()>> + Send,
    {
        self.tasks.push(supervise(name, self.stop.clone(), task));
    }

    /// Keeps the certificate fresh; `managers` leads to the instance managers.
    pub fn renew(&mut self, managers: Arc<dyn Transport>) {
        let Some(tls) = self.tls.clone() else { return };
        self.task("renewal", move |stop| {
            let (tls, managers) = (tls.clone(), Arc::clone(&managers));
            async move {
                renew::run(tls, managers, renew::LOOK, stop).await;
                Ok(())
            }
        });
        // What is shown is what expires.
        let Some(tls) = self.tls.clone() else { return };
        self.count(|registry| {
            registry.register_collector(Box::new(Samples(move || {
                let expires = tls.current().facts().not_after.unix_timestamp() as f64;
                vec![Sample {
                    name: "gon_certificate_not_after_seconds",
                    help: "When the certificate in use expires, seconds since 1970",
                    counter: false,
                    value: expires,
                }]
            })));
        });
    }

    /// Adds to what the service counts.
    pub fn count(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn ops(&self) -> Ops {
        Ops::new(self.health.clone(), Arc::clone(&self.registry))
    }

    /// A loop of the service: the watchdog is fed as long as it goes round.
    pub fn watch(&self, name: &'static str, rounds: Rounds) {
        self.watch.add(name, rounds);
    }

    /// From now on the listener serves these, too: see [`Self::listen`].
    pub fn routes(&self, routes: Router) {
        // Set once, by the start of the role.
        let _ = self.routes.0.set(routes);
        self.started.up();
    }

    /// Listens on the role's port, from when this returns: health and metrics for everybody, and the [`Self::routes`],
    /// which are only served over TLS and have to look themselves at who asks ([`for_roles`],
    /// [`gon_control::peers::Gate`]). The service manager is told that we are there, and from now on how we are: what
    /// the service waits for may come back after days.
    pub async fn listen(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let ops = health::router(self.ops());
        let router = match self.tls {
            Some(_) => ops.fallback_service(self.late()),
            None => ops,
        };
        if self.tls.is_none() && !address.ip().is_loopback() {
            bail!(
                "{address} is not loopback, and there are no certificates in {}: join a site ('gond join'), make one \
                 ('gond admin init'), or let the addresses of [roles] be loopback",
                self.config.tls_dir().display()
            );
        }
        let tls = self.tls.clone();
        self.serve(address, router, tls).await?;
        self.there();
        Ok(())
    }

    /// Listens where users reach the API: over TLS or not, as configured. Health and metrics come from us, all else
    /// from the [`Self::routes`].
    pub async fn listen_for_users(&mut self) -> anyhow::Result<()> {
        let address = self.config.listen;
        let tls = match (self.config.tls.api, &self.tls) {
            (ApiTls::Off, _) => None,
            (ApiTls::Auto, Some(tls)) if !address.ip().is_loopback() => Some(tls.clone()),
            (ApiTls::Auto, _) => None,
            (ApiTls::On, Some(tls)) => Some(tls.clone()),
            (ApiTls::On, None) => {
                bail!("tls.api is on, but there is no certificate in {}", self.config.tls_dir().display())
            }
        };
        let router = health::router(self.ops()).fallback_service(self.late());
        if tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!(%address, "the API is reachable without TLS: something in front of it has to bring it");
        }
        self.serve(address, router, tls).await?;
        self.there();
        Ok(())
    }

    fn late(&self) -> Router {
        Router::new().fallback(late).with_state(self.routes.clone())
    }

    /// Says that we are there, and goes on saying how we are.
    fn there(&mut self) {
        let watch = self.watch.clone();
        self.task("watchdog", move |stop| watch.clone().run(stop));
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "started");
        notify("READY=1");
    }

    async fn serve(&mut self, address: SocketAddr, router: Router, tls: Option<Tls>) -> anyhow::Result<()> {
        if let Some(tls) = tls.clone() {
            self.task("certificates", move |stop| {
                let tls = tls.clone();
                async move {
                    tls.watch(stop).await;
                    Ok(())
                }
            });
        }
        let mine = Listener::bind(address).await?;
        let limits = limits(&self.config);
        tracing::info!(%address, tls = tls.is_some(), "listening");
        self.task("listener", move |stop| {
            let (mine, tls, router) = (mine.clone(), tls.clone(), router.clone());
            async move { Ok(gon_tls::serve(mine.take().await?, tls, router, limits, stop).await?) }
        });
        Ok(())
    }

    /// Runs until it is told to end; ends within five seconds.
    pub async fn run(mut self) {
        self.stop.cancelled().await;
        self.health.stopping();
        let all = async {
            for task in &mut self.tasks {
                let _ = task.await;
            }
        };
        if tokio::time::timeout(END, all).await.is_err() {
            tracing::warn!("a task did not end in time and is left behind");
        }
        tracing::info!("ended");
    }
}

/// A listener that is there before its task runs, so that an address in use ends the start; a task that is started again
/// binds anew.
#[derive(Clone)]
struct Listener {
    address: SocketAddr,
    first: Arc<Mutex<Option<TcpListener>>>,
}

impl Listener {
    async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        Ok(Self { address, first: Arc::new(Mutex::new(Some(listener))) })
    }
    async fn take(&self) -> anyhow::Result<TcpListener> {
        let kept = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        match kept {
            Some(listener) => Ok(listener),
            None => TcpListener::bind(self.address)
                .await
                .with_context(|| format!("listening on {}", self.address)),
        }
    }
}

/// What peers may take up, as configured.
pub fn limits(config: &Config) -> gon_tls::Limits {
    gon_tls::Limits {
        header: Duration::from_secs(config.limits.header_timeout_seconds.into()),
        connections: config.limits.connections as usize,
        connections_per_address: config.limits.connections_per_address as usize,
        grace: GRACE,
        ..gon_tls::Limits::default()
    }
}

/// The same routes, for peers that show a certificate of one of these roles. For agents, which have no database in which
/// to look up revocations; what they serve is little, and only the API server and operators may have it.
pub fn for_roles(roles: &'static [Role], routes: Router) -> Router {
    routes.layer(from_fn_with_state(roles, pass))
}

async fn pass(State(roles): State<&'static [Role]>, request: Request, next: Next) -> Response {
    let shown = request.extensions().get::<Peer>().and_then(|peer| peer.certificate.clone());
    match shown {
        None => {
            (StatusCode::UNAUTHORIZED, "a certificate of this site has to be shown here\n").into_response()
        }
        Some(shown) if !roles.contains(&shown.identity.role()) => {
            let (peer, path) = (&shown.identity, request.uri().path());
            tracing::warn!(%peer, path, "a role asked for what it is not for");
            (StatusCode::FORBIDDEN, "this is not for your role\n").into_response()
        }
        Some(_) => next.run(request).await,
    }
}
