//! C4. The synchronous standby is gone: a commit would wait for ever.

use std::sync::Arc;
use std::time::Duration;

use gon_testkit::{PostgresServer, did, measure, postgres_server};
use tokio::time::Instant;

use super::{create, insist};
use crate::api::Api;

/// From now on commits wait for somebody who is not there.
async fn lose_standby(server: &PostgresServer, api: &Api) {
    server.configure("synchronous_standby_names = 'nobody'\n").unwrap();
    let setting = "select to_jsonb(current_setting('synchronous_standby_names'))";
    while gon_store::admin::json(&api.database.store, setting).await.unwrap() != ["nobody"] {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The process that makes it hold has heard of it as well.
    tokio::time::sleep(Duration::from_millis(500)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_nobody_confirms_is_answered_in_time_and_is_one() {
    let server = postgres_server().await;
    let api = super::api(&server, server.port()).await;
    assert_eq!(create(&api, "before", None).await.status, 201);
    lose_standby(&server, &api).await;
    let begin = Instant::now();
    // The planted bug: the same commit without our deadline.
    let mut bare = api.database.store.begin().await.unwrap();
    gon_store::relay::ring(&mut bare, "vpc", uuid::Uuid::now_v7()).await.unwrap();
    let hanging = tokio::spawn(bare.commit());
    let (keyed, plain, read) =
        tokio::join!(create(&api, "keyed", Some("k")), create(&api, "plain", None), async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            api.get("/vpcs").await
        });
    let took = begin.elapsed();
    for answer in [keyed, plain] {
        assert_eq!(answer.problem(), (503, "OutcomeUnknown"));
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert!(gon_store::COMMIT_DEADLINE <= took && took < Duration::from_secs(5), "{took:?}");
    // Who reads is served, and sees nothing that is not sure.
    assert_eq!(read.ok()["items"].as_array().unwrap().len(), 1);
    assert!(!hanging.is_finished(), "the commit without a deadline returned: the test proves nothing");
    // Repeated meanwhile: not done twice, and not "done".
    assert_eq!(create(&api, "keyed", Some("k")).await.problem().0, 503);

    server.configure("").unwrap();
    insist(&api, "keyed", "k", Duration::from_secs(2)).await;
    hanging.await.unwrap().unwrap();
    for name in ["keyed", "plain"] {
        let found = api.get(&format!("/vpcs?name={name}")).await.ok();
        assert_eq!(found["items"].as_array().unwrap().len(), 1, "{name}");
    }
    assert_eq!(api.count("select count(*) from idempotency_keys").await, 1);
}

/// Far more clients than connections write and go on writing while nobody confirms. Who reads is served all the time, and
/// who writes has an honest answer in time. The planted bug: changes that may have all connections starve the readers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_hang_leave_readers_alone() {
    const WRITERS: usize = 24;
    let server = postgres_server().await;
    let api = Arc::new(super::api(&server, server.port()).await);
    assert_eq!(create(&api, "before", None).await.status, 201);
    lose_standby(&server, &api).await;
    let end = Instant::now() + Duration::from_secs(measure(6, 120));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let api = Arc::clone(&api);
            tokio::spawn(async move {
                let (mut answers, mut slowest) = (Vec::new(), Duration::ZERO);
                for number in 0.. {
                    if Instant::now() > end {
                        break;
                    }
                    let name = format!("w{writer}-{number}");
                    let begin = Instant::now();
                    let answer = create(&api, &name, (writer % 2 == 0).then_some(&*name)).await;
                    slowest = slowest.max(begin.elapsed());
                    answers.push((answer.problem().0, answer.problem().1.to_owned()));
                }
                (answers, slowest)
            })
        })
        .collect();
    let (mut reads, mut slowest_read) = (0, Duration::ZERO);
    tokio::time::sleep(Duration::from_millis(500)).await;
    while Instant::now() < end {
        let begin = Instant::now();
        let read = api.get("/vpcs").await.ok();
        slowest_read = slowest_read.max(begin.elapsed());
        assert_eq!(read["items"].as_array().unwrap().len(), 1, "it shows what is not sure");
        reads += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (mut unknown, mut refused, mut slowest_write) = (0, 0, Duration::ZERO);
    for writer in writers {
        let (answers, slowest) = writer.await.unwrap();
        slowest_write = slowest_write.max(slowest);
        for answer in answers {
            match (answer.0, answer.1.as_str()) {
                (503, "OutcomeUnknown") => unknown += 1,
                (503, "Unavailable") => refused += 1,
                _ => panic!("{answer:?}"),
            }
        }
    }
    assert!(
        reads > 50 && slowest_read < Duration::from_secs(1),
        "{reads} reads, the slowest {slowest_read:?}"
    );
    assert!(slowest_write < Duration::from_secs(5), "{slowest_write:?}");
    assert!(unknown > 0 && refused > 0, "{unknown} unknown, {refused} refused");
    did(
        "C4",
        &format!(
            "{WRITERS} writers, {unknown} answers unknown and {refused} refused, the slowest after {slowest_write:?}; \
             meanwhile {reads} reads, the slowest {slowest_read:?}"
        ),
    );

    // The planted bug.
    let mut hanging = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let pool = api.database.store.pool().clone();
        hanging.spawn(async move {
            let mut tx = loop {
                match pool.begin().await {
                    Ok(tx) => break tx,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            };
            gon_store::relay::ring(&mut tx, "vpc", uuid::Uuid::now_v7()).await.unwrap();
            let _ = tx.commit().await;
        });
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while api.get("/vpcs").await.status != 503 {
        assert!(Instant::now() < deadline, "eight commits that hang starve nobody: the test proves nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    server.configure("").unwrap();
    let begin = Instant::now();
    insist(&api, "after", "after", Duration::from_secs(2)).await;
    did("C4", &format!("writes are accepted {:?} after the standby is there again", begin.elapsed()));
    hanging.join_all().await;
}
