//! C6. A table that somebody holds, and a pool that is used up.

use std::sync::Arc;
use std::time::Duration;

use gon_control::api::ApiConfig;
use gon_testkit::{did, measure};
use tokio::time::Instant;

use super::create;
use crate::api::Api;

/// What is promised, and what a busy machine may add to it.
const ANSWER: Duration = Duration::from_millis(1000 + 250);
const RECOVERY: Duration = Duration::from_secs(2);

/// An API that waits for connections as the product does, and not as long as tests do.
async fn hasty() -> Api {
    let mut database = gon_testkit::database().await;
    database.store = gon_store::Store::connect(&database.url, 8).await.unwrap();
    Api::over(database, ApiConfig::default()).await
}

/// So many requests within two or more seconds: what they were answered, and how long that took.
async fn crowd(api: &Arc<Api>, requests: u64) -> Vec<(u16, Duration)> {
    let mut crowd = tokio::task::JoinSet::new();
    for number in 0..requests {
        let api = Arc::clone(api);
        crowd.spawn(async move {
            tokio::time::sleep(Duration::from_millis(number * 37 % (2_000 * requests.div_ceil(100)))).await;
            let begin = Instant::now();
            let key = format!("crowd-{number}");
            let answer = match number % 3 {
                0 => api.get("/vpcs").await,
                1 => create(&api, "x", Some(&key)).await,
                _ => create(&api, "x", None).await,
            };
            (answer.problem().0, begin.elapsed())
        });
    }
    crowd.join_all().await
}

async fn recovers(api: &Api) {
    let begin = Instant::now();
    while create(api, "after", None).await.status != 201 {
        assert!(begin.elapsed() < RECOVERY);
    }
    api.get("/vpcs").await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_held_delays_nobody_for_long() {
    let api = Arc::new(hasty().await);
    let other = gon_store::Store::connect(&api.database.url, 4).await.unwrap();
    let (locked, held) = tokio::sync::oneshot::channel();
    let release = Arc::new(tokio::sync::Notify::new());
    let holder = tokio::spawn({
        let (other, release) = (other.clone(), Arc::clone(&release));
        async move {
            let mut tx = other.begin().await.unwrap();
            gon_store::admin::lock_table(&mut tx, "vpcs").await.unwrap();
            locked.send(()).unwrap();
            release.notified().await;
            gon_store::rollback(tx).await.unwrap();
        }
    });
    held.await.unwrap();
    // The planted bug: one that waits without our limit goes on waiting.
    let patient = tokio::spawn(async move {
        gon_store::admin::script(&other, "set local lock_timeout = 0; select count(*) from vpcs").await
    });
    let begin = Instant::now();
    let (read, written) = tokio::join!(api.get("/vpcs"), create(&api, "x", Some("k")));
    assert!(begin.elapsed() < ANSWER, "{:?}", begin.elapsed());
    assert_eq!((read.problem(), written.problem()), ((503, "Unavailable"), (503, "Unavailable")));
    // Many more than there are connections, and not all at once: who has waited for a connection may not wait as long
    // again for the table. Readers, writers with a key and writers without.
    let crowd = crowd(&api, measure(60, 300)).await;
    let slowest = crowd.iter().map(|(_, took)| *took).max().unwrap();
    assert!(crowd.iter().all(|(status, _)| *status == 503), "{crowd:?}");
    assert!(slowest < ANSWER, "{slowest:?}");
    did("C6", &format!("a table is held: {} requests, the slowest answer after {slowest:?}", crowd.len()));
    assert!(!patient.is_finished());
    release.notify_one();
    recovers(&api).await;
    holder.await.unwrap();
    patient.await.unwrap().unwrap();
    assert_eq!(api.count("select count(*) from vpcs where name = 'x'").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_used_up_delays_nobody_for_long() {
    let api = hasty().await;
    api.get("/vpcs").await.ok();
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(api.database.store.conn().await.unwrap());
    }
    for _ in 0..2 {
        let begin = Instant::now();
        let (read, written) = tokio::join!(api.get("/vpcs"), create(&api, "x", None));
        assert!(begin.elapsed() < ANSWER, "{:?}", begin.elapsed());
        assert_eq!((read.problem(), written.problem()), ((503, "Unavailable"), (503, "Unavailable")));
    }
    drop(all);
    recovers(&api).await;
}

/// Who has waited for a connection, to be known at all, does not wait as long again for the table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_twice_waits_no_longer() {
    let api = Arc::new(hasty().await);
    let other = gon_store::Store::connect(&api.database.url, 1).await.unwrap();
    let mut tx = other.begin().await.unwrap();
    gon_store::admin::lock_table(&mut tx, "vpcs").await.unwrap();
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(api.database.store.conn().await.unwrap());
    }
    // Who its caller is, is not remembered for longer.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let begin = Instant::now();
    let asked = tokio::spawn({
        let api = Arc::clone(&api);
        async move { (api.get("/vpcs").await, begin.elapsed()) }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(all);
    let (answer, took) = asked.await.unwrap();
    assert_eq!(answer.problem(), (503, "Unavailable"));
    assert!((Duration::from_millis(500)..ANSWER).contains(&took), "{took:?}");
    gon_store::rollback(tx).await.unwrap();
    recovers(&api).await;
}

/// Transactions that somebody began and forgot hold places of changes, and a row; who reads is served meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_transactions_delay_nobody_who_reads() {
    let api = hasty().await;
    create(&api, "there", None).await;
    let mut forgotten = Vec::new();
    while let Ok(mut tx) = api.database.store.begin().await {
        gon_store::relay::ring(&mut tx, "vpc", uuid::Uuid::now_v7()).await.unwrap();
        forgotten.push(tx);
    }
    assert_eq!(forgotten.len(), 6, "of eight connections");
    let begin = Instant::now();
    let (read, written) = tokio::join!(api.get("/vpcs"), create(&api, "x", None));
    assert_eq!(read.ok()["items"].as_array().unwrap().len(), 1);
    assert_eq!(written.problem(), (503, "Unavailable"));
    assert!(begin.elapsed() < ANSWER, "{:?}", begin.elapsed());
    drop(forgotten);
    recovers(&api).await;
}
