use std::time::{Duration, Instant};

use gon_bus::{Bus, BusState, RabbitBus};
use gon_proto::doorbell::Subject;
use gon_testkit::rabbitmq;

use crate::conformance;
use crate::raw::{bell, bus, config, hear, insist, next, until};

async fn own(cluster: bool) -> RabbitBus {
    let vhost = rabbitmq::vhost().await;
    let mut config = config(&vhost.url);
    config.cluster = cluster;
    gon_bus::connect(&config).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_of_many_processes_conforms() {
    conformance::all(|| own(false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_of_a_cluster_conforms() {
    conformance::all(|| own(true)).await;
}

#[tokio::test]
async fn processes_hear_each_other() {
    let vhost = rabbitmq::vhost().await;
    let (one, other) = (bus(&vhost.url), bus(&vhost.url));
    let mut ear = one.subscribe(&[Subject::Instance]).await.unwrap();
    let bells: Vec<_> = (0..500).map(|_| bell(Subject::Instance)).collect();
    other.publish(&bells).await.unwrap();
    one.publish(&bells[..1]).await.unwrap();
    let mut heard = std::collections::HashSet::new();
    while heard.len() < bells.len() {
        let rings = next(&mut ear).await;
        assert!(!rings.missed);
        heard.extend(rings.doorbells);
    }
    assert_eq!((one.state(), other.state()), (BusState::Up, BusState::Up));
}

#[tokio::test]
async fn what_is_over_leaves_nothing() {
    let vhost = rabbitmq::vhost().await;
    let broker = rabbitmq::shared().await;
    let bus = bus(&vhost.url);
    let ears = [bus.subscribe(&[Subject::Vpc]).await.unwrap(), bus.subscribe(&[Subject::Vpc]).await.unwrap()];
    let queues = broker.queues(&vhost.name).await.unwrap();
    assert_eq!(queues.len(), 3, "{queues:?}");
    assert!(queues.iter().any(|(name, _)| name == "gon.dead"));
    let own = |name: &str| name.starts_with("gon.q.network-controller.server-1.");
    assert_eq!(queues.iter().filter(|(name, _)| own(name)).count(), 2, "{queues:?}");
    let connections = format!(
        "length([C || C <- rabbit_networking:connections(), \
         [{{vhost, V}}] <- [rabbit_reader:info(C, [vhost])], V =:= <<\"{}\">>])",
        vhost.name
    );
    insist(&bus, &[bell(Subject::Vpc)]).await;
    assert_eq!(broker.eval(&connections).await.unwrap(), "3");
    drop((ears, bus));
    let deadline = Instant::now() + crate::raw::SOON;
    loop {
        let queues = broker.queues(&vhost.name).await.unwrap();
        if queues.len() == 1 && broker.eval(&connections).await.unwrap() == "0" {
            break;
        }
        assert!(Instant::now() < deadline, "{queues:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_and_repeats_no_secret() {
    for url in ["", "rabbit", "http://u:hunter2@h/v", "amqp:hunter2", "amqps://u:hunter2@h:5671/gon"] {
        let error = gon_bus::connect(&config(url)).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    // Nobody listens there, which is no error of the configuration.
    let config = config("amqp://user:hunter2@127.0.0.1:9/gon");
    let bus = gon_bus::connect(&config).unwrap();
    assert!(!format!("{config:?} {bus:?}").contains("hunter2"));
    until(&bus, "down", |state| matches!(state, BusState::Down(_))).await;
    let begin = Instant::now();
    let error = bus.publish(&[bell(Subject::Vpc)]).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_millis(500), "no connection is a quick answer");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

/// Not a benchmark: shows that nothing on the way waits for a timer or a disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_doorbell_is_heard_at_once() {
    let vhost = rabbitmq::vhost().await;
    for cluster in [false, true] {
        let mut config = config(&vhost.url);
        config.cluster = cluster;
        let (here, there) = (gon_bus::connect(&config).unwrap(), gon_bus::connect(&config).unwrap());
        let mut ear = there.subscribe(&[Subject::Vpc]).await.unwrap();
        let (mut heard, mut confirmed) = (Vec::new(), Vec::new());
        for _ in 0..300 {
            let bell = bell(Subject::Vpc);
            let begin = Instant::now();
            let publish = async {
                here.publish(&[bell]).await.unwrap();
                begin.elapsed()
            };
            let hear = async {
                hear(&mut ear, bell).await;
                begin.elapsed()
            };
            let (took, after) = tokio::join!(publish, hear);
            confirmed.push(took);
            heard.push(after);
        }
        let begin = Instant::now();
        let bells: Vec<_> = (0..500).map(|_| bell(Subject::Vpc)).collect();
        here.publish(&bells).await.unwrap();
        let batch = begin.elapsed();
        for times in [&mut heard, &mut confirmed] {
            times.sort();
        }
        let at = |times: &[Duration], of_a_hundred: usize| times[times.len() * of_a_hundred / 100];
        println!(
            "cluster {cluster}: publish to hear p50 {:?} p99 {:?}, confirm p50 {:?} p99 {:?}, 500 at once {batch:?}",
            at(&heard, 50),
            at(&heard, 99),
            at(&confirmed, 50),
            at(&confirmed, 99),
        );
        assert!(at(&heard, 50) < Duration::from_millis(50), "{:?}", at(&heard, 50));
        assert!(batch < Duration::from_secs(2), "{batch:?}");
    }
}
