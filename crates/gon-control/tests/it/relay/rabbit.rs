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
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(30);
/// More than a relay takes at once, several times.
const ROWS: usize = 1300;

/// Where everybody lays doorbells.
#[derive(Clone)]
struct Outbox {
    store: Store,
    nudge: Nudge,
}

impl Outbox {
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
    /// Waits until no more than so many wait.
    async fn drained_to(&self, most: i64) {
        let deadline = Instant::now() + SOON;
        while self.waiting().await > most {
            assert!(Instant::now() < deadline, "{} still wait", self.waiting().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Relay, broker, and somebody who listens.
struct Scene {
    outbox: Outbox,
    _database: gon_testkit::TestDatabase,
    ear: Box<dyn Subscription>,
    stop: CancellationToken,
    relay: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Scene {
    async fn new(broker: &Broker) -> Self {
        let database = gon_testkit::database().await;
        let vhost = broker.vhost().await.unwrap();
        broker.eval("mnesia:sync_log()").await.unwrap();
        let bus = |role| -> RabbitBus {
            let config = RabbitConfig::new(vhost.url.as_str().into(), role, "server-1");
            // Whoever has begun to listen misses nothing, also on a busy machine.
            gon_bus::connect(&RabbitConfig { listen_deadline: SOON, ..config }).unwrap()
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
        Self {
            outbox: Outbox { store: database.store.clone(), nudge },
            _database: database,
            ear,
            stop,
            relay,
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

/// What a controller without a sweep knows of what was committed.
#[derive(Default)]
struct Known {
    committed: Mutex<HashSet<Uuid>>,
    heard: Mutex<HashSet<Uuid>>,
    looked_at: Mutex<HashSet<Uuid>>,
}

impl Known {
    async fn listen(self: Arc<Self>, mut ear: Box<dyn Subscription>) {
        loop {
            let rings = ear.next().await.unwrap();
            if rings.missed {
                let all = self.committed.lock().await.clone();
                self.looked_at.lock().await.extend(all);
            }
            self.heard.lock().await.extend(rings.doorbells.iter().map(|bell| bell.id));
        }
    }
    async fn unknown(&self) -> usize {
        let (heard, looked_at) = (self.heard.lock().await, self.looked_at.lock().await);
        self.committed.lock().await.iter().filter(|id| !heard.contains(id) && !looked_at.contains(id)).count()
    }
}

/// B1 and B2 for the relay: the broker is stopped and killed, again and again, while commits go on. They do not wait for
/// it; what waits for it drains soon after it is back; and nothing is missed.
#[tokio::test(flavor = "multi_thread")]
async fn commits_go_on_while_the_broker_dies_and_what_waits_drains() {
    let broker = rabbitmq::exclusive().await;
    let mut scene = Scene::new(&broker).await;
    let before = scene.outbox.commit(10).await;
    assert!(!scene.heard(&before).await);
    let known = Arc::new(Known::default());
    let Scene { outbox, ear, stop, relay, _database } = scene;
    let listener = tokio::spawn(Arc::clone(&known).listen(ear));
    let writing = CancellationToken::new();
    let writer = tokio::spawn({
        let (known, outbox, writing) = (Arc::clone(&known), outbox.clone(), writing.clone());
        async move {
            let mut slowest = Duration::ZERO;
            while !writing.is_cancelled() {
                let begin = Instant::now();
                let ids = outbox.commit(3).await;
                slowest = slowest.max(begin.elapsed());
                known.committed.lock().await.extend(ids);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            slowest
        }
    });
    for kill in [false, true, true] {
        tokio::time::sleep(Duration::from_millis(300)).await;
        match kill {
            true => broker.kill().await.unwrap(),
            false => broker.stop().await.unwrap(),
        }
        // Doorbells go on to wait while it starts, which takes seconds.
        let ids = outbox.commit(ROWS).await;
        known.committed.lock().await.extend(ids);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(outbox.waiting().await >= ROWS as i64, "they are published by whom?");
        broker.restart().await.unwrap();
        outbox.drained_to(ROWS as i64 / 2).await;
    }
    writing.cancel();
    let (slowest, last) = (writer.await.unwrap(), Instant::now());
    outbox.drained_to(0).await;
    let deadline = last + SOON;
    while known.unknown().await > 0 {
        assert!(Instant::now() < deadline, "{} unknown", known.unknown().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (committed, heard) = (known.committed.lock().await.len(), known.heard.lock().await.len());
    gon_testkit::did(
        "B2",
        &format!(
            "{committed} committed, the slowest in {slowest:?}; {heard} heard by doorbell; all known {:?} after the last restart",
            last.elapsed()
        ),
    );
    assert!(slowest < Duration::from_secs(2), "commits wait for the broker: {slowest:?}");
    listener.abort();
    stop.cancel();
    relay.await.unwrap().unwrap();
}

/// B7 for the relay.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_full_broker_drains() {
    let broker = rabbitmq::exclusive().await;
    let mut scene = Scene::new(&broker).await;
    let before = scene.outbox.commit(10).await;
    assert!(!scene.heard(&before).await);
    broker.disk_alarm(true).await.unwrap();
    let mut all = Vec::new();
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        let begin = Instant::now();
        all.extend(scene.outbox.commit(5).await);
        slowest = slowest.max(begin.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "commits wait for the broker: {slowest:?}");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(scene.outbox.waiting().await, 500);
    broker.disk_alarm(false).await.unwrap();
    scene.outbox.drained_to(0).await;
    scene.heard(&all).await;
    scene.end().await;
}
