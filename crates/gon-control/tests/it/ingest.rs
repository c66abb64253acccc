use gon_agent::ledger::{Ledger, LedgerError};
use gon_proto::{
    ComputeReport, InstanceReport, NetworkReport, ObservedInstance, PortReport, PortStatus, VpcReport,
};
use gon_types::DocumentVersion;
use serde_json::{Value, json};

use crate::site::{Site, alive, id, n1};

const WEB: u64 = 0x701;
const OLD: u64 = 0x703;

fn said(instance: u64, generation: u64, observed: ObservedInstance) -> InstanceReport {
    InstanceReport { id: id(instance), generation, placement_epoch: 1, observed, reboot_seq: 0, reason: None }
}

async fn report(site: &Site, instances: Vec<InstanceReport>) {
    let report = ComputeReport {
        format: gon_proto::FORMAT,
        node: n1(),
        accepted: DocumentVersion::default(),
        instances,
        node_epoch: None,
    };
    site.compute.ingest(n1(), report).await.unwrap();
}

async fn web(site: &Site) -> Value {
    site.row(
        "select jsonb_build_array(state, power, generation, observed_generation, state_reason) from instances
         where name = 'web'",
    )
    .await
}

#[tokio::test]
async fn a_stale_report_changes_nothing() {
    let site = Site::new().await;
    let before = web(&site).await;
    report(&site, vec![said(WEB, 1, ObservedInstance::Running)]).await;
    report(&site, vec![said(WEB, 3, ObservedInstance::Running)]).await;
    let old = InstanceReport { placement_epoch: 0, ..said(WEB, 2, ObservedInstance::Running) };
    report(&site, vec![old]).await;
    // An instance of another node is none of its business.
    report(&site, vec![said(0x704, 2, ObservedInstance::Failed)]).await;
    assert_eq!(web(&site).await, before);
    assert_eq!(site.row("select to_jsonb(state) from instances where name = 'far'").await, json!("running"));
    assert!(site.rung().await.is_empty());
}

#[tokio::test]
async fn an_instance_runs_and_shuts_itself_down() {
    let site = Site::new().await;
    report(&site, vec![said(WEB, 2, ObservedInstance::Starting)]).await;
    assert_eq!(web(&site).await, json!(["pending", "running", 2, 2, null]));
    report(&site, vec![said(WEB, 2, ObservedInstance::Running)]).await;
    assert_eq!(web(&site).await, json!(["running", "running", 2, 2, null]));
    assert_eq!(site.rung().await, ["event a1"]);
    // The same again is nothing new.
    report(&site, vec![said(WEB, 2, ObservedInstance::Running), said(0x702, 2, ObservedInstance::Running)])
        .await;
    assert!(site.rung().await.is_empty());

    report(&site, vec![said(WEB, 2, ObservedInstance::ShutDownByGuest)]).await;
    assert_eq!(
        web(&site).await,
        json!(["stopped", "stopped", 3, 2, "Client.InstanceInitiatedShutdown: the guest powered itself off"])
    );
    // Its specification changed, and its public address went to rest.
    assert_eq!(site.rung().await, ["event a1", "instance 701", "vpc 101"]);
    assert_eq!(
        site.row(
            "select jsonb_build_array(account_id, network_interface_id, auto,
               rests_until between now() + interval '9 minutes' and now() + interval '10 minutes')
             from public_ips where address = '203.0.113.2'"
        )
        .await,
        json!([null, null, false, true])
    );
    assert_eq!(
        site.rows("select jsonb_build_array(from_state, to_state, actor) from events order by seq").await,
        [
            json!(["pending", "running", "instance-manager"]),
            json!(["running", "stopped", "instance-manager"])
        ]
    );
}

#[tokio::test]
async fn a_failure_is_told() {
    let site = Site::new().await;
    let failed = InstanceReport {
        reason: Some("the image has another digest".to_owned()),
        ..said(WEB, 2, ObservedInstance::Failed)
    };
    report(&site, vec![failed]).await;
    assert_eq!(
        web(&site).await,
        json!([
            "stopped",
            "stopped",
            3,
            2,
            "Server.InternalError: the instance could not be started: the image has another digest"
        ])
    );
}

fn network(applied: DocumentVersion, generation: u64, ports: &[u64]) -> NetworkReport {
    NetworkReport {
        format: gon_proto::FORMAT,
        node: n1(),
        applied,
        vpcs: vec![VpcReport { id: id(0x101), generation }],
        ports: ports.iter().map(|p| PortReport { id: id(*p), status: PortStatus::Ready }).collect(),
        overlay: None,
    }
}

async fn applied(site: &Site) -> Vec<Value> {
    site.rows("select jsonb_build_array(applied_generation) from vpc_nodes").await
}

#[tokio::test]
async fn what_is_applied_never_goes_back_nor_beyond() {
    let site = Site::new().await;
    let version = site.network.refresh(n1()).await.unwrap();
    let take = async |generation| {
        site.network.ingest(n1(), network(version, generation, &[0x801, 0x802, 0x803])).await.unwrap();
    };
    take(6).await;
    assert_eq!(applied(&site).await, [json!([6])]);
    take(5).await;
    assert_eq!(applied(&site).await, [json!([6])]);
    take(8).await;
    assert_eq!(applied(&site).await, [json!([6])]);
    take(7).await;
    assert_eq!(applied(&site).await, [json!([7])]);
    // A node that says nothing of a VPC of its ports keeps what it had.
    site.network.ingest(n1(), NetworkReport { vpcs: vec![], ..network(version, 7, &[0x801]) }).await.unwrap();
    assert_eq!(applied(&site).await, [json!([7])]);
}

#[tokio::test]
async fn a_closed_port_is_recorded() {
    let site = Site::new().await;
    let version = site.network.refresh(n1()).await.unwrap();
    let mut report = network(version, 7, &[0x801, 0x802]);
    report.ports[1].status = PortStatus::Degraded { reason: "no such table".to_owned() };
    site.network.ingest(n1(), report).await.unwrap();
    assert_eq!(
        site.rows(
            "select jsonb_build_array(port_no, port_state, port_reason) from network_interfaces
             where node_id = '00000000-0000-7000-8000-000000000001' order by id"
        )
        .await,
        [json!([16, "ready", null]), json!([17, "degraded", "no such table"]), json!([18, "unknown", null])]
    );
}

async fn finalizers(site: &Site) -> Value {
    site.row("select to_jsonb(finalizers) from instances where name = 'old'").await
}

#[tokio::test]
async fn an_instance_ends_when_guest_and_port_are_gone() {
    let site = Site::new().await;
    site.sql("update instances set finalizers = '{compute,network}' where name = 'old'").await;
    let with = site.network.refresh(n1()).await.unwrap();

    // The guest first: a report without the port does not count while the document has it.
    site.network.ingest(n1(), network(with, 7, &[0x801, 0x802])).await.unwrap();
    assert_eq!(finalizers(&site).await, json!(["compute", "network"]));
    report(&site, vec![said(OLD, 4, ObservedInstance::Stopping)]).await;
    assert_eq!(finalizers(&site).await, json!(["compute", "network"]));
    report(&site, vec![said(OLD, 4, ObservedInstance::Gone)]).await;
    assert_eq!(finalizers(&site).await, json!(["network"]));
    assert_eq!(site.rung().await, ["instance 703", "vpc 101"]);

    // Then the port: neither a report of the old document, nor one that still has it, nor one of another epoch.
    let without = site.network.refresh(n1()).await.unwrap();
    assert!(without > with);
    site.network.ingest(n1(), network(with, 7, &[0x801, 0x802])).await.unwrap();
    site.network.ingest(n1(), network(without, 8, &[0x801, 0x802, 0x803])).await.unwrap();
    let future = DocumentVersion { epoch: 9, generation: 9 };
    site.network.ingest(n1(), network(future, 8, &[0x801, 0x802])).await.unwrap();
    assert_eq!(finalizers(&site).await, json!(["network"]));
    site.network.ingest(n1(), network(without, 8, &[0x801, 0x802])).await.unwrap();
    assert_eq!(finalizers(&site).await, json!([]));
    assert_eq!(site.rung().await, ["instance 703"]);

    // Nothing is left: the tombstone, and everything it held is free.
    site.compute.round(None, &alive(&["n1", "n2"])).await.unwrap();
    assert_eq!(
        site.row(
            "select jsonb_build_array(i.state, i.node_id, i.run_as_uid, i.generation, i.terminated_at is not null,
               n.deleted_at is not null, n.node_id, n.port_no,
               (select count(*) from network_interface_security_groups m where m.network_interface_id = n.id))
             from instances i join network_interfaces n on n.instance_id = i.id where i.name = 'old'"
        )
        .await,
        json!(["terminated", null, null, 5, true, true, null, null, 0])
    );
    // The user's address stays the user's.
    assert_eq!(
        site.row(
            "select jsonb_build_array(account_id is not null, network_interface_id, allocation_id is not null)
             from public_ips where address = '203.0.113.3'"
        )
        .await,
        json!([true, null, true])
    );
    assert_eq!(
        site.row("select jsonb_build_array(used_vcpus, used_memory_mib) from nodes where name = 'n1'").await,
        json!([2, 512])
    );
    assert_eq!(site.rung().await, ["event a1", "vpc 101"]);
    // A route to it became a black hole, which the document already said.
    assert_eq!(
        site.rows("select jsonb_build_array(from_state, to_state) from events").await,
        [json!(["shutting-down", "terminated"])]
    );
}

#[tokio::test]
async fn a_restarted_controller_believes_a_report_of_its_own_first_document() {
    let site = Site::new().await;
    let first = site.network.refresh(n1()).await.unwrap();
    site.network.ingest(n1(), network(first, 7, &[0x801, 0x802])).await.unwrap();
    assert_eq!(finalizers(&site).await, json!([]));
}

#[tokio::test]
async fn a_mass_removal_is_announced_exactly_when_it_is_one() {
    let site = Site::new().await;
    let flag = async || {
        site.compute.refresh(n1()).await.unwrap();
        let body = site.compute.documents().latest(n1()).unwrap().body.clone();
        serde_json::from_slice::<gon_proto::NodeCompute>(&body).unwrap().mass_change_ok
    };
    assert!(!flag().await);
    site.sql(
        "insert into instances (id, account_id, user_id, vpc_id, subnet_id, name, instance_type, vcpus, memory_mib,
           image_id, reservation_id, state, power, node_id, placement_epoch, run_as_uid)
         select ('00000000-0000-7000-8000-0000000010' || to_char(n, 'FM00'))::uuid,
           '00000000-0000-7000-8000-0000000000a1', '00000000-0000-7000-8000-0000000000b1',
           '00000000-0000-7000-8000-000000000101', '00000000-0000-7000-8000-000000000201', 'x' || n, 'g1.nano', 1, 64,
           '00000000-0000-7000-8000-0000000000c1', '00000000-0000-7000-8000-000000000005', 'running', 'running',
           '00000000-0000-7000-8000-000000000001', 1, 600100 + n
         from generate_series(1, 10) n",
    )
    .await;
    assert!(!flag().await);
    site.sql(
        "update instances set power = 'terminated', state = 'shutting-down', generation = generation + 1
              where name in ('x1', 'x2', 'x3')",
    )
    .await;
    assert!(!flag().await);
    site.sql(
        "update instances set power = 'terminated', state = 'shutting-down', generation = generation + 1
              where name = 'x4'",
    )
    .await;
    assert!(flag().await);
}

/// D9: what a controller says by mistake, as its nodes' agents take it. None of it stops anything.
#[tokio::test]
async fn what_is_said_by_mistake_is_not_taken() {
    let site = Site::new().await;
    site.sql(
        "insert into instances (id, account_id, user_id, vpc_id, subnet_id, name, instance_type, vcpus, memory_mib,
           image_id, reservation_id, state, power, node_id, placement_epoch, run_as_uid)
         select ('00000000-0000-7000-8000-0000000010' || to_char(n, 'FM00'))::uuid,
           '00000000-0000-7000-8000-0000000000a1', '00000000-0000-7000-8000-0000000000b1',
           '00000000-0000-7000-8000-000000000101', '00000000-0000-7000-8000-000000000201', 'x' || n, 'g1.nano', 1, 64,
           '00000000-0000-7000-8000-0000000000c1', '00000000-0000-7000-8000-000000000005', 'running', 'running',
           '00000000-0000-7000-8000-000000000001', 1, 600100 + n
         from generate_series(1, 10) n",
    )
    .await;
    let served = async || {
        site.compute.refresh(n1()).await.unwrap();
        site.compute.documents().latest(n1()).unwrap().body.clone()
    };
    let parse = |body: &[u8]| serde_json::from_slice::<gon_proto::NodeCompute>(body);
    let dir = tempfile::tempdir().unwrap();
    let mut node = Ledger::open(dir.path(), n1()).unwrap();
    let body = served().await;
    let first = parse(&body).unwrap();
    let all = first.instances.len();
    node.accept(first.clone()).unwrap();
    // Truncated, wherever.
    assert!((0..body.len()).step_by(37).all(|end| parse(&body[..end]).is_err()));
    // A read that brings nothing, or too little: the controller does not say that it is meant, and the node does nothing.
    for few in ["false", "name in ('x1', 'x2')"] {
        let view = format!(
            "alter table instances rename to all_instances;
             create view instances as select * from all_instances where {few};"
        );
        site.sql(view.leak()).await;
        let short = parse(&served().await).unwrap();
        assert!(short.instances.len() <= 2 && !short.mass_change_ok, "{few}: {short:?}");
        let refused = node.judge(&short);
        assert!(matches!(refused, Err(LedgerError::MassChange { .. })), "{few}: {refused:?}");
        // The planted bug: a controller that says "meant" of whatever it read.
        let meant = gon_proto::NodeCompute { mass_change_ok: true, ..short };
        assert!(node.judge(&meant).unwrap(), "{few}: the brake does not look at the mark");
        site.sql("drop view instances; alter table all_instances rename to instances").await;
        // The next whole read is taken as ever.
        let whole = parse(&served().await).unwrap();
        assert_eq!(whole.instances.len(), all);
        node.accept(whole).unwrap();
    }
    // An older one, whatever it says.
    let refused = node.judge(&gon_proto::NodeCompute { mass_change_ok: true, ..first });
    assert!(matches!(refused, Err(LedgerError::Stale { .. })), "{refused:?}");
    // What users did is meant.
    site.sql(
        "update instances set power = 'terminated', state = 'shutting-down', generation = generation + 1
         where name like 'x%'",
    )
    .await;
    let meant = parse(&served().await).unwrap();
    assert!(meant.mass_change_ok);
    node.accept(meant).unwrap();
}
