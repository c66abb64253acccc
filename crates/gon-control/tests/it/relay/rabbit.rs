//! The relay on a real broker that goes away: the outbox waits, commits do not, and what waited drains.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use gon_bus::{Bus, RabbitBus, RabbitConfig, Subscription};
use gon_control::relay::{self, Nudge};
use gon_control::status::Metrics;
use gon_proto::doorbell::Subject;
use gon_store::Store;
use gon_testkit::rabbitmq::{self, Broker};
use gon_types::Role;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(30);
/// More than a relay takes at once, several times.
const ROWS: usize = 1300;

/// Relay, broker, and somebody who listens.
struct Scene {
    store: Store,
    _database: gon_testkit::TestDatabase,
    ear: Box<dyn Subscription>,
    nudge: Nudge,
    stop: CancellationToken,
    relay: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Scene {
    async fn new(broker: &Broker) -> Self {
        let database = gon_testkit::database().await;
        let vhost = broker.vhost().await.unwrap();
        broker.eval("mnesia:sync_log()").await.unwrap();
        let bus = |role| -> RabbitBus {
            gon_bus::connect(&RabbitConfig::new(vhost.url.as_str().into(), role, "server-1")).unwrap()
        };
        let ear = bus(Role::NetworkController).subscribe(&[Subject::Vpc]).await.unwrap();
        let (nudge, stop) = (Nudge::new(), CancellationToken::new());
        let relay = tokio::spawn(relay::run(
            database.store.clone(),
            Arc::new(bus(Role::ApiServer)) as _,
            nudge.clone(),
            Arc::new(Metrics::default()),
            stop.clone(),
        ));
        Self { store: database.store.clone(), _database: database, ear, nudge, stop, relay }
    }
    /// What an API server does: one transaction, and a nudge.
    async fn commit(&self, rows: usize) -> Vec<Uuid> {
        let ids: Vec<_> = (0..rows).map(|_| Uuid::now_v7()).collect();
        let mut tx = self.store.begin().await.unwrap();
        for id in &ids {
            gon_store::relay::ring(&mut tx, "vpc", *id).await.unwrap();
        }
        gon_store::commit(tx).await.unwrap();
        self.nudge.nudge();
        ids
    }
    async fn waiting(&self) -> i64 {
        gon_store::relay::waiting(&self.store).await.unwrap()
    }
    async fn drained(&self) {
        let deadline = Instant::now() + SOON;
        while self.waiting().await > 0 {
            assert!(Instant::now() < deadline, "{} still wait", self.waiting().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    /// Waits until every id was heard, or the listener was told to look at everything after `since` it was rung.
    async fn heard(&mut self, ids: &[Uuid]) -> bool {
        let mut left: HashSet<_> = ids.iter().copied().collect();
        let mut missed = false;
        while !left.is_empty() {
            let rings = tokio::time::timeout(SOON, self.ear.next()).await.expect("silence").unwrap();
            missed |= rings.missed;
            for bell in rings.doorbells {
                left.remove(&bell.id);
            }
        }
        missed
    }
    async fn end(self) {
        self.stop.cancel();
        self.relay.await.unwrap().unwrap();
    }
}

/// B1 for the relay, and B2 of what waits.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_stopped_broker_drains() {
    let broker = rabbitmq::exclusive().await;
    let mut scene = Scene::new(&broker).await;
    let before = scene.commit(10).await;
    assert!(!scene.heard(&before).await);
    for kill in [false, true] {
        if kill {
            broker.kill().await.unwrap()
        } else {
            broker.stop().await.unwrap()
        }
        let begin = Instant::now();
        let ids = scene.commit(ROWS).await;
        let more = scene.commit(1).await;
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "commits wait for the broker: {:?}",
            begin.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(scene.waiting().await, ROWS as i64 + 1);
        broker.restart().await.unwrap();
        scene.drained().await;
        // The listener may come back after the relay: then it hears that it missed some, and looks.
        let all: Vec<_> = ids.into_iter().chain(more).collect();
        let deadline = Instant::now() + SOON;
        let (mut left, mut missed) = (all.iter().copied().collect::<HashSet<_>>(), false);
        while !left.is_empty() && !missed {
            let rings = tokio::time::timeout_at(deadline, scene.ear.next()).await.expect("silence").unwrap();
            missed |= rings.missed;
            rings.doorbells.iter().for_each(|bell| {
                left.remove(&bell.id);
            });
        }
        // And it hears again.
        let after = scene.commit(10).await;
        scene.heard(&after).await;
    }
    scene.end().await;
}

/// B7 for the relay.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_full_broker_drains() {
    let broker = rabbitmq::exclusive().await;
    let mut scene = Scene::new(&broker).await;
    let before = scene.commit(10).await;
    assert!(!scene.heard(&before).await);
    broker.disk_alarm(true).await.unwrap();
    let mut all = Vec::new();
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        let begin = Instant::now();
        all.extend(scene.commit(5).await);
        slowest = slowest.max(begin.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "commits wait for the broker: {slowest:?}");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(scene.waiting().await, 500);
    broker.disk_alarm(false).await.unwrap();
    scene.drained().await;
    scene.heard(&all).await;
    scene.end().await;
}
