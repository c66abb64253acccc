mod rabbit;
mod shim;
mod storm;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gon_bus::{Bus, BusError, MemoryBus, Subscription};
use gon_control::relay;
use gon_control::status::Metrics;
use gon_proto::Doorbell;
use gon_proto::doorbell::Subject;
use tokio_util::sync::CancellationToken;

/// A bus that counts, and can be away.
#[derive(Default)]
struct Counting {
    heard: std::sync::Mutex<BTreeMap<uuid::Uuid, usize>>,
    away: AtomicBool,
}

#[async_trait]
impl Bus for Counting {
    async fn publish(&self, doorbells: &[Doorbell]) -> Result<(), BusError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(BusError::Unavailable("away".to_owned()));
        }
        let mut heard = self.heard.lock().unwrap();
        for bell in doorbells {
            *heard.entry(bell.id).or_default() += 1;
        }
        Ok(())
    }
    async fn subscribe(&self, _: &[Subject]) -> Result<Box<dyn Subscription>, BusError> {
        Err(BusError::Unavailable("only counts".to_owned()))
    }
}

#[tokio::test]
async fn a_transaction_that_commits_late_is_not_skipped() {
    let database = gon_testkit::database().await;
    let bus = Counting::default();
    let (late, early) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
    // The late one takes the lower number and commits after the higher one was published.
    let mut tx = database.store.begin().await.unwrap();
    gon_store::relay::ring(&mut tx, "vpc", late).await.unwrap();
    let mut other = database.store.begin().await.unwrap();
    gon_store::relay::ring(&mut other, "vpc", early).await.unwrap();
    gon_store::commit(other).await.unwrap();
    assert_eq!(relay::round(&database.store, &bus).await.unwrap(), 1);
    assert_eq!(relay::round(&database.store, &bus).await.unwrap(), 0);
    gon_store::commit(tx).await.unwrap();
    assert_eq!(relay::round(&database.store, &bus).await.unwrap(), 1);
    assert_eq!(bus.heard.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn nothing_is_lost_while_the_bus_is_away() {
    let database = gon_testkit::database().await;
    let bus = Counting::default();
    bus.away.store(true, Ordering::Relaxed);
    let mut tx = database.store.begin().await.unwrap();
    gon_store::relay::ring(&mut tx, "instance", uuid::Uuid::now_v7()).await.unwrap();
    gon_store::commit(tx).await.unwrap();
    relay::round(&database.store, &bus).await.unwrap_err();
    assert_eq!(gon_store::relay::waiting(&database.store).await.unwrap(), 1);
    bus.away.store(false, Ordering::Relaxed);
    assert_eq!(relay::round(&database.store, &bus).await.unwrap(), 1);
    assert_eq!(gon_store::relay::waiting(&database.store).await.unwrap(), 0);
}

#[tokio::test]
async fn two_relays_share_the_work() {
    let database = gon_testkit::database().await;
    let bus = Counting::default();
    let mut tx = database.store.begin().await.unwrap();
    for _ in 0..2000 {
        gon_store::relay::ring(&mut tx, "vpc", uuid::Uuid::now_v7()).await.unwrap();
    }
    gon_store::commit(tx).await.unwrap();
    let (a, b) = tokio::join!(relay::round(&database.store, &bus), relay::round(&database.store, &bus));
    assert_eq!(a.unwrap() + b.unwrap(), 2000);
    let heard = bus.heard.lock().unwrap();
    assert_eq!(heard.len(), 2000);
    assert!(heard.values().all(|times| *times == 1));
}

#[tokio::test]
async fn a_nudge_is_answered_at_once_and_a_stop_ends_it() {
    let database = gon_testkit::database().await;
    let bus = Arc::new(MemoryBus::new());
    let mut bell = bus.subscribe(&[Subject::Vpc]).await.unwrap();
    let (nudge, stop) = (relay::Nudge::new(), CancellationToken::new());
    let metrics = Arc::new(Metrics::default());
    let running = tokio::spawn(relay::run(
        database.store.clone(),
        Arc::clone(&bus) as _,
        nudge.clone(),
        Arc::clone(&metrics),
        stop.clone(),
    ));
    for round in 1..=3 {
        let id = uuid::Uuid::now_v7();
        let mut tx = database.store.begin().await.unwrap();
        gon_store::relay::ring(&mut tx, "vpc", id).await.unwrap();
        gon_store::commit(tx).await.unwrap();
        nudge.nudge();
        let rings = tokio::time::timeout(Duration::from_secs(5), bell.next()).await.unwrap().unwrap();
        assert_eq!(rings.doorbells, [Doorbell { subject: Subject::Vpc, id }], "round {round}");
    }
    stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(metrics.doorbells.get(), 3);
}
