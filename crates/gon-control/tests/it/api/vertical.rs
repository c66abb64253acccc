//! From an empty cloud to a launched instance, as `gon quickstart` does it.

use serde_json::json;

use super::Api;
use super::harness::id;

#[tokio::test]
async fn everything_an_instance_needs_can_be_made_and_unmade() {
    let api = Api::furnished().await;
    let vpc = api.post("/vpcs", json!({ "name": "first", "cidr_block": "10.0.0.0/16" })).await.ok();
    let vpc_id = id(&vpc).to_owned();
    assert_eq!(vpc["state"], "available");
    assert_eq!(vpc["applied"], json!({ "generation": 1, "nodes": 0, "acked": 0 }));
    let seen = api.get(&format!("/vpcs/{vpc_id}")).await.ok();
    assert_eq!(seen, vpc, "what creating answers is what describing answers");

    let subnet = api
        .post(
            &format!("/vpcs/{vpc_id}/subnets"),
            json!({ "name": "a", "cidr_block": "10.0.1.0/24", "map_public_ip_on_launch": true }),
        )
        .await
        .ok();
    let subnet_id = id(&subnet).to_owned();
    assert_eq!(subnet["available_ip_address_count"], 251);
    assert_eq!(subnet["subnet_type"], "private");
    assert_eq!(subnet["availability_zone"], "gon-1a");
    assert_eq!(subnet["generation"], 2);

    let gateway = api.post("/internet-gateways", json!({ "name": "out" })).await.ok();
    let gateway_id = id(&gateway).to_owned();
    let attached =
        api.post(&format!("/internet-gateways/{gateway_id}/attach"), json!({ "vpc_id": vpc_id })).await.ok();
    assert_eq!((&attached["vpc_id"], &attached["state"]), (&json!(vpc_id), &json!("attached")));
    let main = vpc["main_route_table_id"].as_str().unwrap();
    let route = json!({ "destination_cidr": "0.0.0.0/0", "target_type": "gateway", "target_id": gateway_id });
    let table = api.post(&format!("/route-tables/{main}/routes"), route).await.ok();
    assert_eq!(table["routes"].as_array().unwrap().len(), 2);
    assert_eq!(table["routes"][0]["target_id"], "local");
    assert_eq!(table["routes"][1]["state"], "active");
    assert_eq!(api.get(&format!("/subnets/{subnet_id}")).await.ok()["subnet_type"], "public");

    let group = api
        .post("/security-groups", json!({ "vpc_id": vpc_id, "name": "web", "description": "SSH" }))
        .await
        .ok();
    let group_id = id(&group).to_owned();
    assert_eq!(group["rules"].as_array().unwrap().len(), 1);
    let rule = json!({ "direction": "inbound", "protocol": "tcp", "port_range": "22", "source_destination": "0.0.0.0/0" });
    let rule = api.post(&format!("/security-groups/{group_id}/rules"), rule).await.ok();
    assert_eq!((&rule["port_range"], &rule["source_destination"]), (&json!("22"), &json!("0.0.0.0/0")));

    let key = api.post("/key-pairs", json!({ "name": "me" })).await.ok();
    assert!(key["private_key"].as_str().unwrap().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
    assert!(api.get("/key-pairs").await.ok()["items"][0].get("private_key").is_none());

    let instance = api
        .launch(
            &subnet_id,
            json!({ "security_group_ids": [group_id], "key_name": "me", "user_data": "aGk=" }),
        )
        .await
        .ok();
    let instance_id = id(&instance).to_owned();
    assert_eq!(instance["state"], "pending");
    assert_eq!(instance["state_code"], 0);
    assert_eq!(instance["security_group_ids"], json!([group_id]));
    assert!(instance["private_ip"].as_str().unwrap().starts_with("10.0.1."));
    assert!(instance["public_ip"].as_str().unwrap().starts_with("203.0.113."));
    assert_eq!(api.get(&format!("/subnets/{subnet_id}")).await.ok()["available_ip_address_count"], 250);
    let mut described = instance.clone();
    described.as_object_mut().unwrap().remove("operation_id").unwrap();
    assert_eq!(api.get("/instances").await.ok()["items"][0], described);
    let nics = api.get(&format!("/network-interfaces?instance_id={instance_id}")).await.ok();
    assert_eq!(nics["items"][0]["private_ip"], instance["private_ip"]);

    // Nothing that something depends on can go.
    for (path, code, blocker) in [
        (format!("/vpcs/{vpc_id}"), "DependencyViolation", subnet_id.as_str()),
        (
            format!("/subnets/{subnet_id}"),
            "DependencyViolation",
            instance["network_interface_id"].as_str().unwrap(),
        ),
        (
            format!("/security-groups/{group_id}"),
            "DependencyViolation",
            instance["network_interface_id"].as_str().unwrap(),
        ),
        (format!("/internet-gateways/{gateway_id}"), "DependencyViolation", vpc_id.as_str()),
    ] {
        let answer = api.delete(&path).await;
        assert_eq!(answer.problem(), (409, code), "{path}");
        let blockers = answer.body["blockers"].as_array().unwrap();
        assert!(blockers.iter().any(|b| b == blocker), "{path}: {blockers:?}");
    }
    let detach = format!("/internet-gateways/{gateway_id}/detach");
    assert_eq!(api.post(&detach, json!({})).await.problem(), (409, "DependencyViolation"));

    let gone = api.delete(&format!("/instances/{instance_id}")).await;
    assert_eq!(gone.status, 202);
    assert_eq!(gone.body["state"], "shutting-down");
    assert_eq!(gone.body["public_ip"], json!(null));
    let again = api.delete(&format!("/instances/{instance_id}")).await;
    assert_eq!((again.status.as_u16(), &again.body["generation"]), (202, &gone.body["generation"]));

    // The instance manager's part.
    let mut tx = api.database.store.begin().await.unwrap();
    for instance in gon_store::placement::lock_finishable(&mut tx, 10).await.unwrap() {
        gon_store::placement::finish(&mut tx, instance).await.unwrap();
    }
    gon_store::commit(tx).await.unwrap();
    let ended = api.get(&format!("/instances/{instance_id}")).await.ok();
    assert_eq!((&ended["state"], &ended["private_ip"]), (&json!("terminated"), &json!(null)));

    api.post(&detach, json!({})).await.ok();
    let table = api.get(&format!("/route-tables/{main}")).await.ok();
    assert_eq!(table["routes"][1]["state"], "blackhole");
    for path in [
        format!("/internet-gateways/{gateway_id}"),
        format!("/subnets/{subnet_id}"),
        format!("/security-groups/{group_id}"),
        format!("/vpcs/{vpc_id}"),
        format!("/key-pairs/{}", id(&key)),
    ] {
        assert_eq!(api.delete(&path).await.status, 204, "{path}");
        assert_eq!(api.get(&path).await.status, 404, "{path}");
        assert_eq!(api.delete(&path).await.status, 404, "{path}");
    }
    assert_eq!(api.get("/vpcs").await.ok(), json!({ "items": [], "next_cursor": null }));
}
