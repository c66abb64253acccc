//! Elections: one key for each role, which lives as long as the lease of who leads.
//!
//! ```text
//!   free ──put if nobody is there──▶ held by us ──renewed every TTL/4──▶ …
//!                                        │ the lease or the key is gone, or no renewal was confirmed in time
//!                                        ▼
//!                                      lost (for good; on our own clock, before etcd can let anybody else in)
//! ```
//!
//! Assumes that clocks run equally fast to a tenth ([`MARGIN`]). A seat that etcd still keeps for a leadership of ours
//! that is over may be taken by us at once: nobody else believes in it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, Error, PutOptions, Txn, TxnOp, WatchOptions};
use tokio::time::timeout;

use super::lease::{Held, keep_alive};
use super::pool::{Pool, lock};
use crate::keep::{Pauses, Task};
use crate::term::{Term, now};
use crate::{ClusterError, LEADER_TTL, Leadership};

/// How much earlier than etcd the holder counts its lease as run out: clocks that drift, and time to stop.
const MARGIN: Duration = Duration::from_secs(1);
/// How often the lease is renewed: three tries before it runs out.
const RENEW: Duration = Duration::from_millis(2500);
/// How long one renewal may take.
const RENEWAL: Duration = Duration::from_secs(4);
/// How often who waits looks, whatever it hears.
const LOOK: Duration = Duration::from_secs(2);

/// Who sits there.
struct Seat {
    /// The lease of who leads; `None` if nobody does.
    lease: Option<i64>,
    /// The state of etcd this was read from.
    revision: i64,
}

async fn look(pool: &Pool, key: &str) -> Result<Seat, ClusterError> {
    pool.call(move |mut client| async move {
        let answer = client.get(key, None).await?;
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        Ok(Seat { lease: answer.kvs().first().map(etcd_client::KeyValue::lease), revision })
    })
    .await
}

/// Waits until `holder` leads.
pub(super) async fn campaign(
    pool: &Arc<Pool>,
    role: &str,
    holder: &str,
) -> Result<EtcdLeadership, ClusterError> {
    let key = pool.key("leaders", role);
    let mut pauses = Pauses::new();
    loop {
        let seat = look(pool, &key).await?;
        let ours = seat.lease.filter(|lease| lock(&pool.given_up).get(&key) == Some(lease));
        if seat.lease.is_none() || ours.is_some() {
            if let Some(won) = sit_down(pool, &key, holder, ours).await? {
                return Ok(won);
            }
        } else {
            match timeout(LOOK, change(pool, &key, seat.revision)).await {
                Ok(true) => pauses = Pauses::new(),
                // It cannot be watched now: the next look is made in any case, and not in a hurry.
                Ok(false) => pauses.pause().await,
                Err(_) => {}
            }
        }
    }
}

/// Returns when the key has changed since `revision`. `false`: it cannot be watched now.
async fn change(pool: &Pool, key: &str, revision: i64) -> bool {
    let watched = async {
        let (mut client, _) = pool.client().await?;
        let after = WatchOptions::new().with_start_revision(revision + 1);
        let mut stream = client.watch(key, Some(after)).await?;
        while let Some(message) = stream.message().await? {
            if message.canceled() {
                break;
            }
            if !message.events().is_empty() {
                return Ok(true);
            }
        }
        Ok::<_, Error>(false)
    };
    watched.await.unwrap_or(false)
}

/// Takes the seat if it is free, or held for `ours`.
async fn sit_down(
    pool: &Arc<Pool>,
    key: &str,
    holder: &str,
    ours: Option<i64>,
) -> Result<Option<EtcdLeadership>, ClusterError> {
    // Before the lease can begin at etcd.
    let began = now();
    let held = Held::grant(pool, LEADER_TTL).await?;
    let lease = held.id();
    let free = match ours {
        None => Compare::version(key, CompareOp::Equal, 0),
        Some(old) => Compare::lease(key, CompareOp::Equal, old),
    };
    let txn = &Txn::new()
        .when([free])
        .and_then([TxnOp::put(key, holder, Some(PutOptions::new().with_lease(lease)))])
        .or_else([TxnOp::get(key, None)]);
    let taken = pool
        .call(move |mut client| async move {
            let answer = client.txn(txn.clone()).await?;
            // Also if an earlier try had put it and only its answer was lost.
            Ok(answer.succeeded() || holder_lease(&answer) == Some(lease))
        })
        .await?;
    let term = Arc::new(Term::new(began + LEADER_TTL - MARGIN));
    if !taken || term.left().is_none() {
        held.give_back().await;
        return Ok(None);
    }
    Ok(Some(EtcdLeadership::new(pool, key, held, term)))
}

fn holder_lease(answer: &etcd_client::TxnResponse) -> Option<i64> {
    answer.op_responses().into_iter().find_map(|response| match response {
        etcd_client::TxnOpResponse::Get(found) => found.kvs().first().map(etcd_client::KeyValue::lease),
        _ => None,
    })
}

/// The leadership of a role, from a lease.
pub(super) struct EtcdLeadership {
    pool: Arc<Pool>,
    key: String,
    term: Arc<Term>,
    /// `None` when it is over.
    seat: Option<(Held, Task)>,
}

impl EtcdLeadership {
    fn new(pool: &Arc<Pool>, key: &str, held: Held, term: Arc<Term>) -> Self {
        let keeper = keep(Arc::clone(pool), key.to_owned(), held.id(), Arc::clone(&term));
        let seat = Some((held, Task(tokio::spawn(keeper))));
        Self { pool: Arc::clone(pool), key: key.to_owned(), term, seat }
    }

    /// From here on nobody believes in it. Its lease, unless it was given up before.
    fn give_up(&mut self) -> Option<Held> {
        self.term.end();
        let (held, keeper) = self.seat.take()?;
        drop(keeper);
        lock(&self.pool.given_up).insert(self.key.clone(), held.id());
        Some(held)
    }
}

/// Renews until the term is over.
async fn keep(pool: Arc<Pool>, key: String, lease: i64, term: Arc<Term>) {
    let mut pauses = Pauses::new();
    while let Some(left) = term.left() {
        let began = now();
        match renew(&pool, &key, lease, left.min(RENEWAL)).await {
            Ok(()) => {
                term.extend(began + LEADER_TTL - MARGIN);
                pauses = Pauses::new();
                tokio::time::sleep(RENEW).await;
            }
            Err(ClusterError::Lost) => {
                tracing::warn!(key, "the lease of a leadership is gone");
                term.end();
            }
            Err(ClusterError::Unavailable(error)) => {
                tracing::debug!(error, key, ?left, "a leadership could not be renewed");
                pauses.pause().await;
            }
        }
    }
}

/// A renewal counts when a quorum confirms afterwards that the seat is ours.
async fn renew(pool: &Pool, key: &str, lease: i64, limit: Duration) -> Result<(), ClusterError> {
    keep_alive(pool, lease, limit).await?;
    if look(pool, key).await?.lease == Some(lease) { Ok(()) } else { Err(ClusterError::Lost) }
}

#[async_trait]
impl Leadership for EtcdLeadership {
    async fn lost(&self) {
        self.term.over().await;
    }
    fn holds(&self) -> bool {
        self.term.left().is_some()
    }
    async fn resign(mut self: Box<Self>) {
        if let Some(held) = self.give_up() {
            held.give_back().await;
        }
    }
}

impl Drop for EtcdLeadership {
    fn drop(&mut self) {
        // What is held gives itself back.
        drop(self.give_up());
    }
}
