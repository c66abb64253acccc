//! Listening: a task for every subscription keeps a connection and a queue, and lays what it hears where the subscriber
//! takes it. It acknowledges what it has laid there, when nothing more comes: if this process dies, so does the
//! subscription, and the next one begins with a look at everything.
//!
//! Messages that are no doorbells are rejected, which brings them to the dead ones, and count as missed.
//!
//! A broker tells nobody that an exchange was deleted, which takes the bindings of all queues with it; so every
//! subscription looks now and then, and binds its queue again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use gon_proto::Doorbell;
use gon_proto::doorbell::Subject;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::backoff::{Backoff, endure};
use super::link::{self, Link, unavailable, why};
use super::wire::Heard;
use super::{Settings, topology, wire};
use crate::{BusError, Rings, Subscription};

/// So many messages may be on their way to us unacknowledged.
const PREFETCH: u16 = 512;
/// What was laid out is acknowledged when nothing has come for so long, or half of the above is unacknowledged: the
/// broker's part in that is work for the processors that those who were woken need more.
const REST: Duration = Duration::from_millis(20);
/// So many doorbells are kept for a subscriber that is busy; with more it had better look at everything.
const DEPTH: usize = 4096;
/// How often a subscription looks whether what doorbells come through is there.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// Connects, and returns when that has succeeded, failed once, or takes too long.
pub(super) async fn start(settings: Arc<Settings>, subjects: &[Subject]) -> RabbitSubscription {
    let patience = settings.config.listen_deadline;
    let (tried, first) = oneshot::channel();
    let (alive, stop) = watch::channel(());
    let tray = Arc::new(Tray::default());
    let (subjects, laid) = (subjects.to_vec(), Arc::clone(&tray));
    let mut tried = Some(tried);
    tokio::spawn(endure("subscriber", move |fault| {
        if fault.is_some() {
            laid.lay([], true);
        }
        listen(Arc::clone(&settings), subjects.clone(), Arc::clone(&laid), tried.take(), stop.clone())
    }));
    let _ = timeout(patience, first).await;
    RabbitSubscription { tray, _alive: alive }
}

/// The subscriber's side.
pub(super) struct RabbitSubscription {
    tray: Arc<Tray>,
    // The task ends when this does.
    _alive: watch::Sender<()>,
}

#[async_trait]
impl Subscription for RabbitSubscription {
    async fn next(&mut self) -> Result<Rings, BusError> {
        loop {
            if let Some(rings) = self.tray.take() {
                return Ok(rings);
            }
            self.tray.bell.notified().await;
        }
    }
}

/// Where doorbells lie until they are taken.
#[derive(Default)]
struct Tray {
    content: Mutex<Content>,
    bell: Notify,
}

#[derive(Default)]
struct Content {
    doorbells: BTreeSet<(Subject, Uuid)>,
    missed: bool,
}

impl Tray {
    fn lay(&self, doorbells: impl IntoIterator<Item = (Subject, Uuid)>, missed: bool) {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        content.doorbells.extend(doorbells);
        content.missed |= missed;
        if content.doorbells.len() > DEPTH {
            content.doorbells.clear();
            content.missed = true;
        }
        drop(content);
        self.bell.notify_one();
    }

    fn take(&self) -> Option<Rings> {
        let content = std::mem::take(&mut *self.content.lock().unwrap_or_else(PoisonError::into_inner));
        let doorbells: Vec<_> =
            content.doorbells.into_iter().map(|(subject, id)| Doorbell { subject, id }).collect();
        (content.missed || !doorbells.is_empty()).then_some(Rings { doorbells, missed: content.missed })
    }
}

/// Listens whenever that is possible, until the subscriber is gone.
async fn listen(
    settings: Arc<Settings>,
    subjects: Vec<Subject>,
    tray: Arc<Tray>,
    mut tried: Option<oneshot::Sender<()>>,
    mut stop: watch::Receiver<()>,
) {
    let queue = topology::queue_name(&settings);
    let mut heard = Heard::default();
    let mut backoff = Backoff::default();
    let mut away = false;
    loop {
        let begun = Instant::now();
        let why = match Ear::open(&settings, &queue, &subjects).await {
            Ok(mut ear) => {
                if std::mem::take(&mut away) {
                    tracing::info!(bus = ?settings.uri, ?subjects, "doorbells are heard again");
                }
                // Whoever has not waited until now was not listening before now.
                if tried.take().is_none_or(|tried| tried.send(()).is_err()) {
                    tray.lay([], true);
                }
                let Ear { link, consumer, .. } = &mut ear;
                tokio::select! {
                    why = hear(link, consumer, &tray, &mut heard) => why,
                    why = attend(&link.connection, &settings, &queue, &subjects, &tray) => why,
                    _ = stop.changed() => return ear.close(&queue).await,
                }
            }
            Err(BusError::Unavailable(why)) => why,
        };
        if !std::mem::replace(&mut away, true) {
            tracing::warn!(bus = ?settings.uri, ?subjects, why, "no doorbells are heard");
        }
        if let Some(tried) = tried.take() {
            let _ = tried.send(());
        }
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(backoff.pause(begun.elapsed())) => {}
        }
    }
}

/// A connection that listens.
struct Ear {
    link: Link,
    channel: Channel,
    consumer: Consumer,
}

impl Ear {
    async fn open(settings: &Settings, queue: &str, subjects: &[Subject]) -> Result<Self, BusError> {
        let link = Link::open(settings, "subscriber").await?;
        let cluster = settings.config.cluster;
        let prepare = async {
            topology::shared(&link.connection, cluster).await?;
            let channel = link.connection.create_channel().await?;
            channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
            topology::queue(&channel, cluster, queue, subjects).await?;
            let options = BasicConsumeOptions::default();
            let consumer =
                channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
            lapin::Result::Ok((channel, consumer))
        };
        match timeout(settings.config.connect_deadline, prepare).await {
            Ok(Ok((channel, consumer))) => Ok(Self { link, channel, consumer }),
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(_) => Err(BusError::Unavailable("it does not answer".to_owned())),
        }
    }

    /// The subscriber is gone: so is its queue.
    async fn close(self, queue: &str) {
        let delete = self.channel.queue_delete(queue.into(), QueueDeleteOptions::default());
        let _ = timeout(link::GOODBYE, delete).await;
        self.link.close().await;
    }
}

/// Takes what comes until nothing can come any more, and tells why.
async fn hear(link: &Link, consumer: &mut Consumer, tray: &Tray, heard: &mut Heard) -> String {
    let mut laid = Laid::default();
    loop {
        let mut next = tokio::select! {
            next = consumer.next() => Some(next),
            why = link::ended(link.state()) => return why,
            () = tokio::time::sleep(REST), if laid.last.is_some() => None,
        };
        let mut batch = Vec::new();
        let ended = loop {
            match next {
                Some(Some(Ok(delivery))) => batch.push(delivery),
                Some(Some(Err(error))) => break Some(why(&error)),
                // The queue was deleted, or its broker left the cluster.
                Some(None) => break Some("it no longer delivers".to_owned()),
                None => break None,
            }
            if batch.len() == usize::from(PREFETCH) {
                break None;
            }
            next = consumer.next().now_or_never();
        };
        let rests = batch.is_empty();
        // What is said to a connection that ends at this moment may never be answered, not even by an error.
        let settled = tokio::select! {
            settled = settle(batch, rests || ended.is_some(), &mut laid, tray, heard) => {
                settled.err().map(|error| why(&error))
            }
            why = link::ended(link.state()) => Some(why),
        };
        if let Some(why) = ended.or(settled) {
            return why;
        }
    }
}

/// What was laid out and is not acknowledged.
#[derive(Default)]
struct Laid {
    count: usize,
    last: Option<Delivery>,
}

/// Sees to it again and again that what doorbells come through is there, and tells why when that is no longer so.
async fn attend(
    connection: &Connection,
    settings: &Settings,
    queue: &str,
    subjects: &[Subject],
    tray: &Tray,
) -> String {
    let config = &settings.config;
    let mut told = false;
    loop {
        tokio::time::sleep(LOOK).await;
        let look = async {
            let mut made = false;
            match topology::shared(connection, config.cluster).await {
                Ok(again) => (made, told) = (again, false),
                // It may be the dead ones' alone, which are not worth a connection.
                Err(error) if !std::mem::replace(&mut told, true) => {
                    tracing::warn!(why = why(&error), "what all share is not there and cannot be made");
                }
                Err(_) => {}
            }
            let channel = connection.create_channel().await?;
            topology::bind(&channel, queue, subjects).await?;
            if made {
                // What was published meanwhile nobody has heard; what is published from now on is.
                tray.lay([], true);
            }
            channel.close(200, "".into()).await
        };
        match timeout(config.connect_deadline, look).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return why(&error),
            Err(_) => return "it does not answer".to_owned(),
        }
    }
}

/// Lays out what is in the messages, and tells the broker what became of them: now, or when there are more.
async fn settle(
    batch: Vec<Delivery>,
    now: bool,
    laid: &mut Laid,
    tray: &Tray,
    heard: &mut Heard,
) -> lapin::Result<()> {
    let mut doorbells = BTreeSet::new();
    let mut missed = false;
    let mut poison = Vec::new();
    let anything = !batch.is_empty();
    for delivery in batch {
        match wire::read(&delivery.data) {
            Ok(envelope) => {
                missed |= !heard.note(&envelope);
                doorbells.insert((envelope.subject, envelope.id));
                laid.count += 1;
                laid.last = Some(delivery);
            }
            Err(why) => {
                tracing::warn!(%why, bytes = delivery.data.len(), "a message is no doorbell and is set aside");
                missed = true;
                poison.push(delivery);
            }
        }
    }
    if anything {
        tray.lay(doorbells, missed);
    }
    for delivery in poison {
        delivery.reject(BasicRejectOptions { requeue: false }).await?;
    }
    if (now || laid.count >= usize::from(PREFETCH) / 2)
        && let Laid { last: Some(last), .. } = std::mem::take(laid)
    {
        // With all before it.
        last.ack(BasicAckOptions { multiple: true }).await?;
    }
    Ok(())
}
