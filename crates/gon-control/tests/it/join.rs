//! Joining, renewing and leaving: both ends, over real TLS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gon_agent::join::{JoinError, join};
use gon_agent::link::LinkError;
use gon_agent::renew;
use gon_control::join::{Admission, TokenTerms, create_token, retire_old_authority, revoke};
use gon_proto::{JoinRequest, NodeNetwork, paths};
use gon_testkit::proxy::{Direction, Faults, Proxy};
use gon_tls::{JoinToken, Role, SigningRequest, Tls, TlsDir, connect_pinned};
use gon_types::DocumentVersion;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::site::{Site, n1};
use crate::wire::{Wire, site_answer};

const WORKER: TokenTerms<'static> = TokenTerms {
    roles: Role::WORKER,
    name: None,
    lifetime: Duration::from_secs(3600),
    created_by: "operator",
};

async fn token(wire: &Wire, terms: &TokenTerms<'_>) -> JoinToken {
    let server = wire.compute.to_string();
    let token = create_token(&wire.site.database.store, &wire.first(), &server, terms).await.unwrap();
    // As it is copied by hand.
    token.to_text().parse().unwrap()
}

fn status(error: &JoinError) -> u16 {
    match error {
        JoinError::Refused(LinkError::Refused { status, .. }) => *status,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_worker_joins_with_a_token_and_works() {
    let site = Site::new().await;
    site.network.refresh(n1()).await.unwrap();
    let wire = Wire::over(site).await;
    let dir = wire.dir("worker");
    let joined = join(&token(&wire, &WORKER).await, "n1", Role::WORKER, &dir).await.unwrap();
    assert_eq!((joined.name.as_str(), joined.site), ("n1", site_answer()));
    for role in Role::WORKER {
        let tls = Tls::open(&dir, *role).unwrap();
        assert_eq!(tls.current().facts().identity.name(), "n1");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(dir.key(*role)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(!dir.ca_key().exists());
    let link = wire.network_link(&Tls::open(&dir, Role::NetworkAgent).unwrap());
    let document: Option<NodeNetwork> =
        link.get_document(paths::NETWORK_DOCUMENT, DocumentVersion::default()).await.unwrap();
    assert_eq!(document.unwrap().node, n1());
    // Nothing that is a secret is kept of the token.
    let kept = wire.site.row("select to_jsonb(t) from join_tokens t").await;
    assert_eq!(kept["used_by"], "n1");
    let hosts = wire.site.rows("select to_jsonb(hosts) from certificates where name = 'n1'").await;
    assert_eq!(hosts, vec![serde_json::json!(["n1", "127.0.0.1"]); 4]);
}

#[tokio::test]
async fn a_token_that_is_not_good_lets_nobody_in() {
    let wire = Wire::over(Site::empty().await).await;
    let dir = wire.dir("worker");
    let good = token(&wire, &WORKER).await;
    join(&good, "w1", Role::WORKER, &dir).await.unwrap();
    let before = dir.load(Role::NetworkAgent).unwrap();
    let used = join(&good, "w1", Role::WORKER, &dir).await.unwrap_err();
    assert_eq!(status(&used), 403, "used");
    assert_eq!(status(&join(&good, "w2", Role::WORKER, &wire.dir("w2")).await.unwrap_err()), 403, "used");
    let guessed = JoinToken { secret: gon_tls::random_secret().unwrap(), ..good.clone() };
    assert_eq!(status(&join(&guessed, "w2", Role::WORKER, &wire.dir("w2")).await.unwrap_err()), 403);
    let expired = token(&wire, &TokenTerms { lifetime: Duration::from_secs(1), ..WORKER }).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(status(&join(&expired, "w2", Role::WORKER, &wire.dir("w2")).await.unwrap_err()), 403);
    // Not for these roles; it is not used up by that.
    let fresh = token(&wire, &WORKER).await;
    for roles in [&[Role::InstanceManager][..], &[Role::NetworkAgent, Role::Operator]] {
        assert_eq!(status(&join(&fresh, "w2", roles, &wire.dir("w2")).await.unwrap_err()), 403);
    }
    // Names that somebody has, as a server's or as one of its hosts, or that are nobody's.
    for taken in ["w1", "s1"] {
        assert_eq!(status(&join(&fresh, taken, Role::WORKER, &wire.dir("w2")).await.unwrap_err()), 409);
    }
    assert_eq!(status(&join(&fresh, "localhost", Role::WORKER, &wire.dir("w2")).await.unwrap_err()), 400);
    assert!(matches!(
        join(&fresh, "W 2", Role::WORKER, &wire.dir("w2")).await.unwrap_err(),
        JoinError::Tls(_)
    ));
    assert!(!wire.dir("w2").path().exists(), "nothing was written");
    join(&fresh, "w2", Role::WORKER, &wire.dir("w2")).await.unwrap();
    assert_eq!(dir.load(Role::NetworkAgent).unwrap(), before);
}

#[tokio::test]
async fn of_two_who_use_a_token_at_once_one_joins() {
    let wire = Wire::over(Site::empty().await).await;
    for round in 0..5 {
        let token = token(&wire, &WORKER).await;
        let (one, two) = (format!("a{round}"), format!("b{round}"));
        let (dir_one, dir_two) = (wire.dir(&one), wire.dir(&two));
        let (one, two) = tokio::join!(
            join(&token, &one, Role::WORKER, &dir_one),
            join(&token, &two, Role::WORKER, &dir_two)
        );
        assert_eq!([&one, &two].iter().filter(|r| r.is_ok()).count(), 1, "{one:?} {two:?}");
        let lost = one.err().or(two.err()).unwrap();
        assert_eq!(status(&lost), 403);
    }
}

#[tokio::test]
async fn a_token_for_a_name_replaces_that_server() {
    let wire = Wire::over(Site::empty().await).await;
    join(&token(&wire, &WORKER).await, "w1", Role::WORKER, &wire.dir("old")).await.unwrap();
    let again = token(&wire, &TokenTerms { name: Some("w1"), ..WORKER }).await;
    assert_eq!(status(&join(&again, "w2", Role::WORKER, &wire.dir("w2")).await.unwrap_err()), 403);
    join(&again, "w1", Role::WORKER, &wire.dir("new")).await.unwrap();
    let renewed = |dir: TlsDir| {
        let link = wire.compute_link(&Tls::open(&dir, Role::NetworkAgent).unwrap());
        async move { link.get::<gon_proto::AuthoritiesAnswer>(paths::AUTHORITIES).await }
    };
    assert!(renewed(wire.dir("old")).await.is_err(), "the disk that was thrown away is worth nothing");
    renewed(wire.dir("new")).await.unwrap();
}

/// Posts to the path without a certificate; the answer's head and body.
async fn post(wire: &Wire, path: &str, body: &str) -> String {
    let pin = wire.first().authority().unwrap().sha256();
    let stream = TcpStream::connect(wire.compute).await.unwrap();
    let mut stream = connect_pinned(stream, &pin, Role::InstanceManager, "127.0.0.1").await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let _ = stream.write_all(body.as_bytes()).await;
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again() {
    let wire = Wire::over(Site::empty().await).await;
    let token = token(&wire, &WORKER).await;
    let request = |requests| JoinRequest {
        format: gon_proto::FORMAT,
        secret: token.secret.clone(),
        name: "w1".to_owned(),
        requests,
    };
    let keys = BTreeMap::from([(Role::NetworkAgent, SigningRequest::new().unwrap().request_pem)]);
    let body = serde_json::to_string(&request(keys)).unwrap();
    for _ in 0..3 {
        assert!(post(&wire, paths::JOIN, &body).await.starts_with("HTTP/1.1 200"));
    }
    let other = BTreeMap::from([(Role::NetworkAgent, SigningRequest::new().unwrap().request_pem)]);
    let body = serde_json::to_string(&request(other)).unwrap();
    assert!(post(&wire, paths::JOIN, &body).await.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn a_join_that_was_given_up_goes_on_with_the_same_token() {
    let wire = Wire::over(Site::empty().await).await;
    let proxy = Proxy::start(wire.compute, None, 1).await.unwrap();
    let mut token = token(&wire, &WORKER).await;
    token.server = proxy.address().to_string();
    let dir = wire.dir("w1");
    // Enough for a handshake, too little for four certificates: the site lets us in and we never hear of it.
    proxy.set(Direction::ToClient, Faults { truncate_after: Some(3000), ..Faults::default() });
    let given_up = tokio::time::timeout(Duration::from_secs(5), join(&token, "w1", Role::WORKER, &dir)).await;
    assert!(given_up.is_err(), "{given_up:?}");
    let used = wire.site.row("select to_jsonb(t) from join_tokens t").await;
    assert_eq!(used["used_by"], "w1", "the site let it in");
    assert!(!dir.certificate(Role::NetworkAgent).exists());
    proxy.heal();
    // Another disk has other keys, and with them the token is spent.
    let thief = join(&token, "w1", Role::WORKER, &wire.dir("thief")).await.unwrap_err();
    assert_eq!(status(&thief), 403);
    join(&token, "w1", Role::WORKER, &dir).await.unwrap();
    Tls::open(&dir, Role::NetworkAgent).unwrap();
    assert!(Role::WORKER.iter().all(|role| !dir.joining(*role).exists()), "keys wait no longer");
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_uses_nothing_up() {
    let wire = Wire::over(Site::empty().await).await;
    let token = token(&wire, &WORKER).await;
    let with = |format: u32, requests: serde_json::Value| {
        serde_json::json!({"format": format, "secret": token.secret, "name": "w1", "requests": requests})
            .to_string()
    };
    let pem = SigningRequest::new().unwrap().request_pem;
    let mut answers = Vec::new();
    for (body, expected) in [
        ("{}".to_owned(), 422),
        ("not json".to_owned(), 400),
        (with(99, serde_json::json!({"network-agent": pem})), 400),
        (with(1, serde_json::json!({})), 400),
        (with(1, serde_json::json!({"network-agent": "nonsense"})), 400),
        (with(1, serde_json::json!({"root": pem})), 422),
        (with(1, serde_json::json!({"network-agent": "x".repeat(70_000)})), 413),
    ] {
        let answer = post(&wire, paths::JOIN, &body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{body:.60}: {answer}");
        answers.push(answer);
    }
    assert!(answers.iter().all(|answer| !answer.contains(&token.secret)));
    join(&token, "w1", Role::WORKER, &wire.dir("w1")).await.unwrap();
}

#[tokio::test]
async fn who_asks_too_often_waits() {
    let wire = Wire::over(Site::empty().await).await;
    let mut refused = 0;
    for _ in 0..30 {
        let answer =
            post(&wire, paths::JOIN, r#"{"format":1,"secret":"x","name":"w1","requests":{"bus":""}}"#).await;
        if answer.starts_with("HTTP/1.1 429") {
            assert!(answer.to_lowercase().contains("retry-after: 1"), "{answer}");
            refused += 1;
        }
    }
    assert!(refused >= 5, "{refused}");
}

#[tokio::test]
async fn a_server_without_the_key_sends_on() {
    let wire = Wire::over(Site::empty().await).await;
    let token = token(&wire, &WORKER).await;
    let elsewhere = wire.dir("s2");
    elsewhere.make().unwrap();
    let admission = Admission::new(wire.site.database.store.clone(), elsewhere, site_answer());
    let address = wire.listen(Role::InstanceManager, Arc::new(admission).router()).await;
    let member = wire.member(Role::NetworkAgent, "w1").await;
    let alone = crate::wire::link(&member, Role::InstanceManager, &[address]);
    let answer = alone.get::<gon_proto::AuthoritiesAnswer>(paths::AUTHORITIES).await;
    assert_eq!(crate::wire::refused(answer), 503);
    let both = crate::wire::link(&member, Role::InstanceManager, &[address, wire.compute]);
    both.get::<gon_proto::AuthoritiesAnswer>(paths::AUTHORITIES).await.unwrap();
    drop(token);
}

#[tokio::test]
async fn the_server_of_a_token_is_the_one_with_its_authority() {
    let (wire, other) = tokio::join!(async { Wire::over(Site::empty().await).await }, async {
        Wire::over(Site::empty().await).await
    });
    let mut lured = token(&wire, &WORKER).await;
    lured.server = other.compute.to_string();
    let dir = wire.dir("w1");
    let refused = tokio::time::timeout(Duration::from_secs(3), join(&lured, "w1", Role::WORKER, &dir));
    // It goes on asking for a while, and never tells its secret.
    assert!(refused.await.is_err() || !dir.path().exists());
    assert!(other.site.rows("select to_jsonb(1) from certificates where name = 'w1'").await.is_empty());
}

#[tokio::test]
async fn certificates_are_renewed_in_time_and_the_authority_is_replaced() {
    // Issued from five minutes ago: two thirds of their life are over at once.
    let wire = Wire::with(Site::empty().await, Some(Duration::from_secs(60))).await;
    let dir = wire.dir("w1");
    join(&token(&wire, &WORKER).await, "w1", Role::WORKER, &dir).await.unwrap();
    let tls = Tls::open(&dir, Role::NetworkAgent).unwrap();
    let link = wire.compute_link(&tls);
    let serial = || tls.current().facts().serial.clone();
    let (first, key) = (serial(), std::fs::read(dir.key(Role::NetworkAgent)).unwrap());
    renew::once(&tls, &link).await.unwrap();
    let second = serial();
    assert_ne!(second, first);
    assert_ne!(std::fs::read(dir.key(Role::NetworkAgent)).unwrap(), key, "another key");
    assert_eq!(Tls::open(&dir, Role::NetworkAgent).unwrap().current().facts().serial, second);

    // A certificate that is young is left alone, until another authority signs.
    let store = &wire.site.database.store;
    let young = wire.member(Role::HypervisorAgent, "w1").await;
    let young_link = wire.compute_link(&young);
    let before = young.current().facts().serial.clone();
    renew::once(&young, &young_link).await.unwrap();
    assert_eq!(young.current().facts().serial, before);
    let next = wire.first().prepare_next_authority().unwrap();
    renew::once(&young, &young_link).await.unwrap();
    assert_eq!(young.current().facts().serial, before);
    assert_eq!(young.current().authorities().len(), 2);
    wire.first().promote_next_authority().unwrap();
    let left = gon_store::certificates::without_authority(store, &next).await.unwrap();
    assert!(left.contains(&("w1".to_owned(), "hypervisor-agent".to_owned())), "{left:?}");
    renew::once(&young, &young_link).await.unwrap();
    assert_ne!(young.current().facts().serial, before);
    assert_eq!(young.current().authorities().first(), Some(&next));
    assert!(young.current().is_of_signing_authority());
    let left = gon_store::certificates::without_authority(store, &next).await.unwrap();
    assert!(!left.contains(&("w1".to_owned(), "hypervisor-agent".to_owned())), "{left:?}");

    // The old authority is kept as long as somebody would be shut out.
    let refused = retire_old_authority(store, &wire.first()).await.unwrap_err();
    assert!(refused.to_string().contains("w1 (container-agent)"), "{refused}");
    revoke(store, "s1", "test").await.unwrap();

    // Who was revoked gets no other, and is in nobody's way.
    revoke(store, "w1", "lost").await.unwrap();
    retire_old_authority(store, &wire.first()).await.unwrap();
    renew::once(&tls, &link).await.unwrap_err();
    renew::once(&young, &young_link).await.unwrap_err();
}

#[tokio::test]
async fn the_task_renews_by_itself() {
    let wire = Wire::with(Site::empty().await, Some(Duration::from_secs(60))).await;
    let dir = wire.dir("w1");
    join(&token(&wire, &WORKER).await, "w1", Role::WORKER, &dir).await.unwrap();
    let tls = Tls::open(&dir, Role::StorageAgent).unwrap();
    let transport = gon_agent::tls::TlsTransport::fixed(
        tls.clone(),
        Role::InstanceManager,
        vec!["127.0.0.1:1".to_owned(), wire.compute.to_string()],
    );
    let stop = CancellationToken::new();
    let mut told = tls.subscribe();
    let look = Duration::from_millis(200);
    let task = tokio::spawn(renew::run(tls, Arc::new(transport), look, stop.clone()));
    for _ in 0..3 {
        tokio::time::timeout(Duration::from_secs(5), told.changed()).await.unwrap().unwrap();
    }
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn the_list_of_revoked_certificates_is_kept() {
    let wire = Wire::over(Site::empty().await).await;
    let member = wire.member(Role::HypervisorAgent, "w1").await;
    let serial = member.current().facts().serial.clone();
    revoke(&wire.site.database.store, "w1", "lost").await.unwrap();
    let admission = Admission::new(wire.site.database.store.clone(), wire.first(), site_answer());
    let stop = CancellationToken::new();
    let task = tokio::spawn({
        let stop = stop.clone();
        async move { admission.run(stop).await }
    });
    let list = wire.first().revocations();
    for _ in 0..100 {
        if list.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let text = std::fs::read_to_string(&list).unwrap();
    assert!(text.starts_with("-----BEGIN X509 CRL-----"));
    let der: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    use base64::Engine as _;
    let der = base64::engine::general_purpose::STANDARD.decode(der).unwrap();
    let serial: Vec<u8> =
        (0..16).map(|at| u8::from_str_radix(&serial[at * 2..at * 2 + 2], 16).unwrap()).collect();
    assert!(der.windows(16).any(|window| window == serial));
    stop.cancel();
    task.await.unwrap();
}
