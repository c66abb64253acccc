//! Two network agents on a wire: each in a network namespace of its own, with its own switch in userspace.

mod trace;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gon_agent::network::Uplink;
use gon_driver::ovs::Ovs;
use gon_proto::{GroupSpec, NodeNetwork, OverlayReport, PeerSpec, PortSpec, RuleSpec};
use gon_types::DocumentVersion;
use gon_types::id::NodeId;
use tokio::sync::Mutex;

use crate::guest::{Guest, sh};
use crate::network::{Node, log, out, ping, port};
use crate::samples;

fn id(n: u32) -> NodeId {
    NodeId::from_uuid(uuid::Uuid::from_u128(0xabcd_0000 + u128::from(n)))
}
fn underlay(n: u32) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, u8::try_from(n).unwrap())
}

/// A node in a namespace with a name.
struct Host {
    n: u32,
    ns: String,
    runtime: Option<tokio::runtime::Runtime>,
    node: Arc<Mutex<Option<Node>>>,
}

impl Host {
    /// Threads in the namespace, and nothing else yet.
    fn new(n: u32) -> Self {
        log();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let ns = format!("gona{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        assert_eq!(sh(&format!("ip netns add {ns} && ip -n {ns} link set lo up")), "");
        let path = format!("/run/netns/{ns}");
        let make = move || {
            let file = std::fs::File::open(path).unwrap();
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
        };
        let runtime = Some(std::thread::spawn(make).join().unwrap());
        Self { n, ns, runtime, node: Arc::default() }
    }
    /// Runs something on a thread of the namespace.
    fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (done, result) = std::sync::mpsc::channel();
        let task = self.runtime.as_ref().unwrap().spawn(async move { drop(done.send(work.await)) });
        result.recv().unwrap_or_else(|_| {
            while !task.is_finished() {
                std::thread::sleep(Duration::from_millis(5));
            }
            panic!("it panicked on node {}", self.n)
        })
    }
    fn start(&self) {
        self.start_with(Some(underlay(self.n)), Uplink::Host);
    }
    fn start_with(&self, overlay: Option<Ipv4Addr>, uplink: Uplink) {
        let (n, node) = (self.n, Arc::clone(&self.node));
        self.run(async move { *node.lock().await = Some(Node::new(id(n), overlay, uplink).await) });
    }
    fn sh(&self, command: &str) -> String {
        let command = command.to_owned();
        self.run(async move { sh(&command) })
    }
    fn settle(&self, document: NodeNetwork) {
        let node = Arc::clone(&self.node);
        self.run(async move {
            let mut node = node.lock().await;
            node.as_mut().unwrap().controller.as_mut().unwrap().settle(document).await;
        });
    }
    fn overlay(&self) -> Option<OverlayReport> {
        let node = Arc::clone(&self.node);
        self.run(async move {
            let mut node = node.lock().await;
            let controller = node.as_mut().unwrap().controller.as_mut().unwrap();
            controller.wait_for(|report| report.overlay.is_some()).await.overlay
        })
    }
    fn kill_agent(&self) {
        let node = Arc::clone(&self.node);
        self.run(async move { node.lock().await.as_mut().unwrap().kill().await });
    }
    fn start_process(&self) {
        let node = Arc::clone(&self.node);
        self.run(async move { node.lock().await.as_mut().unwrap().start_process().await });
    }
    fn murder_process(&self) {
        let node = Arc::clone(&self.node);
        self.run(async move { node.lock().await.as_mut().unwrap().murder() });
    }
    fn start_agent(&self) {
        let node = Arc::clone(&self.node);
        self.run(async move { node.lock().await.as_mut().unwrap().start().await });
    }
    /// Kills the switch, and waits until the agent has everything back.
    fn kill_switch(&self) -> Duration {
        let node = Arc::clone(&self.node);
        self.run(async move {
            let mut node = node.lock().await;
            let node = node.as_mut().unwrap();
            let before = node.status.borrow().restores;
            let ovs = Ovs::find(&node.ovs(), "br-int").await.unwrap().unwrap();
            let process = ovs.switch_process().await.unwrap();
            let started = Instant::now();
            assert!(process.kill().await.unwrap());
            node.until(|status| status.restores > before && status.ready).await;
            let took = started.elapsed();
            node.remember_processes().await;
            took
        })
    }
    fn plug(&self, port: &PortSpec) -> Guest {
        let port = port.clone();
        self.run(async move {
            let guest = Guest::plug(&port);
            guest.configure(&port);
            guest
        })
    }
    fn remove(&self) {
        let node = Arc::clone(&self.node);
        self.run(async move { node.lock().await.as_mut().unwrap().remove().await });
    }
}
impl Drop for Host {
    fn drop(&mut self) {
        let node = Arc::clone(&self.node);
        if let Some(runtime) = self.runtime.take() {
            // What a failed test has started ends with the node.
            let (done, result) = std::sync::mpsc::channel();
            runtime.spawn(async move {
                let _ = done.send(node.lock().await.take().is_some());
            });
            let _ = result.recv_timeout(Duration::from_secs(5));
            runtime.shutdown_background();
        }
        sh(&format!("ip netns del {}", self.ns));
    }
}

/// Two hosts on one wire, `eth0` of each with its address and a default route.
fn two_hosts() -> [Host; 2] {
    let hosts = [Host::new(1), Host::new(2)];
    let [a, b] = &hosts;
    let wire = format!("ip link add eth0 netns {} type veth peer name eth0 netns {}", a.ns, b.ns);
    assert_eq!(sh(&wire), "");
    for host in &hosts {
        // The wire carries whole frames, as a real one does.
        let up = format!(
            "ethtool -K eth0 tx off rx off tso off gso off gro off >/dev/null; ip addr add {}/24 dev eth0; \
             ip link set eth0 up; ip route add default via 192.0.2.254 proto static",
            underlay(host.n)
        );
        assert_eq!(host.sh(&up), "");
    }
    hosts
}

/// 16 and 18 on node 1, 17 and 19 on node 2; one subnet, one group.
fn document(n: u32, generation: u64, rules: &[RuleSpec]) -> NodeNetwork {
    let ports = [16, 17, 18, 19].map(port);
    let home = |p: &PortSpec| if p.port_no.is_multiple_of(2) { 1 } else { 2 };
    let mut document = samples::document(generation, ports.to_vec());
    document.node = id(n);
    for address in &mut document.addresses {
        let port = ports.iter().find(|p| p.mac == address.mac).unwrap();
        address.node = id(home(port));
    }
    let members = ports.iter().map(|p| p.private_ip).collect();
    document.groups = vec![GroupSpec { members, rules: rules.to_vec(), ..samples::group() }];
    document.ports.retain(|p| home(p) == n);
    document.peers = vec![PeerSpec { node: id(3 - n), address: underlay(3 - n) }];
    document.version = DocumentVersion { epoch: 1, generation };
    document
}

#[test]
fn guests_of_two_nodes_talk_through_restarts() {
    let hosts = two_hosts();
    let before = hosts[0].sh("ip -br -4 addr show eth0; ip route");
    for host in &hosts {
        host.start();
        host.settle(document(host.n, 1, &[out(), ping()]));
        let overlay = OverlayReport { address: underlay(host.n), mtu: 1500 };
        assert_eq!(host.overlay(), Some(overlay));
        assert!(host.sh("ip route").contains("default via 192.0.2.254 dev gon-under"));
    }
    let [a, b] = &hosts;
    let (g16, g17) = (a.plug(&port(16)), b.plug(&port(17)));
    // The host itself still speaks by its address.
    assert!(a.sh("busybox ping -c 3 -W 1 192.0.2.2").contains(" 0% packet loss"));
    // The very first packet arrives.
    assert!(g16.pings("10.0.1.6") && g17.pings("10.0.1.5"));
    assert_eq!(g16.sh("busybox ping -c 1 -W 1 -s 1422 10.0.1.6 | grep -c ttl=64"), "1\n");

    // Nobody is heard at the host's own port of tunnels but the other node.
    let text = a.sh("nft list chain inet gon tunnels");
    assert!(text.contains("192.0.2.2") && text.contains("drop"), "{text}");

    // Killed without warning and started again, as a process and as tasks: no agent is missed, no packet is lost.
    let (lost, restarts) = std::thread::scope(|scope| {
        let pinging = scope.spawn(|| g16.sh("busybox ping -i 0.01 -c 500 -W 1 10.0.1.6"));
        std::thread::sleep(Duration::from_millis(300));
        let mut restarts = 0;
        while !pinging.is_finished() {
            for host in &hosts {
                host.kill_agent();
                host.start_process();
                host.murder_process();
                host.start_agent();
                restarts += 2;
            }
        }
        (pinging.join().unwrap(), restarts)
    });
    println!("{restarts} restarts: {}", lost.lines().last().unwrap_or_default());
    assert!(lost.contains("500 packets received, 0% packet loss") && restarts > 3, "{lost}");

    // A node that has nothing of the VPC any more is no peer: neither is anything sent there, nor is it believed.
    let mut alone = document(2, 2, &[out(), ping()]);
    alone.peers.clear();
    alone.addresses.retain(|a| a.node == id(2));
    b.settle(alone);
    assert!(!b.sh("nft list chain inet gon tunnels").contains("192.0.2.1"));
    assert!(!g16.pings("10.0.1.6") && !g17.pings("10.0.1.5"));
    b.settle(document(2, 3, &[out(), ping()]));
    assert!(g16.pings("10.0.1.6") && g17.pings("10.0.1.5"));

    // A switch that is killed comes back with bridge, addresses, routes and tunnel; an open connection lives on.
    let listener = g17.run(|| TcpListener::bind("0.0.0.0:7000").unwrap());
    for host in &hosts {
        host.settle(document(
            host.n,
            4,
            &[
                out(),
                ping(),
                crate::network::rule(
                    3,
                    gon_proto::Direction::Inbound,
                    gon_types::Protocol::Tcp,
                    Some((7000, 7000)),
                ),
            ],
        ));
    }
    let mut client = g16.run(|| TcpStream::connect("10.0.1.6:7000").unwrap());
    let mut server = listener.accept().unwrap().0;
    client.set_nodelay(true).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for host in &hosts {
        client.write_all(b"before").unwrap();
        server.read_exact(&mut [0; 6]).unwrap();
        let took = host.kill_switch();
        let started = Instant::now();
        client.write_all(b"after!").unwrap();
        server.read_exact(&mut [0; 6]).unwrap();
        println!(
            "node {}: the switch is back after {took:?}, an open connection {:?} later",
            host.n,
            started.elapsed()
        );
        assert!(host.sh("ip route").contains("default via 192.0.2.254 dev gon-under"));
        assert!(g16.pings("10.0.1.6"));
    }

    // Torn down, the wire is as it was.
    drop((g16, g17));
    for host in &hosts {
        host.remove();
    }
    assert_eq!(hosts[0].sh("ip -br -4 addr show eth0; ip route"), before);
    assert!(!hosts[0].sh("ip -br link").contains("gon-under"));
    assert!(hosts[0].sh("busybox ping -c 3 -W 1 192.0.2.2").contains(" 0% packet loss"));
}

/// Who the world believes to have an address.
fn known(world: &Host, address: &str) -> String {
    let text = world.sh(&format!("ip neigh show {address}"));
    let mut words = text.split_whitespace().skip_while(|w| *w != "lladdr").skip(1);
    words.next().unwrap_or("nobody").to_owned()
}

#[test]
fn public_addresses_are_answered_for_by_the_node_that_hosts_them() {
    // Three hosts on a link: two nodes, and the world. The pool is on that link.
    let hosts = [Host::new(1), Host::new(2), Host::new(3)];
    let [a, b, world] = &hosts;
    let bridge =
        world.sh("ip link add br0 type bridge && ip link set br0 up && ip addr add 203.0.113.254/24 dev br0");
    assert_eq!(bridge, "");
    for host in [a, b] {
        let cable = format!(
            "ip link add up{0} netns {1} type veth peer name eth0 netns {2} && ip -n {1} link set up{0} master br0 up",
            host.n, world.ns, host.ns
        );
        assert_eq!(sh(&cable), "");
        let up = format!(
            "ip link set eth0 up; ip addr add 203.0.113.{}/24 dev eth0; ip route add default via 203.0.113.254",
            host.n + 1
        );
        assert_eq!(host.sh(&up), "");
        host.start_with(None, Uplink::OnLink("eth0".to_owned()));
    }
    let public = |no: u16| Ipv4Addr::new(203, 0, 113, u8::try_from(100 + no).unwrap());
    // Each port is a world of its own here: there is no tunnel. 16 begins on node 1, 17 on node 2.
    let place = |n: u32, generation, ports: &[u16]| {
        let mut document = document(n, generation, &[out(), ping()]);
        document.peers.clear();
        document.addresses.clear();
        document.mass_change_ok = true;
        document.ports =
            ports.iter().map(|no| PortSpec { public_ip: Some(public(*no)), ..port(*no) }).collect();
        document
    };
    a.settle(place(1, 1, &[16]));
    b.settle(place(2, 1, &[17]));
    let (g16, g17) = (a.plug(&port(16)), b.plug(&port(17)));
    let reach = |address: Ipv4Addr| world.sh(&format!("busybox ping -c 1 -W 2 {address} | grep -c ttl=62"));
    assert_eq!(reach(public(16)), "1\n");
    assert_eq!(reach(public(17)), "1\n");
    let mac =
        |host: &Host| host.sh("ip -o link show eth0").split("link/ether ").nth(1).unwrap()[..17].to_owned();
    assert_eq!(known(world, "203.0.113.116"), mac(a));
    assert_eq!(known(world, "203.0.113.117"), mac(b));
    // From guest to guest over public addresses, through the outside.
    assert!(g16.pings("203.0.113.117") && g17.pings("203.0.113.116"));
    // Nobody answers for what nobody has.
    world.sh("busybox ping -c 1 -W 1 203.0.113.118");
    assert_eq!(known(world, "203.0.113.118"), "nobody");
    // And each host reaches its own and the other's.
    assert!(a.sh("busybox ping -c 1 -W 1 203.0.113.116").contains(" 0% packet loss"));
    assert!(a.sh("busybox ping -c 1 -W 1 203.0.113.117").contains(" 0% packet loss"));

    // The address moves to the other node: the world learns it at once, from the announcement.
    drop(g16);
    a.settle(place(1, 2, &[18]));
    b.settle(place(2, 2, &[16, 17]));
    let moved = b.plug(&port(16));
    let until = Instant::now() + Duration::from_secs(5);
    while known(world, "203.0.113.116") != mac(b) {
        assert!(Instant::now() < until, "{}", world.sh("ip neigh"));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(reach(public(16)), "1\n");
    assert!(!a.sh("ip neigh show proxy; ip route").contains("203.0.113.116"));

    // From there on it is lost neither to what the first node still had to say (an announcement is said three times), nor
    // while the second node's agent is away and comes back.
    let lost = std::thread::scope(|scope| {
        let pinging =
            scope.spawn(|| world.sh("busybox ping -i 0.02 -c 200 -W 1 203.0.113.116 | grep received"));
        std::thread::sleep(Duration::from_millis(300));
        while !pinging.is_finished() {
            b.kill_agent();
            b.start_agent();
        }
        pinging.join().unwrap()
    });
    assert!(lost.contains("200 packets received"), "{lost}");

    // Taken from the instance, it is nobody's.
    b.settle(place(2, 3, &[17, 19]));
    assert!(!b.sh("ip neigh show proxy; ip route").contains("203.0.113.116"));
    world.sh("ip neigh flush dev br0; busybox ping -c 1 -W 1 203.0.113.116");
    assert_eq!(known(world, "203.0.113.116"), "nobody");
    b.settle(place(2, 4, &[16, 17]));
    drop(moved);
    let moved = b.plug(&port(16));
    assert_eq!(reach(public(16)), "1\n");

    // What a killed agent has left behind goes, what it missed comes.
    b.kill_agent();
    assert_eq!(
        b.sh("ip route add 203.0.113.200/32 dev gon-ext; ip neigh add proxy 203.0.113.200 dev eth0"),
        ""
    );
    assert_eq!(b.sh("ip neigh del proxy 203.0.113.117 dev eth0"), "");
    b.start_agent();
    let left = b.sh("ip neigh show proxy; ip route");
    assert!(!left.contains("203.0.113.200") && left.contains("203.0.113.117 dev eth0"), "{left}");
    assert_eq!(reach(public(17)), "1\n");

    drop((g17, moved));
    for host in [a, b] {
        host.remove();
        let left = host.sh("ip neigh show proxy; ip route");
        assert!(!left.contains("203.0.113.1"), "{left}");
    }
}
