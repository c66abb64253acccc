//! A host in miniature for packet tests: a network namespace with a private Open vSwitch (userspace datapath) and the
//! two internal ports of a node, one namespace per guest, and one for the world beyond the host.
//!
//! Everything is named after the process and goes away with the lab: daemons by pid, namespaces by name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gon_net::pipeline::Stage;
use gon_net::{Compiled, Mirror, NodeFacts, compile, diff, service};
use gon_types::MacAddr;
use nix::libc;

use crate::flows::Session;
use crate::topology::{EXT_MAC, META_MAC, Topology, facts, facts_of, mac, underlay};

/// How long something that must not arrive is waited for.
pub const SILENCE: Duration = Duration::from_millis(250);
/// How long something that must arrive may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A host, its switch, and its guests.
pub struct Lab {
    name: String,
    dir: tempfile::TempDir,
    daemons: Vec<Child>,
    namespaces: Vec<String>,
    session: Option<Session>,
    bundles: u32,
    installed: Compiled,
    facts: NodeFacts,
    /// Of guests.
    mtu: u16,
}

/// A wire between nodes: a namespace with a bridge.
pub struct Fabric {
    name: String,
    namespaces: Vec<String>,
}

impl Fabric {
    pub fn new() -> Self {
        let name = format!("gonf{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "add", "fab0", "type", "bridge"]);
        run("ip", &["-n", &name, "link", "set", "fab0", "up"]);
        Self { namespaces: vec![name.clone()], name }
    }
    /// Gives a namespace an `eth0` on the wire.
    pub fn join(&self, port: &str, ns: &str) {
        cable(&self.name, port, ns);
        run("ip", &["-n", &self.name, "link", "set", port, "master", "fab0"]);
        run("ip", &["-n", &self.name, "link", "set", port, "up"]);
        run("ip", &["-n", ns, "link", "set", "eth0", "up"]);
    }
    /// A stranger on the wire, with an address there.
    pub fn neighbour(&mut self, role: &str, address: &str) -> String {
        let name = format!("{}-{role}", self.name);
        run("ip", &["netns", "add", &name]);
        self.namespaces.push(name.clone());
        self.join(role, &name);
        add_address(&name, "eth0", address);
        name
    }
}
impl Drop for Fabric {
    fn drop(&mut self) {
        for name in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Cookie of planted flows; no compiled flow has it.
const WEED: &str = "0xbadbadbad";

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// The host with its switch, no guests yet, and the flows of the topology; a guest for each of its ports.
    pub fn new(topology: &Topology) -> Self {
        Self::with(topology, facts(), None)
    }
    /// Node `n` of several on a wire: its share of a topology, see [`Topology::on_node`].
    pub fn node(topology: &Topology, n: u32, fabric: &Fabric) -> Self {
        Self::with(topology, facts_of(n), Some((n, fabric)))
    }
    fn with(topology: &Topology, facts: NodeFacts, wire: Option<(u32, &Fabric)>) -> Self {
        let name = format!("gonp{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix("gon-packets-").tempdir_in("/tmp").unwrap();
        let mut lab = Self {
            name,
            dir,
            daemons: vec![],
            namespaces: vec![],
            session: None,
            bundles: 0,
            installed: Compiled::default(),
            facts,
            mtu: if wire.is_some() { 1500 - service::TUNNEL_OVERHEAD } else { 1500 },
        };
        lab.add_namespace("host");
        lab.start_switch();
        if let Some((n, fabric)) = wire {
            lab.join(n, fabric);
        }
        for port in &topology.doc.ports {
            lab.plug(port.port_no, port.private_ip);
        }
        lab.apply(topology, Mirror::Off);
        lab
    }

    /// A namespace's name.
    pub fn ns(&self, role: &str) -> String {
        format!("{}-{role}", self.name)
    }
    pub fn guest(&self, no: u16) -> String {
        self.ns(&format!("g{no}"))
    }
    pub fn host(&self) -> String {
        self.ns("host")
    }

    fn add_namespace(&mut self, role: &str) -> String {
        let name = self.ns(role);
        run("ip", &["netns", "add", &name]);
        self.namespaces.push(name.clone());
        inside(&name, || {
            for scope in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
                // A kernel without IPv6 is as good.
                let _ = std::fs::write(path, "1");
            }
        });
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        name
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
    fn spawn(&mut self, program: &str, args: &[&str]) {
        let host = self.host();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &host, program]).args(args);
        let dir = self.dir.path();
        command
            .env("OVS_RUNDIR", dir)
            .env("OVS_LOGDIR", dir)
            .env("OVS_DBDIR", dir)
            .env("OVS_SYSCONFDIR", dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.daemons.push(command.spawn().unwrap());
    }
    fn wait_for(&self, name: &str) {
        let deadline = Instant::now() + PATIENCE * 4;
        while !Path::new(&self.path(name)).exists() {
            assert!(Instant::now() < deadline, "{name} did not appear");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    fn vsctl(&self, args: &[&str]) -> String {
        let database = format!("--db=unix:{}", self.path("db.sock"));
        run("ovs-vsctl", &[&[&*database, "--timeout=20"], args].concat())
    }
    /// What `ovs-ofctl` or `ovs-appctl` says, for failures that need an explanation.
    pub fn flows(&self) -> String {
        let bridge = format!("unix:{}", self.path("br-int.mgmt"));
        run("ovs-ofctl", &["-O", "OpenFlow14", "dump-flows", &bridge])
    }

    /// Plants a bug: the flow of a stage in which all these words occur, with some of its words changed, above all others. It is
    /// pulled out again by [`Lab::weed`].
    pub fn plant(&self, stage: Stage, words: &[&str], change: impl Fn(&str) -> String) {
        let table = format!("table={}, ", stage.table());
        let lines = self.flows();
        let found = lines.lines().find(|l| l.contains(&table) && words.iter().all(|w| l.contains(w)));
        let line = found.unwrap_or_else(|| panic!("{words:?} are not in {lines}")).trim();
        // "cookie=…, duration=…, table=17, n_packets=…, n_bytes=…, priority=100,ip,… actions=…"
        let (_, flow) = line.split_once("priority=").unwrap();
        let (_, flow) = flow.split_once(',').unwrap();
        let (conditions, actions) = flow.split_once(" actions=").unwrap();
        let changed = change(conditions);
        assert_ne!(changed, conditions);
        let bug = format!("cookie={WEED},table={},priority=60000,{changed},actions={actions}", stage.table());
        let bridge = format!("unix:{}", self.path("br-int.mgmt"));
        run("ovs-ofctl", &["-O", "OpenFlow14", "add-flow", &bridge, &bug]);
        run("ovs-appctl", &["-t", &self.path("switch.ctl"), "revalidator/purge"]);
    }
    pub fn weed(&self) {
        let bridge = format!("unix:{}", self.path("br-int.mgmt"));
        run("ovs-ofctl", &["-O", "OpenFlow14", "del-flows", &bridge, &format!("cookie={WEED}/-1")]);
        run("ovs-appctl", &["-t", &self.path("switch.ctl"), "revalidator/purge"]);
    }

    fn start_switch(&mut self) {
        let db = self.path("conf.db");
        run("ovsdb-tool", &["create", &db, "/usr/share/openvswitch/vswitch.ovsschema"]);
        let (remote, control) = (self.path("db.sock"), self.path("db.ctl"));
        let (remote, control) = (format!("--remote=punix:{remote}"), format!("--unixctl={control}"));
        self.spawn("ovsdb-server", &[&db, &remote, &control]);
        self.wait_for("db.sock");
        // The datapath's cache is checked after every change, and at least this often (ms), so that waiting for it is
        // short.
        self.vsctl(&[
            "--no-wait",
            "init",
            "--",
            "set",
            "open_vswitch",
            ".",
            "other_config:max-revalidator=100",
        ]);
        self.spawn_vswitchd();
        let bridge = "add-br br-int -- set bridge br-int datapath_type=netdev fail_mode=secure";
        self.vsctl(&bridge.split(' ').collect::<Vec<_>>());
        for (device, number, mac) in [
            (service::META_DEVICE, service::META_PORT, META_MAC),
            (service::EXT_DEVICE, service::EXT_PORT, EXT_MAC),
        ] {
            let words = format!(
                "add-port br-int {device} -- set interface {device} type=internal ofport_request={number} mac=\"{mac}\""
            );
            self.vsctl(&words.split(' ').collect::<Vec<_>>());
        }
        self.address_internal_ports();
        self.connect();
    }

    fn spawn_vswitchd(&mut self) {
        let database = format!("unix:{}", self.path("db.sock"));
        let control = format!("--unixctl={}", self.path("switch.ctl"));
        self.spawn("ovs-vswitchd", &["--disable-system", &control, &database]);
        self.wait_for("switch.ctl");
    }

    fn address_internal_ports(&self) {
        let host = self.host();
        for address in service::device_addresses() {
            add_address(&host, service::META_DEVICE, &address.to_string());
        }
        run("ip", &["-n", &host, "addr", "add", "203.0.113.1/24", "dev", service::EXT_DEVICE]);
        for device in [service::META_DEVICE, service::EXT_DEVICE] {
            run("ip", &["-n", &host, "link", "set", device, "up"]);
        }
    }

    /// The underlay: in userspace the node's address on it is on a bridge of the switch.
    fn join(&self, n: u32, fabric: &Fabric) {
        let (host, address) = (self.host(), underlay(n));
        fabric.join(&format!("n{n}"), &host);
        let (bridge, device) = (service::UNDERLAY_BRIDGE, service::TUNNEL_DEVICE);
        let bridge_words = format!(
            "add-br {bridge} -- set bridge {bridge} datapath_type=netdev fail_mode=standalone -- add-port {bridge} eth0"
        );
        self.vsctl(&bridge_words.split(' ').collect::<Vec<_>>());
        add_address(&host, bridge, &format!("{address}/24"));
        run("ip", &["-n", &host, "link", "set", bridge, "up"]);
        let (number, udp) = (service::TUNNEL_PORT, service::TUNNEL_UDP);
        let tunnel = format!(
            "add-port br-int {device} -- set interface {device} type=geneve ofport_request={number} \
             options:remote_ip=flow options:key=flow options:local_ip={address} options:dst_port={udp}"
        );
        self.vsctl(&tunnel.split_whitespace().collect::<Vec<_>>());
    }

    /// Makes the switch know another node's Ethernet address, so that no first packet through the tunnel is lost. In userspace
    /// it learns by the answers to what its host asks; and a host that was asked itself asks no more.
    pub fn meet(&self, n: u32) {
        let host = self.host();
        run("ip", &["-n", &host, "neigh", "flush", "dev", service::UNDERLAY_BRIDGE]);
        assert!(pings(&host, &underlay(n).to_string()));
    }

    fn connect(&mut self) {
        self.wait_for("br-int.mgmt");
        self.session = Some(Session::connect(&self.path("br-int.mgmt")));
    }

    /// A guest: a namespace with `eth0` on the switch.
    pub fn plug(&mut self, no: u16, address: Ipv4Addr) {
        let (host, guest) = (self.host(), self.add_namespace(&format!("g{no}")));
        let (device, mac) = (format!("v{no}"), mac(no).to_string());
        cable(&host, &device, &guest);
        run("ip", &["-n", &guest, "link", "set", "eth0", "mtu", &self.mtu.to_string(), "address", &mac]);
        let with_prefix = format!("{address}/24");
        run("ip", &["-n", &guest, "addr", "add", &with_prefix, "dev", "eth0"]);
        run("ip", &["-n", &host, "link", "set", &device, "up"]);
        run("ip", &["-n", &guest, "link", "set", "eth0", "up"]);
        let [a, b, c, _] = address.octets();
        let router = Ipv4Addr::new(a, b, c, 1).to_string();
        run("ip", &["-n", &guest, "route", "add", "default", "via", &router]);
        let number = format!("ofport_request={no}");
        self.vsctl(&["add-port", "br-int", &device, "--", "set", "interface", &device, &number]);
    }

    /// Wires to ports of the switch with nobody at their ends: no address, no answers.
    pub fn plug_bare(&mut self, numbers: impl Iterator<Item = u16>) -> BTreeMap<u16, Wire> {
        let (host, ends) = (self.host(), self.add_namespace("ends"));
        let mut words: Vec<String> = vec![];
        let mut wires = BTreeMap::new();
        for no in numbers {
            let device = format!("v{no}");
            veth((&host, &device), (&ends, &device));
            run("ip", &["-n", &ends, "link", "set", &device, "arp", "off", "up"]);
            run("ip", &["-n", &host, "link", "set", &device, "up"]);
            if !words.is_empty() {
                words.push("--".to_owned());
            }
            let add = format!("add-port br-int {device} -- set interface {device} ofport_request={no}");
            words.extend(add.split(' ').map(str::to_owned));
            wires.insert(no, Wire::on(&ends, &device));
        }
        self.vsctl(&words.iter().map(String::as_str).collect::<Vec<_>>());
        wires
    }
    /// The host's sides of the way to local services and of the way out. From now on nobody is there but who holds the
    /// wires: the host itself hears nothing.
    pub fn bare_host(&self) -> [Wire; 2] {
        let (host, devices) = (self.host(), [service::META_DEVICE, service::EXT_DEVICE]);
        let rules: String = devices.iter().map(|device| format!("iifname \"{device}\" drop\n")).collect();
        let chain = "type filter hook prerouting priority -400;";
        nft(&host, &format!("table ip deaf {{\nchain before {{\n{chain}\n{rules}}}\n}}\n"));
        devices.map(|device| Wire::on(&host, device))
    }
    /// The bridge's management socket, and the control socket of its switch.
    pub fn sockets(&self) -> (String, String) {
        (self.path("br-int.mgmt"), self.path("switch.ctl"))
    }

    /// The world: 198.51.100.2 behind the host, which is 198.51.100.1 there and forwards.
    pub fn add_world(&mut self) -> String {
        let (host, world) = (self.host(), self.add_namespace("world"));
        cable(&host, "up0", &world);
        for (ns, device, address) in [(&host, "up0", "198.51.100.1/24"), (&world, "eth0", "198.51.100.2/24")]
        {
            run("ip", &["-n", ns, "addr", "add", address, "dev", device]);
            run("ip", &["-n", ns, "link", "set", device, "up"]);
        }
        run("ip", &["-n", &world, "route", "add", "default", "via", "198.51.100.1"]);
        inside(&host, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        world
    }

    /// Makes the switch carry this topology.
    pub fn apply(&mut self, topology: &Topology, mirror: Mirror) {
        let compiled = compile(&topology.doc, &NodeFacts { mirror, ..self.facts.clone() });
        assert_eq!(compiled.degraded, []);
        let mods = diff(&self.installed.flows, &compiled.flows);
        self.bundles += 1;
        if !mods.is_empty() {
            self.session.as_mut().unwrap().apply(self.bundles, &mods).unwrap();
            // What the datapath has cached follows within milliseconds by itself; this waits until it has.
            run("ovs-appctl", &["-t", &self.path("switch.ctl"), "revalidator/wait"]);
        }
        self.installed = compiled;
    }

    /// Kills the switch without warning and starts it again with these flows; its conntrack is empty then.
    pub fn murder_switch(&mut self, topology: &Topology, mirror: Mirror) {
        let mut switch = self.daemons.pop().unwrap();
        switch.kill().unwrap();
        switch.wait().unwrap();
        let _ = std::fs::remove_file(self.path("switch.ctl"));
        let _ = std::fs::remove_file(self.path("br-int.mgmt"));
        self.spawn_vswitchd();
        self.connect();
        self.installed = Compiled::default();
        self.apply(topology, mirror);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() && self.session.is_some() {
            eprintln!("{}", self.flows());
            for what in ["ovs/route/show", "tnl/ports/show", "tnl/arp/show"] {
                eprintln!("{}", run("ovs-appctl", &["-t", &self.path("switch.ctl"), what]));
            }
        }
        for daemon in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for name in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// A veth pair from one namespace to `eth0` of another, without offloads: the userspace datapath forwards frames as
/// they are, and a checksum left to the hardware would never be made.
fn cable(here: &str, device: &str, there: &str) {
    veth((here, device), (there, "eth0"));
}
fn veth(here: (&str, &str), there: (&str, &str)) {
    let words =
        format!("link add {} netns {} type veth peer name {} netns {}", here.1, here.0, there.1, there.0);
    run("ip", &words.split(' ').collect::<Vec<_>>());
    for (ns, name) in [here, there] {
        let name = name.to_owned();
        inside(ns, move || offloads_off(&name));
    }
}

pub fn add_address(ns: &str, device: &str, address: &str) {
    run("ip", &["-n", ns, "addr", "add", address, "dev", device]);
}
pub fn add_route(ns: &str, to: &str, via: &str) {
    run("ip", &["-n", ns, "route", "add", to, "via", via]);
}

/// As [`add_route`], for what leaves from an address of the namespace's own.
pub fn add_route_from(ns: &str, to: &str, via: &str, own: &str) {
    run("ip", &["-n", ns, "route", "add", to, "via", via, "src", own]);
}

/// The Ethernet address that a namespace knows for an address.
pub fn neighbour_mac(ns: &str, address: Ipv4Addr) -> MacAddr {
    let text = run("ip", &["-n", ns, "neighbour", "show", &address.to_string()]);
    let mut words = text.split_whitespace().skip_while(|w| *w != "lladdr").skip(1);
    words.next().unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs something in a network namespace. Sockets made there stay there, whoever uses them.
pub fn inside<T: Send + 'static>(ns: &str, body: impl FnOnce() -> T + Send + 'static) -> T {
    let file = File::open(format!("/run/netns/{ns}")).unwrap();
    let thread = std::thread::spawn(move || {
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        body()
    });
    thread.join().unwrap()
}

/// `nft -f -` in a namespace.
pub fn nft(ns: &str, text: &str) {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", ns, "nft", "-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub fn listen(ns: &str, address: &str) -> TcpListener {
    let address: SocketAddr = address.parse().unwrap();
    inside(ns, move || TcpListener::bind(address).unwrap())
}

/// A listener that answers each connection with the peer's address, for ever.
pub fn greeter(ns: &str, address: &str) {
    let listener = listen(ns, address);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().map_or_else(|_| String::new(), |a| a.to_string());
            let _ = stream.write_all(peer.as_bytes());
        }
    });
}

/// What a [`greeter`] says, that is, by which address and port it knows us; `None` if it cannot be reached.
pub fn greeted(ns: &str, address: &str, patience: Duration) -> Option<String> {
    let mut stream = connect(ns, address, patience)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

pub fn connect(ns: &str, address: &str, patience: Duration) -> Option<TcpStream> {
    let address: SocketAddr = address.parse().unwrap();
    let stream = inside(ns, move || TcpStream::connect_timeout(&address, patience)).ok()?;
    stream.set_read_timeout(Some(patience)).unwrap();
    Some(stream)
}

pub fn reaches(ns: &str, address: &str) -> bool {
    greeted(ns, address, PATIENCE).is_some()
}
pub fn is_cut_off(ns: &str, address: &str) -> bool {
    greeted(ns, address, SILENCE).is_none()
}

pub fn udp(ns: &str, address: &str) -> UdpSocket {
    let address: SocketAddr = address.parse().unwrap();
    let socket = inside(ns, move || UdpSocket::bind(address).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends an echo request with `size` bytes of payload; the answer's TTL.
pub fn ping(ns: &str, to: &str, size: usize, patience: Duration) -> Option<u8> {
    static SEQUENCE: AtomicU32 = AtomicU32::new(1);
    let to: Ipv4Addr = to.parse().unwrap();
    let number = SEQUENCE.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    inside(ns, move || {
        let socket = UdpSocket::from(raw_socket(libc::AF_INET, libc::IPPROTO_ICMP));
        let mut request = vec![8, 0, 0, 0, number[0], number[1], number[2], number[3]];
        request.extend((0..size).map(|n| n.to_le_bytes()[0]));
        let sum = checksum(&request);
        request[2..4].copy_from_slice(&sum.to_be_bytes());
        let deadline = Instant::now() + patience;
        socket.send_to(&request, (to, 0)).ok()?;
        let mut packet = [0; 65536];
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            let Ok(n) = socket.recv(&mut packet) else { continue };
            let answer = &packet[..n];
            if n == 20 + request.len() && answer[20] == 0 && answer[24..] == request[4..] {
                assert_eq!(checksum(&answer[20..]), 0, "the answer's checksum is right");
                return Some(answer[8]);
            }
        }
        None
    })
}
pub fn pings(ns: &str, to: &str) -> bool {
    ping(ns, to, 56, PATIENCE).is_some()
}
pub fn pings_in_vain(ns: &str, to: &str) -> bool {
    ping(ns, to, 56, SILENCE).is_none()
}

/// The Internet checksum; 0 over a packet that carries its own.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

fn raw_socket(family: i32, protocol: i32) -> OwnedFd {
    // SAFETY: a plain system call; its result is checked before it is owned.
    let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the descriptor was just made and belongs to nobody else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// `ETH_P_ALL` in network byte order.
const EVERY_PROTOCOL: u16 = 0x0003_u16.to_be();

/// Raw frames on a namespace's `eth0`.
pub struct Wire(File);

impl Wire {
    pub fn tap(ns: &str) -> Self {
        Self::on(ns, "eth0")
    }
    /// On another device of a namespace.
    pub fn on(ns: &str, device: &str) -> Self {
        let device = std::ffi::CString::new(device).unwrap();
        inside(ns, move || {
            let socket = raw_socket(libc::AF_PACKET, EVERY_PROTOCOL.into());
            // SAFETY: the name ends in a zero byte.
            let index = unsafe { libc::if_nametoindex(device.as_ptr()) };
            // SAFETY: all-zero is a valid value of this plain structure.
            let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
            address.sll_protocol = EVERY_PROTOCOL;
            address.sll_ifindex = i32::try_from(index).unwrap();
            let size = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap();
            // SAFETY: the address is valid for its size, and outlives the call.
            let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
            assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
            let tick = libc::timeval { tv_sec: 0, tv_usec: 20_000 };
            let size = u32::try_from(size_of::<libc::timeval>()).unwrap();
            // SAFETY: the value is valid for its size, and outlives the call.
            let done = unsafe {
                let value = (&raw const tick).cast();
                libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, value, size)
            };
            assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
            Self(File::from(socket))
        })
    }
    pub fn send(&mut self, frame: &[u8]) {
        let mut frame = frame.to_vec();
        frame.resize(frame.len().max(60), 0);
        self.0.write_all(&frame).unwrap();
    }
    /// From now on, what is sent here is not read here, and reading never waits.
    pub fn deaf_to_itself(&self) {
        const PACKET_IGNORE_OUTGOING: i32 = 23;
        let on: i32 = 1;
        let size = u32::try_from(size_of::<i32>()).unwrap();
        // SAFETY: the value is valid for its size, and outlives the call.
        let done = unsafe {
            let value = (&raw const on).cast();
            libc::setsockopt(self.0.as_raw_fd(), libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, value, size)
        };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        rustix::io::ioctl_fionbio(&self.0, true).unwrap();
    }
    /// A frame that is there already.
    pub fn poll(&mut self) -> Option<Vec<u8>> {
        let mut frame = [0; 2048];
        match self.0.read(&mut frame) {
            Ok(n) => Some(frame[..n].to_vec()),
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => None,
            Err(error) => panic!("{error}"),
        }
    }
    /// The first frame that the condition takes, within the time.
    pub fn wait(&mut self, patience: Duration, mut wanted: impl FnMut(&[u8]) -> bool) -> Option<Vec<u8>> {
        let deadline = Instant::now() + patience;
        let mut frame = [0; 65536];
        while Instant::now() < deadline {
            match self.0.read(&mut frame) {
                Ok(n) if wanted(&frame[..n]) => return Some(frame[..n].to_vec()),
                Ok(_) => {}
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {}
                Err(error) => panic!("{error}"),
            }
        }
        None
    }
}

/// Ethernet header and payload.
pub fn ethernet(to: MacAddr, from: MacAddr, eth_type: u16, payload: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &eth_type.to_be_bytes(), payload].concat()
}
/// IPv4 header and payload.
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, proto: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 1, 0, 0, 64, proto, 0, 0];
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    header.extend(payload);
    header
}
/// An IPv4 packet in two fragments, the second `at` bytes (a multiple of 8) into its payload.
pub fn fragments(packet: &[u8], at: usize) -> [Vec<u8>; 2] {
    let part = |payload: &[u8], more: bool, offset: usize| {
        let mut part = [&packet[..20], payload].concat();
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        let place = u16::from(more) << 13 | u16::try_from(offset / 8).unwrap();
        part[2..4].copy_from_slice(&length);
        part[6..8].copy_from_slice(&place.to_be_bytes());
        part[10..12].copy_from_slice(&[0, 0]);
        let sum = checksum(&part[..20]).to_be_bytes();
        part[10..12].copy_from_slice(&sum);
        part
    };
    let (first, second) = packet[20..].split_at(at);
    [part(first, true, 0), part(second, false, at)]
}
/// UDP header (without checksum) and payload.
pub fn datagram(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let header = [from, to, length, 0].map(u16::to_be_bytes).concat();
    [&header, payload].concat()
}
/// An ARP packet for Ethernet and IPv4.
pub fn arp(op: u16, sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(op.to_be_bytes());
    packet.extend(sender.0.0);
    packet.extend(sender.1.octets());
    packet.extend(target.0.0);
    packet.extend(target.1.octets());
    packet
}

/// Checksums and segmentation in software, as a virtual machine's frames have them.
fn offloads_off(device: &str) {
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    // Receive and transmit checksums, scatter-gather, TSO, GSO, GRO.
    const COMMANDS: [u32; 6] = [0x15, 0x17, 0x19, 0x1f, 0x24, 0x2c];
    let socket = raw_socket(libc::AF_INET, libc::IPPROTO_ICMP);
    for command in COMMANDS {
        let mut value = Value { command, data: 0 };
        // SAFETY: all-zero is a valid value of this plain structure.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: the request and the value it points to outlive the call. What a device cannot switch is as it is.
        unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    }
}
