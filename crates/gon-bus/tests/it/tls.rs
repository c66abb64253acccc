//! TLS toward a real broker that insists on certificates.

use std::path::Path;

use gon_bus::{Bus, BusState, Pem, RabbitConfig, RabbitTls};
use gon_proto::doorbell::Subject;
use gon_testkit::ports;
use gon_testkit::rabbitmq::Broker;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};

use crate::raw::{bell, config, hear, until};

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // Its own name, or what it signs looks as if it had signed itself.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }
    /// Certificate and key for a host.
    fn issue(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, host);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn text(pem: &str) -> Pem {
    Pem::Text(pem.into())
}

/// A directory that the broker's user can read.
fn write(directory: &Path, name: &str, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn only_our_authority_counts_on_both_sides() {
    use std::os::unix::fs::PermissionsExt;
    let (ours, theirs) = (Authority::new(), Authority::new());
    let directory = std::env::temp_dir().join(format!("gon-bus-tls-{}", uuid::Uuid::now_v7().simple()));
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (certificate, key) = ours.issue("127.0.0.1");
    let [port] = ports::free().unwrap();
    let broker = Broker::start(&format!(
        "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
         ssl_options.keyfile = {}\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n\
         ssl_options.versions.1 = tlsv1.3\n",
        write(&directory, "ca.crt", &ours.pem),
        write(&directory, "bus.crt", &certificate),
        write(&directory, "bus.key", &key),
    ))
    .await
    .unwrap();
    let vhost = broker.vhost().await.unwrap();
    let url = vhost.url.replace("amqp://", "amqps://").replace(&broker.port().to_string(), &port.to_string());
    let client = |url: &str, tls: Option<RabbitTls>| RabbitConfig { tls, ..config(url) };
    let identity = |authority: &Authority| {
        let (certificate, key) = authority.issue("server-1");
        Some((text(&certificate), text(&key)))
    };

    // Ours; the files are read when they are needed.
    let (certificate, key) = ours.issue("server-1");
    let file = |name, pem: &str| Pem::File(write(&directory, name, pem).into());
    let files = RabbitTls {
        authority: Pem::File(directory.join("ca.crt")),
        identity: Some((file("client.crt", &certificate), file("client.key", &key))),
    };
    let bus = gon_bus::connect(&client(&url, Some(files))).unwrap();
    let mut ear = bus.subscribe(&[Subject::Vpc]).await.unwrap();
    let bell = bell(Subject::Vpc);
    bus.publish(&[bell]).await.unwrap();
    assert!(!hear(&mut ear, bell).await);

    let wrong = [
        ("no certificate of our own", url.clone(), RabbitTls { authority: text(&ours.pem), identity: None }),
        (
            "a certificate of another authority",
            url.clone(),
            RabbitTls { authority: text(&ours.pem), identity: identity(&theirs) },
        ),
        (
            "a broker of another authority",
            url.clone(),
            RabbitTls { authority: text(&theirs.pem), identity: identity(&ours) },
        ),
        (
            "a broker of another name",
            url.replace("127.0.0.1", "localhost"),
            RabbitTls { authority: text(&ours.pem), identity: identity(&ours) },
        ),
    ];
    for (what, url, tls) in wrong {
        let bus = gon_bus::connect(&client(&url, Some(tls))).unwrap();
        until(&bus, what, |state| *state != BusState::Starting).await;
        assert!(matches!(bus.state(), BusState::Down(_)), "{what}: {:?}", bus.state());
    }
    // Plain text is not understood there, and is not what a URL with TLS becomes.
    let bus = gon_bus::connect(&client(&url.replace("amqps://", "amqp://"), None)).unwrap();
    until(&bus, "plain", |state| *state != BusState::Starting).await;
    assert!(matches!(bus.state(), BusState::Down(_)));
    let plain = vhost.url.replace("amqp://", "amqps://");
    let tls = RabbitTls { authority: text(&ours.pem), identity: None };
    let bus = gon_bus::connect(&client(&plain, Some(tls))).unwrap();
    until(&bus, "plain", |state| *state != BusState::Starting).await;
    assert!(matches!(bus.state(), BusState::Down(_)));

    // A file that is no certificate is told at once.
    for authority in [text("nonsense"), Pem::File(directory.join("missing.crt"))] {
        let tls = RabbitTls { authority, identity: None };
        assert!(gon_bus::connect(&client(&url, Some(tls))).is_err());
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
