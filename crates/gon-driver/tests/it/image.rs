//! Images: made once per checkout, booted emulated, and held to what they promise: a first line, an address, a key, a
//! clean end; and that nothing they are told becomes syntax.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::Duration;

use gon_driver::image::{MANIFEST_FILE, Machine, Manifest, Recipe, build};
use gon_driver::qmp::Qmp;
use gon_driver::run::{Cmd, run};
use serde_json::Value;

use crate::namespace::in_namespace;

/// The directory of an image, which is made first if it is not there: shared by all tests of the checkout. May be
/// called from inside a namespace without a network.
pub fn built(recipe: Recipe) -> PathBuf {
    static DONE: Mutex<BTreeMap<Recipe, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut done = DONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(dir) = done.get(&recipe) {
        return dir.clone();
    }
    let images = std::env::var_os("GON_IMAGES_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/gon-images"));
    let make = move || {
        // A thread is where its creator is, but "self" is the process: its first thread never entered a namespace.
        let outside = std::fs::File::open("/proc/self/ns/net").unwrap();
        nix::sched::setns(outside, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let progress = |recipe: Recipe, step: &str| eprintln!("{recipe}: {step}");
        runtime.block_on(build(&images, &[recipe], &progress)).unwrap().remove(0).dir
    };
    let dir = std::thread::spawn(make).join().unwrap();
    done.insert(recipe, dir.clone());
    dir
}

/// What a metadata service answers, by path; everything else is 404. With a token it is version 2.
struct Metadata {
    token: Option<&'static str>,
    items: Vec<(String, String)>,
}

impl Metadata {
    /// A program that answers one request from its standard input: QEMU's user network starts one for each connection.
    fn write(&self, path: &Path) {
        let quote = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
        let mut script = "#!/bin/sh\n# One HTTP request.\nread -r method path version\ntoken=\n\
            while read -r name value && [ -n \"${name%\"$(printf '\\r')\"}\" ]; do\n\
            case $name in X-aws-ec2-metadata-token:) token=${value%\"$(printf '\\r')\"} ;; esac\ndone\n\
            answer() { printf 'HTTP/1.1 %s\\r\\nContent-Length: %s\\r\\nConnection: close\\r\\n\\r\\n%s' \"$1\" \
            \"$(printf %s \"$2\" | wc -c)\" \"$2\"; exit; }\n"
            .to_owned();
        if let Some(token) = self.token {
            let token = quote(token);
            script.push_str(&format!(
                "[ \"$method $path\" != 'PUT /latest/api/token' ] || answer 200 {token}\n"
            ));
            script.push_str(&format!("[ \"$token\" = {token} ] || answer 401 no\n"));
        }
        script.push_str("[ \"$method\" = GET ] || answer 404 no\ncase $path in\n");
        for (path, body) in &self.items {
            // cloud-init asks for a version by date, and for directories with and without a slash.
            script.push_str(&format!("/*/{path}|/*/{path}/) answer 200 {} ;;\n", quote(body)));
        }
        script.push_str("esac\nanswer 404 no\n");
        std::fs::write(path, script).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
}

/// A guest on QEMU's user network, where 169.254.169.254 is our metadata and port 2222 of this namespace leads to its
/// SSH. It ends with its test, however that ends.
struct Vm {
    dir: tempfile::TempDir,
    qemu: Child,
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

enum Net<'a> {
    None,
    /// Also: options of the network, for what its DHCP server says.
    User(&'a Metadata, &'a str),
}

/// What a busy machine may take for one answer of a guest; alone, it is a few seconds.
const BOOT: Duration = Duration::from_secs(60);
/// What it may take for a whole boot of Debian; alone, it is forty seconds.
const SAYS: Duration = Duration::from_secs(300);

impl Vm {
    fn start(image: &Path, memory_mib: u32, net: &Net<'_>, more: &[&str]) -> Self {
        let manifest = Manifest::load(image).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (machine, bus) = match manifest.machine {
            Machine::Microvm => ("microvm,acpi=on,pcie=off", "device"),
            Machine::Q35 => ("q35", "pci"),
        };
        let mut cmd = Command::new("qemu-system-x86_64");
        cmd.args(["-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"])
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-M", machine])
            .args(["-m", &memory_mib.to_string(), "-append", &manifest.kernel_cmdline(true)])
            .arg("-kernel")
            .arg(manifest.kernel_path(image))
            .arg("-initrd")
            .arg(manifest.initrd_path(image))
            .args(["-serial", &format!("file:{}", path("console"))])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", path("qmp"))])
            .args(["-device", &format!("virtio-rng-{bus}")])
            .args(more);
        if let Net::User(metadata, options) = net {
            metadata.write(&dir.path().join("imds"));
            let user = format!(
                "user,id=net,net=169.254.169.0/24,dhcpstart=169.254.169.15,hostfwd=tcp:127.0.0.1:2222-:22,\
                 guestfwd=tcp:169.254.169.254:80-cmd:{}{options}",
                path("imds")
            );
            cmd.args(["-netdev", &user, "-device", &format!("virtio-net-{bus},netdev=net")]);
        }
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        cmd.stdin(std::process::Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // SAFETY: a system call, nothing else.
        unsafe {
            cmd.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?));
        }
        Self { qemu: cmd.spawn().unwrap(), dir }
    }

    fn console(&self) -> String {
        let bytes = std::fs::read(self.dir.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    /// Waits until a text has come `times` on the console.
    async fn says(&mut self, text: &str, times: usize) {
        let deadline = tokio::time::Instant::now() + SAYS;
        while self.console().matches(text).count() < times {
            let ended = self.qemu.try_wait().unwrap();
            if ended.is_some() || tokio::time::Instant::now() > deadline {
                let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                panic!("no '{text}' ({times} ×); console: {}\nQEMU ({ended:?}): {log}", self.console());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Presses the power button and waits until QEMU has ended because the guest powered off.
    async fn powers_off(mut self, deadline: Duration) -> String {
        let (qmp, mut events) = Qmp::connect(&self.dir.path().join("qmp"), BOOT).await.unwrap();
        qmp.execute("system_powerdown", Value::Null, BOOT).await.unwrap();
        let guest_did = async {
            while let Some(event) = events.next().await {
                if event.name == "SHUTDOWN" {
                    assert_eq!(event.data["reason"], "guest-shutdown", "{event:?}");
                    return;
                }
            }
            panic!("QEMU ended without a word; console: {}", self.console());
        };
        tokio::time::timeout(deadline, guest_did)
            .await
            .unwrap_or_else(|_| panic!("not off after {deadline:?}: {}", self.console()));
        assert!(self.qemu.wait().unwrap().success());
        self.console()
    }

    async fn ssh(&self, user: &str, key: &Path, command: &str) -> Result<String, gon_driver::run::RunError> {
        let cmd = Cmd::new("ssh")
            .args(["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "ConnectTimeout=20", "-p", "2222", "-i"])
            .arg(key)
            .arg(format!("{user}@127.0.0.1"))
            .arg(command)
            .deadline(BOOT);
        Ok(run(cmd).await?.text())
    }
}

/// A key pair: the private key's file, and the public key.
async fn key_pair(dir: &Path) -> (PathBuf, String) {
    let key = dir.join("key");
    run(Cmd::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key)).await.unwrap();
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    (key, public.trim().to_owned())
}

fn item(path: &str, body: &str) -> (String, String) {
    (path.to_owned(), body.to_owned())
}

#[test]
fn gon_linux_takes_its_identity_from_metadata_and_obeys_both_buttons() {
    let image = built(Recipe::GonLinux);
    in_namespace(|| async move {
        let temp = tempfile::tempdir().unwrap();
        let (key, public) = key_pair(temp.path()).await;
        let metadata = Metadata {
            token: Some("AQAEA-b_c=="),
            items: vec![
                item("meta-data/public-keys/0/openssh-key", &public),
                item("meta-data/local-hostname", "ip-10-0-0-5.internal\n"),
                item("meta-data/instance-id", "i-0123456789abcdef0"),
                item("user-data", "#!/bin/sh\necho \"I am $(hostname), '$0'\"\nexit 7\n"),
            ],
        };
        let memory = Manifest::load(&image).unwrap().min_memory_mib;
        let mut vm = Vm::start(&image, memory, &Net::User(&metadata, ""), &[]);
        vm.says("gon-linux: user-data ended with 7\n", 1).await;
        let console = vm.console();
        assert!(console.starts_with("gon-linux: userspace up "), "the very first line: {console}");
        let ready = console.find("gon-linux: ready ").unwrap();
        assert!(console.find("I am ip-10-0-0-5.internal, ").unwrap() > ready, "{console}");
        assert!(console.contains("gon-linux: SSH host key ED25519 SHA256:"), "{console}");

        let said =
            vm.ssh("root", &key, "hostname; cat /run/gon/instance-id; ls -A /root/.ssh").await.unwrap();
        assert_eq!(said, "ip-10-0-0-5.internal\ni-0123456789abcdef0\nauthorized_keys\n");
        let said =
            vm.ssh("root", &key, "ip -4 addr show eth0; ip route; cat /etc/resolv.conf").await.unwrap();
        for fact in ["inet 169.254.169.15/24", "default via 169.254.169.2 ", "nameserver 169.254.169.3"] {
            assert!(said.contains(fact), "{fact}: {said}");
        }
        let (stranger, _) = key_pair(tempfile::tempdir().unwrap().path()).await;
        assert!(vm.ssh("root", &stranger, "true").await.is_err(), "another key");
        // Writing to a disk that was never asked to be clean would show here.
        assert_eq!(vm.ssh("root", &key, "dmesg | grep -ci 'call trace'; true").await.unwrap(), "0\n");

        // The guest restarts in place, and asks for its identity again.
        let _ = vm.ssh("root", &key, "reboot").await;
        vm.says("gon-linux: user-data ended with 7\n", 2).await;
        assert_eq!(vm.console().matches("gon-linux: userspace up ").count(), 2);
        vm.ssh("root", &key, "true").await.unwrap();
        // The power button; and `poweroff`, as typed, ends in the same way (the other tests press the button only).
        let console = vm.powers_off(Duration::from_secs(15)).await;
        assert!(console.contains("gon-linux: poweroff\n"), "{console}");
    });
}

#[test]
fn gon_linux_without_a_network_is_ready_and_can_be_stopped() {
    let image = built(Recipe::GonLinux);
    in_namespace(|| async move {
        let mut vm = Vm::start(&image, 256, &Net::None, &["-smp", "2"]);
        vm.says("gon-linux: ready ", 1).await;
        let console = vm.console();
        assert!(console.contains("gon-linux: no network interface\n"), "{console}");
        assert!(!console.contains("did not load"), "{console}");
        vm.powers_off(Duration::from_secs(15)).await;
    });
}

/// What comes from the network is data: names that are none are not taken, and nothing is evaluated. The service here
/// knows no tokens.
#[test]
fn gon_linux_believes_nothing_that_is_not_well_formed() {
    let image = built(Recipe::GonLinux);
    in_namespace(|| async move {
        let evil = "x;$(poweroff)`poweroff`|poweroff -f";
        let metadata = Metadata {
            token: None,
            items: vec![
                item("meta-data/local-hostname", evil),
                item("meta-data/instance-id", "../../etc/passwd"),
                item("user-data", "echo pwned >/dev/console; poweroff -f\n"),
            ],
        };
        let options = ",hostname=$(poweroff),domainname=$(poweroff);reboot";
        let mut vm = Vm::start(&image, 256, &Net::User(&metadata, options), &[]);
        vm.says("gon-linux: user-data is not a script", 1).await;
        let console = vm.console();
        assert!(console.contains("gon-linux: the instance has no SSH key\n"), "{console}");
        assert!(console.contains("gon-linux: ready "), "{console}");
        assert!(!console.contains("pwned"), "{console}");
        // It still runs, and was not told to do anything else.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let console = vm.powers_off(Duration::from_secs(15)).await;
        assert_eq!(console.matches("gon-linux: poweroff").count(), 1, "{console}");
        assert_eq!(console.matches("gon-linux: userspace up").count(), 1, "{console}");
    });
}

#[test]
fn debian_12_is_an_ec2_instance_to_cloud_init() {
    let image = built(Recipe::Debian12);
    in_namespace(|| async move {
        let temp = tempfile::tempdir().unwrap();
        let (key, public) = key_pair(temp.path()).await;
        let manifest = Manifest::load(&image).unwrap();
        let user_data =
            "#!/bin/sh\necho \"root has $(df --output=size -BM / | tail -n 1 | tr -d ' M') MiB\"\n";
        let mac = "meta-data/network/interfaces/macs/52:54:00:12:34:56";
        let items = vec![
            item("meta-data", "instance-id\nlocal-hostname\nhostname\nplacement/\npublic-keys/\nnetwork/"),
            item("meta-data/instance-id", "i-0123456789abcdef0"),
            item("meta-data/local-hostname", "ip-169-254-169-15"),
            item("meta-data/hostname", "ip-169-254-169-15"),
            item("meta-data/placement", "availability-zone"),
            item("meta-data/placement/availability-zone", "local-1a"),
            item("meta-data/public-keys", "0=mine"),
            item("meta-data/public-keys/0/openssh-key", &public),
            item("meta-data/network", "interfaces/"),
            item("meta-data/network/interfaces", "macs/"),
            item("meta-data/network/interfaces/macs", "52:54:00:12:34:56/"),
            item(mac, "device-number\nlocal-ipv4s\nsubnet-ipv4-cidr-block"),
            item(&format!("{mac}/device-number"), "0"),
            item(&format!("{mac}/local-ipv4s"), "169.254.169.15"),
            item(&format!("{mac}/subnet-ipv4-cidr-block"), "169.254.169.0/24"),
            item("dynamic/instance-identity", "document"),
            item("dynamic/instance-identity/document", "{\"region\": \"local-1\"}"),
            item("user-data", user_data),
        ];
        let metadata = Metadata { token: Some("T0"), items };
        // A larger disk than the image's, over it, as instances have it.
        let overlay = temp.path().join("disk.qcow2");
        gon_driver::qemu::qcow2::create(&overlay, 3 << 30).unwrap();
        let base = manifest.disk_path(&image).unwrap();
        let file = |name: &str, path: &Path, mode: &str| {
            format!("driver=file,node-name={name},filename={}{mode}", path.display())
        };
        let uuid = "ec2e1916-9099-7caf-fd21-012345abcdef";
        let smbios = format!("type=1,manufacturer=Amazon EC2,product=gon,serial={uuid},uuid={uuid}");
        let (base, overlay) = (file("f0", &base, ",read-only=on"), file("f1", &overlay, ""));
        let more = [
            ["-blockdev", &base],
            ["-blockdev", "driver=raw,node-name=base,file=f0,read-only=on"],
            ["-blockdev", &overlay],
            ["-blockdev", "driver=qcow2,node-name=disk,file=f1,backing=base"],
            ["-device", "virtio-blk-pci,drive=disk"],
            ["-smbios", &smbios],
            ["-uuid", uuid],
            ["-smp", "2"],
        ];
        let mut vm =
            Vm::start(&image, manifest.min_memory_mib, &Net::User(&metadata, ""), more.as_flattened());
        vm.says("ip-169-254-169-15 login: ", 1).await;
        vm.says("Datasource DataSourceEc2Local.", 1).await;
        let console = vm.console();
        assert!(!console.contains("WARNING") && !console.contains("[FAILED]"), "{console}");
        let size = console.split("root has ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        assert!(size.parse::<u32>().unwrap() > 2800, "the file system fills the disk: {size}");
        let said =
            vm.ssh("admin", &key, "sudo -n id -u; hostname; systemctl is-system-running").await.unwrap();
        assert_eq!(said, "0\nip-169-254-169-15\nrunning\n");
        assert!(vm.ssh("root", &key, "true").await.is_err(), "root does not log in");
        let console = vm.powers_off(Duration::from_secs(60)).await;
        assert!(console.contains("reboot: Power down"), "{console}");
    });
}

#[test]
fn an_image_of_another_recipe_is_replaced_as_a_whole_and_a_current_one_is_left_alone() {
    let current = built(Recipe::GonLinux);
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("gon-linux");
    std::fs::create_dir(&dir).unwrap();
    let manifest = Manifest::load(&current).unwrap();
    for file in [&manifest.kernel.file, &manifest.initrd.file] {
        std::fs::copy(current.join(file), dir.join(file)).unwrap();
    }
    let mut old: Value =
        serde_json::from_slice(&std::fs::read(current.join(MANIFEST_FILE)).unwrap()).unwrap();
    old["recipe"] = Value::from("0".repeat(64));
    std::fs::write(dir.join(MANIFEST_FILE), old.to_string()).unwrap();
    std::fs::write(dir.join("left-over"), "of the old one").unwrap();
    // What a builder leaves that was killed.
    std::fs::create_dir_all(temp.path().join(".gon-linux.work/root/etc")).unwrap();

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // Two at once: one of them does it.
        let (steps, quiet) = (Mutex::new(0), |_: Recipe, _: &str| {});
        let counting = |_: Recipe, _: &str| *steps.lock().unwrap() += 1;
        let recipes = [Recipe::GonLinux];
        let (one, other) =
            tokio::join!(build(temp.path(), &recipes, &counting), build(temp.path(), &recipes, &quiet));
        let (one, other) = (one.unwrap().remove(0), other.unwrap().remove(0));
        assert!(one.fresh != other.fresh, "{one:?} {other:?}");
        assert_eq!(one.manifest, other.manifest);
        assert_eq!(one.manifest.recipe, Recipe::GonLinux.digest());
        one.manifest.verify(&dir).await.unwrap();
        assert!(*steps.lock().unwrap() > 0);

        let again = build(temp.path(), &recipes, &quiet).await.unwrap().remove(0);
        assert!(!again.fresh && again.took < Duration::from_millis(500), "{again:?}");
    });
    let names = |dir: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&dir), ["initrd", "manifest.json", "vmlinux"]);
    assert_eq!(names(temp.path()), [".gon-linux.lock", "gon-linux"]);
}
