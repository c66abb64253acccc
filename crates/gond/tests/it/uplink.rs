//! A network card under Open vSwitch, and back: in a network namespace, with a switch of its own, by the real program.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use gon_driver::ovs::{Choice, Config, Datapath, Ovs};
use gon_driver::run::{Cmd, Pid, spawn_detached};
use rustix::process::Signal;

/// How long the guards of these tests wait, seconds.
const PATIENCE: u64 = 4;

/// A server with one card, and its router; both go at the end.
struct Server {
    dir: tempfile::TempDir,
    switch: PathBuf,
    processes: Vec<Pid>,
    _ovs: Ovs,
}

impl Drop for Server {
    fn drop(&mut self) {
        for pid in &self.processes {
            let _ = pid.signal(Signal::KILL);
        }
    }
}

fn sh(args: &[&str]) -> Output {
    Command::new(args[0]).args(&args[1..]).stdin(Stdio::null()).output().unwrap()
}

fn must(args: &[&str]) -> String {
    let output = sh(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn router_answers() -> bool {
    (0..20).any(|_| sh(&["ping", "-n", "-q", "-c", "1", "-W", "1", "192.0.2.1"]).status.success())
}

impl Server {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config =
            Config { dir: dir.path().join("ovs"), choice: Choice::Private, datapath: Some(Datapath::Netdev) };
        let ovs = Ovs::connect_or_start(&config, "br-int").await.unwrap();
        let mut processes = ovs.own_processes().await;
        let router = spawn_detached(
            Cmd::new("unshare").args(["--net", "sleep", "300"]),
            &dir.path().join("router.log"),
        )
        .unwrap();
        processes.push(router);
        let server = Self { switch: ovs.run_dir().to_owned(), dir, processes, _ovs: ovs };
        let pid = router.pid.to_string();
        let ours = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        while std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap() == ours {
            std::thread::sleep(Duration::from_millis(5));
        }
        must(&["ip", "link", "add", "nic0", "type", "veth", "peer", "name", "lan0", "netns", &pid]);
        must(&["ip", "address", "add", "192.0.2.2/24", "dev", "nic0"]);
        must(&["ip", "link", "set", "nic0", "up"]);
        must(&["ip", "route", "add", "default", "via", "192.0.2.1", "metric", "50"]);
        must(&["nsenter", "--net", "--target", &pid, "ip", "address", "add", "192.0.2.1/24", "dev", "lan0"]);
        must(&["nsenter", "--net", "--target", &pid, "ip", "link", "set", "lan0", "up"]);
        assert!(router_answers());
        server
    }

    fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gond"));
        command.args(["admin", "uplink", "--data-dir"]).arg(self.data_dir()).args(args);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command
    }

    fn move_command(&self) -> Command {
        let seconds = PATIENCE.to_string();
        let mut command = self.command(&["move", "nic0", "--userspace", "--seconds", &seconds, "--switch"]);
        command.arg(&self.switch);
        command
    }

    fn gond(&self, args: &[&str]) -> String {
        finish(self.command(args))
    }

    /// The state file of the move that is under way.
    fn is_moving(&self) -> bool {
        self.data_dir().join("uplink.json").exists()
    }

    fn assert_moved(&self) {
        assert!(must(&["ip", "-br", "address", "show", "br-ex"]).contains("192.0.2.2/24"));
        assert!(!must(&["ip", "-br", "address", "show", "nic0"]).contains("192.0.2.2"));
        assert!(must(&["ip", "route", "show", "default"]).contains("via 192.0.2.1 dev br-ex metric 50"));
        assert!(router_answers(), "the router answers over the bridge");
    }

    fn assert_as_it_was(&self) {
        assert!(must(&["ip", "-br", "address", "show", "nic0"]).contains("192.0.2.2/24"));
        assert!(must(&["ip", "route", "show", "default"]).contains("via 192.0.2.1 dev nic0 metric 50"));
        assert!(!sh(&["ip", "link", "show", "br-ex"]).status.success(), "the bridge is gone");
        assert!(router_answers(), "the router answers over the card");
    }

    /// Waits until the guard has decided.
    fn wait_until_reverted(&self) -> Duration {
        let begin = Instant::now();
        while self.is_moving() {
            assert!(begin.elapsed() < Duration::from_secs(PATIENCE + 20), "nobody put it back");
            std::thread::sleep(Duration::from_millis(50));
        }
        begin.elapsed()
    }
}

fn finish(mut command: Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// In a network namespace of its own.
fn on_a_server(test: impl FnOnce(Server) + Send + 'static) {
    let body = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        must(&["ip", "link", "set", "lo", "up"]);
        let server = runtime.block_on(Server::new());
        // What keeps the switch running is a task of the runtime.
        let _inside = runtime.enter();
        test(server);
    };
    if let Err(panic) = std::thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn what_nobody_confirms_is_put_back_and_what_somebody_confirms_stays() {
    on_a_server(|server| {
        // Unconfirmed.
        let said = finish(server.move_command());
        assert!(said.contains("gond admin uplink confirm"), "{said}");
        server.assert_moved();
        let took = server.wait_until_reverted();
        assert!(took < Duration::from_secs(PATIENCE + 5), "{took:?}");
        server.assert_as_it_was();
        assert!(!server.command(&["confirm"]).status().unwrap().success(), "too late");

        // Confirmed.
        finish(server.move_command());
        server.gond(&["confirm"]);
        std::thread::sleep(Duration::from_secs(PATIENCE + 2));
        server.assert_moved();
        assert!(server.gond(&["show"]).contains("confirmed"));
        // Only one at a time.
        assert!(!server.move_command().status().unwrap().success());
        server.assert_moved();

        // A restart of the machine: the network's own configuration has given the card its addresses again.
        must(&["ip", "address", "delete", "192.0.2.2/24", "dev", "br-ex"]);
        must(&["ip", "address", "add", "192.0.2.2/24", "dev", "nic0"]);
        must(&["ip", "route", "add", "default", "via", "192.0.2.1", "dev", "nic0", "metric", "50"]);
        server.gond(&["restore"]);
        server.assert_moved();

        // And back.
        server.gond(&["revert"]);
        server.assert_as_it_was();
    });
}

#[test]
fn whoever_moves_the_card_may_die_at_any_moment() {
    on_a_server(|server| {
        for milliseconds in [0, 30, 120, 300] {
            let mut mover =
                server.move_command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            while !server.data_dir().join("uplink.guard").exists() && mover.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(2));
            }
            std::thread::sleep(Duration::from_millis(milliseconds));
            // Its process group, as a session that ends takes everything with it.
            let _ = mover.kill();
            let _ = mover.wait();
            server.wait_until_reverted();
            server.assert_as_it_was();
        }
    });
}

#[test]
fn a_card_that_cannot_be_moved_is_left_alone() {
    on_a_server(|server| {
        let refused = server.command(&["move", "lo"]).output().unwrap();
        assert!(!refused.status.success());
        assert!(String::from_utf8_lossy(&refused.stderr).contains("not an Ethernet device"));
        // No switch answers there: nothing is changed, and nothing is left behind.
        let nowhere = server.data_dir().join("nowhere");
        let mut command = server.command(&["move", "nic0", "--seconds", "30", "--switch"]);
        let failed = command.arg(&nowhere).output().unwrap();
        assert!(!failed.status.success());
        assert!(!server.is_moving());
        assert!(router_answers());
        assert!(must(&["ip", "-br", "address", "show", "nic0"]).contains("192.0.2.2/24"));
    });
}
