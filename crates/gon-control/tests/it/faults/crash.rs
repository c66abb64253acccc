//! C1. `kill -9` of the postmaster under sixteen writers; in the long run also under eight and under sixty-four.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gon_testkit::{PostgresServer, did, measure, postgres_server};
use serde_json::Value;
use tokio::time::Instant;

use super::insist;
use crate::api::Api;

/// How soon writes are accepted again.
const BACK: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Outcome {
    acknowledged: usize,
    /// Acknowledged and not there.
    lost: usize,
    /// There more often than asked for.
    doubled: usize,
    /// From a kill to the next acknowledgement, the longest.
    away: Duration,
}

/// Clients that each want one VPC after the other, and insist; the postmaster is killed `kills` times.
async fn storm(server: &PostgresServer, writers: usize, kills: usize) -> Outcome {
    let api = Arc::new(super::api(server, server.port()).await);
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let acknowledged: Arc<Mutex<BTreeMap<String, Value>>> = Arc::default();
    let writers: Vec<_> = (0..writers)
        .map(|writer| {
            let (api, stop) = (Arc::clone(&api), Arc::clone(&stop));
            let (count, acknowledged) = (Arc::clone(&count), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("w{writer}-{n}");
                    let answer = insist(&api, &name, &name, Duration::from_secs(30)).await;
                    acknowledged.lock().unwrap().insert(name, answer.body["uuid"].clone());
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut away = Duration::ZERO;
    for _ in 0..kills {
        let before = count.load(Ordering::Relaxed);
        wait_for(&count, before + 60).await;
        server.kill().unwrap();
        let killed = Instant::now();
        // What was on its way may still be heard of; what the dead one cannot have done counts.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let before = count.load(Ordering::Relaxed);
        wait_for(&count, before + 1).await;
        away = away.max(killed.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let found = found(&api).await;
    let acknowledged = acknowledged.lock().unwrap();
    Outcome {
        acknowledged: acknowledged.len(),
        lost: acknowledged
            .iter()
            .filter(|(name, id)| !found.get(*name).is_some_and(|ids| ids.contains(id)))
            .count(),
        doubled: found.values().filter(|ids| ids.len() > 1).count(),
        away,
    }
}

async fn wait_for(count: &AtomicU64, least: u64) {
    let begin = Instant::now();
    while count.load(Ordering::Relaxed) < least {
        assert!(begin.elapsed() < Duration::from_secs(30), "no progress");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn found(api: &Api) -> BTreeMap<String, Vec<Value>> {
    let query = "select jsonb_build_array(name, id) from vpcs order by id";
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in gon_store::admin::json(&api.database.store, query).await.unwrap() {
        found.entry(row[0].as_str().unwrap().to_owned()).or_default().push(row[1].clone());
    }
    // Each with its books: one entry in the audit log, one key, one doorbell.
    let books = "select (select count(*) from audit_log where action = 'CreateVpc') * 1000000
                   + (select count(*) from idempotency_keys)";
    let all = found.values().map(Vec::len).sum::<usize>() as i64;
    assert_eq!(api.count(books).await, all * 1_000_001, "{all} VPCs");
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    for (writers, kills) in measure(&[(16, 3)][..], &[(8, 5), (16, 5), (64, 5)][..]) {
        let server = postgres_server().await;
        let outcome = storm(&server, *writers, *kills).await;
        did("C1", &format!("{writers} writers, {kills} kills: {outcome:?}"));
        assert_eq!((outcome.lost, outcome.doubled), (0, 0), "{outcome:?}");
        assert!(outcome.acknowledged >= kills * 60 && outcome.away < BACK, "{outcome:?}");
    }
}

/// The planted bug: a server that acknowledges before it has written. The same check must find what it lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledging_too_early_would_be_noticed() {
    let server = postgres_server().await;
    server
        .configure("synchronous_commit = off\nwal_writer_delay = '10s'\nwal_writer_flush_after = '1GB'\n")
        .unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let outcome = storm(&server, 16, 2).await;
    assert!(outcome.lost > 0, "{outcome:?}");
}
