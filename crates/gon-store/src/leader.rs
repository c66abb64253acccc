//! Who leads a role: the epoch that fences out whoever led before (rules R5, R6).

use crate::{Result, Store};

/// Takes over `role`: raises its epoch and returns the new one. Documents made under an older epoch are refused by
/// every agent that has seen a newer.
pub async fn take_over(store: &Store, role: &str, holder: &str) -> Result<u64> {
    let epoch: i64 = sqlx::query_scalar(
        "insert into leader_epochs (role, epoch, holder) values ($1, 1, $2)
         on conflict (role) do update set epoch = leader_epochs.epoch + 1, holder = excluded.holder, taken_at = now()
         returning epoch",
    )
    .bind(role)
    .bind(holder)
    .fetch_one(store.pool())
    .await?;
    Ok(epoch.unsigned_abs())
}
