//! Follows a part of the store: reads it whole, watches, and reads it whole again when the watch rings, breaks off, or
//! is silent for a while.
//!
//! A watch is only a doorbell here: it may break off, fall behind a compaction or come from a member that has been cut
//! off, and nothing is missed. Reads are linearizable. Promises that what was read is never forgotten because etcd
//! cannot be reached, nor at once because it was emptied: for [`NODE_TTL`] after that everybody has time to come back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::{GetOptions, ResponseHeader, WatchOptions, WatchStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};

use super::pool::{CALL, Pool, lock};
use crate::keep::{Pauses, endure};
use crate::{ClusterError, NODE_TTL};

/// How often everything is read, whatever the watch says.
const LOOK: Duration = Duration::from_secs(3);
/// How long a watch may take to begin.
const BEGIN: Duration = Duration::from_secs(2);
/// Changes that come together are read together.
const TOGETHER: Duration = Duration::from_millis(10);

/// A key, or everything below it.
#[derive(Debug)]
pub(super) enum Range {
    /// This key; it is named by an empty text.
    Key(String),
    /// Everything that begins with this, named by the rest.
    Below(String),
}

/// What is in the range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Names and values.
    pub(super) entries: BTreeMap<String, String>,
    /// Whether there may be more, or less, by now.
    pub(super) stale: bool,
}

/// Watches `range` as long as there is a receiver. Returns when it was read for the first time, or when that takes too
/// long, with `unknown`.
pub(super) async fn watching<T: PartialEq + Send + Sync + 'static>(
    pool: &Arc<Pool>,
    range: Range,
    unknown: T,
    view: fn(&Seen) -> T,
) -> watch::Receiver<T> {
    let (told, receiver) = watch::channel(unknown);
    let (first, read) = oneshot::channel();
    let (pool, range) = (Arc::clone(pool), Arc::new(range));
    let (told, first) = (Arc::new(told), Arc::new(Mutex::new(Some(first))));
    tokio::spawn(async move {
        let following = || {
            let (pool, range) = (Arc::clone(&pool), Arc::clone(&range));
            let (told, first) = (Arc::clone(&told), Arc::clone(&first));
            async move {
                let tell = |seen: &Seen| {
                    let new = view(seen);
                    told.send_if_modified(|old| {
                        let changed = *old != new;
                        if changed {
                            *old = new;
                        }
                        changed
                    });
                    if let Some(first) = lock(&first).take() {
                        let _ = first.send(());
                    }
                };
                tokio::select! {
                    () = told.closed() => {}
                    () = follow(&pool, &range, tell) => {}
                }
            }
        };
        endure("what is known of the cluster", following).await;
    });
    let _ = timeout(CALL, read).await;
    receiver
}

/// What was seen, and what of it has to be kept for a while.
#[derive(Default)]
struct Memory {
    seen: Seen,
    revision: i64,
    /// What was there before the store was emptied, and until when that counts.
    before: Option<(BTreeMap<String, String>, Instant)>,
}

impl Memory {
    fn read(&mut self, entries: BTreeMap<String, String>, revision: i64, now: Instant) {
        if revision < self.revision {
            tracing::warn!(revision, before = self.revision, "the cluster store was emptied or restored");
            self.before = Some((std::mem::take(&mut self.seen.entries), now + NODE_TTL));
        }
        self.revision = revision;
        if self.before.as_ref().is_some_and(|(_, until)| now >= *until) {
            self.before = None;
        }
        self.seen = match &self.before {
            None => Seen { entries, stale: false },
            Some((before, _)) => {
                let mut all = before.clone();
                all.extend(entries);
                Seen { entries: all, stale: true }
            }
        };
    }
}

async fn follow(pool: &Pool, range: &Range, mut tell: impl FnMut(&Seen)) {
    let mut memory = Memory::default();
    let mut pauses = Pauses::new();
    loop {
        match read(pool, range).await {
            Ok((entries, revision)) => {
                memory.read(entries, revision, Instant::now());
                tell(&memory.seen);
                if let Some((mut stream, number)) = begin(pool, range, revision + 1).await {
                    while rung(&mut stream).await {
                        let Ok((entries, revision)) = read(pool, range).await else {
                            pool.failed(number);
                            break;
                        };
                        pauses = Pauses::new();
                        memory.read(entries, revision, Instant::now());
                        tell(&memory.seen);
                    }
                }
            }
            Err(error) => {
                if !memory.seen.stale {
                    tracing::warn!(%error, ?range, "what is known of the cluster is stale");
                }
                memory.seen.stale = true;
                tell(&memory.seen);
            }
        }
        pauses.pause().await;
    }
}

/// Everything in the range, as a quorum has it, and of which revision that is.
async fn read(pool: &Pool, range: &Range) -> Result<(BTreeMap<String, String>, i64), ClusterError> {
    let (start, options) = match range {
        Range::Key(key) => (key, &GetOptions::new()),
        Range::Below(prefix) => (prefix, &GetOptions::new().with_prefix()),
    };
    pool.call(move |mut client| async move {
        let answer = client.get(start.as_str(), Some(options.clone())).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let entries = answer.kvs().iter().map(|kv| {
            let name = kv.key().strip_prefix(start.as_bytes()).unwrap_or(kv.key());
            (text(name), text(kv.value()))
        });
        Ok((entries.collect(), answer.header().map_or(0, ResponseHeader::revision)))
    })
    .await
}

/// A watch of the range from a revision on.
async fn begin(pool: &Pool, range: &Range, revision: i64) -> Option<(WatchStream, u64)> {
    let (mut client, number) = pool.client().await.ok()?;
    let options = WatchOptions::new().with_start_revision(revision);
    let watch = match range {
        Range::Key(key) => client.watch(key.as_str(), Some(options)),
        Range::Below(prefix) => client.watch(prefix.as_str(), Some(options.with_prefix())),
    };
    match timeout(BEGIN, watch).await {
        Ok(Ok(stream)) => Some((stream, number)),
        _ => {
            pool.failed(number);
            None
        }
    }
}

/// Waits for a reason to read. `false`: the watch is over (broken off, compacted away, without a leader).
async fn rung(stream: &mut WatchStream) -> bool {
    let look = tokio::time::sleep(LOOK);
    tokio::pin!(look);
    loop {
        tokio::select! {
            () = &mut look => return true,
            message = stream.message() => match message {
                Ok(Some(message)) if message.canceled() => return false,
                Ok(Some(message)) if message.events().is_empty() => {}
                Ok(Some(_)) => {
                    tokio::time::sleep(TOGETHER).await;
                    return true;
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> BTreeMap<String, String> {
        names.iter().map(|n| ((*n).to_owned(), String::new())).collect()
    }

    #[test]
    fn an_emptied_store_forgets_nobody_at_once() {
        let mut memory = Memory::default();
        let now = Instant::now();
        memory.read(of(&["a", "b"]), 90, now);
        assert_eq!(memory.seen, Seen { entries: of(&["a", "b"]), stale: false });
        memory.read(of(&[]), 3, now);
        assert_eq!(memory.seen, Seen { entries: of(&["a", "b"]), stale: true });
        memory.read(of(&["b", "c"]), 7, now + NODE_TTL / 2);
        assert_eq!(memory.seen, Seen { entries: of(&["a", "b", "c"]), stale: true });
        memory.read(of(&["b", "c"]), 7, now + NODE_TTL);
        assert_eq!(memory.seen, Seen { entries: of(&["b", "c"]), stale: false });
    }
}
