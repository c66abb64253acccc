//! Certificates, then the authority, are replaced under load: not one request fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gon_tls::{LIFETIME, Limits, Role, SigningRequest, Tls, TlsDir};
use tokio::time::MissedTickBehavior;

use crate::site::{Site, ask, connect, identity, serve};

const SERVER: Role = Role::NetworkController;
const CLIENT: Role = Role::NetworkAgent;

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    done: AtomicU64,
    failed: AtomicU64,
}

/// A request every 20 ms, each on a connection of its own: what a client does that just started.
async fn fresh(load: Arc<Load>, tls: Tls, address: std::net::SocketAddr) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while !load.stop.load(Ordering::Relaxed) {
        tick.tick().await;
        count(&load, ask(&tls, address, SERVER).await.map(drop));
    }
}

/// A request every 20 ms on a connection that is kept; a closed one is replaced, as every HTTP client does.
async fn kept(load: Arc<Load>, tls: Tls, address: std::net::SocketAddr) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut connection = connect(&tls, address, SERVER).await.unwrap();
    while !load.stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let mut answer = connection.get("/who").await;
        if answer.is_err() {
            answer = match connect(&tls, address, SERVER).await {
                Ok(mut next) => {
                    let answer = next.get("/who").await;
                    connection = next;
                    answer
                }
                Err(error) => Err(error),
            };
        }
        count(&load, answer.map(drop));
    }
}

fn count(load: &Load, result: std::io::Result<()>) {
    match result {
        Ok(()) => load.done.fetch_add(1, Ordering::Relaxed),
        Err(error) => {
            eprintln!("a request failed: {error}");
            load.failed.fetch_add(1, Ordering::Relaxed)
        }
    };
}

/// A new certificate of whoever signs now.
fn renew(first: &TlsDir, tls: &Tls, name: &str) {
    let request = SigningRequest::new().unwrap();
    let authority = first.authority().unwrap();
    let issued = authority.sign(&request.request_pem, &identity(tls.role(), name), &[], LIFETIME).unwrap();
    tls.dir().install(tls.role(), &request.key_pem, &issued.pem).unwrap();
    tls.reload().unwrap();
}

fn learn(first: &TlsDir, tls: &Tls) {
    tls.dir().trust(&first.read(&first.ca_certificates()).unwrap()).unwrap();
    tls.reload().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_one_request_fails_while_certificates_and_authority_are_replaced() {
    let site = Site::new();
    let first = site.first();
    let (server, client) = (site.member(SERVER, "s1"), site.member(CLIENT, "w1"));
    let old_member = site.member(CLIENT, "w9");
    let served = serve(&server, Limits::default()).await;
    let load = Arc::new(Load::default());
    let tasks = [
        tokio::spawn(fresh(Arc::clone(&load), client.clone(), served.address)),
        tokio::spawn(kept(Arc::clone(&load), client.clone(), served.address)),
    ];
    let pause = || tokio::time::sleep(Duration::from_millis(150));
    for _ in 0..5 {
        pause().await;
        renew(&first, &server, "s1");
        pause().await;
        renew(&first, &client, "w1");
    }
    // Everybody learns to believe both; one after the other, as agents do.
    let old = site.authority.sha256();
    let new = first.prepare_next_authority().unwrap();
    for member in [&server, &client] {
        pause().await;
        learn(&first, member);
        assert!(member.current().is_of_signing_authority());
    }
    first.promote_next_authority().unwrap();
    // In every order: a member with a certificate of the new one, another with one of the old one.
    for (member, name) in [(&client, "w1"), (&server, "s1")] {
        pause().await;
        learn(&first, member);
        assert!(!member.current().is_of_signing_authority());
        pause().await;
        renew(&first, member, name);
        assert!(member.current().is_of_signing_authority());
    }
    pause().await;
    ask(&old_member, served.address, SERVER).await.expect_err("it has not learned of the new authority");
    learn(&first, &old_member);
    ask(&old_member, served.address, SERVER).await.expect("it is still believed");
    first.retire_old_authority().unwrap();
    for member in [&server, &client] {
        pause().await;
        learn(&first, member);
        assert_eq!(member.current().authorities(), std::slice::from_ref(&new));
    }
    ask(&old_member, served.address, SERVER).await.expect_err("its certificate is of the old authority");
    assert_ne!(old, new);
    pause().await;
    load.stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let (done, failed) = (load.done.load(Ordering::Relaxed), load.failed.load(Ordering::Relaxed));
    println!("{done} requests, {failed} failed");
    assert_eq!(failed, 0);
    assert!(done > 200, "{done} requests are no load");
}
