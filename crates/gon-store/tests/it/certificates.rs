//! Join tokens and certificates: once, in time, and for good.

use gon_store::certificates::{
    NewCertificate, is_name_held, lock_name, record, revoke_name, revoke_serial, revoked, standing,
    without_authority,
};
use gon_store::join_tokens::{NewToken, Redeemed, create, redeem};
use gon_store::{Store, StoreError, commit};
use time::{Duration, OffsetDateTime};

fn token(secret: u8) -> NewToken<'static> {
    NewToken {
        secret_sha256: [secret; 32],
        roles: &["hypervisor-agent", "network-agent"],
        server_name: None,
        created_by: "operator",
        lifetime: 60,
    }
}

async fn used(store: &Store, secret: u8, name: &str, request: u8) -> Option<Redeemed> {
    redeem(&mut store.conn().await.unwrap(), &[secret; 32], name, &[request; 32]).await.unwrap()
}

#[tokio::test]
async fn a_token_works_once_and_only_as_it_was_meant() {
    let database = gon_testkit::database().await;
    let store = &database.store;
    let mut conn = store.conn().await.unwrap();
    create(&mut conn, &token(1)).await.unwrap();
    create(&mut conn, &NewToken { server_name: Some("w9"), ..token(2) }).await.unwrap();
    let roles = vec!["hypervisor-agent".to_owned(), "network-agent".to_owned()];
    let first = Redeemed { roles: roles.clone(), for_this_name: false, is_repeated: false };
    let again = Redeemed { is_repeated: true, ..first.clone() };
    assert_eq!(used(store, 9, "w1", 1).await, None, "never made");
    assert_eq!(used(store, 1, "w1", 1).await, Some(first));
    assert_eq!(used(store, 1, "w1", 1).await, Some(again), "the answer to the same request was lost");
    assert_eq!(used(store, 1, "w1", 2).await, None, "other keys");
    assert_eq!(used(store, 1, "w2", 1).await, None, "another server");
    assert_eq!(used(store, 2, "w1", 1).await, None, "not its name");
    assert_eq!(
        used(store, 2, "w9", 1).await,
        Some(Redeemed { roles, for_this_name: true, is_repeated: false })
    );
}

#[tokio::test]
async fn of_many_who_use_a_token_at_once_one_does() {
    let database = gon_testkit::database().await;
    for round in 1..=20 {
        create(&mut database.store.conn().await.unwrap(), &token(round)).await.unwrap();
        let racers: Vec<_> = (0..6)
            .map(|racer| {
                let store = database.store.clone();
                tokio::spawn(async move {
                    // In transactions of their own, which overlap.
                    let mut tx = store.begin().await.unwrap();
                    let won = redeem(&mut tx, &[round; 32], "w1", &[racer; 32]).await.unwrap().is_some();
                    tokio::task::yield_now().await;
                    commit(tx).await.unwrap();
                    won
                })
            })
            .collect();
        let mut winners = 0;
        for racer in racers {
            winners += u32::from(racer.await.unwrap());
        }
        assert_eq!(winners, 1, "round {round}");
    }
}

#[tokio::test]
async fn who_gives_up_has_not_used_the_token() {
    let database = gon_testkit::database().await;
    create(&mut database.store.conn().await.unwrap(), &token(1)).await.unwrap();
    let mut tx = database.store.begin().await.unwrap();
    assert!(redeem(&mut tx, &[1; 32], "w1", &[1; 32]).await.unwrap().is_some());
    gon_store::rollback(tx).await.unwrap();
    assert!(used(&database.store, 1, "w2", 2).await.is_some());
}

#[tokio::test]
async fn an_expired_token_is_none() {
    let database = gon_testkit::database().await;
    gon_store::admin::script(
        &database.store,
        "insert into join_tokens (id, secret_sha256, roles, created_by, created_at, expires_at) values
           (gen_random_uuid(), decode(repeat('01', 32), 'hex'), '{operator}', 'x', now() - interval '2 hours',
            now() - interval '1 second')",
    )
    .await
    .unwrap();
    assert_eq!(used(&database.store, 1, "w1", 1).await, None);
}

fn certificate<'a>(serial: &'a str, role: &'a str, name: &'a str, authority: &'a str) -> NewCertificate<'a> {
    NewCertificate {
        serial,
        role,
        name,
        hosts: &[],
        authority_sha256: authority,
        not_after: OffsetDateTime::now_utc() + Duration::days(30),
    }
}

#[tokio::test]
async fn a_certificate_is_good_until_it_is_revoked_for_good() {
    let database = gon_testkit::database().await;
    let store = &database.store;
    let (one, two, three) = ("1".repeat(32), "2".repeat(32), "3".repeat(32));
    let (old, new) = ("a".repeat(64), "b".repeat(64));
    let mut tx = store.begin().await.unwrap();
    lock_name(&mut tx, "w1").await.unwrap();
    assert!(!is_name_held(&mut tx, "w1").await.unwrap());
    record(&mut tx, &certificate(&one, "network-agent", "w1", &old)).await.unwrap();
    record(&mut tx, &certificate(&two, "hypervisor-agent", "w1", &old)).await.unwrap();
    record(&mut tx, &certificate(&three, "network-agent", "w2", &old)).await.unwrap();
    assert!(is_name_held(&mut tx, "w1").await.unwrap());
    commit(tx).await.unwrap();
    let good = standing(store, &one).await.unwrap().unwrap();
    assert_eq!(
        (good.role.as_str(), good.name.as_str(), good.revoked, good.node),
        ("network-agent", "w1", false, None)
    );
    assert_eq!(standing(store, &"9".repeat(32)).await.unwrap(), None);

    let mut conn = store.conn().await.unwrap();
    assert_eq!(revoke_name(&mut conn, "w1", "removed").await.unwrap(), 2);
    assert_eq!(revoke_name(&mut conn, "w1", "again").await.unwrap(), 0);
    assert!(!is_name_held(&mut conn, "w1").await.unwrap());
    assert!(standing(store, &one).await.unwrap().unwrap().revoked);
    assert!(!standing(store, &three).await.unwrap().unwrap().revoked);
    assert!(revoke_serial(&mut conn, &three, "lost").await.unwrap());
    assert!(!revoke_serial(&mut conn, &three, "lost").await.unwrap());
    let listed: Vec<String> = revoked(store, &old).await.unwrap().into_iter().map(|r| r.0).collect();
    assert_eq!(listed, [one, two, three]);
    assert_eq!(revoked(store, &new).await.unwrap(), []);
}

#[tokio::test]
async fn removing_a_node_revokes_what_it_had() {
    let database = gon_testkit::database().await;
    let store = &database.store;
    gon_store::admin::script(
        store,
        "insert into nodes (id, name, availability_zone, capacity_vcpus, capacity_memory_mib, capacity_disk_gib,
           accelerator, ovs_datapath)
         values (gen_random_uuid(), 'w1', 'z-1a', 1, 1, 1, 'tcg', 'netdev'),
           (gen_random_uuid(), 'w2', 'z-1a', 1, 1, 1, 'tcg', 'netdev')",
    )
    .await
    .unwrap();
    let (one, two, again) = ("1".repeat(32), "2".repeat(32), "3".repeat(32));
    let authority = "a".repeat(64);
    let mut conn = store.conn().await.unwrap();
    record(&mut conn, &certificate(&one, "network-agent", "w1", &authority)).await.unwrap();
    record(&mut conn, &certificate(&two, "network-agent", "w2", &authority)).await.unwrap();
    let before = standing(store, &one).await.unwrap().unwrap();
    assert!(!before.revoked && before.node.is_some());
    gon_store::admin::script(store, "update nodes set removed_at = now() where name = 'w1'").await.unwrap();
    let after = standing(store, &one).await.unwrap().unwrap();
    assert!(after.revoked && after.node.is_none());
    assert!(!standing(store, &two).await.unwrap().unwrap().revoked);
    // The server may come back, with another certificate, as another node.
    record(&mut conn, &certificate(&again, "network-agent", "w1", &authority)).await.unwrap();
    let back = standing(store, &again).await.unwrap().unwrap();
    assert!(!back.revoked && back.node.is_none());
}

#[tokio::test]
async fn an_authority_is_not_retired_before_everybody_left_it() {
    let database = gon_testkit::database().await;
    let store = &database.store;
    let (old, new) = ("a".repeat(64), "b".repeat(64));
    let serials: Vec<String> = (1..=4).map(|n| n.to_string().repeat(32)).collect();
    let mut conn = store.conn().await.unwrap();
    for (serial, role, name, authority) in [
        (&serials[0], "network-agent", "w1", &old),
        (&serials[1], "network-agent", "w1", &new),
        (&serials[2], "hypervisor-agent", "w1", &old),
        (&serials[3], "network-agent", "w2", &old),
    ] {
        record(&mut conn, &certificate(serial, role, name, authority)).await.unwrap();
    }
    let pair = |name: &str, role: &str| (name.to_owned(), role.to_owned());
    assert_eq!(
        without_authority(store, &new).await.unwrap(),
        [pair("w1", "hypervisor-agent"), pair("w2", "network-agent")]
    );
    revoke_name(&mut conn, "w2", "removed").await.unwrap();
    revoke_serial(&mut conn, &serials[2], "replaced").await.unwrap();
    assert_eq!(without_authority(store, &new).await.unwrap(), []);
}

const TOKEN: &str = "insert into join_tokens (id, secret_sha256, roles, created_by, expires_at) values
    (gen_random_uuid(), decode(repeat('01', 32), 'hex'), '{operator}', 'x', now() + interval '1 hour')";
const CERTIFICATE: &str = "insert into certificates (serial, role, name, authority_sha256, not_after) values
    (repeat('1', 32), 'bus', 's1', repeat('a', 64), now() + interval '1 day')";

/// Name of the constraint, and a statement it must refuse once there is a used token and a revoked certificate.
pub const REFUSED: &[(&str, &str)] = &[
    ("join_tokens_secret_key", TOKEN),
    ("certificates_pkey", CERTIFICATE),
    ("join_tokens_once_check", "update join_tokens set used_at = null, used_by = null, request_sha256 = null"),
    ("join_tokens_once_check", "update join_tokens set used_by = 'w2'"),
    ("join_tokens_once_check", "update join_tokens set request_sha256 = decode(repeat('03', 32), 'hex')"),
    ("certificates_final_check", "update certificates set revoked_at = null, reason = null"),
    ("certificates_final_check", "update certificates set reason = 'another'"),
    ("certificates_signed_check", "update certificates set name = 's2'"),
    ("certificates_signed_check", "update certificates set role = 'operator'"),
    ("certificates_signed_check", "update certificates set not_after = not_after + interval '1 day'"),
    (
        "join_tokens_secret_check",
        "insert into join_tokens (id, secret_sha256, roles, created_by, expires_at) values
         (gen_random_uuid(), 'short', '{operator}', 'x', now() + interval '1 hour')",
    ),
    (
        "join_tokens_roles_check",
        "insert into join_tokens (id, secret_sha256, roles, created_by, expires_at) values
         (gen_random_uuid(), decode(repeat('04', 32), 'hex'), '{}', 'x', now() + interval '1 hour')",
    ),
    (
        "join_tokens_expires_check",
        "insert into join_tokens (id, secret_sha256, roles, created_by, expires_at) values
         (gen_random_uuid(), decode(repeat('04', 32), 'hex'), '{operator}', 'x', now() + interval '31 days')",
    ),
    (
        "join_tokens_expires_check",
        "insert into join_tokens (id, secret_sha256, roles, created_by, expires_at) values
         (gen_random_uuid(), decode(repeat('04', 32), 'hex'), '{operator}', 'x', now())",
    ),
    (
        "join_tokens_used_check",
        "insert into join_tokens (id, secret_sha256, roles, created_by, expires_at, used_at) values
         (gen_random_uuid(), decode(repeat('04', 32), 'hex'), '{operator}', 'x', now() + interval '1 hour', now())",
    ),
    (
        "join_tokens_used_in_time_check",
        "insert into join_tokens (id, secret_sha256, roles, created_by, created_at, expires_at, used_at, used_by,
           request_sha256) values
         (gen_random_uuid(), decode(repeat('04', 32), 'hex'), '{operator}', 'x', now() - interval '2 hours',
          now() - interval '1 hour', now(), 'w1', decode(repeat('02', 32), 'hex'))",
    ),
    (
        "join_tokens_used_by_name_check",
        "insert into join_tokens (id, secret_sha256, roles, created_by, expires_at, server_name, used_at, used_by,
           request_sha256) values
         (gen_random_uuid(), decode(repeat('04', 32), 'hex'), '{operator}', 'x', now() + interval '1 hour', 'w1',
          now(), 'w2', decode(repeat('02', 32), 'hex'))",
    ),
    (
        "join_tokens_server_name_check",
        "insert into join_tokens (id, secret_sha256, roles, created_by, expires_at, server_name) values
         (gen_random_uuid(), decode(repeat('04', 32), 'hex'), '{operator}', 'x', now() + interval '1 hour', 'W 1')",
    ),
    (
        "join_tokens_created_by_check",
        "insert into join_tokens (id, secret_sha256, roles, created_by, expires_at) values
         (gen_random_uuid(), decode(repeat('04', 32), 'hex'), '{operator}', '', now() + interval '1 hour')",
    ),
    (
        "join_tokens_used_by_check",
        "insert into join_tokens (id, secret_sha256, roles, created_by, expires_at, used_at, used_by, request_sha256)
         values (gen_random_uuid(), decode(repeat('04', 32), 'hex'), '{operator}', 'x', now() + interval '1 hour',
          now(), '-', decode(repeat('02', 32), 'hex'))",
    ),
    (
        "join_tokens_request_check",
        "insert into join_tokens (id, secret_sha256, roles, created_by, expires_at, used_at, used_by, request_sha256)
         values (gen_random_uuid(), decode(repeat('04', 32), 'hex'), '{operator}', 'x', now() + interval '1 hour',
          now(), 'w1', decode('02', 'hex'))",
    ),
    (
        "certificates_reason_check",
        "insert into certificates (serial, role, name, authority_sha256, not_after, revoked_at, reason) values
         (repeat('2', 32), 'bus', 's1', repeat('a', 64), now() + interval '1 day', now(), '')",
    ),
    (
        "certificates_role_check",
        "insert into certificates (serial, role, name, authority_sha256, not_after) values
         (repeat('2', 32), 'root', 's1', repeat('a', 64), now() + interval '1 day')",
    ),
    (
        "certificates_serial_check",
        "insert into certificates (serial, role, name, authority_sha256, not_after) values
         ('2', 'bus', 's1', repeat('a', 64), now() + interval '1 day')",
    ),
    (
        "certificates_name_check",
        "insert into certificates (serial, role, name, authority_sha256, not_after) values
         (repeat('2', 32), 'bus', 'S1', repeat('a', 64), now() + interval '1 day')",
    ),
    (
        "certificates_authority_check",
        "insert into certificates (serial, role, name, authority_sha256, not_after) values
         (repeat('2', 32), 'bus', 's1', 'a', now() + interval '1 day')",
    ),
    (
        "certificates_not_after_check",
        "insert into certificates (serial, role, name, authority_sha256, not_after) values
         (repeat('2', 32), 'bus', 's1', repeat('a', 64), now())",
    ),
    (
        "certificates_revoked_check",
        "insert into certificates (serial, role, name, authority_sha256, not_after, revoked_at) values
         (repeat('2', 32), 'bus', 's1', repeat('a', 64), now() + interval '1 day', now())",
    ),
];

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let database = gon_testkit::database().await;
    for good in [
        TOKEN,
        CERTIFICATE,
        "update join_tokens set used_at = now(), used_by = 'w1', request_sha256 = decode(repeat('02', 32), 'hex')",
        "update certificates set revoked_at = now(), reason = 'lost'",
    ] {
        gon_store::admin::script(&database.store, good).await.unwrap();
    }
    for (constraint, statement) in REFUSED {
        let refused: StoreError =
            gon_store::admin::script(&database.store, statement).await.expect_err(statement);
        assert_eq!(refused.constraint(), Some(*constraint), "{statement}");
    }
}

#[tokio::test]
async fn roles_are_the_same_in_words_and_in_the_schema() {
    let database = gon_testkit::database().await;
    let mut conn = database.store.conn().await.unwrap();
    for (n, role) in gon_types::Role::ALL.iter().enumerate() {
        let serial = format!("{n:032x}");
        record(&mut conn, &certificate(&serial, role.as_str(), "s1", &"a".repeat(64))).await.unwrap();
    }
}
