//! C6. A table that somebody holds, and a pool that is used up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::create;
use crate::api::Api;

/// What is promised, and what a busy machine may add to it.
const ANSWER: Duration = Duration::from_millis(1000 + 250);
const RECOVERY: Duration = Duration::from_secs(2);

async fn recovers(api: &Api) {
    let begin = Instant::now();
    while create(api, "after", None).await.status != 201 {
        assert!(begin.elapsed() < RECOVERY);
    }
    api.get("/vpcs").await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_held_delays_nobody_for_long() {
    let api = Arc::new(Api::new().await);
    let other = gon_store::Store::connect(&api.database.url, 2).await.unwrap();
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
    // Many more than there are connections: each waits for one, and then for the table.
    let mut crowd = tokio::task::JoinSet::new();
    let begin = Instant::now();
    for _ in 0..40 {
        let api = Arc::clone(&api);
        crowd.spawn(async move { (api.get("/vpcs").await.problem().0, begin.elapsed()) });
    }
    for (status, took) in crowd.join_all().await {
        assert!(status == 503 && took < 2 * ANSWER, "{status} after {took:?}");
    }
    assert!(!patient.is_finished());
    release.notify_one();
    recovers(&api).await;
    holder.await.unwrap();
    patient.await.unwrap().unwrap();
    assert_eq!(api.count("select count(*) from vpcs where name = 'x'").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_used_up_delays_nobody_for_long() {
    let api = Api::new().await;
    api.get("/vpcs").await.ok();
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(api.database.store.begin().await.unwrap());
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
