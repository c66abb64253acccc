//! Examining a server, on this one and on a path that is narrower than it says.

use std::path::PathBuf;
use std::time::Duration;

use gon_driver::doctor::{self, Duties, Question, Severity};
use gon_driver::run::{Cmd, run, spawn_detached};

use crate::namespace::{KillAtEnd, in_namespace};

fn question() -> Question {
    Question {
        duties: Duties { control: true, worker: true },
        data_dir: PathBuf::from("/var/lib/gon/not/yet/there"),
        images_dir: PathBuf::from("/nonexistent"),
        servers: vec![],
        guest_mtu: 1342,
        emulate: true,
        ports: vec![],
    }
}

async fn sh(args: &[&str]) {
    run(Cmd::new(args[0]).args(&args[1..])).await.unwrap();
}

#[tokio::test]
async fn this_server_is_examined() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let facts = doctor::facts(&Question {
        ports: vec![(port, "api-server")],
        servers: vec!["localhost".to_owned(), "no-such-server.invalid".to_owned()],
        ..question()
    })
    .await;
    assert!(facts.cpus >= 1 && facts.memory_mib > 500 && facts.disk.1 > 0, "{facts:?}");
    assert!(facts.ports[0].holder.as_deref().is_some_and(|h| h != "?"), "{:?}", facts.ports);
    // Programs that the tests need anyway.
    let version = |p| facts.versions.iter().find(|v| v.program == p).unwrap().version;
    for program in [
        doctor::Program::Postgres,
        doctor::Program::RabbitMq,
        doctor::Program::Etcd,
        doctor::Program::OpenVSwitch,
        doctor::Program::Qemu,
        doctor::Program::Nftables,
    ] {
        assert!(version(program).is_some(), "{program:?}");
    }
    let findings = doctor::verdicts(&facts);
    let of = |check| findings.iter().find(|f| f.check == check).unwrap();
    assert_eq!(of("port").severity, Severity::Error, "it is this test's, not gond's");
    assert!(findings.iter().any(|f| f.check == "name" && f.what.contains("no-such-server.invalid")));
    let localhost = facts.paths.iter().find(|w| w.server == "localhost").unwrap();
    assert_eq!(localhost.device.as_ref().unwrap().0, "lo");
    assert_eq!(localhost.largest, Some(65_535.min(localhost.device.as_ref().unwrap().1)));
}

/// The other end takes 1400 bytes; our device says 1500.
#[test]
fn a_path_that_swallows_large_packets_is_found() {
    in_namespace(|| async {
        let log = tempfile::tempdir().unwrap();
        let other =
            spawn_detached(Cmd::new("unshare").args(["--net", "sleep", "120"]), &log.path().join("log"))
                .unwrap();
        let _killed = KillAtEnd(vec![other]);
        let pid = other.pid.to_string();
        let ours = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        while std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap() == ours {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sh(&["ip", "link", "add", "t0", "mtu", "1500", "type", "veth", "peer", "name", "t1", "netns", &pid])
            .await;
        sh(&["ip", "address", "add", "192.0.2.1/24", "dev", "t0"]).await;
        sh(&["ip", "link", "set", "t0", "up"]).await;
        let inside = ["nsenter", "--net", "--target", &pid, "ip"];
        sh(&[&inside[..], &["address", "add", "192.0.2.2/24", "dev", "t1"]].concat()).await;
        sh(&[&inside[..], &["link", "set", "t1", "mtu", "1400", "up"]].concat()).await;

        let facts = doctor::facts(&Question {
            servers: vec!["192.0.2.2".to_owned(), "192.0.2.3".to_owned(), "198.51.100.1".to_owned()],
            ..question()
        })
        .await;
        let [narrow, silent, unreachable] = &facts.paths[..] else { panic!("{:?}", facts.paths) };
        assert_eq!(narrow.device, Some(("t0".to_owned(), 1500)));
        // Ethernet gives away a few bytes (a VLAN's tag), hence not exactly 1400.
        assert!(narrow.largest.is_some_and(|l| (1400..=1404).contains(&l)), "{narrow:?}");
        assert_eq!(silent.largest, None);
        assert_eq!(unreachable.device, None);
        let findings = doctor::verdicts(&facts);
        let wrong: Vec<_> = findings.iter().filter(|f| f.check == "mtu").collect();
        assert!(wrong.iter().all(|f| f.severity == Severity::Error && !f.mend.is_empty()), "{wrong:?}");
        assert!(wrong[0].what.contains("vanish"), "{wrong:?}");
    });
}
