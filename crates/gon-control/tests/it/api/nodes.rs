//! What operators do with nodes, and what becomes of the instances of one that falls silent.

use axum::http::Method;
use gon_control::documents::NodeError;
use gon_proto::{ComputeReport, NodeReport, ObservedInstance, PowerSpec};
use gon_types::DocumentVersion;
use gon_types::id::NodeId;
use serde_json::{Value, json};
use uuid::Uuid;

use super::cloud::{Cloud, manager, node_report};
use super::harness::id;

async fn node(cloud: &Cloud, name: &str) -> Value {
    let nodes = cloud.api.get("/nodes").await.ok();
    nodes["items"].as_array().unwrap().iter().find(|n| n["name"] == name).expect("no such node").clone()
}

async fn stopped(cloud: &Cloud, instance: Uuid) {
    cloud.say(instance, ObservedInstance::Running).await;
    cloud.api.post(&format!("/instances/{instance}/stop"), json!({})).await.ok();
    cloud.say(instance, ObservedInstance::Stopped).await;
}

#[tokio::test]
async fn a_cordoned_node_takes_no_new_instances() {
    let cloud = Cloud::new().await;
    let subnet = cloud.subnet().await;
    let n1 = node(&cloud, "n1").await;
    assert_eq!((&n1["labels"], &n1["address"]), (&json!({ "rack": "3" }), &json!("192.0.2.1")));
    let path = format!("/nodes/{}", id(&n1));
    let cordoned = cloud.api.post(&format!("{path}/cordon"), json!({})).await.ok();
    assert_eq!((&cordoned["state"], &cordoned["schedulable"]), (&json!("cordoned"), &json!(false)));
    // Twice is once.
    cloud.api.post(&format!("{path}/cordon"), json!({})).await.ok();
    let waits = cloud.instance(&subnet, json!({})).await;
    let told = cloud.get(waits).await;
    assert_eq!(
        (&told["state"], &told["worker_node"], told["state_reason"].as_str().unwrap()),
        (&json!("pending"), &Value::Null, "Server.InsufficientInstanceCapacity: n1 takes no new instances")
    );
    assert_eq!(cloud.api.get("/nodes?state=cordoned").await.ok()["items"].as_array().unwrap().len(), 1);
    assert_eq!(cloud.api.get("/nodes?state=ready").await.ok()["items"], json!([]));
    assert_eq!(cloud.api.get("/nodes?state=alive").await.problem(), (400, "InvalidParameterValue"));
    let ready = cloud.api.post(&format!("{path}/uncordon"), json!({})).await.ok();
    assert_eq!(ready["state"], "ready");
    cloud.manager.place(&Default::default()).await.unwrap();
    assert_eq!(cloud.get(waits).await["worker_node"], "n1");
}

#[tokio::test]
async fn a_drain_moves_what_it_can_and_names_the_rest() {
    let cloud = Cloud::new().await;
    let subnet = cloud.subnet().await;
    let runs = cloud.instance(&subnet, json!({})).await;
    let off = cloud.instance(&subnet, json!({})).await;
    let image = cloud.api.image("debian-12").await;
    let disk = cloud.instance(&subnet, json!({ "image_id": image })).await;
    cloud.say(runs, ObservedInstance::Running).await;
    stopped(&cloud, off).await;
    stopped(&cloud, disk).await;
    cloud.node("n2").await;
    let n1 = cloud.node_id("n1").await;
    let shown = |instance: Uuid| gon_types::id::InstanceId::from_uuid(instance).to_string();

    let path = format!("/nodes/{n1}");
    let answer = cloud.api.post(&format!("{path}/drain"), json!({})).await;
    assert_eq!(answer.status, 202);
    let answer = answer.ok();
    assert_eq!(answer["state"], "draining");
    let operation = answer["operation_id"].as_str().unwrap().to_owned();
    assert_eq!(cloud.operation(&operation).await["state"], "running");
    cloud.manager.tick("m").await.unwrap();
    let seen = cloud.operation(&operation).await;
    assert_eq!(
        (&seen["progress"]["blockers"], &seen["progress"]["staying"], &seen["progress"]["moving"]),
        (&json!([shown(runs)]), &json!([shown(disk)]), &json!(1))
    );
    assert_eq!((&seen["tries"], seen["error"].is_string()), (&json!(1), true));
    // The one that keeps nothing there is to be removed from the node, and from nowhere else.
    let document = cloud.document(n1).await;
    let power = |instance: Uuid| document.instances.iter().find(|i| i.id.uuid() == instance).map(|i| i.power);
    assert_eq!(
        (power(runs), power(off), power(disk)),
        (Some(PowerSpec::Running), Some(PowerSpec::Terminated), Some(PowerSpec::Stopped))
    );
    assert_eq!(cloud.get(off).await["state"], "stopped");
    // A start meanwhile waits for the move.
    cloud.api.post(&format!("/instances/{off}/start"), json!({})).await.ok();
    cloud.manager.place(&Default::default()).await.unwrap();
    assert_eq!(cloud.get(off).await["worker_node"], "n1");
    let address = cloud.get(off).await["private_ip"].clone();
    cloud.say(off, ObservedInstance::Gone).await;
    assert_eq!(cloud.get(off).await["worker_node"], Value::Null);
    cloud.manager.place(&Default::default()).await.unwrap();
    let moved = cloud.get(off).await;
    assert_eq!((&moved["worker_node"], &moved["private_ip"]), (&json!("n2"), &address));
    assert_eq!(
        cloud.api.count("select used_vcpus::bigint from nodes where name = 'n1'").await,
        2,
        "its room is free"
    );
    cloud.say(off, ObservedInstance::Running).await;

    // Asked again and more firmly: the old operation makes room for the new.
    let answer = cloud.api.post(&format!("{path}/drain"), json!({ "stop_instances": true })).await.ok();
    let firmer = answer["operation_id"].as_str().unwrap().to_owned();
    assert_eq!(cloud.operation(&operation).await["state"], "cancelled");
    cloud.manager.tick("m").await.unwrap();
    let told = cloud.get(runs).await;
    assert_eq!(told["state"], "stopping");
    assert!(told["state_reason"].as_str().unwrap().starts_with("Server.ScheduledStop"));
    cloud.say(runs, ObservedInstance::Stopping).await;
    cloud.say(runs, ObservedInstance::Stopped).await;
    cloud.api.sql("update operations set due_at = now() where finished_at is null").await;
    cloud.manager.tick("m").await.unwrap();
    cloud.say(runs, ObservedInstance::Gone).await;
    assert_eq!(cloud.operation(&firmer).await["state"], "running");
    cloud.api.sql("update operations set due_at = now() where finished_at is null").await;
    cloud.manager.tick("m").await.unwrap();
    let done = cloud.operation(&firmer).await;
    assert_eq!(
        (&done["state"], &done["progress"]["staying"], &done["error"]),
        (&json!("succeeded"), &json!([shown(disk)]), &Value::Null)
    );
    // It goes on being drained until somebody says otherwise; its disks are in the way of its removal.
    let refused = cloud.api.delete(&path).await;
    assert_eq!(refused.problem(), (409, "DependencyViolation"));
    assert_eq!(refused.body["blockers"], json!([shown(disk)]));
    assert_eq!(node(&cloud, "n1").await["state"], "draining");
    cloud.api.post(&format!("{path}/uncordon"), json!({})).await.ok();
    assert_eq!(node(&cloud, "n1").await["state"], "ready");
}

#[tokio::test]
async fn a_drain_is_worked_on_by_one_at_a_time() {
    let cloud = Cloud::new().await;
    let subnet = cloud.subnet().await;
    let runs = cloud.instance(&subnet, json!({})).await;
    cloud.say(runs, ObservedInstance::Running).await;
    let n1 = cloud.node_id("n1").await;
    let answer = cloud.api.post(&format!("/nodes/{n1}/drain"), json!({ "stop_instances": true })).await.ok();
    let operation = answer["operation_id"].as_str().unwrap().to_owned();
    // Two that both believe to lead since the same epoch: only the lease keeps them apart.
    let twin = manager(&cloud.api);
    twin.assume(cloud.manager.ready().leads().unwrap());
    let held = cloud.manager.claim("one").await.unwrap().expect("nobody held it");
    assert_eq!(twin.claim("two").await.unwrap(), None);
    // The first dies with it. When its time is over the second takes it.
    cloud.api.sql("update operations set lease_until = now() where lease_owner = 'one'").await;
    let taken = twin.claim("two").await.unwrap().expect("the dead one still holds it");
    assert_eq!((taken.id, taken.tries), (held.id, 2));
    // The first was only asleep: it finds that it may not, and has done nothing.
    assert!(!cloud.manager.drain(&held, "one").await.unwrap());
    assert_eq!(cloud.get(runs).await["state"], "running");
    // The same owner's older lease is no better.
    assert!(!twin.drain(&gon_store::operations::WorkRow { tries: 1, ..taken.clone() }, "two").await.unwrap());
    assert!(twin.drain(&taken, "two").await.unwrap());
    assert_eq!(cloud.get(runs).await["state"], "stopping");
    assert_eq!(cloud.operation(&operation).await["tries"], 2);
    // The test of the test: were the lease not compared, the sleeper would have worked as well.
    let forged = gon_store::operations::WorkRow { tries: 3, ..held };
    cloud
        .api
        .sql(
            "update operations set lease_owner = 'one', lease_until = now() + interval '1 minute', tries = 3
             where finished_at is null",
        )
        .await;
    assert!(cloud.manager.drain(&forged, "one").await.unwrap());
}

#[tokio::test]
async fn an_empty_node_is_removed_for_good() {
    let cloud = Cloud::new().await;
    let joined = cloud.node("n2").await;
    let told =
        |name: &str, epoch| NodeReport { node: Some(joined.node), epoch: Some(epoch), ..node_report(name) };
    cloud.manager.ingest_node(told("n2", joined.epoch)).await.unwrap();
    let path = format!("/nodes/{}", joined.node);
    let removed = cloud.api.delete(&path).await.ok();
    assert_eq!((&removed["state"], &removed["epoch"]), (&json!("removed"), &json!(2)));
    assert_eq!(cloud.api.get(&path).await.ok()["state"], "removed");
    let names = |nodes: &Value| -> Vec<Value> {
        nodes["items"].as_array().unwrap().iter().map(|n| n["name"].clone()).collect()
    };
    assert_eq!(names(&cloud.api.get("/nodes").await.ok()), [json!("n1")]);
    assert_eq!(names(&cloud.api.get("/nodes?state=removed").await.ok()), [json!("n2")]);
    for verb in ["cordon", "uncordon", "drain"] {
        assert_eq!(
            cloud.api.post(&format!("{path}/{verb}"), json!({})).await.problem(),
            (409, "IncorrectState")
        );
    }
    assert_eq!(cloud.api.delete(&path).await.problem(), (409, "IncorrectState"));
    // What it still says changes nothing, whatever it believes of its epoch.
    for epoch in [1, 2] {
        let refused = cloud.manager.ingest_node(told("n2", epoch)).await;
        assert!(matches!(refused, Err(NodeError::Removed)), "{refused:?}");
    }
    assert_eq!(cloud.api.count("select count(*) from nodes where name = 'n2'").await, 1);
    // Another server of that name is another node.
    let another = cloud.node("n2").await;
    assert_ne!(another.node, joined.node);
    assert_eq!(cloud.api.count("select count(*) from nodes where name = 'n2'").await, 2);
    assert!(matches!(cloud.manager.ingest_node(told("n2", 2)).await, Err(NodeError::Removed)));
}

#[tokio::test]
async fn a_node_that_does_not_answer_can_be_given_up() {
    let cloud = Cloud::new().await;
    let subnet = cloud.subnet().await;
    let joined = cloud.node("n2").await;
    cloud.api.post(&format!("/nodes/{}/cordon", cloud.node_id("n1").await), json!({})).await.ok();
    let lost = cloud.instance(&subnet, json!({})).await;
    cloud.say(lost, ObservedInstance::Running).await;
    let stop = cloud.api.post(&format!("/instances/{lost}/stop"), json!({})).await.ok();
    let stopping = stop["operation_id"].as_str().unwrap().to_owned();
    let path = format!("/nodes/{}", joined.node);
    assert_eq!(cloud.api.delete(&path).await.problem(), (409, "DependencyViolation"));
    assert_eq!(
        cloud.api.delete(&format!("{path}?force=yes")).await.problem(),
        (400, "InvalidParameterValue")
    );
    // One that answers is not given up.
    let refused = cloud.api.delete(&format!("{path}?force=true")).await;
    assert_eq!(refused.problem(), (409, "DependencyViolation"));
    cloud.api.sql("update nodes set last_report_at = now() - interval '20 seconds' where name = 'n2'").await;
    assert_eq!(cloud.api.delete(&path).await.problem(), (409, "DependencyViolation"));
    cloud.api.delete(&format!("{path}?force=true")).await.ok();
    let ended = cloud.get(lost).await;
    assert_eq!(
        (&ended["state"], &ended["worker_node"], &ended["private_ip"]),
        (&json!("terminated"), &Value::Null, &Value::Null)
    );
    assert!(ended["state_reason"].as_str().unwrap().starts_with("Server.NodeRemoved"), "{ended}");
    let operation = cloud.operation(&stopping).await;
    assert_eq!(operation["state"], "failed");
    assert!(operation["error"].as_str().unwrap().starts_with("Server.NodeRemoved"));
    assert_eq!(cloud.api.count("select used_vcpus::bigint from nodes where name = 'n2'").await, 0);
    assert_eq!(cloud.api.count("select epoch from nodes where name = 'n2'").await, 2);
    // It comes back and says that the instance runs: too late.
    let report = ComputeReport {
        format: gon_proto::FORMAT,
        node: joined.node,
        accepted: DocumentVersion::default(),
        instances: vec![],
        node_epoch: Some(joined.epoch),
    };
    let refused = cloud.manager.ingest(joined.node, report).await;
    assert!(matches!(refused, Err(NodeError::OldEpoch)), "{refused:?}");
}

#[tokio::test]
async fn a_report_of_an_old_epoch_changes_nothing_and_learns_the_new_one() {
    let cloud = Cloud::new().await;
    let subnet = cloud.subnet().await;
    let joined = cloud.node("n1").await;
    let instance = cloud.instance(&subnet, json!({})).await;
    cloud.api.sql("update nodes set epoch = 5, last_report_at = now() - interval '9 seconds'").await;
    let before = cloud.api.get("/nodes").await.ok();
    let stale = NodeReport {
        node: Some(joined.node),
        epoch: Some(joined.epoch),
        labels: [("rack".to_owned(), "9".to_owned())].into(),
        ..node_report("n1")
    };
    let answer = cloud.manager.ingest_node(stale.clone()).await.unwrap();
    assert_eq!((answer.node, answer.epoch), (joined.node, 5));
    // Not even that it lives.
    assert_eq!(cloud.api.get("/nodes").await.ok(), before);
    let report = |node_epoch| ComputeReport {
        format: gon_proto::FORMAT,
        node: joined.node,
        accepted: DocumentVersion::default(),
        instances: vec![gon_proto::InstanceReport {
            id: gon_types::id::InstanceId::from_uuid(instance),
            generation: 2,
            placement_epoch: 1,
            observed: ObservedInstance::Running,
            reboot_seq: 0,
            reason: None,
        }],
        node_epoch,
    };
    let refused = cloud.manager.ingest(joined.node, report(Some(1))).await;
    assert!(matches!(refused, Err(NodeError::OldEpoch)), "{refused:?}");
    assert_eq!(cloud.get(instance).await["state"], "pending");
    cloud.manager.ingest(joined.node, report(Some(5))).await.unwrap();
    assert_eq!(cloud.get(instance).await["state"], "running");
    cloud.manager.ingest_node(NodeReport { epoch: Some(5), ..stale }).await.unwrap();
    assert_eq!(node(&cloud, "n1").await["labels"], json!({ "rack": "9" }));
}

#[tokio::test]
async fn what_is_on_a_silent_node_is_unknown_everywhere() {
    let cloud = Cloud::new().await;
    let subnet = cloud.subnet().await;
    let instance = cloud.instance(&subnet, json!({ "name": "quiet" })).await;
    cloud.say(instance, ObservedInstance::Running).await;
    let list = async |filter: &str| {
        let items = cloud.api.get(&format!("/instances{filter}")).await.ok();
        items["items"].as_array().unwrap().iter().map(|i| i["state"].clone()).collect::<Vec<_>>()
    };
    let told = "select count(*) from events where resource = 'instance' and (from_state, to_state) = ('running', 'unknown')";
    let known = "select count(*) from events where resource = 'instance' and (from_state, to_state) = ('unknown', 'running')";

    // Within the limit nothing happens; the limit is below the promise.
    cloud.api.sql("update nodes set last_report_at = now() - interval '12 seconds'").await;
    cloud.manager.tick("m").await.unwrap();
    assert_eq!(cloud.get(instance).await["state"], "running");
    assert_eq!(cloud.api.count(told).await, 0);
    assert_eq!(
        cloud.api.count("select node_is_silent(now() - interval '15 seconds')::int::bigint").await,
        i64::from(gon_cluster::NODE_TTL.as_secs() == 15)
    );

    cloud.api.sql("update nodes set last_report_at = now() - interval '15 seconds'").await;
    // By itself, before anybody noticed.
    let seen = cloud.get(instance).await;
    assert_eq!((&seen["state"], &seen["state_code"]), (&json!("unknown"), &json!(255)));
    assert!(seen["state_reason"].as_str().unwrap().contains("it was running then"), "{seen}");
    assert_eq!(list("").await, [json!("unknown")]);
    assert_eq!(list("?state=unknown").await, [json!("unknown")]);
    assert_eq!(list("?name=quiet").await, [json!("unknown")]);
    assert_eq!(list("?state=running").await, [] as [Value; 0]);
    assert_eq!(node(&cloud, "n1").await["state"], "unknown");
    assert_eq!(cloud.api.get("/nodes?state=unknown").await.ok()["items"].as_array().unwrap().len(), 1);
    let by_ids =
        gon_store::instances::by_ids(&mut cloud.api.database.store.conn().await.unwrap(), &[instance]).await;
    assert_eq!(gon_control::service::instances::show(by_ids.unwrap().remove(0)).state, "unknown");
    // No new instance goes there.
    let waits = cloud.instance(&subnet, json!({})).await;
    assert!(cloud.get(waits).await["state_reason"].as_str().unwrap().contains("n1 is not heard of"));
    // Who watches is told once, when it begins and when it ends.
    cloud.manager.tick("m").await.unwrap();
    cloud.manager.tick("m").await.unwrap();
    assert_eq!((cloud.api.count(told).await, cloud.api.count(known).await), (1, 0));
    cloud.node("n1").await;
    cloud.node("n1").await;
    assert_eq!((cloud.api.count(told).await, cloud.api.count(known).await), (1, 1));
    assert_eq!(cloud.get(instance).await["state"], "running");
    assert_eq!(list("?state=unknown").await, [] as [Value; 0]);
    assert_eq!(node(&cloud, "n1").await["state"], "ready");
}

#[tokio::test]
async fn a_member_sees_no_nodes_and_no_others_operations() {
    let cloud = Cloud::new().await;
    let n1 = cloud.node_id("n1").await;
    let drain = cloud.api.post(&format!("/nodes/{n1}/drain"), json!({})).await.ok();
    let operation = drain["operation_id"].as_str().unwrap();
    let other = cloud.api.user("other", "other", "member").await;
    for path in [format!("/operations/{operation}"), "/operations/op-00000000000000000".to_owned()] {
        let answer = cloud.api.as_user(&other, Method::GET, &path, None).await;
        assert_eq!(answer.problem(), (404, "InvalidOperationID.NotFound"));
    }
    let list = cloud.api.as_user(&other, Method::GET, "/operations", None).await.ok();
    assert_eq!(list["items"], json!([]));
    assert_eq!(NodeId::from_uuid(n1).to_string(), id(&drain));
}
