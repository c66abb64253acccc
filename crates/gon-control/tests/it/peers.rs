//! Over real TLS: every route is for its roles, a node is the one in its certificate, and revoked is revoked.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use gon_agent::link::{Link, LinkError};
use gon_proto::{
    AuthoritiesAnswer, ComputeReport, NetworkReport, NodeAnswer, NodeCompute, NodeNetwork, NodeReport,
    RenewAnswer, RenewRequest, paths,
};
use gon_tls::{LIFETIME, Role, SigningRequest, Tls, connect_pinned};
use gon_types::DocumentVersion;
use gon_types::id::NodeId;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::site::{Site, id, n1};
use crate::wire::{Wire, link, refused, roles};

const START: DocumentVersion = DocumentVersion { epoch: 0, generation: 0 };

fn network_report(node: NodeId) -> NetworkReport {
    serde_json::from_value(serde_json::json!({
        "format": gon_proto::FORMAT, "node": node, "applied": START, "vpcs": [], "ports": []
    }))
    .unwrap()
}

fn compute_report(node: NodeId) -> ComputeReport {
    serde_json::from_value(serde_json::json!({
        "format": gon_proto::FORMAT, "node": node, "accepted": START, "instances": []
    }))
    .unwrap()
}

fn node_report(name: &str) -> NodeReport {
    serde_json::from_value(serde_json::json!({
        "format": gon_proto::FORMAT, "name": name, "availability_zone": "local-1a", "vcpus": 16,
        "memory_mib": 8192, "disk_gib": 100, "accelerator": "tcg", "ovs_datapath": "netdev", "versions": {},
        "images": {}
    }))
    .unwrap()
}

fn renewal() -> RenewRequest {
    RenewRequest { format: gon_proto::FORMAT, request: SigningRequest::new().unwrap().request_pem }
}

/// Every route for the roles it is for.
fn routes() -> Vec<(&'static str, BTreeSet<Role>)> {
    let compute = roles(&[Role::HypervisorAgent, Role::ContainerAgent, Role::StorageAgent]);
    vec![
        (paths::NETWORK_DOCUMENT, roles(&[Role::NetworkAgent])),
        (paths::NETWORK_REPORT, roles(&[Role::NetworkAgent])),
        (paths::COMPUTE_DOCUMENT, compute.clone()),
        (paths::COMPUTE_REPORT, compute.clone()),
        (paths::NODE_REPORT, compute),
        (paths::CERTIFICATES, roles(Role::ALL)),
        (paths::AUTHORITIES, roles(Role::ALL)),
    ]
}

/// One call of a route by the holder of `tls`, who speaks as node n1.
async fn call(wire: &Wire, tls: &Tls, path: &str) -> Result<(), LinkError> {
    let (network, compute) = (wire.network_link(tls), wire.compute_link(tls));
    match path {
        paths::NETWORK_DOCUMENT => network.get_document::<NodeNetwork>(path, START).await.map(drop),
        paths::NETWORK_REPORT => network.post_report(path, &network_report(n1())).await,
        paths::COMPUTE_DOCUMENT => compute.get_document::<NodeCompute>(path, START).await.map(drop),
        paths::COMPUTE_REPORT => compute.post_report(path, &compute_report(n1())).await,
        paths::NODE_REPORT => compute.exchange::<_, NodeAnswer>(path, &node_report("n1")).await.map(drop),
        paths::CERTIFICATES => compute.exchange::<_, RenewAnswer>(path, &renewal()).await.map(drop),
        paths::AUTHORITIES => compute.get::<AuthoritiesAnswer>(path).await.map(drop),
        other => panic!("{other}"),
    }
}

async fn wire() -> Wire {
    let site = Site::new().await;
    site.network.refresh(n1()).await.unwrap();
    site.compute.refresh(n1()).await.unwrap();
    Wire::over(site).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_is_for_its_roles_and_for_nobody_else() {
    let wire = wire().await;
    for role in Role::ALL {
        let member = wire.member(*role, "n1").await;
        for (path, allowed) in routes() {
            let called = call(&wire, &member, path).await;
            if allowed.contains(role) {
                called.unwrap_or_else(|error| panic!("{role} {path}: {error}"));
            } else {
                assert_eq!(refused(called), 403, "{role} {path}");
            }
        }
    }
}

/// A call without a certificate: the status line.
async fn anonymous(wire: &Wire, method: &str, path: &str) -> String {
    let is_network = path.starts_with(paths::NETWORK_DOCUMENT);
    let (address, role) = match is_network {
        true => (wire.network, Role::NetworkController),
        false => (wire.compute, Role::InstanceManager),
    };
    let pin = wire.first().authority().unwrap().sha256();
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = connect_pinned(stream, &pin, role, "127.0.0.1").await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: 2\r\nx-forwarded-client-cert: gon://network-agent/n1\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn without_a_certificate_there_is_health_and_nothing_else() {
    let wire = wire().await;
    assert_eq!(anonymous(&wire, "GET", "/healthz").await, "HTTP/1.1 200 OK");
    for (path, _) in routes() {
        for method in ["GET", "POST"] {
            let status = anonymous(&wire, method, path).await;
            assert_eq!(status, "HTTP/1.1 401 Unauthorized", "{method} {path}");
        }
    }
    assert_eq!(anonymous(&wire, "GET", "/node/v1").await, "HTTP/1.1 404 Not Found");
}

#[tokio::test]
async fn a_node_gets_its_own_documents_and_speaks_for_itself_only() {
    let wire = wire().await;
    let n2: NodeId = id(2);
    wire.site.network.refresh(n2).await.unwrap();
    wire.site.compute.refresh(n2).await.unwrap();
    for (name, own, other) in [("n1", n1(), n2), ("n2", n2, n1())] {
        let network = wire.network_link(&wire.member(Role::NetworkAgent, name).await);
        let document: NodeNetwork =
            network.get_document(paths::NETWORK_DOCUMENT, START).await.unwrap().unwrap();
        assert_eq!(document.node, own);
        network.post_report(paths::NETWORK_REPORT, &network_report(own)).await.unwrap();
        assert_eq!(refused(network.post_report(paths::NETWORK_REPORT, &network_report(other)).await), 403);
        for role in [Role::HypervisorAgent, Role::ContainerAgent, Role::StorageAgent] {
            let compute = wire.compute_link(&wire.member(role, name).await);
            let document: NodeCompute =
                compute.get_document(paths::COMPUTE_DOCUMENT, START).await.unwrap().unwrap();
            assert_eq!(document.node, own);
            compute.post_report(paths::COMPUTE_REPORT, &compute_report(own)).await.unwrap();
            assert_eq!(
                refused(compute.post_report(paths::COMPUTE_REPORT, &compute_report(other)).await),
                403
            );
            let other_name = if name == "n1" { "n2" } else { "n1" };
            let said = compute.exchange::<_, NodeAnswer>(paths::NODE_REPORT, &node_report(other_name)).await;
            assert_eq!(refused(said), 403);
            let answer: NodeAnswer = compute.exchange(paths::NODE_REPORT, &node_report(name)).await.unwrap();
            assert_eq!(answer.node, own);
        }
    }
    // A renewal is of one's own certificate, whatever the request says.
    let member = wire.member(Role::NetworkAgent, "n1").await;
    let answer: RenewAnswer =
        wire.compute_link(&member).exchange(paths::CERTIFICATES, &renewal()).await.unwrap();
    assert!(answer.certificate.contains("BEGIN CERTIFICATE"));
    let row = "select jsonb_build_array(role, name) from certificates order by issued_at desc limit 1";
    assert_eq!(wire.site.row(row).await, serde_json::json!(["network-agent", "n1"]));
    // A server that is no node yet has nothing.
    let stranger = wire.network_link(&wire.member(Role::NetworkAgent, "n3").await);
    let nothing = stranger.get_document::<NodeNetwork>(paths::NETWORK_DOCUMENT, START).await;
    assert_eq!(refused(nothing), 404);
}

#[tokio::test]
async fn revoked_is_refused_at_the_next_request_on_every_route() {
    let wire = wire().await;
    for role in Role::ALL {
        let member = wire.member(*role, "n1").await;
        let link = wire.compute_link(&member);
        link.get::<AuthoritiesAnswer>(paths::AUTHORITIES).await.unwrap();
        gon_control::join::revoke(&wire.site.database.store, "n1", "test").await.unwrap();
        // On the connection that was there before, and on every other.
        assert_eq!(refused(link.get::<AuthoritiesAnswer>(paths::AUTHORITIES).await), 403, "{role}");
        for (path, _) in routes() {
            assert_eq!(refused(call(&wire, &member, path).await), 403, "{role} {path}");
        }
    }
}

#[tokio::test]
async fn a_removed_node_is_refused_and_its_reports_change_nothing() {
    let wire = wire().await;
    let member = wire.member(Role::HypervisorAgent, "n3").await;
    let link = wire.compute_link(&member);
    link.exchange::<_, NodeAnswer>(paths::NODE_REPORT, &node_report("n3")).await.unwrap();
    wire.site.sql("update nodes set removed_at = now() where name = 'n3'").await;
    let said = link.exchange::<_, NodeAnswer>(paths::NODE_REPORT, &node_report("n3")).await;
    assert_eq!(refused(said), 403);
    let nodes = "select to_jsonb(count(*)) from nodes where name = 'n3'";
    assert_eq!(wire.site.row(nodes).await, Value::from(1));
}

#[tokio::test]
async fn a_certificate_that_is_not_on_record_is_refused() {
    let wire = wire().await;
    let dir = wire.dir("n1");
    dir.make().unwrap();
    dir.trust(&wire.first().read(&wire.first().ca_certificates()).unwrap()).unwrap();
    let identity = gon_tls::Identity::new(Role::NetworkAgent, "n1").unwrap();
    dir.issue(&wire.first().authority().unwrap(), &identity, &[], LIFETIME).unwrap();
    let tls = Tls::open(&dir, Role::NetworkAgent).unwrap();
    assert_eq!(refused(call(&wire, &tls, paths::NETWORK_DOCUMENT).await), 403);
}

/// A poll that waits for something newer than what there is.
fn held(link: Link) -> tokio::task::JoinHandle<(Result<Option<NodeNetwork>, LinkError>, Duration)> {
    tokio::spawn(async move {
        let latest: NodeNetwork = link.get_document(paths::NETWORK_DOCUMENT, START).await.unwrap().unwrap();
        let started = Instant::now();
        (link.get_document(paths::NETWORK_DOCUMENT, latest.version).await, started.elapsed())
    })
}

#[tokio::test]
async fn a_poll_that_was_held_is_not_answered_after_a_revocation() {
    let wire = wire().await;
    let poll = held(wire.network_link(&wire.member(Role::NetworkAgent, "n1").await));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!poll.is_finished());
    gon_control::join::revoke(&wire.site.database.store, "n1", "test").await.unwrap();
    wire.site
        .sql("update vpcs set generation = generation + 1 where id = '00000000-0000-7000-8000-000000000101'")
        .await;
    wire.site.network.refresh(n1()).await.unwrap();
    assert_eq!(refused(poll.await.unwrap().0), 403);
}

#[tokio::test]
async fn who_does_not_lead_sends_agents_on() {
    let wire = wire().await;
    let member = wire.member(Role::NetworkAgent, "n1").await;
    // Another controller, which stands by.
    let standby = std::sync::Arc::new(wire.site.another_controller());
    let routes = gon_control::peers::network_routes(&standby, &wire.site.database.store);
    let standby = wire.listen(Role::NetworkController, routes).await;
    let alone = link(&member, Role::NetworkController, &[standby]);
    assert_eq!(refused(alone.get_document::<NodeNetwork>(paths::NETWORK_DOCUMENT, START).await), 503);
    // Nobody listens at the first address, the second does not lead, the third does.
    let nobody = "127.0.0.1:1".parse().unwrap();
    let all = link(&member, Role::NetworkController, &[nobody, standby, wire.network]);
    let started = Instant::now();
    all.get_document::<NodeNetwork>(paths::NETWORK_DOCUMENT, START).await.unwrap().unwrap();
    println!("found the leader within {:?}", started.elapsed());
    all.post_report(paths::NETWORK_REPORT, &network_report(n1())).await.unwrap();

    // The leader gets up while a poll is held there: the poll ends, and finds nobody who leads.
    let poll = held(all);
    tokio::time::sleep(Duration::from_millis(300)).await;
    wire.site.network.ready().lead(None);
    let (answer, took) = poll.await.unwrap();
    assert_eq!(refused(answer), 503);
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn a_worker_that_plays_controller_is_not_believed() {
    let wire = wire().await;
    let member = wire.member(Role::NetworkAgent, "n1").await;
    // A worker's own certificate, on a port where agents look for a controller.
    let impostor = wire.member(Role::NetworkAgent, "n2").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = axum::Router::new();
    let limits = gon_tls::Limits::default();
    tokio::spawn(gon_tls::serve(listener, Some(impostor), routes, limits, wire.stop.clone()));
    let lured = link(&member, Role::NetworkController, &[address]);
    let error = lured.post_report(paths::NETWORK_REPORT, &network_report(n1())).await.unwrap_err();
    assert!(matches!(error, LinkError::Connect { .. }), "{error}");
}
