//! Accounts: who owns.

use uuid::Uuid;

use crate::{Conn, Result};

/// Creates an account, or finds the one of that name. Returns its id.
pub async fn ensure(conn: &mut Conn, id: Uuid, name: &str) -> Result<Uuid> {
    Ok(sqlx::query_scalar(
        "with made as (insert into accounts (id, name) values ($1, $2) on conflict (name) do nothing returning id)
         select id from made union all select id from accounts where name = $2 limit 1",
    )
    .bind(id)
    .bind(name)
    .fetch_one(conn)
    .await?)
}
