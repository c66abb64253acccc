//! Join tokens: known by the hash of their secret, used once.

use uuid::Uuid;

use crate::{Conn, Result};

/// A token that is about to be handed out.
#[derive(Debug, Clone)]
pub struct NewToken<'a> {
    /// SHA-256 of its secret.
    pub secret_sha256: [u8; 32],
    /// The roles that may be asked for with it.
    pub roles: &'a [&'a str],
    /// The only name it lets in, if it is for one.
    pub server_name: Option<&'a str>,
    /// Who made it.
    pub created_by: &'a str,
    /// Seconds for which it is good.
    pub lifetime: u32,
}

/// What a token allows whoever presented it in time.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Redeemed {
    /// The roles that may be asked for.
    pub roles: Vec<String>,
    /// Whether it was made for this name, so that a server of that name may be replaced.
    pub for_this_name: bool,
    /// Whether this very request was admitted before.
    pub is_repeated: bool,
}

/// Keeps a new token.
pub async fn create(conn: &mut Conn, token: &NewToken<'_>) -> Result<()> {
    sqlx::query(
        "insert into join_tokens (id, secret_sha256, roles, server_name, created_by, expires_at)
         values ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))",
    )
    .bind(Uuid::now_v7())
    .bind(token.secret_sha256.as_slice())
    .bind(token.roles)
    .bind(token.server_name)
    .bind(token.created_by)
    .bind(f64::from(token.lifetime))
    .execute(conn)
    .await?;
    Ok(())
}

/// Uses a token up for the server `name`. `None`: there is no such token, it has expired, is for another name, or was
/// used. The same request may be repeated: its answer may have been lost. Of two different ones at once, one is too late.
pub async fn redeem(
    conn: &mut Conn,
    secret_sha256: &[u8; 32],
    name: &str,
    request_sha256: &[u8; 32],
) -> Result<Option<Redeemed>> {
    // Who waits for the row sees it as the one before left it: the old row is read under the same lock.
    Ok(sqlx::query_as(
        "with held as (select id, used_at from join_tokens where secret_sha256 = $1 for update)
         update join_tokens t
         set used_at = coalesce(t.used_at, now()), used_by = coalesce(t.used_by, $2),
           request_sha256 = coalesce(t.request_sha256, $3)
         from held
         where t.id = held.id and t.expires_at > now() and (t.server_name is null or t.server_name = $2)
           and (t.used_at is null or (t.used_by = $2 and t.request_sha256 = $3))
         returning t.roles, t.server_name is not null as for_this_name, held.used_at is not null as is_repeated",
    )
    .bind(secret_sha256.as_slice())
    .bind(name)
    .bind(request_sha256.as_slice())
    .fetch_optional(conn)
    .await?)
}
