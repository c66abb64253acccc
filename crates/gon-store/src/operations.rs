//! Operations: the visible side of what is answered before it is done. Opened in the transaction of the change
//! ([`open`]), closed in the transaction that makes it true ([`settle`]), or by their deadline ([`expire`]). Those that
//! need somebody who works on them are leased: one owner at a time, and a dead one's is taken over.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::events::Watched;
use crate::journal::Author;
use crate::reference::Ref;
use crate::{Conn, Result, Window};

/// An operation to be.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Its id.
    pub id: Uuid,
    /// EC2's name of the action.
    pub action: &'static str,
    /// `instance` or `node`.
    pub resource: &'static str,
    /// Which.
    pub resource_id: Uuid,
    /// What has come about when it has succeeded: `running`, `stopped`, `terminated`, `rebooted` or `drained`.
    pub goal: &'static str,
    /// The generation, or of a reboot the number of reboots, that must be observed.
    pub generation: i64,
    /// How it was asked for.
    pub parameters: Value,
    /// How long it may take, seconds.
    pub patience: i32,
}

/// Opens operations; one that is open for the same resource is cancelled, since what it wanted is no longer wanted.
pub async fn open(tx: &mut Conn, author: &Author, openings: &[Opening]) -> Result<()> {
    if openings.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = openings.iter().map(|o| o.id).collect();
    let actions: Vec<&str> = openings.iter().map(|o| o.action).collect();
    let resources: Vec<&str> = openings.iter().map(|o| o.resource).collect();
    let resource_ids: Vec<Uuid> = openings.iter().map(|o| o.resource_id).collect();
    let goals: Vec<&str> = openings.iter().map(|o| o.goal).collect();
    let generations: Vec<i64> = openings.iter().map(|o| o.generation).collect();
    let parameters: Vec<&Value> = openings.iter().map(|o| &o.parameters).collect();
    let patience: Vec<i32> = openings.iter().map(|o| o.patience).collect();
    // A launch has nothing to supersede; the others have. One statement would not see the unique index's row go.
    if openings.iter().any(|o| o.action != "RunInstances") {
        let first = &openings[0];
        cancel(tx, &resource_ids, &format!("superseded by {}", first.action)).await?;
    }
    sqlx::query(
        "insert into operations (id, account_id, user_id, request_id, action, resource, resource_id, goal, generation,
           parameters, deadline)
         select o.id, $9, $10, $11, o.action, o.resource, o.resource_id, o.goal::operation_goal, o.generation,
           o.parameters, now() + o.patience * interval '1 second'
         from unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::bigint[], $7::jsonb[], $8::int[])
           as o (id, action, resource, resource_id, goal, generation, parameters, patience)",
    )
    .bind(ids)
    .bind(actions)
    .bind(resources)
    .bind(resource_ids)
    .bind(goals)
    .bind(generations)
    .bind(parameters)
    .bind(patience)
    .bind(author.account)
    .bind(author.user)
    .bind(&author.request_id)
    .execute(tx)
    .await?;
    Ok(())
}

/// Cancels what is open for these resources.
pub async fn cancel(tx: &mut Conn, resources: &[Uuid], why: &str) -> Result<()> {
    sqlx::query(
        "update operations set state = 'cancelled', last_error = $2, finished_at = now(), updated_at = now(),
           lease_owner = null, lease_until = null
         where resource_id = any ($1) and finished_at is null",
    )
    .bind(resources)
    .bind(why)
    .execute(tx)
    .await?;
    Ok(())
}

/// Cancels one operation; false if it has ended.
pub async fn cancel_one(tx: &mut Conn, id: Uuid, why: &str) -> Result<bool> {
    let done = sqlx::query(
        "update operations set state = 'cancelled', last_error = $2, finished_at = now(), updated_at = now(),
           lease_owner = null, lease_until = null
         where id = $1 and finished_at is null",
    )
    .bind(id)
    .bind(why)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Closes what is open for an instance and decided by how it is now: succeeded if its goal has come about, failed or
/// cancelled if it no longer can. `reboots` is how many the node has done, if it said so while the guest ran.
pub async fn settle(tx: &mut Conn, instance: Uuid, reboots: Option<i64>) -> Result<()> {
    sqlx::query(
        "with judged as (
           select o.id, o.account_id,
             case
               when o.goal = 'terminated' and i.state = 'terminated' then 'succeeded'
               when o.goal = 'terminated' then null
               when i.state in ('shutting-down', 'terminated') and i.state_reason is null then 'cancelled'
               when i.state in ('shutting-down', 'terminated') then 'failed'
               when o.goal = 'rebooted' and i.state = 'running' and $2 >= o.generation then 'succeeded'
               when o.goal = 'rebooted' and i.state = 'stopped' then 'failed'
               when o.goal = 'running' and i.state = 'running' then 'succeeded'
               when o.goal = 'running' and i.state = 'stopped' and i.power = 'stopped' then 'failed'
               when o.goal = 'stopped' and i.state = 'stopped' then 'succeeded'
             end::operation_state as verdict, i.state_reason
           from operations o join instances i on i.id = o.resource_id
           where o.resource_id = $1 and o.finished_at is null),
         closed as (
           update operations o set state = j.verdict, finished_at = now(), updated_at = now(), lease_owner = null,
             lease_until = null,
             last_error = case j.verdict when 'failed' then left(coalesce(j.state_reason, 'the instance stopped'), 1000)
               when 'cancelled' then 'the instance was terminated' end
           from judged j where o.id = j.id and j.verdict is not null returning o.id, o.account_id, o.state)
         insert into events (account_id, resource, resource_id, from_state, to_state, actor)
         select account_id, $3, id, 'running', state::text, 'instance-manager' from closed",
    )
    .bind(instance)
    .bind(reboots)
    .bind(Watched::Operation.word())
    .execute(tx)
    .await?;
    Ok(())
}

/// Closes what was not done by its deadline, with the reason there is. Returns how many.
pub async fn expire(tx: &mut Conn) -> Result<u64> {
    let closed = sqlx::query(
        "with late as (
           select o.id, coalesce(case when o.resource = 'node' then o.last_error end, i.state_reason,
             case when i.id is not null then 'the instance is ' || i.state::text end) as why
           from operations o left join instances i on i.id = o.resource_id
           where o.finished_at is null and o.deadline <= now() order by o.deadline limit 100
           for update of o skip locked),
         closed as (
           update operations o set state = 'failed', finished_at = now(), updated_at = now(), lease_owner = null,
             lease_until = null, last_error = left('not done in time' || coalesce(': ' || l.why, ''), 1000)
           from late l where o.id = l.id returning o.id, o.account_id, o.state),
         told as (
           insert into events (account_id, resource, resource_id, from_state, to_state, actor)
           select account_id, $1, id, 'running', state::text, 'instance-manager' from closed
           returning account_id)
         insert into outbox (subject, subject_id) select distinct 'event', account_id from told",
    )
    .bind(Watched::Operation.word())
    .execute(tx)
    .await?;
    Ok(closed.rows_affected())
}

// ── Work ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// An operation that somebody works on.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct WorkRow {
    /// The operation.
    pub id: Uuid,
    /// Whose it is.
    pub account_id: Uuid,
    /// What it is about.
    pub resource_id: Uuid,
    /// How it was asked for.
    pub parameters: Value,
    /// How often somebody took it; this is the lease's number.
    pub tries: i32,
}

/// Takes the operation that is due first and nobody works on, for `seconds`.
pub async fn claim(tx: &mut Conn, owner: &str, seconds: i32) -> Result<Option<WorkRow>> {
    Ok(sqlx::query_as(
        "update operations set lease_owner = $1, lease_until = now() + $2 * interval '1 second', tries = tries + 1
         where id = (select id from operations
                     where goal = 'drained' and finished_at is null and due_at <= now()
                       and (lease_until is null or lease_until <= now())
                     order by due_at limit 1 for update skip locked)
         returning id, account_id, resource_id, parameters, tries",
    )
    .bind(owner)
    .bind(seconds)
    .fetch_optional(tx)
    .await?)
}

/// Whether the lease of [`claim`] still holds; nobody else gets it, nor ends the operation, until the transaction ends.
pub async fn hold(tx: &mut Conn, work: &WorkRow, owner: &str) -> Result<bool> {
    let held: Option<Uuid> = sqlx::query_scalar(
        "select id from operations where id = $1 and lease_owner = $2 and tries = $3 and lease_until > now()
           and finished_at is null for update",
    )
    .bind(work.id)
    .bind(owner)
    .bind(work.tries)
    .fetch_optional(tx)
    .await?;
    Ok(held.is_some())
}

/// Puts a held operation back, to be looked at again after `seconds`, with how far it has come.
pub async fn put_back(
    tx: &mut Conn,
    id: Uuid,
    progress: &Value,
    waits_for: Option<&str>,
    seconds: i32,
) -> Result<()> {
    sqlx::query(
        "update operations set lease_owner = null, lease_until = null, due_at = now() + $4 * interval '1 second',
           updated_at = case when progress is distinct from $2 then now() else updated_at end,
           progress = $2, last_error = left($3, 1000)
         where id = $1",
    )
    .bind(id)
    .bind(progress)
    .bind(waits_for)
    .bind(seconds)
    .execute(tx)
    .await?;
    Ok(())
}

/// Ends a held operation well.
pub async fn succeed(tx: &mut Conn, id: Uuid, progress: &Value) -> Result<()> {
    sqlx::query(
        "with closed as (
           update operations set state = 'succeeded', progress = $2, last_error = null, finished_at = now(),
             updated_at = now(), lease_owner = null, lease_until = null
           where id = $1 returning account_id, id),
         told as (
           insert into events (account_id, resource, resource_id, from_state, to_state, actor)
           select account_id, $3, id, 'running', 'succeeded', 'instance-manager' from closed
           returning account_id)
         insert into outbox (subject, subject_id) select 'event', account_id from told",
    )
    .bind(id)
    .bind(progress)
    .bind(Watched::Operation.word())
    .execute(tx)
    .await?;
    Ok(())
}

// ── As users see them ───────────────────────────────────────────────────────────────────────────────────────────────

/// An operation.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct OperationRow {
    /// The operation.
    pub id: Uuid,
    /// EC2's name of the action.
    pub action: String,
    /// `instance` or `node`.
    pub resource: String,
    /// Which.
    pub resource_id: Uuid,
    /// `pending`, `running`, `succeeded`, `failed` or `cancelled`.
    pub state: String,
    /// How far it has come.
    pub progress: Value,
    /// Why it failed, or what it waits for.
    pub last_error: Option<String>,
    /// How often somebody worked on it.
    pub tries: i32,
    /// In which request it was asked for.
    pub request_id: String,
    /// Until when it may take.
    pub deadline: OffsetDateTime,
    /// When it was asked for.
    pub created_at: OffsetDateTime,
    /// When it last got on.
    pub updated_at: OffsetDateTime,
    /// When it ended.
    pub finished_at: Option<OffsetDateTime>,
}

macro_rules! view {
    () => {
        "select o.id, o.action, o.resource, o.resource_id, o.state::text as state, o.progress, o.last_error, o.tries,
           o.request_id, o.deadline, o.created_at, o.updated_at, o.finished_at from operations o "
    };
}

/// One operation of the account.
pub async fn get(conn: &mut Conn, account: Uuid, id: &Ref) -> Result<OperationRow> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where o.id = coalesce($2, (select id from operations where short_id = $3)) and o.account_id = $1"
    ))
    .bind(account)
    .bind(id.whole)
    .bind(&id.short)
    .fetch_one(conn)
    .await?)
}

/// What a list may be narrowed to.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// In this state.
    pub state: Option<String>,
    /// Of this action.
    pub action: Option<String>,
    /// About this resource.
    pub resource: Option<Uuid>,
}

/// Operations of the account.
pub async fn list(
    conn: &mut Conn,
    account: Uuid,
    filter: &Filter,
    window: Window,
) -> Result<Vec<OperationRow>> {
    Ok(sqlx::query_as(concat!(
        view!(),
        "where o.account_id = $1 and ($2::uuid is null or o.id < $2) and ($4::text is null or o.state::text = $4)
           and ($5::text is null or o.action = $5) and ($6::uuid is null or o.resource_id = $6)
         order by o.id desc limit $3"
    ))
    .persistent(false)
    .bind(account)
    .bind(window.before)
    .bind(window.limit)
    .bind(&filter.state)
    .bind(&filter.action)
    .bind(filter.resource)
    .fetch_all(conn)
    .await?)
}
