//! What wakes a controller.

use std::collections::BTreeSet;
use std::time::Duration;

use gon_bus::{Bus, MemoryBus};
use gon_control::reconcile::{Bell, Wake};
use gon_proto::Doorbell;
use gon_proto::doorbell::Subject;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longer than two looks into the outbox, much shorter than a sweep.
const SOON: Duration = Duration::from_secs(3);

async fn lay(database: &gon_testkit::TestDatabase, subject: &'static str, id: Uuid) {
    let mut tx = database.store.begin().await.unwrap();
    gon_store::relay::ring(&mut tx, subject, id).await.unwrap();
    gon_store::commit(tx).await.unwrap();
}

#[tokio::test]
async fn a_doorbell_that_nobody_rings_wakes_once() {
    let database = gon_testkit::database().await;
    // Nobody relays: as with the bus away, but for a subscription that says so.
    let bus = MemoryBus::new();
    let stop = CancellationToken::new();
    let subjects = [Subject::Instance, Subject::Node];
    let mut bell = Bell::listen(&bus, &database.store, &subjects, stop.clone()).await.unwrap();
    assert_eq!(bell.wait().await, Wake::Sweep, "whatever happened before");
    let (mine, other) = (Uuid::now_v7(), Uuid::now_v7());
    lay(&database, "instance", mine).await;
    lay(&database, "event", other).await;
    let woken = timeout(SOON, bell.wait()).await.expect("found long before the sweep");
    assert_eq!(woken, Wake::Rung(BTreeSet::from([(Subject::Instance, mine)])));
    assert!(timeout(SOON, bell.wait()).await.is_err(), "it lies there still, and has woken already");
    // A bell that rings is heard at once, whatever lies in the outbox.
    bus.publish(&[Doorbell { subject: Subject::Node, id: other }]).await.unwrap();
    let woken = timeout(Duration::from_millis(500), bell.wait()).await.expect("rung");
    assert_eq!(woken, Wake::Rung(BTreeSet::from([(Subject::Node, other)])));
    stop.cancel();
    assert_eq!(bell.wait().await, Wake::Stop);
}
