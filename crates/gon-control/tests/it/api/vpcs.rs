//! VPCs.

use std::cell::Cell;

use axum::http::Method;
use serde_json::{Value, json};

use super::harness::id;
use super::{Answer, Api};

#[tokio::test]
async fn a_vpc_comes_with_its_table_and_group() {
    let api = Api::new().await;
    let vpc = api.vpc("100.68.0.18/18").await;
    assert_eq!(vpc["cidr_block"], "100.68.0.0/18");
    let tables = api.get(&format!("/route-tables?vpc_id={}", id(&vpc))).await.ok();
    assert_eq!(tables["items"].as_array().unwrap().len(), 1);
    assert_eq!(tables["items"][0]["is_main"], true);
    assert_eq!(tables["items"][0]["id"], vpc["main_route_table_id"]);
    let local = json!({ "destination_cidr": "100.68.0.0/18", "target_type": "local", "target_id": "local", "state": "active" });
    assert_eq!(tables["items"][0]["routes"], json!([local]));
    let groups = api.get(&format!("/security-groups?vpc_id={}", id(&vpc))).await.ok();
    let group = &groups["items"][0];
    assert_eq!((&group["name"], &group["is_default"]), (&json!("default"), &json!(true)));
    assert_eq!(group["id"], vpc["default_security_group_id"]);
    let acls = api.get(&format!("/network-acls?vpc_id={}", id(&vpc))).await.ok();
    assert_eq!(acls["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&acls["items"][0]["id"], &acls["items"][0]["is_default"]),
        (&vpc["default_network_acl_id"], &json!(true))
    );
    assert_eq!(api.get(&format!("/vpcs/{}", id(&vpc))).await.ok(), vpc);
    let said: Vec<_> = group["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| {
            (
                r["direction"].clone(),
                r["protocol"].clone(),
                r["port_range"].clone(),
                r["source_destination"].clone(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            (json!("inbound"), json!("all"), json!("all"), group["id"].clone()),
            (json!("outbound"), json!("all"), json!("all"), json!("0.0.0.0/0")),
        ]
    );
    // Books: one audit row, a doorbell for the controllers, an event for those who watch.
    assert_eq!(api.count("select count(*) from audit_log where action = 'CreateVpc'").await, 1);
    assert_eq!(api.count("select count(*) from events where resource = 'vpc'").await, 1);
    // The same block again is fine: isolation does not rest on addresses.
    api.vpc("100.68.0.0/18").await;
}

#[tokio::test]
async fn a_vpc_is_found_by_both_forms_of_its_id() {
    let api = Api::new().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let whole = api.get(&format!("/vpcs/{}", vpc["uuid"].as_str().unwrap())).await.ok();
    assert_eq!(whole, api.get(&format!("/vpcs/{}", id(&vpc))).await.ok());
}

#[tokio::test]
async fn a_change_wants_to_know_what_it_changes() {
    let api = Api::new().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let path = format!("/vpcs/{}", id(&vpc));
    let seen = api.get(&path).await.etag();
    let put = async |name: &str, tag: &str| {
        let body = json!({ "name": name });
        api.call(
            Some(&api.admin.token),
            Method::PUT,
            &format!("/api/v1{path}"),
            Some(&body),
            &[("if-match", tag)],
        )
        .await
    };
    let first = put("one", &seen).await;
    assert_eq!(first.body["name"], "one");
    let tag = first.etag();
    assert_ne!(tag, seen);
    assert_eq!(put("two", &seen).await.problem(), (412, "PreconditionFailed"));
    assert_eq!(put("two", &tag).await.ok()["name"], "two");
    assert_eq!(put("three", "*").await.ok()["name"], "three");
    assert_eq!(api.put(&path, json!({ "name": "four" })).await.ok()["name"], "four");
    assert_eq!(put("five", "nonsense").await.problem(), (400, "InvalidParameterValue"));
    assert_eq!(api.get(&path).await.ok()["name"], "four");
}

#[tokio::test]
async fn of_two_changes_at_once_one_is_refused() {
    let api = Api::new().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let path = format!("/api/v1/vpcs/{}", id(&vpc));
    let tag = api.get(&format!("/vpcs/{}", id(&vpc))).await.etag();
    let put = async |name: &str| {
        let body = json!({ "name": name });
        api.call(Some(&api.admin.token), Method::PUT, &path, Some(&body), &[("if-match", &tag)]).await
    };
    let (a, b) = tokio::join!(put("a"), put("b"));
    let mut statuses = [a.status.as_u16(), b.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412]);
}

#[tokio::test]
async fn a_vpc_with_dependents_stays_whole() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let path = format!("/vpcs/{}", id(&vpc));
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let group = api.post("/security-groups", json!({ "vpc_id": id(&vpc), "name": "g" })).await.ok();
    let table = api.post("/route-tables", json!({ "vpc_id": id(&vpc) })).await.ok();
    let gateway = api.post("/internet-gateways", json!({})).await.ok();
    api.post(&format!("/internet-gateways/{}/attach", id(&gateway)), json!({ "vpc_id": id(&vpc) }))
        .await
        .ok();
    let refused = api.delete(&path).await;
    assert_eq!(refused.problem(), (409, "DependencyViolation"));
    let mut blockers: Vec<_> =
        refused.body["blockers"].as_array().unwrap().iter().map(|b| b.as_str().unwrap()).collect();
    blockers.sort_unstable();
    let mut expected = [id(&subnet), id(&group), id(&table), id(&gateway)];
    expected.sort_unstable();
    assert_eq!(blockers, expected);
    // Its default group and main table are still there, with their rules.
    let default = api
        .get(&format!("/security-groups/{}", vpc["default_security_group_id"].as_str().unwrap()))
        .await
        .ok();
    assert_eq!(default["rules"].as_array().unwrap().len(), 2);
    api.get(&format!("/route-tables/{}", vpc["main_route_table_id"].as_str().unwrap())).await.ok();
    // Each of them alone is enough.
    api.delete(&format!("/subnets/{}", id(&subnet))).await;
    assert_eq!(api.delete(&path).await.problem(), (409, "DependencyViolation"));
    api.delete(&format!("/security-groups/{}", id(&group))).await;
    assert_eq!(api.delete(&path).await.problem(), (409, "DependencyViolation"));
    api.delete(&format!("/route-tables/{}", id(&table))).await;
    let last = api.delete(&path).await;
    assert_eq!(last.body["blockers"], json!([id(&gateway)]));
    api.post(&format!("/internet-gateways/{}/detach", id(&gateway)), json!({ "vpc_id": id(&vpc) }))
        .await
        .ok();
    // The default group may have been given rules that name other things of the VPC.
    assert_eq!(api.delete(&path).await.status, 204);
    for gone in [&vpc["default_security_group_id"], &vpc["main_route_table_id"]] {
        let gone = gone.as_str().unwrap();
        let noun = if gone.starts_with("sg-") { "security-groups" } else { "route-tables" };
        assert_eq!(api.get(&format!("/{noun}/{gone}")).await.status, 404);
    }
}

/// Asks until it is not told to come again: who waits for a row for nearly a second is, on a machine that stalls.
async fn insist(api: &Api, method: Method, path: &str, body: Option<&Value>, told: &Cell<u32>) -> Answer {
    loop {
        let answer = api.as_user(&api.admin, method.clone(), path, body).await;
        if answer.status != 503 {
            return answer;
        }
        told.set(told.get() + 1);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn creating_a_subnet_races_deleting_its_vpc_and_one_wins() {
    let api = Api::new().await;
    let told = Cell::new(0);
    for _ in 0..8 {
        let vpc = api.vpc("10.0.0.0/16").await;
        let path = format!("/vpcs/{}", id(&vpc));
        let subnets = format!("{path}/subnets");
        let body = json!({ "name": "s", "cidr_block": "10.0.1.0/24" });
        let (deleted, created) = tokio::join!(
            insist(&api, Method::DELETE, &path, None, &told),
            insist(&api, Method::POST, &subnets, Some(&body), &told),
        );
        match (deleted.status.as_u16(), created.status.as_u16()) {
            (204, 404) => assert_eq!(created.problem().1, "InvalidVpcID.NotFound"),
            (409, 201) => assert_eq!(deleted.problem().1, "DependencyViolation"),
            other => panic!("{other:?}: {} {}", deleted.body, created.body),
        }
    }
    // Did they wait for each other, one would be told so in every round.
    assert!(told.get() < 8, "{}", told.get());
    assert_eq!(
        api.count("select count(*) from subnets s join vpcs v on v.id = s.vpc_id where s.deleted_at is null and v.deleted_at is not null").await,
        0
    );
}

/// Between two looks at a VPC it is not deleted, so that nobody takes it for one without blocks.
#[tokio::test]
async fn a_vpc_that_is_held_is_deleted_afterwards() {
    let api = Api::new().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let (path, whole) =
        (format!("/vpcs/{}", id(&vpc)), vpc["uuid"].as_str().unwrap().parse::<uuid::Uuid>().unwrap());
    let mut tx = api.database.store.begin().await.unwrap();
    let held = gon_store::vpcs::hold(&mut tx, api.admin.account, &whole.into()).await.unwrap();
    let (deleted, blocks) = tokio::join!(api.delete(&path), async {
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        let blocks = gon_store::vpcs::blocks(&mut tx, held.id).await.unwrap();
        gon_store::commit(tx).await.unwrap();
        blocks
    });
    assert_eq!((deleted.status.as_u16(), blocks.len()), (204, 1));
    let body = json!({ "name": "s", "cidr_block": "10.0.1.0/24" });
    assert_eq!(api.post(&format!("{path}/subnets"), body).await.problem(), (404, "InvalidVpcID.NotFound"));
}
