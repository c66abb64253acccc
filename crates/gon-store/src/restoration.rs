//! After the database was put back from a backup: it is older than what nodes, brokers and clients have seen.
//!
//! Everybody outside compares numbers and takes what is higher, so every number that somebody may have seen goes far ahead
//! at once: leader epochs, generations, the numbers that nodes gave last. And the restoration is on record
//! (`is_restored()`): for a week what nodes have and PostgreSQL knows nothing of is explained by it, and certificates that
//! were signed in the forgotten time are believed.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::certificates::Standing;
use crate::{Conn, Result, Store, commit};

/// So far ahead go epochs and generations: more than there can have been between a backup and its restoration.
const AHEAD: i64 = 1_000_000;

/// What was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Roles whose leaders begin anew.
    pub roles: u64,
    /// Instances with a new generation.
    pub instances: u64,
    /// VPCs with a new generation.
    pub vpcs: u64,
    /// Nodes that give other numbers from now on.
    pub nodes: u64,
}

/// Puts the database ahead of everything that may have been seen of the one that is lost. Whoever leads is deposed by it;
/// again is harmless.
pub async fn record(store: &Store) -> Result<Restored> {
    let mut tx = store.begin().await?;
    let mut changed = [0; 4];
    // Instances before nodes before VPCs: the order of locks.
    let statements = [
        "update instances set generation = generation + $1 where deleted_at is null",
        // What was started since the backup holds numbers that are free here: the next ones are half of the range away.
        "update nodes set last_port_no = 16 + (last_port_no - 16 + 7992) % 15985,
           last_run_as_uid = 600000 + (last_run_as_uid - 600000 + 50000) % 100000
         where removed_at is null and $1 > 0",
        "update vpcs set generation = generation + $1 where deleted_at is null",
        "update leader_epochs set epoch = epoch + $1",
    ];
    for (statement, changed) in statements.into_iter().zip(&mut changed) {
        *changed = sqlx::query(statement).bind(AHEAD).execute(&mut *tx).await?.rows_affected();
    }
    // Another cluster counts its transactions anew: no event is of one that is still to come.
    sqlx::query("update events set xid = '3'").execute(&mut *tx).await?;
    sqlx::query("insert into restorations default values on conflict do nothing").execute(&mut *tx).await?;
    commit(tx).await?;
    let [instances, nodes, vpcs, roles] = changed;
    Ok(Restored { roles, instances, vpcs, nodes })
}

/// Which of these instances there is no row of because the database was restored: made since the backup, or removed so long
/// ago that nobody remembers. None if it was not.
pub async fn forgotten(conn: &mut Conn, instances: &[Uuid]) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar(
        "select said.id from unnest($1::uuid[]) as said (id)
         where is_restored() and not exists (select from instances i where i.id = said.id)",
    )
    .bind(instances)
    .fetch_all(conn)
    .await?)
}

/// A certificate of the site's authority that is not on record.
#[derive(Debug, Clone, Copy)]
pub struct Unrecorded<'a> {
    /// Its number.
    pub serial: &'a str,
    /// The role it is for.
    pub role: &'a str,
    /// The server it is for.
    pub name: &'a str,
    /// Since when it is good.
    pub not_before: OffsetDateTime,
    /// Until when.
    pub not_after: OffsetDateTime,
}

/// Records a certificate that was signed before the database was restored, and is therefore not in it, if its server and
/// role hold another one that stands. `None`: it is not to be believed.
pub async fn admit(store: &Store, shown: &Unrecorded<'_>) -> Result<Option<Standing>> {
    let done = sqlx::query(
        "insert into certificates (serial, role, name, hosts, authority_sha256, issued_at, not_after)
         select $1, c.role, c.name, c.hosts, c.authority_sha256, $4, $5 from certificates c
         where c.role = $2 and c.name = $3 and c.revoked_at is null
           and is_restored() and $4 < (select max(restored_at) from restorations)
         order by c.issued_at desc limit 1
         on conflict (serial) do nothing",
    )
    .bind(shown.serial)
    .bind(shown.role)
    .bind(shown.name)
    .bind(shown.not_before)
    .bind(shown.not_after)
    .execute(store.pool())
    .await?;
    if done.rows_affected() == 0 {
        return Ok(None);
    }
    crate::certificates::standing(store, shown.serial).await
}
