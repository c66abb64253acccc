//! Exchanges and queues, their names and their limits.
//!
//! What all share is looked for first and made only where it is missing: a role's user may not make it, and finds it
//! made by the definitions ([`crate::broker::definitions`]). A subscription's queue is made by its subscriber. It lives
//! on for some minutes without it, so that a short absence costs no message, and then the broker removes it.

use gon_proto::doorbell::Subject;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};
use uuid::Uuid;

use super::Settings;

/// The exchange that doorbells are published to; a topic exchange, its keys are the subjects.
pub(crate) const DOORBELLS: &str = "gon.doorbells";
/// The exchange of messages nobody understood, and their queue.
pub(crate) const DEAD: &str = "gon.dead";
/// How the names of subscribers' queues begin; the role's name follows.
pub(crate) const QUEUES: &str = "gon.q.";

/// A queue that nobody has listened to for so long is removed.
const ABANDONED_MS: i64 = 10 * 60 * 1000;
/// So many doorbells wait for a subscriber; then the oldest go, and it notices the gap.
const WAITING: i64 = 50_000;
/// A quorum queue sets a message aside that was delivered so often in vain.
const DELIVERIES: i64 = 20;
/// So many dead messages are kept, of so many bytes together.
const DEAD_MESSAGES: i64 = 10_000;
const DEAD_BYTES: i64 = 64 * 1024 * 1024;

/// The value of an argument of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Argument {
    Text(&'static str),
    Number(i64),
}

fn kind(cluster: bool) -> (&'static str, Argument) {
    ("x-queue-type", Argument::Text(if cluster { "quorum" } else { "classic" }))
}

/// The queue of dead messages, the same here and in the definitions.
pub(crate) fn arguments_of_dead(cluster: bool) -> Vec<(&'static str, Argument)> {
    vec![
        kind(cluster),
        ("x-max-length", Argument::Number(DEAD_MESSAGES)),
        ("x-max-length-bytes", Argument::Number(DEAD_BYTES)),
    ]
}

fn arguments_of_subscriber(cluster: bool) -> Vec<(&'static str, Argument)> {
    let mut arguments = vec![
        kind(cluster),
        ("x-expires", Argument::Number(ABANDONED_MS)),
        ("x-max-length", Argument::Number(WAITING)),
        ("x-dead-letter-exchange", Argument::Text(DEAD)),
    ];
    if cluster {
        arguments.push(("x-delivery-limit", Argument::Number(DELIVERIES)));
    }
    arguments
}

fn table(arguments: Vec<(&'static str, Argument)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString(text.into()),
            Argument::Number(number) => AMQPValue::LongLongInt(number),
        };
        table.insert(name.into(), value);
    }
    table
}

/// A new name for a subscription's queue.
pub(super) fn queue_name(settings: &Settings) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let server: String = settings.config.server.chars().filter(|c| fits(*c)).take(63).collect();
    format!("{QUEUES}{}.{server}.{}", settings.config.role, Uuid::now_v7().simple())
}

/// Sees to it that what all share is there; true if some of it had to be made.
pub(super) async fn shared(connection: &Connection, cluster: bool) -> lapin::Result<bool> {
    let channel = connection.create_channel().await?;
    if declare_shared(&channel, cluster, true).await.is_ok() {
        channel.close(200, "".into()).await?;
        return Ok(false);
    }
    // A failed look closes its channel.
    let channel = connection.create_channel().await?;
    declare_shared(&channel, cluster, false).await?;
    channel
        .queue_bind(DEAD.into(), DEAD.into(), "".into(), QueueBindOptions::default(), FieldTable::default())
        .await?;
    channel.close(200, "".into()).await?;
    Ok(true)
}

async fn declare_shared(channel: &Channel, cluster: bool, passive: bool) -> lapin::Result<()> {
    for (name, kind) in [(DOORBELLS, ExchangeKind::Topic), (DEAD, ExchangeKind::Fanout)] {
        let options = ExchangeDeclareOptions { passive, durable: true, ..ExchangeDeclareOptions::default() };
        channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await?;
    }
    let options = QueueDeclareOptions { passive, durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(DEAD.into(), options, table(arguments_of_dead(cluster))).await?;
    Ok(())
}

/// Makes a subscription's queue, or finds it.
pub(super) async fn queue(
    channel: &Channel,
    cluster: bool,
    name: &str,
    subjects: &[Subject],
) -> lapin::Result<()> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.into(), options, table(arguments_of_subscriber(cluster))).await?;
    bind(channel, name, subjects).await
}

/// Binds a subscription's queue to its subjects; where it is bound already, nothing happens.
pub(super) async fn bind(channel: &Channel, name: &str, subjects: &[Subject]) -> lapin::Result<()> {
    for subject in subjects {
        channel
            .queue_bind(
                name.into(),
                DOORBELLS.into(),
                subject.as_str().into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await?;
    }
    Ok(())
}
