//! The hypervisor agent as a process of its own, with real QEMUs.

mod asleep;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gon_agent::hypervisor::fence::{self, Grant};
use gon_agent::hypervisor::journal::Clock;
use gon_agent::hypervisor::{self, Config, NodeConfig, tear_down};
use gon_agent::link::Link;
use gon_driver::image::{Manifest, Recipe, build};
use gon_driver::qemu::{ec2_uuid, find};
use gon_driver::run::{Cmd, Pid, spawn_detached};
use gon_proto::{DiskSpec, ImageSpec, InstanceSpec, NicSpec, ObservedInstance, PowerSpec};
use gon_types::crash;
use gon_types::id::{ImageId, InstanceId, NetworkInterfaceId};
use rustix::process::Signal;

use crate::guest::sh;
use crate::manager::Manager;
use crate::mini::{self, Then};

/// Where the agent process finds what it needs; without it, [`the_agent_as_a_process`] is nothing.
const AGENT: &str = "GON_TEST_AGENT";

/// Not a test: the agent, when a test starts this program again with a directory in the environment.
#[test]
fn the_agent_as_a_process() {
    let Some(dir) = std::env::var_os(AGENT).map(PathBuf::from) else { return };
    let logs = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false);
    let _ = logs.with_writer(std::io::stderr).try_init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let agent = hypervisor::Hypervisor::new(Config {
            state_dir: dir.join("state"),
            images: dir.join("images"),
            link: Link::unix(&dir.join("manager.sock")),
            node: NodeConfig {
                name: "test".to_owned(),
                availability_zone: "test-1a".to_owned(),
                address: None,
                labels: BTreeMap::new(),
                cpu_overcommit: 2,
                memory_reserve_mib: 0,
                disk_reserve_gib: 0,
            },
            emulate: !dir.join("prove").exists(),
            versions: BTreeMap::new(),
            qemu: None,
            facts: dir.join("facts"),
        })
        .unwrap();
        let listener =
            tokio::net::UnixListener::bind(dir.join(format!("status-{}.sock", std::process::id())));
        let router = agent.router();
        tokio::spawn(async move { axum::serve(listener.unwrap(), router).await });
        agent.run(std::future::pending()).await.unwrap();
    });
}

/// The directory of the image gon-linux, which is made first if it is not there: shared by all tests of the checkout.
fn gon_linux() -> PathBuf {
    let images = std::env::var_os("GON_IMAGES_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/gon-images"), PathBuf::from);
    let make = move || {
        // Outside of the test's namespace, where the package archive is. "self" is the process: its first thread never
        // entered one.
        let outside = std::fs::File::open("/proc/self/ns/net").unwrap();
        nix::sched::setns(outside, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let built = build(&images, &[Recipe::GonLinux], &|_, step| eprintln!("gon-linux: {step}"));
        runtime.block_on(built).unwrap().remove(0).dir
    };
    std::thread::spawn(make).join().unwrap().canonicalize().unwrap()
}

/// A node: its directories, an instance manager, and an agent that can be killed.
struct World {
    dir: tempfile::TempDir,
    manager: Manager,
    agent: Option<Pid>,
    instances: Vec<InstanceSpec>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill_agent_now();
        for spec in &self.instances {
            if let Some(pid) = qemu_of(spec) {
                let _ = pid.signal(Signal::KILL);
            }
        }
        if std::thread::panicking() {
            println!("{}", std::fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default());
        }
    }
}

fn qemu_of(spec: &InstanceSpec) -> Option<Pid> {
    find(spec.run_as_uid, ec2_uuid(spec.id.uuid()))
}

impl World {
    fn new() -> Self {
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        let dir = tempfile::Builder::new().permissions(private).tempdir().unwrap();
        let images = dir.path().join("images");
        for (name, then) in
            [("halts", Then::Halts), ("floods", Then::Floods), ("powers-off", Then::PowersOff)]
        {
            mini::write_image(&images, name, then);
        }
        let manager = Manager::start(&dir.path().join("manager.sock"));
        Self { dir, manager, agent: None, instances: vec![] }
    }

    /// A new instance, wanted to run; not yet in a document.
    fn instance(&mut self, image: &str) -> usize {
        static NEXT: AtomicU32 = AtomicU32::new(71_000);
        self.instances.push(InstanceSpec {
            id: InstanceId::new(),
            generation: 1,
            placement_epoch: 1,
            power: PowerSpec::Running,
            force: true,
            reboot_seq: 0,
            stop_grace_seconds: 20,
            vcpus: 1,
            memory_mib: 32,
            image: ImageSpec { id: ImageId::new(), name: image.to_owned(), digest: mini::DIGEST.to_owned() },
            run_as_uid: NEXT.fetch_add(1, Ordering::Relaxed),
            nics: vec![],
            disks: vec![],
            fence: None,
            origin: None,
        });
        self.instances.len() - 1
    }

    /// Changes what is wanted, and publishes everything.
    fn want(&mut self, index: usize, change: impl FnOnce(&mut InstanceSpec)) {
        self.instances[index].generation += 1;
        change(&mut self.instances[index]);
        self.publish();
    }
    fn publish(&mut self) {
        self.manager.publish(&self.instances);
    }

    fn start_agent(&mut self, crash: Option<&str>) {
        let mut cmd = Cmd::new(std::env::current_exe().unwrap())
            .args(["hypervisor::the_agent_as_a_process", "--exact", "--nocapture", "--test-threads=1"])
            .env(AGENT, self.dir.path());
        if let Some(point) = crash {
            cmd = cmd.env("GON_CRASH", point);
        }
        self.manager.forget();
        self.agent = Some(spawn_detached(cmd, &self.dir.path().join("agent.log")).unwrap());
    }
    fn kill_agent_now(&mut self) -> Option<Pid> {
        let agent = self.agent.take()?;
        agent.signal(Signal::KILL).unwrap();
        Some(agent)
    }
    async fn kill_agent(&mut self) {
        let agent = self.kill_agent_now().unwrap();
        assert!(agent.wait_gone(Duration::from_secs(5)).await);
    }

    async fn until(&mut self, index: usize, observed: ObservedInstance) -> gon_proto::InstanceReport {
        let (id, generation) = (self.instances[index].id, self.instances[index].generation);
        let what = format!("{observed:?}");
        self.manager.wait_for(id, &what, |r| r.observed == observed && r.generation == generation).await
    }

    fn dir_of(&self, index: usize) -> PathBuf {
        self.dir.path().join("state/instances").join(self.instances[index].id.uuid().to_string())
    }

    async fn console(&self, index: usize) -> String {
        let agent = self.agent.unwrap();
        let socket = self.dir.path().join(format!("status-{}.sock", agent.pid));
        // By the id that a person sees.
        let url = format!("/instances/{}/console", self.instances[index].id);
        // An agent that has just started does not know it at once.
        for _ in 0..200 {
            if let (200, body) = http_get(&socket, &url).await {
                return String::from_utf8_lossy(&body).into_owned();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no {url}");
    }
    async fn console_until(&self, index: usize, word: &str) -> String {
        self.console_when(index, |text| text.contains(word)).await
    }
    async fn console_when(&self, index: usize, good: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            let text = self.console(index).await;
            if good(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "the console says only: {text}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// As many QEMUs as there should be; counted by who they run as, so that none can hide.
    fn qemus(&self, index: usize) -> usize {
        use std::os::unix::fs::MetadataExt;
        let uid = self.instances[index].run_as_uid;
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let ours = processes.filter(|p| p.metadata().is_ok_and(|meta| meta.uid() == uid));
        // One that only waits to be reaped is none.
        ours.filter_map(|p| Pid::of(p.file_name().to_str()?.parse().ok()?)).count()
    }
}

async fn http_get(socket: &Path, url: &str) -> (u16, Vec<u8>) {
    use http_body_util::BodyExt;
    let deadline = Instant::now() + Duration::from_secs(10);
    let stream = loop {
        // It may just be starting.
        match tokio::net::UnixStream::connect(socket).await {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get(url).header("host", "x").body(String::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

/// Runs a test in a network namespace of its own.
fn in_world<F: Future<Output = ()>>(test: impl FnOnce(World) -> F + Send + 'static) {
    let body = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async move { test(World::new()).await });
    };
    if let Err(panic) = std::thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

use ObservedInstance::{Failed, Gone, Running, ShutDownByGuest, Starting, Stopped};

/// The life of a real guest: launch, loss of the agent, reboot, stop, start, terminate.
#[test]
fn a_guest_lives_through_everything() {
    in_world(|mut world| async move {
        std::os::unix::fs::symlink(gon_linux(), world.dir.path().join("images/gon-linux")).unwrap();
        let manifest = Manifest::load(&gon_linux()).unwrap();
        let i = world.instance("gon-linux");
        let spec = &mut world.instances[i];
        (spec.image.digest, spec.memory_mib, spec.force) = (manifest.recipe, 128, false);
        let id = spec.id;
        world.start_agent(None);
        world.manager.node().await;
        let published = Instant::now();
        world.publish();
        assert_eq!(world.until(i, Running).await.reason, None);
        println!("document → reported running: {:?}", published.elapsed());
        let qemu = qemu_of(&world.instances[i]).unwrap();
        world.console_until(i, "userspace up").await;
        println!("document → first line of userspace: {:?}", published.elapsed());
        let log = std::fs::read_to_string(world.dir.path().join("agent.log")).unwrap();
        println!("{}", log.lines().find(|line| line.contains("QEMU started")).unwrap());

        // The agent is killed and comes back: the same process, the same boot.
        world.kill_agent().await;
        assert!(qemu.is_alive());
        world.start_agent(None);
        world.until(i, Running).await;
        world.console_until(i, "gon-linux: ready").await;
        assert_eq!(boots(&world.console(i).await), 1, "it did not boot again");
        assert_eq!((qemu_of(&world.instances[i]), world.qemus(i)), (Some(qemu), 1));

        // A reboot, done once, in the same process. The guest was asked.
        world.want(i, |spec| spec.reboot_seq = 1);
        world.manager.wait_for(id, "rebooted", |r| r.reboot_seq == 1 && r.observed == Running).await;
        let text = world.console_when(i, |text| boots(text) == 2).await;
        assert!(text.contains("gon-linux: poweroff"), "{text}");
        assert_eq!((qemu_of(&world.instances[i]), world.qemus(i)), (Some(qemu), 1));

        // A stop asks the guest, again if it is still booting and does not hear it yet.
        let asked = Instant::now();
        world.want(i, |spec| spec.power = PowerSpec::Stopped);
        world.until(i, Stopped).await;
        assert!(asked.elapsed() < Duration::from_secs(19), "it was cut: {:?}", asked.elapsed());
        assert_eq!(world.qemus(i), 0);
        let text = world.console(i).await;
        assert_eq!((boots(&text), text.matches("gon-linux: poweroff").count()), (2, 2), "{text}");

        // A start, then the end.
        world.want(i, |spec| spec.power = PowerSpec::Running);
        world.until(i, Running).await;
        assert_ne!(qemu_of(&world.instances[i]).unwrap().pid, qemu.pid);
        world.want(i, |spec| spec.power = PowerSpec::Terminated);
        world.until(i, Gone).await;
        assert_eq!(world.qemus(i), 0);
        assert!(!world.dir_of(i).exists());
        // And when the document has forgotten it, so have we.
        world.instances.clear();
        world.publish();
        let socket = world.dir.path().join(format!("status-{}.sock", world.agent.unwrap().pid));
        let deadline = Instant::now() + Duration::from_secs(10);
        while http_get(&socket, &format!("/instances/{id}/console")).await.0 != 404 {
            assert!(Instant::now() < deadline, "it is still known");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

fn boots(console: &str) -> usize {
    console.matches("gon-linux: userspace up").count()
}

/// A guest waits for its interface, which is the sign that its policy is in force, and says so (rule R9).
#[test]
fn a_guest_waits_for_its_interface() {
    in_world(|mut world| async move {
        let i = world.instance("halts");
        let (id, uid) = (world.instances[i].id, world.instances[i].run_as_uid);
        world.instances[i].nics = vec![NicSpec {
            id: NetworkInterfaceId::new(),
            device: "ghv0".to_owned(),
            mac: "02:00:00:00:02:00".parse().unwrap(),
            mtu: 1400,
        }];
        world.start_agent(None);
        world.publish();
        let report = world.manager.wait_for(id, "waiting", |r| r.reason.is_some()).await;
        assert_eq!(report.observed, Starting);
        assert!(
            report.reason.as_ref().unwrap().contains("waiting for its network interface eni-"),
            "{report:?}"
        );
        assert_eq!(sh(&format!("ip tuntap add ghv0 mode tap user {uid}")), "");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(world.qemus(i), 0, "a device that is down is not ready");
        let up = Instant::now();
        assert_eq!(sh("ip link set ghv0 up"), "");
        assert_eq!(world.until(i, Running).await.reason, None);
        println!("tap up → reported running: {:?}", up.elapsed());
        world.want(i, |spec| spec.power = PowerSpec::Terminated);
        world.until(i, Gone).await;
        assert!(sh("ip -o link show ghv0").contains("ghv0"), "the tap is not ours to remove");
    });
}

/// Row A1: the agent dies at every point of a launch. Exactly one guest runs in the end, and one that had begun to run
/// is never started again.
#[test]
fn a_launch_survives_a_crash_at_every_point() {
    for half in [0, 1] {
        in_world(move |mut world| async move {
            let points =
                crash::points(|step, what| step.starts_with('C') && what.starts_with("hypervisor agent"));
            for point in points.iter().skip(half).step_by(2) {
                let i = world.instance("halts");
                world.instances[i].disks = vec![DiskSpec { size_gib: 1 }];
                world.publish();
                world.start_agent(Some(point));
                let agent = world.agent.unwrap();
                assert!(agent.wait_gone(Duration::from_secs(30)).await, "{point} is not reached");
                let before = qemu_of(&world.instances[i]);
                world.start_agent(None);
                world.until(i, Running).await;
                assert_eq!(world.qemus(i), 1, "{point}");
                if let Some(before) = before {
                    assert_eq!(qemu_of(&world.instances[i]), Some(before), "{point}: it was started again");
                }
                if !point.starts_with("C29") {
                    world.console_until(i, mini::WORD.trim()).await;
                }
                // An agent that dies while it reports may die with what it has just taken out of the console's ring.
                let text = world.console(i).await;
                assert!(text.matches(mini::WORD).count() <= 1, "{point}: {text}");
                // Make room; that works, too.
                world.want(i, |spec| spec.power = PowerSpec::Terminated);
                world.until(i, Gone).await;
                assert_eq!(world.qemus(i), 0, "{point}");
                world.kill_agent().await;
                world.instances.clear();
            }
        });
    }
}

/// Row A2: the agent dies at every point of a removal. Nothing is left in the end.
#[test]
fn a_removal_survives_a_crash_at_every_point() {
    in_world(|mut world| async move {
        for point in
            &crash::points(|step, what| step.starts_with('D') && what.starts_with("hypervisor agent"))
        {
            let i = world.instance("halts");
            world.instances[i].disks = vec![DiskSpec { size_gib: 1 }];
            world.instances[i].force = point != "D03:after";
            world.publish();
            world.start_agent(None);
            world.until(i, Running).await;
            world.kill_agent().await;

            world.want(i, |spec| spec.power = PowerSpec::Terminated);
            world.start_agent(Some(point));
            let agent = world.agent.unwrap();
            assert!(agent.wait_gone(Duration::from_secs(30)).await, "{point} is not reached");
            world.start_agent(None);
            world.until(i, Gone).await;
            assert_eq!(world.qemus(i), 0, "{point}");
            let left: Vec<_> = std::fs::read_dir(world.dir.path().join("state/instances")).unwrap().collect();
            assert!(left.is_empty(), "{point}: {left:?}");
            world.kill_agent().await;
            world.instances.clear();
        }
    });
}

/// A guest that powers itself off is seen to have done so, whether or not anybody was there; it stays off until it is
/// wanted on anew.
#[test]
fn a_guest_that_powers_itself_off_stays_off() {
    in_world(|mut world| async move {
        let i = world.instance("powers-off");
        world.publish();
        world.start_agent(Some("C28:after"));
        let agent = world.agent.unwrap();
        assert!(agent.wait_gone(Duration::from_secs(30)).await);
        // It powers itself off while nobody looks; the process stays and tells.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(world.qemus(i), 1);
        world.start_agent(None);
        world.until(i, ShutDownByGuest).await;
        assert!(world.console(i).await.contains(mini::WORD));
        let gone = Instant::now() + Duration::from_secs(5);
        while world.qemus(i) != 0 {
            assert!(Instant::now() < gone, "its process stays");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.kill_agent().await;
        world.start_agent(None);
        world.until(i, ShutDownByGuest).await;
        assert_eq!(world.qemus(i), 0, "a restart of the agent does not start it");

        // Wanted on anew, it is started (and does it again).
        let before = world.manager.reports().len();
        world.want(i, |_| {});
        world.until(i, ShutDownByGuest).await;
        let reports = world.manager.reports();
        let id = world.instances[i].id;
        let said: Vec<_> = reports[before..]
            .iter()
            .flat_map(|r| &r.instances)
            .filter(|r| r.id == id)
            .map(|r| r.observed)
            .collect();
        assert!(said.contains(&Starting), "{said:?}");
        assert_eq!(world.console(i).await.matches(mini::WORD).count(), 2);
    });
}

/// Row K10: a guest that floods its console costs a bounded file and a bounded ring.
#[test]
fn a_flooded_console_stays_small() {
    in_world(|mut world| async move {
        let i = world.instance("floods");
        world.publish();
        world.start_agent(None);
        world.until(i, Running).await;
        let file = world.dir_of(i).join("console.log");
        let mut largest = 0;
        for _ in 0..25 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(world.console(i).await.len() <= 64 << 10);
            largest = largest.max(std::fs::metadata(&file).map_or(0, |meta| meta.len()));
        }
        println!("the largest console file was {largest} bytes");
        assert!(largest <= 256 << 10, "{largest}");
        assert_eq!(world.console(i).await.len(), 64 << 10, "and the last 64 KiB are there");
        // With nobody there, the disk does not fill.
        world.kill_agent().await;
        let held = std::fs::metadata(&file).unwrap().len();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(std::fs::metadata(&file).unwrap().len(), held);
        world.start_agent(None);
        world.until(i, Running).await;
        assert!(world.console(i).await.len() <= 64 << 10);
    });
}

/// What the document does not mention, or speaks of with an older voice, is left as it is.
#[test]
fn nobody_is_killed_by_mistake() {
    in_world(|mut world| async move {
        let (a, b) = (world.instance("halts"), world.instance("halts"));
        world.publish();
        world.start_agent(None);
        world.until(a, Running).await;
        world.until(b, Running).await;
        let both = [qemu_of(&world.instances[a]), qemu_of(&world.instances[b])];
        assert!(both.iter().all(Option::is_some));

        // One is missing, the other goes back in time and is to be terminated.
        let mut stale = world.instances[b].clone();
        (stale.generation, stale.power) = (0, PowerSpec::Terminated);
        world.manager.publish(&[stale]);
        let id = world.instances[b].id;
        let report = world.manager.wait_for(id, "refused", |r| r.reason.is_some()).await;
        assert_eq!((report.observed, report.generation), (Running, 1), "{report:?}");
        let missing = world.instances[a].id;
        world.manager.wait_for(missing, "still reported", |r| r.observed == Running).await;
        // Also with a new agent.
        world.kill_agent().await;
        world.start_agent(None);
        tokio::time::sleep(Duration::from_millis(700)).await;
        world.manager.wait_for(missing, "still reported", |r| r.observed == Running).await;
        assert_eq!([qemu_of(&world.instances[a]), qemu_of(&world.instances[b])], both);
    });
}

/// A machine that vanishes is started again, but not for ever; one that cannot be started says why.
#[test]
fn what_fails_is_tried_again_and_then_told() {
    in_world(|mut world| async move {
        let (vanishes, other) = (world.instance("halts"), world.instance("halts"));
        world.instances[other].image.digest = "b".repeat(64);
        world.publish();
        world.start_agent(None);
        let report = world.until(other, Failed).await;
        assert!(report.reason.as_ref().unwrap().contains("another version of image 'halts'"), "{report:?}");

        world.until(vanishes, Running).await;
        for attempt in 1..=3 {
            let pid = qemu_of(&world.instances[vanishes]).unwrap();
            pid.signal(Signal::KILL).unwrap();
            let id = world.instances[vanishes].id;
            if attempt < 3 {
                world.manager.wait_for(id, "noticed", |r| r.observed == Starting).await;
                let report = world.until(vanishes, Running).await;
                assert_ne!(qemu_of(&world.instances[vanishes]), Some(pid), "{report:?}");
            } else {
                let report = world.until(vanishes, Failed).await;
                assert!(report.reason.as_ref().unwrap().contains("ended unexpectedly"), "{report:?}");
                assert_eq!(world.qemus(vanishes), 0);
            }
        }
        // The control plane makes of that what it wants; a new generation is a new beginning.
        world.want(vanishes, |_| {});
        assert_eq!(world.until(vanishes, Running).await.reason, None);
    });
}

/// Row K4, in the agent: proved once, kept, reported.
#[test]
fn the_accelerator_is_proved_once() {
    in_world(|mut world| async move {
        // A real kernel is needed for the proof; without one there is only emulation.
        std::fs::remove_dir_all(world.dir.path().join("images")).unwrap();
        std::fs::create_dir(world.dir.path().join("images")).unwrap();
        std::fs::write(world.dir.path().join("prove"), b"").unwrap();
        let kept = world.dir.path().join("state/accelerator.json");
        world.start_agent(None);
        let report = world.manager.node().await;
        assert_eq!(report.accelerator, "tcg");
        assert!(
            report.images.is_empty() && report.vcpus >= 2 && report.memory_mib > 0 && report.disk_gib > 0
        );
        assert!(report.versions.contains_key("qemu") && report.versions.contains_key("kernel"));
        assert!(!kept.exists(), "nothing was proved");

        std::os::unix::fs::symlink(gon_linux(), world.dir.path().join("images/gon-linux")).unwrap();
        // An agent that is killed in the middle of the proof leaves a test guest behind; the next one ends it.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !world.dir.path().join("state/proof/qmp.sock").exists() && !kept.exists() {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.kill_agent().await;
        world.start_agent(None);
        while !kept.exists() {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("{}", std::fs::read_to_string(&kept).unwrap());
        assert!(!world.dir.path().join("state/proof").exists(), "the test guest is gone");
        assert!(!std::fs::read_to_string(&kept).unwrap().contains("busy"), "nothing was in its way");
        world.kill_agent().await;
        world.start_agent(None);
        let started = Instant::now();
        let socket = world.dir.path().join(format!("status-{}.sock", world.agent.unwrap().pid));
        loop {
            if http_get(&socket, "/accelerator").await.0 == 200 {
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(4), "it is proved again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (status, state) = http_get(&socket, "/debug/state").await;
        let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
        assert_eq!(status, 200);
        let accelerator = state["status"]["accelerator"].as_str().unwrap().to_owned();
        let proof: serde_json::Value = serde_json::from_slice(&std::fs::read(&kept).unwrap()).unwrap();
        assert_eq!(accelerator == "kvm", proof["kvm"].is_string(), "{state} {proof}");
        assert!(!state["status"]["note"].as_str().unwrap().is_empty());
    });
}

/// An operator takes the node down: no guest is left, and the next start brings back those that should run.
#[test]
fn a_node_is_torn_down_and_comes_back() {
    in_world(|mut world| async move {
        let (a, b) = (world.instance("halts"), world.instance("powers-off"));
        world.publish();
        world.start_agent(None);
        world.until(a, Running).await;
        world.until(b, ShutDownByGuest).await;
        world.kill_agent().await;
        let state = world.dir.path().join("state");
        let ended = tear_down(&state).await.unwrap();
        assert_eq!(ended.iter().map(|e| e.instance).collect::<Vec<_>>(), [world.instances[a].id]);
        assert_eq!((world.qemus(a), world.qemus(b)), (0, 0));
        assert!(tear_down(&state).await.unwrap().is_empty(), "it can be repeated");
        world.start_agent(None);
        let report = world.until(a, Running).await;
        assert_eq!(report.reason, None);
        world.until(b, ShutDownByGuest).await;
    });
}

/// Makes the last grant as old as this: what a node finds that was cut off, or whose agent slept, for so long.
fn age_grant(world: &World, seconds: u64) {
    let path = world.dir.path().join("state/grant.json");
    let mut grant: Grant = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    grant.asked_ms =
        Clock::read().now_ms.checked_sub(seconds * 1000).expect("a machine that is up for a minute");
    std::fs::write(&path, serde_json::to_vec(&grant).unwrap()).unwrap();
}

/// What is recovered elsewhere runs only by grant, is ended without one, by the agent or, if there is none, by the keeper; what
/// is not is never touched; and nothing counts of an epoch or a boot that is over.
#[test]
fn what_is_recovered_elsewhere_runs_by_grant_only() {
    in_world(|mut world| async move {
        let (plain, fenced) = (world.instance("halts"), world.instance("halts"));
        world.instances[fenced].fence = Some(1);
        world.start_agent(None);
        world.manager.node().await;
        world.publish();
        world.until(plain, Running).await;
        let neighbour = qemu_of(&world.instances[plain]).unwrap();
        // Nobody says that it may: it is not even begun.
        let waits = world.until(fenced, Starting).await;
        assert!(waits.reason.unwrap().contains("no grant"));
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(world.qemus(fenced), 0);

        world.manager.grant(true);
        world.until(fenced, Running).await;
        let first = qemu_of(&world.instances[fenced]).unwrap();

        // Cut off, and another agent: it knows for how long.
        world.manager.grant(false);
        world.kill_agent().await;
        age_grant(&world, 42);
        world.start_agent(None);
        world.until(fenced, Running).await;
        assert!(first.is_alive());
        let ended = world.until(fenced, Starting).await;
        assert!(ended.reason.unwrap().contains("no grant"));
        assert_eq!((world.qemus(fenced), first.is_alive()), (0, false));
        assert!(neighbour.is_alive());

        // Reached again: it starts, as if nothing had been. Not before it is told the epoch that its document is of.
        let epoch = world.manager.raise();
        world.manager.grant(true);
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!(world.qemus(fenced), 0, "a grant of another epoch is none");
        world.want(fenced, |spec| spec.fence = Some(epoch));
        world.until(fenced, Running).await;
        let second = qemu_of(&world.instances[fenced]).unwrap();

        // No agent at all.
        world.manager.grant(false);
        world.kill_agent().await;
        let state = world.dir.path().join("state");
        age_grant(&world, 58);
        assert_eq!(fence::keep(&state).await.unwrap(), []);
        assert!(second.is_alive());
        age_grant(&world, 60);
        assert_eq!(fence::keep(&state).await.unwrap(), [world.instances[fenced].id]);
        assert!(!second.is_alive() && neighbour.is_alive());
        assert_eq!(fence::keep(&state).await.unwrap(), []);

        // The node has started again meanwhile: what is in the file is of another boot, however young.
        age_grant(&world, 0);
        let path = state.join("grant.json");
        let mut grant: Grant = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        grant.boot ^= 1;
        std::fs::write(&path, serde_json::to_vec(&grant).unwrap()).unwrap();
        world.start_agent(None);
        world.until(plain, Running).await;
        world.until(fenced, Starting).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(world.qemus(fenced), 0);
        assert_eq!(qemu_of(&world.instances[plain]), Some(neighbour));
    });
}
