//! Subnets.

use serde_json::json;

use super::Api;
use super::harness::id;

#[tokio::test]
async fn subnets_lie_inside_their_vpc_and_beside_each_other() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let path = format!("/vpcs/{}/subnets", id(&vpc));
    api.subnet(id(&vpc), "10.0.1.0/24").await;
    for (cidr, status, code) in [
        ("10.0.1.0/24", 409, "InvalidSubnet.Conflict"),
        ("10.0.1.128/25", 409, "InvalidSubnet.Conflict"),
        ("10.0.0.0/16", 409, "InvalidSubnet.Conflict"),
        ("10.1.0.0/24", 400, "InvalidSubnet.Range"),
        ("10.0.0.0/8", 400, "InvalidSubnet.Range"),
        ("10.0.2.0/29", 400, "InvalidSubnet.Range"),
        ("10.0.2.0", 400, "InvalidParameterValue"),
    ] {
        let answer = api.post(&path, json!({ "name": "x", "cidr_block": cidr })).await;
        assert_eq!((answer.problem(), answer.field()), ((status, code), Some("cidr_block")), "{cidr}");
    }
    assert_eq!(api.get(&path).await.ok()["items"].as_array().unwrap().len(), 1);
    // Freed, it can be had again.
    let items = api.get(&path).await.ok();
    assert_eq!(api.delete(&format!("/subnets/{}", id(&items["items"][0]))).await.status, 204);
    api.subnet(id(&vpc), "10.0.1.0/25").await;
}

#[tokio::test]
async fn only_one_of_many_overlapping_subnets_is_made() {
    let api = std::sync::Arc::new(Api::new().await);
    let vpc = api.vpc("10.0.0.0/16").await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..16 {
        let (api, path) = (std::sync::Arc::clone(&api), format!("/vpcs/{}/subnets", id(&vpc)));
        tasks.spawn(async move {
            let body = json!({ "name": "x", "cidr_block": format!("10.0.{n}.0/{}", 18 + n % 6) });
            // All of them have 10.0.0.0/20 in common or lie in it.
            let body = if n % 2 == 0 { json!({ "name": "x", "cidr_block": "10.0.0.0/20" }) } else { body };
            loop {
                // On a machine that stalls, who waited for nearly a second is told to come again.
                match api.post(&path, body.clone()).await.status.as_u16() {
                    503 => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
                    status => return status,
                }
            }
        });
    }
    let statuses = tasks.join_all().await;
    assert!(statuses.iter().all(|s| [201, 409].contains(s)), "{statuses:?}");
    assert_eq!(
        api.count(
            "select count(*) from subnets a join subnets b on a.id < b.id and a.vpc_id = b.vpc_id and a.cidr_block && b.cidr_block
             where a.deleted_at is null and b.deleted_at is null"
        )
        .await,
        0
    );
}

#[tokio::test]
async fn zones_exist_or_are_refused() {
    let api = Api::new().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let path = format!("/vpcs/{}/subnets", id(&vpc));
    // No node has reported: the configured zone is the site's.
    let first = api.post(&path, json!({ "name": "a", "cidr_block": "10.0.1.0/24" })).await.ok();
    assert_eq!(first["availability_zone"], "gon-1a");
    api.furnish("203.0.113.0/29").await;
    let named = json!({ "name": "b", "cidr_block": "10.0.2.0/24", "availability_zone": "gon-1a" });
    api.post(&path, named).await.ok();
    let wrong = json!({ "name": "c", "cidr_block": "10.0.3.0/24", "availability_zone": "us-east-1a" });
    let answer = api.post(&path, wrong).await;
    assert_eq!(
        (answer.problem(), answer.field()),
        ((400, "InvalidParameterValue"), Some("availability_zone"))
    );
}

#[tokio::test]
async fn changes_are_partial_and_alter_no_packets() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let path = format!("/subnets/{}", id(&subnet));
    let changed = api.put(&path, json!({ "map_public_ip_on_launch": true })).await.ok();
    assert_eq!((&changed["name"], &changed["map_public_ip_on_launch"]), (&json!("s"), &json!(true)));
    let changed = api.put(&path, json!({ "name": "t" })).await.ok();
    assert_eq!((&changed["name"], &changed["map_public_ip_on_launch"]), (&json!("t"), &json!(true)));
    assert_eq!(api.put(&path, json!({})).await.problem(), (400, "MissingParameter"));
    assert_eq!(api.get(&format!("/vpcs/{}", id(&vpc))).await.ok()["generation"], subnet["generation"]);
}
