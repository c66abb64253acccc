//! The network agent on a real Open vSwitch, with guests on real taps, each node in a network namespace of its own.

mod services;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gon_agent::link::UnixTransport;
use gon_agent::network::{Config, ExternalConfig, Uplink, run, tear_down};
use gon_agent::status::NetworkStatus;
use gon_driver::ovs::{Choice, Ovs};
use gon_driver::run::Pid;
use gon_net::service;
use gon_proto::{Direction, GroupSpec, NodeNetwork, Peer, PortSpec, PortStatus, RuleSpec};
use gon_types::id::{NodeId, SecurityGroupRuleId};
use gon_types::{DocumentVersion, PortRange, Protocol};
use tokio::sync::watch;

use crate::controller::Controller;
use crate::guest::{Guest, Namespace, sh};
use crate::samples;

/// A node in this thread's namespace: directories, controller, agent.
pub struct Node {
    pub id: NodeId,
    pub overlay: Option<Ipv4Addr>,
    pub uplink: Uplink,
    pub dir: tempfile::TempDir,
    pub controller: Option<Controller>,
    agent: Option<tokio::task::JoinHandle<()>>,
    process: Option<Child>,
    pub status: watch::Receiver<NetworkStatus>,
    generation: u64,
    started: Vec<Pid>,
}
impl Drop for Node {
    fn drop(&mut self) {
        // The agent first, which starts again what dies.
        if let Some(agent) = self.agent.take() {
            agent.abort();
            std::thread::sleep(Duration::from_millis(100));
        }
        self.murder();
        for pid in &self.started {
            let _ = pid.signal(rustix::process::Signal::KILL);
        }
    }
}

/// What the process of an agent is to know: directory, node, address on the underlay.
const PROCESS: &str = "GON_TEST_AGENT_PROCESS";

/// No test: [`Node::start_process`] runs this program again with this alone.
#[test]
fn an_agent_for_others_to_kill() {
    let Ok(words) = std::env::var(PROCESS) else { return };
    let mut words = words.split(' ');
    let dir = PathBuf::from(words.next().unwrap());
    let id = NodeId::from_uuid(words.next().unwrap().parse().unwrap());
    let overlay = words.next().and_then(|text| text.parse().ok());
    log();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async move {
        let (status, mut watched) = watch::channel(NetworkStatus::default());
        let config = config(&dir, id, overlay, Uplink::Host, status);
        tokio::spawn(async move {
            watched.wait_for(|status| status.ready).await.unwrap();
            std::fs::write(dir.join("ready"), "").unwrap();
        });
        run(config, std::future::pending()).await.unwrap();
    });
}

fn config(
    dir: &Path,
    node: NodeId,
    overlay: Option<Ipv4Addr>,
    uplink: Uplink,
    status: watch::Sender<NetworkStatus>,
) -> Config {
    Config {
        node,
        dir: dir.join("agent"),
        ovs: gon_driver::ovs::Config { dir: dir.join("ovs"), choice: Choice::Private, datapath: None },
        transport: Arc::new(UnixTransport::new(&dir.join("controller.sock"))),
        external: Some(ExternalConfig {
            gateway: "203.0.113.1/24".parse().unwrap(),
            masquerade: false,
            reachable: vec![],
            control: vec!["198.51.100.9:2379".parse().unwrap()],
            uplink,
        }),
        overlay,
        resolv_conf: dir.join("resolv.conf"),
        audit_every: Duration::from_millis(500),
        status,
    }
}

fn in_node<F: Future<Output = ()>>(test: impl FnOnce(Node) -> F + Send + 'static) {
    in_namespace(async move || test(Node::new(samples::node(), None, Uplink::Host).await).await);
}

fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let body = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        assert_eq!(sh("ip link set lo up"), "");
        log();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async move { test().await });
    };
    if let Err(panic) = std::thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

pub fn log() {
    let logs = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_ansi(false);
    let _ = logs.with_writer(std::io::stderr).try_init();
}

impl Node {
    /// In the namespace of the thread that runs it, with an agent that is ready.
    pub async fn new(id: NodeId, overlay: Option<Ipv4Addr>, uplink: Uplink) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let controller = Some(Controller::start(&dir.path().join("controller.sock")));
        let (_, status) = watch::channel(NetworkStatus::default());
        let mut node = Self {
            id,
            overlay,
            uplink,
            dir,
            controller,
            agent: None,
            process: None,
            status,
            generation: 0,
            started: vec![],
        };
        node.start().await;
        node
    }

    pub fn ovs(&self) -> gon_driver::ovs::Config {
        gon_driver::ovs::Config { dir: self.dir.path().join("ovs"), choice: Choice::Private, datapath: None }
    }
    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("ovs")
    }

    /// Starts the agent (again) and waits until it is ready.
    pub async fn start(&mut self) {
        self.start_auditing(None).await;
    }

    /// The same, with audits as rare as said.
    async fn start_auditing(&mut self, every: Option<Duration>) {
        let (status, watched) = watch::channel(NetworkStatus::default());
        let mut config = config(self.dir.path(), self.id, self.overlay, self.uplink.clone(), status);
        config.audit_every = every.unwrap_or(config.audit_every);
        self.status = watched;
        self.agent = Some(tokio::spawn(async move {
            run(config, std::future::pending()).await.unwrap();
        }));
        self.until(|status| status.ready).await;
        self.remember_processes().await;
    }

    /// Starts the agent as a process of its own, which can be killed as only a process can, and waits until it is ready.
    pub async fn start_process(&mut self) {
        let ready = self.dir.path().join("ready");
        let _ = std::fs::remove_file(&ready);
        assert_eq!(self.uplink, Uplink::Host);
        let overlay = self.overlay.map(|a| a.to_string()).unwrap_or_default();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "network::an_agent_for_others_to_kill", "--nocapture"]);
        command.env(PROCESS, format!("{} {} {overlay}", self.dir.path().display(), self.id.uuid()));
        self.process = Some(command.stdout(Stdio::null()).spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(20);
        while !ready.exists() {
            assert!(Instant::now() < until, "the agent's process is not ready");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    /// Kills the process, if there is one, without warning.
    pub fn murder(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub async fn remember_processes(&mut self) {
        let ovs = Ovs::find(&self.ovs(), "br-int").await.unwrap().unwrap();
        self.started.extend(ovs.own_processes().await);
    }

    pub async fn until(&mut self, good: impl Fn(&NetworkStatus) -> bool) -> NetworkStatus {
        let mut status = self.status.clone();
        let wait = status.wait_for(good);
        match tokio::time::timeout(Duration::from_secs(20), wait).await {
            Ok(status) => status.unwrap().clone(),
            Err(_) => panic!("the agent's status is {:?}", self.status.borrow()),
        }
    }

    /// Ends the agent as a kill would: nothing is said goodbye to.
    pub async fn kill(&mut self) {
        let agent = self.agent.take().unwrap();
        agent.abort();
        let _ = agent.await;
    }

    fn document(&mut self, ports: &[PortSpec], rules: Vec<RuleSpec>) -> NodeNetwork {
        self.generation += 1;
        let mut document = samples::document(self.generation, ports.to_vec());
        let members = |group| ports.iter().filter(|p| p.groups == [group]).map(|p| p.private_ip).collect();
        let of_servers = servers(vec![]);
        document.groups = vec![
            GroupSpec { members: members(of_servers.id), ..of_servers },
            GroupSpec { members: members(samples::group().id), rules, ..samples::group() },
        ];
        document
    }

    async fn settle(&mut self, ports: &[PortSpec], rules: Vec<RuleSpec>) {
        let document = self.document(ports, rules);
        let report = self.controller.as_mut().unwrap().settle(document.clone()).await;
        assert_eq!(report.ports.len(), ports.len());
        assert_eq!(report.vpcs[0].generation, document.vpcs[0].generation);
    }

    /// Asserts that everything goes when it is told to.
    async fn tear_down(self) {
        self.tear_down_but(&[]).await;
    }
    /// Asserts that everything goes but these devices.
    async fn tear_down_but(mut self, others: &[&str]) {
        self.remove().await;
        let links = sh("ip -br link");
        let own = links.lines().filter(|line| others.iter().all(|other| !line.starts_with(other))).count();
        assert_eq!(own, 1 + usize::from(links.contains("tunl0")), "{links}");
        assert!(!sh("nft list tables").contains("gon"));
    }
}

impl Node {
    /// Everything that runs ends, and what was made goes.
    pub async fn remove(&mut self) {
        self.kill().await;
        tear_down(&self.ovs()).await.unwrap();
        for pid in &self.started {
            assert!(!pid.is_alive());
        }
    }
}

/// A group that may be asked by TCP, and pinged, and may itself begin nothing.
fn servers(members: Vec<Ipv4Addr>) -> GroupSpec {
    let id = gon_types::id::SecurityGroupId::from_uuid(uuid::Uuid::from_u128(9 << 64));
    let tcp = rule(3, Direction::Inbound, Protocol::Tcp, Some((7000, 7000)));
    GroupSpec { id, vpc: samples::vpc().id, rules: vec![tcp, ping()], members }
}

/// A TCP connection between two guests: the server's end and the client's.
fn connect(server: &Guest, client: &Guest) -> (TcpStream, TcpStream) {
    let listener = server.run(|| TcpListener::bind("0.0.0.0:7000").unwrap());
    let client = client.run(|| TcpStream::connect("10.0.1.6:7000").unwrap());
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (listener.accept().unwrap().0, client)
}

pub fn rule(n: u128, direction: Direction, protocol: Protocol, ports: Option<(u16, u16)>) -> RuleSpec {
    RuleSpec {
        id: SecurityGroupRuleId::from_uuid(uuid::Uuid::from_u128((7 << 64) + n)),
        direction,
        protocol,
        ports: ports.map(|(first, last)| PortRange::new(first, last).unwrap()),
        icmp: None,
        peer: Peer::Cidr("0.0.0.0/0".parse().unwrap()),
    }
}
pub fn out() -> RuleSpec {
    rule(1, Direction::Outbound, Protocol::All, None)
}
pub fn ping() -> RuleSpec {
    rule(2, Direction::Inbound, Protocol::Icmp, None)
}
pub fn port(no: u16) -> PortSpec {
    samples::port(no, &format!("10.0.1.{}", no - 11))
}

#[test]
fn a_rule_is_in_force_when_it_is_confirmed_and_gone_when_it_is_revoked() {
    in_node(async |mut node: Node| {
        let mut public = port(16);
        public.public_ip = Some([203, 0, 113, 9].into());
        let ports = [public.clone(), port(17)];
        node.settle(&ports, vec![out()]).await;
        let (guest, other) = (Guest::plug(&ports[0]), Guest::plug(&ports[1]));
        guest.configure(&ports[0]);
        other.configure(&ports[1]);
        let from_host = || sh("busybox ping -c 1 -W 1 203.0.113.9 >/dev/null && echo yes") == "yes\n";
        assert!(!other.pings("10.0.1.5") && !from_host());
        node.settle(&ports, vec![out(), ping()]).await;
        assert!(other.pings("10.0.1.5") && from_host());
        node.settle(&ports, vec![out()]).await;
        assert!(!other.pings("10.0.1.5") && !from_host());

        // How long it takes: printed, for it depends on the machine.
        let (mut wired, mut settled, mut reported) = (vec![], vec![], vec![]);
        for n in 0..40 {
            let rules = if n % 2 == 0 { vec![out(), ping()] } else { vec![out()] };
            let started = Instant::now();
            node.settle(&ports, rules).await;
            reported.push(started.elapsed());
            let generation = node.generation;
            let status = node.until(|s| s.applied.generation == generation && s.wired_us > 0).await;
            wired.push(Duration::from_micros(status.wired_us));
            settled.push(Duration::from_micros(status.settled_us));
        }
        for (what, mut times) in
            [("in the switch", wired), ("on the disk", settled), ("known to the controller", reported)]
        {
            times.sort();
            println!("a changed rule is {what} after p50 {:?}, p90 {:?}", times[20], times[36]);
        }
        drop((guest, other));
        node.tear_down().await;
    });
}

/// Packets from one guest to another, as many as go, each with its time of sending; and when those were sent that arrived.
struct Stream {
    begun: Instant,
    stop: Arc<AtomicBool>,
    arrived: Arc<Mutex<Vec<Duration>>>,
}
impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
impl Stream {
    fn start(from: &Guest, to: &Guest, address: &'static str) -> Self {
        let begun = Instant::now();
        let (stop, arrived) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(vec![])));
        let socket = to.run(move || UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (stopped, times) = (Arc::clone(&stop), Arc::clone(&arrived));
        std::thread::spawn(move || {
            let mut nanos = [0; 8];
            while !stopped.load(Ordering::Relaxed) {
                if socket.recv(&mut nanos).is_ok() {
                    times.lock().unwrap().push(Duration::from_nanos(u64::from_be_bytes(nanos)));
                }
            }
        });
        let socket = from.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap();
                let _ = socket.send_to(&nanos.to_be_bytes(), address);
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        Self { begun, stop, arrived }
    }
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }
    /// How many arrived that were sent in that time.
    fn passed(&self, from: Duration, to: Duration) -> usize {
        self.arrived.lock().unwrap().iter().filter(|at| (from..to).contains(*at)).count()
    }
    /// Waits until packets pass that are sent from now on.
    async fn flows(&self) {
        let from = self.now();
        while self.passed(from, Duration::MAX) == 0 {
            assert!(self.now() - from < Duration::from_secs(10), "nothing passes");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[test]
fn no_packet_passes_once_its_revocation_is_reported() {
    in_node(async |mut node: Node| {
        let ports = [port(16), port(17)];
        let udp = rule(3, Direction::Inbound, Protocol::Udp, Some((9, 9)));
        let allowed = || vec![out(), udp.clone()];
        node.settle(&ports, allowed()).await;
        let (guest, other) = (Guest::plug(&ports[0]), Guest::plug(&ports[1]));
        guest.configure(&ports[0]);
        other.configure(&ports[1]);
        let stream = Stream::start(&guest, &other, "10.0.1.6:9");

        let mut silences = vec![];
        let (mut took, begun) = (vec![], Instant::now());
        for _ in 0..50 {
            node.settle(&ports, allowed()).await;
            stream.flows().await;
            let asked = Instant::now();
            node.settle(&ports, vec![out()]).await;
            took.push(asked.elapsed());
            let from = stream.now();
            tokio::time::sleep(Duration::from_millis(10)).await;
            silences.push((from, stream.now()));
            // What was sent until then has been judged by the switch when it answers this, which was sent later: only
            // then may the next be allowed.
            assert!(guest.pings("10.0.1.1"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        took.sort();
        println!(
            "revoked and reported 50 times in {:?}: p50 {:?}, p90 {:?}, most {:?}; {} packets passed when they might",
            begun.elapsed(),
            took[25],
            took[45],
            took[49],
            stream.passed(Duration::ZERO, Duration::MAX),
        );
        for (from, to) in &silences {
            assert_eq!(stream.passed(*from, *to), 0, "sent between {from:?} and {to:?}");
        }

        // The test of the test: while the switch's cache does not follow, packets do pass although the flows are gone. It is not
        // reported then. Once it follows it is; and if it never does, it is emptied.
        let ovs = Ovs::find(&node.ovs(), "br-int").await.unwrap().unwrap();
        for follows in [true, false] {
            node.settle(&ports, allowed()).await;
            stream.flows().await;
            ovs.control("revalidator/pause", &[]).await.unwrap();
            let document = node.document(&ports, vec![out()]);
            let version = document.version;
            node.controller.as_ref().unwrap().publish(document);
            tokio::time::sleep(Duration::from_millis(300)).await;
            stream.flows().await;
            assert!(node.status.borrow().applied < version);
            if follows {
                ovs.control("revalidator/resume", &[]).await.unwrap();
            }
            node.controller.as_mut().unwrap().applied(version).await;
            let from = stream.now();
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(stream.passed(from, Duration::MAX), 0, "{follows}");
        }
        ovs.control("revalidator/resume", &[]).await.unwrap();
        drop((stream, guest, other));
        node.tear_down().await;
    });
}

/// Who answers to a datagram: nobody, or an error.
fn refused(address: &'static str) -> impl FnOnce() -> bool + Send + 'static {
    move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        socket.connect(address).unwrap();
        socket.send(b"anybody?").unwrap();
        socket.recv(&mut [0; 10]).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
    }
}

/// The path's MTU toward an address, once a datagram that is too large has been sent there with "don't fragment".
fn learned_mtu(guest: &Guest, address: &'static str) -> Option<u32> {
    guest.run(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect((address, 9)).unwrap();
        for _ in 0..3 {
            let _ = socket.send(&[0; 1400]);
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let route = guest.sh(&format!("ip route get {address}"));
    route.split_once(" mtu ")?.1.split_whitespace().next()?.parse().ok()
}

#[test]
fn errors_cross_the_gateway_with_what_they_quote() {
    in_node(async |mut node: Node| {
        // Beyond the host a router, and beyond a narrower link somebody far away.
        let (router, far) = (Namespace::new(), Namespace::new());
        let id = |namespace: &Namespace| namespace.run(|| nix::unistd::gettid().as_raw());
        let wire = format!(
            "ip link add up0 type veth peer name eth0 netns /proc/{0}/ns/net && ip addr add 198.51.100.1/24 dev up0 && \
             ip link set up0 up && ip route add 192.0.2.0/24 via 198.51.100.2",
            id(&router)
        );
        assert_eq!(sh(&wire), "");
        let far_id = id(&far);
        let routed = router.run(move || {
            sh(&format!(
                "ip link add eth1 mtu 1280 type veth peer name eth0 mtu 1280 netns /proc/{far_id}/ns/net && \
                 ip addr add 198.51.100.2/24 dev eth0 && ip link set eth0 up && ip addr add 192.0.2.1/24 dev eth1 && \
                 ip link set eth1 up && ip route add default via 198.51.100.1 && busybox sysctl -qw net.ipv4.ip_forward=1"
            ))
        });
        assert_eq!(routed, "");
        let at_home = far.run(|| {
            sh("for n in 2 3 4; do ip addr add 192.0.2.$n/24 dev eth0; done; ip link set eth0 up; \
                ip route add default via 192.0.2.1; busybox sysctl -qw net.ipv4.icmp_ratelimit=0")
        });
        assert_eq!(at_home, "");

        let mut ports = [port(16), port(17)];
        ports[0].public_ip = Some([203, 0, 113, 9].into());
        ports[1].public_ip = Some([203, 0, 113, 10].into());
        let udp = rule(3, Direction::Inbound, Protocol::Udp, Some((9, 9)));
        node.settle(&ports, vec![out(), ping(), udp]).await;
        let (guest, other) = (Guest::plug(&ports[0]), Guest::plug(&ports[1]));
        guest.configure(&ports[0]);
        other.configure(&ports[1]);
        assert!(guest.pings("192.0.2.2"));

        // From outside: the narrow link is found (path MTU discovery), a closed port refuses, each hop is seen.
        assert_eq!(learned_mtu(&guest, "192.0.2.2"), Some(1280));
        assert!(guest.run(refused("192.0.2.3:9")), "refused by the far end");
        let hops = guest.sh("busybox traceroute -n -q 1 -w 1 -m 5 192.0.2.3");
        let seen = |hop: &str| hops.lines().skip(1).any(|line| line.split_whitespace().nth(1) == Some(hop));
        assert!(seen("203.0.113.1") && seen("198.51.100.2") && seen("192.0.2.3"), "{hops}");
        println!("{hops}");
        // Whoever sends from outside what a guest's link is too narrow for is told so by the node, and learns.
        let learned = router.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect("203.0.113.9:9").unwrap();
            for _ in 0..3 {
                let _ = socket.send(&[0; 1460]);
                std::thread::sleep(Duration::from_millis(50));
            }
            sh("ip route get 203.0.113.9")
        });
        assert!(learned.contains(" mtu 1450"), "{learned}");
        // From a guest to outside, which here is the host; and between guests by their public addresses.
        assert!(refused("203.0.113.9:9")(), "refused by the guest");
        assert!(guest.run(refused("203.0.113.10:9")), "refused by the neighbour");
        // What no rule allows is not answered at all.
        assert!(!refused("203.0.113.9:10")());

        // The test of the test: nobody translates, nobody learns. Nothing else is missing.
        node.kill().await;
        assert_eq!(learned_mtu(&guest, "192.0.2.4"), None);
        assert!(!guest.run(refused("192.0.2.4:9")) && guest.pings("192.0.2.4"));
        drop((guest, other));
        node.start().await;
        node.tear_down_but(&["up0"]).await;
    });
}

#[test]
fn the_host_is_deaf_to_what_guests_send_past_the_switch() {
    in_node(async |mut node: Node| {
        let first = port(16);
        node.settle(std::slice::from_ref(&first), vec![out()]).await;
        let guest = Guest::plug(&first);
        guest.configure(&first);
        let hears = |text: &'static str| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:4000").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
            guest.run(move || {
                let out = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
                out.set_broadcast(true).unwrap();
                for _ in 0..3 {
                    let _ = out.send_to(b"hello", text);
                }
            });
            socket.recv_from(&mut [0; 100]).is_ok()
        };
        assert!(!hears("255.255.255.255:4000"));
        assert!(!hears("203.0.113.1:4000"));
        let dropped = sh("nft list chain inet gon taps");
        assert!(!dropped.contains("counter packets 0 "), "the frames did come by: {dropped}");
        // The test can fail: without the guard they are heard.
        assert_eq!(sh("nft flush chain inet gon taps"), "");
        assert!(hears("255.255.255.255:4000"));
        drop(guest);
        node.tear_down().await;
    });
}

#[test]
fn a_switch_that_dies_is_back_with_everything_and_an_agent_that_dies_is_not_missed() {
    in_node(async |mut node: Node| {
        let mut ports = [port(16), port(17)];
        ports[1].groups = vec![servers(vec![]).id];
        node.settle(&ports, vec![out(), ping()]).await;
        let (guest, other) = (Guest::plug(&ports[0]), Guest::plug(&ports[1]));
        guest.configure(&ports[0]);
        other.configure(&ports[1]);
        assert!(guest.pings("10.0.1.6") && !other.pings("10.0.1.5"));

        // A connection on which only the server speaks from now on. What it sends is allowed as an answer and as nothing
        // else: the server's group lets nothing out.
        let (mut server, client) = connect(&other, &guest);
        server.write_all(b"before").unwrap();

        let ovs = Ovs::find(&node.ovs(), "br-int").await.unwrap().unwrap();
        let process = ovs.switch_process().await.unwrap();
        let started = Instant::now();
        assert!(process.kill().await.unwrap());
        node.until(|status| status.restores == 2 && status.ready).await;
        println!("the switch was killed, and is back with its flows after {:?}", started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(5));
        node.remember_processes().await;
        server.write_all(b" and after").unwrap();
        let mut heard = [0; 16];
        { &client }.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"before and after");
        println!("an open connection goes on after {:?}", started.elapsed());
        assert!(guest.pings("10.0.1.6"));
        assert_eq!(guest.metadata("http://169.254.169.254/latest/meta-data/instance-id").0, 200);

        // The database dies too.
        let ovs = Ovs::find(&node.ovs(), "br-int").await.unwrap().unwrap();
        assert!(ovs.own_processes().await[0].kill().await.unwrap());
        tokio::time::sleep(Duration::from_millis(1500)).await;
        node.remember_processes().await;
        node.settle(&[ports[0].clone(), ports[1].clone(), port(18)], vec![out(), ping()]).await;
        assert!(guest.pings("10.0.1.6"));

        // The agent is killed and starts again, with the controller away: nothing on the wire changes.
        let flows = |node: &Node| {
            sh(&format!(
                "OVS_RUNDIR={0} ovs-ofctl -O OpenFlow14 dump-flows br-int | grep -c cookie",
                node.run_dir().display()
            ))
        };
        let before = flows(&node);
        node.controller = None;
        node.kill().await;
        let pinging = std::thread::scope(|scope| {
            let ping = scope.spawn(|| guest.sh("busybox ping -i 0.05 -c 60 -W 1 10.0.1.6"));
            let handle = tokio::runtime::Handle::current();
            std::thread::sleep(Duration::from_millis(500));
            tokio::task::block_in_place(|| handle.block_on(node.start()));
            ping.join().unwrap()
        });
        assert!(pinging.contains(" 0% packet loss"), "{pinging}");
        assert_eq!(flows(&node), before);
        assert_eq!(node.status.borrow().applied, DocumentVersion { epoch: 1, generation: 2 });
        assert_eq!(guest.metadata("http://169.254.169.254/latest/meta-data/instance-id").0, 200);
        drop((guest, other));
        node.tear_down().await;
    });
}

/// What a document comes to is said with it, and not by the next audit.
#[test]
fn ports_come_go_and_are_closed_without_an_audit() {
    in_node(async |mut node: Node| {
        node.kill().await;
        node.start_auditing(Some(Duration::from_secs(3600))).await;
        let devices = || {
            let text = sh("ip -br link");
            (16..30).filter(|no| text.contains(&format!("gt-{no} "))).collect::<Vec<u16>>()
        };
        let gone = async |left: &[u16]| {
            let until = Instant::now() + Duration::from_secs(5);
            while devices() != left {
                assert!(Instant::now() < until, "{:?}", devices());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        node.settle(&[port(16), port(17), port(18)], vec![out()]).await;
        // One more, one less, and one that is another's in the same place.
        node.settle(&[port(16), port(17), port(18), port(19)], vec![out()]).await;
        assert_eq!(devices(), [16, 17, 18, 19]);
        node.settle(&[port(16), port(18), port(19)], vec![out()]).await;
        gone(&[16, 18, 19]).await;
        let other = PortSpec { port_no: 20, ..port(19) };
        node.settle(&[port(16), port(18), other.clone()], vec![out()]).await;
        assert_eq!(devices(), [16, 18, 19]);

        // A rule that cannot be closes whoever has it, and opens them again when it is gone.
        let wrong = rule(9, Direction::Inbound, Protocol::Tcp, None);
        let document = node.document(&[port(16), port(18), other.clone()], vec![out(), wrong]);
        let controller = node.controller.as_mut().unwrap();
        controller.publish(document.clone());
        let report = controller.wait_for(|report| report.applied == document.version).await;
        assert!(report.ports.iter().all(|p| p.status != PortStatus::Ready), "{report:?}");
        gone(&[]).await;
        node.settle(&[port(16), port(18), other], vec![out()]).await;
        assert_eq!(devices(), [16, 18, 19]);
        node.tear_down().await;
    });
}

#[test]
fn what_others_break_is_put_right_and_what_leaves_leaves_nothing() {
    in_node(async |mut node: Node| {
        let ports = [port(16), port(17)];
        node.settle(&ports, vec![out(), ping()]).await;
        let guest = Guest::plug(&ports[0]);
        guest.configure(&ports[0]);
        assert!(guest.pings("10.0.1.1"));
        let tool = |node: &Node, command: &str| {
            let dir = node.run_dir().display().to_string();
            sh(&format!("export OVS_RUNDIR={dir}; DB=unix:{dir}/db.sock; {command}"))
        };
        let repairs = node.status.borrow().repairs;
        assert_eq!(tool(&node, "ovs-ofctl -O OpenFlow14 del-flows br-int table=10"), "");
        assert_eq!(
            tool(&node, "ovs-ofctl -O OpenFlow14 add-flow br-int table=0,priority=65000,actions=drop"),
            ""
        );
        assert_eq!(tool(&node, "ovs-vsctl --db=$DB del-port gt-17; ip link set gt-17 down"), "");
        let status = node.until(|s| s.repairs > repairs && s.ready).await;
        println!("repaired: {}", status.repairs - repairs);
        let report = node.controller.as_mut().unwrap().wait_for(|r| r.ports.len() == 2).await;
        assert!(report.ports.iter().all(|p| p.status == PortStatus::Ready));
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(guest.pings("10.0.1.1"));
        assert!(sh("ip -br link show gt-17").contains("gt-17"));

        // A document that would take most away is refused; one that says it is meant is not.
        let many: Vec<PortSpec> = (16..30).map(port).collect();
        node.settle(&many, vec![out()]).await;
        let empty = node.document(&[], vec![out()]);
        node.controller.as_ref().unwrap().publish(empty.clone());
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(node.status.borrow().ports, 14);

        // A port that cannot be: closed by name, its neighbours untouched.
        let mut bad = port(17);
        bad.private_ip = [10, 9, 9, 9].into();
        let mut document = node.document(&[port(16), bad.clone()], vec![out()]);
        document.mass_change_ok = true;
        node.controller.as_ref().unwrap().publish(document);
        let report = node
            .controller
            .as_mut()
            .unwrap()
            .wait_for(|r| r.ports.len() == 2 && r.ports.iter().any(|p| p.status != PortStatus::Ready))
            .await;
        println!("{:?}", report.ports[1].status);
        assert!(guest.pings("10.0.1.1"));
        tokio::time::sleep(Duration::from_millis(300)).await;
        let links = sh("ip -br link");
        assert!(links.contains("gt-16") && !links.contains("gt-18") && !links.contains("gt-17"), "{links}");
        assert!(!tool(&node, "ovs-vsctl --db=$DB list-ports br-int").contains("gt-18"));
        drop(guest);
        node.tear_down().await;
    });
}
