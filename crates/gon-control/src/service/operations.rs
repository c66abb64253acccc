//! Operations, as users see them; and how they are opened.

use gon_api::operations::{ListOperations, Operation};
use gon_api::page::{NoQuery, Page};
use gon_core::authz::Role;
use gon_store::events::Watched;
use gon_store::journal::Entry;
use gon_store::nodes;
use gon_store::operations::{self, Filter, Opening, OperationRow};
use gon_store::reference::Ref;
use gon_types::id::OperationId;
use serde_json::Value;
use uuid::Uuid;

use super::error::{Kind as No, Refusal, Result};
use super::{Cx, parse};
use crate::api::One;

type Kind = gon_types::id::Operation;

/// States an operation can be in.
const STATES: &[&str] = &["pending", "running", "succeeded", "failed", "cancelled"];

/// An operation about an instance.
pub fn of_instance(action: &'static str, instance: Uuid, goal: &'static str, generation: i64) -> Opening {
    // The last deadline is the platform's: whatever is in the way should have been told long before.
    let patience = match goal {
        "terminated" => 3600,
        // Twice as long as an instance may wait for a node.
        "running" => 1200,
        _ => 600,
    };
    Opening {
        id: Uuid::now_v7(),
        action,
        resource: "instance",
        resource_id: instance,
        goal,
        generation,
        parameters: Value::Object(Default::default()),
        patience,
    }
}

/// The id of an operation, as people see it.
pub fn shown(opening: &Opening) -> String {
    OperationId::from_uuid(opening.id).to_string()
}

fn show(row: OperationRow) -> Operation {
    Operation {
        id: OperationId::from_uuid(row.id).to_string(),
        uuid: row.id,
        action: row.action,
        state: row.state,
        resource_id: row
            .resource
            .parse::<Watched>()
            .map_or_else(|_| row.resource_id.to_string(), |kind| kind.shown(row.resource_id)),
        resource: row.resource,
        progress: row.progress,
        error: row.last_error,
        tries: row.tries,
        request_id: row.request_id,
        deadline: row.deadline,
        created_at: row.created_at,
        updated_at: row.updated_at,
        finished_at: row.finished_at,
    }
}

/// Lists operations.
pub async fn list(cx: Cx, (): (), query: ListOperations, (): ()) -> Result<Page<Operation>> {
    let window = cx.window("operations", query.window())?;
    if query.state.as_deref().is_some_and(|state| !STATES.contains(&state)) {
        return Err(Refusal::invalid("state", format!("must be one of {}", STATES.join(", "))));
    }
    let mut conn = cx.conn().await?;
    let nothing = Page { items: vec![], next_cursor: None };
    let resource = match query.resource_id.as_deref() {
        None => None,
        Some(text) if text.starts_with("node-") => {
            let id = parse::reference::<gon_types::id::Node>("resource_id", text)?;
            match gon_store::node_views::get(&mut conn, &id).await {
                Ok(row) => Some(row.id),
                Err(gon_store::StoreError::NotFound) => return Ok(nothing),
                Err(error) => return Err(error.into()),
            }
        }
        Some(text) => {
            let id = parse::reference::<gon_types::id::Instance>("resource_id", text)?;
            match (id.whole, gon_store::instances::get(&mut conn, cx.account(), &id).await) {
                (_, Ok(row)) => Some(row.id),
                // A node's, or of an instance that is no longer described.
                (Some(whole), Err(gon_store::StoreError::NotFound)) => Some(whole),
                (None, Err(gon_store::StoreError::NotFound)) => return Ok(nothing),
                (_, Err(error)) => return Err(error.into()),
            }
        }
    };
    let filter = Filter { state: query.state, action: query.action, resource };
    let rows = operations::list(&mut conn, cx.account(), &filter, window).await?;
    Ok(cx.page("operations", window, rows, |r| r.id, show))
}

/// Describes an operation.
pub async fn get(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<Operation> {
    let mut conn = cx.conn().await?;
    Ok(show(Cx::found(operations::get(&mut conn, cx.account(), &Ref::from(&id)).await, &id)?))
}

/// Calls an operation off, if the platform itself works on it: the node of a drain stays cordoned, and what has left it
/// has left. What an instance was asked to do is taken back by asking it for something else, which cancels this.
pub async fn cancel(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<Operation> {
    let mut tx = cx.begin().await?;
    let row = Cx::found(operations::get(&mut tx, cx.account(), &Ref::from(&id)).await, &id)?;
    let shown = OperationId::from_uuid(row.id);
    let ended = |state: &str| {
        Refusal::conflict("IncorrectState", format!("the operation '{shown}' has ended: it has {state}"))
    };
    if row.finished_at.is_some() {
        return Err(ended(&row.state));
    }
    if row.resource != "node" {
        let instead = match row.action.as_str() {
            "RunInstances" => "terminate the instance",
            "StartInstances" | "RebootInstances" => "stop or terminate the instance",
            "StopInstances" => "start or terminate the instance",
            _ => "nothing takes it back",
        };
        let why = format!("{} cannot be called off: {instead}", row.action);
        return Err(Refusal::conflict("UnsupportedOperation", why));
    }
    if cx.actor.role != Role::Admin {
        return Err(Refusal::new(No::Denied, "UnauthorizedOperation", "your role does not allow this"));
    }
    // The node before its operation, as a drain locks them.
    let node = nodes::lock(&mut tx, &row.resource_id.into()).await?;
    if !operations::cancel_one(&mut tx, row.id, "called off").await? {
        let now = operations::get(&mut tx, cx.account(), &row.id.into()).await?;
        return Err(ended(&now.state));
    }
    nodes::end_draining(&mut tx, node.id).await?;
    let operation = show(operations::get(&mut tx, cx.account(), &row.id.into()).await?);
    let entry = Entry::new("CancelOperation", row.id)
        .event(Watched::Operation, row.id, Some(&row.state), Some("cancelled"))
        .event(Watched::Node, node.id, Some(&node.state), None);
    cx.commit(tx, entry, &operation).await?;
    Ok(operation)
}
