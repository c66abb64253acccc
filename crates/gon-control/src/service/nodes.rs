//! Nodes, for operators.

use std::collections::BTreeMap;

use gon_api::nodes::{ListNodes, Node, Resources};
use gon_api::page::Page;
use gon_store::node_views::{self, NodeViewRow};
use gon_types::id::NodeId;
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::Cx;
use super::error::Result;

fn texts(value: Value) -> BTreeMap<String, String> {
    match value {
        Value::Object(map) => {
            map.into_iter().filter_map(|(k, v)| Some((k, v.as_str()?.to_owned()))).collect()
        }
        _ => BTreeMap::new(),
    }
}

fn show(row: NodeViewRow, now: OffsetDateTime) -> Node {
    Node {
        id: NodeId::from_uuid(row.id).to_string(),
        uuid: row.id,
        name: row.name,
        availability_zone: row.availability_zone,
        state: if now - row.last_report_at > Duration::seconds(15) { "silent" } else { "alive" }.to_owned(),
        schedulable: row.schedulable,
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
    }
}

/// Lists nodes.
pub async fn list(cx: Cx, (): (), query: ListNodes, (): ()) -> Result<Page<Node>> {
    let window = cx.window("nodes", query.window())?;
    let mut conn = cx.conn().await?;
    let rows = node_views::list(&mut conn, window).await?;
    let now = OffsetDateTime::now_utc();
    Ok(cx.page("nodes", window, rows, |r| r.id, |row| show(row, now)))
}
