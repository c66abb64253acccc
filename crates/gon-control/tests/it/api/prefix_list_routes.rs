//! Routes whose destination is a prefix list.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::Method;
use gon_proto::RouteTarget;
use gon_types::id::NodeId;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Api;
use super::harness::id;

/// A VPC with a gateway, and a subnet with an instance that runs on the first node and may forward.
struct Site {
    api: Api,
    vpc: Value,
    subnet: Value,
    gateway: String,
    instance: Value,
    /// The main route table, and its routes.
    main: String,
    routes: String,
}

impl Site {
    async fn new() -> Self {
        let api = Api::furnished().await;
        let vpc = api.vpc("10.0.0.0/16").await;
        let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
        let gateway = id(&api.post("/internet-gateways", json!({})).await.ok()).to_owned();
        let attach = format!("/internet-gateways/{gateway}/attach");
        api.post(&attach, json!({ "vpc_id": id(&vpc) })).await.ok();
        let instance = api.launch(id(&subnet), json!({})).await.ok();
        api.run_everything().await;
        let main = format!("/route-tables/{}", vpc["main_route_table_id"].as_str().unwrap());
        let routes = format!("{main}/routes");
        Self { api, vpc, subnet, gateway, instance, main, routes }
    }

    async fn list(&self, max_entries: i64, blocks: &[&str]) -> String {
        let entries: Vec<Value> = blocks.iter().map(|cidr| json!({ "cidr": cidr })).collect();
        let body = json!({ "name": "l", "max_entries": max_entries, "entries": entries });
        id(&self.api.post("/prefix-lists", body).await.ok()).to_owned()
    }

    fn to_list(&self, list: &str, target: &str) -> Value {
        json!({ "destination_prefix_list_id": list, "target_id": target })
    }

    fn to_block(&self, block: &str, target: &str) -> Value {
        json!({ "destination_cidr": block, "target_id": target })
    }

    /// The routes of the subnet in the first node's document: each destination and where it leads.
    async fn in_document(&self) -> BTreeMap<String, String> {
        let node = gon_store::nodes::id_by_name(&self.api.database.store, "n1").await.unwrap().unwrap();
        let rows = gon_store::network_document::read(&self.api.database.store, node).await.unwrap();
        let settings = gon_control::network::NetworkSettings::default();
        let document =
            gon_control::network::resolve::document(NodeId::from_uuid(node), rows, &settings).unwrap();
        let subnet: Uuid = self.subnet["uuid"].as_str().unwrap().parse().unwrap();
        let subnet = document.subnets.iter().find(|s| s.id.uuid() == subnet).unwrap();
        let target = |target: &RouteTarget| match target {
            RouteTarget::InternetGateway(_) => "out".to_owned(),
            RouteTarget::Interface { private_ip } => private_ip.to_string(),
            other => format!("{other:?}"),
        };
        let all: BTreeMap<_, _> =
            subnet.routes.iter().map(|r| (r.destination.to_string(), target(&r.target))).collect();
        assert_eq!(all.len(), subnet.routes.len(), "a destination is there twice: {:?}", subnet.routes);
        all
    }

    /// The routes of the main table that name lists.
    async fn shown(&self) -> Vec<Value> {
        let table = self.api.get(&self.main).await.ok();
        let routes = table["routes"].as_array().unwrap().iter();
        routes.filter(|r| r["destination_prefix_list_id"].is_string()).cloned().collect()
    }

    async fn generation(&self) -> i64 {
        self.api.get(&format!("/vpcs/{}", id(&self.vpc))).await.ok()["generation"].as_i64().unwrap()
    }
}

fn map(routes: &[(&str, &str)]) -> BTreeMap<String, String> {
    routes.iter().map(|(to, target)| ((*to).to_owned(), (*target).to_owned())).collect()
}

#[tokio::test]
async fn a_route_follows_its_prefix_list() {
    let site = Site::new().await;
    let (api, routes) = (&site.api, &site.routes);
    let list = site.list(5, &["198.51.100.7/24", "203.0.113.0/24"]).await;
    let path = format!("/prefix-lists/{list}");
    let before = site.generation().await;
    let table = api.post(routes, site.to_list(&list, &site.gateway)).await.ok();
    assert_eq!(table["generation"], before + 1);
    let expected = json!({
        "destination_prefix_list_id": list, "target_type": "gateway", "target_id": site.gateway, "state": "active",
    });
    assert_eq!(table["routes"][1], expected);
    assert_eq!(site.in_document().await, map(&[("198.51.100.0/24", "out"), ("203.0.113.0/24", "out")]));
    let again = api.post(routes, site.to_list(&list, id(&site.instance))).await;
    assert_eq!(
        (again.problem(), again.field()),
        ((409, "RouteAlreadyExists"), Some("destination_prefix_list_id"))
    );

    // A change of the list is one of its routes, and is answered when it is in force.
    let change = json!({ "add_entries": [{ "cidr": "192.0.2.0/24" }], "remove_entries": ["203.0.113.0/24"] });
    let before = site.generation().await;
    let waited = format!("{path}?wait=applied&timeout=20");
    let (changed, ()) = tokio::join!(api.put(&waited, change), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        api.sql(
            "insert into vpc_nodes (vpc_id, node_id, applied_generation)
             select v.id, n.id, v.generation from vpcs v, nodes n",
        )
        .await;
    });
    assert_eq!(changed.ok()["applied"], json!({ "generation": 2, "nodes": 1, "acked": 1 }));
    assert_eq!(site.generation().await, before + 1);
    assert_eq!(site.in_document().await, map(&[("192.0.2.0/24", "out"), ("198.51.100.0/24", "out")]));

    // Another target, for all its blocks at once; and none, while that is away.
    let replaced = api.put(routes, site.to_list(&list, id(&site.instance))).await.ok();
    assert_eq!(replaced["routes"][1]["target_id"], site.instance["network_interface_id"]);
    let there = site.instance["private_ip"].as_str().unwrap();
    assert_eq!(site.in_document().await, map(&[("192.0.2.0/24", there), ("198.51.100.0/24", there)]));
    api.put(routes, site.to_list(&list, &site.gateway)).await.ok();
    let detach = format!("/internet-gateways/{}/detach", site.gateway);
    api.post(&detach, json!({})).await.ok();
    assert_eq!(site.shown().await[0]["state"], "blackhole");
    assert_eq!(
        site.in_document().await,
        map(&[("192.0.2.0/24", "Blackhole"), ("198.51.100.0/24", "Blackhole")])
    );

    // It stays while a route names it.
    let refused = api.delete(&path).await;
    assert_eq!(refused.problem(), (409, "DependencyViolation"));
    assert_eq!(refused.body["blockers"], json!([site.vpc["main_route_table_id"]]));
    let gone = format!("{routes}?destination_prefix_list_id={list}");
    assert_eq!(api.delete(&gone).await.ok()["routes"].as_array().unwrap().len(), 1);
    let missing = api.delete(&gone).await;
    assert_eq!(
        (missing.problem(), missing.field()),
        ((404, "InvalidRoute.NotFound"), Some("destination_prefix_list_id"))
    );
    assert_eq!(
        api.put(routes, site.to_list(&list, id(&site.instance))).await.problem(),
        (404, "InvalidRoute.NotFound")
    );
    assert_eq!(site.in_document().await, map(&[]));
    assert_eq!(api.delete(&path).await.status, 204);
}

#[tokio::test]
async fn of_equal_destinations_one_wins_and_it_is_always_the_same() {
    let site = Site::new().await;
    let (api, routes) = (&site.api, &site.routes);
    let first = site
        .list(
            9,
            &[
                "10.0.0.0/8",
                "10.0.0.0/16",
                "10.0.9.0/24",
                "10.9.1.0/24",
                "169.254.7.0/24",
                "192.0.2.0/24",
                "198.51.100.0/24",
            ],
        )
        .await;
    let second = site.list(2, &["192.0.2.0/24", "203.0.113.0/24"]).await;
    api.post(routes, site.to_list(&first, &site.gateway)).await.ok();
    api.post(routes, site.to_list(&second, id(&site.instance))).await.ok();
    api.post(routes, site.to_block("198.51.100.0/24", id(&site.instance))).await.ok();
    api.post(routes, site.to_block("192.0.2.128/25", id(&site.instance))).await.ok();
    let there = site.instance["private_ip"].as_str().unwrap();
    // The VPC's own block, what lies in it, and what is link-local, no route has. A route to the very block wins over one to
    // a list, and the older of two to lists; which prefix is the longest the nodes see.
    let expected = [
        ("10.0.0.0/8", "out"),
        ("10.9.1.0/24", "out"),
        ("192.0.2.0/24", "out"),
        ("192.0.2.128/25", there),
        ("198.51.100.0/24", there),
        ("203.0.113.0/24", there),
    ];
    assert_eq!(site.in_document().await, map(&expected));
    let shown = site.shown().await;
    assert_eq!(
        shown[0]["ignored_cidrs"],
        json!(["10.0.0.0/16", "10.0.9.0/24", "169.254.7.0/24", "198.51.100.0/24"])
    );
    assert_eq!(shown[1]["ignored_cidrs"], json!(["192.0.2.0/24"]));
    // Another target makes no route younger.
    api.put(routes, site.to_list(&first, id(&site.instance))).await.ok();
    api.put(routes, site.to_list(&second, &site.gateway)).await.ok();
    assert_eq!(site.in_document().await["192.0.2.0/24"], there);
    assert_eq!(site.in_document().await["203.0.113.0/24"], "out");

    // A further block of the VPC is local from the moment it is there, whatever lists say; and no longer than that.
    let blocks = format!("/vpcs/{}/cidr-blocks", id(&site.vpc));
    let vpc = api.post(&blocks, json!({ "cidr_block": "10.9.0.0/16" })).await.ok();
    assert!(!site.in_document().await.contains_key("10.9.1.0/24"));
    let block = id(&vpc["cidr_block_associations"][1]).to_owned();
    api.delete(&format!("{blocks}/{block}")).await.ok();
    assert_eq!(site.in_document().await["10.9.1.0/24"], there);

    // What the older leaves, the younger has.
    api.delete(&format!("{routes}?destination_prefix_list_id={first}")).await.ok();
    api.delete(&format!("{routes}?destination_cidr=198.51.100.0/24")).await.ok();
    let left = [("192.0.2.0/24", "out"), ("192.0.2.128/25", there), ("203.0.113.0/24", "out")];
    assert_eq!(site.in_document().await, map(&left));
    assert_eq!(site.shown().await[0].get("ignored_cidrs"), None);
}

#[tokio::test]
async fn a_route_counts_for_what_its_list_has_room_for() {
    let site = Site::new().await;
    let (api, routes) = (&site.api, &site.routes);
    let large = site.list(51, &[]).await;
    let refused = api.post(routes, site.to_list(&large, &site.gateway)).await;
    assert_eq!(refused.problem(), (409, "RouteLimitExceeded"));
    let list = site.list(49, &["192.0.2.0/24"]).await;
    let path = format!("/prefix-lists/{list}");
    api.post(routes, site.to_list(&list, &site.gateway)).await.ok();
    api.post(routes, site.to_block("198.51.100.0/24", &site.gateway)).await.ok();
    let one_more = site.to_block("203.0.113.0/24", &site.gateway);
    assert_eq!(api.post(routes, one_more.clone()).await.problem(), (409, "RouteLimitExceeded"));
    let grown = api.put(&path, json!({ "max_entries": 50 })).await;
    assert_eq!((grown.problem(), grown.field()), ((409, "RouteLimitExceeded"), Some("max_entries")));
    // Another table of the VPC has a count of its own; and what is in both must fit into both.
    let other = api.post("/route-tables", json!({ "vpc_id": id(&site.vpc) })).await.ok();
    let others = format!("/route-tables/{}/routes", id(&other));
    api.post(&others, site.to_list(&list, &site.gateway)).await.ok();
    assert_eq!(api.get(&path).await.ok()["max_entries"], 49);
    api.put(&path, json!({ "max_entries": 48 })).await.ok();
    api.post(routes, one_more).await.ok();
    assert_eq!(site.in_document().await.len(), 3);
}

#[tokio::test]
async fn a_list_without_blocks_leads_nowhere() {
    let site = Site::new().await;
    let api = &site.api;
    let subnet = format!("/subnets/{}", id(&site.subnet));
    let list = site.list(2, &[]).await;
    api.post(&site.routes, site.to_list(&list, &site.gateway)).await.ok();
    assert_eq!(api.get(&subnet).await.ok()["subnet_type"], "private");
    let path = format!("/prefix-lists/{list}");
    api.put(&path, json!({ "add_entries": [{ "cidr": "0.0.0.0/0" }] })).await.ok();
    assert_eq!(api.get(&subnet).await.ok()["subnet_type"], "public");
    assert_eq!(site.in_document().await, map(&[("0.0.0.0/0", "out")]));
}

#[tokio::test]
async fn what_a_destination_cannot_be() {
    const LIST: Option<&str> = Some("destination_prefix_list_id");
    let site = Site::new().await;
    let api = &site.api;
    let list = site.list(2, &["192.0.2.0/24"]).await;
    let stranger = api.user("other", "eve", "admin").await;
    let body = json!({ "name": "theirs", "max_entries": 1 });
    let theirs = api.as_user(&stranger, Method::POST, "/prefix-lists", Some(&body)).await.ok();
    let rows = "select (select count(*) from routes) + (select sum(generation) from vpcs)::bigint
        + (select count(*) from audit_log)";
    let before = api.count(rows).await;
    let both = json!({
        "destination_cidr": "192.0.2.0/24", "destination_prefix_list_id": list, "target_id": site.gateway,
    });
    for method in [Method::POST, Method::PUT] {
        for (body, status, code, field) in [
            (json!({ "target_id": site.gateway }), 400, "MissingParameter", Some("destination_cidr")),
            (both.clone(), 400, "InvalidParameterCombination", LIST),
            (site.to_list("pl-1", &site.gateway), 400, "InvalidPrefixListID.Malformed", LIST),
            (site.to_list("192.0.2.0/24", &site.gateway), 400, "InvalidPrefixListID.Malformed", LIST),
            (site.to_list("pl-00000000000000000", &site.gateway), 404, "InvalidPrefixListID.NotFound", LIST),
            (site.to_list(id(&theirs), &site.gateway), 404, "InvalidPrefixListID.NotFound", LIST),
            (site.to_list(&list, "local"), 400, "InvalidParameterValue", Some("target_id")),
        ] {
            let answer = api.as_user(&api.admin, method.clone(), &site.routes, Some(&body)).await;
            assert_eq!((answer.problem(), answer.field()), ((status, code), field), "{method} {body}");
        }
    }
    for (query, status, code, field) in [
        ("", 400, "MissingParameter", Some("destination_cidr")),
        ("destination_prefix_list_id=pl-1", 400, "InvalidPrefixListID.Malformed", LIST),
        ("destination_prefix_list_id=pl-00000000000000000", 404, "InvalidPrefixListID.NotFound", LIST),
        (
            "destination_cidr=0.0.0.0/0&destination_prefix_list_id=pl-00000000000000000",
            400,
            "InvalidParameterCombination",
            LIST,
        ),
    ] {
        let answer = api.delete(&format!("{}?{query}", site.routes)).await;
        assert_eq!((answer.problem(), answer.field()), ((status, code), field), "{query}");
    }
    assert_eq!(api.count(rows).await, before);
}

/// Two lists, each named by a rule in one VPC and by a route in the other: whoever changes one holds both VPCs, in one order.
#[tokio::test]
async fn lists_that_share_vpcs_do_not_wait_for_each_other() {
    let api = Api::furnished().await;
    let mut lists = vec![];
    for name in ["a", "b"] {
        let body = json!({ "name": name, "max_entries": 1 });
        lists.push(id(&api.post("/prefix-lists", body).await.ok()).to_owned());
    }
    for (at, rules) in lists.iter().enumerate() {
        let vpc = api.vpc("10.0.0.0/16").await;
        let gateway = id(&api.post("/internet-gateways", json!({})).await.ok()).to_owned();
        let attach = format!("/internet-gateways/{gateway}/attach");
        api.post(&attach, json!({ "vpc_id": id(&vpc) })).await.ok();
        let route = json!({ "destination_prefix_list_id": lists[1 - at], "target_id": gateway });
        let main = vpc["main_route_table_id"].as_str().unwrap();
        api.post(&format!("/route-tables/{main}/routes"), route).await.ok();
        let rule = json!({ "direction": "inbound", "protocol": "icmp", "source_destination": rules });
        let group = vpc["default_security_group_id"].as_str().unwrap();
        api.post(&format!("/security-groups/{group}/rules"), rule).await.ok();
    }
    for room in 2..8 {
        let change = |list: &str| {
            let entry = json!({ "cidr": format!("192.0.2.{room}/32") });
            (format!("/prefix-lists/{list}"), json!({ "max_entries": room, "add_entries": [entry] }))
        };
        let ((a, more_a), (b, more_b)) = (change(&lists[0]), change(&lists[1]));
        let (a, b) = tokio::join!(api.put(&a, more_a), api.put(&b, more_b));
        assert_eq!(
            (a.ok()["max_entries"].as_i64(), b.ok()["max_entries"].as_i64()),
            (Some(room), Some(room))
        );
    }
}
