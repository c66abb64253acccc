//! What every mutation writes besides its state: doorbells, audit, events, and the idempotency key with the answer.
//! One statement, in the transaction of the state.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use uuid::Uuid;

use crate::events::Watched;
use crate::operations::Opening;
use crate::{Conn, Result};

/// Who did it, in which request.
#[derive(Debug, Clone)]
pub struct Author {
    /// For this account.
    pub account: Uuid,
    /// This user.
    pub user: Uuid,
    /// As events name it.
    pub name: String,
    /// `req-…`.
    pub request_id: String,
    /// Where the request came from.
    pub source_ip: Option<IpAddr>,
}

/// An idempotency key and the answer that belongs to it.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The key.
    pub key: String,
    /// SHA-256 of the request.
    pub request_sha256: [u8; 32],
    /// HTTP status of the answer.
    pub status: u16,
    /// Its body.
    pub response: Value,
}

/// A change of state that users watch.
#[derive(Debug, Clone)]
pub struct EventRow {
    /// What it is.
    pub resource: Watched,
    /// Which.
    pub id: Uuid,
    /// State before, where there are states.
    pub from: Option<String>,
    /// State after.
    pub to: Option<String>,
}

/// One mutation.
#[derive(Debug, Clone)]
pub struct Entry {
    /// EC2's name of the action.
    pub action: &'static str,
    /// What it was done to.
    pub resource: Uuid,
    /// What the audit log keeps besides; no secrets.
    pub detail: Value,
    /// Doorbells to ring: subject and id. The one for the events is added by itself.
    pub doorbells: Vec<(&'static str, Uuid)>,
    /// What users see change.
    pub events: Vec<EventRow>,
    /// What is not done yet when this is answered.
    pub operations: Vec<Opening>,
}

impl Entry {
    /// An entry without doorbells or events.
    #[must_use]
    pub fn new(action: &'static str, resource: Uuid) -> Self {
        Self {
            action,
            resource,
            detail: Value::Object(Default::default()),
            doorbells: vec![],
            events: vec![],
            operations: vec![],
        }
    }
    /// With this in the audit log.
    #[must_use]
    pub fn detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }
    /// With a doorbell for the controllers of this VPC's packets.
    #[must_use]
    pub fn vpc(mut self, vpc: Uuid) -> Self {
        self.doorbells.push(("vpc", vpc));
        self
    }
    /// With a doorbell for the instance manager.
    #[must_use]
    pub fn instance(mut self, instance: Uuid) -> Self {
        self.doorbells.push(("instance", instance));
        self
    }
    /// With an operation.
    #[must_use]
    pub fn operation(mut self, operation: Opening) -> Self {
        self.operations.push(operation);
        self
    }
    /// With an event.
    #[must_use]
    pub fn event(mut self, resource: Watched, id: Uuid, from: Option<&str>, to: Option<&str>) -> Self {
        self.events.push(EventRow { resource, id, from: from.map(Into::into), to: to.map(Into::into) });
        self
    }
}

/// Writes the entry.
pub async fn write(tx: &mut Conn, author: &Author, entry: &Entry, answered: Option<&Answered>) -> Result<()> {
    crate::operations::open(tx, author, &entry.operations).await?;
    let mut doorbells = entry.doorbells.clone();
    if !entry.events.is_empty() {
        doorbells.push(("event", author.account));
    }
    let (subjects, ids): (Vec<&str>, Vec<Uuid>) = doorbells.into_iter().unzip();
    let resources: Vec<&str> = entry.events.iter().map(|e| e.resource.word()).collect();
    let resource_ids: Vec<Uuid> = entry.events.iter().map(|e| e.id).collect();
    let from: Vec<Option<&str>> = entry.events.iter().map(|e| e.from.as_deref()).collect();
    let to: Vec<Option<&str>> = entry.events.iter().map(|e| e.to.as_deref()).collect();
    sqlx::query(
        "with rung as (
           insert into outbox (subject, subject_id) select * from unnest($1::text[], $2::uuid[])),
         seen as (
           insert into events (account_id, resource, resource_id, from_state, to_state, actor)
           select $3, e.resource, e.id, e.before, e.after, $4
           from unnest($5::text[], $6::uuid[], $7::text[], $8::text[]) as e (resource, id, before, after)),
         kept as (
           insert into idempotency_keys (account_id, key, request_sha256, status, response)
           select $3, $9, $10, $11, $12 where $9::text is not null)
         insert into audit_log (account_id, user_id, action, resource_id, request_id, source_ip, detail)
         values ($3, $13, $14, $15, $16, $17, $18)",
    )
    .bind(subjects)
    .bind(ids)
    .bind(author.account)
    .bind(&author.name)
    .bind(resources)
    .bind(resource_ids)
    .bind(from)
    .bind(to)
    .bind(answered.map(|a| a.key.as_str()))
    .bind(answered.map(|a| a.request_sha256.as_slice()))
    .bind(answered.map(|a| a.status.cast_signed()))
    .bind(answered.map(|a| &a.response))
    .bind(author.user)
    .bind(entry.action)
    .bind(entry.resource)
    .bind(&author.request_id)
    .bind(author.source_ip.map(IpNet::from))
    .bind(&entry.detail)
    .execute(tx)
    .await?;
    Ok(())
}
