//! Admission: how servers get their first certificate, and the next ones; how they lose them.
//!
//! Assumes to run where the authority's key is; elsewhere it answers 503, and whoever asked tries another server.
//! Promises that a certificate is on record before anybody holds it, that a token admits one server, that a certificate
//! says only what is decided here (name, role, and the address the server was seen at), and that nobody who has no
//! certificate can keep it busy.

use std::collections::HashMap;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use gon_proto::{AuthoritiesAnswer, JoinAnswer, JoinRequest, RenewAnswer, RenewRequest, SiteAnswer, paths};
use gon_store::certificates::{self, NewCertificate, Standing};
use gon_store::join_tokens::{self, NewToken};
use gon_store::{Conn, Store, StoreError, commit};
use gon_tls::{
    Authority, Identity, Issued, JoinToken, LIFETIME, Peer, Revoked, Role, RollError, TlsDir, TlsError,
    sha256,
};
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::timeout::TimeoutLayer;

use crate::documents::lock;
use crate::peers::Gate;

/// The largest request that is read: four requests for certificates are about 2 KiB.
const REQUEST_LIMIT: usize = 64 << 10;
/// How long a request may take from its head to its answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// How many are worked on at once.
const AT_ONCE: usize = 8;
/// Requests that an address may make at once, and one more each so often.
const BURST: f64 = 20.0;
const REFILL: Duration = Duration::from_millis(500);
/// Addresses that are remembered.
const ADDRESSES: usize = 4096;
/// How often the list of revoked certificates is looked after, and how old it becomes at most.
const LIST_EVERY: Duration = Duration::from_secs(30);
const LIST_AGE: Duration = Duration::from_secs(24 * 3600);

/// Why somebody is not admitted, or gets no certificate.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// One answer for every token that is not good, whatever is wrong with it.
    #[error("this token is not good: it was used, has expired, is for another server, or never was")]
    Token,
    /// Not what the token is for.
    #[error("this token is not for the role {0}")]
    Role(Role),
    /// Somebody else has the name.
    #[error("there is a server named '{0}' already: revoke it, or make a token for that name")]
    NameHeld(String),
    /// Something in the request cannot be.
    #[error("{0}")]
    Invalid(String),
    /// Too often.
    #[error("too many requests: try again in a moment")]
    TooMany,
    /// Who would no longer be believed.
    #[error("these still hold certificates of the old authority only: {0}")]
    StillHeld(String),
    /// The key is elsewhere.
    #[error("this server does not sign certificates: ask another")]
    NoAuthority,
    /// The authority failed.
    #[error("the authority cannot be used")]
    Authority(#[source] TlsError),
    /// PostgreSQL.
    #[error("the database did not take it")]
    Store(#[from] StoreError),
}

impl IntoResponse for JoinError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Token | Self::Role(_) => StatusCode::FORBIDDEN,
            Self::NameHeld(_) | Self::StillHeld(_) => StatusCode::CONFLICT,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::NoAuthority | Self::Authority(_) | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        match &self {
            Self::Authority(_) | Self::Store(_) => {
                tracing::error!(error = &self as &dyn std::error::Error, "a certificate could not be given");
            }
            _ => tracing::warn!(reason = %self, "a certificate was refused"),
        }
        let again = status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE;
        let mut response = (status, self.to_string()).into_response();
        if again {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

/// The one who admits.
#[derive(Debug)]
pub struct Admission {
    store: Store,
    dir: TlsDir,
    site: SiteAnswer,
    lifetime: Duration,
    turns: Semaphore,
    buckets: Mutex<HashMap<IpAddr, (f64, Instant)>>,
}

impl Admission {
    /// Admits to the site of `store` with the authority of `dir`, and tells newcomers `site`.
    #[must_use]
    pub fn new(store: Store, dir: TlsDir, site: SiteAnswer) -> Self {
        Self {
            store,
            dir,
            site,
            lifetime: LIFETIME,
            turns: Semaphore::new(AT_ONCE),
            buckets: Mutex::default(),
        }
    }

    /// Gives certificates for `lifetime` instead of [`LIFETIME`].
    #[must_use]
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime, ..self }
    }

    /// The routes: joining needs no certificate, everything else one that stands.
    pub fn router(self: Arc<Self>) -> Router {
        let gate = Gate { store: self.store.clone(), roles: Role::ALL, leader: None };
        let open = Router::new().route(paths::JOIN, post(join)).with_state(Arc::clone(&self));
        let held = Router::new()
            .route(paths::CERTIFICATES, post(renew))
            .route(paths::AUTHORITIES, get(authorities))
            .with_state(self);
        open.merge(gate.guard(held))
            .layer(DefaultBodyLimit::max(REQUEST_LIMIT))
            .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, DEADLINE))
    }

    /// Keeps the list of revoked certificates up to date until `stop`, for the servers that do not ask our database.
    pub async fn run(&self, stop: CancellationToken) {
        let mut written: Option<(Vec<String>, Instant)> = None;
        while !stop.is_cancelled() {
            if self.dir.has_authority() {
                match self.write_revocations(&mut written).await {
                    Ok(()) => {}
                    Err(error) => tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the list of revoked certificates could not be written"
                    ),
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(LIST_EVERY) => {}
            }
        }
    }

    async fn write_revocations(&self, written: &mut Option<(Vec<String>, Instant)>) -> Result<(), JoinError> {
        let authority = authority(&self.dir).await?;
        let revoked = certificates::revoked(&self.store, &authority.sha256()).await?;
        let serials: Vec<String> = revoked.iter().map(|(serial, _)| serial.clone()).collect();
        if written.as_ref().is_some_and(|(same, at)| *same == serials && at.elapsed() < LIST_AGE) {
            return Ok(());
        }
        let revoked: Vec<Revoked> =
            revoked.into_iter().map(|(serial, since)| Revoked { serial, since }).collect();
        // Seconds rise by themselves, over restarts too.
        let number = OffsetDateTime::now_utc().unix_timestamp().unsigned_abs();
        let list = authority.revocation_list(&revoked, number).map_err(JoinError::Authority)?;
        self.dir.write(&self.dir.revocations(), &list, 0o644).map_err(JoinError::Authority)?;
        *written = Some((serials, Instant::now()));
        Ok(())
    }

    /// Takes one from the address's bucket.
    fn count(&self, address: IpAddr) -> Result<(), JoinError> {
        let now = Instant::now();
        let refilled = |(left, at): (f64, Instant)| {
            (left + now.duration_since(at).as_secs_f64() / REFILL.as_secs_f64()).min(BURST)
        };
        let mut buckets = lock(&self.buckets);
        if buckets.len() >= ADDRESSES {
            buckets.retain(|_, bucket| refilled(*bucket) < BURST);
        }
        if buckets.len() >= ADDRESSES && !buckets.contains_key(&address) {
            return Err(JoinError::TooMany);
        }
        let bucket = buckets.entry(address).or_insert((BURST, now));
        let left = refilled(*bucket);
        *bucket = ((left - 1.0).max(0.0), now);
        if left < 1.0 { Err(JoinError::TooMany) } else { Ok(()) }
    }

    async fn admit(&self, request: JoinRequest, address: IpAddr) -> Result<JoinAnswer, JoinError> {
        check_format(request.format)?;
        let JoinRequest { format, secret, name, requests } = request;
        if requests.is_empty() {
            return Err(JoinError::Invalid("a certificate has to be asked for".to_owned()));
        }
        if name == "localhost" || !gon_types::identity::is_server_name(&name) {
            return Err(JoinError::Invalid(format!("'{name}' cannot be a server's name")));
        }
        let authority = authority(&self.dir).await?;
        let bundle = self.dir.read(&self.dir.ca_certificates()).map_err(JoinError::Authority)?;
        let hosts = vec![name.clone(), address.to_string()];
        let mut tx = self.store.begin().await?;
        let request = serde_json::to_vec(&requests).map_err(|error| JoinError::Invalid(error.to_string()))?;
        let token =
            join_tokens::redeem(&mut tx, &sha256(secret.as_bytes()), &name, &sha256(&request)).await?;
        let token = token.ok_or(JoinError::Token)?;
        let allowed: Vec<Role> = token.roles.iter().filter_map(|role| role.parse().ok()).collect();
        if let Some(role) = requests.keys().find(|role| !allowed.contains(role)) {
            return Err(JoinError::Role(*role));
        }
        certificates::lock_name(&mut tx, &name).await?;
        if token.is_repeated {
            // The answer was lost. These are more certificates for the same keys.
        } else if token.for_this_name {
            certificates::revoke_name(&mut tx, &name, "the server joined again").await?;
        } else if certificates::is_name_held(&mut tx, &name).await? {
            return Err(JoinError::NameHeld(name));
        }
        let mut answer = JoinAnswer {
            format,
            name: name.clone(),
            ca_pem: bundle,
            certificates: std::collections::BTreeMap::new(),
            site: self.site.clone(),
        };
        for (role, pem) in requests {
            let issued = self.sign(&mut tx, &authority, role, &name, &hosts, &pem).await?;
            answer.certificates.insert(role, issued.pem);
        }
        commit(tx).await?;
        tracing::info!(name, %address, "a server joined");
        Ok(answer)
    }

    /// Signs and records.
    async fn sign(
        &self,
        tx: &mut Conn,
        authority: &Authority,
        role: Role,
        name: &str,
        hosts: &[String],
        request_pem: &str,
    ) -> Result<Issued, JoinError> {
        let identity = Identity::new(role, name).map_err(|error| JoinError::Invalid(error.to_string()))?;
        let issued = authority.sign(request_pem, &identity, hosts, self.lifetime).map_err(refused)?;
        record(tx, authority, &identity, hosts, &issued).await?;
        Ok(issued)
    }
}

fn refused(error: TlsError) -> JoinError {
    match error {
        TlsError::Request(what) => JoinError::Invalid(format!("the certificate request is refused: {what}")),
        other => JoinError::Authority(other),
    }
}

fn check_format(format: u32) -> Result<(), JoinError> {
    if gon_proto::is_spoken(format) {
        return Ok(());
    }
    let spoken = gon_proto::OLDEST_FORMAT..=gon_proto::FORMAT;
    Err(JoinError::Invalid(format!("format {format} is not spoken here, {spoken:?} are")))
}

/// Read anew each time: it may have been replaced.
async fn authority(dir: &TlsDir) -> Result<Authority, JoinError> {
    if !dir.has_authority() {
        return Err(JoinError::NoAuthority);
    }
    let dir = dir.clone();
    let read = tokio::task::spawn_blocking(move || dir.authority()).await;
    let io_error = |error| TlsError::Io { path: "authority".into(), source: std::io::Error::other(error) };
    read.map_err(|error| JoinError::Authority(io_error(error)))?.map_err(JoinError::Authority)
}

async fn join(
    State(admission): State<Arc<Admission>>,
    Extension(peer): Extension<Peer>,
    Json(request): Json<JoinRequest>,
) -> Result<Json<JoinAnswer>, JoinError> {
    admission.count(peer.address.ip())?;
    let _turn = admission.turns.try_acquire().map_err(|_| JoinError::TooMany)?;
    admission.admit(request, peer.address.ip()).await.map(Json)
}

async fn renew(
    State(admission): State<Arc<Admission>>,
    Extension(peer): Extension<Peer>,
    Extension(standing): Extension<Standing>,
    Json(request): Json<RenewRequest>,
) -> Result<Json<RenewAnswer>, JoinError> {
    admission.count(peer.address.ip())?;
    let _turn = admission.turns.try_acquire().map_err(|_| JoinError::TooMany)?;
    check_format(request.format)?;
    let role = Role::from_str(&standing.role).map_err(|error| JoinError::Invalid(error.to_string()))?;
    let authority = authority(&admission.dir).await?;
    let ca_pem = admission.dir.read(&admission.dir.ca_certificates()).map_err(JoinError::Authority)?;
    let mut tx = admission.store.begin().await?;
    let issued =
        admission.sign(&mut tx, &authority, role, &standing.name, &standing.hosts, &request.request).await?;
    commit(tx).await?;
    tracing::info!(role = %role, name = standing.name, serial = issued.serial, "a certificate was renewed");
    Ok(Json(RenewAnswer { format: request.format, ca_pem, certificate: issued.pem }))
}

async fn authorities(State(admission): State<Arc<Admission>>) -> Result<Json<AuthoritiesAnswer>, JoinError> {
    // A server without the key may hold an older list.
    if !admission.dir.has_authority() {
        return Err(JoinError::NoAuthority);
    }
    let ca_pem = admission.dir.read(&admission.dir.ca_certificates()).map_err(JoinError::Authority)?;
    Ok(Json(AuthoritiesAnswer { format: gon_proto::FORMAT, ca_pem }))
}

async fn record(
    conn: &mut Conn,
    authority: &Authority,
    identity: &Identity,
    hosts: &[String],
    issued: &Issued,
) -> Result<(), StoreError> {
    let certificate = NewCertificate {
        serial: &issued.serial,
        role: identity.role().as_str(),
        name: identity.name(),
        hosts,
        authority_sha256: &authority.sha256(),
        not_after: issued.not_after,
    };
    certificates::record(conn, &certificate).await
}

/// What a join token is to allow.
#[derive(Debug, Clone)]
pub struct TokenTerms<'a> {
    /// The roles that may be asked for ([`Role::WORKER`] for a worker).
    pub roles: &'a [Role],
    /// The only name it lets in, which may then replace a server of that name.
    pub name: Option<&'a str>,
    /// How long it is good; at most 30 days.
    pub lifetime: Duration,
    /// Who makes it.
    pub created_by: &'a str,
}

/// Makes a join token: `gond admin join-token`. `server` is where this site's instance manager answers, `HOST:PORT`, as
/// the new server reaches it.
pub async fn create_token(
    store: &Store,
    dir: &TlsDir,
    server: &str,
    terms: &TokenTerms<'_>,
) -> Result<JoinToken, JoinError> {
    let authority = authority(dir).await?;
    let secret = gon_tls::random_secret().map_err(JoinError::Authority)?;
    let roles: Vec<&str> = terms.roles.iter().map(|role| role.as_str()).collect();
    let token = NewToken {
        secret_sha256: sha256(secret.as_bytes()),
        roles: &roles,
        server_name: terms.name,
        created_by: terms.created_by,
        lifetime: u32::try_from(terms.lifetime.as_secs()).unwrap_or(u32::MAX),
    };
    join_tokens::create(&mut *store.conn().await?, &token).await?;
    Ok(JoinToken { server: server.to_owned(), ca_sha256: authority.sha256(), secret })
}

/// Makes, records and installs a certificate for a role of the server that holds the authority's key: `gond admin init`.
pub async fn issue_here(
    store: &Store,
    dir: &TlsDir,
    role: Role,
    name: &str,
    hosts: &[String],
) -> Result<Issued, JoinError> {
    let identity = Identity::new(role, name).map_err(|error| JoinError::Invalid(error.to_string()))?;
    let authority = authority(dir).await?;
    let request = gon_tls::SigningRequest::new().map_err(JoinError::Authority)?;
    let issued = authority.sign(&request.request_pem, &identity, hosts, LIFETIME).map_err(refused)?;
    record(&mut *store.conn().await?, &authority, &identity, hosts, &issued).await?;
    dir.install(role, &request.key_pem, &issued.pem).map_err(JoinError::Authority)?;
    Ok(issued)
}

/// Revokes every certificate of a server: `gond admin revoke`. They are refused from the next request on. Returns how
/// many there were. Removing a node does this by itself.
pub async fn revoke(store: &Store, name: &str, reason: &str) -> Result<u64, JoinError> {
    Ok(certificates::revoke_name(&mut *store.conn().await?, name, reason).await?)
}

/// Last step of replacing the authority ([`TlsDir::prepare_next_authority`], then
/// [`TlsDir::promote_next_authority`]): the old one is believed no more. Refused as long as somebody would be shut out;
/// who does not come back is revoked first.
pub async fn retire_old_authority(store: &Store, dir: &TlsDir) -> Result<(), JoinError> {
    let signing = authority(dir).await?.sha256();
    let holders = certificates::without_authority(store, &signing).await?;
    if !holders.is_empty() {
        let holders: Vec<String> =
            holders.into_iter().map(|(name, role)| format!("{name} ({role})")).collect();
        return Err(JoinError::StillHeld(holders.join(", ")));
    }
    dir.retire_old_authority().map_err(|error| match error {
        RollError::Order(what) => JoinError::Invalid(what.to_owned()),
        RollError::Files(error) => JoinError::Authority(error),
    })
}
