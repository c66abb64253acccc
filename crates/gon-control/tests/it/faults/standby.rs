//! C4. The synchronous standby is gone: a commit would wait for ever.

use std::time::Duration;

use gon_testkit::postgres_server;
use tokio::time::Instant;

use super::{create, insist};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_nobody_confirms_is_answered_in_time_and_is_one() {
    let server = postgres_server().await;
    let api = super::api(&server, server.port()).await;
    assert_eq!(create(&api, "before", None).await.status, 201);
    server.configure("synchronous_standby_names = 'nobody'\n").unwrap();
    let setting = "select to_jsonb(current_setting('synchronous_standby_names'))";
    while gon_store::admin::json(&api.database.store, setting).await.unwrap() != ["nobody"] {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The process that makes it hold has heard of it as well.
    tokio::time::sleep(Duration::from_millis(500)).await;

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
