//! Network ACLs, their entries, and which subnet has which.

use serde_json::{Value, json};

use super::Api;
use super::harness::id;

fn entry(direction: &str, number: i64, action: &str, protocol: &str, ports: Option<&str>) -> Value {
    json!({ "direction": direction, "rule_number": number, "action": action, "protocol": protocol,
            "port_range": ports, "cidr_block": "0.0.0.0/0" })
}

/// Direction, number and action of every entry.
fn said(acl: &Value) -> Vec<(&str, i64, &str)> {
    let entries = acl["entries"].as_array().unwrap().iter();
    entries
        .map(|e| {
            (
                e["direction"].as_str().unwrap(),
                e["rule_number"].as_i64().unwrap(),
                e["action"].as_str().unwrap(),
            )
        })
        .collect()
}

async fn acl_of(api: &Api, filter: &str) -> Value {
    let page = api.get(&format!("/network-acls?{filter}")).await.ok();
    assert_eq!(page["items"].as_array().unwrap().len(), 1, "{page}");
    page["items"][0].clone()
}

#[tokio::test]
async fn a_vpc_has_a_default_acl_that_lets_everything_through_and_stays() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let acl = acl_of(&api, &format!("vpc_id={}", id(&vpc))).await;
    assert_eq!(
        (&acl["is_default"], &acl["name"], &acl["associations"]),
        (&json!(true), &json!("default"), &json!([]))
    );
    let both = [
        ("inbound", 100, "allow"),
        ("inbound", 32767, "deny"),
        ("outbound", 100, "allow"),
        ("outbound", 32767, "deny"),
    ];
    assert_eq!(said(&acl), both);
    let path = format!("/network-acls/{}", id(&acl));
    let refused = api.delete(&path).await;
    assert_eq!((refused.problem(), refused.field()), ((400, "InvalidParameterValue"), Some("id")));
    // It can be changed and renamed as any other.
    api.post(&format!("{path}/entries"), entry("inbound", 50, "deny", "tcp", Some("22"))).await.ok();
    assert_eq!(api.put(&path, json!({ "name": "edge" })).await.ok()["name"], "edge");
    // Subnets have it from their first moment, and it goes with its VPC.
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let guarding = acl_of(&api, &format!("subnet_id={}", id(&subnet))).await;
    assert_eq!(guarding["id"], acl["id"]);
    assert_eq!(guarding["associations"][0]["subnet_id"], id(&subnet));
    assert!(id(&guarding["associations"][0]).starts_with("aclassoc-"));
    assert_eq!(api.delete(&format!("/subnets/{}", id(&subnet))).await.status, 204);
    assert_eq!(api.get(&path).await.ok()["associations"], json!([]));
    let own = api.post("/network-acls", json!({ "vpc_id": id(&vpc) })).await.ok();
    let refused = api.delete(&format!("/vpcs/{}", id(&vpc))).await;
    assert_eq!(
        (refused.problem(), &refused.body["blockers"]),
        ((409, "DependencyViolation"), &json!([id(&own)]))
    );
    assert_eq!(api.delete(&format!("/network-acls/{}", id(&own))).await.status, 204);
    assert_eq!(api.delete(&format!("/vpcs/{}", id(&vpc))).await.status, 204);
    assert_eq!(api.get(&path).await.problem(), (404, "InvalidNetworkAclID.NotFound"));
}

#[tokio::test]
async fn entries_have_their_numbers_to_themselves() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let acl = api.post("/network-acls", json!({ "vpc_id": id(&vpc), "name": "own" })).await.ok();
    assert_eq!(
        said(&acl),
        [("inbound", 32767, "deny"), ("outbound", 32767, "deny")],
        "a new one denies everything"
    );
    let path = format!("/network-acls/{}/entries", id(&acl));
    let generation = acl["generation"].as_i64().unwrap();
    let with = api.post(&path, entry("inbound", 200, "allow", "tcp", Some("443"))).await.ok();
    assert_eq!(with["generation"], generation + 1);
    assert_eq!(with["applied"], json!({ "generation": generation + 1, "nodes": 0, "acked": 0 }));
    let icmp = json!({ "direction": "inbound", "rule_number": 100, "action": "deny", "protocol": "icmp",
                       "icmp_type": 3, "icmp_code": 4, "cidr_block": "10.0.0.9/8" });
    let with = api.post(&path, icmp).await.ok();
    assert_eq!(
        with["entries"][0],
        json!({ "direction": "inbound", "rule_number": 100, "action": "deny", "protocol": "icmp", "port_range": "all",
                "icmp_type": 3, "icmp_code": 4, "cidr_block": "10.0.0.0/8" })
    );
    assert_eq!(said(&with)[..2], [("inbound", 100, "deny"), ("inbound", 200, "allow")], "by number");

    // The same number once per direction.
    let twice = api.post(&path, entry("inbound", 200, "deny", "all", None)).await;
    assert_eq!(
        (twice.problem(), twice.field()),
        ((409, "NetworkAclEntryAlreadyExists"), Some("rule_number"))
    );
    api.post(&path, entry("outbound", 200, "allow", "47", None)).await.ok();
    // Replaced in its place; only what is there can be.
    let replaced = api.put(&path, entry("inbound", 200, "deny", "udp", Some("53-54"))).await.ok();
    assert_eq!(
        (&replaced["entries"][1]["protocol"], &replaced["entries"][1]["port_range"]),
        (&json!("udp"), &json!("53-54"))
    );
    let missing = api.put(&path, entry("outbound", 100, "deny", "all", None)).await;
    assert_eq!(
        (missing.problem(), missing.field()),
        ((404, "InvalidNetworkAclEntry.NotFound"), Some("rule_number"))
    );

    for (body, code, field) in [
        (entry("inbound", 0, "allow", "all", None), "InvalidParameterValue", "rule_number"),
        (entry("inbound", 32767, "allow", "all", None), "InvalidParameterValue", "rule_number"),
        (entry("inbound", -5, "allow", "all", None), "InvalidParameterValue", "rule_number"),
        (entry("inbound", 1 << 40, "allow", "all", None), "InvalidParameterValue", "rule_number"),
        (entry("in", 1, "allow", "all", None), "InvalidParameterValue", "direction"),
        (entry("inbound", 1, "drop", "all", None), "InvalidParameterValue", "action"),
        (entry("inbound", 1, "allow", "0", None), "InvalidParameterValue", "protocol"),
        (entry("inbound", 1, "allow", "tcp", None), "MissingParameter", "port_range"),
        (entry("inbound", 1, "allow", "tcp", Some("80-79")), "InvalidParameterValue", "port_range"),
        (entry("inbound", 1, "allow", "all", Some("80")), "InvalidParameterValue", "port_range"),
    ] {
        for answer in [api.post(&path, body.clone()).await, api.put(&path, body.clone()).await] {
            assert_eq!((answer.problem(), answer.field()), ((400, code), Some(field)), "{body}");
        }
    }
    let bad = json!({ "direction": "inbound", "rule_number": 1, "action": "allow", "protocol": "all", "cidr_block": "::/0" });
    assert_eq!(api.post(&path, bad).await.field(), Some("cidr_block"));

    // Removed, once; the last word of the list is nobody's.
    let one = format!("{path}?direction=inbound&rule_number=200");
    assert_eq!(said(&api.delete(&one).await.ok()).len(), 4);
    assert_eq!(api.delete(&one).await.problem(), (404, "InvalidNetworkAclEntry.NotFound"));
    for (query, code, field) in [
        ("direction=inbound&rule_number=32767", "InvalidParameterValue", "rule_number"),
        ("direction=inbound&rule_number=x", "InvalidParameterValue", "rule_number"),
        ("direction=inbound", "MissingParameter", "rule_number"),
        ("rule_number=100", "MissingParameter", "direction"),
        ("direction=up&rule_number=100", "InvalidParameterValue", "direction"),
    ] {
        let answer = api.delete(&format!("{path}?{query}")).await;
        assert_eq!((answer.problem(), answer.field()), ((400, code), Some(field)), "{query}");
    }
    // As many as EC2 allows in each direction.
    for number in 0..19 {
        api.post(&path, entry("inbound", 1000 + number, "allow", "all", None)).await.ok();
    }
    let full = api.post(&path, entry("inbound", 999, "allow", "all", None)).await;
    assert_eq!(full.problem(), (409, "NetworkAclEntryLimitExceeded"));
    api.post(&path, entry("outbound", 999, "allow", "all", None)).await.ok();
}

#[tokio::test]
async fn a_subnet_has_exactly_one_acl_at_any_time() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let default = acl_of(&api, &format!("subnet_id={}", id(&subnet))).await;
    assert_eq!((&subnet["network_acl_id"], &vpc["default_network_acl_id"]), (&default["id"], &default["id"]));
    let first = default["associations"][0]["id"].as_str().unwrap().to_owned();
    let own = api.post("/network-acls", json!({ "vpc_id": id(&vpc), "name": "own" })).await.ok();
    let path = format!("/network-acls/{}", id(&own));
    let associations = format!("{path}/associations");
    let with = api.post(&associations, json!({ "subnet_id": id(&subnet) })).await.ok();
    assert_eq!(with["associations"][0]["subnet_id"], id(&subnet));
    let second = with["associations"][0]["id"].as_str().unwrap().to_owned();
    assert_ne!(first, second, "replacing gives a new association");
    assert_eq!(api.get(&format!("/network-acls/{}", id(&default))).await.ok()["associations"], json!([]));
    assert_eq!(acl_of(&api, &format!("subnet_id={}", id(&subnet))).await["id"], own["id"]);
    assert_eq!(api.get(&format!("/subnets/{}", id(&subnet))).await.ok()["network_acl_id"], own["id"]);
    let listed = api.get(&format!("/vpcs/{}/subnets", id(&vpc))).await.ok();
    assert_eq!(listed["items"][0]["network_acl_id"], own["id"]);

    // In use: it stays.
    let refused = api.delete(&path).await;
    assert_eq!(
        (refused.problem(), &refused.body["blockers"]),
        ((409, "DependencyViolation"), &json!([second]))
    );
    // By the association that is replaced, as EC2 does; the one before is no longer there.
    let back = format!("/network-acls/{}/associations", id(&default));
    let stale = api.post(&back, json!({ "association_id": first })).await;
    assert_eq!(
        (stale.problem(), stale.field()),
        ((404, "InvalidAssociationID.NotFound"), Some("association_id"))
    );
    let other = api.subnet(id(&vpc), "10.0.2.0/24").await;
    let wrong = api.post(&back, json!({ "association_id": second, "subnet_id": id(&other) })).await;
    assert_eq!(wrong.problem(), (404, "InvalidAssociationID.NotFound"));
    api.post(&back, json!({ "association_id": second })).await.ok();
    assert_eq!(acl_of(&api, &format!("subnet_id={}", id(&subnet))).await["id"], default["id"]);
    assert_eq!(api.delete(&path).await.status, 204);
    assert_eq!(
        api.post(&associations, json!({ "subnet_id": id(&subnet) })).await.problem(),
        (404, "InvalidNetworkAclID.NotFound")
    );

    assert_eq!(api.post(&back, json!({})).await.problem(), (400, "MissingParameter"));
    for (field, malformed) in
        [("subnet_id", "InvalidSubnetID.Malformed"), ("association_id", "InvalidAssociationID.Malformed")]
    {
        let answer = api.post(&back, json!({ field: "x" })).await;
        assert_eq!((answer.problem(), answer.field()), ((400, malformed), Some(field)));
    }
    let foreign = api.vpc("10.0.0.0/16").await;
    let far = api.subnet(id(&foreign), "10.0.1.0/24").await;
    let answer = api.post(&back, json!({ "subnet_id": id(&far) })).await;
    assert_eq!((answer.problem(), answer.field()), ((400, "InvalidParameterValue"), Some("subnet_id")));
    // Nothing of this was half done: each subnet has one.
    for subnet in [&subnet, &other, &far] {
        acl_of(&api, &format!("subnet_id={}", id(subnet))).await;
    }
}

#[tokio::test]
async fn two_that_replace_at_once_leave_one() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let before = acl_of(&api, &format!("subnet_id={}", id(&subnet))).await["associations"][0]["id"].clone();
    let mut paths = vec![];
    for name in ["a", "b"] {
        let acl = api.post("/network-acls", json!({ "vpc_id": id(&vpc), "name": name })).await.ok();
        paths.push(format!("/network-acls/{}/associations", id(&acl)));
    }
    let body = json!({ "association_id": before });
    let (one, two) = tokio::join!(api.post(&paths[0], body.clone()), api.post(&paths[1], body));
    let won = [&one, &two].iter().filter(|a| a.status.is_success()).count();
    assert_eq!(won, 1, "{one:?} {two:?}");
    acl_of(&api, &format!("subnet_id={}", id(&subnet))).await;
}

#[tokio::test]
async fn acls_of_others_are_not_there() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let acl = acl_of(&api, &format!("vpc_id={}", id(&vpc))).await;
    let stranger = api.user("other", "eve", "member").await;
    let path = format!("/network-acls/{}", id(&acl));
    use axum::http::Method;
    let put = entry("inbound", 1, "deny", "all", None);
    for (method, path, body) in [
        (Method::GET, path.clone(), None),
        (Method::DELETE, path.clone(), None),
        (Method::POST, format!("{path}/entries"), Some(&put)),
        (Method::PUT, format!("{path}/entries"), Some(&put)),
        (Method::DELETE, format!("{path}/entries?direction=inbound&rule_number=100"), None),
        (
            Method::POST,
            format!("{path}/associations"),
            Some(&json!({ "subnet_id": "subnet-0123456789abcdef0" })),
        ),
    ] {
        let answer = api.as_user(&stranger, method.clone(), &path, body).await;
        assert_eq!(answer.problem(), (404, "InvalidNetworkAclID.NotFound"), "{method} {path}");
    }
    let page = api.as_user(&stranger, Method::GET, "/network-acls", None).await.ok();
    assert_eq!(page["items"], json!([]));
    assert_eq!(said(&api.get(&path).await.ok()).len(), 4);
}
