//! Handshakes of a crowd: who is served when, and whom nobody can keep from it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gon_tls::{Limits, Role, Tls};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::site::{Client, Site, ask, serve};

const SERVER: Role = Role::NetworkController;
const ONE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const THREE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

async fn dial(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

async fn ask_from(from: Ipv4Addr, client: &Tls, to: SocketAddr) -> std::io::Result<String> {
    let stream = client.connect(dial(from, to).await, SERVER, "127.0.0.1").await?;
    Client::over(stream).await?.get("/who").await
}

/// Begins so many handshakes and says nothing more.
async fn stall(count: usize, from: Ipv4Addr, client: &Tls, to: SocketAddr) -> Vec<TcpStream> {
    let mut stalled = Vec::new();
    for _ in 0..count {
        let config = Arc::new(client.current().client(SERVER).unwrap());
        let mut hello = Vec::new();
        let mut tls = rustls::ClientConnection::new(config, "127.0.0.1".try_into().unwrap()).unwrap();
        while tls.wants_write() {
            tls.write_tls(&mut hello).unwrap();
        }
        let mut stream = dial(from, to).await;
        stream.write_all(&hello).await.unwrap();
        stalled.push(stream);
    }
    stalled
}

/// Whether the server has taken up the handshake.
async fn is_answered(stream: &TcpStream) -> bool {
    let peeked = tokio::time::timeout(Duration::from_millis(5), stream.peek(&mut [0])).await;
    matches!(peeked, Ok(Ok(1..)))
}

async fn answered(streams: &[TcpStream]) -> usize {
    let mut count = 0;
    for stream in streams {
        count += usize::from(is_answered(stream).await);
    }
    count
}

/// Waits until so many are taken up, and that it stays at that.
async fn comes_to(streams: &[TcpStream], count: usize) {
    let begin = Instant::now();
    while answered(streams).await < count {
        assert!(begin.elapsed() < Duration::from_secs(10), "{} of {count}", answered(streams).await);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(answered(streams).await, count);
}

#[tokio::test]
async fn handshakes_take_turns_and_one_address_takes_half_of_them() {
    let site = Site::new();
    // So patient that nobody loses a turn meanwhile.
    let limits = Limits { handshakes: 4, handshake: Duration::from_secs(600), ..Limits::default() };
    let server = serve(&site.member(SERVER, "s1"), limits).await;
    let client = site.member(Role::NetworkAgent, "w1");
    let many = stall(12, ONE, &client, server.address).await;
    comes_to(&many, 2).await;
    ask_from(TWO, &client, server.address).await.unwrap();
    // Whoever goes makes room for the next.
    let (mut at_work, mut waiting) = (Vec::new(), Vec::new());
    for stream in many {
        if is_answered(&stream).await { at_work.push(stream) } else { waiting.push(stream) }
    }
    assert_eq!((at_work.len(), waiting.len()), (2, 10));
    drop(at_work);
    comes_to(&waiting, 2).await;
    // All turns are taken.
    let others = stall(3, TWO, &client, server.address).await;
    comes_to(&others, 2).await;
    let late = tokio::spawn({
        let (client, address) = (client.clone(), server.address);
        async move { ask_from(THREE, &client, address).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!late.is_finished());
    drop(others);
    late.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_stalls_gives_up_the_turn_and_who_waits_is_not_late() {
    let site = Site::new();
    let limits = Limits { handshakes: 1, handshake: Duration::from_secs(1), ..Limits::default() };
    let server = serve(&site.member(SERVER, "s1"), limits).await;
    let client = site.member(Role::NetworkAgent, "w1");
    let stalled = stall(15, ONE, &client, server.address).await;
    let begin = Instant::now();
    ask_from(ONE, &client, server.address).await.unwrap();
    let took = begin.elapsed();
    assert!(took > limits.handshake, "the turns of fifteen before it: {took:?}");
    assert!(took < 8 * limits.handshake, "each of them a tenth of its time: {took:?}");
    drop(stalled);
}

/// With some that say nothing and some that stall among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_at_once_are_all_served() {
    let site = Site::new();
    let limits = Limits { connections_per_address: 1000, ..Limits::default() };
    let server = serve(&site.member(SERVER, "s1"), limits).await;
    let client = site.member(Role::NetworkAgent, "w1");
    let mut silent = stall(4, ONE, &client, server.address).await;
    for _ in 0..20 {
        silent.push(dial(ONE, server.address).await);
    }
    let mut crowd = JoinSet::new();
    for _ in 0..200 {
        let (client, address) = (client.clone(), server.address);
        crowd.spawn(async move { ask(&client, address, SERVER).await });
    }
    for said in crowd.join_all().await {
        assert!(said.unwrap().starts_with("gon://network-agent/w1 "));
    }
    drop(silent);
}
