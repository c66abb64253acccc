//! A controller's seat: whether it leads, since which epoch, and the end of that.
//!
//! Winning an election is only the ticket to raise the epoch; who leads is whose epoch is the highest in PostgreSQL
//! (`docs/adr/0006`). So a leader that loses its ticket goes on as long as nobody has raised the epoch, and one that finds
//! a higher epoch stops at once, ticket or not. Promises that every effect is made under a [`Fence`], which PostgreSQL
//! checks in the same transaction.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use gon_bus::{Bus, BusError};
use gon_cluster::{Leadership, Liveness};
use gon_proto::doorbell::Subject;
use gon_store::leader::{self, Fence};
use gon_store::{Store, StoreError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::reconcile::{Bell, Wake};
use crate::status::{Ready, turning};

/// How long to wait before trying again what did not work.
const RETRY: Duration = Duration::from_millis(500);
/// How long one that was deposed leaves the election to others.
const AFTER_A_FALL: Duration = Duration::from_secs(1);
/// How often a leader with nothing to do asks whether it still is one.
const LOOK: Duration = Duration::from_secs(1);

/// How soon everything is looked at again after a round that failed.
const AFTER_A_FAILURE: Duration = Duration::from_secs(1);

/// A controller: what it does on its seat. How it comes there, and when it leaves, is [`lead`]'s.
pub(crate) trait Controller: Sync {
    /// Whose doorbells it hears.
    const SUBJECTS: &'static [Subject];

    fn seat(&self) -> &Seat;
    fn store(&self) -> &Store;
    fn bus(&self) -> &dyn Bus;

    /// Forgets what was made under an older epoch, and sits down ([`Seat::begin`]).
    fn assume(&self, epoch: u64);

    /// One look: where was rung, or everywhere.
    fn round(
        &self,
        rung: Option<&BTreeSet<(Subject, Uuid)>>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// After it has looked, or tried to look, everywhere.
    fn swept(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// What it does besides its rounds for as long as it leads; it asks now and then whether it still does.
    fn besides(&self) -> impl Future<Output = Infallible> + Send {
        self.seat().watch(self.store())
    }

    /// It leads no more: nothing is served that was made while it did.
    fn stand_down(&self);
}

/// Leads whenever nobody else does, until it is told to stop.
pub(crate) async fn lead<C: Controller>(
    controller: &C,
    liveness: &dyn Liveness,
    holder: &str,
    stop: CancellationToken,
) -> Result<(), BusError> {
    let seat = controller.seat();
    while let Some((ticket, epoch)) = seat.win(controller.store(), liveness, holder, &stop).await {
        controller.assume(epoch);
        let mut ticket = Some(ticket);
        let led = tokio::select! {
            led = rounds(controller, stop.clone()) => led,
            () = seat.deposed() => Ok(()),
            never = controller.besides() => match never {},
            never = seat.keep(&mut ticket, liveness, holder) => match never {},
        };
        seat.end();
        controller.stand_down();
        seat.leave(ticket, &stop).await;
        led?;
    }
    Ok(())
}

/// Looks whenever the bell rings, until it is told to stop.
async fn rounds<C: Controller>(controller: &C, stop: CancellationToken) -> Result<(), BusError> {
    let seat = controller.seat();
    let mut bell = Bell::listen(controller.bus(), controller.store(), C::SUBJECTS, stop).await?;
    loop {
        let wake = bell.wait().await;
        seat.ready.turn();
        let rung = match &wake {
            Wake::Stop => return Ok(()),
            Wake::Sweep => None,
            Wake::Rung(rings) => Some(rings),
        };
        match seat.heed(controller.round(rung).await) {
            Ok(()) => {
                if rung.is_none() {
                    seat.ready.set(true);
                }
            }
            Err(error) => {
                tracing::warn!(role = seat.role, error = &error as &dyn std::error::Error, "a round failed");
                bell.again_within(AFTER_A_FAILURE);
            }
        }
        if rung.is_none() {
            controller.swept().await;
        }
    }
}

/// The seat of one role in one process.
#[derive(Debug)]
pub struct Seat {
    role: &'static str,
    ready: Ready,
    deposed: Notify,
}

impl Seat {
    /// Nobody sits in it.
    #[must_use]
    pub fn new(role: &'static str) -> Self {
        Self { role, ready: Ready::default(), deposed: Notify::new() }
    }

    /// How its controller is, for those who ask from outside.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// What its controller shows at the moment of every effect; [`StoreError::Deposed`] while it does not lead.
    pub fn fence(&self) -> Result<Fence, StoreError> {
        match self.ready.leads() {
            Some(epoch) => Ok(Fence { role: self.role, epoch }),
            None => Err(StoreError::Deposed { role: self.role, epoch: 0, by: 0 }),
        }
    }

    /// Sits down. What was made under an older epoch must have been forgotten before.
    pub fn begin(&self, epoch: u64) {
        self.ready.lead(Some(epoch));
        tracing::info!(role = self.role, epoch, "leading");
    }

    /// Gets up.
    pub fn end(&self) {
        self.ready.set(false);
        self.ready.lead(None);
    }

    /// Notices in a result that somebody else leads by now: the end of leading, at once.
    pub fn heed<T, E>(&self, result: Result<T, E>) -> Result<T, E>
    where
        E: AsDeposed,
    {
        if let Err(error) = &result
            && let Some(StoreError::Deposed { epoch, by, .. }) = error.as_deposed()
            // A call that began under an earlier epoch says nothing of this one.
            && self.ready.leads() == Some(*epoch)
        {
            tracing::warn!(role = self.role, epoch, by, "deposed");
            self.end();
            self.deposed.notify_one();
        }
        result
    }

    /// Returns when [`Self::heed`] noticed it.
    pub async fn deposed(&self) {
        self.deposed.notified().await;
    }

    /// Waits for the ticket, then raises the epoch. `None`: told to stop.
    pub async fn win(
        &self,
        store: &Store,
        liveness: &dyn Liveness,
        holder: &str,
        stop: &CancellationToken,
    ) -> Option<(Box<dyn Leadership>, u64)> {
        loop {
            let ticket = tokio::select! {
                () = stop.cancelled() => return None,
                won = turning(&self.ready, self.campaign(liveness, holder)) => won,
            };
            let epoch = tokio::select! {
                () = stop.cancelled() => {
                    ticket.resign().await;
                    return None;
                }
                () = ticket.lost() => continue,
                epoch = self.raise(store, holder) => epoch,
            };
            return Some((ticket, epoch));
        }
    }

    /// Until it works: PostgreSQL may be away, or a leader that sleeps may hold its transaction for a moment.
    async fn raise(&self, store: &Store, holder: &str) -> u64 {
        let mut told = false;
        loop {
            self.ready.turn();
            match leader::take_over(store, self.role, holder).await {
                Ok(epoch) => return epoch,
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(role = self.role, error, "the epoch cannot be raised yet");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Holds the ticket; campaigns for a new one when it is lost. Ends only with the future.
    pub async fn keep(
        &self,
        ticket: &mut Option<Box<dyn Leadership>>,
        liveness: &dyn Liveness,
        holder: &str,
    ) -> Infallible {
        loop {
            if let Some(held) = ticket.as_ref() {
                held.lost().await;
                tracing::warn!(role = self.role, "the lease is lost; leading until somebody takes over");
                *ticket = None;
            }
            *ticket = Some(self.campaign(liveness, holder).await);
        }
    }

    /// Waits for the ticket, however long there can be no election: an error of it ends no role.
    async fn campaign(&self, liveness: &dyn Liveness, holder: &str) -> Box<dyn Leadership> {
        loop {
            match liveness.campaign(self.role, holder).await {
                Ok(won) => return won,
                Err(error) => {
                    tracing::debug!(role = self.role, %error, "no election");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Asks now and then whether it still leads. Ends only with the future.
    pub async fn watch(&self, store: &Store) -> Infallible {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Ok(fence) = self.fence() {
                // While PostgreSQL is away nobody can take over either.
                let checked = async { fence.check(&mut *store.conn().await?).await };
                let _ = self.heed(checked.await);
            }
        }
    }

    /// After leading: gives the ticket back, and lets others try first if somebody was there before us.
    pub async fn leave(&self, ticket: Option<Box<dyn Leadership>>, stop: &CancellationToken) {
        if let Some(ticket) = ticket {
            ticket.resign().await;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(AFTER_A_FALL) => {}
        }
    }
}

/// An error that may be [`StoreError::Deposed`].
pub trait AsDeposed {
    /// That error, if it is one.
    fn as_deposed(&self) -> Option<&StoreError>;
}
impl AsDeposed for StoreError {
    fn as_deposed(&self) -> Option<&StoreError> {
        matches!(self, Self::Deposed { .. }).then_some(self)
    }
}
impl AsDeposed for crate::documents::NodeError {
    fn as_deposed(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => error.as_deposed(),
            _ => None,
        }
    }
}
