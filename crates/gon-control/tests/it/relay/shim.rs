//! B3, B4, B5 with a real controller: a bus that repeats, disorders, delays or swallows what it took.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gon_bus::{Bus, BusError, MemoryBus, Subscription};
use gon_cluster::MemoryLiveness;
use gon_control::network::{NetworkController, NetworkSettings};
use gon_control::reconcile::SWEEP;
use gon_control::relay::{self, Nudge};
use gon_control::status::Metrics;
use gon_proto::Doorbell;
use gon_proto::doorbell::Subject;
use gon_testkit::{did, measure};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::site::uuid;

/// How often each doorbell is delivered.
const TIMES: usize = 10;

/// Takes every doorbell, and delivers it this often.
struct Shim {
    inner: MemoryBus,
    times: usize,
    delivered: AtomicUsize,
    /// Half of what was to be delivered comes with the next ones, the last first.
    late: Mutex<Vec<Doorbell>>,
}

impl Shim {
    fn new(times: usize) -> Self {
        Self { inner: MemoryBus::new(), times, delivered: AtomicUsize::new(0), late: Mutex::default() }
    }
}

#[async_trait]
impl Bus for Shim {
    async fn publish(&self, doorbells: &[Doorbell]) -> Result<(), BusError> {
        let mut late = self.late.lock().await;
        let mut now = std::mem::take(&mut *late);
        now.reverse();
        for bell in doorbells {
            now.extend(std::iter::repeat_n(*bell, self.times - self.times / 2));
            late.extend(std::iter::repeat_n(*bell, self.times / 2));
        }
        // One by one and apart: the controller hears, looks and acts as often as it is rung.
        for bell in now {
            self.inner.publish(&[bell]).await?;
            self.delivered.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
    async fn subscribe(&self, subjects: &[Subject]) -> Result<Box<dyn Subscription>, BusError> {
        self.inner.subscribe(subjects).await
    }
}

/// A site, its network controller and its relay, all at work.
struct Scene {
    database: gon_testkit::TestDatabase,
    bus: Arc<Shim>,
    nudge: Nudge,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    /// When the controller had looked at everything.
    swept: Instant,
}

impl Scene {
    async fn new(times: usize) -> Self {
        let database = gon_testkit::database().await;
        gon_store::admin::script(&database.store, include_str!("../topology.sql")).await.unwrap();
        // What the site rang before it was ours.
        let (tx, _) = gon_store::relay::claim(&database.store, 10_000).await.unwrap();
        gon_store::commit(tx).await.unwrap();
        let (bus, nudge) = (Arc::new(Shim::new(times)), Nudge::new());
        let (metrics, stop) = (Arc::new(Metrics::default()), CancellationToken::new());
        let controller = Arc::new(NetworkController::new(
            database.store.clone(),
            Arc::clone(&bus) as _,
            nudge.clone(),
            NetworkSettings::default(),
            Arc::clone(&metrics),
            stop.clone(),
        ));
        let ready = controller.ready();
        let ends = stop.clone();
        tokio::spawn(async move { controller.run(&MemoryLiveness::new(), "test", ends).await });
        let (store, counted) = (database.store.clone(), Arc::new(Metrics::default()));
        tokio::spawn(relay::run(store, Arc::clone(&bus) as _, nudge.clone(), counted, stop.clone()));
        let deadline = Instant::now() + Duration::from_secs(30);
        while !ready.get() {
            assert!(Instant::now() < deadline, "it never leads");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self { database, bus, nudge, metrics, stop, swept: Instant::now() }
    }
    /// Changes a rule of a group that `n1` and only `n1` has, as the API does.
    async fn change(&self, number: usize) {
        let script = format!(
            "update security_group_rules set peer_cidr = '198.{}.{}.0/24'
               where id = '00000000-0000-7000-8000-000000000602';
             insert into outbox (subject, subject_id) values ('vpc', '{}');",
            number / 256,
            number % 256,
            uuid(0x101)
        );
        gon_store::admin::script(&self.database.store, script.leak()).await.unwrap();
        self.nudge.nudge();
    }
    fn documents(&self) -> u64 {
        self.metrics.network_documents.get()
    }
    /// Waits until there are this many documents; how many there were at the end.
    async fn documents_within(&self, wanted: u64, patience: Duration) -> u64 {
        let deadline = Instant::now() + patience;
        while self.documents() < wanted && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.documents()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// B3, B4: each doorbell ten times, some of them late and in the wrong order; each change has its effect once.
#[tokio::test(flavor = "multi_thread")]
async fn doorbells_that_come_again_have_no_second_effect() {
    let changes = measure(40, 1_000);
    let scene = Scene::new(TIMES).await;
    let before = scene.documents();
    for number in 1..=changes {
        scene.change(number).await;
        let wanted = before + number as u64;
        assert_eq!(scene.documents_within(wanted, Duration::from_secs(20)).await, wanted, "change {number}");
    }
    // Changes that wait together are one doorbell; still each of them was delivered several times.
    let deadline = Instant::now() + Duration::from_secs(20);
    while scene.bus.delivered.load(Ordering::Relaxed) < 3 * changes {
        assert!(Instant::now() < deadline, "the check is blind: {:?} delivered", scene.bus.delivered);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(scene.documents(), before + changes as u64, "an effect twice");
    did("B3, B4", &format!("{changes} changes, {:?} doorbells, each effect once", scene.bus.delivered));
}

/// B5: the bus takes every doorbell and delivers none. The sweep finds what they were about; the planted bug, a
/// controller that waits to be rung, would still know nothing when it comes.
#[tokio::test(flavor = "multi_thread")]
async fn doorbells_that_vanish_after_the_confirm_are_made_good_by_the_sweep() {
    let scene = Scene::new(0).await;
    let before = scene.documents();
    scene.change(1).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while gon_store::relay::waiting(&scene.database.store).await.unwrap() > 0 {
        assert!(Instant::now() < deadline, "it is not taken");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep_until(scene.swept + SWEEP * 6 / 10).await;
    assert_eq!(scene.documents(), before, "something else than the sweep found it");
    let left = (scene.swept + SWEEP + Duration::from_secs(5)).duration_since(Instant::now());
    assert_eq!(scene.documents_within(before + 1, left).await, before + 1);
    did("B5", &format!("found {:?} after the sweep before", scene.swept.elapsed()));
}
