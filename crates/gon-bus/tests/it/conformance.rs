//! What the trait promises, as tests any adapter can be put through. `make` gives a bus that nobody else uses.

use std::future::Future;
use std::time::Duration;

use gon_bus::{Bus, Rings, Subscription};
use gon_proto::Doorbell;
use gon_proto::doorbell::Subject;
use uuid::Uuid;

pub async fn all<B: Bus, F: Future<Output = B>>(make: impl Fn() -> F) {
    a_subscriber_hears_what_it_asked_for_and_nothing_else(&make().await).await;
    every_subscriber_hears(&make().await).await;
    rings_at_once_are_heard_once(&make().await).await;
    an_abandoned_wait_loses_nothing(&make().await).await;
    a_slow_subscriber_is_told(&make().await).await;
    nobody_listening_is_no_error(&make().await).await;
}

fn bell(subject: Subject) -> Doorbell {
    Doorbell { subject, id: Uuid::now_v7() }
}

async fn next(subscription: &mut Box<dyn Subscription>) -> Rings {
    tokio::time::timeout(Duration::from_secs(10), subscription.next()).await.expect("silence").unwrap()
}

async fn a_subscriber_hears_what_it_asked_for_and_nothing_else(bus: &dyn Bus) {
    let mut vpcs = bus.subscribe(&[Subject::Vpc, Subject::Node]).await.unwrap();
    let (vpc, node) = (bell(Subject::Vpc), bell(Subject::Node));
    bus.publish(&[bell(Subject::Instance), vpc]).await.unwrap();
    assert_eq!(next(&mut vpcs).await, Rings { doorbells: vec![vpc], missed: false });
    bus.publish(&[bell(Subject::Event)]).await.unwrap();
    bus.publish(&[node]).await.unwrap();
    assert_eq!(next(&mut vpcs).await, Rings { doorbells: vec![node], missed: false });
}

async fn every_subscriber_hears(bus: &dyn Bus) {
    let mut one = bus.subscribe(&[Subject::Vpc]).await.unwrap();
    let mut other = bus.subscribe(&[Subject::Vpc]).await.unwrap();
    let vpc = bell(Subject::Vpc);
    bus.publish(&[vpc]).await.unwrap();
    assert_eq!(next(&mut one).await.doorbells, [vpc]);
    assert_eq!(next(&mut other).await.doorbells, [vpc]);
}

async fn rings_at_once_are_heard_once(bus: &dyn Bus) {
    let mut subscription = bus.subscribe(&[Subject::Vpc]).await.unwrap();
    let vpc = bell(Subject::Vpc);
    bus.publish(&[vpc; 10]).await.unwrap();
    let mut heard = next(&mut subscription).await.doorbells;
    // An adapter may deliver in several parts, but a part never repeats itself.
    assert_eq!(heard, [vpc]);
    while let Ok(more) = tokio::time::timeout(Duration::from_millis(50), subscription.next()).await {
        heard = more.unwrap().doorbells;
        assert_eq!(heard, [vpc]);
    }
}

async fn an_abandoned_wait_loses_nothing(bus: &dyn Bus) {
    let mut subscription = bus.subscribe(&[Subject::Instance]).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(20), subscription.next()).await.is_err());
    let instance = bell(Subject::Instance);
    bus.publish(&[instance]).await.unwrap();
    assert_eq!(next(&mut subscription).await.doorbells, [instance]);
}

async fn a_slow_subscriber_is_told(bus: &dyn Bus) {
    let mut slow = bus.subscribe(&[Subject::Event]).await.unwrap();
    let many: Vec<_> = (0..20_000).map(|_| bell(Subject::Event)).collect();
    bus.publish(&many).await.unwrap();
    let (mut heard, mut missed) = (0, false);
    while let Ok(rings) = tokio::time::timeout(Duration::from_millis(200), slow.next()).await {
        let rings = rings.unwrap();
        heard += rings.doorbells.len();
        missed |= rings.missed;
    }
    assert!(missed || heard == many.len(), "heard {heard} of {} and was not told", many.len());
}

async fn nobody_listening_is_no_error(bus: &dyn Bus) {
    bus.publish(&[bell(Subject::Vpc)]).await.unwrap();
    bus.publish(&[]).await.unwrap();
}
