//! The broker: doorbells that it may lose, repeat, reorder and delay; and itself, which may be away.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::exec::{Bell, Exec, MS, S, Time, race};
use crate::net::{BUS, HostId};
use crate::tables::Doorbell;
use crate::world::{Ctx, World};

/// What a subscriber has not yet heard.
#[derive(Default)]
struct Heard {
    doorbells: BTreeSet<Doorbell>,
    /// Some were lost.
    missed: bool,
}

/// A subscription; it ends with its process.
pub struct Subscription {
    host: HostId,
    heard: RefCell<Heard>,
    bell: Bell,
}

/// The broker.
#[derive(Default)]
pub struct Broker {
    /// Whether it is away.
    pub down: Cell<bool>,
    subscribers: RefCell<Vec<std::rc::Weak<Subscription>>>,
}

/// Why a controller wakes up.
pub enum Wake {
    /// These rang.
    Rung(BTreeSet<Doorbell>),
    /// Time to look at everything.
    Sweep,
}

impl Broker {
    /// Listens from now on.
    pub fn subscribe(&self, exec: &Rc<Exec>, host: HostId) -> Rc<Subscription> {
        let subscription = Rc::new(Subscription { host, heard: RefCell::default(), bell: Bell::new(exec) });
        self.subscribers.borrow_mut().push(Rc::downgrade(&subscription));
        subscription
    }
    /// It went away and came back: everybody may have missed something.
    pub fn restarted(&self) {
        for subscriber in self.subscribers.borrow().iter().filter_map(std::rc::Weak::upgrade) {
            subscriber.heard.borrow_mut().missed = true;
            subscriber.bell.ring();
        }
    }
}

impl Subscription {
    /// The next reason to look: a doorbell, or the time of the next sweep.
    pub async fn next(&self, ctx: &Ctx, sweep_at: Time) -> Wake {
        let now = ctx.w.exec.now();
        if sweep_at > now {
            let _ = race(self.bell.heard(), ctx.sleep(sweep_at - now)).await;
        }
        let heard = self.heard.take();
        if heard.missed || heard.doorbells.is_empty() { Wake::Sweep } else { Wake::Rung(heard.doorbells) }
    }
}

impl World {
    async fn deliver(self: Rc<Self>, doorbell: Doorbell, to: std::rc::Weak<Subscription>) {
        let chaos = self.chaos.borrow().clone();
        let times = {
            let mut rng = self.rng.borrow_mut();
            if rng.percent(chaos.bus_loss) {
                0
            } else if rng.percent(chaos.bus_repeat) {
                3
            } else {
                1
            }
        };
        for _ in 0..times {
            let delay = {
                let mut rng = self.rng.borrow_mut();
                if rng.percent(chaos.bus_delay) { rng.range(MS, 30 * S) } else { rng.range(50, 3 * MS) }
            };
            self.exec.sleep(delay).await;
            let Some(to) = to.upgrade() else { return };
            if self.net.borrow().reaches(BUS, to.host) {
                to.heard.borrow_mut().doorbells.insert(doorbell);
                to.bell.ring();
            } else {
                to.heard.borrow_mut().missed = true;
            }
        }
    }
}

impl Ctx {
    /// Publishes; the broker has confirmed it when this is `Ok`.
    pub async fn publish(&self, doorbells: &BTreeSet<Doorbell>) -> Result<(), ()> {
        self.step(MS).await;
        let w = &self.w;
        if w.bus.down.get() || !w.net.borrow().reaches(self.host, BUS) {
            self.sleep(500 * MS).await;
            return Err(());
        }
        w.bus.subscribers.borrow_mut().retain(|s| s.strong_count() > 0);
        for doorbell in doorbells {
            w.truth.borrow_mut().published(*doorbell);
            for subscriber in w.bus.subscribers.borrow().iter() {
                w.exec.spawn(w.ether, Rc::clone(w).deliver(*doorbell, std::rc::Weak::clone(subscriber)));
            }
        }
        self.step(MS).await;
        if w.net.borrow().reaches(BUS, self.host) { Ok(()) } else { Err(()) }
    }
}
