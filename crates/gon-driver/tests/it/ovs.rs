//! A private Open vSwitch: made, adopted, killed, healed, torn down.

use std::path::Path;

use gon_driver::netlink::Netlink;
use gon_driver::ovs::{Choice, Config, Datapath, Ovs, PortKind, PortSpec, Switch};
use gon_driver::run::{Cmd, Pid, run, spawn_detached};
use gon_driver::tap::{self, TapSpec};

use crate::namespace::{KillAtEnd, bind, in_namespace};

const BRIDGE: &str = "br-int";

fn config(dir: &Path) -> Config {
    Config { dir: dir.join("ovs"), choice: Choice::Auto, datapath: None }
}

fn internal(name: &str, ofport: u32) -> PortSpec {
    PortSpec { name: name.to_owned(), ofport, kind: PortKind::Internal, mtu: Some(1450), mac: None }
}

fn system(name: &str, ofport: u32) -> PortSpec {
    PortSpec { name: name.to_owned(), ofport, kind: PortKind::System, mtu: None, mac: None }
}

#[test]
fn a_private_switch_is_made_adopted_healed_and_leaves_nothing() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let mut ovs = Ovs::connect_or_start(&config(dir.path()), BRIDGE).await.unwrap();
        let mut end = KillAtEnd(ovs.own_processes().await);
        assert!(ovs.is_private());
        let process = ovs.switch_process().await.unwrap();
        println!("datapath {:?}, version {}", ovs.datapath(), ovs.version().await.unwrap());
        assert_eq!(ovs.database().bridge(BRIDGE).await.unwrap(), Some(ovs.datapath()));

        // Ports with the numbers asked for, twice.
        let netlink = Netlink::open().unwrap();
        tap::ensure(&netlink, TapSpec { name: "gt-1", owner_uid: 0, mtu: 1400 }).await.unwrap();
        let wanted = [internal("gon-meta", 1), internal("gon-ext", 2), system("gt-1", 16)];
        for _ in 0..2 {
            let ports = ovs.database().ensure_ports(BRIDGE, &wanted).await.unwrap();
            let numbers: Vec<_> =
                ports.iter().map(|p| (p.name.as_str(), p.ofport, p.error.clone())).collect();
            assert_eq!(
                numbers,
                [("gon-meta", Some(1), None), ("gon-ext", Some(2), None), ("gt-1", Some(16), None)]
            );
        }
        assert_eq!(netlink.link("gon-meta").await.unwrap().unwrap().mtu, 1450);
        // A port with the wrong number is replaced; one whose device is missing says so.
        let ports =
            ovs.database().ensure_ports(BRIDGE, &[system("gt-1", 17), system("gone", 18)]).await.unwrap();
        assert_eq!(ports[0].ofport, Some(17));
        assert!(ports[1].error.is_some(), "{ports:?}");
        ovs.database().delete_ports(BRIDGE, &["gone", "never-there"]).await.unwrap();
        assert_eq!(ovs.database().ports(BRIDGE).await.unwrap().len(), 3);
        ovs.flush_zone(16).await.unwrap();
        ovs.limit_zones(1000).await.unwrap();
        assert_eq!(ovs.connections(16).await.unwrap(), 0);
        ovs.release().await.unwrap();
        assert_eq!(ovs.database().setting("flow-restore-wait").await.unwrap().as_deref(), Some("true"));
        drop(ovs);

        // A later process adopts it.
        ovs = Ovs::connect_or_start(&config(dir.path()), BRIDGE).await.unwrap();
        assert_eq!(ovs.switch_process().await, Some(process));

        // Murdered, the switch comes back with its ports, and so does the database.
        assert!(process.kill().await.unwrap());
        ovs.heal().await.unwrap();
        end.0.extend(ovs.own_processes().await);
        let next = ovs.switch_process().await.unwrap();
        assert_ne!(next, process);
        ovs.database().ensure_ports(BRIDGE, &[internal("gon-meta", 1)]).await.unwrap();
        ovs.release().await.unwrap();
        assert!(netlink.link("gon-meta").await.unwrap().is_some());

        // So does the database, without being asked for.
        let database = ovs.own_processes().await[0];
        assert!(database.kill().await.unwrap());
        let killed = std::time::Instant::now();
        while ovs.own_processes().await.len() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            assert!(killed.elapsed() < std::time::Duration::from_secs(5));
        }
        end.0.extend(ovs.own_processes().await);
        ovs.database()
            .ensure_ports(BRIDGE, &[internal("gon-meta", 1), internal("gon-ext", 2)])
            .await
            .unwrap();
        println!("the database was killed, and the switch followed it again after {:?}", killed.elapsed());

        ovs.tear_down(BRIDGE).await.unwrap();
        assert!(!next.is_alive());
        let left: Vec<String> = netlink.links().await.unwrap().into_iter().map(|l| l.name).collect();
        assert!(
            left.iter().all(|name| name == "gt-1"
                || !name.starts_with("gon-") && !name.starts_with("ovs-") && name != BRIDGE),
            "{left:?}"
        );
        assert!(Ovs::find(&config(dir.path()), BRIDGE).await.unwrap().is_none());
    });
}

/// The kernel takes a grace period for each packet socket of a dead switch, which keeps its devices and its lock meanwhile.
#[test]
fn a_dead_switch_lets_go_of_many_ports_before_the_next_begins() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let mut ovs = Ovs::connect_or_start(&config(dir.path()), BRIDGE).await.unwrap();
        let mut end = KillAtEnd(ovs.own_processes().await);
        ovs.database().ensure_bridge(BRIDGE, Datapath::Netdev).await.unwrap();
        let netlink = Netlink::open().unwrap();
        let names: Vec<String> = (0..60).map(|n| format!("gt-{n}")).collect();
        for name in &names {
            tap::ensure(&netlink, TapSpec { name, owner_uid: 0, mtu: 1500 }).await.unwrap();
        }
        let ports: Vec<PortSpec> = names.iter().zip(16..).map(|(name, no)| system(name, no)).collect();
        ovs.database().ensure_ports(BRIDGE, &ports).await.unwrap();
        let before = std::fs::read("/sys/kernel/rcu_expedited").unwrap();
        let dead = ovs.switch_process().await.unwrap();
        let killed = std::time::Instant::now();
        // Before anybody is told that it is dead.
        dead.signal(rustix::process::Signal::KILL).unwrap();
        while dead.is_alive() && !dead.is_leaving() {
            tokio::task::yield_now().await;
        }
        ovs.heal().await.unwrap();
        assert!(!dead.is_leaving());
        println!("the next one runs after {:?}", killed.elapsed());
        end.0.extend(ovs.own_processes().await);
        let next = ovs.database().ensure_ports(BRIDGE, &ports).await.unwrap();
        assert!(next.iter().all(|port| port.error.is_none()), "{next:?}");
        let log = std::fs::read_to_string(dir.path().join("ovs/ovs-vswitchd.log")).unwrap();
        assert!(!log.contains("another ovs-vswitchd process is running"), "{log}");
        assert_eq!(std::fs::read("/sys/kernel/rcu_expedited").unwrap(), before);
        ovs.tear_down(BRIDGE).await.unwrap();
    });
}

#[test]
fn a_long_directory_gets_short_sockets() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("y".repeat(100));
        let started = std::time::Instant::now();
        let ovs =
            Ovs::connect_or_start(&Config { datapath: Some(Datapath::Netdev), ..config(&long) }, BRIDGE)
                .await
                .unwrap();
        let _end = KillAtEnd(ovs.own_processes().await);
        println!("from nothing to a bridge: {:?}", started.elapsed());
        assert!(ovs.run_dir().starts_with("/run"), "{:?}", ovs.run_dir());
        let run_dir = ovs.run_dir().to_owned();
        ovs.tear_down(BRIDGE).await.unwrap();
        assert!(!run_dir.exists());
    });
}

/// The machine's own switch, as its package starts it: with files in `/run/openvswitch`.
async fn start_machine(dir: &Path) -> Vec<Pid> {
    let database = dir.join("conf.db");
    let schema = "/usr/share/openvswitch/vswitch.ovsschema";
    run(Cmd::new("ovsdb-tool").arg("create").arg(&database).arg(schema)).await.unwrap();
    let file = database.to_str().unwrap();
    let server = start(dir, "ovsdb-server", &[file, "--remote=punix:/var/run/openvswitch/db.sock"]);
    until_there(server, &dir.join("db.sock")).await;
    vec![server, start_switch(dir, "db.sock")]
}

/// Its switch alone, as far as it comes: without its database it has few of its commands.
fn start_switch(dir: &Path, database: &str) -> Pid {
    let switch = start(dir, "ovs-vswitchd", &[&format!("unix:/var/run/openvswitch/{database}")]);
    std::fs::write(dir.join("ovs-vswitchd.pid"), format!("{}\n", switch.pid)).unwrap();
    switch
}

fn start(dir: &Path, program: &str, args: &[&str]) -> Pid {
    let cmd = Cmd::new(program).args(args).env("OVS_RUNDIR", "/var/run/openvswitch");
    spawn_detached(cmd, &dir.join(format!("{program}.log"))).unwrap()
}

async fn until_there(process: Pid, socket: &Path) {
    while std::os::unix::net::UnixStream::connect(socket).is_err() {
        assert!(process.is_alive());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[test]
fn the_machines_own_switch_is_used_and_left_running() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let machine = Path::new("/var/run/openvswitch");
        std::fs::create_dir_all(machine).unwrap();
        bind(dir.path(), machine);
        let mut end = KillAtEnd(start_machine(dir.path()).await);

        let place = tempfile::tempdir().unwrap();
        let mut ovs = Ovs::connect_or_start(&config(place.path()), BRIDGE).await.unwrap();
        assert!(!ovs.is_private() && ovs.own_processes().await.is_empty());
        assert_eq!(ovs.switch_process().await, end.0.last().copied());
        ovs.database().ensure_bridge("theirs", Datapath::Netdev).await.unwrap();
        let port = internal("gon-meta", 1);
        let ports = ovs.database().ensure_ports(BRIDGE, std::slice::from_ref(&port)).await.unwrap();
        assert_eq!((ports[0].ofport, &ports[0].error), (Some(1), &None));
        Switch::connect(&ovs.bridge_socket(BRIDGE)).await.unwrap().barrier().await.unwrap();
        ovs.release().await.unwrap();
        // Others live here: the next start of their switch must not wait for us.
        assert_eq!(ovs.database().setting("flow-restore-wait").await.unwrap(), None);

        // Its keeper restarts it: found again, by its new control socket, and waited for while it has not seen its
        // database.
        assert!(end.0.last().unwrap().kill().await.unwrap());
        end.0.push(start_switch(dir.path(), "late.sock"));
        ovs.heal().await.unwrap();
        let (socket, late) = (dir.path().join("db.sock"), dir.path().join("late.sock"));
        let back = tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            std::os::unix::fs::symlink(socket, late).unwrap();
        });
        ovs.flush_zone(16).await.unwrap();
        back.await.unwrap();

        ovs.tear_down(BRIDGE).await.unwrap();
        assert!(end.0.last().unwrap().is_alive());
        let ovs = Ovs::find(&config(place.path()), "theirs").await.unwrap().unwrap();
        assert!(ovs.database().bridge(BRIDGE).await.unwrap().is_none());
        assert!(Ovs::find(&config(place.path()), BRIDGE).await.unwrap().is_none());

        // Seen from another network namespace it is not ours to use.
        let other = place.path().join("other");
        let found = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { Ovs::find(&config(&other), "theirs").await.unwrap().is_some() })
        });
        assert!(!found.join().unwrap());
    });
}
