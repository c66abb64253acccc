//! Nodes, for operators.

use std::collections::BTreeMap;

use gon_api::nodes::{DrainNode, ListNodes, Node, RemoveNode, Resources};
use gon_api::page::{NoQuery, Page};
use gon_store::events::Watched;
use gon_store::journal::Entry;
use gon_store::node_views::{self, NodeViewRow};
use gon_store::operations::{self, Opening};
use gon_store::reference::Ref;
use gon_store::{Tx, nodes};
use gon_types::id::{IdRef, InstanceId, NodeId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Cx;
use super::error::{Refusal, Result};
use super::operations::shown;
use crate::api::{One, Optional};

type Kind = gon_types::id::Node;

/// States a node can be in.
const STATES: &[&str] = &["ready", "cordoned", "draining", "unknown", "removed"];
/// How long a drain may take, seconds.
const DRAIN_PATIENCE: i32 = 4 * 3600;
/// Why an instance of a node that was given up has ended.
const LOST: &str =
    "Server.NodeRemoved: its node did not answer and was removed by an operator; its disk is lost";

fn texts(value: Value) -> BTreeMap<String, String> {
    match value {
        Value::Object(map) => {
            map.into_iter().filter_map(|(k, v)| Some((k, v.as_str()?.to_owned()))).collect()
        }
        _ => BTreeMap::new(),
    }
}

fn show(row: NodeViewRow) -> Node {
    Node {
        id: NodeId::from_uuid(row.id).to_string(),
        uuid: row.id,
        name: row.name,
        availability_zone: row.availability_zone,
        schedulable: row.state == "ready",
        state: row.state,
        labels: texts(row.labels),
        address: row.address.map(|net| net.addr().to_string()),
        epoch: row.epoch,
        capacity: Resources {
            vcpus: row.capacity_vcpus.into(),
            memory_mib: row.capacity_memory_mib,
            disk_gib: row.capacity_disk_gib,
        },
        used: Resources {
            vcpus: row.used_vcpus.into(),
            memory_mib: row.used_memory_mib,
            disk_gib: row.used_disk_gib,
        },
        instances: row.instances,
        accelerator: row.accelerator,
        ovs_datapath: row.ovs_datapath,
        versions: texts(row.versions),
        images: texts(row.images),
        last_report_at: row.last_report_at,
        created_at: row.created_at,
        operation_id: None,
    }
}

/// Lists nodes.
pub async fn list(cx: Cx, (): (), query: ListNodes, (): ()) -> Result<Page<Node>> {
    let window = cx.window("nodes", query.window())?;
    if query.state.as_deref().is_some_and(|state| !STATES.contains(&state)) {
        return Err(Refusal::invalid("state", format!("must be one of {}", STATES.join(", "))));
    }
    let mut conn = cx.conn().await?;
    let rows = node_views::list(&mut conn, query.state.as_deref(), window).await?;
    Ok(cx.page("nodes", window, rows, |r| r.id, show))
}

/// Describes a node, also one that was removed.
pub async fn get(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<Node> {
    let mut conn = cx.conn().await?;
    Ok(show(Cx::found(node_views::get(&mut conn, &Ref::from(&id)).await, &id)?))
}

/// The node, locked, if it was not removed.
async fn lock(tx: &mut Tx, id: &IdRef<gon_types::id::Node>) -> Result<nodes::LockedRow> {
    let row = Cx::found(nodes::lock(tx, &Ref::from(id)).await, id)?;
    if row.state == "removed" {
        return Err(Refusal::conflict("IncorrectState", format!("the node '{}' was removed", row.name)));
    }
    Ok(row)
}

async fn finish(cx: &Cx, mut tx: Tx, id: Uuid, entry: Entry) -> Result<Node> {
    let mut node = show(node_views::get(&mut tx, &id.into()).await?);
    node.operation_id = entry.operations.first().map(shown);
    cx.commit(tx, entry, &node).await?;
    Ok(node)
}

/// Keeps new instances away from a node. What is there stays.
pub async fn cordon(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<Node> {
    let mut tx = cx.begin().await?;
    let row = lock(&mut tx, &id).await?;
    nodes::set_cordoned(&mut tx, row.id, true).await?;
    let entry = Entry::new("CordonNode", row.id).event(Watched::Node, row.id, Some(&row.state), None);
    finish(&cx, tx, row.id, entry).await
}

/// Lets instances come again. Ends a drain; what it has stopped or moved stays so.
pub async fn uncordon(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<Node> {
    let mut tx = cx.begin().await?;
    let row = lock(&mut tx, &id).await?;
    nodes::set_cordoned(&mut tx, row.id, false).await?;
    operations::cancel(&mut tx, &[row.id], "the node was uncordoned").await?;
    let entry = Entry::new("UncordonNode", row.id).event(Watched::Node, row.id, Some(&row.state), None);
    finish(&cx, tx, row.id, entry).await
}

/// Begins to empty a node. Asked again, it goes on as it was last asked.
pub async fn drain(
    cx: Cx,
    One(id): One<Kind>,
    _: NoQuery,
    Optional(body): Optional<DrainNode>,
) -> Result<Node> {
    let mut tx = cx.begin().await?;
    let row = lock(&mut tx, &id).await?;
    nodes::set_draining(&mut tx, row.id).await?;
    let parameters = json!({ "stop_instances": body.stop_instances });
    let operation = Opening {
        id: Uuid::now_v7(),
        action: "DrainNode",
        resource: "node",
        resource_id: row.id,
        goal: "drained",
        generation: 0,
        parameters: parameters.clone(),
        patience: DRAIN_PATIENCE,
    };
    let entry = Entry::new("DrainNode", row.id)
        .detail(parameters)
        .event(Watched::Node, row.id, Some(&row.state), Some("draining"))
        .operation(operation);
    finish(&cx, tx, row.id, entry).await
}

/// Removes a node for good, with its certificates: one that has nothing; or, if it is unknown and the operator says
/// `force`, with all that is on it.
pub async fn remove(cx: Cx, One(id): One<Kind>, query: RemoveNode, (): ()) -> Result<Node> {
    let force = match query.force.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Refusal::invalid("force", "must be true or false")),
    };
    let mut tx = cx.begin().await?;
    // Instances are locked before their node, here as everywhere.
    let view = Cx::found(node_views::get(&mut tx, &Ref::from(&id)).await, &id)?;
    let occupants = nodes::lock_occupants(&mut tx, view.id).await?;
    let row = lock(&mut tx, &id).await?;
    if !occupants.is_empty() {
        let blockers =
            occupants.iter().take(50).map(|o| InstanceId::from_uuid(o.id).to_string()).collect::<Vec<_>>();
        if !force {
            return Err(Refusal::dependency(
                format!("the node '{}' has {} instances: drain it first", row.name, occupants.len()),
                blockers,
            ));
        }
        if row.state != "unknown" {
            return Err(Refusal::dependency(
                format!("the node '{}' answers: only one that is unknown can be given up", row.name),
                blockers,
            ));
        }
        nodes::abandon(&mut tx, &occupants, LOST).await?;
    }
    operations::cancel(&mut tx, &[row.id], "the node was removed").await?;
    nodes::remove(&mut tx, row.id).await?;
    // From the commit on its certificates are refused everywhere, at the next request.
    let revoked = gon_store::certificates::revoke_name(&mut tx, &row.name, "the node was removed").await?;
    let entry = Entry::new("RemoveNode", row.id)
        .detail(json!({ "force": force, "instances": occupants.len(), "certificates": revoked }))
        .event(Watched::Node, row.id, Some(&row.state), Some("removed"));
    finish(&cx, tx, row.id, entry).await
}
