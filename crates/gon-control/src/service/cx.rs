//! What a call runs in: who asks, in which request, and the way to end it: commit, then ring, then perhaps wait.

use std::time::Duration;

use gon_api::page::Wait;
use gon_api::{Applied, Page};
use gon_core::authz::Actor;
use gon_store::journal::{Answered, Author, Entry};
use gon_store::{Conn, StoreError, Tx, Window};
use gon_types::crash;
use gon_types::id::{IdRef, OperationId, Resource as KindOfId};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::error::{Refusal, Result};
use crate::api::AppState;

/// An idempotency key with the request it came with.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// The key.
    pub key: String,
    /// SHA-256 of method, path and body.
    pub request_sha256: [u8; 32],
    /// Status of the answer.
    pub status: u16,
}

/// A call that was let in.
#[derive(Debug, Clone)]
pub struct Cx {
    /// What the API server has.
    pub app: AppState,
    /// Who asks.
    pub actor: Actor,
    /// The same for the books.
    pub author: Author,
    /// The idempotency key, if one was sent.
    pub idempotency: Option<IdempotencyKey>,
    /// From `If-Match`: change only if it has not changed since.
    pub unless_changed_since: Option<OffsetDateTime>,
}

/// What the API answers with: it may have a version, which is its entity tag, and what of it a replay must not repeat.
pub trait Resource: Serialize {
    /// When it last changed.
    fn version(&self) -> Option<OffsetDateTime> {
        None
    }
    /// The body to keep for a repeated request: without secrets.
    fn keepable(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }
}

macro_rules! versioned {
    ($($kind:ty),* $(,)?) => {$(
        impl Resource for $kind {
            fn version(&self) -> Option<OffsetDateTime> {
                Some(self.updated_at)
            }
        }
    )*};
}
versioned!(
    gon_api::vpcs::Vpc,
    gon_api::subnets::Subnet,
    gon_api::route_tables::RouteTable,
    gon_api::internet_gateways::InternetGateway,
    gon_api::network_acls::NetworkAcl,
    gon_api::security_groups::SecurityGroup,
    gon_api::instances::Instance,
    gon_api::network_interfaces::NetworkInterface,
    gon_api::prefix_lists::PrefixList,
);
impl Resource for gon_api::instances::LaunchedInstance {
    fn version(&self) -> Option<OffsetDateTime> {
        Some(self.instance.updated_at)
    }
}
impl Resource for gon_api::instances::ConsoleOutput {}
impl Resource for gon_api::security_groups::SecurityGroupRule {}
impl Resource for gon_api::addresses::Address {}
impl Resource for gon_api::auth::Me {}
impl Resource for gon_api::images::Image {}
impl Resource for gon_api::nodes::Node {}
impl Resource for gon_api::trace::PacketTrace {}
impl Resource for gon_api::operations::Operation {}
impl Resource for gon_api::key_pairs::KeyPair {
    fn keepable(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(Self { private_key: None, ..self.clone() })
    }
}
impl<T: Serialize> Resource for Page<T> {}
/// No body.
impl Resource for () {}

impl Cx {
    /// The account that asks.
    #[must_use]
    pub fn account(&self) -> Uuid {
        self.actor.account
    }

    /// A connection for reading.
    pub async fn conn(&self) -> Result<impl std::ops::DerefMut<Target = Conn> + use<>> {
        Ok(self.app.store.read().await?)
    }

    /// Begins the transaction of a change.
    pub async fn begin(&self) -> Result<Tx> {
        Ok(self.app.store.begin().await?)
    }

    /// The answer to keep with the idempotency key, if one was sent.
    pub fn answered<R: Resource>(&self, response: &R) -> Result<Option<Answered>> {
        let Some(key) = &self.idempotency else { return Ok(None) };
        let response = response.keepable().map_err(|_| Refusal::internal("an answer is not JSON"))?;
        Ok(Some(Answered {
            key: key.key.clone(),
            request_sha256: key.request_sha256,
            status: key.status,
            response,
        }))
    }

    /// Writes the books and commits; then the doorbells leave.
    pub async fn commit<R: Resource>(&self, mut tx: Tx, entry: Entry, response: &R) -> Result<()> {
        let answered = self.answered(response)?;
        crash::point("C08:before");
        gon_store::journal::write(&mut tx, &self.author, &entry, answered.as_ref()).await?;
        crash::point("C08:after");
        self.commit_written(tx).await?;
        for operation in &entry.operations {
            tracing::info!(
                request_id = self.author.request_id,
                operation_id = %OperationId::from_uuid(operation.id),
                action = operation.action,
                resource = operation.resource,
                resource_id = %operation.resource_id,
                "accepted"
            );
        }
        Ok(())
    }

    /// Commits what has its books written already.
    pub async fn commit_written(&self, tx: Tx) -> Result<()> {
        crash::point("C09:before");
        gon_store::commit(tx).await?;
        crash::point("C09:after");
        self.app.nudge.nudge();
        Ok(())
    }

    /// Where a page begins and how long it is; one more row is asked for, to know whether there is another page.
    pub fn window(&self, list: &str, (limit, cursor): (Option<&str>, Option<&str>)) -> Result<Window> {
        let limit = match limit {
            None => 100,
            Some(text) => text
                .parse::<u16>()
                .ok()
                .filter(|n| (1..=1000).contains(n))
                .ok_or_else(|| Refusal::invalid("limit", "must be 1 to 1000"))?,
        };
        let before =
            cursor.map(|cursor| self.app.cursor_key.read(list, self.account(), cursor)).transpose()?;
        Ok(Window { before, limit: i64::from(limit) + 1 })
    }

    /// A page of rows that were asked for with a window of [`Self::window`].
    pub fn page<Row, T>(
        &self,
        list: &str,
        window: Window,
        mut rows: Vec<Row>,
        id: impl Fn(&Row) -> Uuid,
        shown: impl FnMut(Row) -> T,
    ) -> Page<T> {
        let limit = usize::try_from(window.limit - 1).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows
            .last()
            .filter(|_| more)
            .map(|last| self.app.cursor_key.write(list, self.account(), id(last)));
        Page { items: rows.into_iter().map(shown).collect(), next_cursor }
    }

    /// What to wait for and until when, if the request asks for one of `allowed`. Asked before anything is changed, so
    /// that a wrong one changes nothing.
    pub fn until(&self, wait: &Wait, allowed: &[&'static str]) -> Result<Option<Until>> {
        let timeout = match wait.timeout.as_deref() {
            None => 30,
            Some(text) => text
                .parse::<u64>()
                .ok()
                .filter(|n| (1..=60).contains(n))
                .ok_or_else(|| Refusal::invalid("timeout", "must be 1 to 60 seconds"))?,
        };
        let Some(asked) = wait.wait.as_deref() else { return Ok(None) };
        match allowed.iter().find(|known| **known == asked) {
            Some(what) => Ok(Some(Until { what, deadline: Instant::now() + Duration::from_secs(timeout) })),
            None => Err(Refusal::invalid("wait", format!("must be {}", allowed.join(" or ")))),
        }
    }

    /// Until when to wait for `applied`, if the request asks for it.
    pub fn until_applied(&self, wait: &Wait) -> Result<Option<Until>> {
        self.until(wait, &["applied"])
    }

    /// Waits until the generation is in force on every node, if the request asked for it.
    pub async fn settle(&self, vpc: Uuid, applied: Applied, until: Option<Until>) -> Result<Applied> {
        let Some(until) = until else { return Ok(applied) };
        let mut applied = applied;
        let mut pause = Pause::new(&self.app, until.deadline);
        while !applied.is_complete() && pause.rest().await {
            let mut conn = self.conn().await?;
            applied = show_applied(gon_store::vpcs::applied_at(&mut conn, vpc, applied.generation).await?);
        }
        Ok(applied)
    }

    /// Turns "no such row" into EC2's words for that kind of resource.
    pub fn found<T, R: KindOfId>(result: gon_store::Result<T>, shown: &IdRef<R>) -> Result<T> {
        result.map_err(|error| match error {
            StoreError::NotFound => {
                let shown = match shown {
                    IdRef::Whole(id) => id.to_string(),
                    IdRef::Short(short) => format!("{}-{short}", R::PREFIX),
                };
                Refusal::not_found(R::EC2_ERROR, R::NOUN, shown)
            }
            other => other.into(),
        })
    }
}

/// What a request waits for.
#[derive(Debug, Clone, Copy)]
pub struct Until {
    /// One of the words it may wait for.
    pub what: &'static str,
    /// No longer than this.
    pub deadline: Instant,
}

/// How far a change has come, in the API's words.
#[must_use]
pub fn show_applied(row: gon_store::vpcs::AppliedRow) -> Applied {
    Applied { generation: row.generation, nodes: row.nodes, acked: row.acked }
}

/// Looks again when something happened, and in growing steps in case nobody said so.
#[derive(Debug)]
pub struct Pause {
    news: watch::Receiver<()>,
    deadline: Instant,
    step: Duration,
}

impl Pause {
    /// Until the deadline.
    #[must_use]
    pub fn new(app: &AppState, deadline: Instant) -> Self {
        Self { news: app.events.news(), deadline, step: Duration::from_millis(2) }
    }
    /// Waits until it is worth looking again; false if the time is up.
    pub async fn rest(&mut self) -> bool {
        let now = Instant::now();
        if now >= self.deadline {
            return false;
        }
        let until = (now + self.step).min(self.deadline);
        self.step = (self.step * 3 / 2).min(Duration::from_millis(250));
        tokio::select! {
            // Its sender lives as long as the application.
            Ok(()) = self.news.changed() => {}
            () = tokio::time::sleep_until(until) => {}
        }
        // It waited for something else than PostgreSQL.
        gon_store::patience_anew();
        true
    }
}
