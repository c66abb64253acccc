//! Who gets a connection, after how long, and how long its statements may then wait (rule R21, rows C4 and C6).
//!
//! Promises that a request that has to wait, be it for a connection, for a row or for a table, is refused within a second
//! of its beginning: what it has waited for a connection is taken off what its statements may wait for a lock. And that
//! changes never have all connections: commits that nobody confirms hold theirs for seconds, and whoever reads is served
//! from the rest.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Postgres, SqlSafeStr as _, SqlStr};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::{Conn, Result, Store, StoreError};

/// How long a request waits in all. Less than the second that is promised, by what everything else takes on a machine that
/// has much to do, and by what is waited with [`LEAST`] when this is used up.
pub(crate) const PATIENCE: Duration = Duration::from_millis(650);
/// Whoever has used it up still takes what is there at once.
const LEAST: Duration = Duration::from_millis(50);
/// With more than this left a statement may wait for a lock as long as any other: telling PostgreSQL costs a round trip.
const PLENTY: Duration = Duration::from_millis(550);

tokio::task_local! {
    /// When the waiting began that a request's patience counts from.
    static BEGAN: Cell<Instant>;
    /// Set while a connection is taken whose first statement is its test.
    static UNTESTED: ();
}

/// Whether whoever takes a connection now finds out by itself that it has died.
pub(crate) fn untested() -> bool {
    UNTESTED.try_with(|()| ()).is_ok()
}

/// Whether a connection has ended, by itself or by the server's word, before it took its first statement.
fn has_died(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => matches!(error.code().as_deref(), Some("57P01" | "57P02" | "57P05")),
        _ => false,
    }
}

/// Runs a request: its patience counts from now on. Outside of this every wait has all of it.
pub async fn patiently<F: Future>(request: F) -> F::Output {
    BEGAN.scope(Cell::new(Instant::now()), request).await
}

/// The request has done something else for a while; its patience counts from now on.
pub fn patience_anew() {
    let _ = BEGAN.try_with(|began| began.set(Instant::now()));
}

/// Runs what waits for something else than PostgreSQL: that takes nothing off the request's patience.
pub async fn aside<F: Future>(wait: F) -> F::Output {
    let begin = Instant::now();
    let output = wait.await;
    let _ = BEGAN.try_with(|began| began.set(began.get() + begin.elapsed()));
    output
}

/// What is left of this patience.
fn left(patience: Duration) -> Duration {
    let left = BEGAN.try_with(|began| patience.saturating_sub(began.get().elapsed()));
    left.unwrap_or(patience).max(LEAST)
}

/// How many of so many connections changes may have at once.
fn for_changes(connections: u32) -> usize {
    (connections - (connections / 4).max(1).min(connections)).max(1) as usize
}

/// Places of the changes that are under way.
pub(crate) fn places(connections: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(for_changes(connections)))
}

/// A transaction: rolled back unless [`Tx::commit`] returns. Its place among the changes is free when its connection is.
#[derive(Debug)]
pub struct Tx {
    inner: sqlx::Transaction<'static, Postgres>,
    place: OwnedSemaphorePermit,
}

impl Deref for Tx {
    type Target = Conn;
    fn deref(&self) -> &Conn {
        &self.inner
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.inner
    }
}

impl Tx {
    /// Commits, and waits for it as long as it takes; [`crate::commit`] does not.
    pub async fn commit(self) -> sqlx::Result<()> {
        let Self { inner, place } = self;
        let done = inner.commit().await;
        drop(place);
        done
    }

    pub(crate) async fn rollback(self) -> sqlx::Result<()> {
        self.inner.rollback().await
    }
}

/// A connection for reading.
#[derive(Debug)]
pub enum Reader {
    /// Every statement by itself.
    Plain(PoolConnection<Postgres>),
    /// In a transaction that gives its statements what is left of the request's patience.
    Hurried(sqlx::Transaction<'static, Postgres>),
}

impl Deref for Reader {
    type Target = Conn;
    fn deref(&self) -> &Conn {
        match self {
            Self::Plain(conn) => conn,
            Self::Hurried(tx) => tx,
        }
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut Conn {
        match self {
            Self::Plain(conn) => conn,
            Self::Hurried(tx) => tx,
        }
    }
}

/// A connection for a change that one statement makes.
#[derive(Debug)]
pub enum Change {
    /// The statement may be its own transaction: [`crate::statement`].
    Statement(OneStatement),
    /// It has to be in this one, whose statements have what is left of the request's patience.
    Hurried(Tx),
}

/// A connection for one statement.
#[derive(Debug)]
pub struct OneStatement {
    conn: PoolConnection<Postgres>,
    _place: OwnedSemaphorePermit,
}

impl Deref for OneStatement {
    type Target = Conn;
    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl DerefMut for OneStatement {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }
}

/// `begin`, with a limit for waits if somebody has waited already.
fn begin(statement: &'static str, left: Duration) -> SqlStr {
    if left >= PLENTY {
        return statement.into_sql_str();
    }
    AssertSqlSafe(format!("{statement}; set local lock_timeout = {}", left.as_millis())).into_sql_str()
}

/// Connections that may have died while they rested.
pub(crate) struct Rested(u32);

impl Rested {
    /// Whether one of them turned out to have died, and the next may be tried.
    pub(crate) fn has_died(&mut self, error: &sqlx::Error) -> bool {
        let died = self.0 > 0 && has_died(error);
        self.0 -= u32::from(died);
        died
    }
}

impl Store {
    /// What is left of the patience of whoever asks now.
    fn left(&self) -> Duration {
        left(self.patience)
    }

    async fn acquire(&self) -> Result<PoolConnection<Postgres>> {
        match timeout(self.left(), self.pool.acquire()).await {
            Ok(conn) => Ok(conn?),
            Err(_) => Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit> {
        match timeout(self.left(), Arc::clone(&self.changes).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(StoreError::Unavailable(sqlx::Error::PoolClosed)),
            Err(_) => Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }

    /// Begins a transaction.
    pub async fn begin(&self) -> Result<Tx> {
        self.begin_with("begin").await
    }

    pub(crate) async fn begin_with(&self, statement: &'static str) -> Result<Tx> {
        let place = self.place().await?;
        Ok(Tx { inner: self.begun(statement).await?, place })
    }

    /// A connection on which `statement` has begun a transaction.
    async fn begun(&self, statement: &'static str) -> Result<sqlx::Transaction<'static, Postgres>> {
        let mut rested = self.rested();
        loop {
            let conn = self.untested().await?;
            match sqlx::Transaction::begin(conn, Some(begin(statement, self.left()))).await {
                Err(error) if rested.has_died(&error) => {}
                begun => return Ok(begun?),
            }
        }
    }

    /// A connection that nobody has looked at since it rested. For a round trip that changes nothing and shows whether it
    /// lives: if it does not ([`Rested::has_died`]), the next is taken.
    pub(crate) async fn untested(&self) -> Result<PoolConnection<Postgres>> {
        UNTESTED.scope((), self.acquire()).await
    }

    /// How many such connections there can be.
    pub(crate) fn rested(&self) -> Rested {
        Rested(self.pool.options().get_max_connections())
    }

    /// What a node's document is read in: one snapshot for all statements. They look up what belongs to a few keys, so
    /// they are planned once and not for each set of keys.
    pub async fn snapshot(&self) -> Result<sqlx::Transaction<'static, Postgres>> {
        self.begun(
            "begin isolation level repeatable read read only; set local plan_cache_mode = force_generic_plan",
        )
        .await
    }

    /// A connection outside of a transaction.
    pub async fn conn(&self) -> Result<PoolConnection<Postgres>> {
        self.acquire().await
    }

    /// A connection for reading on behalf of a request.
    pub async fn read(&self) -> Result<Reader> {
        let conn = self.acquire().await?;
        let left = self.left();
        if left >= PLENTY {
            return Ok(Reader::Plain(conn));
        }
        let tx = sqlx::Transaction::begin(conn, Some(begin("begin read only", left))).await?;
        Ok(Reader::Hurried(tx))
    }

    /// A connection for a change that one statement makes on behalf of a request.
    pub async fn change(&self) -> Result<Change> {
        let place = self.place().await?;
        let conn = self.acquire().await?;
        let left = self.left();
        if left >= PLENTY {
            return Ok(Change::Statement(OneStatement { conn, _place: place }));
        }
        let inner = sqlx::Transaction::begin(conn, Some(begin("begin", left))).await?;
        Ok(Change::Hurried(Tx { inner, place }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_leave_a_connection_where_there_are_two() {
        let of = [1, 2, 3, 4, 8, 16, 60].map(for_changes);
        assert_eq!(of, [1, 1, 2, 3, 6, 12, 45]);
    }

    #[tokio::test]
    async fn patience_ends_and_begins_anew() {
        let left = || left(PATIENCE);
        assert_eq!(left(), PATIENCE, "outside of a request");
        patiently(async {
            assert!(left() > PLENTY);
            tokio::time::sleep(Duration::from_millis(150)).await;
            assert!(left() < PLENTY);
            assert!(begin("begin", left()).as_str().contains("lock_timeout"));
            patience_anew();
            assert_eq!(begin("begin", left()).as_str(), "begin");
            tokio::time::sleep(PATIENCE / 2).await;
            aside(tokio::time::sleep(PATIENCE)).await;
            assert!(
                (LEAST..=PATIENCE / 2).contains(&left()),
                "what was aside does not count, what was before does"
            );
            tokio::time::sleep(PATIENCE / 2).await;
            assert_eq!(left(), LEAST);
        })
        .await;
    }
}
