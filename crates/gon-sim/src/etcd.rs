//! etcd: leases that may be lost, leaders that may be two for a while. Never a fence.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use crate::db::Durability;
use crate::exec::{MS, ProcId, S, Time};
use crate::net::ETCD;
use crate::tables::Tables;
use crate::world::Ctx;

/// How long a lease lives unrenewed.
pub const TTL: Time = 15 * S;
/// How long a leader's ticket does.
pub const LEADER_TTL: Time = 10 * S;

/// The cluster.
#[derive(Default)]
pub struct Etcd {
    /// Without its quorum it answers nothing, and leases do not expire; they get a fresh time to live afterwards.
    pub lost_quorum: Cell<bool>,
    /// Node leases: until when.
    leases: RefCell<BTreeMap<usize, Time>>,
    /// By role: who holds the ticket, until when.
    leaders: RefCell<[Option<(ProcId, Time)>; 2]>,
}

impl Etcd {
    /// Quorum is lost or back.
    pub fn set_quorum(&self, lost: bool, now: Time) {
        if !lost && self.lost_quorum.get() {
            for until in self.leases.borrow_mut().values_mut() {
                *until = (*until).max(now + TTL);
            }
            for leader in self.leaders.borrow_mut().iter_mut().flatten() {
                leader.1 = leader.1.max(now + TTL);
            }
        }
        self.lost_quorum.set(lost);
    }
    /// Everything in it is gone.
    pub fn wipe(&self) {
        self.leases.borrow_mut().clear();
        *self.leaders.borrow_mut() = [None, None];
    }
    /// A leader's lease is taken back.
    pub fn depose(&self, role: usize) {
        self.leaders.borrow_mut()[role] = None;
    }
    /// The nodes that hold a lease.
    pub fn alive(&self, now: Time) -> BTreeSet<usize> {
        let leases = self.leases.borrow();
        leases.iter().filter(|(_, until)| **until > now).map(|(node, _)| *node).collect()
    }
}

impl Ctx {
    fn reaches_etcd(&self) -> bool {
        let net = self.w.net.borrow();
        !self.w.etcd.lost_quorum.get() && net.reaches(self.host, ETCD) && net.reaches(ETCD, self.host)
    }
    /// Says that a node lives; for ever.
    pub async fn keep_lease(self, node: usize) {
        loop {
            self.step(2 * MS).await;
            if self.reaches_etcd() {
                let until = self.w.exec.now() + TTL;
                self.w.etcd.leases.borrow_mut().insert(node, until);
            }
            self.sleep(TTL / 3).await;
        }
    }
    /// Waits for the ticket of `role`, then raises its epoch: which one that is.
    pub async fn win(&self, role: usize) -> u64 {
        self.campaign(role).await;
        loop {
            let raise = |t: &mut Tables, _| {
                t.epochs[role] += 1;
                Ok(t.epochs[role])
            };
            if let Ok(epoch) = self.sql(Durability::Disk, raise).await {
                return epoch;
            }
            self.sleep(S / 2).await;
        }
    }
    async fn campaign(&self, role: usize) {
        loop {
            self.step(2 * MS).await;
            if self.reaches_etcd() {
                let now = self.w.exec.now();
                let mut leaders = self.w.etcd.leaders.borrow_mut();
                if leaders[role].is_none_or(|(holder, until)| until <= now || holder == self.proc) {
                    leaders[role] = Some((self.proc, now + LEADER_TTL));
                    return;
                }
            }
            self.sleep(S).await;
        }
    }
    /// Renews the ticket for ever, and campaigns for a new one when it is lost.
    pub async fn keep_ticket(&self, role: usize) {
        loop {
            self.sleep(LEADER_TTL / 3).await;
            let now = self.w.exec.now();
            let mut lost = false;
            if self.reaches_etcd() {
                let mut leaders = self.w.etcd.leaders.borrow_mut();
                match &mut leaders[role] {
                    Some((holder, until)) if *holder == self.proc => *until = now + LEADER_TTL,
                    _ => lost = true,
                }
            }
            if lost {
                self.campaign(role).await;
            }
        }
    }
}
