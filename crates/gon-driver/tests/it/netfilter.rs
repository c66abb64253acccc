//! The exceptions from Docker's packet filter, with a chain as Docker makes it.

use std::time::Duration;

use gon_driver::netfilter::{let_through_docker, remove_from_docker};
use gon_driver::run::{Cmd, run, spawn_detached};

use crate::namespace::{KillAtEnd, in_namespace};

async fn iptables(args: &[&str]) -> String {
    run(Cmd::new("iptables").args(["--wait", "5"]).args(args)).await.unwrap().text()
}

async fn ip(args: &str) {
    run(Cmd::new("ip").args(args.split(' '))).await.unwrap();
}

async fn chain() -> Vec<String> {
    iptables(&["-S", "DOCKER-USER"]).await.lines().map(|line| line.trim().to_owned()).collect()
}

/// As Docker makes it, with a rule of somebody else's.
async fn docker() {
    iptables(&["-P", "FORWARD", "DROP"]).await;
    iptables(&["-N", "DOCKER-USER"]).await;
    iptables(&["-A", "FORWARD", "-j", "DOCKER-USER"]).await;
    iptables(&["-A", "DOCKER-USER", "-s", "192.0.2.1/32", "-j", "DROP"]).await;
    iptables(&["-A", "DOCKER-USER", "-j", "RETURN"]).await;
}

/// What an earlier version made.
async fn older() {
    for rule in ["-i gon-ext -j", "-o gon-ext -j"] {
        let rule = ["-I", "DOCKER-USER"].into_iter().chain(rule.split(' ')).chain(["ACCEPT"]);
        iptables(&rule.collect::<Vec<_>>()).await;
    }
    for bridge in ["docker0", "br-+"] {
        iptables(&["-I", "DOCKER-USER", "-i", "gon-ext", "-o", bridge, "-j", "RETURN"]).await;
    }
}

#[test]
fn exceptions_name_the_ways_out_and_leave_the_rest_of_the_chain_alone() {
    in_namespace(async || {
        // Without Docker there is nothing to do, and nothing fails.
        let_through_docker("gon-ext").await.unwrap();
        remove_from_docker("gon-ext").await.unwrap();

        docker().await;
        let theirs = chain().await;
        let with = |ours: &[&str]| -> Vec<String> {
            let ours = ours.iter().map(|rule| format!("-A DOCKER-USER {rule} -j ACCEPT"));
            theirs[..1].iter().cloned().chain(ours).chain(theirs[1..].iter().cloned()).collect()
        };
        older().await;
        let_through_docker("gon-ext").await.unwrap();
        assert_eq!(chain().await, with(&["-o gon-ext"]), "there is no way out");

        for device in ["up0", "up1", "gon-ext"] {
            ip(&format!("link add {device} type ifb")).await;
            ip(&format!("link set {device} up")).await;
        }
        ip("address add 192.0.2.2/24 dev up0").await;
        ip("address add 203.0.113.1/24 dev gon-ext").await;
        ip("link add backend type bridge").await;
        ip("address add 172.30.0.1/24 dev backend").await;
        ip("link set backend up").await;
        ip("link add lan type bridge").await;
        ip("link set up1 master lan").await;
        ip("address add 198.51.100.2/24 dev lan").await;
        ip("link set lan up").await;
        let ours = with(&["-i gon-ext -o lan", "-i gon-ext -o up0", "-o gon-ext"]);
        for _ in 0..3 {
            let_through_docker("gon-ext").await.unwrap();
            let mut now = chain().await;
            now[1..4].sort_unstable();
            assert_eq!(now, ours);
        }
        // Somebody took one away, and one way out is gone.
        iptables(&["-D", "DOCKER-USER", "-o", "gon-ext", "-j", "ACCEPT"]).await;
        ip("link delete lan").await;
        let_through_docker("gon-ext").await.unwrap();
        let mut now = chain().await;
        now[1..3].sort_unstable();
        assert_eq!(now, with(&["-i gon-ext -o up0", "-o gon-ext"]));
        remove_from_docker("gon-ext").await.unwrap();
        assert_eq!(chain().await, theirs);
    });
}

/// Somebody else's stack, on the other end of a cable to the device `ours` here, with a default route through us.
async fn neighbour(ours: &str, address: &str, gateway: &str) -> KillAtEnd {
    let log = tempfile::tempdir().unwrap();
    let sleeper = Cmd::new("unshare").args(["--net", "sleep", "60"]);
    let sleeper = spawn_detached(sleeper, &log.path().join("log")).unwrap();
    let pid = sleeper.pid.to_string();
    let guard = KillAtEnd(vec![sleeper]);
    let here = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    while std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap() == here {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ip(&format!("link add {ours} type veth peer name eth0 netns {pid}")).await;
    ip(&format!("link set {ours} up")).await;
    for args in [
        "link set lo up".to_owned(),
        format!("address add {address}/24 dev eth0"),
        "link set eth0 up".to_owned(),
        format!("route add default via {gateway}"),
    ] {
        let inside = Cmd::new("nsenter").args(["--net", "--target", &pid, "ip"]);
        run(inside.args(args.split(' '))).await.unwrap();
    }
    guard
}

async fn reaches(from: &KillAtEnd, to: &str) -> bool {
    let pid = from.0[0].pid.to_string();
    let inside =
        Cmd::new("nsenter").args(["--net", "--target", &pid, "ping", "-n", "-q", "-c", "1", "-W", "1"]);
    run(inside.arg(to)).await.is_ok()
}

/// Guests pass Docker's filter toward the outside and back, and reach no container: neither one on a bridge of Docker's own
/// name, nor one whose bridge somebody named (`com.docker.network.bridge.name`), nor one that came after the last look.
#[test]
fn guests_pass_dockers_filter_and_reach_no_container() {
    in_namespace(async || {
        gon_driver::netlink::enable_forwarding().unwrap();
        let guest = neighbour("gon-ext", "203.0.113.9", "203.0.113.1").await;
        ip("address add 203.0.113.1/24 dev gon-ext").await;
        let outside = neighbour("up0", "192.0.2.9", "192.0.2.2").await;
        ip("address add 192.0.2.2/24 dev up0").await;
        ip("route add default via 192.0.2.9").await;
        docker().await;
        let mut containers = Vec::new();
        for (number, bridge) in ["docker0", "br-0123456789ab", "backend", "late"].iter().enumerate() {
            if *bridge == "late" {
                // As an earlier version left it: it let guests reach what it did not know by its name.
                older().await;
                assert!(reaches(&guest, "10.9.2.9").await, "the defect of before is gone by itself");
                let_through_docker("gon-ext").await.unwrap();
            }
            let (gateway, address) = (format!("10.9.{number}.1"), format!("10.9.{number}.9"));
            let port = format!("veth{number}");
            let container = neighbour(&port, &address, &gateway).await;
            ip(&format!("link add {bridge} type bridge")).await;
            ip(&format!("link set {port} master {bridge}")).await;
            ip(&format!("address add {gateway}/24 dev {bridge}")).await;
            ip(&format!("link set {bridge} up")).await;
            containers.push((container, address));
        }
        assert!(reaches(&guest, "192.0.2.9").await, "the outside is reached");
        assert!(reaches(&outside, "203.0.113.9").await, "guests are reached from outside");
        for (container, address) in &containers {
            assert!(!reaches(&guest, address).await, "{address} is reached");
            assert!(reaches(container, "10.9.0.1").await, "{address} is there");
        }
    });
}
