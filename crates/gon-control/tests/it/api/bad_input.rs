//! Whatever is wrong with a request, the answer is a problem with EC2's code and the field, and nothing is made.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use super::Api;
use super::harness::id;

/// Everything that could be half-created.
async fn rows(api: &Api) -> i64 {
    api.count(
        "select (select count(*) from vpcs) + (select count(*) from subnets) + (select count(*) from route_tables)
           + (select count(*) from routes) + (select count(*) from route_table_associations)
           + (select count(*) from internet_gateways) + (select count(*) from security_groups)
           + (select count(*) from security_group_rules) + (select count(*) from instances)
           + (select count(*) from network_interfaces) + (select count(*) from key_pairs)
           + (select count(*) from public_ips where account_id is not null) + (select count(*) from audit_log)
           + (select count(*) from events) + (select count(*) from idempotency_keys)
           + (select count(*) from operations)",
    )
    .await
}

const BAD_IDS: &[&str] = &[
    "x",
    "vpc",
    "-",
    "0",
    "null",
    "undefined",
    "vpc-",
    "vpc-1",
    "vpc-0123456789ABCDEF0",
    "vpc-0123456789abcdefg",
    "vpc-0123456789abcdef01",
    "vpc_0123456789abcdef0",
    "nothing-0123456789abcdef0",
    "018f0e2a7b1c7def8123456789abcdef",
    "018f0e2a-7b1c-7def-8123-456789abcdez",
    "%00",
    "%F0%9F%92%A9",
    "'%20or%201=1%20--",
    "..%2f..",
    "%E2%80%AE",
];

#[tokio::test]
async fn malformed_ids() {
    let api = Api::furnished().await;
    let before = rows(&api).await;
    let mut asked = 0;
    for (noun, code) in [
        ("vpcs", "InvalidVpcID.Malformed"),
        ("subnets", "InvalidSubnetID.Malformed"),
        ("route-tables", "InvalidRouteTableID.Malformed"),
        ("internet-gateways", "InvalidInternetGatewayID.Malformed"),
        ("security-groups", "InvalidGroup.Malformed"),
        ("network-acls", "InvalidNetworkAclID.Malformed"),
        ("instances", "InvalidInstanceID.Malformed"),
        ("network-interfaces", "InvalidNetworkInterfaceID.Malformed"),
        ("addresses", "InvalidAllocationID.Malformed"),
        ("key-pairs", "InvalidKeyPair.Malformed"),
        ("images", "InvalidAMIID.Malformed"),
        ("nodes", "InvalidNodeID.Malformed"),
        ("operations", "InvalidOperationID.Malformed"),
    ] {
        for bad in BAD_IDS {
            let answer = api.get(&format!("/{noun}/{bad}")).await;
            assert_eq!((answer.problem(), answer.field()), ((400, code), Some("id")), "{noun}/{bad}");
            asked += 1;
        }
        // An id of another kind is not an id of this one.
        let kind = if noun == "vpcs" { "subnet" } else { "vpc" };
        assert_eq!(
            api.get(&format!("/{noun}/{kind}-0123456789abcdef0")).await.problem(),
            (400, code),
            "{noun}"
        );
    }
    assert!(asked >= 200);
    assert_eq!(rows(&api).await, before);
}

#[tokio::test]
async fn malformed_bodies() {
    let api = Api::furnished().await;
    let before = rows(&api).await;
    let vpc = "vpc-00000000000000000";
    let posts = [
        "/vpcs".to_owned(),
        "/instances".to_owned(),
        "/security-groups".to_owned(),
        "/route-tables".to_owned(),
        "/key-pairs".to_owned(),
        format!("/vpcs/{vpc}/subnets"),
        "/security-groups/sg-00000000000000000/rules".to_owned(),
        "/network-acls".to_owned(),
        "/network-acls/acl-00000000000000000/entries".to_owned(),
        "/network-acls/acl-00000000000000000/associations".to_owned(),
        "/route-tables/rtb-00000000000000000/routes".to_owned(),
        "/internet-gateways/igw-00000000000000000/attach".to_owned(),
        "/addresses/eipalloc-00000000000000000/associate".to_owned(),
    ];
    let send = async |path: &str, kind: Option<&str>, body: Vec<u8>| {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("/api/v1{path}"))
            .header("authorization", format!("Bearer {}", api.admin.token));
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        api.send(request.body(Body::from(body)).unwrap()).await
    };
    for path in &posts {
        for bad in [
            &b""[..],
            b"{",
            b"}",
            b"nul",
            b"{\"name\":}",
            b"{\"a\" \"b\"}",
            b"\xff\xfe",
            b"\x00",
            b"{\"name\":\"\xff\"}",
            b"[1,2",
            b"{\"name\":\"a\"",
            b"NaN",
            b"{'name':'x'}",
            b"<xml/>",
            b"name=x",
            b"{\"name\":\"\\ud800\"}",
        ] {
            let answer = send(path, Some("application/json"), bad.to_vec()).await;
            let (status, code) = answer.problem();
            assert_eq!(status, 400, "{path} {bad:?}");
            assert!(
                ["InvalidRequest", "MissingParameter", "InvalidParameterValue", "UnknownParameter"]
                    .contains(&code),
                "{path} {bad:?} {code}"
            );
        }
        for bad in [json!(null), json!(1), json!("text"), json!([]), json!([{}]), json!(true)] {
            let answer = send(path, Some("application/json"), bad.to_string().into_bytes()).await;
            // A list with as many values as there are fields would be taken by position; none of these is.
            assert_eq!(answer.problem().0, 400, "{path} {bad}");
        }
        let unknown = json!({ "owner": "somebody else", "state": "available", "node_id": 1 });
        let answer = send(path, Some("application/json"), unknown.to_string().into_bytes()).await;
        assert_eq!(answer.problem(), (400, "UnknownParameter"), "{path}");
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "application/xml",
            "json",
        ] {
            let answer = send(path, Some(kind), b"{}".to_vec()).await;
            assert_eq!(answer.problem(), (415, "InvalidRequest"), "{path} {kind}");
        }
        let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        assert_eq!(send(path, Some("application/json"), deep).await.problem().0, 400, "{path}");
        let large = format!("{{\"name\":\"{}\"}}", "a".repeat(1 << 20)).into_bytes();
        assert_eq!(
            send(path, Some("application/json"), large).await.problem(),
            (413, "RequestEntityTooLarge"),
            "{path}"
        );
    }
    // JSON with a character set, and none at all, are JSON.
    for kind in [Some("application/json; charset=utf-8"), Some("Application/JSON"), None] {
        let body = json!({ "name": "v", "cidr_block": "10.0.0.0/99" }).to_string().into_bytes();
        assert_eq!(send("/vpcs", kind, body).await.field(), Some("cidr_block"));
    }
    assert_eq!(rows(&api).await, before);
}

/// Values no text field may have, with what is wrong.
fn bad_names() -> Vec<Value> {
    vec![
        json!(""),
        json!(" "),
        json!(" a"),
        json!("a "),
        json!("a\nb"),
        json!("a\u{0}b"),
        json!("\u{1b}[31mred"),
        json!("a\r\nSet-Cookie: x"),
        json!("a\u{202e}b"),
        json!("\u{200b}"),
        json!("\u{feff}x"),
        json!("x".repeat(101)),
        json!("가".repeat(101)),
        json!(1),
        json!(null),
        json!(["a"]),
        json!({ "a": 1 }),
        json!(true),
    ]
}

fn bad_blocks() -> Vec<&'static str> {
    vec![
        "",
        " ",
        "10.0.0.0",
        "10.0.0.0/",
        "/16",
        "10.0.0.0/16 ",
        " 10.0.0.0/16",
        "10.0.0.0/016",
        "10.0.0.0/+16",
        "10.0.0.0/-1",
        "10.0.0.0/33",
        "10.0.0/16",
        "10.0.0.0.0/16",
        "010.0.0.0/16",
        "0x0a.0.0.0/16",
        "256.0.0.0/16",
        "10.0.0.0/16/16",
        "10.0.0.0/1e1",
        "::/16",
        "fd00::/64",
        "::ffff:10.0.0.0/112",
        "10.0.0.0\\16",
        "10.0.0.0/16\u{0}",
        "ten/16",
        "10.0.0.0/15",
        "10.0.0.0/29",
        "10.0.0.0/0",
        "10.0.0.0/32",
        "0.0.0.0/16",
        "127.0.0.0/16",
        "169.254.0.0/16",
        "169.254.169.0/28",
        "224.0.0.0/16",
        "240.0.0.0/16",
        "255.255.255.240/28",
    ]
}

#[tokio::test]
async fn wrong_names_and_blocks() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let image = api.image("gon-linux").await;
    let before = rows(&api).await;
    for name in bad_names() {
        for (path, mut body) in [
            ("/vpcs".to_owned(), json!({ "cidr_block": "10.0.0.0/16" })),
            (format!("/vpcs/{}/subnets", id(&vpc)), json!({ "cidr_block": "10.0.2.0/24" })),
            (
                "/instances".to_owned(),
                json!({ "image_id": image, "instance_type": "g1.nano", "subnet_id": id(&subnet) }),
            ),
            ("/key-pairs".to_owned(), json!({})),
        ] {
            body["name"] = name.clone();
            let answer = api.post(&path, body).await;
            assert_eq!(
                (answer.problem(), answer.field()),
                ((400, "InvalidParameterValue"), Some("name")),
                "{path} {name}"
            );
        }
    }
    for name in [json!(""), json!("sg-x"), json!("SG-0123"), json!("x".repeat(256)), json!("a\nb"), json!(7)]
    {
        let answer = api.post("/security-groups", json!({ "vpc_id": id(&vpc), "name": name })).await;
        assert_eq!(
            (answer.problem(), answer.field()),
            ((400, "InvalidParameterValue"), Some("name")),
            "{name}"
        );
    }
    for description in [json!("x".repeat(256)), json!("a\nb"), json!(1)] {
        let answer = api
            .post("/security-groups", json!({ "vpc_id": id(&vpc), "name": "g", "description": description }))
            .await;
        assert_eq!(answer.field(), Some("description"), "{description}");
    }
    for block in bad_blocks() {
        let answer = api.post("/vpcs", json!({ "name": "v", "cidr_block": block })).await;
        let (status, code) = answer.problem();
        assert_eq!((status, answer.field()), (400, Some("cidr_block")), "{block}");
        assert!(["InvalidVpc.Range", "InvalidParameterValue"].contains(&code), "{block} {code}");
        let answer = api
            .post(&format!("/vpcs/{}/subnets", id(&vpc)), json!({ "name": "s", "cidr_block": block }))
            .await;
        let (status, code) = answer.problem();
        assert_eq!((status, answer.field()), (400, Some("cidr_block")), "{block}");
        assert!(["InvalidSubnet.Range", "InvalidParameterValue"].contains(&code), "{block} {code}");
    }
    assert_eq!(rows(&api).await, before);
}

#[tokio::test]
async fn wrong_rules() {
    let api = Api::new().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let rules = format!("/security-groups/{}/rules", vpc["default_security_group_id"].as_str().unwrap());
    let before = rows(&api).await;
    let good = json!({ "direction": "inbound", "protocol": "tcp", "port_range": "80", "source_destination": "0.0.0.0/0" });
    let mut cases: Vec<(&str, Value)> = Vec::new();
    for bad in ["", "in", "ingress", "INBOUND", "both", "inbound "] {
        cases.push(("direction", json!(bad)));
    }
    for bad in ["", "TCP", "sctp", "tcp ", "-2", "256", "any", "tcp,udp", "0"] {
        cases.push(("protocol", json!(bad)));
    }
    for bad in [
        "",
        "-",
        "80-",
        "-80",
        "443-80",
        "65536",
        "0-65536",
        "-1",
        "+80",
        " 80",
        "80 ",
        "8 0",
        "80-443-500",
        "000080",
        "1e3",
        "http",
        "ALL",
        "80,443",
        "80:443",
        "0x50",
        "８０",
    ] {
        cases.push(("port_range", json!(bad)));
    }
    for bad in bad_blocks() {
        // Rules may name any block, also those no VPC may have.
        if !["10.0.0.0/15", "10.0.0.0/29", "10.0.0.0/0", "10.0.0.0/32"].contains(&bad)
            && !bad.starts_with("0.0")
            && !bad.starts_with("127")
            && !bad.starts_with("169")
            && !bad.starts_with("224")
            && !bad.starts_with("240")
            && !bad.starts_with("255")
        {
            cases.push(("source_destination", json!(bad)));
        }
    }
    for bad in ["sg-", "sg-1", "sg-0123456789abcdefX", "vpc-0123456789abcdef0", "everybody", "0.0.0.0"] {
        cases.push(("source_destination", json!(bad)));
    }
    for (field, value) in &cases {
        let mut body = good.clone();
        body[field] = value.clone();
        let answer = api.post(&rules, body).await;
        let (status, code) = answer.problem();
        assert_eq!((status, answer.field()), (400, Some(*field)), "{field} {value}: {}", answer.body);
        assert!(
            ["InvalidParameterValue", "InvalidGroup.Malformed"].contains(&code),
            "{field} {value} {code}"
        );
    }
    assert!(cases.len() > 60);
    for (body, code, field) in [
        (
            json!({ "direction": "inbound", "protocol": "tcp", "source_destination": "0.0.0.0/0" }),
            "MissingParameter",
            "port_range",
        ),
        (
            json!({ "direction": "inbound", "protocol": "icmp", "port_range": "8", "source_destination": "0.0.0.0/0" }),
            "InvalidParameterValue",
            "port_range",
        ),
        (
            json!({ "direction": "inbound", "protocol": "tcp", "port_range": "80", "icmp_type": 8, "source_destination": "0.0.0.0/0" }),
            "InvalidParameterValue",
            "icmp_type",
        ),
        (
            json!({ "direction": "inbound", "protocol": "icmp", "icmp_type": 256, "source_destination": "0.0.0.0/0" }),
            "InvalidParameterValue",
            "icmp_type",
        ),
        (
            json!({ "direction": "inbound", "protocol": "icmp", "icmp_type": -1, "source_destination": "0.0.0.0/0" }),
            "InvalidParameterValue",
            "icmp_type",
        ),
        (
            json!({ "direction": "inbound", "protocol": "icmp", "icmp_code": 0, "source_destination": "0.0.0.0/0" }),
            "InvalidParameterValue",
            "icmp_code",
        ),
        (
            json!({ "direction": "inbound", "protocol": "icmp", "icmp_type": 8.5, "source_destination": "0.0.0.0/0" }),
            "InvalidParameterValue",
            "icmp_type",
        ),
        (
            json!({ "protocol": "tcp", "port_range": "80", "source_destination": "0.0.0.0/0" }),
            "MissingParameter",
            "direction",
        ),
        (
            json!({ "direction": "inbound", "protocol": "tcp", "port_range": "80" }),
            "MissingParameter",
            "source_destination",
        ),
        (
            json!({ "direction": "inbound", "protocol": "tcp", "port_range": 80, "source_destination": "0.0.0.0/0" }),
            "InvalidParameterValue",
            "port_range",
        ),
        (
            json!({ "direction": "inbound", "protocol": "tcp", "port_range": "80", "source_destination": "0.0.0.0/0", "action": "deny" }),
            "UnknownParameter",
            "action",
        ),
        (
            json!({ "direction": "inbound", "protocol": "all", "source_destination": "sg-00000000000000000" }),
            "InvalidGroup.NotFound",
            "source_destination",
        ),
    ] {
        let answer = api.post(&rules, body.clone()).await;
        assert_eq!((answer.problem().1, answer.field()), (code, Some(field)), "{body}");
    }
    assert_eq!(rows(&api).await, before);
}

#[tokio::test]
async fn wrong_launches() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let other = api.vpc("10.0.0.0/16").await;
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let before = rows(&api).await;
    let nothing = "00000000000000000";
    for (more, status, code, field) in [
        (json!({ "subnet_id": null }), 400, "VPCIdNotSpecified", "subnet_id"),
        (json!({ "subnet_id": "subnet-1" }), 400, "InvalidSubnetID.Malformed", "subnet_id"),
        (json!({ "subnet_id": id(&vpc) }), 400, "InvalidSubnetID.Malformed", "subnet_id"),
        (json!({ "subnet_id": format!("subnet-{nothing}") }), 404, "InvalidSubnetID.NotFound", "subnet_id"),
        (json!({ "image_id": "gon-linux" }), 400, "InvalidAMIID.Malformed", "image_id"),
        (json!({ "image_id": format!("ami-{nothing}") }), 404, "InvalidAMIID.NotFound", "image_id"),
        (json!({ "instance_type": "" }), 400, "InvalidParameterValue", "instance_type"),
        (json!({ "instance_type": "m5.large" }), 400, "InvalidParameterValue", "instance_type"),
        (json!({ "instance_type": "G1.NANO" }), 400, "InvalidParameterValue", "instance_type"),
        (json!({ "security_group_ids": [] }), 400, "InvalidParameterValue", "security_group_ids"),
        (json!({ "security_group_ids": "sg-1" }), 400, "InvalidParameterValue", "security_group_ids"),
        (json!({ "security_group_ids": ["sg-1"] }), 400, "InvalidGroup.Malformed", "security_group_ids[0]"),
        (
            json!({ "security_group_ids": [format!("sg-{nothing}")] }),
            404,
            "InvalidGroup.NotFound",
            "security_group_ids[0]",
        ),
        (
            json!({ "security_group_ids": [vpc["default_security_group_id"], other["default_security_group_id"]] }),
            400,
            "InvalidParameterValue",
            "security_group_ids[1]",
        ),
        (
            json!({ "security_group_ids": vec![format!("sg-{nothing}"); 6] }),
            400,
            "SecurityGroupsPerInterfaceLimitExceeded",
            "security_group_ids",
        ),
        (json!({ "key_name": "nobody" }), 404, "InvalidKeyPair.NotFound", "key_name"),
        (json!({ "key_name": "a\u{0}b" }), 404, "InvalidKeyPair.NotFound", "key_name"),
        (json!({ "user_data": "not base64" }), 400, "InvalidUserData.Malformed", "user_data"),
        (json!({ "user_data": "AAAA".repeat(6000) }), 400, "InvalidUserData.Malformed", "user_data"),
        (json!({ "user_data": 1 }), 400, "InvalidParameterValue", "user_data"),
        (json!({ "count": 0 }), 400, "InvalidParameterValue", "count"),
        (json!({ "count": 21 }), 400, "InvalidParameterValue", "count"),
        (json!({ "count": -1 }), 400, "InvalidParameterValue", "count"),
        (json!({ "count": 1.5 }), 400, "InvalidParameterValue", "count"),
        (json!({ "count": "2" }), 400, "InvalidParameterValue", "count"),
        (json!({ "associate_public_ip": "yes" }), 400, "InvalidParameterValue", "associate_public_ip"),
        (json!({ "metadata_require_token": 1 }), 400, "InvalidParameterValue", "metadata_require_token"),
        (json!({ "state": "running" }), 400, "UnknownParameter", "state"),
        (json!({ "private_ip": "10.0.1.1" }), 400, "InvalidParameterValue", "private_ip"),
        (json!({ "private_ip": "10.0.1.255" }), 400, "InvalidParameterValue", "private_ip"),
        (json!({ "private_ip": "10.0.2.10" }), 400, "InvalidParameterValue", "private_ip"),
        (json!({ "private_ip": "ten" }), 400, "InvalidParameterValue", "private_ip"),
        (json!({ "node_id": nothing }), 400, "UnknownParameter", "node_id"),
        (json!({ "account_id": nothing }), 400, "UnknownParameter", "account_id"),
    ] {
        let answer = api.launch(id(&subnet), more.clone()).await;
        assert_eq!(
            (answer.problem(), answer.field()),
            ((status, code), Some(field)),
            "{more}: {}",
            answer.body
        );
    }
    for missing in ["name", "image_id", "instance_type"] {
        let mut body = json!({ "name": "i", "image_id": api.image("gon-linux").await, "instance_type": "g1.nano", "subnet_id": id(&subnet) });
        body.as_object_mut().unwrap().remove(missing);
        let answer = api.post("/instances", body).await;
        assert_eq!((answer.problem(), answer.field()), ((400, "MissingParameter"), Some(missing)));
    }
    let instance = api.launch(id(&subnet), json!({})).await.ok();
    let after = rows(&api).await;
    for (verb, body) in [
        ("stop", json!({ "force": "yes" })),
        ("stop", json!({ "now": true })),
        ("start", json!({ "x": 1 })),
        ("reboot", json!([1])),
    ] {
        let answer = api.post(&format!("/instances/{}/{verb}", id(&instance)), body.clone()).await;
        assert_eq!(answer.problem().0, 400, "{verb} {body}");
    }
    assert!(after > before);
    assert_eq!(rows(&api).await, after);
}

#[tokio::test]
async fn wrong_queries() {
    let api = Api::furnished().await;
    for list in [
        "vpcs",
        "subnets",
        "route-tables",
        "internet-gateways",
        "network-acls",
        "security-groups",
        "instances",
        "network-interfaces",
        "addresses",
        "key-pairs",
        "images",
        "instance-types",
        "nodes",
    ] {
        for bad in ["0", "-1", "1001", "99999999999999999999", "x", "", "1.5", "%00", "1%20"] {
            let answer = api.get(&format!("/{list}?limit={bad}")).await;
            assert_eq!(
                (answer.problem(), answer.field()),
                ((400, "InvalidParameterValue"), Some("limit")),
                "{list} {bad}"
            );
        }
        let answer = api.get(&format!("/{list}?colour=red")).await;
        assert_eq!((answer.problem(), answer.field()), ((400, "UnknownParameter"), Some("colour")), "{list}");
        let answer = api.get(&format!("/{list}?limit=1&limit=2")).await;
        assert_eq!(
            (answer.problem(), answer.field()),
            ((400, "InvalidParameterValue"), Some("limit")),
            "{list}"
        );
        api.get(&format!("/{list}?limit=1000")).await.ok();
    }
    for (path, code, field) in [
        ("/subnets?vpc_id=x", "InvalidVpcID.Malformed", "vpc_id"),
        ("/instances?subnet_id=x", "InvalidSubnetID.Malformed", "subnet_id"),
        ("/instances?state=sleeping", "InvalidParameterValue", "state"),
        ("/network-interfaces?instance_id=x", "InvalidInstanceID.Malformed", "instance_id"),
        ("/addresses?instance_id=x", "InvalidInstanceID.Malformed", "instance_id"),
        ("/vpcs?cidr_block=x", "InvalidParameterValue", "cidr_block"),
        ("/vpcs?wait=applied", "UnknownParameter", "wait"),
    ] {
        let answer = api.get(path).await;
        assert_eq!((answer.problem(), answer.field()), ((400, code), Some(field)), "{path}");
    }
    // Text PostgreSQL cannot hold is in no row.
    for path in [
        "/vpcs?name=a%00b",
        "/instances?name=%00",
        "/security-groups?name=%00",
        "/key-pairs?name=%00",
        "/images?name=%00",
        "/subnets?availability_zone=%00",
        "/instances?instance_type=%00",
        "/vpcs?state=%00",
    ] {
        let answer = api.get(path).await;
        assert!(answer.status.as_u16() < 500, "{path}: {}", answer.body);
    }
}

#[tokio::test]
async fn malformed_ids_inside_bodies() {
    let api = Api::new().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let main = vpc["main_route_table_id"].as_str().unwrap();
    let gateway = api.post("/internet-gateways", json!({})).await.ok();
    let before = rows(&api).await;
    for bad in ["", "x", "vpc-1", "vpc-0123456789ABCDEF0", "\u{0}", "' or 1=1"] {
        for (path, body, code, field) in [
            (
                "/security-groups".to_owned(),
                json!({ "vpc_id": bad, "name": "g" }),
                "InvalidVpcID.Malformed",
                "vpc_id",
            ),
            ("/route-tables".to_owned(), json!({ "vpc_id": bad }), "InvalidVpcID.Malformed", "vpc_id"),
            (
                format!("/internet-gateways/{}/attach", id(&gateway)),
                json!({ "vpc_id": bad }),
                "InvalidVpcID.Malformed",
                "vpc_id",
            ),
            (
                format!("/internet-gateways/{}/detach", id(&gateway)),
                json!({ "vpc_id": bad }),
                "InvalidVpcID.Malformed",
                "vpc_id",
            ),
            (
                format!("/route-tables/{main}/associations"),
                json!({ "subnet_id": bad }),
                "InvalidSubnetID.Malformed",
                "subnet_id",
            ),
            (
                format!("/route-tables/{main}/routes"),
                json!({ "destination_cidr": "0.0.0.0/0", "target_id": bad }),
                "InvalidParameterValue",
                "target_id",
            ),
        ] {
            let answer = api.post(&path, body.clone()).await;
            assert_eq!((answer.problem(), answer.field()), ((400, code), Some(field)), "{path} {body}");
        }
    }
    assert_eq!(rows(&api).await, before);
}
