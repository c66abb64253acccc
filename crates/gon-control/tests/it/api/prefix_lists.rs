//! Managed prefix lists, and rules that name them.

use std::collections::BTreeSet;

use gon_types::id::NodeId;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Api;
use super::harness::id;

async fn make(api: &Api, max_entries: i64, blocks: &[&str]) -> Value {
    let entries: Vec<Value> = blocks.iter().map(|cidr| json!({ "cidr": cidr })).collect();
    api.post("/prefix-lists", json!({ "name": "l", "max_entries": max_entries, "entries": entries }))
        .await
        .ok()
}

fn path(list: &Value) -> String {
    format!("/prefix-lists/{}", id(list))
}

fn rule_from(list: &Value) -> Value {
    json!({ "direction": "inbound", "protocol": "tcp", "port_range": "22", "source_destination": id(list) })
}

/// The blocks that the first node's document has for the rules of a group.
async fn blocks_in_document(api: &Api, group: &Value) -> BTreeSet<String> {
    let node = gon_store::nodes::id_by_name(&api.database.store, "n1").await.unwrap().unwrap();
    let rows = gon_store::network_document::read(&api.database.store, node).await.unwrap();
    let settings = gon_control::network::NetworkSettings::default();
    let document = gon_control::network::resolve::document(NodeId::from_uuid(node), rows, &settings).unwrap();
    let group: Uuid = group["uuid"].as_str().unwrap().parse().unwrap();
    let group = document.groups.iter().find(|g| g.id.uuid() == group).unwrap();
    let inbound = group.rules.iter().filter(|r| r.direction == gon_proto::Direction::Inbound);
    inbound
        .map(|rule| match &rule.peer {
            gon_proto::Peer::Cidr(net) => net.to_string(),
            other => format!("{other:?}"),
        })
        .collect()
}

#[tokio::test]
async fn a_rule_follows_its_prefix_list() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let group = api.post("/security-groups", json!({ "vpc_id": id(&vpc), "name": "g" })).await.ok();
    api.launch(id(&subnet), json!({ "security_group_ids": [id(&group)] })).await.ok();
    api.run_everything().await;
    let list = make(&api, 5, &["198.51.100.7/24", "203.0.113.0/24"]).await;
    assert!(id(&list).starts_with("pl-"));
    assert_eq!((&list["version"], &list["max_entries"]), (&json!(1), &json!(5)));
    assert_eq!(list["entries"][0], json!({ "cidr": "198.51.100.0/24", "description": "" }));
    let rules = format!("/security-groups/{}/rules", id(&group));
    let rule = api.post(&rules, rule_from(&list)).await.ok();
    assert_eq!(rule["source_destination"], list["id"]);
    assert_eq!(api.post(&rules, rule_from(&list)).await.problem(), (409, "InvalidPermission.Duplicate"));
    let shown = api.get(&format!("/security-groups/{}", id(&group))).await.ok();
    assert!(shown["rules"].as_array().unwrap().iter().any(|r| r["source_destination"] == list["id"]));
    let set = |blocks: &[&str]| blocks.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(blocks_in_document(&api, &group).await, set(&["198.51.100.0/24", "203.0.113.0/24"]));

    let before = api.get(&format!("/vpcs/{}", id(&vpc))).await.ok()["generation"].as_i64().unwrap();
    let change = json!({
        "add_entries": [{ "cidr": "192.0.2.0/24", "description": "lab" }], "remove_entries": ["203.0.113.0/24"],
        "current_version": 1,
    });
    let changed = api.put(&path(&list), change.clone()).await.ok();
    assert_eq!(changed["applied"], json!({ "generation": 2, "nodes": 1, "acked": 0 }));
    assert_eq!(api.get(&format!("/vpcs/{}", id(&vpc))).await.ok()["generation"], before + 1);
    assert_eq!(blocks_in_document(&api, &group).await, set(&["192.0.2.0/24", "198.51.100.0/24"]));
    assert_eq!(api.put(&path(&list), change).await.problem(), (409, "PrefixListVersionMismatch"));
    // A new name is no new version.
    let renamed = api.put(&path(&list), json!({ "name": "renamed" })).await.ok();
    assert_eq!((&renamed["name"], &renamed["version"]), (&json!("renamed"), &json!(2)));

    let refused = api.delete(&path(&list)).await;
    assert_eq!(refused.problem(), (409, "DependencyViolation"));
    assert_eq!(refused.body["blockers"], json!([id(&group)]));
    let empty =
        api.put(&path(&list), json!({ "remove_entries": ["192.0.2.0/24", "198.51.100.0/24"] })).await.ok();
    assert_eq!(empty["entries"], json!([]));
    assert_eq!(blocks_in_document(&api, &group).await, set(&[]));
    api.delete(&format!("{rules}/{}", id(&rule))).await.ok();
    assert_eq!(api.delete(&path(&list)).await.status, 204);
    assert_eq!(api.get(&path(&list)).await.problem(), (404, "InvalidPrefixListID.NotFound"));
}

#[tokio::test]
async fn a_rule_counts_for_what_its_list_has_room_for() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let group = api.post("/security-groups", json!({ "vpc_id": id(&vpc), "name": "g" })).await.ok();
    let rules = format!("/security-groups/{}/rules", id(&group));
    let (large, small) = (make(&api, 59, &[]).await, make(&api, 2, &[]).await);
    api.post(&rules, rule_from(&large)).await.ok();
    assert_eq!(
        api.post(&rules, rule_from(&small)).await.problem(),
        (409, "RulesPerSecurityGroupLimitExceeded")
    );
    let one = json!({ "direction": "inbound", "protocol": "icmp", "source_destination": "0.0.0.0/0" });
    api.post(&rules, one).await.ok();
    let grown = api.put(&path(&large), json!({ "max_entries": 60 })).await;
    assert_eq!(
        (grown.problem(), grown.field()),
        ((409, "RulesPerSecurityGroupLimitExceeded"), Some("max_entries"))
    );
    api.put(&path(&large), json!({ "max_entries": 58 })).await.ok();
}

#[tokio::test]
async fn what_a_prefix_list_cannot_be() {
    let api = Api::furnished().await;
    let list = make(&api, 2, &["192.0.2.0/24", "198.51.100.0/24"]).await;
    let rows = "select (select count(*) from prefix_lists) + (select count(*) from prefix_list_entries)
        + (select sum(version) from prefix_lists)::bigint + (select count(*) from audit_log)";
    let before = api.count(rows).await;
    for (body, status, code, field) in [
        (json!({ "max_entries": 1 }), 400, "MissingParameter", "name"),
        (json!({ "name": "x" }), 400, "MissingParameter", "max_entries"),
        (json!({ "name": "a\nb", "max_entries": 1 }), 400, "InvalidParameterValue", "name"),
        (json!({ "name": "x", "max_entries": 0 }), 400, "InvalidParameterValue", "max_entries"),
        (json!({ "name": "x", "max_entries": 61 }), 400, "InvalidParameterValue", "max_entries"),
        (
            json!({ "name": "x", "max_entries": 1, "entries": [{ "cidr": "ten" }] }),
            400,
            "InvalidParameterValue",
            "entries[0].cidr",
        ),
        (
            json!({ "name": "x", "max_entries": 1, "entries": [{ "cidr": "::/0" }] }),
            400,
            "InvalidParameterValue",
            "entries[0].cidr",
        ),
        (
            json!({ "name": "x", "max_entries": 2, "entries": [{ "cidr": "10.0.0.0/8" }, { "cidr": "10.1.2.3/8" }] }),
            400,
            "InvalidPrefixListModification",
            "entries[1].cidr",
        ),
        (
            json!({ "name": "x", "max_entries": 1, "entries": [{ "cidr": "10.0.0.0/8" }, { "cidr": "11.0.0.0/8" }] }),
            409,
            "PrefixListMaxEntriesExceeded",
            "max_entries",
        ),
    ] {
        let answer = api.post("/prefix-lists", body.clone()).await;
        assert_eq!((answer.problem(), answer.field()), ((status, code), Some(field)), "{body}");
    }
    for (body, status, code, field) in [
        (json!({}), 400, "MissingParameter", None),
        (json!({ "current_version": 1 }), 400, "MissingParameter", None),
        (json!({ "name": "" }), 400, "InvalidParameterValue", Some("name")),
        (json!({ "max_entries": 1 }), 409, "PrefixListMaxEntriesExceeded", Some("max_entries")),
        (
            json!({ "add_entries": [{ "cidr": "10.0.0.0/8" }] }),
            409,
            "PrefixListMaxEntriesExceeded",
            Some("max_entries"),
        ),
        (
            json!({ "remove_entries": ["10.0.0.0/8"] }),
            400,
            "InvalidPrefixListModification",
            Some("remove_entries[0]"),
        ),
        (
            json!({ "remove_entries": ["192.0.2.0/24"], "add_entries": [{ "cidr": "192.0.2.0/24" }] }),
            400,
            "InvalidPrefixListModification",
            Some("remove_entries[0]"),
        ),
        (
            json!({ "name": "y", "current_version": 7 }),
            409,
            "PrefixListVersionMismatch",
            Some("current_version"),
        ),
        (json!({ "entries": [] }), 400, "UnknownParameter", Some("entries")),
    ] {
        let answer = api.put(&path(&list), body.clone()).await;
        assert_eq!((answer.problem(), answer.field()), ((status, code), field), "{body}");
    }
    assert_eq!(api.count(rows).await, before);
    let vpc = api.vpc("10.0.0.0/16").await;
    let rules = format!("/security-groups/{}/rules", vpc["default_security_group_id"].as_str().unwrap());
    for (list, status, code) in [
        ("pl-1", 400, "InvalidParameterValue"),
        ("pl-00000000000000000", 404, "InvalidPrefixListID.NotFound"),
    ] {
        let answer = api.post(&rules, rule_from(&json!({ "id": list }))).await;
        assert_eq!(
            (answer.problem(), answer.field()),
            ((status, code), Some("source_destination")),
            "{list}"
        );
    }
}
