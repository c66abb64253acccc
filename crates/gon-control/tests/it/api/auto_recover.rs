//! `auto_recover` as users see it (row D5): the flag, what of it their nodes are told, and what a recovery looks like.

use std::time::Duration;

use gon_control::compute::recover::Look;
use gon_proto::ObservedInstance;
use serde_json::json;
use uuid::Uuid;

use super::cloud::Cloud;
use super::harness::id;

/// The fence that the node of this name is told for an instance.
async fn fence(cloud: &Cloud, node: &str, instance: Uuid) -> Option<u64> {
    let document = cloud.document(cloud.node_id(node).await).await;
    document.instances.iter().find(|i| i.id.uuid() == instance).expect("it is there").fence
}

#[tokio::test]
async fn the_flag_is_shown_and_changed_while_the_instance_is_stopped() {
    let cloud = Cloud::new().await;
    let api = &cloud.api;
    let subnet = cloud.subnet().await;
    let launched = api.launch(&subnet, json!({ "auto_recover": true })).await.ok();
    assert_eq!(launched["auto_recover"], true);
    let kept: Uuid = launched["uuid"].as_str().unwrap().parse().unwrap();
    let plain = cloud.instance(&subnet, json!({})).await;
    assert_eq!(cloud.get(kept).await["auto_recover"], true);
    assert_eq!(cloud.get(plain).await["auto_recover"], false);
    let listed = api.get("/instances").await.ok();
    let flags: Vec<_> = listed["items"].as_array().unwrap().iter().map(|i| &i["auto_recover"]).collect();
    assert_eq!(flags, [false, true]);
    assert_eq!((fence(&cloud, "n1", kept).await, fence(&cloud, "n1", plain).await), (Some(1), None));

    // While it is not stopped its node would not know; what it is already, it may be called at any time.
    let path = format!("/instances/{plain}");
    let on = json!({ "auto_recover": true });
    let refused = api.put(&path, on.clone()).await;
    assert_eq!((refused.problem(), refused.field()), ((409, "IncorrectInstanceState"), Some("auto_recover")));
    assert_eq!(api.put(&path, json!({ "auto_recover": false })).await.ok()["auto_recover"], false);
    let wrong = api.put(&path, json!({ "auto_recover": "yes" })).await;
    assert_eq!((wrong.problem(), wrong.field()), ((400, "InvalidParameterValue"), Some("auto_recover")));
    cloud.say(plain, ObservedInstance::Running).await;
    api.post(&format!("{path}/stop"), json!({})).await.ok();
    cloud.say(plain, ObservedInstance::Stopped).await;
    assert_eq!(api.put(&path, on).await.ok()["auto_recover"], true);
    assert_eq!(cloud.get(plain).await["auto_recover"], true);
}

#[tokio::test]
async fn a_recovery_is_seen_in_the_instance_and_its_operation() {
    let cloud = Cloud::new().await;
    let api = &cloud.api;
    let subnet = cloud.subnet().await;
    let kept = cloud.instance(&subnet, json!({ "auto_recover": true })).await;
    let plain = cloud.instance(&subnet, json!({})).await;
    for instance in [kept, plain] {
        cloud.say(instance, ObservedInstance::Running).await;
    }
    let before = cloud.get(kept).await;
    assert_eq!((&before["worker_node"], &before["state"]), (&json!("n1"), &json!("running")));
    cloud.node("n2").await;
    api.sql("update nodes set last_report_at = '2020-01-01' where name = 'n1'").await;
    assert_eq!(cloud.get(kept).await["state"], "unknown");
    let look = async |seconds| {
        let clock = move || Duration::from_secs(seconds);
        cloud.manager.recover_at(false, &clock).await.unwrap()
    };
    assert_eq!(look(0).await, Look::Nothing);
    assert_eq!(look(90).await, Look::Recovered(1));

    let after = cloud.get(kept).await;
    assert_eq!((&after["worker_node"], &after["state"]), (&json!("n2"), &json!("pending")));
    assert_eq!(after["auto_recover"], true);
    assert!(after["state_reason"].as_str().unwrap().starts_with("Server.NodeLost: "), "{after}");
    for stays in ["id", "private_ip", "mac_address", "network_interface_id", "security_group_ids"] {
        assert_eq!(after[stays], before[stays], "{stays}");
    }
    let left = cloud.get(plain).await;
    assert_eq!((&left["worker_node"], &left["state"]), (&json!("n1"), &json!("unknown")));
    let operations = api.get("/operations?action=RecoverInstances").await.ok();
    let operations = operations["items"].as_array().unwrap();
    assert_eq!(operations.len(), 1);
    assert_eq!((&operations[0]["resource_id"], &operations[0]["state"]), (&before["id"], &json!("running")));
    assert_eq!(fence(&cloud, "n2", kept).await, Some(1));
    cloud.say(kept, ObservedInstance::Running).await;
    assert_eq!(cloud.get(kept).await["state"], "running");
    let done = api.get(&format!("/operations/{}", id(&operations[0]))).await.ok();
    assert_eq!(done["state"], "succeeded");
}
