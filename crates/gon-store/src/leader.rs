//! Who leads a role: the epoch that fences out whoever led before (rules R5, R6).
//!
//! Every transaction of a controller begins with [`Fence::begin`]: it holds the role's row shared until it ends, so a
//! take-over waits for it, and one that was taken over fails with [`StoreError::Deposed`] before it did anything. A leader
//! that sleeps in the middle of a transaction is thrown out by PostgreSQL after three seconds: a successor waits no longer.

use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use uuid::Uuid;

use crate::{Conn, Result, Store, StoreError, Tx};

/// Takes over `role`: raises its epoch and returns the new one. Documents made under an older epoch are refused by
/// every agent that has seen a newer. Waits for transactions of the leader before; [`StoreError::Unavailable`] if that
/// takes too long: try again.
pub async fn take_over(store: &Store, role: &str, holder: &str) -> Result<u64> {
    let epoch: i64 = sqlx::query_scalar(
        // It says that it knows fences: `leader_epochs_knows_fences`.
        "insert into leader_epochs (role, epoch, holder, knows_fences) values ($1, 1, $2, true)
         on conflict (role) do update set epoch = leader_epochs.epoch + 1, holder = excluded.holder, taken_at = now(),
           says_fences = true
         returning epoch",
    )
    .bind(role)
    .bind(holder)
    .fetch_one(store.pool())
    .await?;
    Ok(epoch.unsigned_abs())
}

/// What a leader shows at the moment of every effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The role it leads.
    pub role: &'static str,
    /// Since this epoch.
    pub epoch: u64,
}

impl Fence {
    /// Begins a transaction that nobody but this leader can commit.
    pub async fn begin(&self, store: &Store) -> Result<Tx> {
        let mut tx = begin(store).await?;
        fenced(&mut tx, self.role, self.epoch).await?;
        Ok(tx)
    }

    /// The same for what a node will say again: the commit does not wait for the disk.
    pub async fn begin_relaxed(&self, store: &Store) -> Result<Tx> {
        let mut tx = store
            .begin_with(
                "begin; set local idle_in_transaction_session_timeout = '3s'; set local synchronous_commit = off",
            )
            .await?;
        fenced(&mut tx, self.role, self.epoch).await?;
        Ok(tx)
    }

    /// What a statement found, if it found this leader, too.
    pub(crate) fn only<T>(&self, rows: Vec<Led<T>>) -> Result<Vec<T>> {
        self.compare(rows.first().and_then(|row| row.epoch))?;
        Ok(rows.into_iter().filter_map(|row| row.row).collect())
    }

    /// Whether it still leads, at this moment: for what has no transaction of its own.
    pub async fn check(&self, conn: &mut Conn) -> Result<()> {
        let epoch: Option<i64> = sqlx::query_scalar("select epoch from leader_epochs where role = $1")
            .bind(self.role)
            .fetch_optional(conn)
            .await?;
        self.compare(epoch)
    }

    fn compare(&self, found: Option<i64>) -> Result<()> {
        let found = found.unwrap_or(0).unsigned_abs();
        if found == self.epoch && found > 0 {
            return Ok(());
        }
        Err(StoreError::Deposed { role: self.role, epoch: self.epoch, by: found })
    }
}

/// Begins a transaction of a leader, which has to show its fence first thing.
pub(crate) async fn begin(store: &Store) -> Result<Tx> {
    // Every statement in there looks up a few keys: planning it anew for each set of them costs half of its time.
    store
        .begin_with(
            "begin; set local idle_in_transaction_session_timeout = '3s'; set local plan_cache_mode = force_generic_plan",
        )
        .await
}

/// A row of a statement that says who leads besides: `led` is the role's epoch, in every row. There is one without anything
/// else (its `id` is null) if there is nothing else to say.
pub(crate) struct Led<T> {
    epoch: Option<i64>,
    row: Option<T>,
}

impl<'r, T: FromRow<'r, PgRow>> FromRow<'r, PgRow> for Led<T> {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let there = row.try_get::<Option<Uuid>, _>("id")?.is_some();
        Ok(Self { epoch: row.try_get("led")?, row: there.then(|| T::from_row(row)).transpose()? })
    }
}

/// The transaction fails unless `epoch` is the role's. Nobody takes over before it ends.
pub async fn fenced(tx: &mut Conn, role: &'static str, epoch: u64) -> Result<()> {
    // A lock, not a look: a take-over that commits while this waits is seen.
    let found: Option<i64> = sqlx::query_scalar("select epoch from leader_epochs where role = $1 for share")
        .bind(role)
        .fetch_optional(tx)
        .await?;
    Fence { role, epoch }.compare(found)
}
