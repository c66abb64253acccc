//! Blocks of VPCs, main route tables, routes that are replaced and routes whose target goes and comes back.

use serde_json::{Value, json};

use super::Api;
use super::harness::id;

fn main_table(vpc: &Value) -> String {
    format!("/route-tables/{}", vpc["main_route_table_id"].as_str().unwrap())
}

fn destinations(table: &Value) -> Vec<(&str, &str)> {
    let routes = table["routes"].as_array().unwrap().iter();
    routes.map(|r| (r["destination_cidr"].as_str().unwrap(), r["target_type"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn a_vpc_has_several_blocks() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let path = format!("/vpcs/{}", id(&vpc));
    let blocks = format!("{path}/cidr-blocks");
    let first = &vpc["cidr_block_associations"][0];
    assert_eq!((&first["cidr_block"], &first["is_primary"]), (&json!("10.0.0.0/16"), &json!(true)));

    let with = api.post(&blocks, json!({ "cidr_block": "10.1.2.3/20" })).await.ok();
    let second = &with["cidr_block_associations"][1];
    assert_eq!((&second["cidr_block"], &second["is_primary"]), (&json!("10.1.0.0/20"), &json!(false)));
    assert!(id(second).starts_with("vpc-cidr-assoc-"));
    assert_eq!(with["generation"].as_i64(), vpc["generation"].as_i64().map(|g| g + 1));
    assert_eq!(api.get(&path).await.ok()["cidr_block_associations"], with["cidr_block_associations"]);
    // The local route of every table covers it, and nothing else may.
    let table = api.get(&main_table(&vpc)).await.ok();
    assert_eq!(destinations(&table), [("10.0.0.0/16", "local"), ("10.1.0.0/20", "local")]);
    let gateway = api.post("/internet-gateways", json!({})).await.ok();
    api.post(&format!("/internet-gateways/{}/attach", id(&gateway)), json!({ "vpc_id": id(&vpc) }))
        .await
        .ok();
    let routes = format!("{}/routes", main_table(&vpc));
    for destination in ["10.1.0.0/20", "10.1.7.0/24"] {
        let route = json!({ "destination_cidr": destination, "target_id": id(&gateway) });
        assert_eq!(api.post(&routes, route).await.problem(), (400, "InvalidParameterValue"), "{destination}");
    }
    let local = api.delete(&format!("{routes}?destination_cidr=10.1.0.0/20")).await;
    assert_eq!(local.problem(), (400, "InvalidParameterValue"));

    let subnet = api.subnet(id(&vpc), "10.1.4.0/24").await;
    let outside = json!({ "name": "s", "cidr_block": "10.1.16.0/24" });
    let refused = api.post(&format!("{path}/subnets"), outside).await;
    assert_eq!(refused.problem(), (400, "InvalidSubnet.Range"));
    let across = json!({ "name": "s", "cidr_block": "10.0.0.0/15" });
    assert_eq!(api.post(&format!("{path}/subnets"), across).await.problem().0, 400);

    let association = format!("{blocks}/{}", id(second));
    let refused = api.delete(&association).await;
    assert_eq!(refused.problem(), (409, "DependencyViolation"));
    assert_eq!(refused.body["blockers"], json!([id(&subnet)]));
    let kept = format!("{blocks}/{}", id(first));
    assert_eq!(api.delete(&kept).await.problem(), (409, "OperationNotPermitted"));
    api.delete(&format!("/subnets/{}", id(&subnet))).await;
    let without = api.delete(&association).await.ok();
    assert_eq!(without["cidr_block_associations"].as_array().unwrap().len(), 1);
    let gone = api.delete(&association).await;
    assert_eq!(gone.problem(), (404, "InvalidVpcCidrBlockAssociationIdError.NotFound"));
    // What it was may be another's, or its own again.
    api.post(&blocks, json!({ "cidr_block": "10.1.0.0/20" })).await.ok();
}

#[tokio::test]
async fn blocks_a_vpc_cannot_have() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let blocks = format!("/vpcs/{}/cidr-blocks", id(&vpc));
    let gateway = api.post("/internet-gateways", json!({})).await.ok();
    api.post(&format!("/internet-gateways/{}/attach", id(&gateway)), json!({ "vpc_id": id(&vpc) }))
        .await
        .ok();
    let route = json!({ "destination_cidr": "10.9.1.0/24", "target_id": id(&gateway) });
    api.post(&format!("{}/routes", main_table(&vpc)), route).await.ok();
    let before = api.get(&format!("/vpcs/{}", id(&vpc))).await.ok();
    for (block, status, code) in [
        ("ten", 400, "InvalidParameterValue"),
        ("10.1.0.0", 400, "InvalidParameterValue"),
        ("::/16", 400, "InvalidParameterValue"),
        ("127.0.0.0/16", 400, "InvalidParameterValue"),
        ("169.254.0.0/16", 400, "InvalidParameterValue"),
        ("10.1.0.0/15", 400, "InvalidVpc.Range"),
        ("10.1.0.0/29", 400, "InvalidVpc.Range"),
        // Restricted, for a VPC from 10.0.0.0/8.
        ("172.16.0.0/16", 400, "InvalidVpc.Range"),
        ("192.168.7.0/24", 400, "InvalidVpc.Range"),
        ("198.19.0.0/20", 400, "InvalidVpc.Range"),
        // It has them, or part of them.
        ("10.0.0.0/16", 409, "InvalidVpc.Range"),
        ("10.0.7.0/24", 409, "InvalidVpc.Range"),
        // As large as the destination of a route, or larger.
        ("10.9.1.0/24", 409, "InvalidVpc.Range"),
        ("10.9.0.0/16", 409, "InvalidVpc.Range"),
    ] {
        let answer = api.post(&blocks, json!({ "cidr_block": block })).await;
        assert_eq!((answer.problem(), answer.field()), ((status, code), Some("cidr_block")), "{block}");
    }
    assert_eq!(api.get(&format!("/vpcs/{}", id(&vpc))).await.ok(), before);
    // Smaller than the destination of a route is fine; five is enough.
    for block in ["10.9.1.0/25", "10.2.0.0/16", "100.64.0.0/16", "198.51.100.0/24"] {
        api.post(&blocks, json!({ "cidr_block": block })).await.ok();
    }
    let sixth = api.post(&blocks, json!({ "cidr_block": "10.3.0.0/16" })).await;
    assert_eq!((sixth.problem(), sixth.field()), ((409, "CidrLimitExceeded"), Some("cidr_block")));
    // The VPC goes with all its blocks.
    api.delete(&format!("{}/routes?destination_cidr=10.9.1.0/24", main_table(&vpc))).await.ok();
    api.post(&format!("/internet-gateways/{}/detach", id(&gateway)), json!({})).await.ok();
    assert_eq!(api.delete(&format!("/vpcs/{}", id(&vpc))).await.status, 204);
}

#[tokio::test]
async fn the_main_table_is_replaced_and_associations_too() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let old = api.get(&main_table(&vpc)).await.ok();
    let new = api.post("/route-tables", json!({ "vpc_id": id(&vpc), "name": "new" })).await.ok();
    let third = api.post("/route-tables", json!({ "vpc_id": id(&vpc), "name": "third" })).await.ok();
    let table = |table: &Value| format!("/route-tables/{}", id(table));
    let association = old["main_association_id"].as_str().unwrap().to_owned();
    assert!(association.starts_with("rtbassoc-") && new["main_association_id"].is_null());
    let path = format!("{}/associations/{association}", table(&old));
    assert_eq!(api.delete(&path).await.problem(), (400, "InvalidParameterValue"));

    let to = |table: &Value| json!({ "route_table_id": id(table) });
    let answer = api.put(&path, to(&new)).await.ok();
    assert_eq!((id(&answer), &answer["is_main"]), (id(&new), &json!(true)));
    assert_ne!(answer["main_association_id"], json!(association));
    assert_eq!(api.get(&table(&old)).await.ok()["is_main"], false);
    assert_eq!(api.get(&format!("/vpcs/{}", id(&vpc))).await.ok()["main_route_table_id"], id(&new));
    assert_eq!(api.get(&format!("/subnets/{}", id(&subnet))).await.ok()["route_table_id"], id(&new));
    assert_eq!(api.put(&path, to(&third)).await.problem(), (404, "InvalidAssociationID.NotFound"));
    // The old one is like any other now.
    assert_eq!(api.delete(&table(&old)).await.status, 204);
    assert_eq!(api.delete(&table(&new)).await.problem(), (409, "DependencyViolation"));

    let with =
        api.post(&format!("{}/associations", table(&third)), json!({ "subnet_id": id(&subnet) })).await.ok();
    let explicit = id(&with["associations"][0]).to_owned();
    let path = format!("{}/associations/{explicit}", table(&third));
    let moved = api.put(&path, to(&new)).await.ok();
    assert_eq!(moved["associations"][0]["subnet_id"], id(&subnet));
    assert_ne!(id(&moved["associations"][0]), explicit);
    assert_eq!(api.get(&table(&third)).await.ok()["associations"], json!([]));
    assert_eq!(api.put(&path, to(&new)).await.problem(), (404, "InvalidAssociationID.NotFound"));

    let other = api.vpc("10.0.0.0/16").await;
    let path = format!("{}/associations/{}", table(&new), id(&moved["associations"][0]));
    for (body, status, code) in [
        (json!({}), 400, "MissingParameter"),
        (json!({ "route_table_id": "rtb-1" }), 400, "InvalidRouteTableID.Malformed"),
        (json!({ "route_table_id": "rtb-00000000000000000" }), 404, "InvalidRouteTableID.NotFound"),
        (json!({ "route_table_id": other["main_route_table_id"] }), 400, "InvalidParameterValue"),
    ] {
        let answer = api.put(&path, body.clone()).await;
        assert_eq!((answer.problem(), answer.field()), ((status, code), Some("route_table_id")), "{body}");
    }
}

#[tokio::test]
async fn of_many_who_replace_the_main_table_each_leaves_one() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let mut tables = vec![];
    for name in ["a", "b", "c", "d"] {
        tables.push(api.post("/route-tables", json!({ "vpc_id": id(&vpc), "name": name })).await.ok());
    }
    let main = api.get(&main_table(&vpc)).await.ok();
    let path = format!("{}/associations/{}", main_table(&vpc), main["main_association_id"].as_str().unwrap());
    let racers = tables.iter().map(|table| api.put(&path, json!({ "route_table_id": id(table) })));
    let answers = futures_util::future::join_all(racers).await;
    let won = answers.iter().filter(|a| a.status.is_success()).count();
    assert_eq!(won, 1, "{answers:?}");
    for answer in answers.iter().filter(|a| !a.status.is_success()) {
        assert_eq!(answer.problem(), (404, "InvalidAssociationID.NotFound"));
    }
    let mains = api.count("select count(*) from route_tables where is_main and deleted_at is null").await;
    assert_eq!(mains, 1);
}

#[tokio::test]
async fn routes_are_replaced() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let instance = api.launch(id(&subnet), json!({})).await.ok();
    let gateway = api.post("/internet-gateways", json!({})).await.ok();
    api.post(&format!("/internet-gateways/{}/attach", id(&gateway)), json!({ "vpc_id": id(&vpc) }))
        .await
        .ok();
    let routes = format!("{}/routes", main_table(&vpc));
    let route = |to: &str, target: &Value| json!({ "destination_cidr": to, "target_id": id(target) });
    let missing = api.put(&routes, route("0.0.0.0/0", &gateway)).await;
    assert_eq!(missing.problem(), (404, "InvalidRoute.NotFound"));
    assert_eq!(missing.field(), Some("destination_cidr"));
    api.post(&routes, route("0.0.0.0/0", &gateway)).await.ok();
    let table = api.put(&routes, route("0.0.0.0/0", &instance)).await.ok();
    assert_eq!(table["routes"][1]["target_id"], instance["network_interface_id"]);
    let table = api.put(&routes, route("0.0.0.0/0", &gateway)).await.ok();
    assert_eq!(
        (destinations(&table)[1], table["routes"].as_array().unwrap().len()),
        (("0.0.0.0/0", "gateway"), 2)
    );
    for (body, status, code, field) in [
        (route("10.0.0.0/16", &gateway), 400, "InvalidParameterValue", "destination_cidr"),
        (route("10.0.9.0/24", &gateway), 400, "InvalidParameterValue", "destination_cidr"),
        (route("169.254.0.0/16", &gateway), 400, "InvalidParameterValue", "destination_cidr"),
        (route("0.0.0.0/0", &vpc), 400, "InvalidParameterValue", "target_id"),
        (json!({ "destination_cidr": "0.0.0.0/0" }), 400, "MissingParameter", "target_id"),
        (
            json!({ "destination_cidr": "0.0.0.0/0", "target_id": "igw-00000000000000000" }),
            404,
            "InvalidInternetGatewayID.NotFound",
            "target_id",
        ),
    ] {
        let answer = api.put(&routes, body.clone()).await;
        assert_eq!((answer.problem(), answer.field()), ((status, code), Some(field)), "{body}");
    }
}

#[tokio::test]
async fn a_route_is_a_black_hole_while_its_target_is_away() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let instance = api.launch(id(&subnet), json!({})).await.ok();
    api.run_everything().await;
    let gateway = api.post("/internet-gateways", json!({})).await.ok();
    let igw = format!("/internet-gateways/{}", id(&gateway));
    api.post(&format!("{igw}/attach"), json!({ "vpc_id": id(&vpc) })).await.ok();
    let routes = format!("{}/routes", main_table(&vpc));
    for (to, target) in [("0.0.0.0/0", id(&gateway)), ("192.0.2.0/24", id(&instance))] {
        api.post(&routes, json!({ "destination_cidr": to, "target_id": target })).await.ok();
    }
    let states = async || {
        let table = api.get(&main_table(&vpc)).await.ok();
        let routes = table["routes"].as_array().unwrap()[1..].to_vec();
        routes.iter().map(|r| r["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(states().await, ["active", "active"]);
    api.post(&format!("/instances/{}/stop", id(&instance)), json!({})).await.ok();
    api.run_everything().await;
    assert_eq!(states().await, ["active", "blackhole"]);
    api.post(&format!("/instances/{}/start", id(&instance)), json!({})).await.ok();
    api.post(&format!("{igw}/detach"), json!({})).await.ok();
    assert_eq!(states().await, ["blackhole", "active"]);
    api.post(&format!("{igw}/attach"), json!({ "vpc_id": id(&vpc) })).await.ok();
    assert_eq!(states().await, ["active", "active"]);
}

#[tokio::test]
async fn the_default_vpc_is_where_launches_go_that_name_no_subnet() {
    let api = Api::furnished().await;
    let image = api.image("gon-linux").await;
    let launch = json!({ "name": "i", "image_id": image, "instance_type": "g1.nano" });
    let refused = api.post("/instances", launch.clone()).await;
    assert_eq!((refused.problem(), refused.field()), ((400, "VPCIdNotSpecified"), Some("subnet_id")));
    let vpc = api.post("/vpcs/default", json!({})).await.ok();
    assert_eq!((&vpc["cidr_block"], &vpc["is_default"]), (&json!("172.31.0.0/16"), &json!(true)));
    assert_eq!(api.post("/vpcs/default", json!({})).await.problem(), (409, "DefaultVpcAlreadyExists"));
    assert_eq!(api.count("select count(*) from vpcs").await, 1);

    let subnets = api.get(&format!("/vpcs/{}/subnets", id(&vpc))).await.ok();
    let subnet = &subnets["items"][0];
    assert_eq!(subnets["items"].as_array().unwrap().len(), 1);
    assert_eq!((&subnet["cidr_block"], &subnet["subnet_type"]), (&json!("172.31.0.0/20"), &json!("public")));
    assert_eq!((&subnet["default_for_az"], &subnet["availability_zone"]), (&json!(true), &json!("gon-1a")));
    let table = api.get(&main_table(&vpc)).await.ok();
    assert_eq!(destinations(&table), [("172.31.0.0/16", "local"), ("0.0.0.0/0", "gateway")]);
    assert_eq!(table["routes"][1]["state"], "active");

    let instance = api.post("/instances", launch.clone()).await.ok();
    assert_eq!((&instance["subnet_id"], &instance["vpc_id"]), (&subnet["id"], &vpc["id"]));
    assert!(instance["public_ip"].is_string());
    assert_eq!(instance["security_group_ids"], json!([vpc["default_security_group_id"]]));
    // Another account has none of it.
    let other = api.user("other", "eve", "member").await;
    let refused = api.as_user(&other, axum::http::Method::POST, "/instances", Some(&launch)).await;
    assert_eq!(refused.problem().0, 400);
}
