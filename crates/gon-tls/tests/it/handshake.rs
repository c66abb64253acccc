//! Who is let in, and whom a client believes.

use std::sync::Arc;
use std::time::Duration;

use gon_tls::{Authority, CertificateFacts, LIFETIME, Limits, Role, SigningRequest, Tls, TlsDir, TlsError};
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::site::{Client, Site, ask, connect, identity, serve};

const SERVER: Role = Role::NetworkController;
const CLIENT: Role = Role::NetworkAgent;

/// A member whose certificate `authority` signs for these days from now.
fn member(site: &Site, authority: &Authority, role: Role, name: &str, days: std::ops::Range<i64>) -> Tls {
    let dir = site.dir(name);
    let request = SigningRequest::new().unwrap();
    let at = |days| OffsetDateTime::now_utc() + time::Duration::days(days);
    let issued = authority
        .sign_between(&request.request_pem, &identity(role, name), &[], at(days.start), at(days.end))
        .unwrap();
    dir.install(role, &request.key_pem, &issued.pem).unwrap();
    Tls::open(&dir, role).unwrap()
}

#[tokio::test]
async fn a_peer_is_who_its_certificate_says() {
    let site = Site::new();
    let server = serve(&site.member(SERVER, "s1"), Limits::default()).await;
    let client = site.member(CLIENT, "w1");
    let serial = client.current().facts().serial.clone();
    assert_eq!(serial.len(), 32);
    let said = ask(&client, server.address, SERVER).await.unwrap();
    assert_eq!(said, format!("gon://network-agent/w1 {serial}"));
}

#[tokio::test]
async fn who_shows_no_certificate_is_nobody() {
    let site = Site::new();
    let server = serve(&site.member(SERVER, "s1"), Limits::default()).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let pin = site.authority.sha256();
    let stream = gon_tls::connect_pinned(stream, &pin, SERVER, "127.0.0.1").await.unwrap();
    assert_eq!(Client::over(stream).await.unwrap().get("/who").await.unwrap(), "nobody");
}

#[tokio::test]
async fn clients_with_bad_certificates_are_refused() {
    let site = Site::new();
    let server = serve(&site.member(SERVER, "s1"), Limits::default()).await;
    let stranger = Authority::create().unwrap();
    for (what, client) in [
        ("another authority", member(&site, &stranger, CLIENT, "stranger", 0..30)),
        ("expired", member(&site, &site.authority, CLIENT, "old", -30..-1)),
        ("not yet valid", member(&site, &site.authority, CLIENT, "early", 1..30)),
    ] {
        assert!(ask(&client, server.address, SERVER).await.is_err(), "{what}");
    }
    let good = member(&site, &site.authority, CLIENT, "good", 0..30);
    ask(&good, server.address, SERVER).await.unwrap();
}

#[tokio::test]
async fn servers_with_bad_certificates_are_not_believed() {
    let site = Site::new();
    let client = site.member(CLIENT, "w1");
    let stranger = Authority::create().unwrap();
    for (what, server) in [
        ("another authority", member(&site, &stranger, SERVER, "stranger", 0..30)),
        ("expired", member(&site, &site.authority, SERVER, "old", -30..-1)),
        ("not yet valid", member(&site, &site.authority, SERVER, "early", 1..30)),
        ("another role: a worker that plays controller", site.member(CLIENT, "w2")),
        ("another role: another controller", site.member(Role::InstanceManager, "s2")),
    ] {
        let server = serve(&server, Limits::default()).await;
        let error = ask(&client, server.address, SERVER).await.expect_err(what);
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{what}: {error}");
    }
}

#[tokio::test]
async fn who_joins_believes_only_the_authority_that_was_named() {
    let site = Site::new();
    let other = Site::new();
    let impostor = serve(&other.member(Role::InstanceManager, "s1"), Limits::default()).await;
    let worker = serve(&site.member(CLIENT, "w1"), Limits::default()).await;
    let pin = site.authority.sha256();
    for server in [&impostor, &worker] {
        let stream = TcpStream::connect(server.address).await.unwrap();
        gon_tls::connect_pinned(stream, &pin, Role::InstanceManager, "127.0.0.1").await.unwrap_err();
    }
}

/// A certificate of our authority that says what `change` makes it say.
fn forged(
    site: &Site,
    name: &str,
    uris: &[&str],
    change: impl FnOnce(&mut CertificateParams),
) -> (String, String) {
    let first = site.first();
    let key = KeyPair::from_pem(&first.read(&first.ca_key()).unwrap()).unwrap();
    let authority = first.read(&first.ca_certificates()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&authority, key).unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI(Ia5String::try_from(*uri).unwrap())));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    (leaf.pem(), key.serialize_pem())
}

/// Shows the certificate without looking at it first, as no client of ours would.
async fn shown(
    site: &Site,
    address: std::net::SocketAddr,
    (certificate, key): (String, String),
) -> std::io::Result<String> {
    let mut roots = rustls::RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(site.authority.certificate_pem().as_bytes()).unwrap();
    roots.add(authority).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(gon_tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let stream = TcpStream::connect(address).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect("s1".try_into().unwrap(), stream).await?;
    Client::over(stream).await?.get("/who").await
}

#[tokio::test]
async fn a_certificate_of_ours_that_does_not_name_one_holder_is_refused() {
    let site = Site::new();
    let server = serve(&site.member(SERVER, "s1"), Limits::default()).await;
    let good = "gon://network-agent/w1";
    for uris in [
        &[][..],
        &["gon://network-agent/w1", "gon://network-agent/w2"],
        &["gon://network-agent/w1", "https://example.org"],
        &["gon://network-agent/w1", "gon://network-agent/w1"],
        &["gon://root/w1"],
        &["https://example.org"],
        &["gon://network-agent/W1"],
    ] {
        let refused = shown(&site, server.address, forged(&site, "w1", uris, |_| {})).await;
        assert!(refused.is_err(), "{uris:?}: {refused:?}");
    }
    let email = SanType::Rfc822Name(Ia5String::try_from("a@b").unwrap());
    let refused = forged(&site, "w1", &[good], |params| params.subject_alt_names.push(email));
    assert!(shown(&site, server.address, refused).await.is_err());
    let server_only = forged(&site, "w1", &[good], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert!(shown(&site, server.address, server_only).await.is_err());
    let good = shown(&site, server.address, forged(&site, "w1", &[good], |_| {})).await.unwrap();
    assert!(good.starts_with("gon://network-agent/w1 "), "{good}");
}

#[tokio::test]
async fn who_holds_a_certificate_cannot_sign_others() {
    let site = Site::new();
    let server = serve(&site.member(SERVER, "s1"), Limits::default()).await;
    let dir = site.dir("w1");
    site.issue(&dir, CLIENT, "w1");
    let (certificate, key) = dir.load(CLIENT).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from("gon://instance-manager/s1").unwrap())];
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    assert!(shown(&site, server.address, (leaf.pem(), key.serialize_pem())).await.is_err());
}

#[tokio::test]
async fn what_a_request_asks_for_is_not_what_is_signed() {
    let site = Site::new();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["evil.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI(Ia5String::try_from("gon://instance-manager/s1").unwrap()));
    params.distinguished_name.push(rcgen::DnType::CommonName, "instance-manager");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let hosts = ["w1.example".to_owned(), "10.0.0.9".to_owned()];
    let issued = site.authority.sign(&request, &identity(CLIENT, "w1"), &hosts, LIFETIME).unwrap();
    let certificate = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
    let facts = CertificateFacts::read(&certificate).unwrap();
    assert_eq!((facts.identity, facts.serial), (identity(CLIENT, "w1"), issued.serial));
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
    assert!(!parsed.is_ca());
    assert_eq!(parsed.subject().to_string(), "CN=network-agent, OU=w1");
    let names = parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len();
    assert_eq!(names, 3, "the identity and two hosts");
    assert!(!parsed.key_usage().unwrap().unwrap().value.key_cert_sign());
}

#[tokio::test]
async fn requests_that_are_none_are_refused() {
    let site = Site::new();
    let sign = |request: &str| site.authority.sign(request, &identity(CLIENT, "w1"), &[], LIFETIME);
    let good = SigningRequest::new().unwrap().request_pem;
    sign(&good).unwrap();
    // One bit of the signature, of the key, of anything.
    let der = pem_body(&good);
    for at in [10, der.len() / 2, der.len() - 5] {
        let mut bad = der.clone();
        bad[at] ^= 1;
        assert!(matches!(sign(&to_pem(&bad)), Err(TlsError::Request(_))), "byte {at}");
    }
    let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let other = CertificateParams::default().serialize_request(&other).unwrap().pem().unwrap();
    let large = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let large = CertificateParams::default().serialize_request(&large).unwrap().pem().unwrap();
    let certificate = site.authority.certificate_pem();
    for bad in ["", "x", &good[..good.len() / 2], &other, &large, &certificate, &good.repeat(40)] {
        assert!(matches!(sign(bad), Err(TlsError::Request(_))), "{bad}");
    }
    for host in ["", "a b", "a/b", "*", "ä.example", "a\0b", "https://a"] {
        let refused = site.authority.sign(&good, &identity(CLIENT, "w1"), &[host.to_owned()], LIFETIME);
        assert!(matches!(refused, Err(TlsError::Malformed(_))), "{host:?}");
    }
}

fn pem_body(pem: &str) -> Vec<u8> {
    use base64::Engine as _;
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    base64::engine::general_purpose::STANDARD.decode(body).unwrap()
}

fn to_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
}

#[tokio::test]
async fn older_tls_is_refused() {
    let site = Site::new();
    let server = serve(&site.member(SERVER, "s1"), Limits::default()).await;
    for (versions, good) in [(&rustls::version::TLS12, false), (&rustls::version::TLS13, true)] {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(site.authority.certificate_pem().as_bytes()).unwrap())
            .unwrap();
        let config = rustls::ClientConfig::builder_with_provider(gon_tls::provider())
            .with_protocol_versions(&[versions])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(server.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let connected = connector.connect("s1".try_into().unwrap(), stream).await;
        assert_eq!(connected.is_ok(), good, "{versions:?}");
    }
}

#[tokio::test]
async fn plaintext_is_refused() {
    let site = Site::new();
    let server = serve(&site.member(SERVER, "s1"), Limits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.windows(4).any(|four| four == b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn a_session_is_never_resumed() {
    let site = Site::new();
    let server = serve(&site.member(SERVER, "s1"), Limits::default()).await;
    let client = site.member(CLIENT, "w1");
    let config = Arc::new({
        let mut config = client.current().client(SERVER).unwrap();
        config.resumption = rustls::client::Resumption::in_memory_sessions(8);
        config
    });
    for _ in 0..3 {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
        let stream = connector.connect("s1".try_into().unwrap(), stream).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        Client::over(stream).await.unwrap().get("/who").await.unwrap();
    }
}

#[tokio::test]
async fn files_of_another_role_are_not_taken() {
    let site = Site::new();
    let dir = site.dir("w1");
    site.issue(&dir, CLIENT, "w1");
    let (certificate, key) = dir.load(CLIENT).unwrap();
    dir.install(SERVER, &key, &certificate).unwrap();
    assert!(matches!(Tls::open(&dir, SERVER), Err(TlsError::OtherIdentity { .. })));
    let nowhere = TlsDir::new(&site.root.path().join("nowhere"));
    assert!(matches!(Tls::open(&nowhere, SERVER), Err(TlsError::Io { .. })));
}

#[tokio::test]
async fn a_connection_outlives_neither_its_certificate_nor_its_authority() {
    let site = Site::new();
    let served = site.member(SERVER, "s1");
    let server = serve(&served, Limits::default()).await;
    let dir = site.dir("w1");
    let request = SigningRequest::new().unwrap();
    let issued = site
        .authority
        .sign(&request.request_pem, &identity(CLIENT, "w1"), &[], Duration::from_secs(2))
        .unwrap();
    dir.install(CLIENT, &request.key_pem, &issued.pem).unwrap();
    let short = Tls::open(&dir, CLIENT).unwrap();
    let long = site.member(CLIENT, "w2");
    let mut short = connect(&short, server.address, SERVER).await.unwrap();
    let mut kept = connect(&long, server.address, SERVER).await.unwrap();
    short.get("/who").await.unwrap();
    kept.get("/who").await.unwrap();
    tokio::time::sleep(Duration::from_millis(3200)).await;
    assert!(short.is_closed(), "its certificate has expired");
    kept.get("/who").await.unwrap();
    // The server stops believing the authority while it answers: that answer is the last.
    let last = tokio::spawn(async move { (kept.get("/slow").await, kept) });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let other = Authority::create().unwrap();
    let role_dir = served.dir();
    role_dir.trust(&other.certificate_pem()).unwrap();
    role_dir.issue(&other, &identity(SERVER, "s1"), &[], LIFETIME).unwrap();
    served.reload().unwrap();
    let (answer, kept) = last.await.unwrap();
    answer.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(kept.is_closed(), "its authority is not believed any more");
}
