use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::{Extension, Router};
use gon_control::documents::{self, NodeIdentity};
use gon_proto::{NetworkReport, NodeAnswer, NodeCompute, NodeNetwork, NodeReport};
use gon_types::DocumentVersion;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use crate::site::{Site, golden, id, n1, uuid};

fn routers(site: &Site, name: &str) -> Router {
    documents::network_router(Arc::clone(&site.network))
        .merge(documents::compute_router(Arc::clone(&site.compute)))
        .layer(Extension(NodeIdentity(name.into())))
}

async fn call(
    router: &Router,
    method: &str,
    path: &str,
    body: String,
) -> (StatusCode, Option<String>, Vec<u8>) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let etag = response.headers().get("etag").map(|v| v.to_str().unwrap().to_owned());
    let status = response.status();
    (status, etag, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

async fn get(router: &Router, path: &str) -> (StatusCode, Option<String>, Vec<u8>) {
    call(router, "GET", path, String::new()).await
}

#[tokio::test]
async fn the_documents_of_a_node_are_as_printed() {
    let site = Site::new().await;
    site.network.refresh(n1()).await.unwrap();
    site.compute.refresh(n1()).await.unwrap();
    let router = routers(&site, "n1");
    let (status, etag, body) = get(&router, "/node/v1/network?wait=0&format=2").await;
    assert_eq!((status, etag.as_deref()), (StatusCode::OK, Some("\"1.1\"")));
    let network: NodeNetwork = serde_json::from_slice(&body).unwrap();
    golden("network_document.json", &(serde_json::to_string_pretty(&network).unwrap() + "\n"));
    let (_, _, body) = get(&router, "/node/v1/compute?wait=0&format=2").await;
    let compute: NodeCompute = serde_json::from_slice(&body).unwrap();
    golden("compute_document.json", &(serde_json::to_string_pretty(&compute).unwrap() + "\n"));
}

#[tokio::test]
async fn a_version_is_given_to_one_content_only() {
    let site = Site::new().await;
    let first = site.network.refresh(n1()).await.unwrap();
    assert_eq!(site.network.refresh(n1()).await.unwrap(), first);
    site.sql("delete from security_group_rules where id = '00000000-0000-7000-8000-000000000601'").await;
    let second = site.network.refresh(n1()).await.unwrap();
    assert_eq!(second, DocumentVersion { generation: first.generation + 1, ..first });
    // The other VPC is no business of this node.
    site.sql("update vpcs set generation = generation + 1 where id = '00000000-0000-7000-8000-000000000102'")
        .await;
    assert_eq!(site.network.refresh(n1()).await.unwrap(), second);
}

/// What is read where only rules changed makes the document that everything read makes; and it is read only then.
#[tokio::test]
async fn rules_alone_are_read_alone() {
    let site = Site::new().await;
    let sql = async |statement: String| site.sql(statement.leak()).await;
    let vpc = uuid(0x101);
    let rule = |no: u64, group: u64, peer: &str| {
        format!(
            "insert into security_group_rules
               (id, account_id, vpc_id, security_group_id, direction, protocol, port_range, peer_cidr, peer_group_id)
             values ('{}', '{}', '{vpc}', '{}', 'inbound', 'tcp', '[{no},{no}]', {peer})",
            uuid(0x6000 + no),
            uuid(0xa1),
            uuid(group),
        )
    };
    let gone = |no: u64| format!("delete from security_group_rules where id = '{}'", uuid(0x6000 + no));
    let group = |no: u64| format!("null, '{}'", uuid(no));
    // The change, and whether everything has to be read.
    let changes = [
        (rule(1, 0x502, "'198.51.100.0/24', null"), false),
        (rule(2, 0x501, &group(0x502)), false),
        // A group that nobody named yet: who is in it was never read.
        (rule(3, 0x502, &group(0x504)), true),
        (gone(3), false),
        (rule(4, 0x502, &group(0x504)), true),
        // Of a group that no port has: nothing is read, but the generation counts.
        (rule(5, 0x504, "'192.0.2.0/24', null"), false),
        (gone(1), false),
        (gone(4), false),
    ];
    site.network.refresh(n1()).await.unwrap();
    for (step, (change, everything)) in changes.into_iter().enumerate() {
        sql(change).await;
        // Nobody counts it, so that it shows what is read.
        sql(format!("update security_groups set name = 'name-{step}' where id = '{}'", uuid(0x502))).await;
        let counted = format!(
            "update vpcs set generation = generation + 1, rules_generation = generation + 1 where id = '{vpc}'"
        );
        sql(counted).await;
        site.network.refresh_vpcs(&[vpc], Default::default()).await.unwrap();
        let look = |document: &NodeNetwork| {
            let named = document.ports.iter().flat_map(|p| &p.metadata.security_groups);
            (named.cloned().collect::<Vec<_>>(), document.groups.clone(), document.vpcs.clone())
        };
        let (names, groups, vpcs) = site.network.documents().look(n1(), look).unwrap();
        assert_eq!(names.contains(&format!("name-{step}")), everything, "step {step}: {names:?}");
        site.network.refresh(n1()).await.unwrap();
        let whole = site.network.documents().look(n1(), look).unwrap();
        assert_eq!((groups, vpcs), (whole.1, whole.2), "step {step}");
    }
    // Whatever does not say that it is of rules alone is not.
    sql(format!("update security_groups set name = 'other' where id = '{}'", uuid(0x502))).await;
    sql(format!("update vpcs set generation = generation + 1 where id = '{vpc}'")).await;
    sql(format!(
        "update vpcs set generation = generation + 1, rules_generation = generation + 1 where id = '{vpc}'"
    ))
    .await;
    site.network.refresh_vpcs(&[vpc], Default::default()).await.unwrap();
    let names = |document: &NodeNetwork| format!("{:?}", document.ports);
    assert!(site.network.documents().look(n1(), names).unwrap().contains("other"));
}

#[tokio::test]
async fn a_poll_waits_for_something_newer() {
    let site = Site::new().await;
    let version = site.network.refresh(n1()).await.unwrap();
    let router = routers(&site, "n1");
    let path = format!("/node/v1/network?after={version}&wait=0&format=3");
    assert_eq!(get(&router, &path).await.0, StatusCode::NO_CONTENT);
    let waiting = tokio::spawn({
        let router = router.clone();
        async move { get(&router, &format!("/node/v1/network?after={version}&wait=20&format=3")).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    site.sql("update vpcs set generation = generation + 1 where id = '00000000-0000-7000-8000-000000000101'")
        .await;
    let newer = site.network.refresh(n1()).await.unwrap();
    let (status, etag, _) =
        tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("still waiting").unwrap();
    assert_eq!((status, etag), (StatusCode::OK, Some(format!("\"{newer}\""))));
}

#[tokio::test]
async fn a_node_is_who_its_listener_says() {
    let site = Site::new().await;
    site.network.refresh(n1()).await.unwrap();
    assert_eq!(get(&routers(&site, "stranger"), "/node/v1/network?wait=0").await.0, StatusCode::NOT_FOUND);
    let report = NetworkReport {
        format: gon_proto::FORMAT,
        node: n1(),
        applied: DocumentVersion::default(),
        vpcs: vec![],
        ports: vec![],
        overlay: None,
    };
    let body = serde_json::to_string(&report).unwrap();
    let (status, _, _) = call(&routers(&site, "n2"), "POST", "/node/v1/network/report", body.clone()).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, _, _) = call(&routers(&site, "n1"), "POST", "/node/v1/network/report", body).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let other = serde_json::to_string(&NetworkReport { format: 99, ..report }).unwrap();
    let (status, _, _) = call(&routers(&site, "n1"), "POST", "/node/v1/network/report", other).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    for bad in ["after=1", "after=x.y", "after=1.2.3"] {
        let (status, _, _) = get(&routers(&site, "n1"), &format!("/node/v1/network?{bad}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}");
    }
}

fn node_report(name: &str, digest: &str) -> NodeReport {
    let image = gon_proto::ImageReport {
        digest: digest.repeat(64),
        kind: gon_proto::ImageKind::Disk,
        min_memory_mib: 512,
        disk_gib: 3,
        description: "Debian".to_owned(),
        architecture: "x86_64".to_owned(),
    };
    NodeReport {
        format: gon_proto::FORMAT,
        name: name.to_owned(),
        availability_zone: "local-1a".to_owned(),
        vcpus: 16,
        memory_mib: 4096,
        disk_gib: 50,
        accelerator: "tcg".to_owned(),
        ovs_datapath: "netdev".to_owned(),
        versions: std::collections::BTreeMap::new(),
        images: [("debian-12".to_owned(), image)].into(),
        labels: [("rack".to_owned(), "3".to_owned())].into(),
        address: Some([192, 0, 2, 7].into()),
        boot_id: None,
        node: None,
        epoch: None,
    }
}

#[tokio::test]
async fn a_node_joins_by_reporting_and_brings_its_images() {
    let site = Site::empty().await;
    let router = routers(&site, "w1");
    let post = async |report: &NodeReport| {
        call(&router, "POST", "/node/v1/node", serde_json::to_string(report).unwrap()).await
    };
    let (status, _, body) = post(&node_report("w1", "a")).await;
    assert_eq!(status, StatusCode::OK);
    let joined: NodeAnswer = serde_json::from_slice(&body).unwrap();
    assert_eq!(joined.epoch, 1);
    assert_eq!(site.rung().await.len(), 1);
    // Again: the same node, and nobody is rung.
    let (_, _, body) = post(&node_report("w1", "a")).await;
    assert_eq!(serde_json::from_slice::<NodeAnswer>(&body).unwrap(), joined);
    assert!(site.rung().await.is_empty());
    let images = "select jsonb_build_array(id, left(digest, 1), kind, disk_gib, account_id is null, deleted_at is null)
                  from images order by id";
    let first = site.rows(images).await;
    assert_eq!(first.len(), 1);
    // A new recipe is a new image; the old one is retired, and comes back under its id.
    post(&node_report("w1", "b")).await;
    let both = site.rows(images).await;
    assert_eq!((both.len(), &both[0][5], &both[1][5]), (2, &false.into(), &true.into()));
    post(&node_report("w1", "a")).await;
    let back = site.rows(images).await;
    assert_eq!((back.len(), &back[0], &back[1][5]), (2, &first[0], &false.into()));
    // Nobody else's name, and nothing that cannot be kept.
    assert_eq!(post(&node_report("w2", "a")).await.0, StatusCode::FORBIDDEN);
    let bad = NodeReport { accelerator: "magic".to_owned(), ..node_report("w1", "a") };
    assert_eq!(post(&bad).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(post(&node_report("w1", "z")).await.0, StatusCode::BAD_REQUEST);
    let _ = id::<gon_types::id::Node>(1);
}

/// What an agent of the version before says.
const OLD_NODE: &str = r#"{ "format": 2, "name": "w1", "availability_zone": "local-1a", "vcpus": 4, "memory_mib": 4096,
  "disk_gib": 50, "accelerator": "tcg", "ovs_datapath": "netdev", "versions": { "gond": "0.0.9" }, "images": {} }"#;
const OLD_NETWORK: &str = r#"{ "format": 2, "node": "00000000-0000-7000-8000-000000000001",
  "applied": { "epoch": 1, "generation": 1 }, "vpcs": [], "ports": [] }"#;
const OLD_COMPUTE: &str = r#"{ "format": 2, "node": "00000000-0000-7000-8000-000000000001",
  "accepted": { "epoch": 1, "generation": 1 }, "instances": [ { "id": "00000000-0000-7000-8000-000000000701",
  "generation": 2, "placement_epoch": 1, "observed": "running", "reboot_seq": 0, "reason": null } ] }"#;

#[tokio::test]
async fn agents_of_the_version_before_are_understood_and_understand() {
    let site = Site::new().await;
    // Something that only the newer format can say.
    site.sql(
        "insert into operations (id, account_id, user_id, request_id, action, resource, resource_id, goal, deadline)
         values ('00000000-0000-7000-8000-000000002001', '00000000-0000-7000-8000-0000000000a1',
           '00000000-0000-7000-8000-0000000000b1', 'req-1', 'RunInstances', 'instance',
           '00000000-0000-7000-8000-000000000702', 'running', now() + interval '1 hour');
         update nodes set overlay_address = '192.0.2.2', overlay_mtu = 1500 where name = 'n2';",
    )
    .await;
    site.network.refresh(n1()).await.unwrap();
    site.compute.refresh(n1()).await.unwrap();
    let router = routers(&site, "n1");
    let joins = routers(&site, "w1");
    for (router, path, body) in [
        (&joins, "/node/v1/node", OLD_NODE),
        (&router, "/node/v1/network/report", OLD_NETWORK),
        (&router, "/node/v1/compute/report", OLD_COMPUTE),
    ] {
        let (status, _, answer) = call(router, "POST", path, body.to_owned()).await;
        assert!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&answer));
    }
    let seen = site.row("select jsonb_build_array(state) from instances where id::text like '%701'").await;
    assert_eq!(seen, serde_json::json!(["running"]));

    // The same document in both: under the same version, and without what the older one has no words for.
    for path in ["/node/v1/network?wait=0", "/node/v1/compute?wait=0"] {
        let read = async |format: &str| {
            let (status, etag, body) = get(&router, &format!("{path}{format}")).await;
            assert_eq!(status, StatusCode::OK, "{path}{format}");
            (etag, serde_json::from_slice::<serde_json::Value>(&body).unwrap())
        };
        let (new, old) = (read("&format=3").await, read("&format=2").await);
        assert_eq!(&old.0, &new.0, "{path}");
        // One that is ahead of us is told what we know.
        assert_eq!(read("&format=4").await, new, "{path}");
        assert_eq!((&new.1["format"], &old.1["format"]), (&3.into(), &2.into()));
        let says = |document: &serde_json::Value| document.to_string().contains("\"acl");
        assert!(!says(&old.1), "{path}: {}", old.1);
        if path.contains("network") {
            assert!(says(&new.1), "{path}: the test proves nothing");
        }
        for too_old in ["&format=1", ""] {
            assert_eq!(get(&router, &format!("{path}{too_old}")).await.0, StatusCode::BAD_REQUEST);
        }
        assert_eq!(get(&router, &format!("{path}&format=0")).await.0, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn what_an_acl_keeps_back_is_never_left_out() {
    let site = Site::new().await;
    site.sql(
        "insert into network_acl_entries (account_id, vpc_id, network_acl_id, direction, rule_number, action, protocol,
           port_range, icmp_type, icmp_code, cidr_block)
         select '00000000-0000-7000-8000-0000000000a1', '00000000-0000-7000-8000-000000000101',
           '00000000-0000-7000-8000-000000000b02', 'inbound', *
         from (values (200, 'allow'::acl_action, 6::smallint, '[22,23)'::int4range, null::smallint, null::smallint,
                       '10.0.0.0/8'::cidr),
           (90, 'deny', 1, null, 3, 4, '0.0.0.0/0'), (95, 'deny', 47, null, null, null, '192.0.2.0/24')) as e;
         update network_acl_associations set network_acl_id = '00000000-0000-7000-8000-000000000b02'
           where subnet_id = '00000000-0000-7000-8000-000000000202';",
    )
    .await;
    site.network.refresh(n1()).await.unwrap();
    let router = routers(&site, "n1");
    let read = async |format: u32| {
        let (status, _, body) = get(&router, &format!("/node/v1/network?wait=0&format={format}")).await;
        assert_eq!(status, StatusCode::OK);
        serde_json::from_slice::<serde_json::Value>(&body).unwrap()
    };
    let document = read(3).await;
    let entry = |number: u32,
                 action: &str,
                 protocol: u8,
                 ports: serde_json::Value,
                 icmp: serde_json::Value,
                 cidr: &str| {
        serde_json::json!({ "direction": "inbound", "number": number, "action": action, "protocol": protocol,
            "ports": ports, "icmp": icmp, "cidr": cidr })
    };
    let null = serde_json::Value::Null;
    let message = serde_json::json!({ "icmp_type": 3, "code": 4 });
    assert_eq!(
        document["acls"][1]["entries"],
        serde_json::json!([
            entry(90, "deny", 1, null.clone(), message, "0.0.0.0/0"),
            entry(95, "deny", 47, null.clone(), null.clone(), "192.0.2.0/24"),
            entry(200, "allow", 6, "22".into(), null, "10.0.0.0/8"),
        ])
    );
    assert_eq!(document["subnets"][1]["acl"], document["acls"][1]["id"]);
    assert_eq!(document["acls"].as_array().unwrap().len(), 2, "the ones in use");
    // An agent that has no word for them gets what it refuses: another format, with fields it does not know.
    assert_eq!(read(2).await, document);
}
