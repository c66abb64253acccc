//! Messages that are lost, repeated, or no messages at all.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use gon_bus::Bus;
use gon_proto::Doorbell;
use gon_proto::doorbell::{Envelope, Subject};
use gon_testkit::{did, measure, rabbitmq};
use lapin::BasicProperties;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, BasicRejectOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use uuid::Uuid;

use crate::raw::{SOON, bell, bus, channel, connect, hear, insist, miss, next, send, send_all};

/// So many dead messages are kept.
const DEAD: usize = 10_000;

/// B6. What nobody understands goes to the dead ones, and the next good doorbell is heard within a second.
#[tokio::test]
async fn poison_is_set_aside_and_blocks_nobody() {
    let vhost = rabbitmq::vhost().await;
    let bus = bus(&vhost.url);
    let mut ear = bus.subscribe(&[Subject::Vpc]).await.unwrap();
    let connection = connect(&vhost.url).await;
    let channel = channel(&connection).await;
    let good = format!(
        r#"{{"v":1,"from":"{0}","seq":1,"subject":"vpc","id":"{0}"}}"#,
        "0196f0c2-6c1e-7cc3-98c4-dc0c0c07398f"
    );
    let mut poison: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"{".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        b"null".to_vec(),
        "[".repeat(50_000).into_bytes(),
        good.replace("\"v\":1", "\"v\":2").into_bytes(),
        good.replace("vpc", "planet").into_bytes(),
        good.replace('{', "{\"password\":\"x\",").into_bytes(),
        vec![b' '; 64 * 1024 + 1],
        vec![b'x'; 10 * 1024 * 1024],
    ];
    // And what chance makes of a good one.
    let mut dice = 7_u64;
    let tries = measure(2_000, 130_000);
    for _ in 0..tries {
        let mut body = good.clone().into_bytes();
        for _ in 0..3 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (dice >> 33) as usize % body.len();
            body[at] ^= (dice >> 24) as u8 | 1;
        }
        if serde_json::from_slice::<Envelope>(&body).is_err() {
            poison.push(body);
        }
    }
    assert!(poison.len() > tries * 3 / 4, "{} of {tries}", poison.len());
    send_all(&channel, "vpc", &poison).await;
    // Behind all of them.
    let bell = bell(Subject::Vpc);
    let begin = Instant::now();
    bus.publish(&[bell]).await.unwrap();
    assert!(hear(&mut ear, bell).await, "something else may have been in what could not be read");
    let drained = begin.elapsed();
    assert!(drained < Duration::from_secs(measure(10, 120)), "{drained:?}");
    let begin = Instant::now();
    let again = self::bell(Subject::Vpc);
    bus.publish(&[again]).await.unwrap();
    assert!(!hear(&mut ear, again).await);
    let next_good = begin.elapsed();
    assert!(next_good < Duration::from_secs(1), "{next_good:?}");
    did(
        "B6",
        &format!(
            "{} bodies, one of 10 MB, set aside; the next good one heard after {next_good:?}",
            poison.len()
        ),
    );

    let broker = rabbitmq::shared().await;
    let deadline = Instant::now() + crate::raw::SOON;
    loop {
        let queues = broker.queues(&vhost.name).await.unwrap();
        let (dead, others): (Vec<_>, Vec<_>) = queues.iter().partition(|(name, _)| name == "gon.dead");
        if dead[0].1 == poison.len().min(DEAD) as u64 && others.iter().all(|(_, count)| *count == 0) {
            break;
        }
        assert!(Instant::now() < deadline, "{queues:?}, {} sent", poison.len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The planted bug of B6: a receiver that puts back what it does not understand never comes to what it would.
#[tokio::test]
async fn poison_that_is_put_back_blocks() {
    let vhost = rabbitmq::vhost().await;
    let connection = connect(&vhost.url).await;
    let channel = channel(&connection).await;
    let queue = || "planted".into();
    channel.queue_declare(queue(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    channel.basic_qos(1, BasicQosOptions::default()).await.unwrap();
    for body in [&b"poison"[..], b"good"] {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish("".into(), queue(), options, body, properties).await.unwrap().await.unwrap();
    }
    let options = BasicConsumeOptions::default();
    let mut consumer =
        channel.basic_consume(queue(), "".into(), options, FieldTable::default()).await.unwrap();
    for _ in 0..100 {
        let delivery = consumer.next().await.unwrap().unwrap();
        assert_eq!(delivery.data, b"poison");
        delivery.reject(BasicRejectOptions { requeue: true }).await.unwrap();
    }
}

/// B3. Each message ten times, in any order: every doorbell is heard, and nothing looks lost.
#[tokio::test]
async fn repetition_is_harmless() {
    let vhost = rabbitmq::vhost().await;
    let bus = bus(&vhost.url);
    let mut ear = bus.subscribe(&[Subject::Instance]).await.unwrap();
    let connection = connect(&vhost.url).await;
    let channel = channel(&connection).await;
    let from = Uuid::now_v7();
    let envelopes: Vec<_> = (1..=1_000)
        .map(|seq| Envelope { v: 1, from, seq, subject: Subject::Instance, id: Uuid::now_v7() })
        .collect();
    let mut bodies = Vec::new();
    for (place, envelope) in envelopes.iter().enumerate() {
        let body = serde_json::to_vec(envelope).unwrap();
        bodies.extend(std::iter::repeat_n(body, 5));
        // Old ones come again, too.
        let old = serde_json::to_vec(&envelopes[place / 2]).unwrap();
        bodies.extend(std::iter::repeat_n(old, 5));
    }
    send_all(&channel, "instance", &bodies).await;
    let mut heard = HashSet::new();
    while heard.len() < envelopes.len() {
        let rings = next(&mut ear).await;
        assert!(!rings.missed);
        let unique: HashSet<_> = rings.doorbells.iter().collect();
        assert_eq!(unique.len(), rings.doorbells.len(), "a part repeats itself");
        heard.extend(rings.doorbells);
    }
    let wanted: HashSet<_> = envelopes.iter().map(|e| Doorbell { subject: e.subject, id: e.id }).collect();
    assert_eq!(heard, wanted);
    did(
        "B3",
        &format!("{} messages for {} doorbells, all heard, none taken for lost", bodies.len(), wanted.len()),
    );
}

/// What a receiver makes of numbered envelopes.
type Receiver<'a> = Box<dyn FnMut(&Envelope) -> bool + 'a>;

/// B4. A thousand messages in any order: every doorbell is heard, and the gaps that the disorder looks like are told.
/// The planted bug, a receiver that takes lower numbers than it has seen for old news, loses most of them.
#[tokio::test]
async fn disorder_is_harmless() {
    let vhost = rabbitmq::vhost().await;
    let bus = bus(&vhost.url);
    let mut ear = bus.subscribe(&[Subject::Instance]).await.unwrap();
    let connection = connect(&vhost.url).await;
    let channel = channel(&connection).await;
    let from = Uuid::now_v7();
    let mut envelopes: Vec<_> = (1..=1000)
        .map(|seq| Envelope { v: 1, from, seq, subject: Subject::Instance, id: Uuid::now_v7() })
        .collect();
    let mut dice = 11_u64;
    for place in (1..envelopes.len()).rev() {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        envelopes.swap(place, (dice >> 33) as usize % (place + 1));
    }
    let bodies: Vec<_> = envelopes.iter().map(|envelope| serde_json::to_vec(envelope).unwrap()).collect();
    send_all(&channel, "instance", &bodies).await;
    let (mut heard, mut missed) = (HashSet::new(), false);
    while heard.len() < envelopes.len() {
        let rings = next(&mut ear).await;
        missed |= rings.missed;
        heard.extend(rings.doorbells.into_iter().map(|bell| bell.id));
    }
    assert!(missed, "a gap is a gap until it is filled");
    did("B4", &format!("{} messages in disorder, all heard", envelopes.len()));
    assert_eq!(heard, envelopes.iter().map(|envelope| envelope.id).collect());

    let mut last = 0;
    let mut planted: Receiver<'_> = Box::new(|envelope| {
        let is_news = envelope.seq > last;
        last = last.max(envelope.seq);
        is_news
    });
    let kept = envelopes.iter().filter(|envelope| planted(envelope)).count();
    assert!(kept < 100, "in this order nobody would lose anything: {kept}");
}

/// B5. The broker confirms doorbells and loses some: the subscriber is told with the next one of that sender. (The last
/// one lost is found by the sweep alone.) With nothing lost nobody is told so: the test would notice either bug.
#[tokio::test]
async fn a_silent_loss_is_noticed() {
    let vhost = rabbitmq::vhost().await;
    let bus = bus(&vhost.url);
    let mut ear = bus.subscribe(&[Subject::Vpc]).await.unwrap();
    let queues = rabbitmq::shared().await.queues(&vhost.name).await.unwrap();
    let queue = &queues.iter().find(|(name, _)| name.starts_with("gon.q.")).unwrap().0;
    let connection = connect(&vhost.url).await;
    let channel = connection.create_channel().await.unwrap();
    for round in 0..30 {
        let lost = round % 3 == 1;
        if lost {
            let (queue, key) = (queue.as_str().into(), "vpc".into());
            channel.queue_unbind(queue, "gon.doorbells".into(), key, FieldTable::default()).await.unwrap();
            bus.publish(&[bell(Subject::Vpc)]).await.unwrap();
            let (queue, key) = (queue_name(&queues), "vpc".into());
            let options = QueueBindOptions::default();
            channel
                .queue_bind(queue.into(), "gon.doorbells".into(), key, options, FieldTable::default())
                .await
                .unwrap();
        }
        let bell = bell(Subject::Vpc);
        bus.publish(&[bell]).await.unwrap();
        assert_eq!(hear(&mut ear, bell).await, lost, "round {round}");
    }
}

fn queue_name(queues: &[(String, u64)]) -> &str {
    &queues.iter().find(|(name, _)| name.starts_with("gon.q.")).unwrap().0
}

/// The queue goes away under its subscriber: it has another one soon, and knows that it may have missed something.
#[tokio::test]
async fn a_cancelled_subscriber_mends_itself() {
    let vhost = rabbitmq::vhost().await;
    let bus = bus(&vhost.url);
    let mut ear = bus.subscribe(&[Subject::Node]).await.unwrap();
    let connection = connect(&vhost.url).await;
    let channel = connection.create_channel().await.unwrap();
    for _ in 0..2 {
        let queues = rabbitmq::shared().await.queues(&vhost.name).await.unwrap();
        let options = QueueDeleteOptions::default();
        channel.queue_delete(queue_name(&queues).into(), options).await.unwrap();
        miss(&mut ear).await;
        let bell = bell(Subject::Node);
        bus.publish(&[bell]).await.unwrap();
        hear(&mut ear, bell).await;
    }
}

/// Somebody deletes what all share while doorbells are published: it is made again, whoever listened is bound again, and
/// what is published from then on is heard. The planted bug, a queue that nobody looks after, hears nothing any more.
#[tokio::test]
async fn deleted_exchanges_come_back() {
    let vhost = rabbitmq::vhost().await;
    let bus = bus(&vhost.url);
    let mut ear = bus.subscribe(&[Subject::Node]).await.unwrap();
    let first = bell(Subject::Node);
    insist(&bus, &[first]).await;
    hear(&mut ear, first).await;
    let connection = connect(&vhost.url).await;
    let channel = connection.create_channel().await.unwrap();
    let none = FieldTable::default;
    channel.queue_declare("planted".into(), QueueDeclareOptions::default(), none()).await.unwrap();
    let bind = QueueBindOptions::default();
    channel.queue_bind("planted".into(), "gon.doorbells".into(), "node".into(), bind, none()).await.unwrap();
    delete_shared(&channel).await;

    let begin = Instant::now();
    let second = bell(Subject::Node);
    insist(&bus, &[second]).await;
    hear(&mut ear, second).await;
    let heard_after = begin.elapsed();
    assert!(heard_after < Duration::from_secs(15), "{heard_after:?}");
    did("exchanges deleted by hand", &format!("doorbells are heard again after {heard_after:?}"));
    let queues = rabbitmq::shared().await.queues(&vhost.name).await.unwrap();
    assert!(queues.contains(&("gon.dead".to_owned(), 0)), "{queues:?}");
    assert!(queues.contains(&("planted".to_owned(), 0)), "the test is blind: {queues:?}");
    // And the dead ones arrive.
    send(&self::channel(&connection).await, "node", b"poison").await;
    let deadline = Instant::now() + SOON;
    while !rabbitmq::shared().await.queues(&vhost.name).await.unwrap().contains(&("gon.dead".to_owned(), 1)) {
        assert!(Instant::now() < deadline, "dead messages vanish");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The same while nothing is published: whoever listens notices by itself, and is told that it may have missed some.
#[tokio::test]
async fn a_deleted_exchange_is_noticed_by_who_listens() {
    let vhost = rabbitmq::vhost().await;
    let there = bus(&vhost.url);
    let mut ear = there.subscribe(&[Subject::Node, Subject::Vpc]).await.unwrap();
    let connection = connect(&vhost.url).await;
    let channel = connection.create_channel().await.unwrap();
    for _ in 0..measure(1, 5) {
        delete_shared(&channel).await;
        let begin = Instant::now();
        miss(&mut ear).await;
        assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
        for subject in [Subject::Node, Subject::Vpc] {
            let bell = bell(subject);
            insist(&there, &[bell]).await;
            hear(&mut ear, bell).await;
        }
    }
}

async fn delete_shared(channel: &lapin::Channel) {
    for name in ["gon.doorbells", "gon.dead"] {
        channel.exchange_delete(name.into(), lapin::options::ExchangeDeleteOptions::default()).await.unwrap();
    }
    channel.queue_delete("gon.dead".into(), QueueDeleteOptions::default()).await.unwrap();
}
