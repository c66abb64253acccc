//! PostgreSQL, as far as its rules matter here: transactions that happen whole or not at all, CHECKs, UNIQUEs and triggers
//! that refuse, commits whose outcome nobody knows, commits that a crash takes back because they did not wait for the
//! disk.
//!
//! Each transaction happens at one instant (every statement of the platform that decides takes its locks first). What
//! `gon_store` says in SQL is said here again in Rust, in [`crate::tables`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use crate::exec::{MS, ProcId, S, Time};
use crate::net::DB;
use crate::tables::Tables;
use crate::world::{Bug, Ctx, World};

/// What a transaction waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It changes nothing.
    Read,
    /// Its commit waits for the disk.
    Disk,
    /// Its commit does not (`synchronous_commit = off`).
    Memory,
}

/// Why a transaction did not say what was hoped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SqlError {
    /// Nothing was done.
    Unavailable,
    /// It was committed, or not.
    OutcomeUnknown,
    /// A constraint refused; nothing was done.
    Refused(&'static str),
    /// The caller no longer leads; nothing was done.
    Deposed,
    /// The caller's own decision to roll back.
    RolledBack,
}

/// The server.
pub struct Postgres {
    /// What is committed.
    pub tables: Tables,
    /// Whether it answers.
    pub up: bool,
    /// What is left if it crashes now; `None`: everything.
    on_disk: Option<Tables>,
    /// Which write to memory that was.
    unflushed: u64,
    /// Outbox rows that a relay holds.
    pub claims: BTreeMap<u64, ProcId>,
    /// Raised at each crash: connections of before are gone.
    pub life: u64,
}

impl Postgres {
    /// With these tables.
    #[must_use]
    pub fn new(tables: Tables) -> Self {
        Self { tables, up: true, on_disk: None, unflushed: 0, claims: BTreeMap::new(), life: 1 }
    }
    /// A process is gone, and its locks with it.
    pub fn connections_of(&mut self, proc: ProcId) {
        self.claims.retain(|_, holder| *holder != proc);
    }
    /// Everything committed is on the disk.
    pub fn flush(&mut self) {
        self.on_disk = None;
    }
    /// `kill -9` of the postmaster.
    pub fn crash(&mut self) {
        self.up = false;
        self.life += 1;
        self.claims.clear();
        if let Some(mut before) = self.on_disk.take() {
            // Sequences never go back.
            before.next_seq = self.tables.next_seq + 32;
            self.tables = before;
        }
    }
}

impl World {
    fn flush_soon(self: &Rc<Self>, which: u64) {
        let w = Rc::clone(self);
        self.exec.spawn(self.ether, async move {
            w.exec.sleep(600 * MS).await;
            let mut db = w.db.borrow_mut();
            if db.unflushed == which {
                db.on_disk = None;
            }
        });
    }
    /// Applies a transaction and commits it. `Err` leaves everything as it was.
    fn transact<T>(
        self: &Rc<Self>,
        durability: Durability,
        work: impl FnOnce(&mut Tables, Time) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let now = self.exec.now();
        let mut db = self.db.borrow_mut();
        let before = db.tables.clone();
        let result = work(&mut db.tables, now);
        db.tables.drawn = 0..0;
        if result.is_err() {
            let next_seq = db.tables.next_seq;
            db.tables = Tables { next_seq, ..before };
            return result;
        }
        match durability {
            Durability::Read => {}
            Durability::Disk => db.on_disk = None,
            Durability::Memory => {
                if db.on_disk.is_none() {
                    db.on_disk = Some(before.clone());
                }
                db.unflushed += 1;
                let which = db.unflushed;
                drop(db);
                self.flush_soon(which);
                db = self.db.borrow_mut();
            }
        }
        if durability != Durability::Read {
            self.exec.note(db.tables.next_seq ^ db.tables.outbox.len() as u64);
            let truth = &mut *self.truth.borrow_mut();
            truth.committed(self, &before, &db.tables, now);
        }
        result
    }
}

impl Ctx {
    /// Sometimes: begins a transaction by drawing numbers from the sequence, and lingers before anything else, while others
    /// that draw later numbers commit. For [`Tables::drawn`].
    pub async fn draw_early(&self) -> Range<u64> {
        let lingers = {
            let chaos = self.w.chaos.borrow();
            self.w.rng.borrow_mut().percent(chaos.late_commits)
        };
        if !lingers {
            return 0..0;
        }
        let drawn = {
            let tables = &mut self.w.db.borrow_mut().tables;
            let first = tables.next_seq + 1;
            // More than any transaction needs: sequences have gaps.
            tables.next_seq += 64;
            first..first + 64
        };
        let time = self.range(MS, S / 2);
        self.sleep(time).await;
        drawn
    }
    /// Runs a transaction.
    pub async fn sql<T>(
        &self,
        durability: Durability,
        work: impl FnOnce(&mut Tables, Time) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        self.step(MS).await;
        let reaches = |w: &World| {
            let net = w.net.borrow();
            w.db.borrow().up && net.reaches(self.host, DB) && net.reaches(DB, self.host)
        };
        if !reaches(&self.w) {
            self.sleep(S).await;
            return Err(SqlError::Unavailable);
        }
        let (aborts, loses) = {
            let chaos = self.w.chaos.borrow();
            let mut rng = self.w.rng.borrow_mut();
            (rng.ppm(chaos.sql_abort_ppm), rng.ppm(chaos.sql_unknown_ppm))
        };
        if aborts {
            return Err(if loses { SqlError::OutcomeUnknown } else { SqlError::Unavailable });
        }
        let life = self.w.db.borrow().life;
        let result = self.w.transact(durability, work);
        // The commit's answer on its way.
        let slow = {
            let chaos = self.w.chaos.borrow();
            chaos.sql_slow > 0 && self.w.rng.borrow_mut().percent(chaos.sql_slow)
        };
        self.step(if slow { 3 * S } else { MS }).await;
        if result.is_ok()
            && durability != Durability::Read
            && (loses || !reaches(&self.w) || self.w.db.borrow().life != life)
        {
            return Err(SqlError::OutcomeUnknown);
        }
        result
    }
    /// Rows for a document of the leader of `role` since `epoch`, in a snapshot in which it leads: so documents of a higher
    /// epoch are of later rows.
    pub async fn leader_read<T>(
        &self,
        seat: (usize, u64),
        work: impl FnOnce(&mut Tables, Time) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        if self.w.has(Bug::UnfencedRead) {
            self.sql(Durability::Read, work).await
        } else {
            self.leader_sql(Durability::Read, seat, work).await
        }
    }
    /// A transaction of the leader of `role` since `epoch`: refused for anybody else.
    pub async fn leader_sql<T>(
        &self,
        durability: Durability,
        (role, epoch): (usize, u64),
        work: impl FnOnce(&mut Tables, Time) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let unfenced = self.w.has(Bug::NoLeaderFence);
        self.sql(durability, move |t, now| {
            if t.epochs[role] != epoch && !unfenced {
                return Err(SqlError::Deposed);
            }
            work(t, now)
        })
        .await
    }
}
