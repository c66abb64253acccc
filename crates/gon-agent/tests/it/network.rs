//! The network agent on a real Open vSwitch, with guests on real taps, each node in a network namespace of its own.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gon_agent::link::UnixTransport;
use gon_agent::network::{Config, ExternalConfig, Uplink, run, tear_down};
use gon_agent::status::NetworkStatus;
use gon_driver::ovs::{Choice, Ovs};
use gon_driver::run::Pid;
use gon_proto::{Direction, GroupSpec, NodeNetwork, Peer, PortSpec, PortStatus, RuleSpec};
use gon_types::id::{NodeId, SecurityGroupRuleId};
use gon_types::{DocumentVersion, PortRange, Protocol};
use tokio::sync::watch;

use crate::controller::Controller;
use crate::guest::{Guest, sh};
use crate::samples;

/// A node in this thread's namespace: directories, controller, agent.
pub struct Node {
    pub id: NodeId,
    pub overlay: Option<Ipv4Addr>,
    pub uplink: Uplink,
    pub dir: tempfile::TempDir,
    pub controller: Option<Controller>,
    agent: Option<tokio::task::JoinHandle<()>>,
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
        for pid in &self.started {
            let _ = pid.signal(rustix::process::Signal::KILL);
        }
    }
}

fn in_node<F: Future<Output = ()>>(test: impl FnOnce(Node) -> F + Send + 'static) {
    let body = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        assert_eq!(sh("ip link set lo up"), "");
        log();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async move {
            test(Node::new(samples::node(), None, Uplink::Host).await).await;
        });
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
        let (status, watched) = watch::channel(NetworkStatus::default());
        let config = Config {
            node: self.id,
            dir: self.dir.path().join("agent"),
            ovs: self.ovs(),
            transport: Arc::new(UnixTransport::new(&self.dir.path().join("controller.sock"))),
            external: Some(ExternalConfig {
                gateway: "203.0.113.1/24".parse().unwrap(),
                masquerade: false,
                reachable: vec![],
                uplink: self.uplink.clone(),
            }),
            overlay: self.overlay,
            resolv_conf: self.dir.path().join("resolv.conf"),
            audit_every: Duration::from_millis(500),
            status,
        };
        self.status = watched;
        self.agent = Some(tokio::spawn(async move {
            run(config, std::future::pending()).await.unwrap();
        }));
        self.until(|status| status.ready).await;
        self.remember_processes().await;
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
    async fn tear_down(mut self) {
        self.remove().await;
        let links = sh("ip -br link");
        assert_eq!(links.lines().count(), 1 + usize::from(links.contains("tunl0")), "{links}");
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
fn a_guest_gets_its_address_its_names_and_its_metadata() {
    in_node(async |mut node: Node| {
        let mut first = port(16);
        first.metadata.instance_id = "i-00000000000000016".to_owned();
        first.metadata.user_data = Some("aGVsbG8=".to_owned());
        let mut second = port(17);
        second.metadata.instance_id = "i-00000000000000017".to_owned();
        second.metadata.require_token = true;
        node.settle(&[first.clone(), second.clone()], vec![out()]).await;
        let guest = Guest::plug(&first);
        let other = Guest::plug(&second);

        // DHCP by a real client.
        let script = node.dir.path().join("udhcpc.sh");
        let seen = node.dir.path().join("lease");
        let text = format!(
            "#!/bin/sh\n[ $1 = bound ] || exit 0\nenv > {}\n\
             ip addr add $ip/$mask dev eth0\nip route add default via $router\n",
            seen.display()
        );
        std::fs::write(&script, text).unwrap();
        assert_eq!(sh(&format!("chmod +x {}", script.display())), "");
        let started = Instant::now();
        let said = guest.sh(&format!("busybox udhcpc -i eth0 -n -q -f -t 5 -T 1 -s {}", script.display()));
        assert!(said.contains("lease of 10.0.1.5 obtained"), "{said}");
        println!("DHCP took {:?}", started.elapsed());
        let lease = std::fs::read_to_string(&seen).unwrap();
        for line in [
            "ip=10.0.1.5",
            "mask=24",
            "router=10.0.1.1",
            "dns=169.254.169.253",
            "hostname=ip-10-0-1-5",
            "domain=gon-1.compute.internal",
            "mtu=1450",
            "serverid=10.0.1.1",
            "lease=3600",
        ] {
            assert!(lease.lines().any(|l| l == line), "{line} is not in\n{lease}");
        }
        assert!(guest.pings("10.0.1.1"), "the router answers");
        other.configure(&second);

        // Metadata: who asks is known by the port alone.
        let base = "http://169.254.169.254/latest";
        assert_eq!(
            guest.metadata(&format!("{base}/meta-data/instance-id")),
            (200, "i-00000000000000016".to_owned())
        );
        assert_eq!(guest.metadata(&format!("{base}/user-data")), (200, "hello".to_owned()));
        assert_eq!(other.metadata(&format!("{base}/meta-data/instance-id")).0, 401);
        let ttl = "-H 'X-aws-ec2-metadata-token-ttl-seconds: 60'";
        let (status, token) = other.metadata(&format!("-X PUT {ttl} {base}/api/token"));
        assert_eq!(status, 200);
        let show = format!("-H 'X-aws-ec2-metadata-token: {token}'");
        assert_eq!(
            other.metadata(&format!("{show} {base}/meta-data/instance-id")),
            (200, "i-00000000000000017".to_owned())
        );
        assert_eq!(guest.metadata(&format!("{show} {base}/meta-data/instance-id")).0, 401, "another's token");
        assert_eq!(
            other.metadata(&format!("-X PUT {ttl} -H 'X-Forwarded-For: 1.2.3.4' {base}/api/token")).0,
            403
        );
        assert!(ttl_of_answer(&guest) == Some(1), "answers must not leave the instance");

        // DNS on each address it can be asked at, by UDP and TCP; unknown names go to the host's resolvers.
        std::fs::write(node.dir.path().join("resolv.conf"), "nameserver 127.0.0.9\n").unwrap();
        let resolver = std::net::UdpSocket::bind("127.0.0.9:53").unwrap();
        std::thread::spawn(move || {
            let mut query = [0; 1000];
            while let Ok((length, from)) = resolver.recv_from(&mut query) {
                // First a forged answer to another question, then the answer.
                let mut answer = query[..length].to_vec();
                answer[2] |= 0x80;
                answer[0] ^= 1;
                let _ = resolver.send_to(&answer, from);
                answer[0] ^= 1;
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7]);
                let _ = resolver.send_to(&answer, from);
            }
        });
        for server in ["169.254.169.253", "10.0.1.2", "10.0.0.2"] {
            let ask = |name: &'static str| guest.run(move || resolve(server, name));
            assert_eq!(ask("ip-10-0-1-6.gon-1.compute.internal"), (0, Some([10, 0, 1, 6])), "{server}");
            assert_eq!(ask("ip-10-0-1-99.gon-1.compute.internal"), (3, None));
            assert_eq!(ask("example.com"), (0, Some([192, 0, 2, 7])));
        }
        assert_eq!(
            guest.run(|| resolve_tcp("169.254.169.253", "ip-10-0-1-6.gon-1.compute.internal")),
            Some([10, 0, 1, 6])
        );

        // All of it works with the control plane off, and nothing else of the host is there.
        node.controller = None;
        assert_eq!(guest.metadata(&format!("{base}/meta-data/ami-id")).0, 200);
        for closed in
            ["http://169.254.169.254:81/", "http://169.254.64.1/", "http://10.0.1.1/", "http://203.0.113.1/"]
        {
            assert_eq!(guest.metadata(&format!("-m 1 {closed}")).0, 0, "{closed}");
        }
        drop((guest, other));
        node.tear_down().await;
    });
}

/// The time to live of what the metadata service sends.
fn ttl_of_answer(guest: &Guest) -> Option<u8> {
    let capture = "timeout 5 tcpdump -lnvi eth0 -c 1 'src host 169.254.169.254 and tcp' 2>/dev/null & sleep 0.7; \
                   curl -s -m 2 http://169.254.169.254/ >/dev/null; wait";
    let text = guest.sh(capture);
    let (_, rest) = text.split_once("ttl ")?;
    rest.split(',').next()?.parse().ok()
}

fn question(name: &str) -> Vec<u8> {
    let mut query = vec![0x51, 0x15, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend_from_slice(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// The answer's code, and its address if it has one.
fn read_answer(query: &[u8], answer: &[u8]) -> (u8, Option<[u8; 4]>) {
    assert_eq!(answer[..2], query[..2]);
    let address = (answer[7] == 1).then(|| answer[answer.len() - 4..].try_into().unwrap());
    (answer[3] & 0x0f, address)
}

fn resolve(server: &str, name: &str) -> (u8, Option<[u8; 4]>) {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let query = question(name);
    socket.connect((server, 53)).unwrap();
    socket.send(&query).unwrap();
    let mut answer = [0; 1000];
    let length = socket.recv(&mut answer).unwrap_or_else(|error| panic!("{server} {name}: {error}"));
    read_answer(&query, &answer[..length])
}

fn resolve_tcp(server: &str, name: &str) -> Option<[u8; 4]> {
    let mut stream = std::net::TcpStream::connect((server, 53)).unwrap();
    let query = question(name);
    let mut message = u16::try_from(query.len()).unwrap().to_be_bytes().to_vec();
    message.extend_from_slice(&query);
    stream.write_all(&message).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer).unwrap();
    read_answer(&query, &answer).1
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
