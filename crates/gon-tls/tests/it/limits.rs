//! What peers may take up.

use std::time::{Duration, Instant};

use gon_tls::{Limits, Role};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::site::{Site, ask, connect, serve};

/// Waits until the other end closes; the time it took.
async fn closed(stream: &mut TcpStream) -> Duration {
    let started = Instant::now();
    let mut nothing = [0; 64];
    loop {
        match tokio::time::timeout(Duration::from_secs(10), stream.read(&mut nothing)).await.unwrap() {
            Ok(0) | Err(_) => return started.elapsed(),
            Ok(_) => {}
        }
    }
}

#[tokio::test]
async fn a_slow_handshake_is_cut_and_delays_nobody() {
    let site = Site::new();
    let limits = Limits { handshake: Duration::from_millis(300), ..Limits::default() };
    let server = serve(&site.member(Role::NetworkController, "s1"), limits).await;
    let client = site.member(Role::NetworkAgent, "w1");
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    let started = Instant::now();
    ask(&client, server.address, Role::NetworkController).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(250), "{:?}", started.elapsed());
    for stream in &mut silent {
        assert!(closed(stream).await < Duration::from_secs(2));
    }
}

#[tokio::test]
async fn a_connection_without_a_request_is_cut() {
    let site = Site::new();
    let limits = Limits { header: Duration::from_millis(300), ..Limits::default() };
    let server = serve(&site.member(Role::NetworkController, "s1"), limits).await;
    let client = site.member(Role::NetworkAgent, "w1");
    let idle = connect(&client, server.address, Role::NetworkController).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(idle.is_closed());
}

#[tokio::test]
async fn an_address_has_its_share_and_gets_it_back() {
    let site = Site::new();
    let limits = Limits { connections_per_address: 3, ..Limits::default() };
    let server = serve(&site.member(Role::NetworkController, "s1"), limits).await;
    let client = site.member(Role::NetworkAgent, "w1");
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut connection = connect(&client, server.address, Role::NetworkController).await.unwrap();
        connection.get("/who").await.unwrap();
        held.push(connection);
    }
    ask(&client, server.address, Role::NetworkController).await.unwrap_err();
    drop(held.pop());
    tokio::time::sleep(Duration::from_millis(100)).await;
    ask(&client, server.address, Role::NetworkController).await.unwrap();
}

#[tokio::test]
async fn stopping_lets_an_answer_end() {
    let site = Site::new();
    let server = serve(&site.member(Role::NetworkController, "s1"), Limits::default()).await;
    let client = site.member(Role::NetworkAgent, "w1");
    let mut connection = connect(&client, server.address, Role::NetworkController).await.unwrap();
    let answer = tokio::spawn(async move { connection.get("/slow").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.cancel();
    answer.await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    ask(&client, server.address, Role::NetworkController).await.unwrap_err();
}
