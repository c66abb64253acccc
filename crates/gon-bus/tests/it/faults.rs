//! What a broker goes through, on a real one: killed, stopped, hanging, full, closing its doors.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gon_bus::{Bus, BusState, RabbitBus, RabbitConfig, Subscription};
use gon_proto::doorbell::Subject;
use gon_testkit::rabbitmq::{self, Broker, TestVhost};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::raw::{SOON, bell, bus, config, hear, insist, miss, until};

/// A vhost whose definition has reached the disk: a broker forgets what it was told just before it is killed.
async fn lasting_vhost(broker: &Broker) -> TestVhost {
    let vhost = broker.vhost().await.unwrap();
    broker.eval("mnesia:sync_log()").await.unwrap();
    vhost
}

fn impatient(url: &str) -> RabbitConfig {
    RabbitConfig {
        publish_deadline: Duration::from_secs(1),
        connect_deadline: Duration::from_secs(2),
        heartbeat: Duration::from_secs(1),
        ..config(url)
    }
}

/// Stands for PostgreSQL and for everybody around it: what was published, and what the subscriber has seen of it, be it
/// by a doorbell or by a look at everything.
#[derive(Default)]
struct World {
    published: Mutex<HashSet<Uuid>>,
    seen: Mutex<HashSet<Uuid>>,
    looks: std::sync::atomic::AtomicUsize,
}

impl World {
    /// A controller without a sweep: whatever it learns, it learns from the bus.
    async fn listen(self: Arc<Self>, mut ear: Box<dyn Subscription>) {
        loop {
            let rings = ear.next().await.unwrap();
            if rings.missed {
                self.looks.fetch_add(1, Ordering::Relaxed);
                let all = self.published.lock().await.clone();
                self.seen.lock().await.extend(all);
            }
            self.seen.lock().await.extend(rings.doorbells.iter().map(|bell| bell.id));
        }
    }
    /// A relay: every doorbell is committed first and published until it is taken. Returns how often it was not.
    async fn publish(self: Arc<Self>, bus: RabbitBus, stop: Arc<AtomicBool>) -> usize {
        let mut refused = 0;
        while !stop.load(Ordering::Relaxed) {
            let bell = bell(Subject::Instance);
            self.published.lock().await.insert(bell.id);
            while let Err(_away) = bus.publish(&[bell]).await {
                refused += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        refused
    }
    async fn unseen(&self) -> usize {
        self.published.lock().await.difference(&*self.seen.lock().await).count()
    }
}

/// Runs relay and controller around `faults`, and counts what the controller never learnt of.
async fn around<F: Future<Output = ()>>(url: &str, faults: impl FnOnce() -> F) -> (usize, Arc<World>) {
    let world = Arc::new(World::default());
    let (here, there) = (bus(url), bus(url));
    let ear = there.subscribe(&[Subject::Instance]).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let listener = tokio::spawn(Arc::clone(&world).listen(ear));
    let publisher = tokio::spawn(Arc::clone(&world).publish(here, Arc::clone(&stop)));
    faults().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    let refused = publisher.await.unwrap();
    let deadline = Instant::now() + SOON;
    while world.unseen().await > 0 {
        assert!(Instant::now() < deadline, "{} never heard of", world.unseen().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    listener.abort();
    (refused, world)
}

/// B2 in small.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_loses_nothing_that_is_not_made_good() {
    let broker = rabbitmq::exclusive().await;
    let vhost = lasting_vhost(&broker).await;
    let (refused, world) = around(&vhost.url, || async {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            broker.kill().await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            broker.restart().await.unwrap();
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
    })
    .await;
    let looks = world.looks.load(Ordering::Relaxed);
    assert!(refused > 0, "the broker was never away");
    assert!(looks >= 2, "{looks} looks at everything after two crashes");
    println!("{} published, {refused} refused, {looks} looks", world.published.lock().await.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_connections_are_opened_again() {
    let broker = rabbitmq::exclusive().await;
    let vhost = lasting_vhost(&broker).await;
    let (_, world) = around(&vhost.url, || async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            broker.close_connections().await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
    })
    .await;
    assert!(world.looks.load(Ordering::Relaxed) >= 1);
    assert!(world.published.lock().await.len() > 100);
}

/// The beginning of B1: no broker yet. Whoever listens and whoever publishes starts all the same.
#[tokio::test]
async fn a_broker_that_comes_later_is_found() {
    let broker = rabbitmq::exclusive().await;
    let vhost = lasting_vhost(&broker).await;
    broker.stop().await.unwrap();
    let bus = bus(&vhost.url);
    let begin = Instant::now();
    let mut ear = bus.subscribe(&[Subject::Vpc]).await.unwrap();
    bus.publish(&[bell(Subject::Vpc)]).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(matches!(bus.state(), BusState::Down(_)), "{:?}", bus.state());
    broker.restart().await.unwrap();
    miss(&mut ear).await;
    let bell = bell(Subject::Vpc);
    insist(&bus, &[bell]).await;
    hear(&mut ear, bell).await;
}

/// B7. A full disk: publishing says so at once and never hangs, listening goes on, and it ends with the alarm.
#[tokio::test]
async fn a_full_disk_refuses_and_does_not_hang() {
    let broker = rabbitmq::exclusive().await;
    let vhost = lasting_vhost(&broker).await;
    let bus = gon_bus::connect(&impatient(&vhost.url)).unwrap();
    let mut ear = bus.subscribe(&[Subject::Vpc]).await.unwrap();
    insist(&bus, &[bell(Subject::Vpc)]).await;
    broker.disk_alarm(true).await.unwrap();
    let begin = Instant::now();
    let error = bus.publish(&[bell(Subject::Vpc)]).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
    let begin = Instant::now();
    for _ in 0..100 {
        bus.publish(&[bell(Subject::Vpc); 500]).await.unwrap_err();
    }
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "known to be full is a quick answer: {:?}",
        begin.elapsed()
    );
    assert!(matches!(bus.state(), BusState::Blocked(_)), "{:?} after {error}", bus.state());
    // Longer than the heartbeat would allow a silent peer.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(matches!(bus.state(), BusState::Blocked(_)), "{:?}", bus.state());
    broker.disk_alarm(false).await.unwrap();
    until(&bus, "up", |state| *state == BusState::Up).await;
    let bell = bell(Subject::Vpc);
    insist(&bus, &[bell]).await;
    hear(&mut ear, bell).await;
}

/// A broker that hangs: a publish ends at its deadline, and both sides notice and come back.
#[tokio::test]
async fn a_hanging_broker_is_given_up_and_found_again() {
    let broker = rabbitmq::exclusive().await;
    let vhost = lasting_vhost(&broker).await;
    let bus = gon_bus::connect(&impatient(&vhost.url)).unwrap();
    let mut ear = bus.subscribe(&[Subject::Vpc]).await.unwrap();
    insist(&bus, &[bell(Subject::Vpc)]).await;
    broker.freeze().await.unwrap();
    let begin = Instant::now();
    bus.publish(&[bell(Subject::Vpc)]).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    until(&bus, "down", |state| matches!(state, BusState::Down(_))).await;
    // Long enough for several connections that begin and never answer.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten().filter(|task| {
        std::fs::read_to_string(task.path().join("comm")).unwrap_or_default().starts_with("lapin")
    });
    let threads = threads.count();
    broker.thaw().await.unwrap();
    miss(&mut ear).await;
    let bell = bell(Subject::Vpc);
    insist(&bus, &[bell]).await;
    hear(&mut ear, bell).await;
    // Other tests of this process have theirs, too.
    assert!(threads < 60, "{threads} threads of connections that were given up");
}
