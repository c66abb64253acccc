//! A switch that is killed and started again by its keeper, and a driver that comes and goes, under traffic: what was open
//! goes on, and what is forbidden never passes, not even while nobody has said yet what is allowed.
//!
//! Two guests with an open TCP connection, frame by frame, each numbered, so that a gap is measured to the millisecond and a
//! single lost frame is seen; and beside them, all the time, everything that the policy forbids. (The agent's own restarts, with
//! real TCP, are in its tests; here it is the driver and the compiled flows.)
#![allow(clippy::print_stdout, reason = "what was measured")]

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gon_driver::ovs::{Choice, Config, Datapath, Ovs, PortKind, PortSpec, Switch};
use gon_net::{FlowTable, Mirror, NodeFacts, compile, diff};
use gon_types::MacAddr;

use crate::namespace::KillAtEnd;
use crate::packets_lab::{PATIENCE, Wire, arp, checksum, datagram, ethernet, inside, ipv4};
use crate::topology::{Topology, allow, facts, ip, mac};

const BRIDGE: &str = "br-int";
/// Asks, is asked, and has the address of the one that is asked in another VPC.
const PORTS: [u16; 3] = [CLIENT, SERVER, STRANGER];
const CLIENT: u16 = 16;
const SERVER: u16 = 18;
const STRANGER: u16 = 20;
const ASKED: u16 = 5432;
const ASKING: u16 = 40_001;

/// The server may begin nothing, and be asked at one port by members of the client's group.
fn topology() -> Topology {
    Topology::new()
        .vpc(1, "10.0.0.0/16", false)
        .vpc(2, "10.0.0.0/16", false)
        .subnet(11, 1, "10.0.1.0/24", vec![])
        .subnet(21, 2, "10.0.1.0/24", vec![])
        .group(1, 1, vec![allow(1, "out all from 0.0.0.0/0")])
        .group(2, 1, vec![allow(2, "in tcp 5432 from sg 1")])
        .group(3, 2, vec![allow(3, "in all from 0.0.0.0/0"), allow(4, "out all from 0.0.0.0/0")])
        .port(CLIENT, 11, "10.0.1.10", &[1], None)
        .port(SERVER, 11, "10.0.1.12", &[2], None)
        .port(STRANGER, 21, "10.0.1.12", &[3], None)
}

fn flows(mirror: Mirror) -> FlowTable {
    let compiled = compile(&topology().doc, &NodeFacts { mirror, ..facts() });
    assert_eq!(compiled.degraded, []);
    compiled.flows
}

/// A namespace for the node, and one per guest with `eth0` on a wire to it, and nobody there who answers.
struct Spaces {
    node: String,
    guests: Vec<String>,
}

impl Spaces {
    fn new() -> Self {
        let node = format!("gonr{}", std::process::id());
        let guests: Vec<String> = PORTS.iter().map(|no| format!("{node}-{no}")).collect();
        let spaces = Self { node, guests };
        for name in spaces.names() {
            iproute(&format!("netns add {name}"));
        }
        let node = &spaces.node;
        iproute(&format!("-n {node} link set lo up"));
        for (no, guest) in PORTS.iter().zip(&spaces.guests) {
            iproute(&format!("link add v{no} netns {node} type veth peer name eth0 netns {guest}"));
            iproute(&format!("-n {node} link set v{no} arp off up"));
            iproute(&format!("-n {guest} link set eth0 arp off up"));
        }
        spaces
    }
    fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.node).chain(&self.guests)
    }
}
impl Drop for Spaces {
    fn drop(&mut self) {
        for name in self.names() {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn iproute(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

const SYN: u8 = 2;
const ACK: u8 = 16;
/// Where the numbers of both sides stand after the handshake, and stay: each frame looks like the first one sent again.
const CLIENT_AT: u32 = 1001;
const SERVER_AT: u32 = 5001;

/// A TCP packet, with its checksum: without, connection tracking would not look at it.
fn tcp(
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    numbers: (u32, u32),
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut segment = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    segment.extend([numbers.0.to_be_bytes(), numbers.1.to_be_bytes()].concat());
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    let length = u16::try_from(segment.len()).unwrap().to_be_bytes();
    let pseudo = [&from.0.octets()[..], &to.0.octets(), &[0, 6], &length, &segment].concat();
    segment[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    ipv4(from.0, to.0, 6, &segment)
}

fn client() -> (Ipv4Addr, u16) {
    (ip("10.0.1.10"), ASKING)
}
fn server() -> (Ipv4Addr, u16) {
    (ip("10.0.1.12"), ASKED)
}

/// Of the open connection.
const OPEN: u8 = 1;
/// Forbidden.
const SHUT: u8 = 2;
const MARK: &[u8] = b"gon-tick";

fn mark(kind: u8, from: u16, number: usize) -> Vec<u8> {
    let number = u32::try_from(number).unwrap().to_be_bytes();
    [MARK, &[kind], &from.to_be_bytes(), &number].concat()
}

/// What no rule allows, in either direction, with or without an open connection beside it: who sends it, and what. (A
/// segment without SYN from the server's own port is not among them: once the switch has lost its memory, it may be an answer.)
fn forbidden() -> Vec<(&'static str, u16, Vec<u8>)> {
    let mut all: Vec<(&'static str, u16, Vec<u8>)> = vec![];
    let mut add = |name, from, frame: &dyn Fn(&[u8]) -> Vec<u8>| {
        let text = mark(SHUT, from, all.len());
        all.push((name, from, frame(&text)));
    };
    let (c, s) = (client(), server());
    let there = |packet: &[u8]| ethernet(mac(SERVER), mac(CLIENT), 0x0800, packet);
    let back = |packet: &[u8]| ethernet(mac(CLIENT), mac(SERVER), 0x0800, packet);
    let ping = |text: &[u8]| {
        let mut message = [&[8, 0, 0, 0, 0, 1, 0, 1], text].concat();
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        message
    };
    let to_all = MacAddr([0xff; 6]);
    add("the server begins with UDP", SERVER, &|m| back(&ipv4(s.0, c.0, 17, &datagram(9, 9, m))));
    add("UDP at the ports of the connection", SERVER, &|m| {
        back(&ipv4(s.0, c.0, 17, &datagram(ASKED, ASKING, m)))
    });
    add("the server begins with TCP", SERVER, &|m| back(&tcp((s.0, 6000), (c.0, 22), (1, 0), SYN, m)));
    add("from its port", SERVER, &|m| back(&tcp(s, (c.0, 40_009), (1, 0), SYN, m)));
    add("an answer from another port", SERVER, &|m| back(&tcp((s.0, 5433), c, (1, 1), ACK, m)));
    add("the server pings", SERVER, &|m| back(&ipv4(s.0, c.0, 1, &ping(m))));
    add("TCP to another port", CLIENT, &|m| there(&tcp((c.0, 40_002), (s.0, 5433), (1, 0), SYN, m)));
    add("data to another port", CLIENT, &|m| there(&tcp((c.0, 40_003), (s.0, 5433), (1, 1), ACK, m)));
    add("UDP to the port", CLIENT, &|m| there(&ipv4(c.0, s.0, 17, &datagram(ASKING, ASKED, m))));
    add("the client pings", CLIENT, &|m| there(&ipv4(c.0, s.0, 1, &ping(m))));
    add("a forged address", CLIENT, &|m| there(&tcp((ip("10.0.1.11"), ASKING), s, (1, 0), SYN, m)));
    add("a forged MAC", CLIENT, &|m| {
        ethernet(mac(SERVER), mac(17), 0x0800, &tcp((c.0, 40_004), s, (1, 0), SYN, m))
    });
    add("broadcast", CLIENT, &|m| {
        ethernet(to_all, mac(CLIENT), 0x0800, &ipv4(c.0, s.0, 17, &datagram(9, 9, m)))
    });
    add("to the other VPC", CLIENT, &|m| {
        ethernet(mac(STRANGER), mac(CLIENT), 0x0800, &tcp((c.0, 40_005), s, (1, 0), SYN, m))
    });
    for (name, flags) in [("the other VPC begins", SYN), ("the other VPC answers", ACK)] {
        add(name, STRANGER, &|m| {
            let packet = tcp(s, c, (SERVER_AT, CLIENT_AT), flags, m);
            ethernet(mac(CLIENT), mac(STRANGER), 0x0800, &packet)
        });
    }
    add("an unasked answer", SERVER, &|m| {
        let answer = arp(2, (mac(SERVER), ip("10.0.1.1")), (mac(CLIENT), c.0));
        ethernet(mac(CLIENT), mac(SERVER), 0x0806, &[&answer[..], m].concat())
    });
    add("IPv6", SERVER, &|m| ethernet(to_all, mac(SERVER), 0x86dd, &[&[0x60; 40][..], m].concat()));
    add("a DHCP offer", SERVER, &|m| {
        ethernet(to_all, mac(SERVER), 0x0800, &ipv4(s.0, ip("255.255.255.255"), 17, &datagram(67, 68, m)))
    });
    add("tagged", SERVER, &|m| {
        let inner = ipv4(s.0, c.0, 17, &datagram(9, 9, m));
        ethernet(mac(CLIENT), mac(SERVER), 0x8100, &[&[0, 1, 8, 0][..], &inner].concat())
    });
    all
}

/// What arrived.
#[derive(Default)]
struct Heard {
    /// Of the connection: who sent it, its number, when.
    open: Vec<(u16, usize, Instant)>,
    /// Of what is forbidden: which, at whom, when.
    shut: Vec<(usize, u16, Instant)>,
}

/// Says who sends.
const CLIENT_SENDS: u8 = 1;
const SERVER_SENDS: u8 = 2;
const INTRUDERS_SEND: u8 = 4;
const EVERYBODY: u8 = CLIENT_SENDS | SERVER_SENDS | INTRUDERS_SEND;

/// The traffic, by threads, until it is dropped.
struct Traffic {
    stop: Arc<AtomicBool>,
    who: Arc<AtomicU8>,
    /// When each number was sent.
    sent: Arc<Mutex<Vec<Instant>>>,
    heard: Arc<Mutex<Heard>>,
    threads: Vec<JoinHandle<()>>,
}
impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Traffic {
    fn start(guests: &[String]) -> Self {
        let (stop, who) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU8::new(EVERYBODY)));
        let (sent, heard) = (Arc::<Mutex<Vec<Instant>>>::default(), Arc::<Mutex<Heard>>::default());
        let mut threads = vec![];
        for (no, guest) in PORTS.into_iter().zip(guests) {
            let (mut wire, stop, heard) = (Wire::tap(guest), Arc::clone(&stop), Arc::clone(&heard));
            threads.push(std::thread::spawn(move || {
                let listen = |frame: &[u8]| {
                    hear(no, frame, &heard);
                    false
                };
                while !stop.load(Ordering::Relaxed) {
                    wire.wait(Duration::from_millis(20), listen);
                }
            }));
        }
        let mut wires: Vec<Wire> = guests.iter().map(|guest| Wire::tap(guest)).collect();
        let (stopped, sending, times) = (Arc::clone(&stop), Arc::clone(&who), Arc::clone(&sent));
        threads.push(std::thread::spawn(move || {
            let intruders = forbidden();
            for n in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let who = sending.load(Ordering::Relaxed);
                times.lock().unwrap().push(Instant::now());
                if who & CLIENT_SENDS != 0 {
                    let packet = tcp(client(), server(), (CLIENT_AT, SERVER_AT), ACK, &mark(OPEN, CLIENT, n));
                    wires[0].send(&ethernet(mac(SERVER), mac(CLIENT), 0x0800, &packet));
                }
                if who & SERVER_SENDS != 0 {
                    let packet = tcp(server(), client(), (SERVER_AT, CLIENT_AT), ACK, &mark(OPEN, SERVER, n));
                    wires[1].send(&ethernet(mac(CLIENT), mac(SERVER), 0x0800, &packet));
                }
                if who & INTRUDERS_SEND != 0 {
                    let (_, from, frame) = &intruders[n % intruders.len()];
                    wires[PORTS.iter().position(|no| no == from).unwrap()].send(frame);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }));
        Self { stop, who, sent, heard, threads }
    }

    fn let_send(&self, who: u8) {
        self.who.store(who, Ordering::Relaxed);
    }
    /// The number of the next frames.
    fn number(&self) -> usize {
        self.sent.lock().unwrap().len()
    }
    /// Whether one of this sender's frames has arrived that was sent from this number on.
    fn passes(&self, from: u16, since: usize) -> bool {
        self.heard.lock().unwrap().open.iter().any(|(who, n, _)| *who == from && *n >= since)
    }
    async fn until_passes(&self, from: u16) {
        let (since, begun) = (self.number(), Instant::now());
        while !self.passes(from, since) {
            assert!(begun.elapsed() < PATIENCE, "nothing of {from} passes");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    /// The longest time since then in which nothing of this sender arrived.
    fn gap(&self, from: u16, since: Instant) -> Duration {
        let heard = self.heard.lock().unwrap();
        let times: Vec<Instant> = heard.open.iter().filter(|(who, ..)| *who == from).map(|o| o.2).collect();
        let pairs = times.windows(2).filter(|pair| pair[1] > since);
        pairs.map(|pair| pair[1] - pair[0]).max().unwrap()
    }
    /// What has passed that never may.
    fn broken_rules(&self) -> Vec<String> {
        let all = forbidden();
        let heard = self.heard.lock().unwrap();
        let mut text: Vec<String> =
            heard.shut.iter().map(|(n, at, _)| format!("{} at {at}", all[*n].0)).collect();
        text.sort();
        text.dedup();
        text
    }
}

fn hear(at: u16, frame: &[u8], heard: &Mutex<Heard>) {
    let Some(place) = frame.windows(MARK.len()).position(|w| w == MARK) else { return };
    let Some(&[kind, a, b, c, d, e, f]) = frame[place..].get(MARK.len()..MARK.len() + 7) else { return };
    let (from, number) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]));
    // What is sent here is heard here, too.
    if from == at {
        return;
    }
    let (number, now) = (usize::try_from(number).unwrap(), Instant::now());
    let mut heard = heard.lock().unwrap();
    if kind == OPEN { heard.open.push((from, number, now)) } else { heard.shut.push((number, at, now)) }
}

async fn connect(ovs: &Ovs) -> Switch {
    let begun = Instant::now();
    loop {
        match Switch::connect(&ovs.bridge_socket(BRIDGE)).await {
            Ok(switch) => return switch,
            Err(error) => assert!(begun.elapsed() < PATIENCE * 2, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn installed(switch: &Switch) -> FlowTable {
    let flows = switch.flows(0, 0).await.unwrap();
    FlowTable::from_flows(flows.into_iter().map(|f| f.flow.unwrap()).collect())
}

/// Makes the switch have these flows; how many changes that took.
async fn settle(switch: &Switch, flows: &FlowTable) -> usize {
    let before = installed(switch).await;
    let changes = diff(&before, flows);
    switch.apply(&changes).await.unwrap();
    assert!(installed(switch).await == *flows);
    changes.len()
}

async fn kill(ovs: &Ovs) -> Instant {
    let process = ovs.switch_process().await.unwrap();
    let killed = Instant::now();
    assert!(process.kill().await.unwrap());
    killed
}

async fn adopt(config: &Config) -> Ovs {
    let ovs = Ovs::connect_or_start(config, BRIDGE).await.unwrap();
    let ports = PORTS.map(|no| PortSpec {
        name: format!("v{no}"),
        ofport: no.into(),
        kind: PortKind::System,
        mtu: None,
        mac: None,
    });
    let ports = ovs.database().ensure_ports(BRIDGE, &ports).await.unwrap();
    assert!(ports.iter().all(|port| port.error.is_none()), "{ports:?}");
    ovs
}

/// The handshake, by hand.
fn shake_hands(guests: &[String]) {
    let mut wires = [0, 1].map(|n: usize| Wire::tap(&guests[n]));
    let (c, s) = (client(), server());
    let steps = [
        (0, tcp(c, s, (CLIENT_AT - 1, 0), SYN, &[])),
        (1, tcp(s, c, (SERVER_AT - 1, CLIENT_AT), SYN | ACK, &[])),
        (0, tcp(c, s, (CLIENT_AT, SERVER_AT), ACK, &[])),
    ];
    for (who, packet) in steps {
        let (to, from) = if who == 0 { (SERVER, CLIENT) } else { (CLIENT, SERVER) };
        let frame = ethernet(mac(to), mac(from), 0x0800, &packet);
        wires[who].send(&frame);
        let arrives = |heard: &[u8]| heard.starts_with(&frame);
        assert!(wires[1 - who].wait(PATIENCE, arrives).is_some(), "step {who}");
    }
}

#[test]
fn a_switch_that_dies_opens_nothing_and_what_was_open_goes_on() {
    let spaces = Spaces::new();
    let guests = spaces.guests.clone();
    inside(&spaces.node, move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(restarts(&guests));
    });
}

async fn restarts(guests: &[String]) {
    let dir = tempfile::tempdir().unwrap();
    let config =
        Config { dir: dir.path().join("ovs"), choice: Choice::Private, datapath: Some(Datapath::Netdev) };
    let mut ovs = adopt(&config).await;
    let mut end = KillAtEnd(ovs.own_processes().await);
    let mut switch = connect(&ovs).await;
    let (off, accepting) = (flows(Mirror::Off), flows(Mirror::Accepting));
    settle(&switch, &off).await;
    ovs.release().await.unwrap();
    shake_hands(guests);
    let traffic = Traffic::start(guests);
    for from in [CLIENT, SERVER] {
        traffic.until_passes(from).await;
    }

    // The driver goes and comes, with all it has open, and finds what it left: nothing to do, and no frame lost.
    traffic.let_send(CLIENT_SENDS | SERVER_SENDS);
    let first = traffic.number() + 1;
    for _ in 0..5 {
        drop((switch, ovs));
        tokio::time::sleep(Duration::from_millis(20)).await;
        ovs = adopt(&config).await;
        switch = connect(&ovs).await;
        assert_eq!(settle(&switch, &flows(Mirror::Off)).await, 0);
        ovs.release().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let last = traffic.number();
    traffic.until_passes(CLIENT).await;
    traffic.until_passes(SERVER).await;
    for from in [CLIENT, SERVER] {
        let heard = traffic.heard.lock().unwrap();
        let arrived = |n| heard.open.iter().any(|(who, number, _)| *who == from && *number == n);
        let lost: Vec<usize> = (first..last).filter(|n| !arrived(*n)).collect();
        assert!(lost.is_empty(), "of {first} to {last}, {lost:?} of {from} are lost");
    }
    println!("five restarts of the driver: {} frames, none lost", 2 * (last - first));

    // The switch is killed, and its keeper starts it: it waits for its flows, however long. Only the server sends of the
    // connection from now on.
    traffic.let_send(SERVER_SENDS | INTRUDERS_SEND);
    kill(&ovs).await;
    drop(switch);
    ovs.heal().await.unwrap();
    end.0.extend(ovs.own_processes().await);
    switch = connect(&ovs).await;
    assert!(installed(&switch).await == FlowTable::default(), "it has lost them all");
    let (without, waiting) = (traffic.number(), Instant::now());
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(!traffic.passes(SERVER, without), "it passes packets before it has flows");
    assert_eq!(settle(&switch, &off).await, off.len());
    ovs.release().await.unwrap();
    // Nothing but the memory of the connection allows what the server sends, and the switch has lost that, too.
    let forgotten = traffic.number();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!traffic.passes(SERVER, forgotten), "it would have passed without a connection");
    // What is to be done about that is a small difference.
    let changes = settle(&switch, &accepting).await;
    assert!(changes > 0 && changes < 40, "{changes} changes");
    traffic.until_passes(SERVER).await;
    println!("waited for flows, then for the memory: {:?} and {changes} changes", waiting.elapsed());
    assert_eq!(traffic.broken_rules(), Vec::<String>::new());

    // And as an agent does it, at once, both sides sending.
    traffic.let_send(EVERYBODY);
    traffic.until_passes(CLIENT).await;
    for round in 1..=3 {
        let killed = kill(&ovs).await;
        drop(switch);
        ovs.heal().await.unwrap();
        switch = connect(&ovs).await;
        assert_eq!(settle(&switch, &accepting).await, accepting.len());
        ovs.release().await.unwrap();
        let back = killed.elapsed();
        end.0.extend(ovs.own_processes().await);
        for from in [CLIENT, SERVER] {
            traffic.until_passes(from).await;
        }
        let [there, again] = [CLIENT, SERVER].map(|from| traffic.gap(from, killed));
        println!("kill {round}: flows back after {back:?}, gaps of {there:?} and {again:?}");
    }
    assert_eq!(traffic.broken_rules(), Vec::<String>::new());

    // The test of the test: a switch that does not wait, on a bridge that is open without flows.
    ovs.database().configure(&[("flow-restore-wait", Some("false"))]).await.unwrap();
    let database = format!("--db=unix:{}", ovs.run_dir().join("db.sock").display());
    let open = ["--timeout=10", "set-fail-mode", BRIDGE, "standalone"];
    assert!(Command::new("ovs-vsctl").arg(database).args(open).status().unwrap().success());
    kill(&ovs).await;
    drop(switch);
    let begun = Instant::now();
    while traffic.broken_rules().len() < 5 {
        assert!(begun.elapsed() < PATIENCE, "{:?}", traffic.broken_rules());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("a switch that does not wait: {:?}", traffic.broken_rules());
    drop(traffic);
    ovs.heal().await.unwrap();
    end.0.extend(ovs.own_processes().await);
    ovs.tear_down(BRIDGE).await.unwrap();
    assert!(!end.0.iter().any(gon_driver::run::Pid::is_alive));
}
