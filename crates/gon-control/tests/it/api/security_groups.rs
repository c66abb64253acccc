//! Security groups.

use serde_json::json;

use super::Api;
use super::harness::id;

#[tokio::test]
async fn rules_are_unique_and_read_back_as_written() {
    let api = Api::new().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let group = api.post("/security-groups", json!({ "vpc_id": id(&vpc), "name": "web" })).await.ok();
    let peer = api.post("/security-groups", json!({ "vpc_id": id(&vpc), "name": "lb" })).await.ok();
    let rules = format!("/security-groups/{}/rules", id(&group));
    let mut added = 0;
    for (rule, ports, source) in [
        (json!({ "protocol": "tcp", "port_range": "80" }), "80", "0.0.0.0/0"),
        (json!({ "protocol": "tcp", "port_range": "80-443" }), "80-443", "10.0.0.0/8"),
        (json!({ "protocol": "udp", "port_range": "all" }), "all", "10.1.2.0/24"),
        (json!({ "protocol": "udp", "port_range": "0" }), "0", "10.1.2.0/24"),
        (json!({ "protocol": "tcp", "port_range": "65535" }), "65535", "10.1.2.0/24"),
        (json!({ "protocol": "icmp" }), "all", "0.0.0.0/0"),
        (json!({ "protocol": "icmp", "icmp_type": 8 }), "all", "0.0.0.0/0"),
        (json!({ "protocol": "icmp", "icmp_type": 3, "icmp_code": 4 }), "all", "0.0.0.0/0"),
        (json!({ "protocol": "all", "port_range": "all" }), "all", "192.0.2.1/32"),
        (json!({ "protocol": "tcp", "port_range": "22" }), "22", id(&peer)),
        (json!({ "protocol": "tcp", "port_range": "22", "description": "한국어" }), "22", id(&group)),
    ] {
        let mut body = rule.clone();
        body["direction"] = json!("inbound");
        body["source_destination"] = json!(source);
        let answer = api.post(&rules, body.clone()).await.ok();
        assert_eq!(
            (&answer["port_range"], &answer["source_destination"]),
            (&json!(ports), &json!(source)),
            "{body}"
        );
        let twice = api.post(&rules, body.clone()).await;
        assert_eq!(twice.problem(), (409, "InvalidPermission.Duplicate"), "{body}");
        // The other direction is another rule.
        body["direction"] = json!("outbound");
        if !(rule["protocol"] == "all" && source == "0.0.0.0/0") {
            api.post(&rules, body).await.ok();
        }
        added += 2;
    }
    let kept = api.get(&format!("/security-groups/{}", id(&group))).await.ok();
    assert_eq!(kept["rules"].as_array().unwrap().len(), added + 1);
    // Host bits are dropped, as in blocks: the same rule again.
    let same = json!({ "direction": "inbound", "protocol": "tcp", "port_range": "80-443", "source_destination": "10.9.9.9/8" });
    assert_eq!(api.post(&rules, same).await.problem(), (409, "InvalidPermission.Duplicate"));

    let first = id(&kept["rules"][0]).to_owned();
    let after = api.delete(&format!("{rules}/{first}")).await.ok();
    assert_eq!(after["rules"].as_array().unwrap().len(), added);
    assert_eq!(after["generation"], kept["generation"].as_i64().unwrap() + 1);
    assert_eq!(api.delete(&format!("{rules}/{first}")).await.problem(), (404, "InvalidPermission.NotFound"));
    // A rule of another group is none of this one's.
    let other = format!("/security-groups/{}/rules/{}", id(&peer), id(&kept["rules"][1]));
    assert_eq!(api.delete(&other).await.problem(), (404, "InvalidPermission.NotFound"));
}

#[tokio::test]
async fn one_of_many_equal_rules_is_made() {
    let api = std::sync::Arc::new(Api::new().await);
    let vpc = api.vpc("10.0.0.0/16").await;
    let path = format!("/security-groups/{}/rules", vpc["default_security_group_id"].as_str().unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (api, path) = (std::sync::Arc::clone(&api), path.clone());
        tasks.spawn(async move {
            let rule =
                json!({ "direction": "inbound", "protocol": "icmp", "source_destination": "0.0.0.0/0" });
            api.post(&path, rule).await.status.as_u16()
        });
    }
    let mut statuses = tasks.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![201], vec![409; 15]].concat());
}

#[tokio::test]
async fn names_are_unique_in_their_vpc_in_any_case() {
    let api = Api::new().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let other = api.vpc("10.0.0.0/16").await;
    let make = async |vpc: &str, name: &str| {
        api.post("/security-groups", json!({ "vpc_id": vpc, "name": name })).await
    };
    let group = make(id(&vpc), "Web").await.ok();
    assert_eq!(make(id(&vpc), "web").await.problem(), (409, "InvalidGroup.Duplicate"));
    assert_eq!(make(id(&vpc), "DEFAULT").await.problem(), (409, "InvalidGroup.Duplicate"));
    make(id(&other), "web").await.ok();
    let second = make(id(&vpc), "db").await.ok();
    let path = format!("/security-groups/{}", id(&second));
    assert_eq!(api.put(&path, json!({ "name": "WEB" })).await.problem(), (409, "InvalidGroup.Duplicate"));
    let changed = api.put(&path, json!({ "description": "d" })).await.ok();
    assert_eq!((&changed["name"], &changed["description"]), (&json!("db"), &json!("d")));
    let found = api.get(&format!("/security-groups?vpc_id={}&name=wEB", id(&vpc))).await.ok();
    assert_eq!(found["items"][0]["id"], id(&group));
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    let default = format!("/security-groups/{}", vpc["default_security_group_id"].as_str().unwrap());
    assert_eq!(api.put(&default, json!({ "name": "other" })).await.field(), Some("name"));
    api.put(&default, json!({ "name": "default", "description": "ours" })).await.ok();
}

#[tokio::test]
async fn what_is_in_use_stays() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let default = vpc["default_security_group_id"].as_str().unwrap();
    assert_eq!(api.delete(&format!("/security-groups/{default}")).await.problem(), (409, "CannotDelete"));
    let used = api.post("/security-groups", json!({ "vpc_id": id(&vpc), "name": "used" })).await.ok();
    let user = api.post("/security-groups", json!({ "vpc_id": id(&vpc), "name": "user" })).await.ok();
    let rule = json!({ "direction": "inbound", "protocol": "all", "source_destination": id(&used) });
    // A rule that names its own group does not keep it.
    api.post(&format!("/security-groups/{}/rules", id(&used)), rule.clone()).await.ok();
    api.post(&format!("/security-groups/{}/rules", id(&user)), rule).await.ok();
    let refused = api.delete(&format!("/security-groups/{}", id(&used))).await;
    assert_eq!(refused.problem(), (409, "DependencyViolation"));
    assert_eq!(refused.body["blockers"], json!([id(&user)]));
    assert_eq!(api.delete(&format!("/security-groups/{}", id(&user))).await.status, 204);
    assert_eq!(api.delete(&format!("/security-groups/{}", id(&used))).await.status, 204);
    // Peers are of the same VPC.
    let other = api.vpc("10.0.0.0/16").await;
    let foreign = json!({ "direction": "inbound", "protocol": "all", "source_destination": other["default_security_group_id"] });
    let answer = api.post(&format!("/security-groups/{default}/rules"), foreign).await;
    assert_eq!(
        (answer.problem(), answer.field()),
        ((400, "InvalidParameterValue"), Some("source_destination"))
    );
}

#[tokio::test]
async fn a_group_has_sixty_rules_per_direction() {
    let api = Api::new().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let group = api.post("/security-groups", json!({ "vpc_id": id(&vpc), "name": "g" })).await.ok();
    let rules = format!("/security-groups/{}/rules", id(&group));
    let rule = |port: u16, direction: &str| json!({ "direction": direction, "protocol": "tcp", "port_range": port.to_string(), "source_destination": "0.0.0.0/0" });
    for port in 1..=60 {
        api.post(&rules, rule(port, "inbound")).await.ok();
    }
    assert_eq!(
        api.post(&rules, rule(61, "inbound")).await.problem(),
        (409, "RulesPerSecurityGroupLimitExceeded")
    );
    api.post(&rules, rule(61, "outbound")).await.ok();
    assert_eq!(
        api.count(
            "select count(*) from security_group_rules where direction = 'inbound' and protocol = 'tcp'"
        )
        .await,
        60
    );
}
