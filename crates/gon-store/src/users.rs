//! Users: who signs in.

use uuid::Uuid;

use crate::{Conn, Result};

/// A user, with the account it acts for.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct UserRow {
    /// The user.
    pub id: Uuid,
    /// Its name.
    pub username: String,
    /// `admin` or `member`.
    pub role: String,
    /// Tokens of an older epoch are void.
    pub token_epoch: i64,
    /// Whether it may not sign in.
    pub disabled: bool,
    /// Its account.
    pub account_id: Uuid,
    /// That account's name.
    pub account_name: String,
    /// Argon2id, PHC string.
    pub password_hash: String,
}

macro_rules! view {
    () => {
        "select u.id, u.username::text as username, u.role::text as role, u.token_epoch,
           u.disabled_at is not null as disabled, u.account_id, a.name::text as account_name, u.password_hash
         from users u join accounts a on a.id = u.account_id "
    };
}

/// The user of that name.
pub async fn by_name(conn: &mut Conn, username: &str) -> Result<Option<UserRow>> {
    Ok(sqlx::query_as(concat!(view!(), "where u.username = $1::citext"))
        .bind(username)
        .fetch_optional(conn)
        .await?)
}

/// The user of that id.
pub async fn by_id(conn: &mut Conn, id: Uuid) -> Result<Option<UserRow>> {
    Ok(sqlx::query_as(concat!(view!(), "where u.id = $1")).bind(id).fetch_optional(conn).await?)
}

/// A user to be.
#[derive(Debug, Clone)]
pub struct NewUser<'a> {
    /// Its id.
    pub id: Uuid,
    /// Its account.
    pub account: Uuid,
    /// Its name.
    pub username: &'a str,
    /// Its address.
    pub email: &'a str,
    /// Argon2id, PHC string.
    pub password_hash: &'a str,
    /// `admin` or `member`.
    pub role: &'static str,
}

/// Creates a user; false if the name is taken.
pub async fn create(conn: &mut Conn, user: &NewUser<'_>) -> Result<bool> {
    let done = sqlx::query(
        "insert into users (id, account_id, username, email, password_hash, role)
         values ($1, $2, $3, $4, $5, $6::user_role) on conflict (username) do nothing",
    )
    .bind(user.id)
    .bind(user.account)
    .bind(user.username)
    .bind(user.email)
    .bind(user.password_hash)
    .bind(user.role)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives a user another password and voids every token it has.
pub async fn set_password(conn: &mut Conn, id: Uuid, password_hash: &str) -> Result<()> {
    sqlx::query(
        "with gone as (update refresh_tokens set revoked_at = now() where user_id = $1 and revoked_at is null)
         update users set password_hash = $2, token_epoch = token_epoch + 1, updated_at = now() where id = $1",
    )
    .bind(id)
    .bind(password_hash)
    .execute(conn)
    .await?;
    Ok(())
}

/// Voids every access token the user has.
pub async fn revoke_tokens(conn: &mut Conn, id: Uuid) -> Result<()> {
    sqlx::query("update users set token_epoch = token_epoch + 1, updated_at = now() where id = $1")
        .bind(id)
        .execute(conn)
        .await?;
    Ok(())
}
