//! What users watch, read in an order that skips nothing: by transaction, and only transactions older than every one
//! that still runs. A row that commits late therefore comes late, never not at all.

use uuid::Uuid;

use crate::{Conn, Result};

/// A change of state.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct EventRow {
    /// Its number.
    pub seq: i64,
    /// Its transaction.
    pub xid: i64,
    /// Whose it is.
    pub account_id: Uuid,
    /// `instance`, `vpc`, …
    pub resource: String,
    /// Which.
    pub resource_id: Uuid,
}

/// How far a reader has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, sqlx::FromRow)]
pub struct Position {
    /// Transaction of the last event read.
    pub xid: i64,
    /// Its number.
    pub seq: i64,
}

/// The position from which a reader sees only what happens from now on.
pub async fn now(conn: &mut Conn) -> Result<Position> {
    let xid: i64 = sqlx::query_scalar("select pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1")
        .fetch_one(conn)
        .await?;
    Ok(Position { xid, seq: i64::MAX })
}

/// Up to `limit` events after the position, in order.
pub async fn after(conn: &mut Conn, position: Position, limit: i64) -> Result<Vec<EventRow>> {
    Ok(sqlx::query_as(
        "select seq, xid::text::bigint as xid, account_id, resource, resource_id from events
         where (xid, seq) > ($1::text::xid8, $2)
           -- Another database of the cluster may have a transaction that runs for hours; ours end within seconds.
           and (xid < pg_snapshot_xmin(pg_current_snapshot()) or at < now() - interval '30 seconds')
         order by xid, seq limit $3",
    )
    .bind(position.xid.to_string())
    .bind(position.seq)
    .bind(limit)
    .fetch_all(conn)
    .await?)
}

/// Whether events after the position wait for a transaction that still runs.
pub async fn is_pending(conn: &mut Conn, position: Position) -> Result<bool> {
    Ok(sqlx::query_scalar("select exists (select from events where (xid, seq) > ($1::text::xid8, $2))")
        .bind(position.xid.to_string())
        .bind(position.seq)
        .fetch_one(conn)
        .await?)
}
