use super::*;
use crate::network::samples;
use crate::network::view::View;
use gon_net::service::link_local;
use gon_proto::PortSpec;

struct Node {
    view: View,
    tokens: Tokens,
}

impl Node {
    fn new(change: impl FnOnce(&mut PortSpec)) -> Self {
        let mut port = samples::port(16, "10.0.1.5");
        change(&mut port);
        let view = View::new(samples::document(1, vec![port, samples::port(17, "10.0.1.6")]));
        Self { view, tokens: Tokens::with_key(&[7; 32]) }
    }
    fn ask(&self, no: u16, request: Request<'_>, now: u64) -> Response {
        respond(self.view.port_at(link_local(no)).unwrap(), &self.tokens, request, now)
    }
    fn get(&self, path: &str) -> (u16, String) {
        let response = self.ask(16, Request { method: "GET", path, ..Request::default() }, 100);
        (response.status, String::from_utf8(response.body).unwrap())
    }
    fn text(&self, path: &str) -> String {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}");
        body
    }
    fn token(&self, ttl: &str) -> Response {
        let request =
            Request { method: "PUT", path: "/latest/api/token", ttl: Some(ttl), ..Request::default() };
        self.ask(16, request, 100)
    }
}

#[test]
fn versions_and_directories_are_listed() {
    let node = Node::new(|_| ());
    assert!(node.text("/").lines().any(|v| v == "2021-03-23"));
    assert_eq!(node.text("/latest"), "dynamic/\nmeta-data/");
    assert_eq!(node.text("/latest/dynamic/"), "instance-identity/");
    let root = node.text("/2009-04-04/meta-data/");
    assert!(root.lines().any(|l| l == "instance-id") && root.lines().any(|l| l == "placement/"), "{root}");
    assert_eq!(node.text("/latest/meta-data/network/interfaces/macs/"), "0a:00:00:00:00:10/");
    assert_eq!(node.text("/latest/meta-data"), root);
    assert_eq!(node.get("/1999-01-01/meta-data/").0, 404);
    assert_eq!(node.get("/latest/meta-data/nothing").0, 404);
    assert_eq!(node.get("/latest/meta-data/instance-id/deeper").0, 404);
    assert_eq!(node.get(&format!("/latest/{}", "a/".repeat(400))).0, 404);
}

#[test]
fn every_entry_of_every_listing_answers() {
    fn crawl(node: &Node, directory: &str, seen: &mut usize) {
        for line in node.text(directory).lines() {
            // cloud-init asks for `0=name` as directory `0`.
            let name = line.split_once('=').map_or(line.to_owned(), |(n, _)| format!("{n}/"));
            *seen += 1;
            let path = format!("{directory}{name}");
            if name.ends_with('/') { crawl(node, &path, seen) } else { drop(node.text(&path)) }
        }
    }
    let node = Node::new(|p| p.public_ip = Some([203, 0, 113, 9].into()));
    let mut seen = 0;
    crawl(&node, "/2021-03-23/meta-data/", &mut seen);
    assert!(seen > 40, "{seen}");
    crawl(&node, "/2021-03-23/dynamic/", &mut seen);
}

#[test]
fn what_cloud_init_needs_is_there() {
    let node = Node::new(|p| p.public_ip = Some([203, 0, 113, 9].into()));
    for version in ["2021-03-23", "2018-09-24", "2016-09-02", "2009-04-04", "latest"] {
        let get = |path: &str| node.text(&format!("/{version}/meta-data/{path}"));
        assert_eq!(get("instance-id"), "i-0123456789abcdef0");
        assert_eq!(get("local-hostname"), "ip-10-0-1-5.gon-1.compute.internal");
        assert_eq!(get("ami-launch-index"), "0");
        assert_eq!(get("placement/availability-zone"), "gon-1a");
        assert_eq!(get("placement/region"), "gon-1");
        assert_eq!(get("public-keys/"), "0=laptop");
        assert_eq!(get("public-keys/0/"), "openssh-key");
        assert_eq!(get("public-keys/0/openssh-key"), "ssh-ed25519 AAAA laptop");
        assert_eq!(get("public-ipv4"), "203.0.113.9");
        assert_eq!(get("security-groups"), "default\nweb");
        let nic = "network/interfaces/macs/0a:00:00:00:00:10";
        assert_eq!(get(&format!("{nic}/device-number")), "0");
        assert_eq!(get(&format!("{nic}/local-ipv4s")), "10.0.1.5");
        assert_eq!(get(&format!("{nic}/subnet-ipv4-cidr-block")), "10.0.1.0/24");
        assert_eq!(get(&format!("{nic}/ipv4-associations/203.0.113.9")), "10.0.1.5");
    }
    assert_eq!(node.get("/latest/meta-data/public-keys/1/openssh-key").0, 404);
    assert_eq!(node.get("/latest/meta-data/public-keys/-1").0, 404);
    let document: serde_json::Value =
        serde_json::from_str(&node.text("/latest/dynamic/instance-identity/document")).unwrap();
    assert_eq!(document["instanceId"], "i-0123456789abcdef0");
    assert_eq!(document["region"], "gon-1");
    assert_eq!(document["availabilityZone"], "gon-1a");
    let bare = Node::new(|p| p.metadata.public_keys.clear());
    assert!(!bare.text("/latest/meta-data/").contains("public"));
    assert_eq!(bare.get("/latest/meta-data/public-keys/").0, 404);
}

#[test]
fn user_data_is_raw_bytes_or_nothing() {
    assert_eq!(Node::new(|_| ()).get("/latest/user-data").0, 404);
    let bytes = [0u8, 159, 146, 150, b'\n'];
    let node = Node::new(|p| p.metadata.user_data = Some(STANDARD.encode(bytes)));
    let request = Request { method: "GET", path: "/latest/user-data", ..Request::default() };
    let response = node.ask(16, request, 0);
    assert_eq!((response.status, response.body.as_slice()), (200, &bytes[..]));
    assert!(node.text("/latest/").ends_with("user-data"));
}

fn with(node: &Node, no: u16, token: Option<&str>, now: u64) -> u16 {
    let request =
        Request { method: "GET", path: "/latest/meta-data/instance-id", token, ..Request::default() };
    node.ask(no, request, now).status
}

#[test]
fn a_token_is_one_ports_until_it_expires() {
    let node = Node::new(|p| p.metadata.require_token = true);
    let issued = node.token("60");
    assert_eq!(issued.status, 200);
    assert_eq!(issued.header, Some((TTL_HEADER, "60".to_owned())));
    let token = String::from_utf8(issued.body).unwrap();
    assert_eq!(with(&node, 16, None, 100), 401);
    assert_eq!(with(&node, 16, Some(token.as_str()), 100), 200);
    assert_eq!(with(&node, 16, Some(token.as_str()), 159), 200);
    assert_eq!(with(&node, 16, Some(token.as_str()), 160), 401);
    assert_eq!(with(&node, 17, Some(token.as_str()), 100), 401, "another port's");
    assert_eq!(with(&node, 17, None, 100), 200, "a port that needs none");
    let mut forged = token.clone().into_bytes();
    for at in 0..forged.len() {
        forged[at] ^= 1;
        assert_eq!(with(&node, 16, std::str::from_utf8(&forged).ok(), 100), 401);
        forged[at] ^= 1;
    }
    for bad in ["", "AAAA", "%%%", &"A".repeat(10_000)] {
        assert_eq!(with(&node, 16, Some(bad), 100), 401);
    }
    // Another instance on the same interface.
    let other = Node::new(|p| p.instance = gon_types::id::InstanceId::new());
    let request = Request { method: "GET", path: "/", token: Some(&token), ..Request::default() };
    assert_eq!(other.ask(16, request, 100).status, 401);
}

#[test]
fn tokens_are_asked_for_as_ec2_wants_it() {
    let node = Node::new(|_| ());
    for ttl in ["1", "21600"] {
        assert_eq!(node.token(ttl).status, 200, "{ttl}");
    }
    for ttl in ["0", "21601", "", "-1", "+1", "x", "99999999999999999999"] {
        assert_eq!(node.token(ttl).status, 400, "{ttl}");
    }
    let put = |path, forwarded, ttl| {
        node.ask(16, Request { method: "PUT", path, ttl, forwarded, token: None }, 0).status
    };
    assert_eq!(put("/latest/api/token", false, None), 400);
    assert_eq!(put("/latest/api/token", true, Some("60")), 403);
    assert_eq!(put("/2021-03-23/api/token", false, Some("60")), 403);
    assert_eq!(put("/latest/meta-data/", false, Some("60")), 405);
    for method in ["POST", "DELETE", "PATCH", ""] {
        assert_eq!(node.ask(16, Request { method, path: "/latest", ..Request::default() }, 0).status, 405);
    }
}

#[test]
fn the_key_lasts_until_the_next_boot() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token.key");
    let node = Node::new(|_| ());
    let port = node.view.port_at(link_local(16)).unwrap();
    let token = Tokens::open(&file).unwrap().make(port, 200).unwrap();
    assert!(Tokens::open(&file).unwrap().is_valid(port, &token, 100));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert!(!Tokens::open(&file).unwrap().is_valid(port, &token, 100));
}
