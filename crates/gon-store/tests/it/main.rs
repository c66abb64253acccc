//! The store against a real PostgreSQL.

#[tokio::test]
async fn a_test_has_a_migrated_database_of_its_own() {
    let (a, b) = tokio::join!(gon_testkit::database(), gon_testkit::database());
    assert_ne!(a.url, b.url);
    a.store.migrate().await.unwrap();
    a.store.ping().await.unwrap();
}
