//! Leases and the keys that live as long as they do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, Error, LeaseGrantOptions, PutOptions, Txn, TxnOp};

use super::pool::{CALL, Pool};
use crate::keep::{Task, endure, keep, random};
use crate::{Announcement, ClusterError, Lease, NODE_TTL};

/// How long a lease is tried to be given back; after that it runs out by itself.
const GIVE_BACK: Duration = Duration::from_secs(2);

/// A lease at etcd. Given back when dropped, if a runtime is there to do it.
pub(super) struct Held {
    pool: Arc<Pool>,
    id: i64,
    given_back: bool,
}

impl Held {
    /// Takes a lease for `ttl` (etcd counts whole seconds and has a minimum). The id is ours, so that what is given up
    /// half way can be given back, and a request whose answer was lost can be repeated.
    pub(super) async fn grant(pool: &Arc<Pool>, ttl: Duration) -> Result<Self, ClusterError> {
        let id = i64::try_from(random() >> 1).unwrap_or(1).max(1);
        let held = Self { pool: Arc::clone(pool), id, given_back: false };
        let seconds = i64::try_from(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).unwrap_or(1).max(1);
        pool.call(move |mut client| async move {
            match client.lease_grant(seconds, Some(LeaseGrantOptions::new().with_id(id))).await {
                // Our own request, the answer to which was lost.
                Err(Error::GRpcStatus(status)) if status.message().contains("lease already exists") => Ok(()),
                other => other.map(|_| ()),
            }
        })
        .await?;
        Ok(held)
    }

    /// Its id at etcd.
    pub(super) fn id(&self) -> i64 {
        self.id
    }

    /// Gives it back, and returns when that is done or cannot be done soon.
    pub(super) async fn give_back(mut self) {
        self.given_back = true;
        revoke(&self.pool, self.id).await;
    }
}

/// Makes a lease last for its time to live from now.
pub(super) async fn keep_alive(pool: &Pool, id: i64, limit: Duration) -> Result<(), ClusterError> {
    pool.call_within(limit, move |mut client| async move { client.lease_keep_alive(id).await.map(|_| ()) })
        .await
}

async fn revoke(pool: &Pool, id: i64) {
    let done = pool
        .call_within(GIVE_BACK, move |mut client| async move { client.lease_revoke(id).await.map(|_| ()) })
        .await;
    if let Err(error @ ClusterError::Unavailable(_)) = done {
        tracing::debug!(%error, "a lease could not be given back and runs out by itself");
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.given_back {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (pool, id) = (Arc::clone(&self.pool), self.id);
            runtime.spawn(async move { revoke(&pool, id).await });
        }
    }
}

/// A key with a lease of its own: a node, or where a service is.
pub(super) struct EtcdLease {
    held: Held,
    key: String,
}

impl EtcdLease {
    /// Puts the key. One that is there with an older lease becomes this one's: whoever came last speaks for the name.
    pub(super) async fn register(pool: &Arc<Pool>, key: String, ttl: Duration) -> Result<Self, ClusterError> {
        let held = Held::grant(pool, ttl).await?;
        let (lease, name) = (held.id(), key.as_str());
        pool.call(move |mut client| async move {
            client.put(name, "", Some(PutOptions::new().with_lease(lease))).await.map(|_| ())
        })
        .await?;
        Ok(Self { held, key })
    }
}

#[async_trait]
impl Lease for EtcdLease {
    async fn renew(&mut self) -> Result<(), ClusterError> {
        keep_alive(&self.held.pool, self.held.id(), CALL).await?;
        // Reads only, as long as the key is there. It may have been taken away by hand, or with a later lease of the
        // same name.
        let (key, lease) = (self.key.as_str(), self.held.id());
        let missing = Compare::version(key, CompareOp::Equal, 0);
        let again = TxnOp::put(key, "", Some(PutOptions::new().with_lease(lease)));
        let txn = &Txn::new().when([missing]).and_then([again]);
        self.held.pool.call(move |mut client| async move { client.txn(txn.clone()).await.map(|_| ()) }).await
    }
}

/// Registers and renews until it is dropped, whatever happens to etcd.
pub(super) fn announce(pool: &Arc<Pool>, key: String) -> Announcement {
    let pool = Arc::clone(pool);
    Announcement::new(Task(tokio::spawn(async move {
        let announced = || {
            let (pool, key) = (Arc::clone(&pool), key.clone());
            async move {
                let take = || async {
                    let lease = EtcdLease::register(&pool, key.clone(), NODE_TTL).await?;
                    Ok(Box::new(lease) as Box<dyn Lease>)
                };
                match keep(&key, take).await {}
            }
        };
        endure("announcement", announced).await;
    })))
}
