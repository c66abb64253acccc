//! Nobody gets past the door, and nobody sees what is another's. Both walk the OpenAPI document, so that a route cannot
//! be forgotten.

use axum::http::Method;
use gon_control::api::routes;
use serde_json::{Value, json};

use super::harness::id;
use super::{Api, User};

/// Routes for everybody. A new one has to be added here, and a reviewer has to agree.
const PUBLIC: &[&str] = &["POST /api/v1/auth/login", "POST /api/v1/auth/refresh", "POST /api/v1/auth/logout"];

fn documented() -> Vec<(Method, String)> {
    let document: Value = serde_json::from_str(&gon_control::api::openapi_document().unwrap()).unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            all.push((method.to_uppercase().parse().unwrap(), path.clone()));
        }
    }
    all
}

#[test]
fn the_document_is_the_routes() {
    let mut served: Vec<_> = routes().infos.into_iter().map(|r| (r.method.to_string(), r.path)).collect();
    let mut written: Vec<_> = documented().into_iter().map(|(m, p)| (m.to_string(), p)).collect();
    served.sort();
    written.sort();
    assert_eq!(served, written);
    assert!(served.len() > 60);
    for route in routes().infos {
        let public = PUBLIC.contains(&&*format!("{} {}", route.method, route.path));
        assert_eq!(route.action.is_none(), public, "{} {}", route.method, route.path);
    }
}

#[test]
fn the_checked_in_document_is_current() {
    let kept = include_str!("../../../../../openapi/gon-v1.json");
    assert!(
        kept == gon_control::api::openapi_document().unwrap(),
        "run `cargo xtask openapi` and review the difference"
    );
}

#[test]
fn the_specification_is_served_verbatim() {
    let written = documented();
    for line in "POST /vpcs|GET /vpcs|GET /vpcs/{id}|PUT /vpcs/{id}|DELETE /vpcs/{id}|POST /vpcs/{id}/subnets|\
        GET /vpcs/{id}/subnets|POST /instances|GET /instances|GET /instances/{id}|PUT /instances/{id}|\
        DELETE /instances/{id}|POST /instances/{id}/start|POST /instances/{id}/stop|POST /instances/{id}/reboot|\
        POST /security-groups|GET /security-groups|GET /security-groups/{id}|PUT /security-groups/{id}|\
        DELETE /security-groups/{id}|POST /security-groups/{id}/rules|DELETE /security-groups/{id}/rules/{rule_id}"
        .split('|')
    {
        let (method, path) = line.split_once(' ').unwrap();
        let wanted = (method.parse::<Method>().unwrap(), format!("/api/v1{path}"));
        assert!(written.contains(&wanted), "{line}");
    }
}

#[tokio::test]
async fn every_route_wants_a_token() {
    let api = Api::new().await;
    for (method, path) in documented() {
        if PUBLIC.contains(&&*format!("{method} {path}")) {
            continue;
        }
        let real = path.replace("{id}", "x").replace("{rule_id}", "x").replace("{association_id}", "x");
        // Who is not signed in is not told what is wrong with his request, not even that.
        let answer = api.call(None, method.clone(), &real, Some(&json!({ "nonsense": true })), &[]).await;
        assert_eq!(answer.problem(), (401, "AuthFailure"), "{method} {path}");
    }
}

#[tokio::test]
async fn what_is_anothers_is_not_there() {
    let api = Api::furnished().await;
    let other: User = api.user("other", "mallory", "admin").await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let gateway = api.post("/internet-gateways", json!({})).await.ok();
    api.post(&format!("/internet-gateways/{}/attach", id(&gateway)), json!({ "vpc_id": id(&vpc) }))
        .await
        .ok();
    let table = api.post("/route-tables", json!({ "vpc_id": id(&vpc) })).await.ok();
    let associated = api
        .post(&format!("/route-tables/{}/associations", id(&table)), json!({ "subnet_id": id(&subnet) }))
        .await
        .ok();
    let group = api.post("/security-groups", json!({ "vpc_id": id(&vpc), "name": "g" })).await.ok();
    let rule = api
        .post(
            &format!("/security-groups/{}/rules", id(&group)),
            json!({ "direction": "inbound", "protocol": "all", "source_destination": "10.0.0.0/8" }),
        )
        .await
        .ok();
    let list = api.post("/prefix-lists", json!({ "name": "l", "max_entries": 1 })).await.ok();
    let acl = api.post("/network-acls", json!({ "vpc_id": id(&vpc) })).await.ok();
    let block = vpc["cidr_block_associations"][0].clone();
    let key = api.post("/key-pairs", json!({ "name": "k" })).await.ok();
    let address = api.post("/addresses", json!({})).await.ok();
    let instance = api.launch(id(&subnet), json!({ "key_name": "k" })).await.ok();
    let image = api.image("gon-linux").await;
    let theirs = |noun: &str| match noun {
        "vpcs" => id(&vpc).to_owned(),
        "subnets" => id(&subnet).to_owned(),
        "internet-gateways" => id(&gateway).to_owned(),
        "route-tables" => id(&table).to_owned(),
        "security-groups" => id(&group).to_owned(),
        "network-acls" => id(&acl).to_owned(),
        "key-pairs" => id(&key).to_owned(),
        "addresses" => id(&address).to_owned(),
        "instances" => id(&instance).to_owned(),
        "operations" => instance["operation_id"].as_str().unwrap().to_owned(),
        "prefix-lists" => id(&list).to_owned(),
        "network-interfaces" => instance["network_interface_id"].as_str().unwrap().to_owned(),
        // Images are everybody's.
        "images" => "ami-00000000000000000".to_owned(),
        noun => panic!("who owns {noun}? add it here"),
    };
    // A body that would do, for every route that takes one.
    let body = |method: &Method, path: &str| -> Option<Value> {
        let body = match (method.as_str(), path) {
            ("POST", "/vpcs/{id}/subnets") => json!({ "name": "x", "cidr_block": "10.0.2.0/24" }),
            (
                "PUT",
                "/subnets/{id}"
                | "/vpcs/{id}"
                | "/route-tables/{id}"
                | "/internet-gateways/{id}"
                | "/security-groups/{id}"
                | "/network-acls/{id}"
                | "/prefix-lists/{id}"
                | "/instances/{id}",
            ) => {
                json!({ "name": "x" })
            }
            ("PUT", "/network-interfaces/{id}") => json!({ "description": "x" }),
            ("POST", "/network-interfaces/{id}/attach") => {
                json!({ "instance_id": id(&instance), "device_index": 1 })
            }
            ("POST", "/network-interfaces/{id}/private-ips") => json!({ "count": 1 }),
            ("POST", "/network-interfaces/{id}/private-ips/unassign") => {
                json!({ "private_ips": [instance["private_ip"]] })
            }
            ("POST", "/vpcs/{id}/cidr-blocks") => json!({ "cidr_block": "10.1.0.0/16" }),
            ("PUT", "/route-tables/{id}/associations/{association_id}") => {
                json!({ "route_table_id": vpc["main_route_table_id"] })
            }
            ("POST" | "PUT", "/route-tables/{id}/routes") => {
                json!({ "destination_cidr": "0.0.0.0/0", "target_id": id(&gateway) })
            }
            ("POST", "/route-tables/{id}/associations") => json!({ "subnet_id": id(&subnet) }),
            ("POST", "/internet-gateways/{id}/attach") => json!({ "vpc_id": id(&vpc) }),
            ("POST", "/security-groups/{id}/rules") => {
                json!({ "direction": "inbound", "protocol": "all", "source_destination": "0.0.0.0/0" })
            }
            ("POST" | "PUT", "/network-acls/{id}/entries") => {
                json!({ "direction": "inbound", "rule_number": 1, "action": "deny", "protocol": "all",
                    "cidr_block": "0.0.0.0/0" })
            }
            ("POST", "/network-acls/{id}/associations") => json!({ "subnet_id": id(&subnet) }),
            ("POST", "/addresses/{id}/associate") => json!({ "instance_id": id(&instance) }),
            (
                "POST",
                "/internet-gateways/{id}/detach"
                | "/network-interfaces/{id}/detach"
                | "/instances/{id}/start"
                | "/instances/{id}/stop"
                | "/instances/{id}/reboot"
                | "/addresses/{id}/disassociate"
                | "/operations/{id}/cancel",
            ) => return None,
            ("POST" | "PUT", path) => panic!("{method} {path} takes a body: add one here"),
            _ => return None,
        };
        Some(body)
    };
    let before = snapshot(&api).await;
    let mut walked = 0;
    for (method, path) in documented() {
        let short = path.strip_prefix("/api/v1").unwrap();
        if !short.contains("{id}") {
            continue;
        }
        let noun = short.split('/').nth(1).unwrap();
        if noun == "nodes" {
            // The site's, not an account's: every administrator's.
            continue;
        }
        let mut real = short.replace("{id}", &theirs(noun)).replace("{rule_id}", id(&rule)).replace(
            "{association_id}",
            if noun == "vpcs" { id(&block) } else { id(&associated["associations"][0]) },
        );
        if method == Method::DELETE && short.ends_with("/routes") {
            real.push_str("?destination_cidr=0.0.0.0/0");
        }
        if method == Method::DELETE && short.ends_with("/entries") && noun == "network-acls" {
            real.push_str("?direction=inbound&rule_number=100");
        }
        let answer = api.as_user(&other, method.clone(), &real, body(&method, short).as_ref()).await;
        let (status, code) = answer.problem();
        assert_eq!(status, 404, "{method} {real}: {}", answer.body);
        // And exactly as if it did not exist.
        let nothing = real.replacen(
            &theirs(noun),
            &format!("{}-00000000000000000", theirs(noun).split('-').next().unwrap()),
            1,
        );
        let missing = api.as_user(&other, method.clone(), &nothing, body(&method, short).as_ref()).await;
        assert_eq!(missing.problem(), (404, code), "{method} {nothing}: {}", missing.body);
        let same = |answer: &Value, id: &str| answer["detail"].as_str().unwrap().replace(id, "ID");
        assert_eq!(
            same(&answer.body, &theirs(noun)),
            same(&missing.body, &format!("{}-00000000000000000", theirs(noun).split('-').next().unwrap()))
        );
        walked += 1;
    }
    assert!(walked >= 40, "{walked}");
    // References in bodies are ids as well.
    let mine = api
        .as_user(&other, Method::POST, "/vpcs", Some(&json!({ "name": "m", "cidr_block": "10.0.0.0/16" })))
        .await
        .ok();
    let my_subnet = api
        .as_user(
            &other,
            Method::POST,
            &format!("/vpcs/{}/subnets", id(&mine)),
            Some(&json!({ "name": "m", "cidr_block": "10.0.1.0/24" })),
        )
        .await
        .ok();
    let my_group = mine["default_security_group_id"].as_str().unwrap();
    let my_table = mine["main_route_table_id"].as_str().unwrap();
    let my_gateway = api.as_user(&other, Method::POST, "/internet-gateways", None).await.ok();
    let launch = |subnet: &str, groups: Value, key: Value| json!({ "name": "m", "image_id": image, "instance_type": "g1.nano", "subnet_id": subnet, "security_group_ids": groups, "key_name": key });
    for (path, body, code, field) in [
        (
            "/security-groups".to_owned(),
            json!({ "vpc_id": id(&vpc), "name": "m" }),
            "InvalidVpcID.NotFound",
            "vpc_id",
        ),
        ("/route-tables".to_owned(), json!({ "vpc_id": id(&vpc) }), "InvalidVpcID.NotFound", "vpc_id"),
        (
            format!("/internet-gateways/{}/attach", id(&my_gateway)),
            json!({ "vpc_id": id(&vpc) }),
            "InvalidVpcID.NotFound",
            "vpc_id",
        ),
        (
            format!("/route-tables/{my_table}/routes"),
            json!({ "destination_cidr": "0.0.0.0/0", "target_id": id(&gateway) }),
            "InvalidInternetGatewayID.NotFound",
            "target_id",
        ),
        (
            format!("/route-tables/{my_table}/routes"),
            json!({ "destination_cidr": "0.0.0.0/0", "target_id": id(&instance) }),
            "InvalidInstanceID.NotFound",
            "target_id",
        ),
        (
            format!("/route-tables/{my_table}/associations"),
            json!({ "subnet_id": id(&subnet) }),
            "InvalidSubnetID.NotFound",
            "subnet_id",
        ),
        (
            format!("/security-groups/{my_group}/rules"),
            json!({ "direction": "inbound", "protocol": "all", "source_destination": id(&group) }),
            "InvalidGroup.NotFound",
            "source_destination",
        ),
        (
            "/instances".to_owned(),
            launch(id(&subnet), json!(null), json!(null)),
            "InvalidSubnetID.NotFound",
            "subnet_id",
        ),
        (
            "/instances".to_owned(),
            launch(id(&my_subnet), json!([id(&group)]), json!(null)),
            "InvalidGroup.NotFound",
            "security_group_ids[0]",
        ),
        (
            "/instances".to_owned(),
            launch(id(&my_subnet), json!(null), json!("k")),
            "InvalidKeyPair.NotFound",
            "key_name",
        ),
    ] {
        let answer = api.as_user(&other, Method::POST, &path, Some(&body)).await;
        assert_eq!(
            (answer.problem(), answer.field()),
            ((404, code), Some(field)),
            "{path} {body}: {}",
            answer.body
        );
    }
    let unmapped = api.as_user(&other, Method::POST, "/addresses", None).await.ok();
    let answer = api
        .as_user(
            &other,
            Method::POST,
            &format!("/addresses/{}/associate", id(&unmapped)),
            Some(&json!({ "instance_id": id(&instance) })),
        )
        .await;
    assert_eq!(answer.problem(), (404, "InvalidInstanceID.NotFound"));
    // Filters find nothing of another's, and lists show nothing.
    for list in [
        "/subnets",
        "/route-tables",
        "/internet-gateways",
        "/security-groups",
        "/network-acls",
        "/instances",
        "/network-interfaces",
    ] {
        let answer =
            api.as_user(&other, Method::GET, &format!("{list}?vpc_id={}", id(&vpc)), None).await.ok();
        assert_eq!(answer["items"], json!([]), "{list}");
    }
    assert_eq!(api.as_user(&other, Method::GET, "/instances", None).await.ok()["items"], json!([]));
    assert_eq!(api.as_user(&other, Method::GET, "/key-pairs", None).await.ok()["items"], json!([]));
    // Nothing of the first account was touched.
    assert_eq!(snapshot(&api).await, before);
}

/// Everything the first account has, as it sees it.
async fn snapshot(api: &Api) -> Vec<Value> {
    let mut all = Vec::new();
    for list in [
        "vpcs",
        "subnets",
        "route-tables",
        "internet-gateways",
        "security-groups",
        "prefix-lists",
        "network-acls",
        "instances",
        "network-interfaces",
        "addresses",
        "key-pairs",
        "operations",
    ] {
        all.push(api.get(&format!("/{list}")).await.ok());
    }
    all
}

#[tokio::test]
async fn operators_see_nodes_and_members_do_not() {
    let api = Api::furnished().await;
    let member = api.user("default", "member", "member").await;
    let nodes = api.get("/nodes").await.ok();
    assert_eq!((&nodes["items"][0]["name"], &nodes["items"][0]["state"]), (&json!("n1"), &json!("ready")));
    assert_eq!(nodes["items"][0]["capacity"]["vcpus"], 64);
    let node = id(&nodes["items"][0]);
    for (method, path) in [
        (Method::GET, "/nodes".to_owned()),
        (Method::GET, format!("/nodes/{node}")),
        (Method::POST, format!("/nodes/{node}/cordon")),
        (Method::POST, format!("/nodes/{node}/uncordon")),
        (Method::POST, format!("/nodes/{node}/drain")),
        (Method::DELETE, format!("/nodes/{node}")),
    ] {
        let answer = api.as_user(&member, method.clone(), &path, None).await;
        assert_eq!(answer.problem(), (403, "UnauthorizedOperation"), "{method} {path}");
    }
    api.as_user(&member, Method::GET, "/vpcs", None).await.ok();
    api.as_user(&member, Method::POST, "/vpcs", Some(&json!({ "name": "m", "cidr_block": "10.0.0.0/16" })))
        .await
        .ok();
}
