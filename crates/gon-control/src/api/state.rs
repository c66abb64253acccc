//! What every call of the API has at hand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use gon_store::Store;
use gon_store::users::UserRow;
use gon_types::id::InstanceId;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::auth::LoginGate;
use super::events::EventHub;
use super::metrics::ApiMetrics;
use super::tokens::Tokens;
use super::trace::Tracer;
use crate::documents::lock;
use crate::relay::Nudge;
use crate::service::CursorKey;

/// What can be set.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// The region's name (`gon`); zones are it and a letter.
    pub region: String,
    /// The zone of subnets that name none while no node has reported.
    pub default_zone: String,
    /// Origins besides our own that may open the WebSocket (`https://console.example`).
    pub allowed_origins: Vec<String>,
    /// Requests in work at once; more are answered 503 at once.
    pub max_in_flight: usize,
    /// Failed and successful logins per user and address: so many at once, then one per six seconds.
    pub login_burst: u32,
    /// Entries per direction of a network ACL; EC2 has 20, and up to 40 on request.
    pub network_acl_entries: u16,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            region: "gon-1".to_owned(),
            default_zone: "gon-1a".to_owned(),
            allowed_origins: vec![],
            max_in_flight: 512,
            login_burst: 10,
            network_acl_entries: 20,
        }
    }
}

/// Why there is no console output.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The instance has said nothing, or its node keeps nothing of it any more.
    #[error("there is no console output")]
    None,
    /// The node cannot be asked.
    #[error("the node cannot be asked: {0}")]
    Unavailable(String),
}

/// Where serial console output comes from. The daemon brings one.
#[async_trait]
pub trait ConsoleSource: Send + Sync + 'static {
    /// The last of what an instance on a node (by name) has said: raw bytes, 64 KiB or more if there is as much.
    async fn console(&self, node: &str, instance: InstanceId) -> Result<Vec<u8>, ConsoleError>;
}

/// Never has any output.
#[derive(Debug, Clone, Copy)]
pub struct NoConsole;

#[async_trait]
impl ConsoleSource for NoConsole {
    async fn console(&self, _node: &str, _instance: InstanceId) -> Result<Vec<u8>, ConsoleError> {
        Err(ConsoleError::None)
    }
}

/// How long what is known of a user is taken for true: so long may a revocation on another API server go unnoticed.
const USER_TTL: Duration = Duration::from_secs(2);

/// Requests in work, by account: a quarter of all places is the most that one account gets, so that those of one who
/// waits for much leave room for the others.
#[derive(Debug, Default)]
pub struct Places(Mutex<HashMap<Uuid, usize>>);

/// A place of an account; free again when dropped.
#[derive(Debug)]
pub struct Place<'a>(&'a Places, Uuid);

impl Places {
    /// A place, unless the account has `most` already.
    pub(super) fn take(&self, account: Uuid, most: usize) -> Option<Place<'_>> {
        let mut places = lock(&self.0);
        let taken = places.entry(account).or_default();
        if *taken >= most {
            return None;
        }
        *taken += 1;
        Some(Place(self, account))
    }
}
impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut places = lock(&self.0.0);
        if let Some(taken) = places.get_mut(&self.1) {
            *taken -= 1;
            if *taken == 0 {
                places.remove(&self.1);
            }
        }
    }
}

/// Account and key, and whose turn it is.
type Queues = HashMap<(Uuid, String), Arc<tokio::sync::Mutex<()>>>;

/// Requests of this process that carry the same idempotency key go one after the other, and all but the first are
/// replays. Without this they would do the work side by side, hold a database connection each, and all but one be rolled
/// back; several API servers still do, and PostgreSQL decides.
#[derive(Debug, Default)]
pub struct Turns(Mutex<Queues>);

/// A request's turn; the next one's begins when it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    turns: &'a Turns,
    name: (Uuid, String),
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for the turn of a request with this key.
    pub(super) async fn take(&self, account: Uuid, key: &str) -> Turn<'_> {
        let name = (account, key.to_owned());
        let mutex = Arc::clone(lock(&self.0).entry(name.clone()).or_default());
        Turn { turns: self, name, held: Some(mutex.lock_owned().await) }
    }
}
impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.held = None;
        let mut all = lock(&self.turns.0);
        // Nobody else waits for it.
        if all.get(&self.name).is_some_and(|mutex| Arc::strong_count(mutex) == 1) {
            all.remove(&self.name);
        }
    }
}

/// Everything a call needs. Cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<App>);

/// See [`AppState`].
pub struct App {
    /// The door to PostgreSQL.
    pub store: Store,
    /// Says to the relay that something was committed.
    pub nudge: Nudge,
    /// Events for the browsers, and for whoever waits for a state.
    pub events: EventHub,
    /// Serial consoles.
    pub console: Arc<dyn ConsoleSource>,
    /// Who follows packets; none until [`AppState::trace_with`] brings one.
    pub(crate) tracer: OnceLock<Arc<dyn Tracer>>,
    /// What can be set.
    pub config: ApiConfig,
    /// Access tokens.
    pub tokens: Tokens,
    /// Seals cursors.
    pub cursor_key: CursorKey,
    /// What is counted.
    pub metrics: ApiMetrics,
    /// Where `/metrics` is read from.
    pub registry: Arc<Mutex<Registry>>,
    pub(super) logins: LoginGate,
    pub(super) in_flight: Semaphore,
    pub(super) sockets: Semaphore,
    pub(super) turns: Turns,
    pub(super) places: Places,
    users: Mutex<HashMap<Uuid, (Arc<UserRow>, Instant)>>,
}

impl std::ops::Deref for AppState {
    type Target = App;
    fn deref(&self) -> &App {
        &self.0
    }
}

impl std::fmt::Debug for AppState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppState").field("config", &self.config).finish_non_exhaustive()
    }
}

impl AppState {
    /// Puts it together. `registry` is the process's; the API's own metrics join it.
    #[must_use]
    pub fn new(
        store: Store,
        nudge: Nudge,
        tokens: Tokens,
        console: Arc<dyn ConsoleSource>,
        config: ApiConfig,
        registry: Arc<Mutex<Registry>>,
    ) -> Self {
        let metrics = ApiMetrics::default();
        metrics.register(&mut lock(&registry));
        Self(Arc::new(App {
            cursor_key: CursorKey::derive(tokens.secret()),
            logins: LoginGate::new(config.login_burst),
            in_flight: Semaphore::new(config.max_in_flight),
            sockets: Semaphore::new(1000),
            turns: Turns::default(),
            places: Places::default(),
            store,
            nudge,
            events: EventHub::default(),
            console,
            tracer: OnceLock::new(),
            config,
            tokens,
            metrics,
            registry,
            users: Mutex::default(),
        }))
    }

    /// From now on packets are followed by this; the first one stays.
    #[must_use]
    pub fn trace_with(self, tracer: Arc<dyn Tracer>) -> Self {
        let _ = self.0.tracer.set(tracer);
        self
    }

    /// The user of a token, at most two seconds old.
    pub(crate) async fn user(&self, id: Uuid) -> gon_store::Result<Option<Arc<UserRow>>> {
        if let Some((user, at)) = lock(&self.users).get(&id)
            && at.elapsed() < USER_TTL
        {
            return Ok(Some(Arc::clone(user)));
        }
        let mut conn = self.store.conn().await?;
        let found = gon_store::users::by_id(&mut conn, id).await?.map(Arc::new);
        drop(conn);
        let mut users = lock(&self.users);
        match &found {
            Some(user) => {
                if users.len() > 10_000 {
                    users.clear();
                }
                users.insert(id, (Arc::clone(user), Instant::now()));
            }
            None => {
                users.remove(&id);
            }
        }
        Ok(found)
    }

    /// Asks PostgreSQL anew the next time: something about the user changed here.
    pub(crate) fn forget_user(&self, id: Uuid) {
        lock(&self.users).remove(&id);
    }
}
