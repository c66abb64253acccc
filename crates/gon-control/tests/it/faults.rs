//! What becomes of requests while PostgreSQL is killed, cut off, silent or busy (rows C1, C4, C5, C6): nothing that was
//! acknowledged is lost, nothing is done twice, and nobody waits for long.

mod busy;
mod crash;
mod cuts;
mod standby;

use std::time::Duration;

use axum::http::Method;
use gon_control::api::ApiConfig;
use gon_testkit::PostgresServer;
use serde_json::json;
use tokio::time::Instant;

use crate::api::{Answer, Api};

/// An API whose requests alone use the database, over `port`, with an administrator.
async fn api(server: &PostgresServer, port: u16) -> Api {
    let mut api = Api::bare(server.database(port, 8).await.unwrap(), ApiConfig::default());
    api.admin = api.user("default", "admin", "admin").await;
    api
}

/// Asks for a VPC of this name, with an idempotency key if there is one.
async fn create(api: &Api, name: &str, key: Option<&str>) -> Answer {
    let body = json!({ "name": name, "cidr_block": "10.0.0.0/16" });
    let headers: Vec<_> = key.iter().map(|key| ("idempotency-key", *key)).collect();
    api.call(Some(&api.admin.token), Method::POST, "/api/v1/vpcs", Some(&body), &headers).await
}

/// The same until it is done; 503 is the only other answer there may be.
async fn insist(api: &Api, name: &str, key: &str, limit: Duration) -> Answer {
    let begin = Instant::now();
    loop {
        let answer = create(api, name, Some(key)).await;
        if answer.status == 201 {
            return answer;
        }
        assert_eq!(answer.problem().0, 503, "{name}");
        assert!(answer.headers.contains_key("retry-after"));
        assert!(begin.elapsed() < limit, "{name}: {}", answer.body);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
