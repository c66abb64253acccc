//! Lists: pages, cursors, filters.

use axum::http::Method;
use serde_json::{Value, json};

use super::Api;
use super::harness::id;

#[tokio::test]
async fn pages_join_without_gap_or_repetition() {
    let api = Api::new().await;
    let mut made = Vec::new();
    for n in 0..7 {
        let vpc =
            api.post("/vpcs", json!({ "name": format!("v{n}"), "cidr_block": "10.0.0.0/16" })).await.ok();
        made.push(id(&vpc).to_owned());
    }
    made.reverse();
    for limit in [1, 2, 3, 7, 100] {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = api.get(&format!("/vpcs?limit={limit}{cursor}")).await.ok();
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= limit);
            seen.extend(items.iter().map(|i| id(i).to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen, made, "newest first, {limit} at a time");
    }
    // A new one does not disturb those who page on.
    let page = api.get("/vpcs?limit=3").await.ok();
    api.vpc("10.0.0.0/16").await;
    let next = api.get(&format!("/vpcs?limit=3&cursor={}", page["next_cursor"].as_str().unwrap())).await.ok();
    assert_eq!(id(&next["items"][0]), made[3]);
}

#[tokio::test]
async fn cursors_are_ours_or_refused() {
    let api = Api::new().await;
    for _ in 0..2 {
        api.vpc("10.0.0.0/16").await;
    }
    let cursor = api.get("/vpcs?limit=1").await.ok()["next_cursor"].as_str().unwrap().to_owned();
    let stranger = api.user("other", "stranger", "member").await;
    let answer = api.as_user(&stranger, Method::GET, &format!("/vpcs?cursor={cursor}"), None).await;
    assert_eq!((answer.problem(), answer.field()), ((400, "InvalidPaginationToken"), Some("cursor")));
    let mut changed = cursor.clone().into_bytes();
    changed[3] = if changed[3] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();
    for bad in [&changed, "", "x", "0", &cursor[1..], &"A".repeat(43)] {
        let answer = api.get(&format!("/vpcs?cursor={bad}")).await;
        assert_eq!(answer.problem(), (400, "InvalidPaginationToken"), "{bad}");
    }
    let answer = api.get(&format!("/subnets?cursor={cursor}")).await;
    assert_eq!(answer.problem(), (400, "InvalidPaginationToken"), "a cursor of another list");
}

#[tokio::test]
async fn filters_narrow() {
    let api = Api::furnished().await;
    let vpc = api.post("/vpcs", json!({ "name": "one", "cidr_block": "10.0.0.0/16" })).await.ok();
    let other = api.post("/vpcs", json!({ "name": "two", "cidr_block": "10.1.0.0/16" })).await.ok();
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let second = api.subnet(id(&other), "10.1.1.0/24").await;
    let a = api.launch(id(&subnet), json!({ "name": "a" })).await.ok();
    let b = api.launch(id(&second), json!({ "name": "b", "instance_type": "g1.pico" })).await.ok();
    let ids =
        |list: Value| list["items"].as_array().unwrap().iter().map(|i| id(i).to_owned()).collect::<Vec<_>>();
    let get = async |path: String| ids(api.get(&path).await.ok());
    assert_eq!(get("/vpcs?name=one".to_owned()).await, [id(&vpc)]);
    assert_eq!(get("/vpcs?cidr_block=10.1.0.0/16".to_owned()).await, [id(&other)]);
    assert_eq!(get("/vpcs?state=pending".to_owned()).await, Vec::<String>::new());
    assert_eq!(get(format!("/subnets?vpc_id={}", id(&other))).await, [id(&second)]);
    assert_eq!(get("/subnets?availability_zone=gon-1a".to_owned()).await.len(), 2);
    assert_eq!(get(format!("/instances?vpc_id={}", id(&vpc))).await, [id(&a)]);
    assert_eq!(get(format!("/instances?subnet_id={}", id(&second))).await, [id(&b)]);
    assert_eq!(get("/instances?state=pending".to_owned()).await, [id(&b), id(&a)]);
    assert_eq!(get("/instances?name=b&state=pending".to_owned()).await, [id(&b)]);
    assert_eq!(get("/instances?instance_type=g1.pico".to_owned()).await, [id(&b)]);
    assert_eq!(get("/instances?name=%25".to_owned()).await, Vec::<String>::new(), "no wildcards");
    assert_eq!(get(format!("/network-interfaces?subnet_id={}", id(&subnet))).await.len(), 1);
    assert_eq!(get("/images?name=gon-linux".to_owned()).await.len(), 1);
    // What is not there has nothing in it.
    assert_eq!(get("/instances?vpc_id=vpc-00000000000000000".to_owned()).await, Vec::<String>::new());
    let types = api.get("/instance-types").await.ok();
    assert_eq!(types["items"].as_array().unwrap().len(), 11);
    assert_eq!(types["items"][0], json!({ "name": "g1.pico", "vcpus": 1, "memory_mib": 256 }));
    assert_eq!(api.get("/instance-types?name=t3.micro").await.ok()["items"][0]["memory_mib"], 1024);
}
