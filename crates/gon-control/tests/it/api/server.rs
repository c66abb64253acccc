//! What only a real connection shows, and what is not about resources: WebSocket, time-outs, limits, the console.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::Method;
use futures_util::{SinkExt, StreamExt};
use gon_store::events::Watched;
use gon_tls::{Limits, serve};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Api;
use super::harness::id;

async fn listen(api: &Api, limits: Limits) -> (SocketAddr, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, None, api.router.clone(), limits, stop.clone()));
    (address, stop.drop_guard())
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(address: SocketAddr) -> Socket {
    tokio_tungstenite::connect_async(format!("ws://{address}/api/v1/ws")).await.unwrap().0
}

async fn next(socket: &mut Socket) -> Value {
    loop {
        let message =
            tokio::time::timeout(Duration::from_secs(5), socket.next()).await.expect("nothing came");
        match message.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Close(frame) => return json!({ "closed": frame.map(|f| u16::from(f.code)) }),
            _ => {}
        }
    }
}

async fn say(socket: &mut Socket, value: Value) {
    socket.send(Message::text(value.to_string())).await.unwrap();
}

#[tokio::test]
async fn changes_reach_those_who_watch_their_account() {
    let api = Api::furnished().await;
    let (address, _stop) = listen(&api, Limits::default()).await;
    let stranger = api.user("other", "stranger", "member").await;
    let mut socket = connect(address).await;
    say(&mut socket, json!({ "type": "auth", "token": api.admin.token })).await;
    assert_eq!(next(&mut socket).await, json!({ "type": "ready" }));
    let mut theirs = connect(address).await;
    say(&mut theirs, json!({ "type": "auth", "token": stranger.token })).await;
    assert_eq!(next(&mut theirs).await, json!({ "type": "ready" }));

    let vpc = api.vpc("10.0.0.0/16").await;
    let event = next(&mut socket).await;
    assert_eq!(
        (&event["type"], &event["resource"], &event["id"]),
        (&json!("event"), &json!("vpc"), &vpc["id"])
    );
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    assert_eq!(next(&mut socket).await["resource"], "subnet");
    let instance = api.launch(id(&subnet), json!({})).await.ok();
    let event = next(&mut socket).await;
    // What the answer alone says is which operation it began.
    let mut same = instance.clone();
    same.as_object_mut().unwrap().remove("operation_id").unwrap();
    assert_eq!((&event["resource"], &event["item"]), (&json!("instance"), &same));
    api.delete(&format!("/instances/{}", id(&instance))).await.ok();
    let event = next(&mut socket).await;
    assert_eq!(event["item"]["state"], "shutting-down");
    // Events of the first account never reached the second.
    api.as_user(&stranger, Method::POST, "/vpcs", Some(&json!({ "name": "t", "cidr_block": "10.0.0.0/16" })))
        .await
        .ok();
    let first = next(&mut theirs).await;
    assert_eq!(first["resource"], "vpc");
    assert_ne!(first["id"], vpc["id"]);
}

#[tokio::test]
async fn events_name_everything_as_people_do() {
    let api = Api::furnished().await;
    let (address, _stop) = listen(&api, Limits::default()).await;
    let mut socket = connect(address).await;
    say(&mut socket, json!({ "type": "auth", "token": api.admin.token })).await;
    assert_eq!(next(&mut socket).await["type"], "ready");
    let vpc = api.vpc("10.0.0.0/16").await;
    assert_eq!(next(&mut socket).await["id"], vpc["id"]);
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    assert_eq!(next(&mut socket).await["id"], subnet["id"]);
    let (in_vpc, in_subnet) =
        (json!({ "vpc_id": id(&vpc), "name": "x" }), json!({ "subnet_id": id(&subnet) }));
    for (resource, path, body) in [
        ("network_interface", "/network-interfaces", in_subnet),
        ("network_acl", "/network-acls", in_vpc.clone()),
        ("prefix_list", "/prefix-lists", json!({ "name": "x", "max_entries": 1 })),
        ("security_group", "/security-groups", in_vpc.clone()),
        ("route_table", "/route-tables", in_vpc),
        ("internet_gateway", "/internet-gateways", json!({})),
        ("address", "/addresses", json!({})),
        ("key_pair", "/key-pairs", json!({ "name": "x" })),
    ] {
        let made = api.post(path, body).await.ok();
        let event = next(&mut socket).await;
        assert_eq!((&event["resource"], &event["id"]), (&json!(resource), &made["id"]), "{path}");
    }
    // And whatever else has events.
    let author = gon_store::journal::Author {
        account: api.admin.account,
        user: api.admin.id,
        name: "admin".to_owned(),
        request_id: "req-0".to_owned(),
        source_ip: None,
    };
    for kind in Watched::ALL {
        let thing = uuid::Uuid::now_v7();
        let entry = gon_store::journal::Entry::new("Test", thing).event(*kind, thing, None, None);
        let mut tx = api.database.store.begin().await.unwrap();
        gon_store::journal::write(&mut tx, &author, &entry, None).await.unwrap();
        gon_store::commit(tx).await.unwrap();
        let event = next(&mut socket).await;
        let shown = event["id"].as_str().unwrap();
        assert_eq!((&event["resource"], shown), (&json!(kind.word()), kind.shown(thing).as_str()));
        let (prefix, rest) = shown.rsplit_once('-').unwrap();
        assert!(!prefix.contains('-') && thing.simple().to_string().ends_with(rest), "{shown}");
    }
}

#[tokio::test]
async fn events_of_slow_transactions_come_late_not_never() {
    let api = Api::furnished().await;
    let (address, _stop) = listen(&api, Limits::default()).await;
    let mut socket = connect(address).await;
    say(&mut socket, json!({ "type": "auth", "token": api.admin.token })).await;
    assert_eq!(next(&mut socket).await["type"], "ready");
    // It takes its number first and commits last.
    let author = gon_store::journal::Author {
        account: api.admin.account,
        user: api.admin.id,
        name: "admin".to_owned(),
        request_id: "req-0".to_owned(),
        source_ip: None,
    };
    let entry = gon_store::journal::Entry::new("Slow", uuid::Uuid::nil()).event(
        Watched::KeyPair,
        uuid::Uuid::nil(),
        None,
        None,
    );
    let mut slow = api.database.store.begin().await.unwrap();
    gon_store::journal::write(&mut slow, &author, &entry, None).await.unwrap();
    let vpc = api.vpc("10.0.0.0/16").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    gon_store::commit(slow).await.unwrap();
    let mut seen = [next(&mut socket).await, next(&mut socket).await];
    seen.sort_by_key(|e| e["resource"].to_string());
    assert_eq!(seen[0]["resource"], "key_pair");
    assert_eq!(seen[1]["id"], vpc["id"]);
}

#[tokio::test]
async fn a_socket_wants_a_token_and_our_own_page() {
    let api = Api::new().await;
    let (address, _stop) = listen(&api, Limits::default()).await;
    for first in [
        json!({ "type": "auth", "token": "x" }),
        json!({ "type": "hello" }),
        json!("auth"),
        json!({ "type": "auth", "token": api.admin.token, "x": 1 }),
    ] {
        let mut socket = connect(address).await;
        say(&mut socket, first.clone()).await;
        assert_eq!(next(&mut socket).await["code"], "AuthFailure", "{first}");
        assert_eq!(next(&mut socket).await["closed"], 4401);
    }
    for (origin, good) in [
        ("http://evil.example".to_owned(), false),
        (format!("http://{address}"), true),
        ("null".to_owned(), false),
    ] {
        let mut request = format!("ws://{address}/api/v1/ws").into_client_request().unwrap();
        request.headers_mut().insert("origin", origin.parse().unwrap());
        match tokio_tungstenite::connect_async(request).await {
            Ok(_) => assert!(good, "{origin}"),
            Err(Error::Http(response)) => assert!(!good && response.status() == 403, "{origin}"),
            Err(error) => panic!("{origin}: {error}"),
        }
    }
    // A plain request is told so.
    let answer = api.call(Some(&api.admin.token), Method::GET, "/api/v1/ws", None, &[]).await;
    assert_eq!(answer.problem().0, 400);
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let api = Api::new().await;
    let limits = Limits { header: Duration::from_millis(300), ..Limits::default() };
    let (address, _stop) = listen(&api, limits).await;
    // Half a head, nothing at all, and the beginning of HTTP/2.
    for sent in [&b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "[..], b"", b"PRI * HTTP/2.0\r\n"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "still open after {:?}", String::from_utf8_lossy(sent));
        assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    }
    // One that comes in time is answered.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.ends_with("ok\n"), "{text}");
}

#[tokio::test]
async fn an_address_has_so_many_connections() {
    let api = Api::new().await;
    let limits = Limits { connections_per_address: 3, ..Limits::default() };
    let (address, _stop) = listen(&api, limits).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut some = [0; 12];
        stream.read_exact(&mut some).await.unwrap();
        open.push(stream);
    }
    let mut fourth = TcpStream::connect(address).await.unwrap();
    fourth.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.ok();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), fourth.read_to_end(&mut rest))
        .await
        .expect("still open")
        .ok();
    assert!(rest.is_empty());
    open.clear();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut fifth = TcpStream::connect(address).await.unwrap();
    fifth.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    fifth.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn stopping_lets_what_is_in_work_end() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let instance = api.launch(id(&subnet), json!({})).await.ok();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, None, api.router.clone(), Limits::default(), stop.clone()));
    let mut client = gon_api::client::Client::new(&format!("http://{address}")).unwrap();
    client.set_token(Some(api.admin.token.clone()));
    let path = format!("/api/v1/instances/{}?wait=running&timeout=1", id(&instance));
    let (answer, ()) = tokio::join!(client.get(&path), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.cancel();
    });
    assert_eq!(answer.unwrap()["state"], "pending");
    tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let api = Api::new().await;
    assert_eq!(api.get("/nonsense").await.problem(), (404, "InvalidAction"));
    assert_eq!(api.get("").await.problem(), (404, "InvalidAction"));
    assert_eq!(
        api.as_user(&api.admin, Method::PATCH, "/vpcs", None).await.problem(),
        (405, "UnsupportedOperation")
    );
    assert_eq!(
        api.as_user(&api.admin, Method::DELETE, "/vpcs", None).await.problem(),
        (405, "UnsupportedOperation")
    );
    assert_eq!(api.get("/vpcs/%ff").await.problem().0, 400);
}

#[tokio::test]
async fn health_readiness_metrics_and_the_contract() {
    let api = Api::new().await;
    let open = async |path: &str| api.call(None, Method::GET, path, None, &[]).await;
    assert_eq!(open("/healthz").await.body, json!("ok\n"));
    assert_eq!(open("/readyz").await.status, 200);
    api.vpc("10.0.0.0/16").await;
    let metrics = open("/metrics").await;
    let text = metrics.body.as_str().unwrap();
    assert!(
        text.contains(r#"gon_http_requests_total{method="POST",route="/api/v1/vpcs",status="201"} 1"#),
        "{text}"
    );
    assert!(text.contains("gon_http_request_seconds_bucket") && text.contains("gon_database_connections"));
    assert!(text.ends_with("# EOF\n"));
    let document = open("/openapi.json").await.ok();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/api/v1/vpcs"]["post"].is_object());
    let answer = open("/healthz").await;
    for header in ["x-request-id", "x-content-type-options", "x-frame-options", "referrer-policy"] {
        assert!(answer.headers.contains_key(header), "{header}");
    }
    assert_eq!(api.get("/vpcs").await.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn every_other_path_is_the_consoles() {
    let api = Api::new().await;
    let page = api.call(None, Method::GET, "/", None, &[]).await;
    assert_eq!(page.status, 200);
    assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html"));
    assert!(page.headers["content-security-policy"].to_str().unwrap().contains("default-src 'self'"));
    let deep = api.call(None, Method::GET, "/instances/i-0123", None, &[]).await;
    assert_eq!((deep.status, &deep.body), (page.status, &page.body));
    let tag = page.headers["etag"].to_str().unwrap();
    let again = api.call(None, Method::GET, "/", None, &[("if-none-match", tag)]).await;
    assert_eq!((again.status.as_u16(), again.body), (304, Value::Null));
    let missing = api.call(None, Method::GET, "/assets/nothing.js", None, &[]).await;
    assert_eq!(missing.status, 404);
    assert_eq!(api.call(None, Method::POST, "/", None, &[]).await.status, 405);
    for escape in ["/../Cargo.toml", "/assets/../../Cargo.toml", "/%2e%2e/Cargo.toml", "/..%2fCargo.toml"] {
        let answer = api.call(None, Method::GET, escape, None, &[]).await;
        assert!(!answer.body.to_string().contains("[package]"), "{escape}");
    }
}

#[tokio::test]
async fn too_many_at_once_are_told_to_come_back() {
    let config = gon_control::api::ApiConfig { max_in_flight: 0, ..Default::default() };
    let api = Api::with(config).await;
    let answer = api.get("/vpcs").await;
    assert_eq!(answer.problem(), (503, "RequestLimitExceeded"));
    assert_eq!(answer.headers["retry-after"], "1");
}

#[tokio::test]
async fn one_account_does_not_take_every_place() {
    let config = gon_control::api::ApiConfig { max_in_flight: 8, ..Default::default() };
    let api = std::sync::Arc::new(Api::with(config).await);
    api.furnish("203.0.113.0/28").await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let instance = api.launch(id(&subnet), json!({})).await.ok();
    let path = format!("/instances/{}?wait=running&timeout=3", id(&instance));
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (api, path) = (std::sync::Arc::clone(&api), path.clone());
        waiting.spawn(async move { api.get(&path).await.status });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(api.get("/vpcs").await.problem(), (503, "RequestLimitExceeded"));
    let stranger = api.user("other", "stranger", "member").await;
    api.as_user(&stranger, Method::GET, "/vpcs", None).await.ok();
    assert!(waiting.join_all().await.iter().all(|status| *status == 200));
    api.get("/vpcs").await.ok();
}
