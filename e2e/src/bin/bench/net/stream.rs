//! Packets between two guests: a stream of numbered ones, and as many bytes as TCP carries.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use e2e::{Namespace, wait};

use super::document::MTU;

/// A guest without a machine: a namespace at the other end of a port's device.
#[derive(Debug)]
pub struct Guest {
    pub inside: Namespace,
    pub address: Ipv4Addr,
}

impl Guest {
    /// Makes `device` in the namespace of a node, as a veth whose other end is a guest's `eth0`.
    pub fn plug(node: &Namespace, device: &str, as_what: &Nic<'_>) -> anyhow::Result<Self> {
        let Nic { namespace, mac, address, prefix, router, offloads, of_agent } = as_what;
        let inside = Namespace::create(namespace)?;
        let name = inside.name();
        node.check(&["ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", name])?;
        let (mtu, group) = (MTU.to_string(), gon_driver::netlink::GROUP.to_string());
        // As taps of ours are: speaking neither IPv6 nor ARP for the host, known by their group. The agent then takes it for
        // a tap that it has made, and sets it up itself.
        node.check(&["sysctl", "-qw", &format!("net.ipv6.conf.{device}.disable_ipv6=1")])?;
        node.check(&["ip", "link", "set", device, "mtu", &mtu, "arp", "off"])?;
        if *of_agent {
            node.check(&["ip", "link", "set", device, "group", &group])?;
        } else {
            node.check(&["ip", "link", "set", device, "up"])?;
        }
        inside.check(&["sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1"])?;
        if !offloads {
            // Without TSO the userspace datapath finishes no checksums.
            inside
                .check(&["ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "off"])?;
        }
        if let Some(mac) = mac {
            inside.check(&["ip", "link", "set", "eth0", "address", mac])?;
        }
        inside.check(&["ip", "link", "set", "eth0", "mtu", &mtu, "up"])?;
        inside.check(&["ip", "address", "add", &format!("{address}/{prefix}"), "dev", "eth0"])?;
        if let Some(router) = router {
            inside.check(&["ip", "route", "add", "default", "via", &router.to_string()])?;
        }
        Ok(Self { inside, address: *address })
    }
}

/// What a guest's interface is.
#[derive(Debug)]
pub struct Nic<'a> {
    /// The name of the guest's namespace.
    pub namespace: &'a str,
    pub mac: Option<&'a str>,
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub router: Option<Ipv4Addr>,
    /// Whether the guest leaves checksums and segments to the switch.
    pub offloads: bool,
    /// Whether the other end is the network agent's.
    pub of_agent: bool,
}

/// When each packet was sent, and when it arrived.
#[derive(Debug, Default)]
struct Seen(Vec<(Instant, Option<Instant>)>);

/// A stream of UDP packets.
#[derive(Debug)]
pub struct Stream {
    seen: Arc<Mutex<Seen>>,
    end: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream {
    /// A packet whenever so much time has passed.
    pub fn start(from: &Guest, to: &Guest, port: u16, every: Duration) -> anyhow::Result<Self> {
        let receiver = to.inside.enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?))?;
        receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
        let to = SocketAddr::from((to.address, port));
        let sender = from.inside.enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let end = Arc::new(AtomicBool::new(false));
        let sending = {
            let (seen, end) = (Arc::clone(&seen), Arc::clone(&end));
            std::thread::spawn(move || {
                let mut due = Instant::now();
                while !end.load(Ordering::Relaxed) {
                    let number = {
                        let mut seen = lock(&seen);
                        seen.0.push((Instant::now(), None));
                        seen.0.len() as u64 - 1
                    };
                    let _ = sender.send_to(&number.to_be_bytes(), to);
                    due += every;
                    let now = Instant::now();
                    // Whoever was held up does not make up for it.
                    due = due.max(now);
                    std::thread::sleep(due - now);
                }
            })
        };
        let receiving = {
            let (seen, end) = (Arc::clone(&seen), Arc::clone(&end));
            std::thread::spawn(move || {
                let mut number = [0; 8];
                while !end.load(Ordering::Relaxed) {
                    if receiver.recv(&mut number).is_err() {
                        continue;
                    }
                    let now = Instant::now();
                    let index = usize::try_from(u64::from_be_bytes(number)).unwrap_or(usize::MAX);
                    if let Some((_, arrived)) = lock(&seen).0.get_mut(index) {
                        *arrived = Some(now);
                    }
                }
            })
        };
        Ok(Self { seen, end, threads: vec![sending, receiving] })
    }

    /// Waits until packets pass, or until none does.
    pub fn becomes(&self, passes: bool, deadline: Duration) -> anyhow::Result<()> {
        let settled = || {
            let now = Instant::now();
            let seen = lock(&self.seen);
            let age = |sent: &Instant| now.saturating_duration_since(*sent).as_millis();
            // Those on their way do not count yet.
            let recent = seen.0.iter().rev().skip_while(|(sent, _)| age(sent) < 20);
            let recent: Vec<bool> = recent
                .take_while(|(sent, _)| age(sent) < 120)
                .map(|(_, arrived)| arrived.is_some())
                .collect();
            let arrived = recent.iter().filter(|a| **a).count();
            Ok(recent.len() > 20 && if passes { arrived * 10 >= recent.len() * 9 } else { arrived == 0 })
        };
        wait::holds("the stream of packets settles", deadline, settled)?;
        Ok(())
    }

    /// When the first packet arrived that was sent since then.
    pub fn first(&self, since: Instant) -> Option<Instant> {
        lock(&self.seen).0.iter().filter(|(sent, _)| *sent >= since).find_map(|(_, arrived)| *arrived)
    }
    /// When the last packet arrived.
    pub fn last(&self) -> Option<Instant> {
        lock(&self.seen).0.iter().filter_map(|(_, arrived)| *arrived).max()
    }
    /// How many of those sent in that time were lost.
    pub fn lost(&self, from: Instant, to: Instant) -> usize {
        let seen = lock(&self.seen);
        seen.0.iter().filter(|(sent, arrived)| (from..to).contains(sent) && arrived.is_none()).count()
    }
}

/// Gbit/s that one TCP connection carries, the first moments left out.
pub fn throughput(from: &Guest, to: &Guest, port: u16, time: Duration) -> anyhow::Result<f64> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let listener = to.inside.enter(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?))?;
    let server = SocketAddr::from((to.address, port));
    let mut sender = from.inside.enter(|| Ok(TcpStream::connect_timeout(&server, PATIENCE)?))?;
    sender.set_write_timeout(Some(PATIENCE))?;
    let (mut receiver, _) = listener.accept()?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let (bytes, end) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let block = vec![0_u8; 128 << 10];
            while !end.load(Ordering::Relaxed) {
                sender.write_all(&block)?;
            }
            sender.shutdown(std::net::Shutdown::Write)
        });
        let receiving = scope.spawn(|| -> std::io::Result<()> {
            let mut block = vec![0_u8; 256 << 10];
            loop {
                match receiver.read(&mut block)? {
                    0 => return Ok(()),
                    length => bytes.fetch_add(length as u64, Ordering::Relaxed),
                };
            }
        });
        std::thread::sleep(Duration::from_millis(500));
        let (before, begun) = (bytes.load(Ordering::Relaxed), Instant::now());
        std::thread::sleep(time);
        let (after, took) = (bytes.load(Ordering::Relaxed), begun.elapsed());
        end.store(true, Ordering::Relaxed);
        sending.join().ok().context("the sender panicked")?.context("sending")?;
        receiving.join().ok().context("the receiver panicked")?.context("receiving")?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        Ok((after - before) as f64 * 8e-9 / took.as_secs_f64())
    })
}
