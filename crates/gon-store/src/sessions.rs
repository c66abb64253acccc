//! Refresh tokens: known by their hash, used once, revoked by family.

use uuid::Uuid;

use crate::{Conn, Result};

/// What became of a refresh token that was presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented {
    /// Taken; it is used up now.
    Taken {
        /// Whose it is.
        user: Uuid,
        /// Its family.
        family: Uuid,
    },
    /// It had been used before: somebody has a copy. Its whole family is revoked now.
    Reused {
        /// Whose it was.
        user: Uuid,
        /// The family.
        family: Uuid,
    },
    /// Never issued, expired or revoked.
    Unknown,
}

/// Keeps a new token of a family.
pub async fn issue(conn: &mut Conn, sha256: &[u8; 32], user: Uuid, family: Uuid, days: i32) -> Result<()> {
    sqlx::query(
        "insert into refresh_tokens (token_sha256, user_id, family, expires_at)
         values ($1, $2, $3, now() + make_interval(days => $4))",
    )
    .bind(sha256.as_slice())
    .bind(user)
    .bind(family)
    .bind(days)
    .execute(conn)
    .await?;
    Ok(())
}

/// Uses a token up. Of two who present it at once, one is too late.
pub async fn present(conn: &mut Conn, sha256: &[u8; 32]) -> Result<Presented> {
    let taken: Option<(Uuid, Uuid)> = sqlx::query_as(
        "update refresh_tokens set used_at = now()
         where token_sha256 = $1 and used_at is null and revoked_at is null and expires_at > now()
         returning user_id, family",
    )
    .bind(sha256.as_slice())
    .fetch_optional(&mut *conn)
    .await?;
    if let Some((user, family)) = taken {
        return Ok(Presented::Taken { user, family });
    }
    let reused: Option<(Uuid, Uuid)> = sqlx::query_as(
        "select user_id, family from refresh_tokens where token_sha256 = $1 and used_at is not null",
    )
    .bind(sha256.as_slice())
    .fetch_optional(&mut *conn)
    .await?;
    let Some((user, family)) = reused else { return Ok(Presented::Unknown) };
    revoke(conn, family).await?;
    Ok(Presented::Reused { user, family })
}

/// Revokes a family.
pub async fn revoke(conn: &mut Conn, family: Uuid) -> Result<()> {
    sqlx::query("update refresh_tokens set revoked_at = now() where family = $1 and revoked_at is null")
        .bind(family)
        .execute(conn)
        .await?;
    Ok(())
}

/// The family and user of a token, whatever became of it: for logging out.
pub async fn family_of(conn: &mut Conn, sha256: &[u8; 32]) -> Result<Option<(Uuid, Uuid)>> {
    Ok(sqlx::query_as("select family, user_id from refresh_tokens where token_sha256 = $1")
        .bind(sha256.as_slice())
        .fetch_optional(conn)
        .await?)
}
