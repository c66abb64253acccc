//! Instances.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Api;
use super::harness::id;

async fn site(block: &str) -> (Api, Value, String) {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = id(&api.subnet(id(&vpc), block).await).to_owned();
    (api, vpc, subnet)
}

#[tokio::test]
async fn a_launch_without_groups_gets_the_default_one() {
    let (api, vpc, subnet) = site("10.0.1.0/24").await;
    let instance = api.launch(&subnet, json!({})).await;
    assert_eq!(instance.status, 202);
    assert_eq!(instance.body["security_group_ids"], json!([vpc["default_security_group_id"]]));
    assert_eq!(instance.body["public_ip"], json!(null));
    assert!(instance.body["mac_address"].as_str().unwrap().starts_with("0a:"));
    // Doorbells, event and audit left with it.
    assert_eq!(
        api.count("select count(*) from events where resource = 'instance' and to_state = 'pending'").await,
        1
    );
    assert_eq!(api.count("select count(*) from audit_log where action = 'RunInstances'").await, 1);
    // The same group twice is once.
    let group = vpc["default_security_group_id"].as_str().unwrap();
    let twice = api.launch(&subnet, json!({ "security_group_ids": [group, group] })).await.ok();
    assert_eq!(twice["security_group_ids"], json!([group]));
}

#[tokio::test]
async fn several_are_launched_or_none() {
    let (api, _, subnet) = site("10.0.1.0/28").await;
    let answer = api.launch(&subnet, json!({ "count": 4 })).await.ok();
    let all = answer["instances"].as_array().unwrap();
    assert_eq!(all.len(), 4);
    assert_eq!(all[0]["id"], answer["id"]);
    assert!(
        all.iter()
            .enumerate()
            .all(|(n, i)| i["launch_index"] == n && i["reservation_id"] == answer["reservation_id"])
    );
    let too_many = api.launch(&subnet, json!({ "count": 8 })).await;
    assert_eq!(too_many.problem(), (409, "InsufficientFreeAddressesInSubnet"));
    assert_eq!(api.count("select count(*) from instances").await, 4);
    let rest = api.launch(&subnet, json!({ "count": 7 })).await.ok();
    assert_eq!(rest["instances"].as_array().unwrap().len(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_launches_into_eleven_addresses_give_eleven() {
    let (api, _, subnet) = site("10.0.1.0/28").await;
    let image = api.image("gon-linux").await;
    let api = Arc::new(api);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64 {
        let (api, subnet, image) = (Arc::clone(&api), subnet.clone(), image.clone());
        tasks.spawn(async move {
            let body = json!({ "name": format!("n{n}"), "image_id": image, "instance_type": "g1.pico", "subnet_id": subnet });
            api.post("/instances", body).await
        });
    }
    let answers = tasks.join_all().await;
    let good: Vec<_> = answers.iter().filter(|a| a.status == 202).collect();
    let mut addresses: Vec<_> =
        good.iter().map(|a| a.body["private_ip"].as_str().unwrap().to_owned()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!((good.len(), addresses.len()), (11, 11));
    for refused in answers.iter().filter(|a| a.status != 202) {
        assert_eq!(refused.problem(), (409, "InsufficientFreeAddressesInSubnet"));
    }
    for table in [
        "select count(*) from instances",
        "select count(*) from network_interfaces",
        "select count(*) from network_interface_security_groups",
        "select count(*) from audit_log where action = 'RunInstances'",
        "select count(*) from events where resource = 'instance'",
    ] {
        assert_eq!(api.count(table).await, 11, "{table}");
    }
    let full = api.get(&format!("/subnets/{subnet}")).await.ok();
    assert_eq!(full["available_ip_address_count"], 0);
}

#[tokio::test]
async fn an_address_rests_unless_there_is_no_other() {
    let (api, _, subnet) = site("10.0.1.0/28").await;
    let first = api.launch(&subnet, json!({})).await.ok();
    api.delete(&format!("/instances/{}", id(&first))).await.ok();
    api.finish_terminations().await;
    let mut seen = Vec::new();
    for _ in 0..10 {
        seen.push(api.launch(&subnet, json!({})).await.ok()["private_ip"].clone());
    }
    assert!(!seen.contains(&first["private_ip"]), "it was given out although others were free");
    let last = api.launch(&subnet, json!({})).await.ok();
    assert_eq!(last["private_ip"], first["private_ip"]);
}

#[tokio::test]
async fn states_move_along_their_edges_only() {
    let (api, vpc, subnet) = site("10.0.1.0/24").await;
    let instance = api.launch(&subnet, json!({ "associate_public_ip": true })).await.ok();
    let path = format!("/instances/{}", id(&instance));
    let act = async |verb: &str| api.post(&format!("{path}/{verb}"), json!({})).await;
    for verb in ["start", "stop", "reboot"] {
        assert_eq!(act(verb).await.problem(), (409, "IncorrectInstanceState"), "pending {verb}");
    }
    api.run_everything().await;
    assert_eq!(act("start").await.problem(), (409, "IncorrectInstanceState"));
    let before = api.get(&path).await.ok();
    assert_eq!((&before["state"], &before["worker_node"]), (&json!("running"), &json!("n1")));
    assert_eq!(before["applied"]["acked"], 1);
    let rebooted = act("reboot").await;
    assert_eq!((rebooted.status.as_u16(), &rebooted.body["state"]), (202, &json!("running")));
    assert_eq!(rebooted.body["generation"], before["generation"].as_i64().unwrap() + 1);
    assert_eq!(rebooted.body["applied"]["acked"], 0);
    assert_eq!(api.count("select reboot_seq from instances").await, 1);

    let generation =
        async || api.get(&format!("/vpcs/{}", id(&vpc))).await.ok()["generation"].as_i64().unwrap();
    let packets = generation().await;
    let stopping = act("stop").await.ok();
    // The platform's public address goes with the power.
    assert_eq!((&stopping["state"], &stopping["public_ip"]), (&json!("stopping"), &json!(null)));
    assert_eq!(generation().await, packets + 1);
    assert_eq!(act("stop").await.problem(), (409, "IncorrectInstanceState"));
    assert_eq!(act("start").await.problem(), (409, "IncorrectInstanceState"));
    // Asking again, more firmly, is allowed.
    let forced = api.post(&format!("{path}/stop"), json!({ "force": true })).await.ok();
    assert_eq!(forced["state"], "stopping");
    assert_eq!(api.count("select count(*) from instances where force_stop").await, 1);
    api.run_everything().await;
    let stopped = api.get(&path).await.ok();
    assert_eq!((&stopped["state"], &stopped["private_ip"]), (&json!("stopped"), &instance["private_ip"]));
    for verb in ["stop", "reboot"] {
        assert_eq!(act(verb).await.problem(), (409, "IncorrectInstanceState"), "stopped {verb}");
    }
    let started = act("start").await.ok();
    // A new one, since the old rests.
    assert!(started["public_ip"].is_string() && started["public_ip"] != instance["public_ip"]);
    assert_eq!((&started["state"], &started["private_ip"]), (&json!("pending"), &instance["private_ip"]));
    api.run_everything().await;

    let ending = api.delete(&path).await.ok();
    assert_eq!((&ending["state"], &ending["public_ip"]), (&json!("shutting-down"), &json!(null)));
    for verb in ["start", "stop", "reboot"] {
        assert_eq!(act(verb).await.problem(), (409, "IncorrectInstanceState"), "shutting down {verb}");
    }
    assert_eq!(api.delete(&path).await.ok()["generation"], ending["generation"]);
    assert_eq!(
        api.put(&path, json!({ "instance_type": "g1.small" })).await.problem(),
        (409, "IncorrectInstanceState")
    );
    // Every edge is told once.
    let edges = gon_store::admin::json(
        &api.database.store,
        "select jsonb_agg(from_state || '>' || to_state order by seq) from events where resource = 'instance' and from_state <> to_state",
    )
    .await
    .unwrap();
    assert_eq!(edges[0], json!(["running>stopping", "stopped>pending", "running>shutting-down"]));
}

#[tokio::test]
async fn a_terminated_instance_is_described_for_an_hour() {
    let (api, _, subnet) = site("10.0.1.0/24").await;
    let instance = api.launch(&subnet, json!({})).await.ok();
    let path = format!("/instances/{}", id(&instance));
    api.delete(&path).await.ok();
    api.finish_terminations().await;
    let ended = api.get(&path).await.ok();
    assert_eq!((&ended["state"], &ended["state_code"]), (&json!("terminated"), &json!(48)));
    assert!(ended["terminated_at"].is_string());
    assert_eq!(api.delete(&path).await.ok()["state"], "terminated");
    assert_eq!(api.get("/instances?state=terminated").await.ok()["items"].as_array().unwrap().len(), 1);
    api.sql("update instances set terminated_at = now() - interval '2 hours', deleted_at = now() - interval '2 hours'").await;
    assert_eq!(api.get(&path).await.problem(), (404, "InvalidInstanceID.NotFound"));
    assert_eq!(api.get("/instances").await.ok()["items"], json!([]));
}

#[tokio::test]
async fn size_changes_only_while_stopped_and_only_if_there_is_room() {
    let (api, _, subnet) = site("10.0.1.0/24").await;
    let instance = api.launch(&subnet, json!({})).await.ok();
    let path = format!("/instances/{}", id(&instance));
    api.run_everything().await;
    assert_eq!(api.put(&path, json!({ "name": "renamed" })).await.ok()["name"], "renamed");
    let running = api.put(&path, json!({ "instance_type": "g1.large" })).await;
    assert_eq!(
        (running.problem(), running.field()),
        ((409, "IncorrectInstanceState"), Some("instance_type"))
    );
    // The type it has is no change.
    api.put(&path, json!({ "instance_type": "g1.nano" })).await.ok();
    api.post(&format!("{path}/stop"), json!({})).await.ok();
    api.run_everything().await;
    let resized = api.put(&path, json!({ "instance_type": "g1.large", "name": "big" })).await.ok();
    assert_eq!(
        (&resized["vcpus"], &resized["memory_mib"], &resized["name"]),
        (&json!(2), &json!(8192), &json!("big"))
    );
    assert_eq!(api.count("select used_memory_mib from nodes").await, 8192 - 512);
    api.sql("update nodes set used_memory_mib = 8192, capacity_memory_mib = 8192").await;
    assert_eq!(api.put(&path, json!({ "instance_type": "t3.large" })).await.ok()["memory_mib"], 8192);
    api.sql("update nodes set capacity_memory_mib = 100").await;
    api.put(&path, json!({ "instance_type": "g1.nano" })).await.ok();
    let full = api.put(&path, json!({ "instance_type": "g1.small" })).await;
    assert_eq!(full.problem(), (409, "InsufficientInstanceCapacity"));
    assert_eq!(api.put(&path, json!({ "instance_type": "x1.huge" })).await.field(), Some("instance_type"));
    // Names may be changed with an entity tag as well.
    let tag = api.get(&path).await.etag();
    api.put(&path, json!({ "name": "other" })).await.ok();
    let stale = api
        .call(
            Some(&api.admin.token),
            axum::http::Method::PUT,
            &format!("/api/v1{path}"),
            Some(&json!({ "name": "x" })),
            &[("if-match", &tag)],
        )
        .await;
    assert_eq!(stale.problem(), (412, "PreconditionFailed"));
}

#[tokio::test]
async fn the_image_says_what_memory_it_needs() {
    let (api, _, subnet) = site("10.0.1.0/24").await;
    let debian = api.image("debian-12").await;
    let small = api.launch(&subnet, json!({ "image_id": debian, "instance_type": "g1.pico" })).await;
    assert_eq!((small.problem(), small.field()), ((400, "InvalidParameterValue"), Some("instance_type")));
    let fits = api.launch(&subnet, json!({ "image_id": debian, "instance_type": "t3.micro" })).await.ok();
    assert_eq!(
        (&fits["disk_gib"], &fits["vcpus"], &fits["memory_mib"]),
        (&json!(2), &json!(2), &json!(1024))
    );
}

#[tokio::test]
async fn waiting_ends_with_the_state_or_the_time() {
    let (api, _, subnet) = site("10.0.1.0/24").await;
    let instance = api.launch(&subnet, json!({})).await.ok();
    let path = format!("/instances/{}", id(&instance));
    let begin = Instant::now();
    let still = api.get(&format!("{path}?wait=running&timeout=1")).await.ok();
    assert_eq!(still["state"], "pending");
    assert!((1.0..20.0).contains(&begin.elapsed().as_secs_f64()));
    let waiting = format!("{path}?wait=running&timeout=30");
    let (now, ()) = tokio::join!(api.get(&waiting), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        api.run_everything().await;
    });
    assert_eq!(now.ok()["state"], "running");
    assert!(begin.elapsed() < Duration::from_secs(30));
    // What can no longer come about is not waited for.
    let ending =
        api.as_user(&api.admin, axum::http::Method::DELETE, &format!("{path}?wait=running"), None).await;
    assert_eq!(ending.ok()["state"], "shutting-down");
    let never = Instant::now();
    api.get(&format!("{path}?wait=stopped&timeout=60")).await.ok();
    assert!(never.elapsed() < Duration::from_secs(50));
    for (query, field) in [
        ("wait=sleeping", "wait"),
        ("wait=running&timeout=0", "timeout"),
        ("wait=running&timeout=61", "timeout"),
        ("wait=running&timeout=x", "timeout"),
    ] {
        let answer = api.get(&format!("{path}?{query}")).await;
        assert_eq!(
            (answer.problem(), answer.field()),
            ((400, "InvalidParameterValue"), Some(field)),
            "{query}"
        );
    }
    // And a wrong wish changes nothing.
    let other = api.launch(&subnet, json!({})).await.ok();
    let wrong = api.delete(&format!("/instances/{}?wait=never", id(&other))).await;
    assert_eq!(wrong.problem(), (400, "InvalidParameterValue"));
    assert_eq!(api.get(&format!("/instances/{}", id(&other))).await.ok()["state"], "pending");
}

#[tokio::test]
async fn a_change_of_rules_says_on_how_many_nodes_it_is_in_force() {
    let (api, vpc, subnet) = site("10.0.1.0/24").await;
    api.launch(&subnet, json!({})).await.ok();
    api.run_everything().await;
    let group = vpc["default_security_group_id"].as_str().unwrap();
    let rule = json!({ "direction": "inbound", "protocol": "icmp", "source_destination": "0.0.0.0/0" });
    let answer =
        api.post(&format!("/security-groups/{group}/rules?wait=applied&timeout=1"), rule.clone()).await.ok();
    let generation = answer["generation"].as_i64().unwrap();
    assert_eq!(answer["applied"], json!({ "generation": generation, "nodes": 1, "acked": 0 }));
    let path = format!("/vpcs/{}?wait=applied&timeout=30", id(&vpc));
    let begin = Instant::now();
    let (seen, ()) = tokio::join!(api.get(&path), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        api.sql(
            "insert into vpc_nodes (vpc_id, node_id, applied_generation)
             select v.id, n.id, v.generation from vpcs v, nodes n",
        )
        .await;
    });
    assert_eq!(seen.ok()["applied"], json!({ "generation": generation, "nodes": 1, "acked": 1 }));
    assert!(begin.elapsed() < Duration::from_secs(25));
}

#[tokio::test]
async fn console_output_is_empty_until_there_is_some() {
    let (api, _, subnet) = site("10.0.1.0/24").await;
    let instance = api.launch(&subnet, json!({})).await.ok();
    let output = api.get(&format!("/instances/{}/console-output", id(&instance))).await.ok();
    assert_eq!(output["output"], "");
    assert!(output["timestamp"].is_string());
}
