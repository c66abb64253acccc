//! AMQP without the bus: to do what nobody should, and to see what is there.

use std::time::Duration;

use gon_bus::{Bus, BusState, RabbitBus, RabbitConfig, Rings, Subscription};
use gon_proto::Doorbell;
use gon_proto::doorbell::Subject;
use gon_types::Role;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use uuid::Uuid;

/// What should happen on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

pub fn config(url: &str) -> RabbitConfig {
    let config = RabbitConfig::new(url.into(), Role::NetworkController, "server-1");
    patient(config)
}

/// Whoever has begun to listen misses nothing, also on a busy machine.
pub fn patient(config: RabbitConfig) -> RabbitConfig {
    RabbitConfig { connect_deadline: SOON / 3, listen_deadline: SOON, ..config }
}

pub fn bus(url: &str) -> RabbitBus {
    gon_bus::connect(&config(url)).unwrap()
}

pub fn bell(subject: Subject) -> Doorbell {
    Doorbell { subject, id: Uuid::now_v7() }
}

pub async fn next(subscription: &mut Box<dyn Subscription>) -> Rings {
    tokio::time::timeout(SOON, subscription.next()).await.expect("silence").unwrap()
}

/// Waits for this doorbell; true if some were missed meanwhile.
pub async fn hear(subscription: &mut Box<dyn Subscription>, wanted: Doorbell) -> bool {
    let mut missed = false;
    loop {
        let rings = next(subscription).await;
        missed |= rings.missed;
        if rings.doorbells.contains(&wanted) {
            return missed;
        }
    }
}

/// Waits until the subscriber is told that it missed something.
pub async fn miss(subscription: &mut Box<dyn Subscription>) {
    while !next(subscription).await.missed {}
}

/// Publishes as a relay does: again and again until it is taken.
pub async fn insist(bus: &dyn Bus, doorbells: &[Doorbell]) {
    let insist = async {
        while bus.publish(doorbells).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(2 * SOON, insist).await.expect("the bus never takes doorbells again");
}

pub async fn until(bus: &RabbitBus, what: &str, wanted: impl Fn(&BusState) -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !wanted(&bus.state()) {
        assert!(tokio::time::Instant::now() < deadline, "the bus does not become {what}: {:?}", bus.state());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn connect(url: &str) -> Connection {
    Connection::connect(url, ConnectionProperties::default()).await.unwrap()
}

/// A channel with confirms.
pub async fn channel(connection: &Connection) -> Channel {
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    channel
}

pub async fn send(channel: &Channel, key: &str, body: &[u8]) {
    let options = BasicPublishOptions::default();
    channel
        .basic_publish("gon.doorbells".into(), key.into(), options, body, BasicProperties::default())
        .await
        .unwrap()
        .await
        .unwrap();
}

/// Sends all of them, a thousand at once, and waits until they are taken.
pub async fn send_all(channel: &Channel, key: &str, bodies: &[Vec<u8>]) {
    for part in bodies.chunks(1000) {
        let sent = part.iter().map(|body| {
            let options = BasicPublishOptions::default();
            channel.basic_publish(
                "gon.doorbells".into(),
                key.into(),
                options,
                body,
                BasicProperties::default(),
            )
        });
        let confirms = futures_util::future::try_join_all(sent).await.unwrap();
        for confirm in futures_util::future::join_all(confirms).await {
            confirm.unwrap();
        }
    }
}
