//! Key pairs: the public half only.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::reference::Ref;
use crate::{Conn, Result, Window};

/// A key pair.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct KeyPairRow {
    /// The key pair.
    pub id: Uuid,
    /// Its name, unique in the account.
    pub name: String,
    /// `ed25519` or `rsa`.
    pub key_type: String,
    /// `SHA256:…`.
    pub fingerprint: String,
    /// A line of `authorized_keys`.
    pub public_key: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

macro_rules! view {
    () => {
        "select k.id, k.name, k.key_type, k.fingerprint, k.public_key, k.created_at from key_pairs k "
    };
}

/// Creates a key pair; `key_pairs_name_key` refuses a name that is taken. Returns when.
pub async fn create(
    tx: &mut Conn,
    account: Uuid,
    id: Uuid,
    name: &str,
    key_type: &str,
    fingerprint: &str,
    public_key: &str,
) -> Result<OffsetDateTime> {
    Ok(sqlx::query_scalar(
        "insert into key_pairs (id, account_id, name, key_type, fingerprint, public_key)
         values ($1, $2, $3, $4, $5, $6) returning created_at",
    )
    .bind(id)
    .bind(account)
    .bind(name)
    .bind(key_type)
    .bind(fingerprint)
    .bind(public_key)
    .fetch_one(tx)
    .await?)
}

/// One key pair of the account.
pub async fn get(conn: &mut Conn, account: Uuid, id: &Ref) -> Result<KeyPairRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where k.id = coalesce($2, (select id from key_pairs where short_id = $3)) and k.account_id = $1"
    ))
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(conn)
    .await?)
}

/// The key pair of that name.
pub async fn by_name(conn: &mut Conn, account: Uuid, name: &str) -> Result<Option<KeyPairRow>> {
    Ok(sqlx::query_as(concat!(view!(), "where k.account_id = $1 and k.name = $2"))
        .bind(account)
        .bind(name)
        .fetch_optional(conn)
        .await?)
}

/// Key pairs of the account; `name` narrows to that one.
pub async fn list(
    conn: &mut Conn,
    account: Uuid,
    name: Option<&str>,
    window: Window,
) -> Result<Vec<KeyPairRow>> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where k.account_id = $1 and ($2::uuid is null or k.id < $2) and ($4::text is null or k.name = $4)
         order by k.id desc limit $3"
    ))
    .persistent(false)
    .bind(account)
    .bind(window.before)
    .bind(window.limit)
    .bind(name)
    .fetch_all(conn)
    .await?)
}

/// Deletes a key pair of the account. Instances keep the copy they were launched with.
pub async fn delete(tx: &mut Conn, account: Uuid, id: &Ref) -> Result<Uuid> {
    Ok(sqlx::query_scalar(
        "delete from key_pairs
         where id = coalesce($2, (select id from key_pairs where short_id = $3)) and account_id = $1 returning id",
    )
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(tx)
    .await?)
}
