//! Recovery of instances of a lost node (row D5): grants, and what is done when they stand still.

use std::time::Duration;

use gon_control::compute::ComputeSettings;
use gon_control::compute::recover::Look;
use gon_control::documents::NodeError;
use gon_proto::{
    ComputeReport, GrantAnswer, GrantRequest, InstanceReport, NodeCompute, ObservedInstance, PowerSpec,
};
use gon_store::StoreError;
use gon_types::DocumentVersion;
use serde_json::{Value, json};

use crate::site::{Site, id, n1};

const WEB: u64 = 0x701;
const DB: u64 = 0x702;

/// Node n1 has the instances web (pending) and db (running), which want to be recovered, and others, which do not; n1 is
/// silent, n2 is not.
async fn site() -> Site {
    let site = Site::new().await;
    site.sql(
        "alter table instances disable trigger instances_change;
         update instances set auto_recover = true where name in ('web', 'db');
         alter table instances enable trigger instances_change;
         update nodes set last_report_at = now() where name = 'n2';",
    )
    .await;
    site
}

fn at(seconds: u64) -> impl Fn() -> Duration + Sync {
    move || Duration::from_secs(seconds)
}

async fn ask(site: &Site, epoch: u64, known: Option<u64>) -> Result<GrantAnswer, NodeError> {
    site.compute.grant(n1(), GrantRequest { format: gon_proto::FORMAT, epoch, known }).await
}

fn said(number: u64, granted: bool, epoch: u64) -> GrantAnswer {
    GrantAnswer { epoch, number, granted }
}

async fn placed(site: &Site) -> Vec<Value> {
    site.rows(
        "select jsonb_build_array(i.name, n.name, i.state, i.placement_epoch, i.generation, x.private_ip, w.name)
         from instances i left join nodes n on n.id = i.node_id
           left join network_interfaces x on x.instance_id = i.id and x.deleted_at is null
           left join nodes w on w.id = x.node_id
         where i.name in ('web', 'db') order by i.name",
    )
    .await
}

#[tokio::test]
async fn a_grant_goes_to_who_knows_the_number_and_the_epoch() {
    let site = site().await;
    assert_eq!(ask(&site, 1, None).await.unwrap(), said(0, false, 1));
    assert_eq!(ask(&site, 1, Some(0)).await.unwrap(), said(1, true, 1));
    // The answer was lost: the number stands still until it is known.
    for _ in 0..3 {
        assert_eq!(ask(&site, 1, Some(0)).await.unwrap(), said(1, false, 1));
    }
    assert_eq!(ask(&site, 1, Some(1)).await.unwrap(), said(2, true, 1));
    site.sql("update nodes set epoch = 2 where name = 'n1'").await;
    assert_eq!(ask(&site, 1, Some(2)).await.unwrap(), said(2, false, 2));
    assert_eq!(ask(&site, 2, Some(2)).await.unwrap(), said(3, true, 2));
    // Nobody but the leader gives one.
    gon_store::leader::take_over(&site.database.store, "instance-manager", "other").await.unwrap();
    let refused = ask(&site, 2, Some(3)).await;
    assert!(matches!(refused, Err(NodeError::Store(StoreError::Deposed { .. }))), "{refused:?}");
    assert_eq!(site.row("select to_jsonb(grant_seq) from nodes where name = 'n1'").await, json!(3));
}

#[tokio::test]
async fn what_is_lost_for_long_is_started_elsewhere() {
    let site = site().await;
    assert_eq!(ask(&site, 1, Some(0)).await.unwrap(), said(1, true, 1));
    let before = placed(&site).await;
    // Ninety seconds before the eyes of this leader, and not one less.
    assert_eq!(site.compute.recover_at(false, &at(100)).await.unwrap(), Look::Nothing);
    assert_eq!(site.compute.recover_at(false, &at(189)).await.unwrap(), Look::Nothing);
    assert_eq!(placed(&site).await, before);
    assert_eq!(site.compute.recover_at(false, &at(190)).await.unwrap(), Look::Recovered(2));
    assert_eq!(
        placed(&site).await,
        [
            json!(["db", "n2", "pending", 2, 3, "10.0.2.10", "n2"]),
            json!(["web", "n2", "pending", 2, 3, "10.0.1.10", "n2"])
        ]
    );
    let fact = |what| site.row(what);
    // What they held goes with them; what was lent is given back; nothing else has moved.
    assert_eq!(fact("select jsonb_agg(jsonb_build_array(name, used_vcpus, used_memory_mib, epoch) order by name) from nodes").await,
        json!([["n1", 1, 256, 2], ["n2", 3, 768, 1]]));
    assert_eq!(fact("select to_jsonb(count(*)) from node_remains").await, json!(2));
    assert_eq!(
        fact("select jsonb_agg(jsonb_build_array(from_state, to_state) order by from_state) from events")
            .await,
        json!([["pending", "pending"], ["running", "pending"]])
    );
    assert_eq!(
        fact("select jsonb_build_array(action, goal, state, parameters ->> 'reason') from operations where action = 'RecoverInstances' limit 1").await,
        json!(["RecoverInstances", "running", "running",
            "Server.NodeLost: its node n1 was lost; it is started anew from its image on another node"])
    );
    assert_eq!(
        fact("select to_jsonb(network_interface_id) from public_ips where address = '203.0.113.2'").await,
        json!(id::<gon_types::id::NetworkInterface>(0x801).uuid())
    );
    // The node comes back and asks under its old epoch: nothing. It is told to remove what it had, and that frees it.
    assert_eq!(ask(&site, 1, Some(1)).await.unwrap(), said(1, false, 2));
    site.compute.round(None, &Default::default()).await.unwrap();
    let document = site.compute.documents().latest(n1()).unwrap();
    let told: NodeCompute = serde_json::from_slice(&document.body).unwrap();
    let left: Vec<_> = told.instances.iter().filter(|i| i.id == id(WEB) || i.id == id(DB)).collect();
    assert_eq!(left.len(), 2);
    for spec in left {
        assert_eq!(
            (spec.power, spec.placement_epoch, spec.generation, spec.fence),
            (PowerSpec::Terminated, 1, 3, None)
        );
    }
    let gone = |instance: u64, placement_epoch| InstanceReport {
        id: id(instance),
        generation: 3,
        placement_epoch,
        observed: ObservedInstance::Gone,
        reboot_seq: 0,
        reason: None,
    };
    let report = |instances| ComputeReport {
        format: gon_proto::FORMAT,
        node: n1(),
        accepted: DocumentVersion::default(),
        instances,
        node_epoch: Some(2),
    };
    site.compute.ingest(n1(), report(vec![gone(WEB, 2), gone(DB, 1)])).await.unwrap();
    assert_eq!(
        fact("select jsonb_agg(instance_id) from node_remains").await,
        json!([id::<gon_types::id::Instance>(WEB).uuid()])
    );
    // Where it is now, its specification names the epoch of that node.
    let there = site.compute.documents().latest(id(2)).unwrap();
    let there: NodeCompute = serde_json::from_slice(&there.body).unwrap();
    let web = there.instances.iter().find(|i| i.id == id(WEB)).unwrap();
    assert_eq!((web.fence, web.power, web.placement_epoch), (Some(1), PowerSpec::Running, 2));
    // An agent that has no word for it is not told of it at all.
    let mut older = there.clone();
    older.speak(gon_proto::OLDEST_FORMAT);
    assert!(older.instances.iter().all(|i| i.id != id(WEB)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_has_changed_meanwhile_is_seen_in_the_transaction() {
    let site = site().await;
    let before = placed(&site).await;
    site.compute.recover_at(false, &at(0)).await.unwrap();
    // Between the look and the effect, the node is heard of.
    let raise = || {
        let handle = tokio::runtime::Handle::current();
        let store = site.database.store.clone();
        std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    handle.block_on(gon_store::admin::script(
                        &store,
                        "update nodes set grant_seq = grant_seq + 1 where name = 'n1'",
                    ))
                })
                .join()
                .unwrap()
                .unwrap();
        });
        Duration::from_secs(1000)
    };
    assert_eq!(site.compute.recover_at(false, &raise).await.unwrap(), Look::Nothing);
    assert_eq!(placed(&site).await, before);
    // And its time begins again.
    assert_eq!(site.compute.recover_at(false, &at(1050)).await.unwrap(), Look::Nothing);
    // Another leader begins at zero, whatever this one has seen; this one can do nothing any more.
    let other = site.standby(ComputeSettings::default());
    other.take_over("other").await.unwrap();
    assert_eq!(other.recover_at(false, &at(5000)).await.unwrap(), Look::Nothing);
    let deposed = site.compute.recover_at(false, &at(5000)).await;
    assert!(matches!(deposed, Err(StoreError::Deposed { .. })), "{deposed:?}");
    assert_eq!(placed(&site).await, before);
    assert_eq!(other.recover_at(false, &at(5090)).await.unwrap(), Look::Recovered(2));
}

#[tokio::test]
async fn when_it_may_be_us_nothing_is_moved() {
    let site = site().await;
    let before = placed(&site).await;
    let look = async |stale, seconds| site.compute.recover_at(stale, &at(seconds)).await.unwrap();
    assert_eq!(look(false, 0).await, Look::Nothing);
    assert_eq!(look(true, 90).await, Look::Waits("etcd is away".to_owned()));
    // Both nodes at once.
    site.sql("update nodes set last_report_at = '2020-01-01'").await;
    assert_eq!(
        look(false, 91).await,
        Look::Waits("2 of 2 nodes are lost at once: it may be us that are cut off".to_owned())
    );
    // There is room nowhere.
    site.sql("update nodes set last_report_at = now(), images = '{}' where name = 'n2'").await;
    let Look::Waits(why) = look(false, 92).await else { panic!("there is no room") };
    assert!(why.contains("n2 does not have the image"), "{why}");
    assert_eq!(placed(&site).await, before);
    assert_eq!(site.row("select to_jsonb(epoch) from nodes where name = 'n1'").await, json!(1));
    // Who stopped, or did not ask for it, stays.
    site.sql(
        "update nodes n set images = o.images from nodes o where o.name = 'n1' and n.name = 'n2';
         update instances set power = 'stopped', state = 'stopping', generation = generation + 1 where name = 'db';",
    )
    .await;
    assert_eq!(look(false, 93).await, Look::Recovered(1));
    assert_eq!(placed(&site).await[0], json!(["db", "n1", "stopping", 1, 3, "10.0.2.10", "n1"]));
    assert_eq!(look(false, 94).await, Look::Nothing);
}
