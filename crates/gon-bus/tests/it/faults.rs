//! What a broker goes through, on a real one: killed, stopped, hanging, full, closing its doors.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gon_bus::{Bus, BusState, RabbitBus, RabbitConfig, Subscription};
use gon_proto::doorbell::Subject;
use gon_testkit::proxy::{Direction, End, Faults, Proxy, amqp};
use gon_testkit::rabbitmq::{self, Broker, TestVhost};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::raw::{SOON, bell, bus, channel, config, connect, hear, insist, miss, send, until};

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
        listen_deadline: Duration::from_secs(2),
        heartbeat: Duration::from_secs(1),
        ..config(url)
    }
}

/// Stands for PostgreSQL and for everybody around it: what was published, and what the subscriber has seen of it, be it
/// by a doorbell or by a look at everything.
#[derive(Default)]
struct World {
    published: Mutex<HashSet<Uuid>>,
    confirmed: Mutex<HashSet<Uuid>>,
    heard: Mutex<HashSet<Uuid>>,
    looked_at: Mutex<HashSet<Uuid>>,
    looks: AtomicUsize,
    refused: AtomicUsize,
}

impl World {
    /// A controller without a sweep: whatever it learns, it learns from the bus.
    async fn listen(self: Arc<Self>, mut ear: Box<dyn Subscription>) {
        loop {
            let rings = ear.next().await.unwrap();
            if rings.missed {
                let all = self.published.lock().await.clone();
                self.looked_at.lock().await.extend(all);
                self.looks.fetch_add(1, Ordering::Relaxed);
            }
            self.heard.lock().await.extend(rings.doorbells.iter().map(|bell| bell.id));
        }
    }
    /// A relay: every doorbell is committed first and published until it is taken.
    async fn publish(self: Arc<Self>, bus: RabbitBus, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            let bell = bell(Subject::Instance);
            self.published.lock().await.insert(bell.id);
            while let Err(_away) = bus.publish(&[bell]).await {
                self.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            self.confirmed.lock().await.insert(bell.id);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    fn looks(&self) -> usize {
        self.looks.load(Ordering::Relaxed)
    }
    async fn confirmed(&self) -> usize {
        self.confirmed.lock().await.len()
    }
    /// Waits until so many more doorbells were confirmed.
    async fn more(&self, count: usize) {
        let wanted = self.confirmed().await + count;
        let deadline = Instant::now() + SOON;
        while self.confirmed().await < wanted {
            assert!(Instant::now() < deadline, "the bus takes no doorbells");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    /// Waits for another look at everything than the first `before`.
    async fn look(&self, before: usize) {
        let deadline = Instant::now() + SOON;
        while self.looks() <= before {
            assert!(Instant::now() < deadline, "the subscriber was never told");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    async fn unseen(&self) -> usize {
        let (heard, looked_at) = (self.heard.lock().await, self.looked_at.lock().await);
        self.published.lock().await.iter().filter(|id| !heard.contains(id) && !looked_at.contains(id)).count()
    }
    /// The planted bug: a controller that does not look at everything when it is told that it missed some.
    async fn unheard_though_confirmed(&self) -> usize {
        self.confirmed.lock().await.difference(&*self.heard.lock().await).count()
    }
}

/// Runs a relay, and a controller that listens at `ear`, around `faults`; whatever was published must have been seen
/// soon after. The controller reads in another connection than the one its doorbells come by.
async fn around<F: Future<Output = ()>>(
    url: &str,
    ear: &str,
    faults: impl FnOnce(Arc<World>) -> F,
) -> Arc<World> {
    let world = Arc::new(World::default());
    let (here, there) = (bus(url), bus(ear));
    let ear = there.subscribe(&[Subject::Instance]).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let listener = tokio::spawn(Arc::clone(&world).listen(ear));
    let publisher = tokio::spawn(Arc::clone(&world).publish(here, Arc::clone(&stop)));
    faults(Arc::clone(&world)).await;
    stop.store(true, Ordering::Relaxed);
    publisher.await.unwrap();
    let deadline = Instant::now() + SOON;
    while world.unseen().await > 0 {
        assert!(Instant::now() < deadline, "{} never heard of", world.unseen().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    listener.abort();
    world
}

/// B2: killed again and again while doorbells are published. Each time there are some that it has confirmed and the
/// subscriber has not heard, and they die with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_loses_nothing_that_is_not_made_good() {
    const KILLS: usize = 3;
    const DOOMED: usize = 50;
    let broker = rabbitmq::exclusive().await;
    let vhost = lasting_vhost(&broker).await;
    let proxy = Proxy::start(([127, 0, 0, 1], broker.port()).into(), Some(amqp), 1).await.unwrap();
    let ear = vhost.url.replace(&broker.port().to_string(), &proxy.address().port().to_string());
    let begin = Instant::now();
    let world = around(&vhost.url, &ear, async |world| {
        for _ in 0..KILLS {
            world.more(DOOMED).await;
            proxy.set(Direction::ToClient, Faults::frozen());
            // What is on its way arrives, and then nothing does.
            tokio::time::sleep(Duration::from_millis(50)).await;
            world.more(DOOMED).await;
            let looks = world.looks();
            broker.kill().await.unwrap();
            proxy.end(End::Reset);
            proxy.heal();
            broker.restart().await.unwrap();
            world.look(looks).await;
            world.more(1).await;
        }
    })
    .await;
    let lost = world.unheard_though_confirmed().await;
    let (published, refused) = (world.published.lock().await.len(), world.refused.load(Ordering::Relaxed));
    println!(
        "{published} published, {refused} refused, {} looks, {lost} would be lost without; {:?}",
        world.looks(),
        begin.elapsed()
    );
    assert!(refused > 0, "the broker was never away");
    assert!(lost >= KILLS * DOOMED / 2, "the check is blind: {lost} doorbells died with the broker");
}

/// Closed by an operator, in the middle of whatever is said.
#[tokio::test(flavor = "multi_thread")]
async fn closed_connections_are_opened_again() {
    let broker = rabbitmq::shared().await;
    let vhost = broker.vhost().await.unwrap();
    let world = around(&vhost.url, &vhost.url, async |world| {
        for _ in 0..5 {
            world.more(50).await;
            let looks = world.looks();
            broker.close_connections(&vhost.name).await.unwrap();
            world.look(looks).await;
            world.more(1).await;
        }
    })
    .await;
    assert!(world.looks() >= 5);
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
    // The planted bug: whoever publishes without our deadline waits as long as the alarm lasts, which is longer here than
    // the heartbeat would allow a silent peer.
    let connection = connect(&vhost.url).await;
    let raw = channel(&connection).await;
    let waits = tokio::time::timeout(Duration::from_secs(3), send(&raw, "vpc", b"{}")).await;
    assert!(waits.is_err(), "the alarm blocks nobody");
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
    // Whoever begins to listen now is not held up, and listens later.
    let begin = Instant::now();
    let mut late = bus.subscribe(&[Subject::Vpc]).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    // Long enough for several connections that begin and never answer.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten().filter(|task| {
        std::fs::read_to_string(task.path().join("comm")).unwrap_or_default().starts_with("lapin")
    });
    let threads = threads.count();
    broker.thaw().await.unwrap();
    miss(&mut ear).await;
    miss(&mut late).await;
    let bell = bell(Subject::Vpc);
    insist(&bus, &[bell]).await;
    hear(&mut ear, bell).await;
    hear(&mut late, bell).await;
    // Other tests of this process have theirs, too.
    assert!(threads < 60, "{threads} threads of connections that were given up");
}
