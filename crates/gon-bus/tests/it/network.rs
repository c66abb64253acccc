//! The broker is well and the network is not: through the fault proxy.

use std::time::{Duration, Instant};

use gon_bus::{Bus, BusState, RabbitBus};
use gon_proto::doorbell::Subject;
use gon_testkit::proxy::{Direction, End, Faults, Proxy, amqp};
use gon_testkit::rabbitmq;

use crate::raw::{bell, config, hear, insist, miss, until};

async fn behind_proxy() -> (RabbitBus, Proxy) {
    let vhost = rabbitmq::vhost().await;
    let broker = rabbitmq::shared().await;
    let proxy = Proxy::start(([127, 0, 0, 1], broker.port()).into(), Some(amqp), 42).await.unwrap();
    let url = vhost.url.replace(&broker.port().to_string(), &proxy.address().port().to_string());
    let mut config = config(&url);
    config.publish_deadline = Duration::from_secs(2);
    config.connect_deadline = Duration::from_secs(2);
    config.heartbeat = Duration::from_secs(1);
    (gon_bus::connect(&config).unwrap(), proxy)
}

/// Each by itself, and all at once; connections that end in the middle of what is said, several times.
#[tokio::test(flavor = "multi_thread")]
async fn it_comes_back_from_every_kind_of_broken_network() {
    let none = Faults::default();
    let both = |faults| move |proxy: &Proxy| proxy.set_both(faults);
    type Break = Box<dyn Fn(&Proxy) + Send + Sync>;
    let mut breaks: Vec<(&str, Break)> = vec![
        ("silent", Box::new(both(Faults::frozen()))),
        ("deaf", Box::new(|proxy| proxy.set(Direction::ToServer, Faults::frozen()))),
        ("mute", Box::new(|proxy| proxy.set(Direction::ToClient, Faults::frozen()))),
        ("cut in the middle", Box::new(both(Faults { truncate_after: Some(700), ..none }))),
        ("reset in the middle", Box::new(both(Faults { reset_after: Some(900), ..none }))),
        ("twice", Box::new(both(Faults { duplicate: 300, ..none }))),
        ("in disorder", Box::new(both(Faults { swap: 300, ..none }))),
        ("with holes", Box::new(both(Faults { drop: 300, ..none }))),
    ];
    for _ in 0..4 {
        breaks.push(("closed", Box::new(|proxy| proxy.end(End::Close))));
        breaks.push(("reset", Box::new(|proxy| proxy.end(End::Reset))));
    }
    let all: Vec<_> = breaks
        .into_iter()
        .map(|(what, broken)| tokio::spawn(async move { comes_back(what, &broken).await }))
        .collect();
    for one in all {
        one.await.unwrap();
    }
}

async fn comes_back(what: &str, broken: &(dyn Fn(&Proxy) + Send + Sync)) {
    let (bus, proxy) = behind_proxy().await;
    let mut ear = bus.subscribe(&[Subject::Vpc]).await.unwrap();
    insist(&bus, &[bell(Subject::Vpc)]).await;
    // It has to fail or to succeed: in time, and without a panic.
    let begin = Instant::now();
    let mut is_broken = false;
    while begin.elapsed() < Duration::from_millis(2000) {
        if !is_broken && begin.elapsed() > Duration::from_millis(300) {
            broken(&proxy);
            is_broken = true;
        }
        let one = Instant::now();
        let _ = bus.publish(&[bell(Subject::Vpc); 20]).await;
        assert!(one.elapsed() < Duration::from_secs(5), "{what}: {:?}", one.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.heal();
    // What was broken stays broken until somebody notices, which heartbeats do.
    proxy.end(End::Close);
    miss(&mut ear).await;
    let bell = bell(Subject::Vpc);
    insist(&bus, &[bell]).await;
    hear(&mut ear, bell).await;
}

#[tokio::test]
async fn silence_is_noticed_by_heartbeats() {
    let (bus, proxy) = behind_proxy().await;
    let mut ear = bus.subscribe(&[Subject::Vpc]).await.unwrap();
    insist(&bus, &[bell(Subject::Vpc)]).await;
    let before = proxy.connections();
    proxy.set_both(Faults::frozen());
    let begin = Instant::now();
    until(&bus, "down", |state| matches!(state, BusState::Down(_))).await;
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    tokio::time::sleep(Duration::from_secs(4)).await;
    proxy.heal();
    miss(&mut ear).await;
    // Silent connections were given up, and neither hurried nor gave up trying.
    let tries = proxy.connections() - before;
    assert!((2..40).contains(&tries), "{tries}");
}

#[tokio::test]
async fn a_slow_network_only_slows() {
    let (bus, proxy) = behind_proxy().await;
    proxy.set_both(Faults {
        delay: Duration::from_millis(15),
        jitter: Duration::from_millis(10),
        ..Faults::default()
    });
    let mut ear = bus.subscribe(&[Subject::Vpc]).await.unwrap();
    let bells: Vec<_> = (0..500).map(|_| bell(Subject::Vpc)).collect();
    insist(&bus, &bells[..1]).await;
    let begin = Instant::now();
    bus.publish(&bells).await.unwrap();
    // One round trip for all of them: five hundred are a quarter of a minute.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(!hear(&mut ear, bells[499]).await);
}
