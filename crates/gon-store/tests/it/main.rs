//! The store against a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod certificates;
mod constraints;
mod events;
mod leader;
mod network_acls;
mod network_objects;
mod pool;
mod restoration;
mod sessions;

#[tokio::test]
async fn a_test_has_a_migrated_database_of_its_own() {
    let (a, b) = tokio::join!(gon_testkit::database(), gon_testkit::database());
    assert_ne!(a.url, b.url);
    // Migrating again changes nothing.
    a.store.migrate().await.unwrap();
    a.store.ping().await.unwrap();
}

#[tokio::test]
async fn a_database_without_room_is_unavailable_and_no_fault_of_ours() {
    let database = gon_testkit::database().await;
    for statement in [
        "do $$ begin raise exception 'could not extend file' using errcode = '53100'; end $$",
        "do $$ begin raise exception 'out of memory' using errcode = '53200'; end $$",
        "do $$ begin raise exception 'too many connections' using errcode = '53300'; end $$",
    ] {
        let refused = gon_store::admin::script(&database.store, statement).await;
        assert!(matches!(refused, Err(gon_store::StoreError::Unavailable(_))), "{refused:?}");
    }
    let broken = "do $$ begin raise exception 'broken' using errcode = 'XX000'; end $$";
    let broken = gon_store::admin::script(&database.store, broken).await;
    assert!(matches!(broken, Err(gon_store::StoreError::Db(_))), "{broken:?}");
}

#[tokio::test]
async fn names_of_databases_are_plain() {
    let database = gon_testkit::database().await;
    for bad in ["", "a b", "a;drop", "A", "a\"b", "é"] {
        let refused = gon_store::admin::create_database(&database.url, bad, None).await;
        assert!(matches!(refused, Err(gon_store::StoreError::Name(_))), "{bad}");
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_unavailable() {
    let refused = gon_store::Store::connect("postgres:///gon?host=/nonexistent&user=gon", 1).await;
    assert!(matches!(refused, Err(gon_store::StoreError::Unavailable(_))), "{refused:?}");
}
