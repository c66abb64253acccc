//! Allocated public addresses, and those of the platform.

use serde_json::{Value, json};

use super::Api;
use super::harness::id;

struct Site {
    api: Api,
    vpc: Value,
    subnet: String,
    gateway: Value,
}

/// A VPC with a gateway and a subnet; the pool has six addresses.
async fn site() -> Site {
    let api = Api::new().await;
    api.furnish("203.0.113.0/29").await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = id(&api.subnet(id(&vpc), "10.0.1.0/24").await).to_owned();
    let gateway = api.post("/internet-gateways", json!({})).await.ok();
    api.post(&format!("/internet-gateways/{}/attach", id(&gateway)), json!({ "vpc_id": id(&vpc) }))
        .await
        .ok();
    Site { api, vpc, subnet, gateway }
}

#[tokio::test]
async fn an_address_is_mapped_moved_unmapped_and_released() {
    let Site { api, subnet, gateway, .. } = site().await;
    let address = api.post("/addresses", json!({ "name": "www" })).await.ok();
    let path = format!("/addresses/{}", id(&address));
    assert_eq!((&address["name"], &address["instance_id"]), (&json!("www"), &json!(null)));
    let one = api.launch(&subnet, json!({ "associate_public_ip": true })).await.ok();
    let two = api.launch(&subnet, json!({})).await.ok();
    let platform = one["public_ip"].clone();
    assert!(platform.is_string() && two["public_ip"].is_null());
    let mapped = api.post(&format!("{path}/associate"), json!({ "instance_id": id(&one) })).await.ok();
    assert_eq!((&mapped["instance_id"], &mapped["private_ip"]), (&one["id"], &one["private_ip"]));
    assert!(mapped["generation"].is_i64());
    let now = api.get(&format!("/instances/{}", id(&one))).await.ok();
    assert_eq!(now["public_ip"], address["public_ip"]);
    // The platform's address gave way, and rests.
    assert_eq!(api.count("select count(*) from public_ips where account_id is null and rests_until > now() + interval '9 minutes'").await, 1);
    // Mapping it there again changes nothing; elsewhere only if moving is allowed.
    api.post(&format!("{path}/associate"), json!({ "instance_id": id(&one) })).await.ok();
    let held = api
        .post(&format!("{path}/associate"), json!({ "instance_id": id(&two), "allow_reassociation": false }))
        .await;
    assert_eq!(held.problem(), (409, "Resource.AlreadyAssociated"));
    assert_eq!(api.delete(&path).await.problem(), (409, "InvalidIPAddress.InUse"));
    let moved = api
        .post(&format!("{path}/associate"), json!({ "network_interface_id": two["network_interface_id"] }))
        .await
        .ok();
    assert_eq!(moved["instance_id"], two["id"]);
    assert_eq!(api.get(&format!("/instances/{}", id(&one))).await.ok()["public_ip"], json!(null));
    assert_eq!(
        api.get(&format!("/addresses?instance_id={}", id(&two))).await.ok()["items"][0]["id"],
        address["id"]
    );
    // The gateway stays while something is mapped through it.
    let detach = format!("/internet-gateways/{}/detach", id(&gateway));
    let refused = api.post(&detach, json!({})).await;
    assert_eq!(refused.problem(), (409, "DependencyViolation"));
    assert_eq!(refused.body["blockers"], json!([two["network_interface_id"]]));
    let free = api.post(&format!("{path}/disassociate"), json!({})).await.ok();
    assert_eq!(free["instance_id"], json!(null));
    assert_eq!(
        api.post(&format!("{path}/disassociate"), json!({})).await.problem(),
        (409, "InvalidAssociationID.NotFound")
    );
    // Now it goes; and without it nothing can be mapped.
    api.post(&detach, json!({})).await.ok();
    let nowhere = api.post(&format!("{path}/associate"), json!({ "instance_id": id(&two) })).await;
    assert_eq!(nowhere.problem(), (409, "Gateway.NotAttached"));
    assert_eq!(api.get(&path).await.ok()["instance_id"], json!(null), "nothing half-done");
    assert_eq!(api.delete(&path).await.status, 204);
    assert_eq!(api.get(&path).await.problem(), (404, "InvalidAllocationID.NotFound"));
}

#[tokio::test]
async fn what_is_asked_for_must_make_sense() {
    let Site { api, subnet, .. } = site().await;
    let address = api.post("/addresses", json!({})).await.ok();
    let path = format!("/addresses/{}/associate", id(&address));
    let instance = api.launch(&subnet, json!({})).await.ok();
    for (body, code, field) in [
        (json!({}), "MissingParameter", Some("instance_id")),
        (
            json!({ "instance_id": id(&instance), "network_interface_id": instance["network_interface_id"] }),
            "InvalidParameterCombination",
            Some("network_interface_id"),
        ),
        (json!({ "instance_id": "i-1" }), "InvalidInstanceID.Malformed", Some("instance_id")),
        (
            json!({ "network_interface_id": "eni-1" }),
            "InvalidNetworkInterfaceID.Malformed",
            Some("network_interface_id"),
        ),
        (json!({ "instance_id": id(&instance), "force": true }), "UnknownParameter", Some("force")),
    ] {
        let answer = api.post(&path, body.clone()).await;
        assert_eq!((answer.problem(), answer.field()), ((400, code), field), "{body}");
    }
    api.delete(&format!("/instances/{}", id(&instance))).await.ok();
    let going = api.post(&path, json!({ "instance_id": id(&instance) })).await;
    assert_eq!(going.problem(), (409, "IncorrectInstanceState"));
}

#[tokio::test]
async fn the_pool_ends_and_nothing_is_half_created() {
    let Site { api, subnet, .. } = site().await;
    // Three hosts are skipped: network, the host's own, broadcast.
    for _ in 0..5 {
        api.post("/addresses", json!({})).await.ok();
    }
    assert_eq!(api.post("/addresses", json!({})).await.problem(), (409, "InsufficientAddressCapacity"));
    let answer = api.launch(&subnet, json!({ "associate_public_ip": true })).await;
    assert_eq!(
        (answer.problem(), answer.field()),
        ((409, "InsufficientAddressCapacity"), Some("associate_public_ip"))
    );
    assert_eq!(api.count("select count(*) from instances").await, 0);
    assert_eq!(api.count("select count(*) from network_interfaces").await, 0);
    api.launch(&subnet, json!({})).await.ok();
}

#[tokio::test]
async fn a_released_address_rests_before_its_next_owner() {
    let Site { api, .. } = site().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(id(&api.post("/addresses", json!({})).await.ok()).to_owned());
    }
    assert_eq!(api.delete(&format!("/addresses/{}", ids[0])).await.status, 204);
    assert_eq!(api.post("/addresses", json!({})).await.problem(), (409, "InsufficientAddressCapacity"));
    api.sql("update public_ips set rests_until = now() where account_id is null").await;
    api.post("/addresses", json!({})).await.ok();
}

#[tokio::test]
async fn no_address_is_given_twice() {
    let Site { api, .. } = site().await;
    let api = std::sync::Arc::new(api);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let api = std::sync::Arc::clone(&api);
        tasks.spawn(async move { api.post("/addresses", json!({})).await });
    }
    let answers = tasks.join_all().await;
    let mut given: Vec<_> =
        answers.iter().filter(|a| a.status == 201).map(|a| a.body["public_ip"].to_string()).collect();
    assert_eq!(given.len(), 5);
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 5);
    assert!(
        answers
            .iter()
            .filter(|a| a.status != 201)
            .all(|a| a.problem() == (409, "InsufficientAddressCapacity"))
    );
}

#[tokio::test]
async fn an_allocated_address_survives_stop_and_ends_with_the_instance() {
    let Site { api, subnet, vpc, .. } = site().await;
    let address = api.post("/addresses", json!({})).await.ok();
    let instance = api.launch(&subnet, json!({})).await.ok();
    let path = format!("/instances/{}", id(&instance));
    api.post(&format!("/addresses/{}/associate", id(&address)), json!({ "instance_id": id(&instance) }))
        .await
        .ok();
    api.run_everything().await;
    api.post(&format!("{path}/stop"), json!({})).await.ok();
    assert_eq!(api.get(&path).await.ok()["public_ip"], address["public_ip"]);
    api.run_everything().await;
    api.post(&format!("{path}/start"), json!({})).await.ok();
    assert_eq!(api.get(&path).await.ok()["public_ip"], address["public_ip"]);
    let before = api.get(&format!("/vpcs/{}", id(&vpc))).await.ok()["generation"].as_i64().unwrap();
    api.delete(&path).await.ok();
    let after = api.get(&format!("/vpcs/{}", id(&vpc))).await.ok()["generation"].as_i64().unwrap();
    assert_eq!(after, before + 1, "its packets changed");
    let left = api.get(&format!("/addresses/{}", id(&address))).await.ok();
    assert_eq!((&left["instance_id"], &left["public_ip"]), (&json!(null), &address["public_ip"]));
}
