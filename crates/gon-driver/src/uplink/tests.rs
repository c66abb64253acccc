use serde_json::json;

use super::*;

fn card(change: impl FnOnce(&mut serde_json::Value)) -> serde_json::Value {
    let mut card = json!([{
        "ifname": "eth0", "mtu": 1500, "link_type": "ether", "address": "52:54:00:00:00:01",
        "addr_info": [
            {"family": "inet", "local": "192.0.2.2", "prefixlen": 24, "broadcast": "192.0.2.255", "scope": "global"},
            {"family": "inet6", "local": "2001:db8::2", "prefixlen": 64, "scope": "global"},
            {"family": "inet6", "local": "2001:db8::f00d", "prefixlen": 64, "scope": "global", "dynamic": true},
            {"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link"},
        ],
    }]);
    change(&mut card[0]);
    card
}

#[test]
fn what_somebody_configured_is_what_moves() {
    let read = read_card(&card(|_| {})).unwrap();
    let addresses: Vec<String> = read.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.0.2.2/24", "2001:db8::2/64"]);
    assert_eq!((read.mtu, read.mac.as_str()), (1500, "52:54:00:00:00:01"));
}

#[test]
fn a_card_that_cannot_be_moved_says_why() {
    let why = |change: fn(&mut serde_json::Value)| read_card(&card(change)).unwrap_err().unwrap();
    assert!(why(|c| c["addr_info"][0]["dynamic"] = json!(true)).contains("DHCP"));
    assert!(why(|c| c["master"] = json!("bond0")).contains("bond0"));
    assert!(why(|c| c["link_type"] = json!("loopback")).contains("Ethernet"));
    assert!(why(|c| c["linkinfo"] = json!({"info_kind": "bridge"})).contains("bridge"));
    assert!(why(|c| c["addr_info"] = json!([])).contains("no address"));
    // What is not understood is not guessed at.
    assert_eq!(read_card(&json!([])), Err(None));
    assert_eq!(read_card(&card(|c| c["addr_info"][0]["local"] = json!("; rm -rf /"))), Err(None));
    assert_eq!(read_card(&card(|c| c["address"] = json!("x"))), Err(None));
}

#[test]
fn routes_of_the_kernel_and_of_routers_stay_theirs() {
    let routes = read_routes(&json!([
        {"dst": "default", "gateway": "192.0.2.1", "protocol": "static", "metric": 100, "flags": ["onlink"]},
        {"dst": "192.0.2.0/24", "protocol": "kernel", "scope": "link", "prefsrc": "192.0.2.2", "flags": []},
        {"dst": "198.51.100.9", "gateway": "192.0.2.7", "flags": []},
        {"dst": "default", "gateway": "fe80::1", "protocol": "ra", "flags": []},
        {"dst": "nonsense", "flags": []},
    ]));
    assert_eq!(routes.len(), 2);
    assert_eq!((routes[0].destination, routes[0].metric, routes[0].onlink), (None, Some(100), true));
    assert_eq!(routes[1].destination, Some("198.51.100.9/32".parse().unwrap()));
}

#[test]
fn one_batch_moves_everything_and_another_one_puts_it_back() {
    let mut uplink = read_card(&card(|_| {})).unwrap();
    uplink.device = "eth0".to_owned();
    uplink.bridge = "br-ex".to_owned();
    uplink.routes = read_routes(&json!([
        {"dst": "default", "gateway": "192.0.2.1", "metric": 100, "flags": []},
        {"dst": "default", "gateway": "2001:db8::1", "flags": []},
    ]));
    assert_eq!(
        moves(&uplink, "eth0", "br-ex"),
        "link set dev br-ex up\n\
         address delete 192.0.2.2/24 dev eth0\n\
         address replace 192.0.2.2/24 broadcast + dev br-ex\n\
         address delete 2001:db8::2/64 dev eth0\n\
         address replace 2001:db8::2/64 nodad dev br-ex\n\
         route replace default via 192.0.2.1 dev br-ex metric 100\n\
         -6 route replace default via 2001:db8::1 dev br-ex\n"
    );
    assert_eq!(
        moves(&uplink, "br-ex", "eth0"),
        "link set dev eth0 up\n\
         address replace 192.0.2.2/24 broadcast + dev eth0\n\
         address replace 2001:db8::2/64 nodad dev eth0\n\
         route replace default via 192.0.2.1 dev eth0 metric 100\n\
         -6 route replace default via 2001:db8::1 dev eth0\n"
    );
}

#[tokio::test]
async fn nothing_moves_without_a_guard_and_nothing_is_confirmed_too_late() {
    let dir = tempfile::tempdir().unwrap();
    let uplink = read_card(&card(|_| {})).unwrap();
    save(dir.path(), &uplink).unwrap();
    assert!(matches!(apply(dir.path(), &uplink).await, Err(UplinkError::Unguarded)));
    // A guard of another move, or one that is dead, is none.
    let process = Pid::of(std::process::id().cast_signed()).unwrap();
    let watch =
        |id, process| write(dir.path(), GUARD, &serde_json::to_vec(&Watch { id, process }).unwrap()).unwrap();
    watch(Uuid::now_v7(), process);
    assert!(!is_guarded(dir.path(), uplink.id));
    watch(uplink.id, Pid { start_time: 1, ..process });
    assert!(!is_guarded(dir.path(), uplink.id));
    watch(uplink.id, process);
    assert!(is_guarded(dir.path(), uplink.id));
    let request = Request {
        device: "eth0".to_owned(),
        bridge: "br-ex".to_owned(),
        userspace: false,
        switch: PathBuf::new(),
    };
    assert!(matches!(prepare(dir.path(), &request).await, Err(UplinkError::Already(_))));
    forget(dir.path()).unwrap();
    assert!(matches!(confirm(dir.path()).await, Err(UplinkError::Late)));
    assert_eq!(restore(dir.path()).await.unwrap(), None);
}
