//! Route tables, gateways.

use serde_json::json;

use super::Api;
use super::harness::id;

#[tokio::test]
async fn routes_are_added_once_and_removed_once() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let main = format!("/route-tables/{}", vpc["main_route_table_id"].as_str().unwrap());
    let routes = format!("{main}/routes");
    let gateway = api.post("/internet-gateways", json!({ "name": "g" })).await.ok();
    let out = json!({ "destination_cidr": "0.0.0.0/0", "target_id": id(&gateway) });
    assert_eq!(api.post(&routes, out.clone()).await.problem(), (409, "Gateway.NotAttached"));
    let attach = format!("/internet-gateways/{}/attach", id(&gateway));
    api.post(&attach, json!({ "vpc_id": id(&vpc) })).await.ok();
    assert_eq!(
        api.post(&attach, json!({ "vpc_id": id(&vpc) })).await.problem(),
        (409, "Resource.AlreadyAssociated")
    );
    let second = api.post("/internet-gateways", json!({})).await.ok();
    let refused =
        api.post(&format!("/internet-gateways/{}/attach", id(&second)), json!({ "vpc_id": id(&vpc) })).await;
    assert_eq!(refused.problem(), (409, "Resource.AlreadyAssociated"));

    let before = api.get(&main).await.ok()["generation"].as_i64().unwrap();
    let table = api.post(&routes, out.clone()).await.ok();
    assert_eq!(table["generation"], before + 1);
    assert_eq!(api.post(&routes, out).await.problem(), (409, "RouteAlreadyExists"));
    for (destination, field) in [
        ("10.0.0.0/16", "destination_cidr"),
        ("10.0.7.0/24", "destination_cidr"),
        ("169.254.169.254/32", "destination_cidr"),
        ("::/0", "destination_cidr"),
    ] {
        let answer =
            api.post(&routes, json!({ "destination_cidr": destination, "target_id": id(&gateway) })).await;
        assert_eq!(
            (answer.problem(), answer.field()),
            ((400, "InvalidParameterValue"), Some(field)),
            "{destination}"
        );
    }
    let mismatch =
        json!({ "destination_cidr": "192.0.2.0/24", "target_type": "instance", "target_id": id(&gateway) });
    assert_eq!(api.post(&routes, mismatch).await.field(), Some("target_type"));

    // A gateway of another VPC is no way out of this one.
    let other = api.vpc("10.0.0.0/16").await;
    let foreign = format!("/route-tables/{}/routes", other["main_route_table_id"].as_str().unwrap());
    let answer =
        api.post(&foreign, json!({ "destination_cidr": "0.0.0.0/0", "target_id": id(&gateway) })).await;
    assert_eq!((answer.problem(), answer.field()), ((400, "InvalidParameterValue"), Some("target_id")));

    assert_eq!(api.delete(&routes).await.field(), Some("destination_cidr"));
    let local = api.delete(&format!("{routes}?destination_cidr=10.0.0.0/16")).await;
    assert_eq!(local.problem(), (400, "InvalidParameterValue"));
    api.delete(&format!("{routes}?destination_cidr=0.0.0.0/0")).await.ok();
    let gone = api.delete(&format!("{routes}?destination_cidr=0.0.0.0/0")).await;
    assert_eq!(gone.problem(), (404, "InvalidRoute.NotFound"));
}

#[tokio::test]
async fn subnets_follow_one_table() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let table = api.post("/route-tables", json!({ "vpc_id": id(&vpc), "name": "out" })).await.ok();
    let path = format!("/route-tables/{}", id(&table));
    assert_eq!(subnet["route_table_id"], vpc["main_route_table_id"]);
    let associate = json!({ "subnet_id": id(&subnet) });
    let with = api.post(&format!("{path}/associations"), associate.clone()).await.ok();
    assert_eq!(with["associations"][0]["subnet_id"], id(&subnet));
    assert_eq!(api.get(&format!("/subnets/{}", id(&subnet))).await.ok()["route_table_id"], id(&table));
    assert_eq!(
        api.post(&format!("{path}/associations"), associate.clone()).await.problem(),
        (409, "Resource.AlreadyAssociated")
    );
    let refused = api.delete(&path).await;
    assert_eq!(refused.problem(), (409, "DependencyViolation"));
    assert_eq!(refused.body["blockers"][0], with["associations"][0]["id"]);
    let other = api.vpc("10.0.0.0/16").await;
    let foreign = format!("/route-tables/{}/associations", other["main_route_table_id"].as_str().unwrap());
    assert_eq!(api.post(&foreign, associate).await.problem(), (400, "InvalidParameterValue"));
    let association = format!("{path}/associations/{}", id(&with["associations"][0]));
    let without = api.delete(&association).await.ok();
    assert_eq!(without["associations"], json!([]));
    assert_eq!(api.delete(&association).await.problem(), (404, "InvalidAssociationID.NotFound"));
    assert_eq!(api.delete(&path).await.status, 204);
    let main = format!("/route-tables/{}", vpc["main_route_table_id"].as_str().unwrap());
    assert_eq!(api.delete(&main).await.problem(), (409, "DependencyViolation"));
    assert_eq!(api.put(&main, json!({ "name": "renamed" })).await.ok()["name"], "renamed");
}

#[tokio::test]
async fn a_route_to_an_instance_ends_as_a_black_hole() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let instance = api.launch(id(&subnet), json!({})).await.ok();
    let main = format!("/route-tables/{}", vpc["main_route_table_id"].as_str().unwrap());
    let route =
        json!({ "destination_cidr": "192.0.2.0/24", "target_type": "instance", "target_id": id(&instance) });
    let table = api.post(&format!("{main}/routes"), route).await.ok();
    assert_eq!(table["routes"][1]["target_id"], instance["network_interface_id"]);
    assert_eq!(
        (&table["routes"][1]["target_type"], &table["routes"][1]["state"]),
        (&json!("instance"), &json!("active"))
    );
    api.delete(&format!("/instances/{}", id(&instance))).await.ok();
    api.finish_terminations().await;
    assert_eq!(api.get(&main).await.ok()["routes"][1]["state"], "blackhole");
}

#[tokio::test]
async fn gateways_are_named_and_deleted_detached() {
    let api = Api::new().await;
    let nameless = api.as_user(&api.admin, axum::http::Method::POST, "/internet-gateways", None).await.ok();
    assert_eq!(nameless["name"], nameless["id"]);
    let path = format!("/internet-gateways/{}", id(&nameless));
    assert_eq!(api.put(&path, json!({ "name": "n" })).await.ok()["name"], "n");
    assert_eq!(api.post(&format!("{path}/detach"), json!({})).await.problem(), (409, "Gateway.NotAttached"));
    let vpc = api.vpc("10.0.0.0/16").await;
    let other = api.vpc("10.0.0.0/16").await;
    api.post(&format!("{path}/attach"), json!({ "vpc_id": id(&vpc) })).await.ok();
    let wrong = api.post(&format!("{path}/detach"), json!({ "vpc_id": id(&other) })).await;
    assert_eq!(wrong.problem(), (409, "Gateway.NotAttached"));
    assert_eq!(api.delete(&path).await.body["blockers"], json!([id(&vpc)]));
    api.post(&format!("{path}/detach"), json!({ "vpc_id": id(&vpc) })).await.ok();
    assert_eq!(api.delete(&path).await.status, 204);
}
