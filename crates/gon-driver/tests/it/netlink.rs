//! Taps, addresses, routes and the packet filter, in a namespace.

use std::os::fd::AsRawFd;

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
        let held = attach("gt-1");
        tap::ensure(&netlink, TapSpec { mtu: 1300, ..spec }).await.unwrap();
        assert_eq!(netlink.link("gt-1").await.unwrap().unwrap().mtu, 1300);
        drop(held);
        assert!(netlink.link("gt-1").await.unwrap().is_some(), "it outlives whoever had it open");

        let names: Vec<String> =
            netlink.links_with_prefix("gt-").await.unwrap().into_iter().map(|l| l.name).collect();
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
fn only_the_owner_opens_a_tap() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        let nobody = RunAs::named("nobody").unwrap();
        tap::ensure(&netlink, TapSpec { name: "gt-1", owner_uid: nobody.uid, mtu: 1500 }).await.unwrap();
        tap::ensure(&netlink, TapSpec { name: "gt-2", owner_uid: 1, mtu: 1500 }).await.unwrap();
        let open = |name: &str| {
            let script = format!(
                "import fcntl,struct\nf=open('/dev/net/tun','r+b',buffering=0)\n\
                 fcntl.ioctl(f,0x400454ca,struct.pack('16sH22x',b'{name}',0x1002))"
            );
            run(Cmd::new("python3").args(["-c", &script]).run_as(nobody.clone()))
        };
        open("gt-1").await.unwrap();
        assert!(open("gt-2").await.unwrap_err().to_string().contains("PermissionError"));
    });
}

fn attach(name: &str) -> std::fs::File {
    let tun = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
    let mut request = [0u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&0x1002u16.to_ne_bytes());
    // SAFETY: the argument is as large as an `ifreq` and outlives the call.
    let set = unsafe { nix::libc::ioctl(tun.as_raw_fd(), nix::libc::TUNSETIFF, request.as_ptr()) };
    assert_eq!(set, 0);
    tun
}

#[test]
fn addresses_routes_and_neighbours_may_be_repeated() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        ip("link add d0 type dummy").await;
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
        assert!(ip("route show").await.contains("198.51.100.0/24 dev d0 scope link src 203.0.113.1"));
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
        let good = "add table inet gon\ndelete table inet gon\ntable inet gon { chain a { } }\n";
        netfilter::apply(good).await.unwrap();
        netfilter::apply(good).await.unwrap();
        assert!(netfilter::is_present().await.unwrap());
        let bad = "add table inet gon\ndelete table inet gon\ntable inet gon { chain b { nonsense } }\n";
        assert!(netfilter::apply(bad).await.is_err());
        let shown = run(Cmd::new("nft").args(["list", "table", "inet", "gon"])).await.unwrap().text();
        assert!(shown.contains("chain a"), "{shown}");
        netfilter::remove().await.unwrap();
        assert!(!netfilter::is_present().await.unwrap());
    });
}
