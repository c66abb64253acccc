//! A rule change, from the API call to the wire: an echo request every millisecond, and which of them were let through.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use e2e::topology::Network;
use e2e::wait;
use e2e::world::World;
use e2e::{Cloud, Host};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recvmsg, sendmsg, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::report::{Report, Spread, Target, percentile};

const CHANGES: usize = 60;
const EVERY: Duration = Duration::from_millis(1);
const IDENTIFIER: u16 = 0x6f6e;

/// When each request was sent, and whether it was answered.
#[derive(Debug, Default)]
struct Seen {
    sent: Vec<Instant>,
    answered: Vec<bool>,
}

struct Stream {
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

impl Stream {
    fn start(world: &World, to: Ipv4Addr) -> anyhow::Result<Self> {
        let fd: Arc<OwnedFd> = Arc::new(world.inside().enter(|| {
            Ok(socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)?)
        })?);
        setsockopt(&*fd, sockopt::ReceiveTimeout, &TimeVal::new(0, 100_000))?;
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let end = Arc::new(AtomicBool::new(false));
        let sender = {
            let (fd, seen, end) = (fd.clone(), seen.clone(), end.clone());
            let address = SockaddrIn::from(SocketAddrV4::new(to, 0));
            std::thread::spawn(move || {
                let mut due = Instant::now();
                while !end.load(Ordering::Relaxed) {
                    let number = {
                        let Ok(mut seen) = seen.lock() else { return };
                        seen.sent.push(Instant::now());
                        seen.answered.push(false);
                        seen.sent.len() - 1
                    };
                    let request = echo_request(number as u64);
                    let _ = sendmsg(
                        fd.as_raw_fd(),
                        &[IoSlice::new(&request)],
                        &[],
                        MsgFlags::empty(),
                        Some(&address),
                    );
                    due += EVERY;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
            })
        };
        let receiver = {
            let (seen, end) = (seen.clone(), end.clone());
            std::thread::spawn(move || {
                let mut buffer = [0_u8; 256];
                while !end.load(Ordering::Relaxed) {
                    let mut slices = [IoSliceMut::new(&mut buffer)];
                    let got = recvmsg::<SockaddrIn>(fd.as_raw_fd(), &mut slices, None, MsgFlags::empty());
                    let Ok(length) = got.map(|m| m.bytes) else { continue };
                    if let Some(number) = echo_reply(&buffer[..length])
                        && let Ok(mut seen) = seen.lock()
                        && let Some(answered) = seen.answered.get_mut(number)
                    {
                        *answered = true;
                    }
                }
            })
        };
        Ok(Self { seen, end, threads: vec![sender, receiver] })
    }

    fn look<T>(&self, at: impl FnOnce(&Seen) -> T) -> anyhow::Result<T> {
        Ok(at(&*self.seen.lock().map_err(|_| anyhow!("the stream panicked"))?))
    }

    /// Whether the latest requests, those sent between 20 and 120 ms ago, were answered: all, none, or some.
    fn passes(&self) -> anyhow::Result<Option<bool>> {
        let now = Instant::now();
        self.look(|seen| {
            let window = seen.sent.iter().zip(&seen.answered).rev().filter_map(|(sent, answered)| {
                let age = now.saturating_duration_since(*sent);
                (age > Duration::from_millis(20)).then_some((age, *answered))
            });
            let recent: Vec<bool> =
                window.take_while(|(age, _)| *age < Duration::from_millis(120)).map(|(_, a)| a).collect();
            match recent.iter().filter(|a| **a).count() {
                0 if recent.len() > 40 => Some(false),
                n if recent.len() > 40 && n * 10 >= recent.len() * 9 => Some(true),
                _ => None,
            }
        })
    }

    /// Waits until requests pass, or do not.
    fn becomes(&self, passes: bool) -> anyhow::Result<()> {
        wait::holds("the stream of echo requests settles", Duration::from_secs(10), || {
            Ok(self.passes()? == Some(passes))
        })?;
        Ok(())
    }

    /// Milliseconds from `start` until the change of which it was the start was in force: when the first request was
    /// sent that was treated in the new way, as were all after it.
    fn enforced(&self, start: Instant, passes: bool) -> anyhow::Result<f64> {
        self.look(|seen| {
            let first = if passes {
                seen.sent.iter().zip(&seen.answered).position(|(sent, answered)| *sent >= start && *answered)
            } else {
                let last = seen.answered.iter().rposition(|answered| *answered);
                last.map(|index| index + 1)
            };
            let sent = first.and_then(|index| seen.sent.get(index)).context("a request after the change")?;
            Ok(sent.saturating_duration_since(start).as_secs_f64() * 1e3)
        })?
    }
}

/// ICMP echo request (RFC 792) with a number in it.
fn echo_request(number: u64) -> [u8; 16] {
    let mut packet = [0_u8; 16];
    packet[0] = 8;
    packet[4..6].copy_from_slice(&IDENTIFIER.to_be_bytes());
    packet[6..8].copy_from_slice(&number.to_be_bytes()[6..8]);
    packet[8..16].copy_from_slice(&number.to_be_bytes());
    let mut sum: u32 = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap_or_default();
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The number in an echo reply of ours, with its IP header as raw sockets give it.
fn echo_reply(packet: &[u8]) -> Option<usize> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let icmp = packet.get(header..header + 16)?;
    let ours = icmp[0] == 0 && icmp[4..6] == IDENTIFIER.to_be_bytes();
    let number = u64::from_be_bytes(icmp[8..16].try_into().ok()?);
    ours.then_some(usize::try_from(number).ok()?)
}

pub fn measure(world: &World, report: &mut Report) -> anyhow::Result<()> {
    let api = world.api();
    let network = Network::build(api, "rules", "10.0.0.0/16", "10.0.1.0/24", true)?;
    let (_, mut rule) = network.open(api)?;
    let instance = network.run(world, "rules")?;
    instance.shell(world)?;
    let stream = Stream::start(world, instance.public()?)?;
    stream.becomes(true)?;
    let (mut grants, mut revokes, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for change in 0..CHANGES {
        // Not in step with any timer of anybody.
        std::thread::sleep(Duration::from_micros(20_000 + (change as u64 * 7_919) % 30_000));
        let start = Instant::now();
        network.forbid(api, &rule)?;
        calls.push(start.elapsed().as_secs_f64() * 1e3);
        stream.becomes(false)?;
        revokes.push(stream.enforced(start, false)?);

        std::thread::sleep(Duration::from_micros(20_000 + (change as u64 * 6_101) % 30_000));
        let start = Instant::now();
        rule = network.allow(api, "icmp", "all", "0.0.0.0/0")?;
        calls.push(start.elapsed().as_secs_f64() * 1e3);
        stream.becomes(true)?;
        grants.push(stream.enforced(start, true)?);
    }
    calls.sort_by(f64::total_cmp);
    report.add("rule change: the API call, p50", "ms", one(percentile(&calls, 0.5)), None, Target::None);
    for (name, mut times) in [("granted", grants), ("revoked, open flow cut", revokes)] {
        times.sort_by(f64::total_cmp);
        let what = |q: &str| format!("rule {name}: API call → on the wire, {q}");
        report.add(&what("p50"), "ms", one(percentile(&times, 0.5)), None, Target::AtMost(20.0));
        report.add(&what("p99"), "ms", one(percentile(&times, 0.99)), None, Target::AtMost(100.0));
    }
    Ok(())
}

fn one(value: f64) -> Spread {
    Spread { median: value, min: value, max: value }
}
