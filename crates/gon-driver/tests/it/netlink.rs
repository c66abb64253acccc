//! Taps, addresses, routes and the packet filter, in a namespace.

use gon_driver::netfilter;
use gon_driver::netlink::{self, Netlink, NetlinkError};
use gon_driver::run::{Cmd, RunAs, run};
use gon_driver::tap::{self, TapError, TapSpec};
use gon_types::MacAddr;

use crate::namespace::in_namespace;

async fn ip(args: &str) -> String {
    run(Cmd::new("ip").args(args.split(' '))).await.unwrap().text()
}

#[test]
fn a_tap_is_silent_owned_and_stays() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        let spec = TapSpec { name: "gt-1", owner_uid: 4242, mtu: 1400 };
        tap::ensure(&netlink, spec).await.unwrap();
        tap::ensure(&netlink, spec).await.unwrap();
        let link = netlink.link("gt-1").await.unwrap().unwrap();
        assert!(link.up);
        assert_eq!(link.mtu, 1400);
        assert_eq!(link.kind.as_deref(), Some("tun"));
        let shown = ip("-d link show gt-1").await;
        assert!(
            shown.contains("NOARP") && shown.contains("persist on") && shown.contains("user 4242"),
            "{shown}"
        );
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv6/conf/gt-1/disable_ipv6").unwrap().trim(), "1");
        assert!(!ip("-6 addr show gt-1").await.contains("fe80"));

        // A tap in use is corrected without being disturbed.
        let held = tap::open("gt-1").unwrap();
        tap::ensure(&netlink, TapSpec { mtu: 1300, ..spec }).await.unwrap();
        assert_eq!(netlink.link("gt-1").await.unwrap().unwrap().mtu, 1300);
        drop(held);
        assert!(netlink.link("gt-1").await.unwrap().is_some(), "it outlives whoever had it open");

        let names: Vec<String> = netlink.guest_links().await.unwrap().into_iter().map(|l| l.name).collect();
        assert_eq!(names, ["gt-1"]);
        tap::remove(&netlink, "gt-1").await.unwrap();
        tap::remove(&netlink, "gt-1").await.unwrap();
        assert!(netlink.link("gt-1").await.unwrap().is_none());
        for bad in ["", "../x", "a/b", "sixteen-letters-", "UPPER", "gt 1"] {
            let error = tap::ensure(&netlink, TapSpec { name: bad, ..spec }).await.unwrap_err();
            assert!(matches!(error, TapError::Name(_)), "{bad}");
        }
    });
}

#[test]
fn an_open_tap_is_one_guests_and_a_missing_one_is_not_made() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        assert!(tap::open("gt-1").is_err());
        assert!(netlink.link("gt-1").await.unwrap().is_none());
        tap::ensure(&netlink, TapSpec { name: "gt-1", owner_uid: 4242, mtu: 1500 }).await.unwrap();
        let held = tap::open("gt-1").unwrap();
        assert!(tap::open("gt-1").unwrap_err().is_busy());
        // An unprivileged process speaks through the descriptor it was given.
        let mut cmd = Cmd::new("python3").run_as(RunAs::named("nobody").unwrap());
        let number = cmd.pass_fd(held);
        let script = format!("import os; os.write({number}, bytes(60))");
        run(cmd.args(["-c", &script])).await.unwrap();
        let shown = ip("-s link show gt-1").await;
        assert!(shown.lines().any(|l| l.split_whitespace().take(2).eq(["60", "1"])), "{shown}");
    });
}

#[test]
fn devices_that_leave_go_together() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        netlink.remove_leaving().await.unwrap();
        for n in 0..40 {
            tap::ensure(&netlink, TapSpec { name: &format!("gt-{n}"), owner_uid: 0, mtu: 1500 })
                .await
                .unwrap();
        }
        for n in 0..39 {
            netlink.set_leaving(&format!("gt-{n}")).await.unwrap();
        }
        netlink.set_leaving("never-there").await.unwrap();
        // One that is wanted again before it went.
        tap::ensure(&netlink, TapSpec { name: "gt-7", owner_uid: 0, mtu: 1500 }).await.unwrap();
        let started = std::time::Instant::now();
        netlink.remove_leaving().await.unwrap();
        println!("38 devices removed in {:?}", started.elapsed());
        let mut left: Vec<String> = netlink
            .links()
            .await
            .unwrap()
            .into_iter()
            .map(|l| l.name)
            .filter(|n| n.starts_with("gt-"))
            .collect();
        left.sort();
        assert_eq!(left, ["gt-39", "gt-7"]);
    });
}

#[test]
fn addresses_routes_and_neighbours_may_be_repeated() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        ip("link add d0 type veth peer name d1").await;
        let mac: MacAddr = "0a:00:00:00:00:07".parse().unwrap();
        for _ in 0..2 {
            netlink.set_mac("d0", mac).await.unwrap();
            netlink.set_mtu("d0", 1450).await.unwrap();
            netlink.set_arp("d0", false).await.unwrap();
            netlink.set_up("d0", true).await.unwrap();
            netlink.ensure_address("d0", "203.0.113.1/24".parse().unwrap()).await.unwrap();
            netlink.ensure_address("d0", "203.0.113.2/32".parse().unwrap()).await.unwrap();
            netlink
                .ensure_route("d0", "198.51.100.0/24".parse().unwrap(), Some("203.0.113.1".parse().unwrap()))
                .await
                .unwrap();
            netlink.ensure_neighbour("d0", "203.0.113.9".parse().unwrap(), mac).await.unwrap();
        }
        let link = netlink.link("d0").await.unwrap().unwrap();
        assert_eq!((link.mac, link.mtu, link.up), (Some(mac), 1450, true));
        assert!(ip("-4 addr show d0").await.contains("203.0.113.1/24"));
        let routes = ip("route show").await;
        assert!(routes.contains("198.51.100.0/24 dev d0") && routes.contains("src 203.0.113.1"), "{routes}");
        netlink.remove_own_routes().await.unwrap();
        let routes = ip("route show").await;
        assert!(!routes.contains("198.51.100.0/24") && routes.contains("203.0.113.0/24"), "{routes}");
        assert!(ip("neigh show dev d0").await.contains("203.0.113.9 lladdr 0a:00:00:00:00:07 PERMANENT"));
        let error = netlink.set_up("gone", true).await.unwrap_err();
        assert!(matches!(error, NetlinkError::NoLink(_)), "{error}");
        netlink::enable_forwarding().unwrap();
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim(), "1");
    });
}

#[test]
fn a_ruleset_takes_effect_whole_or_not_at_all() {
    in_namespace(|| async {
        netfilter::remove().await.unwrap();
        assert!(!netfilter::is_present().await.unwrap());
        let good = "add table inet gon\ndelete table inet gon\ntable inet gon {\n chain a {\n }\n}\n";
        netfilter::apply(good).await.unwrap();
        netfilter::apply(good).await.unwrap();
        assert!(netfilter::is_present().await.unwrap());
        let bad =
            "add table inet gon\ndelete table inet gon\ntable inet gon {\n chain b {\n nonsense\n }\n}\n";
        assert!(netfilter::apply(bad).await.is_err());
        let shown = run(Cmd::new("nft").args(["list", "table", "inet", "gon"])).await.unwrap().text();
        assert!(shown.contains("chain a"), "{shown}");
        netfilter::remove().await.unwrap();
        assert!(!netfilter::is_present().await.unwrap());
    });
}
