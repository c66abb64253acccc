//! The door to the message bus: doorbells, and nothing else.
//!
//! Assumes that losing, repeating or reordering a doorbell is harmless: whoever hears one reads the truth from
//! PostgreSQL, and reads it on a timer anyway. Promises that a subscriber which was subscribed before a doorbell was
//! published hears it, or hears that it [`Rings::missed`] some; never silence for long. Adapters: [`MemoryBus`] for one
//! process, [`RabbitBus`] for many; both pass `tests/it/conformance.rs`.
//!
//! What a broker drops after it has confirmed it (a queue that an operator purges, say) is noticed when the same
//! sender rings again for the same subject; for the last of them there is the timer.

pub mod broker;
mod memory;
mod rabbit;

use async_trait::async_trait;
use gon_proto::Doorbell;
use gon_proto::doorbell::Subject;

pub use memory::MemoryBus;
pub use rabbit::{BusState, ConfigError, Pem, RabbitBus, RabbitConfig, RabbitTls, connect};

/// Why the bus did not take or bring something. All of them pass: try again.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// It cannot be reached.
    #[error("the bus cannot be reached: {0}")]
    Unavailable(String),
}

/// The bus.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Rings the bells. When this returns, the bus has them (a broker has confirmed them). An error says nothing about
    /// what has arrived: publish all of them again.
    async fn publish(&self, doorbells: &[Doorbell]) -> Result<(), BusError>;
    /// Starts to listen for these subjects, from now on. Where the bus is away, the subscription is there all the same
    /// and begins with [`Rings::missed`] when it is back.
    async fn subscribe(&self, subjects: &[Subject]) -> Result<Box<dyn Subscription>, BusError>;
}

/// Somebody who listens.
#[async_trait]
pub trait Subscription: Send {
    /// Waits for the next doorbells and takes all that are there, each once. Cancel-safe: what was not returned is
    /// returned next time. An error means that the bus is away; the subscription mends itself, so call again later.
    async fn next(&mut self) -> Result<Rings, BusError>;
}

/// What was heard at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rings {
    /// The doorbells, each once, in no order.
    pub doorbells: Vec<Doorbell>,
    /// Some may have been lost: look at everything.
    pub missed: bool,
}
