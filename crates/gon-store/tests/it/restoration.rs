//! A database that was put back from a backup.

use gon_store::certificates::{NewCertificate, record, revoke_name, standing};
use gon_store::leader::take_over;
use gon_store::restoration::{self, Unrecorded, admit, forgotten};
use gon_store::{Store, commit};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

const ROLE: &str = "hypervisor-agent";

async fn recorded(store: &Store, serial: &str, name: &str) {
    let mut tx = store.begin().await.unwrap();
    let certificate = NewCertificate {
        serial,
        role: ROLE,
        name,
        hosts: &["192.0.2.1".to_owned()],
        authority_sha256: &"a".repeat(64),
        not_after: OffsetDateTime::now_utc() + Duration::days(30),
    };
    record(&mut tx, &certificate).await.unwrap();
    commit(tx).await.unwrap();
}

fn shown<'a>(serial: &'a str, name: &'a str, not_before: OffsetDateTime) -> Unrecorded<'a> {
    Unrecorded { serial, role: ROLE, name, not_before, not_after: not_before + Duration::days(30) }
}

#[tokio::test]
async fn a_restored_database_is_ahead_of_what_was_seen() {
    let database = gon_testkit::database().await;
    let store = &database.store;
    assert_eq!(take_over(store, "instance-manager", "a").await.unwrap(), 1);
    let done = restoration::record(store).await.unwrap();
    assert_eq!((done.roles, done.instances), (1, 0));
    assert!(take_over(store, "instance-manager", "b").await.unwrap() > 1_000_000);
    // Again is harmless, and further ahead.
    restoration::record(store).await.unwrap();
    assert!(take_over(store, "instance-manager", "c").await.unwrap() > 2_000_000);
}

#[tokio::test]
async fn what_is_missing_is_forgotten_only_after_a_restoration() {
    let database = gon_testkit::database().await;
    let mut conn = database.store.conn().await.unwrap();
    let lost = Uuid::now_v7();
    assert!(forgotten(&mut conn, &[lost]).await.unwrap().is_empty());
    restoration::record(&database.store).await.unwrap();
    assert_eq!(forgotten(&mut conn, &[lost]).await.unwrap(), [lost]);
    gon_store::admin::script(
        &database.store,
        "update restorations set restored_at = now() - interval '8 days'",
    )
    .await
    .unwrap();
    assert!(forgotten(&mut conn, &[lost]).await.unwrap().is_empty(), "for a week, not for ever");
}

#[tokio::test]
async fn certificates_of_the_forgotten_time_are_believed_and_no_others() {
    let database = gon_testkit::database().await;
    let store = &database.store;
    let (old, new, gone) = ("0".repeat(32), "1".repeat(32), "2".repeat(32));
    recorded(store, &old, "worker-1").await;
    recorded(store, &gone, "worker-2").await;
    let mut tx = store.begin().await.unwrap();
    revoke_name(&mut tx, "worker-2", "removed").await.unwrap();
    commit(tx).await.unwrap();
    let before = OffsetDateTime::now_utc() - Duration::hours(1);
    assert_eq!(admit(store, &shown(&new, "worker-1", before)).await.unwrap(), None, "nothing was restored");
    restoration::record(store).await.unwrap();
    let refused = [
        shown(&new, "worker-2", before),
        shown(&new, "worker-3", before),
        shown(&new, "worker-1", OffsetDateTime::now_utc() + Duration::hours(1)),
        Unrecorded { role: "operator", ..shown(&new, "worker-1", before) },
    ];
    for shown in &refused {
        assert_eq!(admit(store, shown).await.unwrap(), None, "{shown:?}");
    }
    let admitted = admit(store, &shown(&new, "worker-1", before)).await.unwrap().unwrap();
    assert_eq!((admitted.name.as_str(), admitted.revoked, admitted.hosts.len()), ("worker-1", false, 1));
    assert_eq!(standing(store, &new).await.unwrap(), Some(admitted));
}
