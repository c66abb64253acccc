//! What operators are told of a packet: the documents of the nodes, compiled and followed, beside what switches say.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::http::Method;
use gon_agent::network::trace::{FollowError, follow};
use gon_control::api::{NoTrace, Tracer};
use gon_proto::NodeNetwork;
use gon_proto::trace::{Followed, SwitchAnswer, SwitchQuestion, SwitchStep};
use gon_types::id::NetworkInterfaceId;
use serde_json::{Value, json};

use super::Api;
use super::cloud::Cloud;
use super::harness::id;

/// The real compiler; switches that are as it last said, but for those that are told to differ or to be silent.
#[derive(Default)]
struct Switches {
    last: Mutex<Option<Followed>>,
    deaf: Mutex<&'static str>,
    silent: Mutex<&'static str>,
}

#[async_trait]
impl Tracer for Switches {
    fn follow(
        &self,
        nodes: &[(NodeNetwork, Option<Ipv4Addr>)],
        port: NetworkInterfaceId,
        packet: &str,
    ) -> Result<Followed, NoTrace> {
        let gateway = "203.0.113.1/28".parse().unwrap();
        let followed = follow(nodes, Some(gateway), port, packet).map_err(|error| match error {
            FollowError::Question(why) => NoTrace::Packet(why.to_string()),
            FollowError::Explain(why) => NoTrace::Port(why.to_string()),
        })?;
        *self.last.lock().unwrap() = Some(followed.clone());
        Ok(followed)
    }

    async fn ask(&self, node: &str, question: &SwitchQuestion) -> Result<SwitchAnswer, String> {
        if *self.silent.lock().unwrap() == node {
            return Err(format!("node {node} did not answer"));
        }
        let last = self.last.lock().unwrap().clone().unwrap();
        let hop = last.hops.into_iter().find(|hop| hop.question == *question).unwrap();
        let step = |line: gon_proto::trace::FollowedLine| SwitchStep {
            table: line.table,
            priority: line.priority,
            cookie: line.cookie,
            ours: true,
            text: line.matches,
        };
        let mut answer =
            SwitchAnswer { steps: hop.lines.into_iter().map(step).collect(), outputs: hop.outputs };
        if *self.deaf.lock().unwrap() == node {
            answer.steps.truncate(1);
            answer.outputs.clear();
        }
        Ok(answer)
    }
}

/// An instance on that node: it, its interface and its address.
async fn instance(cloud: &Cloud, subnet: &str, node: &str) -> [String; 3] {
    let other = if node == "n1" { "n2" } else { "n1" };
    let other = cloud.node_id(other).await;
    cloud.api.post(&format!("/nodes/{other}/cordon"), json!({})).await.ok();
    let instance = cloud.instance(subnet, json!({})).await;
    cloud.api.post(&format!("/nodes/{other}/uncordon"), json!({})).await.ok();
    let shown = cloud.get(instance).await;
    assert_eq!(shown["worker_node"], node);
    let text = |key: &str| shown[key].as_str().unwrap().to_owned();
    [text("id"), text("network_interface_id"), text("private_ip")]
}

async fn trace(api: &Api, interface: &str, packet: &str, live: bool) -> Value {
    let body = json!({ "network_interface_id": interface, "packet": packet, "live": live });
    api.post("/trace", body).await.ok()
}

#[tokio::test]
async fn an_operator_follows_a_packet_from_node_to_node() {
    let cloud = Cloud::new().await;
    let subnet = cloud.subnet().await;
    cloud.node("n2").await;
    cloud
        .api
        .sql(
            "update nodes set overlay_address = '192.0.2.1', overlay_mtu = 1500 where name = 'n1';
             update nodes set overlay_address = '192.0.2.2', overlay_mtu = 1500 where name = 'n2'",
        )
        .await;
    let [_, a, from] = instance(&cloud, &subnet, "n1").await;
    let [there, b, to] = instance(&cloud, &subnet, "n2").await;
    let api = &cloud.api;
    let packet = format!("tcp,{from}:40000>{to}:22");

    // Nobody follows packets yet.
    let body = json!({ "network_interface_id": a, "packet": packet });
    assert_eq!(api.post("/trace", body).await.problem(), (503, "Unavailable"));
    let switches = Arc::new(Switches::default());
    let _ = api.app.clone().trace_with(Arc::clone(&switches) as _);

    let told = trace(api, &a, &packet, false).await;
    assert_eq!((&told["network_interface_id"], &told["packet"]), (&json!(a), &json!(packet)));
    assert_eq!(
        (&told["dropped"], &told["end"]),
        (&json!(false), &json!(format!("delivered to {b} ({to}) of {there}")))
    );
    let hops = told["hops"].as_array().unwrap();
    let names: Vec<_> = hops.iter().map(|hop| hop["node_name"].as_str().unwrap()).collect();
    assert_eq!(names, ["n1", "n2"]);
    assert_eq!(
        hops[0]["node_id"],
        json!(gon_types::id::NodeId::from_uuid(cloud.node_id("n1").await).to_string())
    );
    assert!(hops.iter().all(|hop| hop.get("live").is_none()));
    let because = |hop: &Value, stage: &str| -> String {
        let stages = hop["stages"].as_array().unwrap();
        let found =
            stages.iter().find(|s| s["stage"] == stage).unwrap_or_else(|| panic!("no {stage}: {hop}"));
        found["because"].as_str().unwrap().to_owned()
    };
    let rule = because(&hops[1], "policy");
    assert!(
        rule.starts_with("inbound rule sgr-") && rule.contains(" allows it: all from members of sg-"),
        "{rule}"
    );

    // As the API has it now, whatever has been published: the rule is gone, and so is the way.
    let groups = api.get("/security-groups").await.ok();
    let group = &groups["items"][0];
    let rules = group["rules"].as_array().unwrap();
    let inbound = rules.iter().find(|rule| rule["direction"] == "inbound").unwrap();
    api.delete(&format!("/security-groups/{}/rules/{}", id(group), id(inbound))).await.ok();
    let told = trace(api, &a, &packet, true).await;
    assert_eq!(told["dropped"], true);
    let end = format!("dropped in policy: no inbound rule of {} allows it", id(group));
    assert_eq!(told["end"], end);
    for hop in told["hops"].as_array().unwrap() {
        assert_eq!((&hop["live"]["verdict"], &hop["live"]["flows"]), (&json!("same"), &json!([])), "{hop}");
    }

    // Switches that say something else, and that say nothing.
    *switches.deaf.lock().unwrap() = "n1";
    *switches.silent.lock().unwrap() = "n2";
    let told = trace(api, &a, &packet, true).await;
    let live = |n: usize| &told["hops"][n]["live"];
    assert_eq!((&live(0)["verdict"], live(0)["flows"].as_array().unwrap().len()), (&json!("differs"), 1));
    assert!(
        live(0)["detail"].as_str().unwrap().starts_with("the switch drops it: after classify comes here "),
        "{told}"
    );
    assert_eq!(
        (&live(1)["verdict"], &live(1)["detail"]),
        (&json!("unavailable"), &json!("node n2 did not answer"))
    );
}

#[tokio::test]
async fn only_operators_follow_packets_and_wrong_ones_are_named() {
    let cloud = Cloud::new().await;
    let subnet = cloud.subnet().await;
    let (a, from) = instance_alone(&cloud, &subnet).await;
    let api = &cloud.api;
    let _ = api.app.clone().trace_with(Arc::new(Switches::default()));
    let body = |interface: &str, packet: &str| json!({ "network_interface_id": interface, "packet": packet });
    let packet = format!("icmp,{from}>8.8.8.8");
    let member = api.user("default", "member", "member").await;
    let refused = api.as_user(&member, Method::POST, "/trace", Some(&body(&a, &packet))).await;
    assert_eq!(refused.problem(), (403, "UnauthorizedOperation"));
    // Whoever runs the site sees every interface of it.
    let other = api.user("other", "other", "admin").await;
    let told = api.as_user(&other, Method::POST, "/trace", Some(&body(&a, &packet))).await.ok();
    assert_eq!(told["dropped"], true);
    let tables = api.get("/route-tables").await.ok();
    let table = id(&tables["items"][0]);
    let end = format!("dropped in route: no route to 8.8.8.8 in the route table of {subnet}, {table}");
    assert_eq!(told["end"], end);

    for (interface, packet, problem, field) in [
        (a.as_str(), "nonsense", (400, "InvalidParameterValue"), Some("packet")),
        (&a, "tcp,10.0.0.1>10.0.0.2:22", (400, "InvalidParameterValue"), Some("packet")),
        ("x", packet.as_str(), (400, "InvalidNetworkInterfaceID.Malformed"), Some("network_interface_id")),
        (
            "eni-00000000000000000",
            &packet,
            (404, "InvalidNetworkInterfaceID.NotFound"),
            Some("network_interface_id"),
        ),
    ] {
        let answer = api.post("/trace", body(interface, packet)).await;
        assert_eq!((answer.problem(), answer.field()), (problem, field), "{interface} {packet}");
    }
    // One that is on no node.
    let free = api.post("/network-interfaces", json!({ "subnet_id": subnet })).await.ok();
    assert_eq!(api.post("/trace", body(id(&free), &packet)).await.problem(), (409, "IncorrectState"));
}

async fn instance_alone(cloud: &Cloud, subnet: &str) -> (String, String) {
    let instance = cloud.instance(subnet, json!({})).await;
    let shown = cloud.get(instance).await;
    let text = |key: &str| shown[key].as_str().unwrap().to_owned();
    (text("network_interface_id"), text("private_ip"))
}
