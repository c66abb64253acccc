//! What the node serves its guests: addresses, names, metadata; beside servers of the host.

use super::*;

#[test]
fn a_guest_gets_its_address_its_names_and_its_metadata() {
    in_node(async |mut node: Node| {
        let mut first = port(16);
        first.metadata.instance_id = "i-00000000000000016".to_owned();
        first.metadata.user_data = Some("aGVsbG8=".to_owned());
        first.secondary_ips = vec![[10, 0, 1, 77].into()];
        let mut second = port(17);
        second.metadata.instance_id = "i-00000000000000017".to_owned();
        second.metadata.require_token = true;
        node.settle(&[first.clone(), second.clone()], vec![out()]).await;
        let guest = Guest::plug(&first);
        let other = Guest::plug(&second);

        let lease = lease(&node, &guest, "10.0.1.5");
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
        assert_eq!(guest.sh("ip addr add 10.0.1.77/24 dev eth0"), "");

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

        // The router shows itself, to whichever address of a guest, as soon as a packet has no hop left.
        for own in ["10.0.1.5", "10.0.1.77"] {
            let path = guest.sh(&format!("busybox traceroute -n -s {own} -m 1 -q 1 -w 3 10.0.77.1"));
            assert!(path.contains(" 1  10.0.1.1  "), "{path}");
        }

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

        // From a further address as from the first.
        let from_it = "--interface 10.0.1.77";
        assert_eq!(guest.metadata(&format!("{from_it} {base}/user-data")), (200, "hello".to_owned()));
        let nic = format!("{base}/meta-data/network/interfaces/macs/{}", first.mac);
        assert_eq!(guest.metadata(&format!("{nic}/local-ipv4s")), (200, "10.0.1.5\n10.0.1.77".to_owned()));
        for server in ["169.254.169.253", "10.0.1.2"] {
            let answer =
                guest.run(move || resolve_from("10.0.1.77", server, "ip-10-0-1-6.gon-1.compute.internal"));
            assert_eq!(answer, (0, Some([10, 0, 1, 6])), "{server}");
        }

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

/// Gets an address by a real DHCP client, and takes it; what the client was told.
fn lease(node: &Node, guest: &Guest, address: &str) -> String {
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
    assert!(said.contains(&format!("lease of {address} obtained")), "{said}");
    println!("DHCP took {:?}", started.elapsed());
    std::fs::read_to_string(&seen).unwrap()
}

#[test]
fn servers_of_the_host_and_of_the_node_stand_beside_each_other() {
    in_namespace(async || {
        // What a host may run: web, DHCP and DNS, on every address. They are there first.
        let web: Vec<TcpListener> =
            [80, 53].map(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()).into();
        let others: Vec<UdpSocket> =
            [67, 53].map(|port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()).into();
        let mut node = Node::new(samples::node(), None, Uplink::Host).await;
        // The test of the test: on the ports that guests know there is no place beside them, bound to a device or not.
        let own = tokio::net::TcpSocket::new_v4().unwrap();
        own.set_reuseaddr(true).unwrap();
        own.bind_device(Some(b"gon-meta")).unwrap();
        let bound =
            own.bind(SocketAddr::from((service::METADATA, 80))).and_then(|()| own.listen(1).map(drop));
        assert_eq!(bound.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
        assert!(UdpSocket::bind((service::DHCP, 67)).is_err());

        let first = port(16);
        node.settle(std::slice::from_ref(&first), vec![out()]).await;
        let guest = Guest::plug(&first);
        let whole = |guest: &Guest| {
            let id = guest.metadata("http://169.254.169.254/latest/meta-data/instance-id");
            assert_eq!(id, (200, first.metadata.instance_id.clone()));
            let own_name = || resolve("169.254.169.253", "ip-10-0-1-5.gon-1.compute.internal");
            assert_eq!(guest.run(own_name), (0, Some([10, 0, 1, 5])));
        };
        lease(&node, &guest, "10.0.1.5");
        whole(&guest);
        // The host's are asked by the host, and no guest's question has come to them.
        drop(TcpStream::connect("127.0.0.1:80").unwrap());
        assert!(web[0].accept().unwrap().1.ip().is_loopback());
        for socket in &others {
            socket.set_nonblocking(true).unwrap();
            assert!(socket.recv_from(&mut [0; 1000]).is_err());
        }
        // Started again, they find their places, and the node keeps its own.
        drop((web, others));
        let _web = soon(|| TcpListener::bind("0.0.0.0:80"));
        let _dhcp = soon(|| UdpSocket::bind("0.0.0.0:67"));
        whole(&guest);
        node.kill().await;
        node.start().await;
        whole(&guest);
        drop(guest);
        node.tear_down().await;
    });
}

/// As soon as it can be had: a program that another test is just starting has for a moment what was open here.
fn soon<T>(take: impl Fn() -> std::io::Result<T>) -> T {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match take() {
            Err(error) if Instant::now() < until && error.kind() == std::io::ErrorKind::AddrInUse => {
                std::thread::sleep(Duration::from_millis(5));
            }
            taken => return taken.unwrap(),
        }
    }
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
    resolve_from("0.0.0.0", server, name)
}

fn resolve_from(own: &str, server: &str, name: &str) -> (u8, Option<[u8; 4]>) {
    let socket = std::net::UdpSocket::bind((own, 0)).unwrap();
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
