//! One effect per key (rule R3).

use std::sync::Arc;

use axum::http::Method;
use serde_json::{Value, json};

use super::harness::id;
use super::{Answer, Api, User};

async fn post(api: &Api, user: &User, path: &str, body: &Value, key: &str) -> Answer {
    api.call(
        Some(&user.token),
        Method::POST,
        &format!("/api/v1{path}"),
        Some(body),
        &[("idempotency-key", key)],
    )
    .await
}

#[tokio::test]
async fn the_same_request_is_done_once() {
    let api = Api::furnished().await;
    let body = json!({ "name": "v", "cidr_block": "10.0.0.0/16" });
    let first = post(&api, &api.admin, "/vpcs", &body, "k1").await;
    let again = post(&api, &api.admin, "/vpcs", &body, "k1").await;
    assert_eq!(
        (first.status, again.status),
        (axum::http::StatusCode::CREATED, axum::http::StatusCode::CREATED)
    );
    assert_eq!(first.body, again.body);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert!(first.headers.get("idempotency-replayed").is_none());
    assert_eq!(api.count("select count(*) from vpcs").await, 1);
    assert_eq!(api.count("select count(*) from audit_log").await, 1);
    // Another request with that key, or that request on another path, is a mistake of the client.
    let other =
        post(&api, &api.admin, "/vpcs", &json!({ "name": "w", "cidr_block": "10.0.0.0/16" }), "k1").await;
    assert_eq!(
        (other.problem(), other.field()),
        ((409, "IdempotentParameterMismatch"), Some("Idempotency-Key"))
    );
    let elsewhere = post(&api, &api.admin, "/instances", &body, "k1").await;
    assert_eq!(elsewhere.problem().1, "UnknownParameter", "a request that is wrong is told so first");
    let elsewhere = post(&api, &api.admin, "/addresses", &json!({}), "k1").await;
    assert_eq!(elsewhere.problem(), (409, "IdempotentParameterMismatch"));
    // Keys are an account's own.
    let stranger = api.user("other", "stranger", "member").await;
    let theirs = post(&api, &stranger, "/vpcs", &body, "k1").await.ok();
    assert_ne!(theirs["id"], first.body["id"]);
    for bad in ["", &"x".repeat(65), "a b", "a\tb", "ü"] {
        let answer = post(&api, &api.admin, "/vpcs", &body, bad).await;
        assert_eq!(
            (answer.problem(), answer.field()),
            ((400, "InvalidParameterValue"), Some("Idempotency-Key")),
            "{bad:?}"
        );
    }
    post(&api, &api.admin, "/vpcs", &body, &"x".repeat(64)).await.ok();
}

#[tokio::test]
async fn a_refused_request_uses_no_key() {
    let api = Api::new().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let path = format!("/vpcs/{}/subnets", id(&vpc));
    let body = json!({ "name": "s", "cidr_block": "10.0.1.0/24" });
    let first = post(&api, &api.admin, &path, &body, "a").await.ok();
    let other = post(&api, &api.admin, &path, &body, "b").await;
    assert_eq!(other.problem(), (409, "InvalidSubnet.Conflict"));
    assert_eq!(api.delete(&format!("/subnets/{}", id(&first))).await.status, 204);
    post(&api, &api.admin, &path, &body, "b").await.ok();
    // The first key still stands for the subnet that was.
    assert_eq!(post(&api, &api.admin, &path, &body, "a").await.ok(), first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_twins_have_one_effect() {
    let api = Arc::new(Api::furnished().await);
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let body = json!({ "name": "i", "image_id": api.image("gon-linux").await, "instance_type": "g1.nano", "subnet_id": id(&subnet) });
    for (path, body) in [
        ("/instances", body),
        ("/vpcs", json!({ "name": "twin", "cidr_block": "10.9.0.0/16" })),
        ("/key-pairs", json!({ "name": "twin" })),
    ] {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (api, body) = (Arc::clone(&api), body.clone());
            tasks.spawn(async move {
                post(&api, &api.admin.clone(), path, &body, &format!("twins{}", path.replace('/', "-"))).await
            });
        }
        let answers = tasks.join_all().await;
        let mut ids: Vec<_> = answers.into_iter().map(|a| id(&a.ok()).to_owned()).collect();
        ids.dedup();
        assert_eq!(ids.len(), 1, "{path}");
    }
    assert_eq!(api.count("select count(*) from instances").await, 1);
    assert_eq!(api.count("select count(*) from vpcs where name = 'twin'").await, 1);
    assert_eq!(
        api.count("select count(*) from audit_log where action in ('RunInstances', 'CreateKeyPair')").await,
        2
    );
}

#[tokio::test]
async fn a_repeated_answer_has_no_private_key() {
    let api = Api::new().await;
    let body = json!({ "name": "k" });
    let first = post(&api, &api.admin, "/key-pairs", &body, "k").await.ok();
    let again = post(&api, &api.admin, "/key-pairs", &body, "k").await.ok();
    assert!(first["private_key"].is_string() && again.get("private_key").is_none());
    assert_eq!(first["id"], again["id"]);
}
