//! A guest without a virtual machine: a network namespace whose `eth0` is wired, frame by frame, to the tap of a port, as
//! QEMU wires its device.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use gon_proto::PortSpec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace with a thread in it.
pub struct Namespace {
    jobs: mpsc::Sender<Job>,
}

impl Namespace {
    pub fn new() -> Self {
        let (jobs, work) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            for job in work {
                job();
            }
        });
        Self { jobs }
    }
    /// Runs something inside, also processes.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        self.jobs.send(Box::new(move || drop(done.send(work())))).unwrap();
        result.recv().expect("it panicked inside the namespace")
    }
}

pub struct Guest {
    namespace: Namespace,
    stop: Arc<AtomicBool>,
}
impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Runs a command; its output, with what it says of errors.
pub fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { text } else { format!("FAILED {command}: {text}") }
}

impl Guest {
    /// Plugs a guest into a port of this thread's namespace.
    pub fn plug(port: &PortSpec) -> Self {
        let host: File = gon_driver::tap::open(&port.device).unwrap().into();
        let namespace = Namespace::new();
        let mac = port.mac;
        let guest = namespace.run(move || {
            let tun = tap("eth0");
            let set = format!("ip link set lo up; ip link set eth0 address {mac} mtu 1450 up");
            assert_eq!(sh(&format!("{set}; sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1")), "");
            tun
        });
        let stop = Arc::new(AtomicBool::new(false));
        pump(host.try_clone().unwrap(), guest.try_clone().unwrap(), Arc::clone(&stop));
        pump(guest, host, Arc::clone(&stop));
        Self { namespace, stop }
    }

    /// Runs something as a program of the guest.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.namespace.run(work)
    }
    /// Runs a command in the guest.
    pub fn sh(&self, command: &str) -> String {
        let command = command.to_owned();
        self.run(move || sh(&command))
    }
    /// Gives it its address by hand.
    pub fn configure(&self, port: &PortSpec) {
        let text =
            format!("ip addr add {}/24 dev eth0 && ip route add default via 10.0.1.1", port.private_ip);
        assert_eq!(self.sh(&text), "");
    }
    /// Whether an address answers.
    pub fn pings(&self, address: &str) -> bool {
        self.sh(&format!("busybox ping -c 1 -W 1 {address} >/dev/null && echo yes")) == "yes\n"
    }
    /// GET or another request to the metadata service; status and body.
    pub fn metadata(&self, args: &str) -> (u16, String) {
        let text = self.sh(&format!("curl -s -m 3 -w '\\n%{{http_code}}' {args}"));
        let (body, status) = text.trim_end().rsplit_once('\n').unwrap_or(("", &text));
        (status.parse().unwrap_or(0), body.to_owned())
    }
}

/// A tap device of the calling thread's namespace.
fn tap(name: &str) -> File {
    let tun = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    let mut request = [0u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&0x1002u16.to_ne_bytes());
    // SAFETY: the argument is as large as an `ifreq` and outlives the call.
    let set = unsafe { nix::libc::ioctl(tun.as_raw_fd(), nix::libc::TUNSETIFF, request.as_ptr()) };
    assert_eq!(set, 0);
    tun
}

/// Carries frames one way until told to stop.
fn pump(mut from: File, mut to: File, stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let mut frame = [0u8; 65_536];
        while !stop.load(Ordering::Relaxed) {
            let mut ready = [PollFd::new(&from, PollFlags::IN)];
            let wait = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            if poll(&mut ready, Some(&wait)).unwrap_or(0) == 0 {
                continue;
            }
            // Either end may be down for a while; its frames are lost then, as on any wire.
            match from.read(&mut frame) {
                Ok(length) => drop(to.write(&frame[..length])),
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(10)),
            }
        }
    });
}
