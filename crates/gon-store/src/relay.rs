//! The outbox from the relay's side. Rows are claimed by lock, never by position: a row whose transaction commits late
//! has a low number and is found all the same.

use uuid::Uuid;

use crate::{Conn, Result, Store, Tx};

/// A doorbell as it lies in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash, sqlx::FromRow)]
pub struct OutboxRow {
    /// `vpc`, `instance`, `node` or `event`.
    pub subject: String,
    /// Whose it is.
    pub subject_id: Uuid,
}

/// Takes up to `limit` rows that no other relay holds. They are gone when the transaction commits and back when it does
/// not. It does not wait for the disk: rows that come back after a power loss are published again, which is harmless.
pub async fn claim(store: &Store, limit: i64) -> Result<(Tx, Vec<OutboxRow>)> {
    let mut tx = store.begin_with("begin; set local synchronous_commit = off").await?;
    let rows = sqlx::query_as(
        "delete from outbox where seq = any (array(
           select seq from outbox order by seq limit $1 for update skip locked))
         returning subject, subject_id",
    )
    .bind(limit)
    .fetch_all(&mut *tx)
    .await?;
    Ok((tx, rows))
}

/// Lays a doorbell into the outbox: rung if and when the transaction commits.
pub async fn ring(conn: &mut Conn, subject: &'static str, id: Uuid) -> Result<()> {
    sqlx::query("insert into outbox (subject, subject_id) values ($1, $2)")
        .bind(subject)
        .bind(id)
        .execute(conn)
        .await?;
    Ok(())
}

/// A doorbell that nobody rings, and its number.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct LyingRow {
    /// Its number in the outbox.
    pub seq: i64,
    /// `vpc`, `instance`, `node` or `event`.
    pub subject: String,
    /// Whose it is.
    pub subject_id: Uuid,
}

/// The newest doorbells of these subjects, `limit` at most, that have lain in the outbox for longer than a relay needs
/// to ring them, and for less than a few sweeps: what older ones are about has been looked at since.
pub async fn lying(store: &Store, subjects: &[&'static str], limit: i64) -> Result<Vec<LyingRow>> {
    let rows = sqlx::query_as(
        "select seq, subject, subject_id from outbox
         where subject = any ($1)
           and created_at between now() - interval '30 seconds' and now() - interval '300 milliseconds'
         order by seq desc limit $2",
    )
    .bind(subjects)
    .bind(limit)
    .fetch_all(store.pool())
    .await?;
    Ok(rows)
}

/// How many rows wait: for the metrics.
pub async fn waiting(store: &Store) -> Result<i64> {
    Ok(sqlx::query_scalar("select count(*) from outbox").fetch_one(store.pool()).await?)
}
