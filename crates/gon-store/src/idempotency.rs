//! Answers already given, by key (rule R3). They are written by [`crate::journal::write`].

use serde_json::Value;
use uuid::Uuid;

use crate::{Conn, Result};

/// An answer already given.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct AnswerRow {
    /// SHA-256 of the request it was given to.
    pub request_sha256: Vec<u8>,
    /// HTTP status.
    pub status: i16,
    /// Body.
    pub response: Value,
}

/// The answer given for a key, if one was.
pub async fn find(conn: &mut Conn, account: Uuid, key: &str) -> Result<Option<AnswerRow>> {
    Ok(sqlx::query_as(
        "select request_sha256, status, response from idempotency_keys where account_id = $1 and key = $2",
    )
    .bind(account)
    .bind(key)
    .fetch_optional(conn)
    .await?)
}

/// Keeps an answer with its key. [`crate::journal::write`] does this by itself; this is for statements that write their
/// own journal. `idempotency_keys_key` refuses a key that is taken.
pub async fn keep(tx: &mut Conn, account: Uuid, answered: &crate::journal::Answered) -> Result<()> {
    sqlx::query(
        "insert into idempotency_keys (account_id, key, request_sha256, status, response) values ($1, $2, $3, $4, $5)",
    )
    .bind(account)
    .bind(&answered.key)
    .bind(answered.request_sha256.as_slice())
    .bind(answered.status.cast_signed())
    .bind(&answered.response)
    .execute(tx)
    .await?;
    Ok(())
}
