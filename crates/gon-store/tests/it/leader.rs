//! The fence: whose epoch is the highest may write, and nobody else, whatever he believes.

use std::time::{Duration, Instant};

use gon_store::StoreError;
use gon_store::leader::{Fence, take_over};

const ROLE: &str = "tester";

fn fence(epoch: u64) -> Fence {
    Fence { role: ROLE, epoch }
}

#[tokio::test]
async fn only_the_highest_epoch_writes() {
    let database = gon_testkit::database().await;
    let store = &database.store;
    // Nobody leads yet.
    assert!(matches!(fence(0).begin(store).await, Err(StoreError::Deposed { by: 0, .. })));
    let first = take_over(store, ROLE, "a").await.unwrap();
    gon_store::rollback(fence(first).begin(store).await.unwrap()).await.unwrap();
    fence(first).check(&mut store.conn().await.unwrap()).await.unwrap();
    let second = take_over(store, ROLE, "b").await.unwrap();
    assert_eq!(second, first + 1);
    for refused in [
        fence(first).begin(store).await.err(),
        fence(first).begin_relaxed(store).await.err(),
        fence(first).check(&mut store.conn().await.unwrap()).await.err(),
        fence(second + 1).begin(store).await.err(),
    ] {
        assert!(
            matches!(refused, Some(StoreError::Deposed { role: ROLE, by, .. }) if by == second),
            "{refused:?}"
        );
    }
    gon_store::commit(fence(second).begin(store).await.unwrap()).await.unwrap();
    // Another role has its own.
    assert_eq!(take_over(store, "other", "a").await.unwrap(), 1);
    fence(second).check(&mut store.conn().await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_take_over_waits_for_what_is_being_done() {
    let database = gon_testkit::database().await;
    let store = database.store.clone();
    let first = take_over(&store, ROLE, "a").await.unwrap();
    let mut tx = fence(first).begin(&store).await.unwrap();
    gon_store::relay::ring(&mut tx, "node", uuid::Uuid::from_u128(1)).await.unwrap();
    let successor = tokio::spawn({
        let store = store.clone();
        async move { take_over(&store, ROLE, "b").await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!successor.is_finished(), "it took over in the middle");
    gon_store::commit(tx).await.unwrap();
    assert_eq!(successor.await.unwrap().unwrap(), first + 1);
    // What was done before counts; from now on nothing does.
    assert_eq!(gon_store::relay::waiting(&store).await.unwrap(), 1);
    assert!(fence(first).begin(&store).await.is_err());
}

#[tokio::test]
async fn who_sleeps_in_the_middle_is_thrown_out() {
    let database = gon_testkit::database().await;
    let store = database.store.clone();
    let first = take_over(&store, ROLE, "a").await.unwrap();
    let mut tx = fence(first).begin(&store).await.unwrap();
    gon_store::relay::ring(&mut tx, "node", uuid::Uuid::from_u128(1)).await.unwrap();
    // The sleeper does nothing. Its successor tries again and again, as `Seat::raise` does.
    let begin = Instant::now();
    while let Err(error) = take_over(&store, ROLE, "b").await {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert!(begin.elapsed() < Duration::from_secs(8), "nobody throws the sleeper out");
    }
    // It wakes: nothing of what it had begun comes about.
    assert!(gon_store::commit(tx).await.is_err());
    assert_eq!(gon_store::relay::waiting(&store).await.unwrap(), 0);
}
