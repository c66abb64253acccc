//! Events for those who watch: read from PostgreSQL when a doorbell rings while anybody watches, and once a second anyway;
//! each sent once to every WebSocket of its account.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gon_bus::Bus;
use gon_proto::doorbell::Subject;
use gon_store::events::{Position, Watched};
use serde_json::json;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::state::AppState;
use crate::service::instances::show;

/// Events a slow browser may be behind before it is cut off, and reads everything again.
const DEPTH: usize = 1024;
/// Events read at once.
const BATCH: i64 = 500;

/// A message on its way to the browsers of an account.
#[derive(Debug, Clone)]
pub struct Message {
    /// Whose it is.
    pub account: Uuid,
    /// What is sent.
    pub text: Arc<str>,
}

/// Where WebSockets get their messages, and requests that wait for a state hear that it is worth looking again.
#[derive(Debug, Clone)]
pub struct EventHub {
    messages: broadcast::Sender<Message>,
    news: watch::Sender<()>,
}

impl Default for EventHub {
    fn default() -> Self {
        Self { messages: broadcast::Sender::new(DEPTH), news: watch::Sender::default() }
    }
}

impl EventHub {
    /// Everything from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Message> {
        self.messages.subscribe()
    }

    /// That there was something, from now on.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    fn has_hearers(&self) -> bool {
        self.messages.receiver_count() + self.news.receiver_count() > 0
    }
}

/// Brings events to the hub until it is told to stop. One per API server.
pub async fn watch_events(app: AppState, bus: Arc<dyn Bus>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut bells = bus.subscribe(&[Subject::Event]).await?;
    let mut position: Option<Position> = None;
    let mut due = Instant::now();
    let mut failing = false;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            heard = bells.next(), if position.is_some() => match heard {
                // Nobody would get it: the processor is for those who do what was asked.
                Ok(_) if !app.events.has_hearers() => continue,
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            },
            () = tokio::time::sleep_until(due) => {}
        }
        let pause = match look(&app, &mut position).await {
            Ok(more) => {
                failing = false;
                // Rows of a transaction that still runs are near: its end rings no bell of its own for the others.
                if more { Duration::from_millis(3) } else { Duration::from_secs(1) }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(error = &error as &dyn std::error::Error, "events cannot be read");
                }
                Duration::from_secs(1)
            }
        };
        due = Instant::now() + pause;
    }
}

/// Sends what is new; true if there is more, now or in a moment.
async fn look(app: &AppState, position: &mut Option<Position>) -> gon_store::Result<bool> {
    let mut conn = app.store.conn().await?;
    let Some(from) = *position else {
        *position = Some(gon_store::events::now(&mut conn).await?);
        return Ok(true);
    };
    let rows = gon_store::events::after(&mut conn, from, BATCH).await?;
    let Some(last) = rows.last() else {
        return gon_store::events::is_pending(&mut conn, from).await;
    };
    let after = Position { xid: last.xid, seq: last.seq };
    // Nobody listening is no error, here and below.
    let _ = app.events.news.send(());
    if app.events.messages.receiver_count() > 0 {
        // Of several changes of one thing only the last has anything new to say.
        let mut latest = BTreeMap::new();
        for row in &rows {
            latest.insert((row.resource.as_str(), row.resource_id), row);
        }
        let instance = Watched::Instance.word();
        let ids: Vec<Uuid> =
            latest.keys().filter(|(resource, _)| *resource == instance).map(|(_, id)| *id).collect();
        let mut instances: BTreeMap<Uuid, serde_json::Value> = BTreeMap::new();
        if !ids.is_empty() {
            for row in gon_store::instances::by_ids(&mut conn, &ids).await? {
                let id = row.id;
                instances.insert(id, serde_json::to_value(show(row)).unwrap_or_default());
            }
        }
        let mut latest: Vec<_> = latest.into_values().collect();
        latest.sort_by_key(|row| (row.xid, row.seq));
        for row in latest {
            let message = json!({
                "type": "event", "seq": row.seq, "resource": row.resource,
                "id": shown_id(&row.resource, row.resource_id),
                "item": instances.remove(&row.resource_id),
            });
            let _ = app
                .events
                .messages
                .send(Message { account: row.account_id, text: message.to_string().into() });
        }
    }
    *position = Some(after);
    Ok(true)
}

/// The id as people see it; as it is kept, if a later version wrote of something that this one does not know.
fn shown_id(resource: &str, id: Uuid) -> String {
    resource.parse::<Watched>().map_or_else(|_| id.to_string(), |kind| kind.shown(id))
}
