//! The store against a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod certificates;
mod constraints;
mod events;
mod leader;
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
