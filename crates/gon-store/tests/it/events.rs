//! Events are read in an order that skips nothing.

use gon_store::Conn;
use gon_store::events::{EventRow, Position, Watched, after, is_pending, now};
use gon_store::journal::{Author, Entry, write};
use gon_testkit::TestDatabase;
use uuid::Uuid;

async fn author(database: &TestDatabase) -> Author {
    gon_store::admin::script(
        &database.store,
        "insert into accounts (id, name) values ('00000000-0000-0000-0000-0000000000a1', 'a')",
    )
    .await
    .unwrap();
    Author {
        account: Uuid::from_u128(0xa1),
        user: Uuid::from_u128(0xb1),
        name: "ann".to_owned(),
        request_id: "req-1".to_owned(),
        source_ip: Some([127, 0, 0, 1].into()),
    }
}

fn entry(id: u128) -> Entry {
    Entry::new("Test", Uuid::from_u128(id)).event(Watched::Vpc, Uuid::from_u128(id), None, Some("available"))
}

/// Two events, as soon as no transaction of the cluster is older: other tests have theirs.
async fn both(reader: &mut Conn, start: Position) -> Vec<EventRow> {
    for _ in 0..500 {
        let rows = after(reader, start, 10).await.unwrap();
        if rows.len() == 2 {
            return rows;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the events do not come");
}

#[tokio::test]
async fn what_commits_late_is_read_late() {
    let database = gon_testkit::database().await;
    let author = author(&database).await;
    let store = &database.store;
    let mut reader = store.conn().await.unwrap();
    let start = now(&mut reader).await.unwrap();
    assert_eq!(after(&mut reader, start, 10).await.unwrap(), []);
    assert!(!is_pending(&mut reader, start).await.unwrap());

    let mut early = store.begin().await.unwrap();
    write(&mut early, &author, &entry(1), None).await.unwrap();
    let mut late = store.begin().await.unwrap();
    write(&mut late, &author, &entry(2), None).await.unwrap();
    gon_store::commit(late).await.unwrap();
    // The second is committed; the first has a lower number and still runs.
    assert_eq!(after(&mut reader, start, 10).await.unwrap(), []);
    assert!(is_pending(&mut reader, start).await.unwrap());
    gon_store::commit(early).await.unwrap();
    let both = both(&mut reader, start).await;
    assert_eq!(both.iter().map(|e| e.resource_id.as_u128()).collect::<Vec<_>>(), [1, 2]);
    // Page by page, each once.
    let first = after(&mut reader, start, 1).await.unwrap();
    let position = Position { xid: first[0].xid, seq: first[0].seq };
    assert_eq!(after(&mut reader, position, 10).await.unwrap(), both[1..]);
    let end = Position { xid: both[1].xid, seq: both[1].seq };
    assert_eq!(after(&mut reader, end, 10).await.unwrap(), []);
}

#[tokio::test]
async fn what_is_rolled_back_never_happened() {
    let database = gon_testkit::database().await;
    let author = author(&database).await;
    let mut reader = database.store.conn().await.unwrap();
    let start = now(&mut reader).await.unwrap();
    let mut tx = database.store.begin().await.unwrap();
    write(&mut tx, &author, &entry(1).vpc(Uuid::from_u128(5)), None).await.unwrap();
    gon_store::rollback(tx).await.unwrap();
    assert_eq!(after(&mut reader, start, 10).await.unwrap(), []);
    for table in
        ["select count(*) from outbox", "select count(*) from audit_log", "select count(*) from events"]
    {
        assert_eq!(gon_store::admin::number(&database.store, table).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn an_entry_is_written_whole() {
    let database = gon_testkit::database().await;
    let author = author(&database).await;
    let mut tx = database.store.begin().await.unwrap();
    let entry =
        entry(1).vpc(Uuid::from_u128(5)).instance(Uuid::from_u128(6)).detail(serde_json::json!({ "a": 1 }));
    let answered = gon_store::journal::Answered {
        key: "k".to_owned(),
        request_sha256: [7; 32],
        status: 201,
        response: serde_json::json!({ "id": "x" }),
    };
    write(&mut tx, &author, &entry, Some(&answered)).await.unwrap();
    gon_store::commit(tx).await.unwrap();
    let rows = gon_store::admin::json(
        &database.store,
        "select jsonb_build_object(
           'outbox', (select jsonb_agg(subject order by seq) from outbox),
           'audit', (select jsonb_agg(jsonb_build_array(action, request_id, host(source_ip), detail)) from audit_log),
           'events', (select jsonb_agg(jsonb_build_array(resource, to_state, actor)) from events))",
    )
    .await
    .unwrap();
    assert_eq!(
        rows[0],
        serde_json::json!({
            "outbox": ["vpc", "instance", "event"],
            "audit": [["Test", "req-1", "127.0.0.1", { "a": 1 }]],
            "events": [["vpc", "available", "ann"]],
        })
    );
    let mut conn = database.store.conn().await.unwrap();
    let kept = gon_store::idempotency::find(&mut conn, author.account, "k").await.unwrap().unwrap();
    assert_eq!((kept.request_sha256, kept.status, kept.response), (vec![7; 32], 201, answered.response));
    assert_eq!(gon_store::idempotency::find(&mut conn, author.account, "other").await.unwrap(), None);
}
