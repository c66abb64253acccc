//! The network between hosts: delays, cuts (also one-way), connections that break, requests that arrive long after whoever
//! sent them has given up.

use std::cell::RefCell;
use std::rc::Rc;

use crate::exec::{Bell, Either, MS, S, Time, race};
use crate::world::{Ctx, World};

/// A host: the database's, etcd's, the bus', the users', then the servers, then the nodes.
pub type HostId = usize;
/// Where PostgreSQL is.
pub const DB: HostId = 0;
/// Where etcd is.
pub const ETCD: HostId = 1;
/// Where the broker is.
pub const BUS: HostId = 2;
/// Where the users are.
pub const USERS: HostId = 3;
/// The first server.
pub const SERVERS: HostId = 4;

/// How the network is.
#[derive(Debug, Clone)]
pub struct Net {
    hosts: usize,
    /// How many faults cut the way from one host to another.
    cuts: Vec<u32>,
    /// The longest usual delay.
    pub slowest: Time,
    /// How many messages in a million are delayed by up to twenty seconds.
    pub ghosts_ppm: u64,
}

impl Net {
    /// A good network.
    #[must_use]
    pub fn new(hosts: usize) -> Self {
        Self { hosts, cuts: vec![0; hosts * hosts], slowest: 2 * MS, ghosts_ppm: 0 }
    }
    /// Cuts the way from `from` to `to`, or takes one cut back.
    pub fn cut(&mut self, from: HostId, to: HostId, cut: bool) {
        let way = &mut self.cuts[from * self.hosts + to];
        *way = if cut { *way + 1 } else { way.saturating_sub(1) };
    }
    /// Whether a message gets from one to the other.
    #[must_use]
    pub fn reaches(&self, from: HostId, to: HostId) -> bool {
        from == to || self.cuts[from * self.hosts + to] == 0
    }
    /// How many hosts there are.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.hosts
    }
}

/// Why a call brought no answer. The caller cannot tell whether it had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallError {
    /// Nobody listens there.
    Refused,
    /// The connection broke: the other end died.
    Broken,
    /// Nothing came in time.
    Deadline,
}

impl World {
    fn reaches(&self, from: HostId, to: HostId) -> bool {
        self.net.borrow().reaches(from, to)
    }
    fn delay(&self) -> Time {
        let net = self.net.borrow();
        let mut rng = self.rng.borrow_mut();
        if net.ghosts_ppm > 0 && rng.ppm(net.ghosts_ppm) {
            return rng.range(100 * MS, 20 * S);
        }
        rng.range(50, net.slowest)
    }
    /// Carries something from host to host: TCP sends again until `until`. False if it never arrived.
    async fn carry(self: &Rc<Self>, from: HostId, to: HostId, until: Time) -> bool {
        self.exec.sleep(self.delay()).await;
        while !self.reaches(from, to) {
            if self.exec.now() > until {
                return false;
            }
            self.exec.sleep(S).await;
        }
        true
    }
}

impl Ctx {
    /// Calls a process on a host: `handler` runs there, as its process, if it lives. Both directions may fail, also after
    /// the handler has run.
    pub async fn call<T, F, H>(&self, to: &Ctx, deadline: Time, handler: H) -> Result<T, CallError>
    where
        T: 'static,
        F: Future<Output = T> + 'static,
        H: FnOnce() -> F + 'static,
    {
        type Answer<T> = Rc<RefCell<Option<Result<T, CallError>>>>;
        let w = Rc::clone(&self.w);
        let answer: Answer<T> = Rc::default();
        let bell = Bell::new(&w.exec);
        let until = w.exec.now() + deadline;
        let (from, to) = (self.host, to.clone());
        let carrier = {
            let (w, answer, bell) = (Rc::clone(&w), Rc::clone(&answer), bell.clone());
            async move {
                let give = |value| {
                    *answer.borrow_mut() = Some(value);
                    bell.ring();
                };
                if !w.carry(from, to.host, until + 30 * S).await {
                    return;
                }
                let Some(life) = w.exec.life(to.proc) else {
                    w.exec.sleep(w.delay()).await;
                    give(Err(CallError::Refused));
                    return;
                };
                let result: Rc<RefCell<Option<T>>> = Rc::default();
                let done = Bell::new(&w.exec);
                let (result_, done_) = (Rc::clone(&result), done.clone());
                w.exec.spawn(to.proc, async move {
                    let value = handler().await;
                    *result_.borrow_mut() = Some(value);
                    done_.ring();
                });
                // What the handler has said, or that its process died before it did.
                loop {
                    // Taken before the wait: whoever looks meanwhile must find no borrow.
                    let said = result.borrow_mut().take();
                    if let Some(value) = said {
                        // The answer of somebody who is dead by now was on its way.
                        if w.carry(to.host, from, until).await {
                            give(Ok(value));
                        }
                        return;
                    }
                    if w.exec.life(to.proc) != Some(life) {
                        if w.carry(to.host, from, until).await {
                            give(Err(CallError::Broken));
                        }
                        return;
                    }
                    let _ = race(done.heard(), w.exec.sleep(S)).await;
                }
            }
        };
        w.exec.spawn(w.ether, carrier);
        let arrived = async {
            loop {
                let given = answer.borrow_mut().take();
                if let Some(value) = given {
                    return value;
                }
                bell.heard().await;
            }
        };
        match race(arrived, w.exec.sleep(deadline)).await {
            Either::Left(value) => value,
            Either::Right(()) => Err(CallError::Deadline),
        }
    }
}
