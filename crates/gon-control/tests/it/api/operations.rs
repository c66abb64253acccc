//! Operations: opened with the change, closed with what makes it true.

use gon_proto::ObservedInstance;
use serde_json::{Value, json};
use uuid::Uuid;

use super::cloud::Cloud;

fn operation(answer: &Value) -> String {
    answer["operation_id"].as_str().unwrap_or_else(|| panic!("no operation: {answer}")).to_owned()
}

async fn act(cloud: &Cloud, instance: Uuid, verb: &str) -> String {
    operation(&cloud.api.post(&format!("/instances/{instance}/{verb}"), json!({})).await.ok())
}

async fn state(cloud: &Cloud, operation: &str) -> (String, Option<String>) {
    let row = cloud.operation(operation).await;
    assert_eq!(row["finished_at"].is_null(), row["state"] == "running", "{row}");
    (row["state"].as_str().unwrap().to_owned(), row["error"].as_str().map(ToOwned::to_owned))
}

fn is(state: &str) -> (String, Option<String>) {
    (state.to_owned(), None)
}

#[tokio::test]
async fn an_operation_ends_when_the_node_says_so() {
    let cloud = Cloud::new().await;
    let subnet = cloud.subnet().await;
    let answer = cloud.api.launch(&subnet, json!({})).await.ok();
    let instance: Uuid = answer["uuid"].as_str().unwrap().parse().unwrap();
    let launch = operation(&answer);
    assert_eq!(state(&cloud, &launch).await, is("running"));
    let row = cloud.operation(&launch).await;
    assert_eq!(
        (&row["action"], &row["resource"], &row["resource_id"]),
        (&json!("RunInstances"), &json!("instance"), &answer["id"])
    );
    cloud.manager.place(&Default::default()).await.unwrap();
    cloud.say(instance, ObservedInstance::Starting).await;
    assert_eq!(state(&cloud, &launch).await, is("running"));
    cloud.say(instance, ObservedInstance::Running).await;
    assert_eq!(state(&cloud, &launch).await, is("succeeded"));

    // A reboot is done when the node has done as many, and the guest runs.
    let reboot = act(&cloud, instance, "reboot").await;
    cloud.say(instance, ObservedInstance::Running).await;
    assert_eq!(state(&cloud, &reboot).await, is("running"));
    cloud.say_more(instance, ObservedInstance::Starting, 1, None).await.unwrap();
    assert_eq!(state(&cloud, &reboot).await, is("running"));
    cloud.say_more(instance, ObservedInstance::Running, 1, None).await.unwrap();
    assert_eq!(state(&cloud, &reboot).await, is("succeeded"));

    let stop = act(&cloud, instance, "stop").await;
    cloud.say_more(instance, ObservedInstance::Stopping, 1, None).await.unwrap();
    assert_eq!(state(&cloud, &stop).await, is("running"));
    cloud.say_more(instance, ObservedInstance::Stopped, 1, None).await.unwrap();
    assert_eq!(state(&cloud, &stop).await, is("succeeded"));

    // One that cannot be started has failed, with the node's reason.
    let start = act(&cloud, instance, "start").await;
    cloud.say_more(instance, ObservedInstance::Failed, 1, Some("no such image")).await.unwrap();
    let (ended, why) = state(&cloud, &start).await;
    assert_eq!((ended.as_str(), why.unwrap().contains("no such image")), ("failed", true));

    // What is no longer wanted is cancelled by what is.
    let start = act(&cloud, instance, "start").await;
    let ended = cloud.api.delete(&format!("/instances/{instance}")).await.ok();
    let terminate = operation(&ended);
    assert_eq!(
        state(&cloud, &start).await,
        ("cancelled".to_owned(), Some("superseded by TerminateInstances".to_owned()))
    );
    cloud.say_more(instance, ObservedInstance::Gone, 1, None).await.unwrap();
    assert_eq!(state(&cloud, &terminate).await, is("running"));
    cloud.api.sql("update instances set finalizers = '{}' where power = 'terminated'").await;
    cloud.manager.round(None, &Default::default()).await.unwrap();
    assert_eq!(state(&cloud, &terminate).await, is("succeeded"));

    // Lists, newest first.
    let all = cloud.api.get("/operations").await.ok();
    let actions: Vec<_> = all["items"].as_array().unwrap().iter().map(|o| o["action"].clone()).collect();
    assert_eq!(
        actions,
        [
            "TerminateInstances",
            "StartInstances",
            "StartInstances",
            "StopInstances",
            "RebootInstances",
            "RunInstances"
        ]
    );
    let count = async |filter: &str| {
        cloud.api.get(&format!("/operations?{filter}")).await.ok()["items"].as_array().unwrap().len()
    };
    assert_eq!(count("state=succeeded").await, 4);
    assert_eq!(count("action=StartInstances").await, 2);
    assert_eq!(count(&format!("resource_id={instance}&state=failed")).await, 1);
    assert_eq!(count(&format!("resource_id={}", answer["id"].as_str().unwrap())).await, 6);
    assert_eq!(count("resource_id=i-00000000000000000").await, 0);
    for bad in ["state=done", "resource_id=vpc-00000000000000000", "nonsense=1"] {
        assert_eq!(cloud.api.get(&format!("/operations?{bad}")).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn an_operation_that_takes_too_long_has_failed_and_says_why() {
    let cloud = Cloud::new().await;
    let subnet = cloud.subnet().await;
    cloud.api.sql("update nodes set cordoned_at = now()").await;
    let answer = cloud.api.launch(&subnet, json!({})).await.ok();
    cloud.manager.place(&Default::default()).await.unwrap();
    cloud.manager.tick("m").await.unwrap();
    assert_eq!(state(&cloud, &operation(&answer)).await, is("running"));
    cloud.api.sql("update operations set deadline = now()").await;
    cloud.manager.tick("m").await.unwrap();
    let (ended, why) = state(&cloud, &operation(&answer)).await;
    assert_eq!(ended, "failed");
    assert!(why.unwrap().contains("n1 takes no new instances"));
    // The instance goes on waiting; that the operation failed is not taken back.
    cloud.api.sql("update nodes set cordoned_at = null").await;
    cloud.manager.place(&Default::default()).await.unwrap();
    let instance: Uuid = answer["uuid"].as_str().unwrap().parse().unwrap();
    cloud.say(instance, ObservedInstance::Running).await;
    assert_eq!(state(&cloud, &operation(&answer)).await.0, "failed");
}

#[tokio::test]
async fn every_instance_of_a_launch_has_its_own_and_a_repeated_request_has_the_same() {
    let cloud = Cloud::new().await;
    let subnet = cloud.subnet().await;
    let image = cloud.api.image("gon-linux").await;
    let body = json!({ "name": "i", "image_id": image, "instance_type": "g1.nano", "subnet_id": subnet, "count": 3 });
    let send = async || {
        cloud
            .api
            .call(
                Some(&cloud.api.admin.token),
                axum::http::Method::POST,
                "/api/v1/instances",
                Some(&body),
                &[("idempotency-key", "k")],
            )
            .await
            .ok()
    };
    let first = send().await;
    let mut operations: Vec<String> = first["instances"].as_array().unwrap().iter().map(operation).collect();
    assert_eq!(operation(&first), operations[0]);
    operations.sort();
    operations.dedup();
    assert_eq!(operations.len(), 3);
    assert_eq!(send().await, first);
    assert_eq!(cloud.api.count("select count(*) from operations").await, 3);
}

#[tokio::test]
async fn a_drain_can_be_called_off_and_what_an_instance_does_cannot() {
    let cloud = Cloud::new().await;
    let subnet = cloud.subnet().await;
    let runs = cloud.instance(&subnet, json!({})).await;
    cloud.say(runs, ObservedInstance::Running).await;
    let n1 = cloud.node_id("n1").await;
    let drain = operation(&cloud.api.post(&format!("/nodes/{n1}/drain"), json!({})).await.ok());
    cloud.manager.tick("m").await.unwrap();
    let path = format!("/operations/{drain}/cancel");
    // Only by those who may drain; for others it is not there.
    let account = cloud.api.user("default", "colleague", "member").await;
    let stranger = cloud.api.user("other", "stranger", "admin").await;
    for (user, problem) in
        [(account, (403, "UnauthorizedOperation")), (stranger, (404, "InvalidOperationID.NotFound"))]
    {
        let refused = cloud.api.as_user(&user, axum::http::Method::POST, &path, Some(&json!({}))).await;
        assert_eq!(refused.problem(), problem);
    }
    assert_eq!(state(&cloud, &drain).await.0, "running");
    let called_off = cloud.api.post(&path, json!({})).await.ok();
    assert_eq!((&called_off["state"], &called_off["tries"]), (&json!("cancelled"), &json!(1)));
    assert_eq!(state(&cloud, &drain).await, ("cancelled".to_owned(), Some("called off".to_owned())));
    let node = cloud.api.get(&format!("/nodes/{n1}")).await.ok();
    assert_eq!((&node["state"], &node["schedulable"]), (&json!("cordoned"), &json!(false)));
    assert_eq!(cloud.api.post(&path, json!({})).await.problem(), (409, "IncorrectState"));
    // Nobody works on it any more.
    assert_eq!(cloud.manager.claim("m").await.unwrap(), None);
    assert_eq!(cloud.get(runs).await["state"], "running");

    let stop = act(&cloud, runs, "stop").await;
    let refused = cloud.api.post(&format!("/operations/{stop}/cancel"), json!({})).await;
    assert_eq!(refused.problem(), (409, "UnsupportedOperation"));
    assert!(refused.body["detail"].as_str().unwrap().contains("start or terminate the instance"));
    assert_eq!(state(&cloud, &stop).await, is("running"));
    assert_eq!(cloud.api.count("select count(*) from audit_log where action = 'CancelOperation'").await, 1);
}
