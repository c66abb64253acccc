//! Connections that PostgreSQL ended while they rested are noticed by whoever takes them next, and by nobody else.

use gon_store::Store;

#[tokio::test]
async fn a_transaction_begins_although_every_connection_has_died() {
    let database = gon_testkit::database().await;
    let store = Store::connect(&database.url, 4).await.unwrap();
    let mut taken = vec![];
    for _ in 0..4 {
        taken.push(store.conn().await.unwrap());
    }
    drop(taken);
    while store.connections() != (4, 4) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let all = "do $$ begin perform pg_terminate_backend(pid) from pg_stat_activity
               where datname = current_database() and pid <> pg_backend_pid(); end $$";
    gon_store::admin::script(&database.store, all).await.unwrap();
    // At once: they have not rested long enough to be tested.
    let tx = store.begin().await.unwrap();
    gon_store::commit(tx).await.unwrap();
    store.close().await;
}
