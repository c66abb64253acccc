//! Our OpenFlow bytes against a real Open vSwitch: what a flow's text means there, its bytes mean too, and what the switch
//! reports back reads as the flow that was sent. The switch is a private one with a dummy datapath: no device, no kernel
//! module, nothing of the host's.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gon_driver::ovs::Switch;
use gon_net::flow::{IP_ICMP, IP_TCP, IP_UDP, Slice, ZoneSource};
use gon_net::openflow::{self, BundleStep, Incoming};
use gon_net::pipeline::Stage;
use gon_net::trace::{Conntrack, Packet, trace};
use gon_net::{Action, Cookie, Field, Flow, FlowMod, FlowTable, Match, Mirror, compile, diff};

use crate::topology;

/// Two daemons in a directory of their own.
struct Dummy {
    dir: tempfile::TempDir,
    children: Vec<Child>,
}

impl Dummy {
    fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("gon-flows-").tempdir_in("/tmp").unwrap();
        let mut dummy = Self { dir, children: vec![] };
        let db = dummy.path("conf.db");
        dummy.run("ovsdb-tool", &["create", &db, "/usr/share/openvswitch/vswitch.ovsschema"]);
        let remote = format!("--remote=punix:{}", dummy.path("db.sock"));
        let control = format!("--unixctl={}", dummy.path("db.ctl"));
        dummy.spawn("ovsdb-server", &[&db, &remote, &control]);
        dummy.wait_for("db.sock");
        let database = format!("unix:{}", dummy.path("db.sock"));
        let control = format!("--unixctl={}", dummy.path("sw.ctl"));
        let flags = ["--enable-dummy=override", "--disable-system", &control, &database];
        dummy.spawn("ovs-vswitchd", &flags);
        dummy.wait_for("sw.ctl");
        dummy
    }
    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let dir = self.dir.path();
        command
            .env("OVS_RUNDIR", dir)
            .env("OVS_LOGDIR", dir)
            .env("OVS_DBDIR", dir)
            .env("OVS_SYSCONFDIR", dir);
        command
    }
    fn spawn(&mut self, program: &str, args: &[&str]) {
        let mut command = self.command(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.children.push(command.spawn().unwrap());
    }
    fn run(&self, program: &str, args: &[&str]) -> String {
        self.feed(program, args, "")
    }
    fn feed(&self, program: &str, args: &[&str], input: &str) -> String {
        let mut command = self.command(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }
    fn wait_for(&self, name: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !Path::new(&self.path(name)).exists() {
            assert!(Instant::now() < deadline, "{name} did not appear");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    fn bridge(&self, name: &str) {
        let database = format!("--db=unix:{}", self.path("db.sock"));
        self.run(
            "ovs-vsctl",
            &[&database, "--timeout=20", "add-br", name, "--", "set", "bridge", name, "fail_mode=secure"],
        );
        self.wait_for(&format!("{name}.mgmt"));
    }
    fn port(&self, bridge: &str, name: &str, number: u32) {
        let database = format!("--db=unix:{}", self.path("db.sock"));
        let number = format!("ofport_request={number}");
        let set = ["--", "set", "interface", name, "type=dummy", &number];
        self.run("ovs-vsctl", &[&[&database, "--timeout=20", "add-port", bridge, name], &set[..]].concat());
    }
    fn ofctl(&self, args: &[&str], bridge: &str, input: &str) -> String {
        let target = format!("unix:{}", self.path(&format!("{bridge}.mgmt")));
        let mut all = vec!["-O", "OpenFlow14", args[0], &target];
        all.extend(&args[1..]);
        self.feed("ovs-ofctl", &all, input)
    }
    fn dump(&self, bridge: &str) -> Vec<String> {
        let text = self.ofctl(&["dump-flows", "--no-stats", "--no-names"], bridge, "");
        let mut lines: Vec<String> =
            text.lines().map(str::trim).filter(|l| !l.starts_with("OFPST")).map(str::to_owned).collect();
        lines.sort();
        lines
    }
    fn connect(&self, bridge: &str) -> Session {
        Session::connect(&self.path(&format!("{bridge}.mgmt")))
    }
}
impl Drop for Dummy {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A raw OpenFlow connection.
pub(crate) struct Session {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Session {
    pub(crate) fn connect(socket: &str) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut session = Self { stream, buffer: vec![] };
        session.send(&openflow::hello(1));
        assert_eq!(session.next(), Incoming::Hello(true));
        session
    }
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }
    fn next(&mut self) -> Incoming {
        loop {
            if let Some((received, used)) = openflow::decode(&self.buffer).unwrap() {
                self.buffer.drain(..used);
                return received.message;
            }
            let mut chunk = [0; 16 << 10];
            let n = self.stream.read(&mut chunk).unwrap();
            assert!(n > 0, "the switch hung up");
            self.buffer.extend_from_slice(&chunk[..n]);
        }
    }
    /// The changes as one bundle. An error says what the switch refused; it has made the others.
    pub(crate) fn apply(&mut self, bundle: u32, mods: &[FlowMod<'_>]) -> Result<(), String> {
        self.send(&openflow::bundle(7, bundle, mods));
        let done = Incoming::BundleReply { bundle, step: BundleStep::Commit };
        let refused = self.until(&done);
        if refused.is_err() {
            self.until(&done)?;
        }
        refused
    }
    fn until(&mut self, wanted: &Incoming) -> Result<(), String> {
        loop {
            match self.next() {
                Incoming::Error(error) => return Err(format!("{error}: {:02x?}", error.request)),
                message if message == *wanted => return Ok(()),
                _ => {}
            }
        }
    }
    pub(crate) fn installed(&mut self) -> FlowTable {
        self.send(&openflow::flow_stats_request(9, 0, 0));
        let mut all = vec![];
        loop {
            match self.next() {
                Incoming::FlowStats { flows, more } => {
                    all.extend(flows.into_iter().map(|f| {
                        f.flow
                            .clone()
                            .unwrap_or_else(|| panic!("a flow that we sent does not read back: {f:?}"))
                    }));
                    if !more {
                        return FlowTable::from_flows(all);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Every field and every action at least once.
fn zoo() -> Vec<Flow> {
    let cookie = Cookie::fixed(Stage::Route);
    let mut n = 0;
    let mut flow = |matches: Match, actions: Vec<Action>| {
        n += 1;
        Flow::new(n, 100 + u16::from(n), cookie, matches, actions)
    };
    let mac = gon_types::MacAddr([2, 0, 0, 0, 1, 2]);
    let addr = "10.1.2.3".parse().unwrap();
    let net = "10.1.0.0/16".parse().unwrap();
    let reg = |n| Field::Reg(n);
    let conj = |id, clause| Action::Conjunction { id, clause, of: 2 };
    vec![
        flow(Match::any(), vec![]),
        flow(Match::any().in_port(17), vec![Action::Output(3), Action::InPort]),
        flow(Match::any().masked(Field::VlanTci, 0x1000, 0x1000), vec![]),
        flow(
            Match::any().with(Field::TunId, 0xab_cdef).addr(Field::TunSrc, addr).addr(Field::TunDst, addr),
            vec![
                Action::Set(Field::TunId, 0xff_ffff),
                Action::Set(Field::TunDst, u32::from(addr).into()),
                Action::Load(Slice::new(Field::EthSrc, 41, 1), 0),
                Action::Output(3),
            ],
        ),
        flow(
            Match::any().with(Field::Metadata, 0x1234_5678_9abc_def0).with(reg(0), 7),
            vec![Action::load(Field::Metadata, 5)],
        ),
        flow(
            Match::any().masked(reg(7), 0b10, 0b11).with(reg(15), 0xffff_ffff),
            vec![Action::Load(Slice::new(reg(7), 2, 1), 1), Action::OutputTo(Slice::new(reg(4), 0, 16))],
        ),
        flow(
            Match::arp()
                .mac(Field::EthSrc, mac)
                .mac(Field::EthDst, mac)
                .with(Field::ArpOp, 1)
                .addr(Field::ArpSpa, addr)
                .net(Field::ArpTpa, net)
                .mac(Field::ArpSha, mac)
                .mac(Field::ArpTha, mac),
            vec![
                Action::Set(Field::ArpOp, 2),
                Action::Set(Field::ArpSha, 0x0200_0000_0102),
                Action::copy(Field::ArpSha, Field::ArpTha),
                Action::copy(Field::ArpSpa, reg(9)),
                Action::InPort,
            ],
        ),
        flow(
            Match::tcp()
                .masked(Field::EthDst, 1 << 40, 1 << 40)
                .net(Field::IpSrc, net)
                .addr(Field::IpDst, addr)
                .masked(Field::TcpDst, 1024, 0xfc00)
                .with(Field::TcpSrc, 80)
                .masked(Field::TcpFlags, 0, 2),
            vec![Action::DecTtl, Action::Set(Field::IpSrc, 0x0a01_0203), Action::Set(Field::EthDst, 0x02aa)],
        ),
        flow(
            Match::udp().with(Field::UdpSrc, 68).with(Field::UdpDst, 67).with(Field::IpFrag, 0),
            vec![
                Action::Move { from: Slice::new(reg(2), 0, 14), to: Slice::new(Field::IpSrc, 0, 14) },
                Action::Set(Field::UdpDst, 6767),
            ],
        ),
        flow(
            Match::icmp().with(Field::IcmpType, 8).with(Field::IcmpCode, 0).with(Field::IpTtl, 64),
            vec![Action::Set(Field::IcmpType, 0), Action::load(Field::IpTtl, 64), Action::InPort],
        ),
        flow(
            Match::ip()
                .masked(Field::CtState, 0b10_0001, 0b11_0001)
                .with(Field::CtZone, 17)
                .with(Field::CtMark, 1),
            vec![
                Action::Ct {
                    commit: true,
                    zone: ZoneSource::Slice(Slice::new(reg(5), 0, 16)),
                    table: None,
                    mark: Some(1),
                },
                Action::go(80),
            ],
        ),
        flow(
            Match::ip(),
            vec![Action::Ct { commit: false, zone: ZoneSource::Number(7), table: Some(80), mark: None }],
        ),
        flow(
            Match::ip()
                .masked(Field::CtState, 0x20, 0x30)
                .net(Field::CtIpSrc, net)
                .addr(Field::CtIpDst, addr)
                .with(Field::CtIpProto, 6)
                .masked(Field::CtTpSrc, 0x100, 0xff00)
                .with(Field::CtTpDst, 443),
            vec![Action::Resubmit { table: 81, ct: true }, Action::CtClear],
        ),
        flow(Match::ip().with(reg(3), 5), vec![conj(0x1234_5678, 1), conj(9, 2)]),
        flow(Match::any().with(Field::ConjId, 0x1234_5678), vec![Action::load(Field::InPort, 0xffff)]),
        flow(Match::ip().masked(Field::IpFrag, 2, 2).masked(Field::IpSrc, 5, 0xff), vec![]),
    ]
}

#[test]
fn text_and_bytes_mean_the_same_to_open_vswitch() {
    let dummy = Dummy::start();
    let mut tables = vec![FlowTable::from_flows(zoo())];
    for mirror in [Mirror::Off, Mirror::Accepting, Mirror::Keeping] {
        let facts = gon_net::NodeFacts { mirror, ..topology::facts() };
        let document = topology::two_vpcs().with_port(17, |p| p.source_dest_check = false).doc;
        let compiled = compile(&document, &facts);
        assert_eq!(compiled.degraded, []);
        tables.push(compiled.flows);
    }
    let spread = topology::two_vpcs().on_node(2, &[(16, 1), (17, 2), (18, 2), (19, 1), (20, 2)]);
    tables.push(compile(&spread.doc, &topology::facts_of(2)).flows);
    dummy.bridge("a");
    dummy.bridge("b");
    let mut session = dummy.connect("b");
    let mut before = FlowTable::default();
    for (n, table) in (1..).zip(&tables) {
        dummy.ofctl(&["replace-flows", "-"], "a", &table.to_string());
        let mods = diff(&before, table);
        session.apply(n, &mods).unwrap();
        let (text, bytes) = (dummy.dump("a"), dummy.dump("b"));
        assert_eq!(text.len(), table.len());
        for (text, bytes) in text.iter().zip(&bytes) {
            assert_eq!(text, bytes);
        }
        assert_eq!(bytes.len(), table.len());
        let installed = session.installed();
        for (sent, back) in table.flows().zip(installed.flows()) {
            assert_eq!(sent.to_string(), back.to_string());
        }
        assert_eq!(&installed, table);
        before = table.clone();
    }
    println!("{} flows compared", tables.iter().map(FlowTable::len).sum::<usize>());
}

#[test]
fn what_is_refused_of_a_bundle_is_named_and_the_rest_is_made() {
    let dummy = Dummy::start();
    dummy.bridge("a");
    let good = Flow::new(0, 1, Cookie::fixed(Stage::Classify), Match::any(), vec![]);
    let other = Flow::new(0, 3, good.cookie, Match::any(), vec![]);
    // Writing a field whose prerequisite the match does not have is refused.
    let bad =
        |priority| Flow::new(0, priority, good.cookie, Match::any(), vec![Action::Set(Field::TcpDst, 80)]);
    let (bad, worse) = (bad(2), bad(4));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let socket = dummy.path("a.mgmt");
    runtime.block_on(async {
        let switch = Switch::connect(Path::new(&socket)).await.unwrap();
        let refused = async |changes: &[FlowMod<'_>]| {
            let refused = switch.apply(changes).await.unwrap();
            refused.into_iter().map(|refused| refused.place).collect::<Vec<_>>()
        };
        assert_eq!(refused(&[]).await, [0; 0]);
        assert_eq!(refused(&[FlowMod::Add(&bad)]).await, [0]);
        assert_eq!(dummy.dump("a"), [""; 0]);
        let all = [FlowMod::Add(&bad), FlowMod::Add(&good), FlowMod::Add(&worse), FlowMod::Add(&other)];
        assert_eq!(refused(&all).await, [0, 2]);
        assert_eq!(dummy.dump("a").len(), 2);
        // Another writes between others' answers.
        let one = [FlowMod::Delete(&good), FlowMod::Add(&bad)];
        let two = [FlowMod::Add(&worse), FlowMod::Delete(&other)];
        let (one, two) = tokio::join!(refused(&one), refused(&two));
        assert_eq!((one, two), (vec![1], vec![0]));
        assert_eq!(dummy.dump("a"), [""; 0]);
    });
    let mut session = dummy.connect("a");
    session.apply(2, &[FlowMod::Add(&good)]).unwrap();
    assert_eq!(session.installed(), FlowTable::from_flows(vec![good.clone()]));
    session.send(&openflow::echo_request(3));
    assert_eq!(session.next(), Incoming::EchoReply);
    session.send(&openflow::barrier_request(4));
    assert_eq!(session.next(), Incoming::BarrierReply);
    session.apply(5, &[FlowMod::Delete(&good)]).unwrap();
    assert_eq!(session.installed().to_string(), "");
}

/// The ports that `ofproto/trace` sends a packet out of.
fn traced_by_switch(dummy: &Dummy, in_port: u32, packet: &Packet) -> Vec<u32> {
    let get = |field| packet.get(field);
    let proto = get(Field::IpProto);
    let mac = |field| gon_net::flow::mac_from_bits(get(field));
    let (name, ports) = match u8::try_from(proto).unwrap() {
        IP_TCP => ("tcp", format!("tp_src={},tp_dst={}", get(Field::TcpSrc), get(Field::TcpDst))),
        IP_UDP => ("udp", format!("udp_src={},udp_dst={}", get(Field::UdpSrc), get(Field::UdpDst))),
        _ => ("icmp", format!("icmp_type={},icmp_code={}", get(Field::IcmpType), get(Field::IcmpCode))),
    };
    let words = format!(
        "in_port={in_port},dl_src={},dl_dst={},{name},nw_src={},nw_dst={},nw_ttl={},{ports}",
        mac(Field::EthSrc),
        mac(Field::EthDst),
        packet.addr(Field::IpSrc),
        packet.addr(Field::IpDst),
        get(Field::IpTtl),
    );
    let control = dummy.path("sw.ctl");
    let text = dummy.run("ovs-appctl", &["-t", &control, "ofproto/trace", "a", &words]);
    let mut ports = vec![];
    for line in text.lines().map(str::trim) {
        if line == "IN_PORT" {
            ports.push(in_port);
        } else if let Some(port) = line.strip_prefix("-> output port is ") {
            ports.push(port.parse().unwrap());
        } else if let Some(port) = line.strip_prefix("output:") {
            ports.extend(port.parse::<u32>().ok());
        } else if line.contains("skipping output to input port") {
            ports.pop();
        }
    }
    ports
}

#[test]
fn the_interpreter_agrees_with_open_vswitch() {
    let dummy = Dummy::start();
    dummy.bridge("a");
    let topology = topology::two_vpcs().port(21, 11, "10.0.1.12", &[1], Some("203.0.113.21"));
    dummy.port("a", "meta", gon_net::service::META_PORT);
    dummy.port("a", "ext", gon_net::service::EXT_PORT);
    for port in &topology.doc.ports {
        dummy.port("a", &format!("p{}", port.port_no), port.port_no.into());
    }
    let compiled = compile(&topology.doc, &topology::facts());
    dummy.ofctl(&["replace-flows", "-"], "a", &compiled.flows.to_string());

    let everywhere = [
        "10.0.1.1",
        "10.0.1.2",
        "10.0.1.10",
        "10.0.1.11",
        "10.0.1.12",
        "10.0.2.10",
        "10.0.0.2",
        "10.0.9.9",
        "203.0.113.10",
        "203.0.113.21",
        "203.0.113.99",
        "8.8.8.8",
        "169.254.169.254",
        "224.0.0.1",
    ];
    let traffic = [(IP_TCP, 22), (IP_TCP, 5432), (IP_TCP, 80), (IP_UDP, 53), (IP_ICMP, 0)];
    let mut seen = 0;
    let mut delivered = 0;
    let mut compare = |in_port: u32, packet: &Packet| {
        let ours = trace(&compiled.flows, in_port, packet, &mut Conntrack::new());
        let ports: Vec<u32> = ours.outputs.iter().map(|(port, _)| *port).collect();
        assert_eq!(ports, traced_by_switch(&dummy, in_port, packet), "from {in_port}: {packet:?}\n{ours}");
        seen += 1;
        delivered += ports.len();
    };
    let of_kind = |packet: Packet, (proto, port): (u8, u64)| match proto {
        IP_TCP => packet.with(Field::TcpSrc, 4000).with(Field::TcpDst, port),
        IP_UDP => packet.with(Field::UdpSrc, 4000).with(Field::UdpDst, port),
        _ => packet.with(Field::IcmpType, 8),
    };
    for (n, target) in everywhere.iter().enumerate() {
        let address = topology::ip(target);
        for port in &topology.doc.ports {
            let neighbour =
                topology.doc.ports.iter().find(|p| p.private_ip == address && p.subnet == port.subnet);
            let hop = neighbour.map_or(gon_types::MacAddr::ROUTER, |p| p.mac);
            // Not all of them each time: a trace takes a process.
            let kind = traffic[(n + usize::from(port.port_no)) % traffic.len()];
            let packet = Packet::ip((port.mac, port.private_ip), (hop, address), kind.0);
            compare(port.port_no.into(), &of_kind(packet, kind));
        }
        let world = (topology::EXT_MAC, topology::ip("198.51.100.7"));
        let kind = traffic[n % traffic.len()];
        let packet = Packet::ip(world, (gon_types::MacAddr::ROUTER, address), kind.0);
        compare(gon_net::service::EXT_PORT, &of_kind(packet, kind));
    }
    println!("{seen} packets, {delivered} delivered");
    assert!(delivered > 15);
}
