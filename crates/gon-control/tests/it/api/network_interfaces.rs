//! Network interfaces: made, attached, detached, with their addresses and groups.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Api;
use super::harness::id;

struct Site {
    api: Api,
    vpc: Value,
    subnet: Value,
    instance: Value,
}

impl Site {
    async fn new() -> Self {
        let api = Api::furnished().await;
        let vpc = api.vpc("10.0.0.0/16").await;
        let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
        let instance = api.launch(id(&subnet), json!({})).await.ok();
        api.run_everything().await;
        Self { api, vpc, subnet, instance }
    }

    async fn make(&self, more: Value) -> Value {
        let mut body = json!({ "subnet_id": id(&self.subnet) });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.api.post("/network-interfaces", body).await.ok()
    }

    async fn stop(&self) {
        self.api.post(&format!("/instances/{}/stop", id(&self.instance)), json!({})).await.ok();
        self.api.run_everything().await;
    }

    fn slot(&self, index: i64) -> Value {
        json!({ "instance_id": id(&self.instance), "device_index": index })
    }
}

fn path(interface: &Value) -> String {
    format!("/network-interfaces/{}", id(interface))
}

#[tokio::test]
async fn an_interface_lives_without_an_instance() {
    let site = Site::new().await;
    let api = &site.api;
    let subnet = format!("/subnets/{}", id(&site.subnet));
    let free = api.get(&subnet).await.ok()["available_ip_address_count"].as_i64().unwrap();
    let interface = site
        .make(json!({ "description": "spare", "private_ip": "10.0.1.77", "secondary_private_ip_count": 2 }))
        .await;
    assert_eq!((&interface["status"], &interface["description"]), (&json!("available"), &json!("spare")));
    assert_eq!((&interface["private_ip"], &interface["instance_id"]), (&json!("10.0.1.77"), &json!(null)));
    assert_eq!(interface["security_group_ids"], json!([site.vpc["default_security_group_id"]]));
    assert_eq!(interface["secondary_private_ips"].as_array().unwrap().len(), 2);
    assert_eq!(api.get(&subnet).await.ok()["available_ip_address_count"], free - 3);
    // It holds its subnet, and is found.
    assert_eq!(api.delete(&subnet).await.problem(), (409, "DependencyViolation"));
    let spare = api.get("/network-interfaces?status=available").await.ok();
    assert_eq!((spare["items"].as_array().unwrap().len(), id(&spare["items"][0])), (1, id(&interface)));
    assert_eq!(api.get("/network-interfaces?status=in-use").await.ok()["items"].as_array().unwrap().len(), 1);

    let changed =
        api.put(&path(&interface), json!({ "description": "", "source_dest_check": false })).await.ok();
    assert_eq!((&changed["description"], &changed["source_dest_check"]), (&json!(""), &json!(false)));
    assert!(changed["generation"].as_i64() > interface["generation"].as_i64());
    assert_eq!(api.delete(&path(&interface)).await.status, 204);
    assert_eq!(api.get(&path(&interface)).await.problem(), (404, "InvalidNetworkInterfaceID.NotFound"));
    assert_eq!(api.get(&subnet).await.ok()["available_ip_address_count"], free);
}

#[tokio::test]
async fn an_interface_comes_and_goes_with_a_stopped_instance() {
    let site = Site::new().await;
    let api = &site.api;
    let interface = site.make(json!({})).await;
    let attach = format!("{}/attach", path(&interface));
    let detach = format!("{}/detach", path(&interface));
    assert_eq!(api.post(&attach, site.slot(1)).await.problem(), (409, "UnsupportedOperation"));
    assert_eq!(api.post(&detach, json!({})).await.problem(), (409, "InvalidAttachmentID.NotFound"));
    site.stop().await;
    let attached = api.post(&attach, site.slot(1)).await.ok();
    assert_eq!((&attached["status"], &attached["device_index"]), (&json!("in-use"), &json!(1)));
    assert!(attached["attachment_id"].as_str().unwrap().starts_with("eni-attach-"));
    assert_eq!((&attached["is_primary"], &attached["delete_on_termination"]), (&json!(false), &json!(false)));
    // It has a port of its own where the instance is, and the instance's specification moved on.
    assert_eq!(
        api.count("select count(distinct port_no) from network_interfaces where node_id is not null").await,
        2
    );
    assert_eq!(api.count("select count(*) from instances where generation > observed_generation").await, 1);
    let again = api.post(&attach, site.slot(2)).await;
    assert_eq!(again.problem(), (409, "InvalidNetworkInterface.InUse"));
    assert_eq!(again.body["blockers"], json!([id(&site.instance)]));
    let second = site.make(json!({})).await;
    for taken in [0, 1] {
        let answer = api.post(&format!("{}/attach", path(&second)), site.slot(taken)).await;
        assert_eq!(
            (answer.problem(), answer.field()),
            ((400, "InvalidParameterValue"), Some("device_index"))
        );
    }
    assert_eq!(api.delete(&path(&interface)).await.problem(), (409, "InvalidNetworkInterface.InUse"));
    // Named by its instance it would be either of two.
    let routes = format!("/route-tables/{}/routes", site.vpc["main_route_table_id"].as_str().unwrap());
    let route = json!({ "destination_cidr": "192.0.2.0/24", "target_id": id(&site.instance) });
    assert_eq!(api.post(&routes, route).await.problem(), (400, "InvalidInstanceID"));
    let route = json!({ "destination_cidr": "192.0.2.0/24", "target_id": id(&interface) });
    let table = api.post(&routes, route).await.ok();
    assert_eq!(table["routes"][1]["state"], "blackhole");

    let primary = site.instance["network_interface_id"].as_str().unwrap();
    let refused = api.post(&format!("/network-interfaces/{primary}/detach"), json!({})).await;
    assert_eq!(refused.problem(), (409, "OperationNotPermitted"));
    api.post(&format!("/instances/{}/start", id(&site.instance)), json!({})).await.ok();
    assert_eq!(api.post(&detach, json!({})).await.problem(), (409, "IncorrectInstanceState"));
    api.run_everything().await;
    assert_eq!(api.post(&detach, json!({})).await.problem(), (409, "UnsupportedOperation"));
    site.stop().await;
    let detached = api.post(&detach, json!({})).await.ok();
    assert_eq!((&detached["status"], &detached["instance_id"]), (&json!("available"), &json!(null)));
    assert_eq!(api.count("select count(*) from network_interfaces where node_id is not null").await, 1);
    assert_eq!(api.delete(&path(&interface)).await.status, 204);
}

#[tokio::test]
async fn an_interface_ends_with_its_instance_if_it_is_said_to() {
    let site = Site::new().await;
    let api = &site.api;
    site.stop().await;
    let (kept, ends) = (site.make(json!({})).await, site.make(json!({})).await);
    for (slot, interface) in [(1, &kept), (2, &ends)] {
        api.post(&format!("{}/attach", path(interface)), site.slot(slot)).await.ok();
    }
    let refused = site.make(json!({})).await;
    let answer = api.put(&path(&refused), json!({ "delete_on_termination": true })).await;
    assert_eq!(
        (answer.problem(), answer.field()),
        ((400, "InvalidParameterValue"), Some("delete_on_termination"))
    );
    api.put(&path(&ends), json!({ "delete_on_termination": true })).await.ok();
    api.delete(&format!("/instances/{}", id(&site.instance))).await.ok();
    api.sql(
        "update instances set finalizers = '{}' where power = 'terminated';
         update nodes set used_vcpus = 8, used_memory_mib = 8192",
    )
    .await;
    api.finish_terminations().await;
    let left = api.get(&path(&kept)).await.ok();
    assert_eq!((&left["status"], &left["instance_id"]), (&json!("available"), &json!(null)));
    assert_eq!(left["security_group_ids"], json!([site.vpc["default_security_group_id"]]));
    assert_eq!(api.get(&path(&ends)).await.problem().0, 404);
    assert_eq!(api.get(&format!("/instances/{}", id(&site.instance))).await.ok()["state"], "terminated");
}

#[tokio::test]
async fn addresses_come_and_go() {
    let site = Site::new().await;
    let api = &site.api;
    let interface = site.make(json!({ "secondary_private_ips": ["10.0.1.50", "10.0.1.51"] })).await;
    assert_eq!(interface["secondary_private_ips"], json!(["10.0.1.50", "10.0.1.51"]));
    let ips = format!("{}/private-ips", path(&interface));
    let unassign = format!("{ips}/unassign");
    let with = api.post(&ips, json!({ "private_ips": ["10.0.1.60"] })).await.ok();
    assert_eq!(with["secondary_private_ips"], json!(["10.0.1.50", "10.0.1.51", "10.0.1.60"]));
    assert_eq!(with["generation"].as_i64(), interface["generation"].as_i64().map(|g| g + 1));
    let with = api.post(&ips, json!({ "count": 3 })).await.ok();
    let all: BTreeSet<&str> =
        with["secondary_private_ips"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    assert_eq!(all.len(), 6);
    let (nine, ten) = (json!({ "count": 9 }), json!({ "count": 10 }));
    assert_eq!(api.post(&ips, ten).await.problem(), (409, "PrivateIpAddressLimitExceeded"));
    api.post(&ips, nine).await.ok();
    // All or none.
    let refused = api.post(&unassign, json!({ "private_ips": ["10.0.1.50", "10.0.1.99"] })).await;
    assert_eq!(
        (refused.problem(), refused.field()),
        ((400, "InvalidParameterValue"), Some("private_ips[1]"))
    );
    let without = api.post(&unassign, json!({ "private_ips": ["10.0.1.50", "10.0.1.51"] })).await.ok();
    assert_eq!(without["secondary_private_ips"].as_array().unwrap().len(), 13);
    // Neither an instance nor another interface gets one that is in use; one that is free again may be asked for.
    let taken = api.launch(id(&site.subnet), json!({ "private_ip": "10.0.1.60" })).await;
    assert_eq!(taken.problem(), (409, "InvalidIPAddress.InUse"));
    let other = site.make(json!({ "private_ip": "10.0.1.50" })).await;
    let answer = api.post(&ips, json!({ "private_ips": ["10.0.1.52", "10.0.1.50"] })).await;
    assert_eq!((answer.problem(), answer.field()), ((409, "InvalidIPAddress.InUse"), Some("private_ips")));
    assert_eq!(api.count("select count(*) from interface_addresses where private_ip = '10.0.1.52'").await, 0);
    let own = json!({ "private_ips": ["10.0.1.50"] });
    let refused = api.post(&format!("{}/private-ips/unassign", path(&other)), own).await;
    assert_eq!(refused.problem(), (400, "InvalidParameterValue"));
}

#[tokio::test]
async fn a_subnet_is_filled_to_the_last_address() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = api.subnet(id(&vpc), "10.0.1.0/28").await;
    let make = async |more: Value| {
        let mut body = json!({ "subnet_id": id(&subnet) });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        api.post("/network-interfaces", body).await
    };
    make(json!({ "secondary_private_ip_count": 8 })).await.ok();
    let too_many = make(json!({ "secondary_private_ip_count": 2 })).await;
    assert_eq!(too_many.problem(), (409, "InsufficientFreeAddressesInSubnet"));
    assert_eq!(api.count("select count(*) from network_interfaces").await, 1);
    make(json!({ "secondary_private_ip_count": 1 })).await.ok();
    assert_eq!(make(json!({})).await.problem(), (409, "InsufficientFreeAddressesInSubnet"));
    assert_eq!(
        api.launch(id(&subnet), json!({})).await.problem(),
        (409, "InsufficientFreeAddressesInSubnet")
    );
    let now = api.get(&format!("/subnets/{}", id(&subnet))).await.ok();
    assert_eq!(now["available_ip_address_count"], 0);
}

#[tokio::test]
async fn groups_of_an_interface_change_while_its_guest_runs() {
    let site = Site::new().await;
    let api = &site.api;
    let group = api.post("/security-groups", json!({ "vpc_id": id(&site.vpc), "name": "web" })).await.ok();
    let primary = format!("/network-interfaces/{}", site.instance["network_interface_id"].as_str().unwrap());
    let changed = api.put(&primary, json!({ "security_group_ids": [id(&group)] })).await.ok();
    assert_eq!(changed["security_group_ids"], json!([id(&group)]));
    assert_eq!(changed["applied"]["nodes"], 1);
    let refused = api.delete(&format!("/security-groups/{}", id(&group))).await;
    assert_eq!(refused.problem(), (409, "DependencyViolation"));
    let both = json!({ "security_group_ids": [id(&group), site.vpc["default_security_group_id"]] });
    assert_eq!(api.put(&primary, both).await.ok()["security_group_ids"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_public_address_stays_with_its_interface() {
    let site = Site::new().await;
    let api = &site.api;
    let gateway = api.post("/internet-gateways", json!({})).await.ok();
    let attach = format!("/internet-gateways/{}/attach", id(&gateway));
    api.post(&attach, json!({ "vpc_id": id(&site.vpc) })).await.ok();
    let interface = site.make(json!({})).await;
    let address = api.post("/addresses", json!({})).await.ok();
    let map = format!("/addresses/{}/associate", id(&address));
    let mapped = api.post(&map, json!({ "network_interface_id": id(&interface) })).await.ok();
    assert_eq!(
        (&mapped["network_interface_id"], &mapped["instance_id"]),
        (&json!(id(&interface)), &json!(null))
    );
    site.stop().await;
    let attached = api.post(&format!("{}/attach", path(&interface)), site.slot(1)).await.ok();
    assert_eq!(attached["public_ip"], address["public_ip"]);
    let detached = api.post(&format!("{}/detach", path(&interface)), json!({})).await.ok();
    assert_eq!(detached["public_ip"], address["public_ip"]);
    assert_eq!(api.delete(&path(&interface)).await.status, 204);
    let free = api.get(&format!("/addresses/{}", id(&address))).await.ok();
    assert_eq!(free["network_interface_id"], json!(null));
}

#[tokio::test]
async fn what_an_interface_cannot_be() {
    let site = Site::new().await;
    let api = &site.api;
    let other = api.vpc("10.0.0.0/16").await;
    let foreign = api.subnet(id(&other), "10.0.1.0/24").await;
    let interface = site.make(json!({})).await;
    site.stop().await;
    let rows = "select (select count(*) from network_interfaces) + (select count(*) from interface_addresses)
        + (select count(*) from network_interface_security_groups) + (select count(*) from audit_log)
        + (select sum(generation) from vpcs)::bigint";
    let before = api.count(rows).await;
    let nothing = "00000000000000000";
    let subnet = id(&site.subnet);
    for (body, status, code, field) in [
        (json!({}), 400, "MissingParameter", "subnet_id"),
        (json!({ "subnet_id": "subnet-1" }), 400, "InvalidSubnetID.Malformed", "subnet_id"),
        (json!({ "subnet_id": format!("subnet-{nothing}") }), 404, "InvalidSubnetID.NotFound", "subnet_id"),
        (json!({ "subnet_id": subnet, "private_ip": "ten" }), 400, "InvalidParameterValue", "private_ip"),
        (
            json!({ "subnet_id": subnet, "private_ip": "10.0.1.1" }),
            400,
            "InvalidParameterValue",
            "private_ip",
        ),
        (
            json!({ "subnet_id": subnet, "private_ip": "10.0.1.255" }),
            400,
            "InvalidParameterValue",
            "private_ip",
        ),
        (
            json!({ "subnet_id": subnet, "private_ip": "10.0.2.9" }),
            400,
            "InvalidParameterValue",
            "private_ip",
        ),
        (
            json!({ "subnet_id": subnet, "private_ip": site.instance["private_ip"] }),
            409,
            "InvalidIPAddress.InUse",
            "private_ip",
        ),
        (
            json!({ "subnet_id": subnet, "private_ip": "10.0.1.9", "secondary_private_ips": ["10.0.1.9"] }),
            400,
            "InvalidParameterValue",
            "secondary_private_ips",
        ),
        (
            json!({ "subnet_id": subnet, "secondary_private_ips": ["10.0.1.9", "10.0.1.9"] }),
            400,
            "InvalidParameterValue",
            "secondary_private_ips[1]",
        ),
        (
            json!({ "subnet_id": subnet, "secondary_private_ips": [site.instance["private_ip"]] }),
            409,
            "InvalidIPAddress.InUse",
            "secondary_private_ips",
        ),
        (
            json!({ "subnet_id": subnet, "secondary_private_ip_count": 16 }),
            409,
            "PrivateIpAddressLimitExceeded",
            "secondary_private_ip_count",
        ),
        (
            json!({ "subnet_id": subnet, "description": "x".repeat(256) }),
            400,
            "InvalidParameterValue",
            "description",
        ),
        (json!({ "subnet_id": subnet, "description": "a\nb" }), 400, "InvalidParameterValue", "description"),
        (
            json!({ "subnet_id": subnet, "security_group_ids": [] }),
            400,
            "InvalidParameterValue",
            "security_group_ids",
        ),
        (
            json!({ "subnet_id": subnet, "security_group_ids": [other["default_security_group_id"]] }),
            400,
            "InvalidParameterValue",
            "security_group_ids[0]",
        ),
        (
            json!({ "subnet_id": subnet, "security_group_ids": vec![format!("sg-{nothing}"); 6] }),
            400,
            "SecurityGroupsPerInterfaceLimitExceeded",
            "security_group_ids",
        ),
        (
            json!({ "subnet_id": subnet, "instance_id": id(&site.instance) }),
            400,
            "UnknownParameter",
            "instance_id",
        ),
    ] {
        let answer = api.post("/network-interfaces", body.clone()).await;
        assert_eq!((answer.problem(), answer.field()), ((status, code), Some(field)), "{body}");
    }
    assert_eq!(api.count(rows).await, before);
    let abroad = api.launch(id(&foreign), json!({})).await.ok();
    let before = api.count(rows).await;
    let own = path(&interface);
    for (verb, body, status, code, field) in [
        ("attach", json!({ "device_index": 1 }), 400, "MissingParameter", "instance_id"),
        ("attach", json!({ "instance_id": id(&site.instance) }), 400, "MissingParameter", "device_index"),
        ("attach", site.slot(-1), 400, "InvalidParameterValue", "device_index"),
        ("attach", site.slot(8), 400, "InvalidParameterValue", "device_index"),
        ("attach", site.slot(70_000), 400, "InvalidParameterValue", "device_index"),
        (
            "attach",
            json!({ "instance_id": format!("i-{nothing}"), "device_index": 1 }),
            404,
            "InvalidInstanceID.NotFound",
            "instance_id",
        ),
        (
            "attach",
            json!({ "instance_id": id(&abroad), "device_index": 1 }),
            400,
            "InvalidParameterValue",
            "instance_id",
        ),
        ("private-ips", json!({}), 400, "MissingParameter", "private_ips"),
        ("private-ips", json!({ "private_ips": [] }), 400, "MissingParameter", "private_ips"),
        ("private-ips", json!({ "count": 0 }), 400, "InvalidParameterValue", "count"),
        ("private-ips", json!({ "count": 16 }), 409, "PrivateIpAddressLimitExceeded", "count"),
        (
            "private-ips",
            json!({ "count": 1, "private_ips": ["10.0.1.9"] }),
            400,
            "InvalidParameterCombination",
            "count",
        ),
        (
            "private-ips",
            json!({ "private_ips": ["10.0.1.0"] }),
            400,
            "InvalidParameterValue",
            "private_ips[0]",
        ),
        ("private-ips/unassign", json!({ "private_ips": [] }), 400, "MissingParameter", "private_ips"),
        (
            "private-ips/unassign",
            json!({ "private_ips": [interface["private_ip"]] }),
            400,
            "InvalidParameterValue",
            "private_ips[0]",
        ),
    ] {
        let answer = api.post(&format!("{own}/{verb}"), body.clone()).await;
        assert_eq!((answer.problem(), answer.field()), ((status, code), Some(field)), "{verb} {body}");
    }
    for (body, code) in [
        (json!({}), "MissingParameter"),
        (json!({ "security_group_ids": [] }), "InvalidParameterValue"),
        (json!({ "source_dest_check": "no" }), "InvalidParameterValue"),
        (json!({ "private_ip": "10.0.1.9" }), "UnknownParameter"),
    ] {
        assert_eq!(api.put(&own, body.clone()).await.problem(), (400, code), "{body}");
    }
    assert_eq!(api.count(rows).await, before);
}
