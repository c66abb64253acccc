//! The files of a server: whole, private, together.

use gon_tls::{Authority, LIFETIME, Revoked, Role, RollError, SigningRequest, Tls, TlsDir, TlsError};
use time::OffsetDateTime;
use x509_parser::prelude::FromDer as _;

use crate::site::{Site, identity, mode};

#[test]
fn keys_are_private_and_nothing_is_left_beside() {
    let site = Site::new();
    let first = site.first();
    site.issue(&first, Role::Bus, "s1");
    assert_eq!(mode(&first.ca_key()), 0o600);
    assert_eq!(mode(&first.key(Role::Bus)), 0o600);
    assert_eq!(mode(&first.certificate(Role::Bus)), 0o644);
    assert_eq!(mode(&first.ca_certificates()), 0o644);
    let mut names: Vec<String> = std::fs::read_dir(first.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["bus.crt", "bus.key", "ca.crt", "ca.key"]);
    // Again is the same authority.
    assert_eq!(first.authority_or_create().unwrap().sha256(), site.authority.sha256());
}

#[test]
fn killed_between_key_and_certificate_both_are_found_together() {
    let site = Site::new();
    let dir = site.dir("w1");
    site.issue(&dir, Role::NetworkAgent, "w1");
    let old = dir.load(Role::NetworkAgent).unwrap();
    let request = SigningRequest::new().unwrap();
    let next = site
        .authority
        .sign(&request.request_pem, &identity(Role::NetworkAgent, "w1"), &[], LIFETIME)
        .unwrap();
    let (certificate, key) = (dir.certificate(Role::NetworkAgent), dir.key(Role::NetworkAgent));
    let beside = |path: &std::path::Path| std::path::PathBuf::from(format!("{}.new", path.display()));
    // Before either moved.
    std::fs::write(beside(&certificate), &next.pem).unwrap();
    std::fs::write(beside(&key), &request.key_pem).unwrap();
    assert_eq!(dir.load(Role::NetworkAgent).unwrap(), old);
    // After the key moved.
    std::fs::rename(beside(&key), &key).unwrap();
    assert_eq!(dir.load(Role::NetworkAgent).unwrap(), (next.pem.clone(), request.key_pem.clone()));
    Tls::open(&dir, Role::NetworkAgent).unwrap();
    assert!(!beside(&certificate).exists());
    // What a killed process left is in nobody's way.
    std::fs::write(beside(&certificate), "half").unwrap();
    site.issue(&dir, Role::NetworkAgent, "w1");
    Tls::open(&dir, Role::NetworkAgent).unwrap();
}

#[test]
fn a_key_of_somebody_else_is_not_taken() {
    let site = Site::new();
    let dir = site.dir("w1");
    site.issue(&dir, Role::NetworkAgent, "w1");
    let other = SigningRequest::new().unwrap();
    std::fs::write(dir.key(Role::NetworkAgent), other.key_pem).unwrap();
    assert!(matches!(Tls::open(&dir, Role::NetworkAgent), Err(TlsError::Mismatch(_))));
    let stranger = Authority::create().unwrap();
    assert!(matches!(
        Authority::from_pem(&site.authority.certificate_pem(), &stranger.key_pem()),
        Err(TlsError::Mismatch(_))
    ));
}

#[test]
fn what_cannot_be_used_changes_nothing() {
    let site = Site::new();
    let tls = site.member(Role::NetworkAgent, "w1");
    let before = tls.current().facts().clone();
    std::fs::write(tls.dir().certificate(Role::NetworkAgent), "not a certificate").unwrap();
    tls.reload().unwrap_err();
    assert_eq!(*tls.current().facts(), before);
    assert!(matches!(tls.dir().trust("nonsense"), Err(TlsError::Malformed(_))));
    assert_eq!(
        gon_tls::bundle_sha256(&tls.dir().read(&tls.dir().ca_certificates()).unwrap()).unwrap().len(),
        1
    );
}

#[test]
fn an_authority_is_replaced_in_order() {
    let site = Site::new();
    let dir = site.first();
    let bundle = |dir: &TlsDir| gon_tls::bundle_sha256(&dir.read(&dir.ca_certificates()).unwrap()).unwrap();
    let old = site.authority.sha256();
    assert!(matches!(dir.promote_next_authority(), Err(RollError::Order(_))));
    let new = dir.prepare_next_authority().unwrap();
    assert_eq!(dir.prepare_next_authority().unwrap(), new, "again is the same");
    assert_eq!(bundle(&dir), [old.clone(), new.clone()]);
    assert_eq!(dir.authority().unwrap().sha256(), old, "the old one signs");
    assert!(matches!(dir.retire_old_authority(), Err(RollError::Order(_))));
    assert_eq!(dir.promote_next_authority().unwrap(), new);
    assert_eq!(bundle(&dir), [new.clone(), old]);
    assert_eq!(dir.authority().unwrap().sha256(), new, "the new one signs");
    assert!(matches!(dir.prepare_next_authority(), Err(RollError::Order(_))), "one at a time");
    dir.retire_old_authority().unwrap();
    assert_eq!(bundle(&dir), std::slice::from_ref(&new));
    assert_eq!(mode(&dir.ca_key()), 0o600);
    assert_ne!(dir.prepare_next_authority().unwrap(), new);
}

#[test]
fn a_revocation_list_names_what_was_revoked() {
    let site = Site::new();
    let serial = "5f".repeat(16);
    let revoked = [Revoked { serial: serial.clone(), since: OffsetDateTime::now_utc() }];
    let list = site.authority.revocation_list(&revoked, 7).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(list.as_bytes()).unwrap();
    let (_, parsed) =
        x509_parser::revocation_list::CertificateRevocationList::from_der(&pem.contents).unwrap();
    let listed: Vec<String> =
        parsed.iter_revoked_certificates().map(|one| format!("{:x}", one.user_certificate)).collect();
    assert_eq!(listed, [serial]);
    let empty = site.authority.revocation_list(&[], 8).unwrap();
    assert!(empty.starts_with("-----BEGIN X509 CRL-----"));
    assert!(
        site.authority.revocation_list(&[Revoked { serial: "xy".into(), ..revoked[0].clone() }], 9).is_err()
    );
}

#[tokio::test]
async fn new_files_are_noticed() {
    let site = Site::new();
    let tls = site.member(Role::NetworkAgent, "w1");
    let stop = tokio_util::sync::CancellationToken::new();
    let watching = tokio::spawn({
        let (tls, stop) = (tls.clone(), stop.clone());
        async move { tls.watch(stop).await }
    });
    let mut told = tls.subscribe();
    let before = tls.current().facts().serial.clone();
    // Let it look once before.
    tokio::task::yield_now().await;
    site.issue(tls.dir(), Role::NetworkAgent, "w1");
    tokio::time::timeout(std::time::Duration::from_secs(15), told.changed()).await.unwrap().unwrap();
    assert_ne!(tls.current().facts().serial, before);
    stop.cancel();
    watching.await.unwrap();
}
