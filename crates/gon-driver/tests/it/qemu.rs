//! QEMU for real, emulated: confinement, boot, power, disks, and the proof of an accelerator.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gon_driver::image::{Manifest, Recipe};
use gon_driver::netlink::Netlink;
use gon_driver::qemu::{
    Accelerator, Boot, Capabilities, Disk, Guest, GuestDir, Kernel, Lock, Machine, Monitor, Nic, QmpError,
    RunState, ec2_uuid, find, is_up, probe, prove, prove_kvm, qcow2, start,
};
use gon_driver::run::Pid;
use gon_driver::tap;
use serde_json::json;
use uuid::Uuid;

use crate::namespace::in_namespace;

/// The image every test boots.
fn gon_linux() -> PathBuf {
    crate::image::built(Recipe::GonLinux)
}

fn manifest() -> Manifest {
    Manifest::load(&gon_linux()).unwrap()
}

fn guest(uid: u32) -> Guest {
    let (dir, manifest) = (gon_linux(), manifest());
    Guest {
        name: "i-test".to_owned(),
        uuid: ec2_uuid(Uuid::now_v7()),
        vcpus: 1,
        memory_mib: 128,
        machine: Machine::Microvm,
        boot: Boot {
            kernel: dir.join(&manifest.kernel.file),
            initrd: dir.join(&manifest.initrd.file),
            cmdline: manifest.kernel_cmdline(true),
        },
        nics: vec![],
        disks: vec![],
        run_as_uid: uid,
    }
}

/// A started guest that does not outlive its test.
struct Running {
    guest: Guest,
    dir: GuestDir,
    pid: Pid,
    _temp: tempfile::TempDir,
}

impl Running {
    fn start(guest: Guest, capabilities: &Capabilities) -> Self {
        // A directory that only root can reach, as the data directory is.
        let temp = tempfile::Builder::new().permissions(private()).tempdir().unwrap();
        Self::start_in(guest, capabilities, temp)
    }
    fn start_in(guest: Guest, capabilities: &Capabilities, temp: tempfile::TempDir) -> Self {
        let dir = GuestDir::new(&temp.path().join("guest"));
        dir.create().unwrap();
        let lock = Lock::take(&dir).unwrap().expect("nobody has it");
        let pid = start(&guest, capabilities, &dir, lock).unwrap();
        Self { guest, dir, pid, _temp: temp }
    }
    async fn monitor(&self) -> (Monitor, gon_driver::qemu::Events) {
        match Monitor::connect(&self.dir, self.guest.uuid, Duration::from_secs(20)).await {
            Ok(pair) => pair,
            Err(error) => panic!("{error}; QEMU said: {}", self.dir.log_tail()),
        }
    }
}
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.pid.signal(rustix::process::Signal::KILL);
    }
}

fn private() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o700)
}

async fn console_until(monitor: &Monitor, word: &str, deadline: Duration) -> String {
    let mut text = String::new();
    let seen = async {
        while !text.contains(word) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            text.push_str(&String::from_utf8_lossy(&monitor.take_console().await.unwrap()));
        }
    };
    if tokio::time::timeout(deadline, seen).await.is_err() {
        panic!("no '{word}' on the console in {deadline:?}, but: {text}");
    }
    text
}

async fn state_within(monitor: &Monitor, wanted: RunState, deadline: Duration) {
    let reached = async {
        while monitor.run_state().await.unwrap() != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(deadline, reached)
        .await
        .unwrap_or_else(|_| panic!("not {wanted:?} in {deadline:?}"));
}

const BOOT: Duration = Duration::from_secs(40);

#[test]
fn a_guest_is_confined_and_alone_and_talks_through_its_tap() {
    in_namespace(|| async {
        let netlink = Netlink::open().unwrap();
        let spec = tap::TapSpec { name: "gqtap0", owner_uid: 70_100, mtu: 1450 };
        let mut guest = guest(70_100);
        guest.nics = vec![Nic {
            device: "gqtap0".to_owned(),
            mac: "02:00:00:00:01:00".parse().unwrap(),
            mtu: 1450,
            offloads: false,
        }];
        let capabilities = probe(None).await.unwrap();

        // Without its tap a guest does not start.
        assert!(!is_up("gqtap0"));
        let temp = tempfile::tempdir().unwrap();
        let dir = GuestDir::new(temp.path());
        let lock = Lock::take(&dir).unwrap().unwrap();
        let error = start(&guest, &capabilities, &dir, lock).unwrap_err();
        assert_eq!(error.to_string(), "network device gqtap0 is not up");
        // A failed start gives the lock back.
        free_soon(&dir).await;

        tap::ensure(&netlink, spec).await.unwrap();
        assert!(is_up("gqtap0"));
        let running = Running::start(guest, &capabilities);
        let (monitor, _events) = running.monitor().await;
        assert_eq!(monitor.version(), capabilities.version);
        assert_eq!(monitor.run_state().await.unwrap(), RunState::Prelaunch);
        facts(&running);

        // There is one, it can be found, and there cannot be another.
        assert_eq!(find(70_100, running.guest.uuid), Some(running.pid));
        assert_eq!(find(70_100, Uuid::nil()), None);
        assert_eq!(find(70_101, running.guest.uuid), None);
        assert!(Lock::take(&running.dir).unwrap().is_none());

        monitor.cont().await.unwrap();
        console_until(&monitor, "userspace up", BOOT).await;
        // It asks for an address: packets of its own come out of the tap.
        let asked = async {
            while received("gqtap0") == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(BOOT, asked).await.expect("a packet of the guest");

        monitor.quit(Duration::from_secs(5)).await.unwrap();
        assert!(running.pid.wait_gone(Duration::from_secs(5)).await);
        free_soon(&running.dir).await;
        assert_eq!(find(70_100, running.guest.uuid), None);
        assert!(is_up("gqtap0"), "the tap is not the guest's");
    });
}

/// The lock is free, or is in a moment: a process that another test is just making has copies of our descriptors until it
/// runs its program.
async fn free_soon(dir: &GuestDir) {
    let freed = async {
        while Lock::take(dir).unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), freed).await.expect("the lock is free");
}

/// Packets that came out of a device.
fn received(device: &str) -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = table.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':')).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn the_buttons_work_and_what_the_guest_did_by_itself_can_be_seen() {
    in_namespace(|| async {
        let running = Running::start(guest(70_130), &probe(None).await.unwrap());
        let (monitor, _events) = running.monitor().await;
        monitor.cont().await.unwrap();
        console_until(&monitor, "gon-linux: ready", BOOT).await;

        // The reset button boots the same kernel again, without a boot loader.
        monitor.reset().await.unwrap();
        console_until(&monitor, "gon-linux: ready", BOOT).await;

        // A guest that powered itself off can be seen to have done so, also by somebody who comes later.
        drop(monitor);
        let (monitor, _events) = running.monitor().await;
        // The button is heard once its daemon listens.
        let off = async {
            while monitor.run_state().await.unwrap() != RunState::Shutdown {
                monitor.press_power_button().await.unwrap();
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        tokio::time::timeout(BOOT, off).await.expect("it powers itself off");
        // Reset and continue: it runs again, in the same process.
        monitor.reset().await.unwrap();
        state_within(&monitor, RunState::Prelaunch, Duration::from_secs(2)).await;
        monitor.cont().await.unwrap();
        state_within(&monitor, RunState::Running, Duration::from_secs(2)).await;
        assert!(running.pid.is_alive());
    });
}

/// Row K1: what the kernel says about the process.
fn facts(running: &Running) {
    let proc = PathBuf::from(format!("/proc/{}", running.pid.pid));
    let status = std::fs::read_to_string(proc.join("status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
        line.split_ascii_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    let uid = running.guest.run_as_uid;
    assert_eq!(field("Uid:"), format!("{uid} {uid} {uid} {uid}"));
    assert_eq!(field("Gid:"), format!("{uid} {uid} {uid} {uid}"));
    assert_eq!(field("Groups:"), "");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(std::fs::read_to_string(proc.join("oom_score_adj")).unwrap().trim(), "300");
    let limits = std::fs::read_to_string(proc.join("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_ascii_whitespace().skip(4).take(2).all(|word| word == "0"), "{core}");

    // Nobody's child, in a session of its own, in namespaces of its own.
    let stat = std::fs::read_to_string(proc.join("stat")).unwrap();
    let numbers: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    assert_ne!(numbers[1], std::process::id().to_string(), "not our child");
    let session: i32 = numbers[3].parse().unwrap();
    assert_ne!(session, nix::unistd::getsid(None).unwrap().as_raw());
    for namespace in ["mnt", "net", "ipc", "uts"] {
        let theirs = std::fs::read_link(proc.join("ns").join(namespace)).unwrap();
        assert_ne!(theirs, std::fs::read_link(format!("/proc/thread-self/ns/{namespace}")).unwrap());
    }

    // Its root has the system's programs and what it boots, nothing else, and cannot be written.
    let root = proc.join("root");
    let names = |dir: &Path| -> BTreeSet<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    };
    let allowed = ["bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "usr"];
    let found = names(&root);
    assert!(found.iter().all(|name| allowed.contains(&name.as_str())), "{found:?}");
    assert_eq!(names(&root.join("boot")), ["initrd", "kernel"].map(String::from).into());
    assert_eq!(names(&root.join("dev")), ["null", "urandom"].map(String::from).into());
    let mounts = std::fs::read_to_string(proc.join("mountinfo")).unwrap();
    for line in mounts.lines() {
        assert!(line.split(' ').nth(5).unwrap().split(',').any(|option| option == "ro"), "{line}");
    }
    let here = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!here.contains("/jail"), "nothing of it is mounted in our view");

    // It holds the lock, its tap, sockets and its log.
    for fd in std::fs::read_dir(proc.join("fd")).unwrap() {
        let target = std::fs::read_link(fd.unwrap().path()).unwrap().to_string_lossy().into_owned();
        let ok = target.starts_with("socket:")
            || target.starts_with("anon_inode:")
            || ["/dev/net/tun", "/dev/null"].contains(&target.as_str())
            || ["/lock", "/qemu.log"].iter().any(|end| target.ends_with(end));
        assert!(ok, "it has {target} open");
    }
}

#[test]
fn disks_are_overlays_that_leave_their_base_alone() {
    in_namespace(|| async {
        let temp = tempfile::Builder::new().permissions(private()).tempdir().unwrap();
        let (overlay, base) = (temp.path().join("disk0.qcow2"), temp.path().join("base"));
        let image: Vec<u8> = std::iter::repeat_n(7u8, 1 << 20).collect();
        std::fs::write(&base, &image).unwrap();
        qcow2::create(&overlay, 3 << 30).unwrap();
        for machine in [Machine::Microvm, Machine::Q35] {
            let mut guest = guest(70_110);
            guest.machine = machine;
            guest.disks = vec![Disk { overlay: overlay.clone(), base: Some(base.clone()) }];
            let running = Running::start(guest, &probe(None).await.unwrap());
            let (monitor, _events) = running.monitor().await;
            // What was written is there, also for the next QEMU; the rest is the base's, and beyond it nothing.
            let mut lines = vec!["read -P 9 0 64k", "read -P 7 64k 960k", "read -P 0 2g 64k"];
            if machine == Machine::Microvm {
                lines.splice(0..0, ["read -P 7 0 64k", "write -P 9 0 64k"]);
            }
            // On PCI the disk is a part of its device.
            let device = if machine == Machine::Q35 { "disk0/virtio-backend" } else { "disk0" };
            for line in &lines {
                let arguments = json!({"command-line": format!("qemu-io -d {device} \"{line}\"")});
                let said =
                    monitor.raw().execute("human-monitor-command", arguments, Duration::from_secs(10)).await;
                assert_eq!(said.unwrap(), "", "{machine:?}: {line}");
            }
            let beyond = json!({"command-line": format!("qemu-io -d {device} \"read 3g 512\"")});
            let _ = monitor.raw().execute("human-monitor-command", beyond, Duration::from_secs(10)).await;
            monitor.quit(Duration::from_secs(5)).await.unwrap();
            assert!(running.pid.wait_gone(Duration::from_secs(5)).await);
            // It reports on its standard output: a transfer each, no mismatch, and only the last one fails.
            let log = std::fs::read_to_string(running.dir.log()).unwrap();
            let done = log
                .lines()
                .filter(|l| l.starts_with("read 6") || l.starts_with("read 9") || l.starts_with("wrote "))
                .count();
            let failed: Vec<&str> = log.lines().filter(|l| l.contains("failed")).collect();
            assert_eq!(
                (done, failed.as_slice()),
                (lines.len(), ["read failed: Input/output error"].as_slice()),
                "{log}"
            );
        }
        assert_eq!(std::fs::read(&base).unwrap(), image, "the base is as it was");

        // A header that names another file is refused before QEMU sees it.
        let mut bytes = std::fs::read(&overlay).unwrap();
        bytes[8..24].copy_from_slice(&[0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 11, 0, 0, 0, 16]);
        std::fs::write(&overlay, bytes).unwrap();
        let mut guest = guest(70_110);
        guest.disks = vec![Disk { overlay, base: Some(base) }];
        let dir = GuestDir::new(temp.path());
        let lock = Lock::take(&dir).unwrap().unwrap();
        let error = start(&guest, &probe(None).await.unwrap(), &dir, lock).unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("backing file"), "{error}");
    });
}

#[test]
fn another_machine_at_the_socket_is_noticed_and_a_bad_guest_is_explained() {
    in_namespace(|| async {
        let capabilities = probe(None).await.unwrap();
        let running = Running::start(guest(70_120), &capabilities);
        let error = Monitor::connect(&running.dir, Uuid::nil(), Duration::from_secs(20)).await.unwrap_err();
        assert!(matches!(error, QmpError::Protocol(_)), "{error}");
        // The refused connection is closed: the right one is let in.
        running.monitor().await;

        let mut bad = guest(70_121);
        bad.boot.kernel = gon_linux().join("manifest.json");
        let running = Running::start(bad, &capabilities);
        assert!(running.pid.wait_gone(Duration::from_secs(20)).await, "QEMU refuses it");
        assert!(running.dir.log_tail().contains("kernel"), "{}", running.dir.log_tail());
    });
}

/// Row K4: the presence of `/dev/kvm` is not believed.
#[test]
fn an_accelerator_is_what_has_booted_a_guest() {
    in_namespace(|| async {
        let capabilities = probe(None).await.unwrap();
        assert_eq!(capabilities.accelerator, Accelerator::Tcg);
        let (dir, manifest) = (gon_linux(), manifest());
        let kernel =
            Kernel { kernel: dir.join(&manifest.kernel.file), cmdline: manifest.kernel_cmdline(true) };
        let temp = tempfile::tempdir().unwrap();
        let work = temp.path().join("proof");

        // The proof itself works: emulation always does.
        prove(&capabilities, &kernel, &work, BOOT).await.unwrap();
        assert!(!work.exists(), "nothing is left of it");
        // And it can fail.
        let hung = prove(&capabilities, &kernel, &work, Duration::from_millis(1)).await.unwrap_err();
        assert!(hung.to_string().contains("did not reach user space"), "{hung}");

        let started = std::time::Instant::now();
        match prove_kvm(&capabilities, &kernel, &work).await {
            Ok(accelerator) => {
                let proved = Capabilities { accelerator, ..capabilities };
                prove(&proved, &kernel, &work, BOOT).await.expect("what is proved boots again");
            }
            Err(error) => {
                println!("KVM is not usable here: {error}");
                assert!(started.elapsed() < Duration::from_secs(15), "and that was found out soon");
            }
        }
        assert!(!work.exists());
    });
}
