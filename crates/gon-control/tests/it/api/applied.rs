//! Every change of the network says in which generation it is, on how many nodes that must be in force, and, if asked to,
//! is answered when it is there.

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};

use super::Api;
use super::harness::id;

/// What a node does when it is done, for every node and every VPC.
const ACKNOWLEDGE: &str = "insert into vpc_nodes (vpc_id, node_id, applied_generation)
    select v.id, n.id, v.generation from vpcs v, nodes n where v.deleted_at is null
    on conflict (vpc_id, node_id) do update set applied_generation = excluded.applied_generation";

struct Change {
    method: Method,
    path: String,
    body: Option<Value>,
}

fn change(method: Method, path: impl Into<String>, body: impl Into<Option<Value>>) -> Change {
    Change { method, path: path.into(), body: body.into() }
}

/// Makes the change, with a node that is done after a while. What was answered.
async fn settled(api: &Api, change: &Change) -> Value {
    let separator = if change.path.contains('?') { '&' } else { '?' };
    let path = format!("{}{separator}wait=applied&timeout=20", change.path);
    let done = tokio::sync::Notify::new();
    let call = async {
        let answer = api.as_user(&api.admin, change.method.clone(), &path, change.body.as_ref()).await;
        done.notify_one();
        answer
    };
    let node = async {
        let mut looked = 0;
        while tokio::time::timeout(Duration::from_millis(40), done.notified()).await.is_err() {
            looked += 1;
            api.sql(ACKNOWLEDGE).await;
        }
        looked
    };
    let (answer, looked) = tokio::join!(call, node);
    assert!(looked > 0, "{} {} did not wait", change.method, change.path);
    answer.ok()
}

#[tokio::test]
async fn every_change_of_the_network_is_answered_when_it_is_in_force() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let instance = api.launch(id(&subnet), json!({})).await.ok();
    let halted = api.launch(id(&subnet), json!({})).await.ok();
    api.run_everything().await;
    api.post(&format!("/instances/{}/stop", id(&halted)), json!({})).await.ok();
    api.run_everything().await;
    let table = api.post("/route-tables", json!({ "vpc_id": id(&vpc) })).await.ok();
    let gateway = api.post("/internet-gateways", json!({})).await.ok();
    let interface = api.post("/network-interfaces", json!({ "subnet_id": id(&subnet) })).await.ok();
    let address = api.post("/addresses", json!({})).await.ok();
    let main = format!("/route-tables/{}", vpc["main_route_table_id"].as_str().unwrap());
    let main_association = api.get(&main).await.ok()["main_association_id"].as_str().unwrap().to_owned();
    let (own, vpc_path) = (format!("/route-tables/{}", id(&table)), format!("/vpcs/{}", id(&vpc)));
    let igw = format!("/internet-gateways/{}", id(&gateway));
    let eni = format!("/network-interfaces/{}", id(&interface));
    let eip = format!("/addresses/{}", id(&address));
    let group = format!("/security-groups/{}", vpc["default_security_group_id"].as_str().unwrap());
    let route = json!({ "destination_cidr": "0.0.0.0/0", "target_id": id(&gateway) });
    let to_instance = json!({ "destination_cidr": "0.0.0.0/0", "target_id": id(&instance) });
    let slot = json!({ "instance_id": id(&halted), "device_index": 1 });
    let rule = json!({ "direction": "inbound", "protocol": "icmp", "source_destination": "0.0.0.0/0" });
    let (post, put, delete) = (Method::POST, Method::PUT, Method::DELETE);
    let mut generation = api.get(&vpc_path).await.ok()["generation"].as_i64().unwrap();
    for change in [
        change(
            post.clone(),
            format!("{vpc_path}/subnets"),
            json!({ "name": "t", "cidr_block": "10.0.2.0/24" }),
        ),
        change(post.clone(), format!("{vpc_path}/cidr-blocks"), json!({ "cidr_block": "10.7.0.0/16" })),
        change(post.clone(), format!("{igw}/attach"), json!({ "vpc_id": id(&vpc) })),
        change(post.clone(), format!("{main}/routes"), route.clone()),
        change(put.clone(), format!("{main}/routes"), to_instance),
        change(put.clone(), format!("{main}/routes"), route),
        change(post.clone(), format!("{own}/associations"), json!({ "subnet_id": id(&subnet) })),
        change(
            put.clone(),
            format!("{main}/associations/{main_association}"),
            json!({ "route_table_id": id(&table) }),
        ),
        change(delete.clone(), format!("{main}/routes?destination_cidr=0.0.0.0/0"), None),
        change(post.clone(), format!("{group}/rules"), rule),
        change(post.clone(), format!("{eip}/associate"), json!({ "instance_id": id(&instance) })),
        change(post.clone(), format!("{eip}/disassociate"), json!({})),
        change(put.clone(), eni.clone(), json!({ "source_dest_check": false })),
        change(post.clone(), format!("{eni}/private-ips"), json!({ "count": 2 })),
        change(post.clone(), format!("{eni}/attach"), slot),
        change(post.clone(), format!("{eni}/detach"), json!({})),
        change(post.clone(), format!("{igw}/detach"), json!({})),
    ] {
        let answer = settled(&api, &change).await;
        let applied = &answer["applied"];
        let what = format!("{} {}: {answer}", change.method, change.path);
        assert_eq!((&applied["nodes"], &applied["acked"]), (&json!(1), &json!(1)), "{what}");
        assert_eq!(applied["generation"], answer["generation"], "{what}");
        assert!(answer["generation"].as_i64().unwrap() > generation, "{what}");
        generation = answer["generation"].as_i64().unwrap();
    }
    // Whoever looks sees the same; and a node that says nothing is waited for until the deadline, not longer.
    for path in [&vpc_path, &main, &eni, &format!("/subnets/{}", id(&subnet))] {
        let shown = api.get(&format!("{path}?wait=applied&timeout=1")).await.ok();
        assert_eq!(shown["applied"], json!({ "generation": generation, "nodes": 1, "acked": 1 }), "{path}");
    }
    let begin = tokio::time::Instant::now();
    let late =
        api.put(&format!("{eni}?wait=applied&timeout=1"), json!({ "source_dest_check": true })).await.ok();
    assert_eq!(late["applied"], json!({ "generation": generation + 1, "nodes": 1, "acked": 0 }));
    assert!(begin.elapsed() >= Duration::from_secs(1) && begin.elapsed() < Duration::from_secs(10));
}
