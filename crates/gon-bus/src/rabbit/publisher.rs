//! Publishing: one connection that a task keeps, and batches whose confirms are awaited together.
//!
//! A publish fails at once while there is no connection or the broker blocks us, and at its deadline otherwise; it is
//! for the caller, who still has the doorbells, to come again. A connection that does not confirm in time is given up.
//! What was handed over before a failure may arrive all the same, which is harmless.
//!
//! A deleted exchange closes the channel, and making it again brings back no subscriber's binding. Until all of them have
//! had the time to bind anew, a doorbell that no queue took counts as not published.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use gon_proto::Doorbell;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, PublisherConfirm};
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::{Instant, timeout};

use super::backoff::{Backoff, endure};
use super::link::{Link, LinkState, ended, unavailable};
use super::{BusState, DOORBELLS, Settings, subscriber, topology, wire};
use crate::BusError;

/// So many doorbells are on their way at once.
const BATCH: usize = 1000;
/// Transient: a doorbell that a broker loses when it dies is made good by what its subscribers hear when it is back, so
/// nothing waits for a disk. (Quorum queues keep everything on disk anyway.)
const DELIVERY_MODE: u8 = 1;

/// Within this time after something was deleted every subscriber is bound again.
const BOUND_AGAIN: Duration = subscriber::LOOK.saturating_mul(2);

/// Publishes for all clones of a bus.
#[derive(Debug)]
pub(super) struct Publisher {
    settings: Arc<Settings>,
    live: watch::Receiver<Live>,
    /// Held while messages are handed over, so that their numbers are in the order of the wire.
    sender: Mutex<wire::Sender>,
}

/// The connection of now.
#[derive(Clone)]
enum Live {
    Starting,
    Up(Arc<Line>),
    Down(String),
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Starting => "Starting",
            Self::Up(_) => "Up",
            Self::Down(_) => "Down",
        })
    }
}

struct Line {
    link: Link,
    channel: Channel,
    /// Somebody found it unusable.
    failed: Notify,
    /// Until then somebody has to hear what is published.
    strict_until: Option<Instant>,
}

impl Publisher {
    /// Connects in the background, from now on until it is dropped.
    pub(super) fn start(settings: Arc<Settings>) -> Self {
        let (sender, live) = watch::channel(Live::Starting);
        let (kept, sender) = (Arc::clone(&settings), Arc::new(sender));
        tokio::spawn(endure("publisher", move |fault| {
            if let Some(fault) = fault {
                sender.send_replace(Live::Down(fault.to_owned()));
            }
            keep(Arc::clone(&kept), Arc::clone(&sender))
        }));
        Self { settings, live, sender: Mutex::new(wire::Sender::new()) }
    }

    pub(super) fn state(&self) -> BusState {
        match &*self.live.borrow() {
            Live::Starting => BusState::Starting,
            Live::Down(why) => BusState::Down(why.clone()),
            Live::Up(line) => match &*line.link.state().borrow() {
                LinkState::Open => BusState::Up,
                LinkState::Blocked(why) => BusState::Blocked(why.clone()),
                LinkState::Ended(why) => BusState::Down(why.clone()),
            },
        }
    }

    pub(super) async fn publish(&self, doorbells: &[Doorbell]) -> Result<(), BusError> {
        if doorbells.is_empty() {
            return Ok(());
        }
        let deadline = self.settings.config.publish_deadline;
        let line = timeout(deadline, self.line()).await.map_err(|_| late())??;
        for batch in doorbells.chunks(BATCH) {
            match timeout(deadline, self.publish_batch(&line, batch)).await {
                Ok(done) => done?,
                Err(_) => {
                    line.link.abandon();
                    return Err(late());
                }
            }
        }
        Ok(())
    }

    async fn line(&self) -> Result<Arc<Line>, BusError> {
        let mut live = self.live.clone();
        let known = live.wait_for(|live| !matches!(live, Live::Starting)).await.map(|live| live.clone());
        match known {
            Ok(Live::Up(line)) => Ok(line),
            Ok(Live::Down(why)) => Err(BusError::Unavailable(why)),
            Ok(Live::Starting) | Err(_) => Err(BusError::Unavailable("it is being shut down".to_owned())),
        }
    }

    async fn publish_batch(&self, line: &Line, batch: &[Doorbell]) -> Result<(), BusError> {
        tokio::select! {
            biased;
            why = line.link.interrupted() => Err(BusError::Unavailable(why)),
            done = async { line.confirmed(self.hand_over(line, batch).await?).await } => done,
        }
    }

    async fn hand_over(&self, line: &Line, batch: &[Doorbell]) -> Result<Vec<PublisherConfirm>, BusError> {
        let mut sender = self.sender.lock().await;
        let bodies: Vec<_> = batch
            .iter()
            .map(|doorbell| (doorbell.subject, wire::write(&sender.envelope(*doorbell))))
            .collect();
        let options = BasicPublishOptions { mandatory: line.is_strict(), ..BasicPublishOptions::default() };
        // All are handed over before the first is waited for: they leave in as few writes as fit.
        let handed_over = bodies.iter().map(|(subject, body)| {
            line.channel.basic_publish(
                DOORBELLS.into(),
                subject.as_str().into(),
                options,
                body,
                BasicProperties::default()
                    .with_content_type("application/json".into())
                    .with_delivery_mode(DELIVERY_MODE),
            )
        });
        try_join_all(handed_over).await.map_err(|error| line.fail(&error))
    }
}

fn late() -> BusError {
    BusError::Unavailable("it did not confirm in time".to_owned())
}

impl Line {
    /// `before` is how the one before ended.
    async fn open(settings: &Settings, before: End) -> Result<Self, BusError> {
        let link = Link::open(settings, "publisher").await?;
        let prepare = async {
            let made = topology::shared(&link.connection, settings.config.cluster).await?;
            let channel = link.connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            lapin::Result::Ok((made, channel))
        };
        match timeout(settings.config.connect_deadline, prepare).await {
            Ok(Ok((made, channel))) => {
                let strict = match before {
                    End::None => false,
                    End::Connection => made,
                    // Somebody else may have made the exchange again meanwhile.
                    End::Channel => true,
                };
                let strict_until = strict.then(|| Instant::now() + BOUND_AGAIN);
                Ok(Self { link, channel, failed: Notify::new(), strict_until })
            }
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(_) => Err(BusError::Unavailable("it does not answer".to_owned())),
        }
    }

    fn is_strict(&self) -> bool {
        self.strict_until.is_some_and(|until| Instant::now() < until)
    }

    async fn confirmed(&self, confirms: Vec<PublisherConfirm>) -> Result<(), BusError> {
        let mut unheard = false;
        for confirm in join_all(confirms).await {
            let confirm = confirm.map_err(|error| self.fail(&error))?;
            if !confirm.is_ack() {
                return Err(BusError::Unavailable("it refused some".to_owned()));
            }
            // Only what was published as mandatory comes back.
            unheard |= confirm.take_message().is_some();
        }
        if unheard {
            return Err(BusError::Unavailable("not all subscribers are bound again".to_owned()));
        }
        Ok(())
    }

    /// Another connection is needed.
    fn fail(&self, error: &lapin::Error) -> BusError {
        self.failed.notify_one();
        unavailable(error)
    }
}

/// How a connection that published has ended.
#[derive(Debug, Clone, Copy)]
enum End {
    /// There was none.
    None,
    /// By itself.
    Connection,
    /// Its channel was closed: an exchange that is not there is the usual cause.
    Channel,
}

/// Has a connection whenever there can be one.
async fn keep(settings: Arc<Settings>, live: Arc<watch::Sender<Live>>) {
    let mut backoff = Backoff::default();
    let mut away = false;
    let mut end = End::None;
    loop {
        let begun = Instant::now();
        let why = match Line::open(&settings, end).await {
            Ok(line) => {
                if std::mem::take(&mut away) {
                    tracing::info!(bus = ?settings.uri, "the bus takes doorbells again");
                }
                let line = Arc::new(line);
                live.send_replace(Live::Up(Arc::clone(&line)));
                tokio::select! {
                    () = live.closed() => {
                        line.link.close().await;
                        return;
                    }
                    () = line.failed.notified() => {
                        end = End::Channel;
                        "its channel was closed".to_owned()
                    }
                    why = ended(line.link.state()) => {
                        end = End::Connection;
                        why
                    }
                }
            }
            Err(BusError::Unavailable(why)) => why,
        };
        if !std::mem::replace(&mut away, true) {
            tracing::warn!(bus = ?settings.uri, why, "the bus takes no doorbells");
        }
        live.send_replace(Live::Down(why));
        tokio::select! {
            () = live.closed() => return,
            () = tokio::time::sleep(backoff.pause(begun.elapsed())) => {}
        }
    }
}
