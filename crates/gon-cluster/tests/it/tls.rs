//! The etcd adapter with certificates and passwords.

use std::net::Ipv4Addr;
use std::time::Duration;

use gon_cluster::{ClusterError, EtcdConfig, EtcdLiveness, Liveness, NODE_TTL, TlsPem};
use gon_testkit::etcd;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::etcd::SOON;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key of a member or a client on the loopback address.
fn issue(authority: &Authority) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn pem(ca: &Authority, of: &Authority) -> TlsPem {
    let (certificate, key) = issue(of);
    TlsPem { ca: ca.pem().into(), certificate: certificate.into(), key: key.into() }
}

#[tokio::test]
async fn only_the_right_certificate_is_let_in_and_a_new_one_is_taken_up() {
    let ours = authority();
    let theirs = authority();
    let (certificate, key) = issue(&ours);
    let cluster = etcd::with_tls(&etcd::Tls { ca: ours.pem(), certificate, key }).await;
    let connect =
        |tls| EtcdLiveness::new(EtcdConfig { tls: Some(tls), ..EtcdConfig::new(cluster.endpoints()) });
    let (renewed, current) = watch::channel(pem(&ours, &ours));
    let liveness = connect(current);
    liveness.check().await.unwrap();
    let mut nodes = liveness.nodes().await;
    let _lease = liveness.register("n", NODE_TTL).await.unwrap();
    timeout(SOON, nodes.wait_for(|n| n.names.contains("n"))).await.unwrap().unwrap();

    // A client of another authority, and a client that trusts another.
    for tls in [pem(&ours, &theirs), pem(&theirs, &ours)] {
        let stranger = connect(watch::channel(tls).1);
        assert!(matches!(stranger.check().await, Err(ClusterError::Unavailable(_))));
    }

    // A renewed certificate is used at once, and what goes on goes on.
    renewed.send_replace(pem(&ours, &theirs));
    assert!(liveness.check().await.is_err(), "the old certificate is not used any more");
    renewed.send_replace(pem(&ours, &ours));
    liveness.check().await.unwrap();
    timeout(SOON, nodes.wait_for(|n| n.names.contains("n") && !n.stale)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_user_sees_what_its_role_allows() {
    let cluster = etcd::one().await;
    let mut root = etcd_client::Client::connect(cluster.endpoints(), None).await.unwrap();
    for user in ["root", "agent"] {
        root.user_add(user, "secret", None).await.unwrap();
        root.role_add(user).await.unwrap();
        root.user_grant_role(user, user).await.unwrap();
    }
    let nodes = etcd_client::Permission::read_write("/gon/v1/nodes/").with_prefix();
    root.role_grant_permission("agent", nodes).await.unwrap();
    root.auth_enable().await.unwrap();

    let connect = |user: Option<(&str, &str)>| {
        let user = user.map(|(name, password)| (name.to_owned(), password.to_owned()));
        EtcdLiveness::new(EtcdConfig { user, ..EtcdConfig::new(cluster.endpoints()) })
    };
    let agent = connect(Some(("agent", "secret")));
    let mut lease = agent.register("n", NODE_TTL).await.unwrap();
    lease.renew().await.unwrap();
    assert!(timeout(SOON, agent.nodes().await.wait_for(|n| n.names.contains("n"))).await.is_ok());
    // Refused at once, not tried until a deadline.
    let refused = timeout(Duration::from_secs(2), agent.publish("mtu", "1400")).await.unwrap();
    assert!(matches!(refused, Err(ClusterError::Unavailable(_))), "{refused:?}");
    for wrong in [connect(None), connect(Some(("agent", "wrong")))] {
        assert!(wrong.register("n", NODE_TTL).await.is_err());
    }
}
