//! Two of each controller: one leads, and one that only believes so does no harm (rows A5, D6).

mod asleep;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::{Extension, Router};
use gon_cluster::{
    Alive, Announcement, ClusterError, EtcdConfig, EtcdLiveness, Leadership, Lease, Liveness, MemoryLiveness,
};
use gon_control::compute::{ComputeSettings, InstanceManager};
use gon_control::documents::{self, NodeError, NodeIdentity};
use gon_control::network::NetworkController;
use gon_proto::{
    ComputeReport, InstanceReport, NetworkReport, NodeReport, ObservedInstance, PortReport, PortStatus,
    VpcReport,
};
use gon_store::StoreError;
use gon_testkit::proxy::{Faults, Proxy};
use gon_types::DocumentVersion;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::site::{Site, alive, id, n1};

/// Everything a controller could have changed.
async fn everything(site: &Site) -> Vec<Value> {
    site.rows(
        "select jsonb_build_object('instances', (select jsonb_agg(to_jsonb(i) order by id) from instances i),
           'nodes', (select jsonb_agg(to_jsonb(n) order by id) from nodes n),
           'interfaces', (select jsonb_agg(to_jsonb(n) order by id) from network_interfaces n),
           'vpcs', (select jsonb_agg(to_jsonb(v) order by id) from vpcs v),
           'applied', (select jsonb_agg(to_jsonb(a) order by vpc_id, node_id) from vpc_nodes a),
           'events', (select count(*) from events), 'outbox', (select count(*) from outbox),
           'operations', (select jsonb_agg(to_jsonb(o) order by id) from operations o),
           'keys', (select count(*) from idempotency_keys))",
    )
    .await
}

fn compute_report(instance: u64, generation: u64, observed: ObservedInstance) -> ComputeReport {
    let said = InstanceReport {
        id: id(instance),
        generation,
        placement_epoch: 1,
        observed,
        reboot_seq: 0,
        reason: None,
    };
    ComputeReport {
        format: gon_proto::FORMAT,
        node: n1(),
        accepted: DocumentVersion::default(),
        instances: vec![said],
        node_epoch: None,
    }
}

fn node_report(zone: &str) -> NodeReport {
    NodeReport {
        format: gon_proto::FORMAT,
        name: "n1".to_owned(),
        availability_zone: zone.to_owned(),
        vcpus: 16,
        memory_mib: 8192,
        disk_gib: 100,
        accelerator: "tcg".to_owned(),
        ovs_datapath: "netdev".to_owned(),
        versions: Default::default(),
        images: Default::default(),
        labels: Default::default(),
        address: None,
        boot_id: None,
        node: None,
        epoch: None,
    }
}

/// Work for every kind of effect.
async fn prepare(site: &Site) {
    site.sql(
        "insert into instances (id, account_id, user_id, vpc_id, subnet_id, name, instance_type, vcpus, memory_mib,
           image_id, reservation_id) values
           ('00000000-0000-7000-8000-000000001001', '00000000-0000-7000-8000-0000000000a1',
            '00000000-0000-7000-8000-0000000000b1', '00000000-0000-7000-8000-000000000101',
            '00000000-0000-7000-8000-000000000201', 'waits', 'g1.nano', 1, 64,
            '00000000-0000-7000-8000-0000000000c1', '00000000-0000-7000-8000-000000000005');
         insert into instances (id, account_id, user_id, vpc_id, subnet_id, name, instance_type, vcpus, memory_mib,
           image_id, reservation_id, power, state, finalizers) values
           ('00000000-0000-7000-8000-000000001002', '00000000-0000-7000-8000-0000000000a1',
            '00000000-0000-7000-8000-0000000000b1', '00000000-0000-7000-8000-000000000101',
            '00000000-0000-7000-8000-000000000201', 'ends', 'g1.nano', 1, 64,
            '00000000-0000-7000-8000-0000000000c1', '00000000-0000-7000-8000-000000000005', 'terminated',
            'shutting-down', '{}');
         insert into operations (id, account_id, user_id, request_id, action, resource, resource_id, goal, deadline)
         values ('00000000-0000-7000-8000-000000002001', '00000000-0000-7000-8000-0000000000a1',
           '00000000-0000-7000-8000-0000000000b1', 'req-1', 'DrainNode', 'node',
           '00000000-0000-7000-8000-000000000002', 'drained', now() + interval '1 hour'),
           ('00000000-0000-7000-8000-000000002002', '00000000-0000-7000-8000-0000000000a1',
           '00000000-0000-7000-8000-0000000000b1', 'req-1', 'StopInstances', 'instance',
           '00000000-0000-7000-8000-000000000702', 'stopped', now() - interval '1 second');
         -- What the heartbeat says is what is known.
         update nodes set images = '{}' where name = 'n1';
         insert into idempotency_keys (account_id, key, request_sha256, status, response, created_at) values
           ('00000000-0000-7000-8000-0000000000a1', 'old', decode(repeat('00', 32), 'hex'), 200, '{}',
            now() - interval '2 days');",
    )
    .await;
}

/// All that a manager and a controller can do to others.
const EFFECTS: [&str; 8] = ["finish", "place", "take", "heartbeat", "node", "tick", "prune", "applied"];

/// One of them, done or refused.
async fn act(what: &str, manager: &InstanceManager, controller: &NetworkController, network_epoch: u64) {
    match what {
        "finish" => {
            let _ = manager.round(Some(&Default::default()), &alive(&[])).await;
        }
        "place" => {
            let _ = manager.place(&alive(&["n1", "n2"])).await;
        }
        "take" => {
            let _ = manager.ingest(n1(), compute_report(0x701, 2, ObservedInstance::Running)).await;
        }
        "heartbeat" => {
            let _ = manager.ingest_node(node_report("local-1a")).await;
        }
        "node" => {
            let _ = manager.ingest_node(node_report("local-1b")).await;
        }
        "tick" => {
            let _ = manager.tick("zombie").await;
        }
        "prune" => {
            let _ = manager.prune().await;
        }
        _ => {
            let applied = DocumentVersion { epoch: network_epoch, generation: 1 };
            let report = NetworkReport {
                format: gon_proto::FORMAT,
                node: n1(),
                applied,
                vpcs: vec![VpcReport { id: id(0x101), generation: 7 }],
                ports: vec![PortReport { id: id(0x801), status: PortStatus::Ready }],
                overlay: None,
            };
            let _ = controller.ingest(n1(), report).await;
        }
    }
}

/// Lets a manager and a controller do all they can, each thing in the belief of leading under these epochs, and tells
/// which of them changed anything. What was planned before the pause is in their hands: reports in the middle of being
/// taken, documents already read.
async fn harm(
    site: &Site,
    (manager, controller): (&InstanceManager, &NetworkController),
    (compute_epoch, network_epoch): (u64, u64),
) -> Vec<&'static str> {
    let mut harm = Vec::new();
    for what in EFFECTS {
        manager.assume(compute_epoch);
        controller.assume(network_epoch);
        let before = everything(site).await;
        act(what, manager, controller, network_epoch).await;
        if everything(site).await != before {
            harm.push(what);
        }
    }
    harm
}

#[tokio::test]
async fn a_leader_that_slept_through_its_fall_does_no_harm() {
    let site = Site::new().await;
    prepare(&site).await;
    let old = (site.compute.ready().leads().unwrap(), site.network.ready().leads().unwrap());
    // It sleeps; others take over.
    let (heir, other_heir) = (site.standby(ComputeSettings::default()), site.another_controller());
    let new = (heir.take_over("heir").await.unwrap(), other_heir.take_over("heir").await.unwrap());
    assert!(new > old);
    assert!(site.compute.leads() && site.network.leads(), "nobody has told them");
    assert_eq!(harm(&site, (&site.compute, &site.network), old).await, [] as [&str; 0]);
    // Having tried, they know.
    let report = || compute_report(0x701, 2, ObservedInstance::Running);
    assert!(matches!(
        site.compute.ingest(n1(), report()).await,
        Err(NodeError::Store(StoreError::Deposed { .. }))
    ));
    assert!(!site.compute.leads() && !site.network.leads());
    assert!(matches!(site.compute.place(&alive(&[])).await, Err(StoreError::Deposed { .. })));
    assert!(matches!(site.compute.refresh(n1()).await, Err(StoreError::Deposed { .. })));
    assert!(matches!(site.compute.ingest(n1(), report()).await, Err(NodeError::NotLeading)));
    // The test of the test: without the fence (one that always says "current") each of these is harm.
    assert_eq!(harm(&site, (&site.compute, &site.network), new).await, EFFECTS);
}

#[tokio::test]
async fn an_old_belief_does_not_end_a_new_reign() {
    let site = Site::new().await;
    let old = site.compute.ready().leads().unwrap();
    // A report is being taken under the old epoch while the same process is elected again.
    let heir = site.standby(ComputeSettings::default());
    heir.take_over("heir").await.unwrap();
    let again = site.compute.take_over("test").await.unwrap();
    assert!(again > old + 1);
    heir.ingest(n1(), compute_report(0x701, 2, ObservedInstance::Running)).await.unwrap_err();
    assert!(!heir.leads() && site.compute.leads());
    site.compute.round(None, &alive(&[])).await.unwrap();
}

fn routers(controller: &Arc<NetworkController>, manager: &Arc<InstanceManager>) -> Router {
    documents::network_router(Arc::clone(controller))
        .merge(documents::compute_router(Arc::clone(manager)))
        .layer(Extension(NodeIdentity("n1".into())))
}

async fn call(router: &Router, method: &str, path: &str, body: String) -> (StatusCode, bool, Vec<u8>) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let retry = response.headers().contains_key("retry-after");
    (response.status(), retry, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

async fn until(what: &str, limit: Duration, mut is_so: impl AsyncFnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !is_so().await {
        assert!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begin.elapsed()
}

/// A manager and a controller that run in this process as if in one of their own.
struct Server {
    manager: Arc<InstanceManager>,
    controller: Arc<NetworkController>,
    router: Router,
    stop: CancellationToken,
}

fn serve(site: &Site, name: &'static str, liveness: Arc<dyn Liveness>) -> Server {
    let manager = Arc::new(site.standby(ComputeSettings::default()));
    let controller = Arc::new(site.another_controller());
    let stop = CancellationToken::new();
    tokio::spawn({
        let (manager, stop, liveness) = (Arc::clone(&manager), stop.clone(), Arc::clone(&liveness));
        async move { manager.run(&*liveness, name, stop).await }
    });
    tokio::spawn({
        let (controller, stop) = (Arc::clone(&controller), stop.clone());
        async move { controller.run(&*liveness, name, stop).await }
    });
    let router = routers(&controller, &manager);
    Server { manager, controller, router, stop }
}

impl Server {
    fn is_ready(&self) -> bool {
        self.manager.ready().get() && self.controller.ready().get()
    }
    async fn version(&self, path: &str) -> DocumentVersion {
        let (status, _, body) = call(&self.router, "GET", path, String::new()).await;
        assert_eq!(status, StatusCode::OK);
        serde_json::from_value(serde_json::from_slice::<Value>(&body).unwrap()["version"].clone()).unwrap()
    }
}

const PATHS: [&str; 2] = ["/node/v1/network?wait=0&format=3", "/node/v1/compute?wait=0&format=3"];

#[tokio::test]
async fn only_the_leader_serves_and_its_heir_outranks_it() {
    let site = Site::new().await;
    let liveness: Arc<dyn Liveness> = Arc::new(MemoryLiveness::new());
    let first = serve(&site, "first", Arc::clone(&liveness));
    until("the first leads", Duration::from_secs(10), async || first.is_ready()).await;
    let second = serve(&site, "second", Arc::clone(&liveness));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!second.manager.leads() && !second.controller.leads());

    // Who does not lead sends the agents on, for documents and for reports.
    let report = serde_json::to_string(&compute_report(0x701, 2, ObservedInstance::Running)).unwrap();
    let node = serde_json::to_string(&node_report("local-1a")).unwrap();
    for (method, path, body) in [
        ("GET", PATHS[0], String::new()),
        ("GET", PATHS[1], String::new()),
        ("POST", "/node/v1/compute/report", report.clone()),
        ("POST", "/node/v1/node", node.clone()),
    ] {
        let (status, retry, _) = call(&second.router, method, path, body.clone()).await;
        assert_eq!((status, retry), (StatusCode::SERVICE_UNAVAILABLE, true), "{method} {path}");
        assert!(call(&first.router, method, path, body).await.0.is_success(), "{method} {path}");
    }
    let mut before = Vec::new();
    for path in PATHS {
        before.push(first.version(path).await);
    }
    // An agent waits at the first for something newer when that one ends.
    let waiting = tokio::spawn({
        let router = first.router.clone();
        let path = format!("/node/v1/compute?after={}&wait=30&format=3", before[1]);
        async move { call(&router, "GET", &path, String::new()).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    first.stop.cancel();
    let took = until("the second leads", Duration::from_secs(15), async || second.is_ready()).await;
    assert!(took < Duration::from_secs(15));
    let (status, _, _) = tokio::time::timeout(Duration::from_secs(2), waiting).await.unwrap().unwrap();
    assert_eq!(status, StatusCode::NO_CONTENT, "the poll ended with its controller");
    assert_eq!(
        call(&first.router, "GET", PATHS[0], String::new()).await.0,
        StatusCode::SERVICE_UNAVAILABLE,
        "it ended"
    );
    for (path, before) in PATHS.iter().zip(before) {
        let after = second.version(path).await;
        assert!(after > before && after.epoch > before.epoch, "{path}: {before} then {after}");
    }
    second.stop.cancel();
}

/// A cluster store that gives tickets when the test says so, also to several at once, and takes them away.
struct Tickets {
    give: Arc<Semaphore>,
    take: Arc<Notify>,
}

impl Tickets {
    fn new() -> Arc<Self> {
        Arc::new(Self { give: Arc::new(Semaphore::new(0)), take: Arc::new(Notify::new()) })
    }
}

struct Ticket(Arc<Notify>);

#[async_trait]
impl Leadership for Ticket {
    async fn lost(&self) {
        self.0.notified().await;
    }
    fn holds(&self) -> bool {
        true
    }
    async fn resign(self: Box<Self>) {}
}

#[async_trait]
impl Liveness for Tickets {
    async fn register(&self, _: &str, _: Duration) -> Result<Box<dyn Lease>, ClusterError> {
        Err(ClusterError::Lost)
    }
    async fn nodes(&self) -> watch::Receiver<Alive> {
        watch::Sender::new(Alive::default()).subscribe()
    }
    async fn campaign(&self, _: &str, _: &str) -> Result<Box<dyn Leadership>, ClusterError> {
        self.give.acquire().await.unwrap().forget();
        Ok(Box::new(Ticket(Arc::clone(&self.take))))
    }
    fn announce(&self, _: &str, _: &str) -> Announcement {
        Announcement::new(())
    }
    async fn services(&self, _: &str) -> watch::Receiver<std::collections::BTreeSet<String>> {
        watch::Sender::new(Default::default()).subscribe()
    }
    async fn setting(&self, _: &str) -> watch::Receiver<Option<String>> {
        watch::Sender::new(None).subscribe()
    }
    async fn publish(&self, _: &str, _: &str) -> Result<(), ClusterError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_lost_ticket_ends_nothing_and_a_higher_epoch_ends_everything() {
    let site = Site::new().await;
    let (mine, theirs) = (Tickets::new(), Tickets::new());
    mine.give.add_permits(2);
    let first = serve(&site, "first", Arc::clone(&mine) as _);
    until("the first leads", Duration::from_secs(10), async || first.is_ready()).await;
    let epoch = first.manager.ready().leads();
    // The cluster store takes both tickets back and gives no new ones: with nobody else there, they go on (ADR 6).
    mine.take.notify_waiters();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(first.is_ready());
    assert_eq!(first.manager.ready().leads(), epoch);
    // Somebody else is elected while they still believe: they see it within moments, in PostgreSQL alone.
    theirs.give.add_permits(2);
    let second = serve(&site, "second", Arc::clone(&theirs) as _);
    until("the second leads", Duration::from_secs(10), async || second.is_ready()).await;
    until("the first has stopped", Duration::from_secs(5), async || {
        !first.manager.leads() && !first.controller.leads()
    })
    .await;
    assert!(second.is_ready());
    // Elected again, it raises the epoch anew and the second stops.
    mine.give.add_permits(2);
    until("the first leads again", Duration::from_secs(15), async || first.is_ready()).await;
    until("the second has stopped", Duration::from_secs(5), async || {
        !second.manager.leads() && !second.controller.leads()
    })
    .await;
    assert!(first.manager.ready().leads() > epoch);
    first.stop.cancel();
    second.stop.cancel();
}

/// Nobody resigns: the first is cut off from etcd, as one that crashed or sleeps would be, and its lease runs out.
#[tokio::test]
async fn who_falls_silent_is_followed_within_fifteen_seconds() {
    let site = Site::new().await;
    let etcd = gon_testkit::etcd::one().await;
    let endpoint = etcd.endpoints().remove(0);
    let proxy = Proxy::start(endpoint.trim_start_matches("http://").parse().unwrap(), None, 1).await.unwrap();
    let over = |endpoint: String| Arc::new(EtcdLiveness::new(EtcdConfig::new(vec![endpoint])));
    let first = serve(&site, "first", over(format!("http://{}", proxy.address())) as _);
    until("the first leads", Duration::from_secs(15), async || first.is_ready()).await;
    let second = serve(&site, "second", over(endpoint) as _);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!second.manager.leads() && !second.controller.leads());
    let before = (first.version(PATHS[0]).await, first.version(PATHS[1]).await);

    proxy.set_both(Faults::frozen());
    until("the second leads", Duration::from_secs(15), async || second.is_ready()).await;
    assert!(second.version(PATHS[0]).await > before.0 && second.version(PATHS[1]).await > before.1);
    // The first has heard nothing from etcd; PostgreSQL tells it.
    until("the first has stopped", Duration::from_secs(3), async || {
        !first.manager.leads() && !first.controller.leads()
    })
    .await;
    let (status, retry, _) = call(&first.router, "GET", PATHS[1], String::new()).await;
    assert_eq!((status, retry), (StatusCode::SERVICE_UNAVAILABLE, true));
    first.stop.cancel();
    second.stop.cancel();
}
