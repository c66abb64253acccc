//! Users. Making and changing them over the API comes with accounts; this is the first administrator.

use gon_store::users::NewUser;
use gon_store::{Store, StoreError};
use uuid::Uuid;

use crate::api::hash_password;

/// Why there is no administrator.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Not a name a user can have.
    #[error(
        "'{0}' is not a user name: 1 to 50 of a-z, 0-9, dot, dash, underscore, beginning with a letter or digit"
    )]
    Name(String),
    /// Not a password.
    #[error("a password has 8 to 1024 bytes")]
    Password,
    /// It could not be hashed.
    #[error("the password could not be hashed")]
    Hash,
    /// PostgreSQL.
    #[error("the administrator could not be written")]
    Store(#[from] StoreError),
}

/// Makes the administrator of the first account (`default`) unless there is a user of that name. A password that is
/// there already is not changed: what an operator set is not undone by a restart. True if it was made.
pub async fn ensure_admin(store: &Store, username: &str, password: &str) -> Result<bool, AdminError> {
    ensure_user(store, "default", username, password, "admin").await
}

/// Makes a user of an account unless there is one of that name; the account as well. True if it was made.
pub async fn ensure_user(
    store: &Store,
    account: &str,
    username: &str,
    password: &str,
    role: &'static str,
) -> Result<bool, AdminError> {
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ok = (1..=50).contains(&username.len())
        && username.bytes().next().is_some_and(good)
        && username.bytes().all(|c| good(c) || b"._-".contains(&c));
    if !ok {
        return Err(AdminError::Name(username.chars().take(60).collect()));
    }
    if !(8..=1024).contains(&password.len()) {
        return Err(AdminError::Password);
    }
    let mut conn = store.conn().await?;
    if gon_store::users::by_name(&mut conn, username).await?.is_some() {
        return Ok(false);
    }
    drop(conn);
    let password = password.to_owned();
    let hash = tokio::task::spawn_blocking(move || hash_password(&password))
        .await
        .map_err(|_| AdminError::Hash)?
        .map_err(|_| AdminError::Hash)?;
    let mut tx = store.begin().await?;
    let account = gon_store::accounts::ensure(&mut tx, Uuid::now_v7(), account).await?;
    let user = NewUser {
        id: Uuid::now_v7(),
        account,
        username,
        email: &format!("{username}@localhost"),
        password_hash: &hash,
        role,
    };
    let created = gon_store::users::create(&mut tx, &user).await?;
    gon_store::commit(tx).await?;
    Ok(created)
}
