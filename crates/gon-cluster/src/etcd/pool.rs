//! The connection to etcd: one member at a time, the next when it fails or is silent.
//!
//! One connection to one member, instead of a balance over all, because then a member that is silent (stopped, cut
//! off) costs one time-out and not one in every few calls. Promises that every call ends by its deadline.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{EtcdConfig, TlsPem};
use crate::ClusterError;
use crate::keep::{Pauses, random};

/// How long one member may take to answer: long enough for a slow disk, short enough that a leader tries two others
/// before its lease is in danger.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long a call may take, all members and all tries together.
pub(super) const CALL: Duration = Duration::from_secs(5);
/// gRPC codes (a fixed part of the protocol) with which etcd says that asking again is of no use.
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;

/// A poisoned lock only means that another task panicked between two whole writes.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What to do about an error.
enum Verdict {
    /// The lease is gone.
    Lost,
    /// No member will answer differently.
    Final,
    /// Try the next member.
    Next,
}

fn verdict(error: &Error) -> Verdict {
    match error {
        // The only thing the client says of a lease that etcd does not know.
        Error::LeaseKeepAliveError(text) if text.contains("not found") => Verdict::Lost,
        Error::GRpcStatus(status) => match i32::from(status.code()) {
            NOT_FOUND => Verdict::Lost,
            INVALID_ARGUMENT | PERMISSION_DENIED => Verdict::Final,
            _ => Verdict::Next,
        },
        Error::InvalidArgs(_) | Error::InvalidUri(_) => Verdict::Final,
        _ => Verdict::Next,
    }
}

/// The connection, and what one process has to remember between two of them.
pub(super) struct Pool {
    config: EtcdConfig,
    /// Certificates, which are renewed while we run.
    tls: Option<Mutex<watch::Receiver<TlsPem>>>,
    state: Mutex<State>,
    /// The lease of the last leadership that is over here, by key: where etcd still keeps the seat for it, it is ours
    /// to take over.
    pub(super) given_up: Mutex<HashMap<String, i64>>,
}

#[derive(Default)]
struct State {
    /// Which endpoint is next.
    at: usize,
    /// Counts connections, so that a late failure of an old one does not end a new one.
    number: u64,
    client: Option<Client>,
}

impl Pool {
    pub(super) fn new(config: EtcdConfig) -> Self {
        // Not everybody starts with the same member.
        let at = usize::try_from(random() % 1024).unwrap_or(0);
        let state = Mutex::new(State { at, ..State::default() });
        let tls = config.tls.clone().map(Mutex::new);
        Self { config, tls, state, given_up: Mutex::default() }
    }

    /// The name of something in our part of the store.
    pub(super) fn key(&self, kind: &str, name: &str) -> String {
        format!("{}/{kind}/{name}", self.config.prefix)
    }

    fn options(&self) -> ConnectOptions {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(ATTEMPT)
            // A member without a leader answers nothing, and ends its watches.
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((user, password)) = &self.config.user {
            options = options.with_user(user, password);
        }
        if let Some(tls) = &self.tls {
            let mut tls = lock(tls);
            let tls = tls.borrow_and_update();
            let ours = Identity::from_pem(&tls.certificate, &tls.key);
            let ca = Certificate::from_pem(&tls.ca);
            options = options.with_tls(TlsOptions::new().ca_certificate(ca).identity(ours));
        }
        options
    }

    /// A connection to one member, and its number.
    pub(super) async fn client(&self) -> Result<(Client, u64), Error> {
        let endpoint = {
            let mut state = lock(&self.state);
            // A connection comes back by itself, but with the certificate that it was made with.
            if self.tls.as_ref().is_some_and(|tls| lock(tls).has_changed().unwrap_or(false)) {
                state.client = None;
                state.number += 1;
            }
            if let Some(client) = &state.client {
                return Ok((client.clone(), state.number));
            }
            let endpoints = &self.config.endpoints;
            let Some(endpoint) = endpoints.get(state.at % endpoints.len().max(1)) else {
                return Err(Error::InvalidArgs("no endpoints are configured".to_owned()));
            };
            endpoint.clone()
        };
        // Several tasks may do this at once; one of the connections stays.
        let client = Client::connect([&endpoint], Some(self.options())).await?;
        let mut state = lock(&self.state);
        if state.client.is_none() {
            state.client = Some(client.clone());
        }
        Ok((client, state.number))
    }

    /// The connection of this number is no good: the next will be to another member.
    pub(super) fn failed(&self, number: u64) {
        let mut state = lock(&self.state);
        if state.number == number {
            state.client = None;
            state.number += 1;
            state.at = state.at.wrapping_add(1);
        }
    }

    /// Calls until a member answers, [`CALL`] at the most. `call` may be carried out more than once.
    pub(super) async fn call<T, F: Future<Output = Result<T, Error>> + Send>(
        &self,
        call: impl Fn(Client) -> F + Send,
    ) -> Result<T, ClusterError> {
        self.call_within(CALL, call).await
    }

    /// The same with a deadline of one's own.
    pub(super) async fn call_within<T, F: Future<Output = Result<T, Error>> + Send>(
        &self,
        limit: Duration,
        call: impl Fn(Client) -> F + Send,
    ) -> Result<T, ClusterError> {
        let deadline = Instant::now() + limit;
        let mut pauses = Pauses::new();
        let mut tries = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let attempt = async {
                let (client, _) = self.client().await?;
                call(client).await
            };
            let number = lock(&self.state).number;
            let error = match timeout(left.min(ATTEMPT), attempt).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) => match verdict(&error) {
                    Verdict::Lost => return Err(ClusterError::Lost),
                    Verdict::Final => return Err(ClusterError::Unavailable(error.to_string())),
                    Verdict::Next => error.to_string(),
                },
                Err(_) => "no answer in time".to_owned(),
            };
            self.failed(number);
            tries += 1;
            // Everybody once without waiting, and the connection we had may only have been an old one.
            let pause = if tries <= self.config.endpoints.len() { Duration::ZERO } else { pauses.next() };
            if Instant::now() + pause >= deadline {
                return Err(ClusterError::Unavailable(error));
            }
            tokio::time::sleep(pause).await;
        }
    }
}
