//! What a guest finds when it starts (address, routes, names, metadata, key, user-data), and that it finds nothing else
//! of the host.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::capture::Way;
use e2e::tell;
use e2e::topology::{HostServer, Instance, Launch, Network, launch};
use e2e::world::{HOST, World};
use e2e::{Capture, Namespace, Shell, probe, say};
use e2e::{Cloud, Host};

const USER_DATA: &str = "#!/bin/sh\necho ran >>/root/ran\necho e2e-user-data says hello\n";
/// The host's own address elsewhere, and the one of a machine beyond it.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const BEYOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

#[test]
fn a_guest_finds_its_services_and_nothing_else_of_the_host() {
    // A machine beyond the host, which is its way out.
    let beyond = Namespace::create(&format!("gon-e2e-{}-out", std::process::id())).unwrap();
    tell("services", |world: &World| {
        let api = world.api();
        let network = Network::build(api, "services", "10.7.0.0/16", "10.7.4.0/24", true)?;
        network.open(api)?;
        let groups = [network.group.clone()];
        let what =
            Launch { groups: &groups, user_data: Some(USER_DATA), ..Launch::tiny("guest", &network.subnet) };
        let guest = launch(world, &what)?;
        let other = network.launch(world, "other")?;
        let guest = guest.becomes(api, "running", e2e::topology::BOOT)?;
        let mut shell = guest.shell(world)?;
        lease(world, &guest, &mut shell)?;
        metadata(&guest, &mut shell)?;
        user_data(world, &guest, &mut shell)?;
        let other = other.becomes(api, "running", e2e::topology::BOOT)?;
        tokens_are_not_shared(&mut shell, &mut other.shell(world)?)?;
        let way_out = WayOut::make(world, &beyond)?;
        let result = host(world, &beyond, &guest, &mut shell);
        way_out.remove(world)?;
        result
    });
}

/// What DHCP gave (RFC 2131/2132/3442), as the guest's kernel has it.
fn lease(world: &World, guest: &Instance, shell: &mut Shell) -> anyhow::Result<()> {
    let inet = "ip -4 addr show dev eth0 | grep inet";
    let address = shell.run(inet)?;
    ensure!(address.contains(&format!("inet {}/24 ", guest.private_ip)), "the address: {address}");
    let mtu: u32 = shell.run("cat /sys/class/net/eth0/mtu")?.parse()?;
    ensure!((1280..=9001).contains(&mtu), "the MTU: {mtu}");
    let routes = shell.run("ip route")?;
    ensure!(routes.contains("default via 10.7.4.1 "), "the default route: {routes}");
    ensure!(routes.contains("169.254.169.254"), "the classless route to the metadata: {routes}");
    let resolver = shell.run("cat /etc/resolv.conf")?;
    ensure!(
        resolver.contains("nameserver 10.7.4.2")
            || resolver.contains("nameserver 10.7.0.2")
            || resolver.contains("nameserver 169.254.169.253"),
        "the resolver: {resolver}"
    );
    let name = format!("ip-{}", guest.private_ip.to_string().replace('.', "-"));
    let hostname = shell.run("hostname")?;
    ensure!(hostname.split('.').next() == Some(name.as_str()), "the host name: {hostname}");
    // Names of the VPC, there and back.
    let domain = shell.run("sed -n 's/^search //p' /etc/resolv.conf")?;
    let resolved = shell.run(&format!("nslookup {name}.{domain}; nslookup {}", guest.private_ip))?;
    ensure!(
        resolved.contains(&format!("Address: {}", guest.private_ip))
            && resolved.contains(&format!("name = {name}.")),
        "DNS: {resolved}"
    );
    // A lease is renewed by asking the router directly, and stays the same.
    let mut answers = Capture::start(world.inside(), &world.tap(guest)?, Way::ToGuest, "udp src port 67")?;
    shell.run("kill -USR1 $(pidof udhcpc)")?;
    answers.expect(&["DHCP, Reply"], Duration::from_secs(5))?;
    std::thread::sleep(Duration::from_millis(500));
    let renewed = shell.run(inet)?;
    ensure!(
        renewed == address,
        "the lease changed when renewed: {address}\n{renewed}\n{:?}",
        answers.frames()
    );
    say!("DHCP: {} mtu {mtu}; {}", guest.private_ip, routes.replace('\n', "; "));
    Ok(())
}

/// One request to the metadata service with `nc`, as busybox's wget cannot PUT: status and body.
fn http(shell: &mut Shell, request: &str, headers: &[&str]) -> anyhow::Result<(u16, String)> {
    let mut lines = format!("{request} HTTP/1.0\\r\\nHost: 169.254.169.254\\r\\n");
    for header in headers {
        lines.push_str(header);
        lines.push_str("\\r\\n");
    }
    let script = format!("(printf '{lines}\\r\\n'; sleep 0.3) | timeout 5 nc 169.254.169.254 80");
    let answer = shell.run(&script)?.replace('\r', "");
    let (head, body) = answer.split_once("\n\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    Ok((status.with_context(|| format!("{request}: {answer}"))?, body.trim().to_owned()))
}

fn token(shell: &mut Shell) -> anyhow::Result<String> {
    let ttl = ["X-aws-ec2-metadata-token-ttl-seconds: 60", "Content-Length: 0"];
    let (status, token) = http(shell, "PUT /latest/api/token", &ttl)?;
    ensure!(status == 200 && token.len() >= 16, "a token: {status} {token}");
    Ok(token)
}

/// The metadata tree with a session token (IMDSv2).
fn metadata(guest: &Instance, shell: &mut Shell) -> anyhow::Result<()> {
    let token = token(shell)?;
    let header = format!("X-aws-ec2-metadata-token: {token}");
    let mut get = |path: &str| -> anyhow::Result<String> {
        let (status, body) = http(shell, &format!("GET /latest/{path}"), &[&header])?;
        ensure!(status == 200, "{path}: {status} {body}");
        Ok(body)
    };
    ensure!(get("meta-data/instance-id")? == guest.id, "the instance id");
    ensure!(get("meta-data/local-ipv4")? == guest.private_ip.to_string(), "the address");
    ensure!(get("meta-data/public-ipv4")? == guest.public()?.to_string(), "the public address");
    let key = get("meta-data/public-keys/0/openssh-key")?;
    ensure!(key.starts_with("ssh-ed25519 "), "the key: {key}");
    ensure!(shell_has_key(&key), "the key: {key}");
    let zone = get("meta-data/placement/availability-zone")?;
    ensure!(!zone.is_empty(), "the zone");
    ensure!(get("user-data")?.contains("e2e-user-data"), "the user-data");
    let listing = get("meta-data/")?;
    for name in ["instance-id", "local-ipv4", "public-keys/", "placement/"] {
        ensure!(listing.lines().any(|l| l == name), "{name} is not listed: {listing}");
    }
    for (request, headers, wanted, why) in [
        ("PUT /latest/api/token", vec!["Content-Length: 0"], 400, "no time to live"),
        (
            "PUT /latest/api/token",
            vec![
                "X-aws-ec2-metadata-token-ttl-seconds: 60",
                "X-Forwarded-For: 10.0.0.1",
                "Content-Length: 0",
            ],
            403,
            "a proxy in between",
        ),
        ("GET /latest/meta-data/", vec!["X-aws-ec2-metadata-token: invented"], 401, "an invented token"),
        ("GET /latest/meta-data/no-such-thing", vec![header.as_str()], 404, "nothing there"),
    ] {
        let (status, body) = http(shell, request, &headers)?;
        ensure!(status == wanted, "{why}: {status}, not {wanted}: {body}");
    }
    say!("metadata: as documented");
    Ok(())
}

fn shell_has_key(key: &str) -> bool {
    key.split(' ').nth(1).is_some_and(|k| k.len() > 40)
}

/// A token is worth nothing for another instance.
fn tokens_are_not_shared(shell: &mut Shell, other: &mut Shell) -> anyhow::Result<()> {
    let token = token(shell)?;
    let header = format!("X-aws-ec2-metadata-token: {token}");
    let (status, _) = http(shell, "GET /latest/meta-data/instance-id", &[&header])?;
    ensure!(status == 200, "its owner's token: {status}");
    let (status, body) = http(other, "GET /latest/meta-data/instance-id", &[&header])?;
    ensure!(status == 401, "another instance's token: {status} {body}");
    Ok(())
}

/// The script ran once, and its output is on the console.
fn user_data(world: &World, guest: &Instance, shell: &mut Shell) -> anyhow::Result<()> {
    e2e::wait::holds("the user-data has run", Duration::from_secs(10), || shell.test("test -s /root/ran"))?;
    ensure!(shell.run("cat /root/ran")? == "ran", "the user-data ran more than once");
    e2e::wait::holds("its output is on the console", Duration::from_secs(10), || {
        Ok(guest.console(world.api())?.contains("e2e-user-data says hello"))
    })?;
    Ok(())
}

/// A second machine behind the host, and the host's default route to it.
struct WayOut;

impl WayOut {
    fn make(world: &World, beyond: &Namespace) -> anyhow::Result<Self> {
        let inside = world.inside();
        inside.check(&[
            "ip",
            "link",
            "add",
            "up0",
            "type",
            "veth",
            "peer",
            "name",
            "up1",
            "netns",
            beyond.name(),
        ])?;
        inside.check(&["ip", "addr", "add", &format!("{ELSEWHERE}/30"), "dev", "up0"])?;
        inside.check(&["ip", "link", "set", "up0", "up"])?;
        inside.check(&["ip", "route", "add", "default", "via", &BEYOND.to_string()])?;
        beyond.check(&["ip", "addr", "add", &format!("{BEYOND}/30"), "dev", "up1"])?;
        beyond.check(&["ip", "link", "set", "up1", "up"])?;
        Ok(Self)
    }
    fn remove(self, world: &World) -> anyhow::Result<()> {
        world.inside().check(&["ip", "link", "del", "up0"])?;
        Ok(())
    }
}

/// The host is not there for a guest, under none of its addresses; what is beyond it is.
fn host(world: &World, beyond: &Namespace, guest: &Instance, shell: &mut Shell) -> anyhow::Result<()> {
    let inside = world.inside();
    let on_host = HostServer::start(inside)?;
    let udp = inside.enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
    udp.set_read_timeout(Some(Duration::from_millis(10)))?;
    let udp_port = udp.local_addr()?.port();
    let udp_outside = beyond.enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, udp_port))?))?;
    udp_outside.set_read_timeout(Some(Duration::from_secs(3)))?;
    let outside = HostServer::start(beyond)?;
    // Everybody else can: the host itself on all its addresses, and the guest what is beyond.
    let text = inside.check(&["ip", "-4", "-brief", "address"])?;
    let mut addresses: Vec<Ipv4Addr> = text
        .split_whitespace()
        .filter_map(|word| word.split_once('/').and_then(|(a, _)| a.parse().ok()))
        .filter(|a: &Ipv4Addr| !a.is_loopback())
        .collect();
    ensure!(addresses.contains(&HOST), "{HOST} is not on the host: {addresses:?}");
    ensure!(addresses.contains(&ELSEWHERE), "{ELSEWHERE} is not on the host: {addresses:?}");
    for address in &addresses {
        ensure!(
            probe::connect(inside, *address, on_host.port)?.is_some(),
            "the host does not reach {address}"
        );
    }
    let hits = addresses.len();
    e2e::wait::holds("the host's own connections are counted", Duration::from_secs(5), || {
        Ok(on_host.hits() == hits)
    })?;
    let reach =
        |to: Ipv4Addr, port: u16| format!("echo hello | timeout 2 nc -w 2 {to} {port} | grep -q 'the host'");
    ensure!(shell.test(&reach(BEYOND, outside.port))?, "the guest does not reach {BEYOND}, beyond the host");
    ensure!(shell.test(&format!("ping -c 1 -W 2 {BEYOND}"))?, "the guest cannot ping {BEYOND}");
    // busybox has no `nc -u`; a TFTP request is a datagram like any other.
    let datagram =
        |to: Ipv4Addr| format!("timeout 2 tftp -g -l /tmp/none -r stolen {to} {udp_port} >/dev/null 2>&1");
    shell.run(&format!("{}; true", datagram(BEYOND)))?;
    let mut buffer = [0; 64];
    let (_, source) =
        udp_outside.recv_from(&mut buffer).context("a datagram of the guest beyond the host")?;
    ensure!(source.ip() == ELSEWHERE, "guests are not behind the host's address beyond it: {source}");
    say!("the guest reaches {BEYOND} beyond the host, as {source}");

    // A few of the services' own addresses stand for all.
    addresses.retain(|a| !a.is_link_local() || a.octets()[3] <= 4);
    addresses.extend([Ipv4Addr::new(10, 7, 4, 1), Ipv4Addr::new(169, 254, 169, 254)]);
    let mut tries = String::new();
    let ports = [on_host.port, 22, 53, 67, 80, 111, 443, 5432, 6640, 8080, 8081, 9090];
    for address in &addresses {
        for port in ports {
            // Metadata and DNS are there for guests, at their own addresses.
            let service = *address == Ipv4Addr::new(169, 254, 169, 254) && (port == 80 || port == 53);
            if !service {
                tries.push_str(&format!(
                    // 1: no connection. 0, or 143 from `timeout`: there was one.
                    "(timeout 4 nc -w 1 {address} {port} </dev/null >/dev/null 2>&1; \
                     [ $? = 1 ] || echo 'OPEN {address} {port}') &\n"
                ));
            }
        }
        tries.push_str(&format!("{} &\n", datagram(*address)));
    }
    tries.push_str("wait; true");
    let found = shell.run_for(&tries, Duration::from_secs(60))?;
    ensure!(!found.contains("OPEN"), "the guest reaches the host: {found}");
    ensure!(
        on_host.hits() == hits,
        "{} connections, not the host's {hits}: the guest's reached it",
        on_host.hits()
    );
    ensure!(udp.recv(&mut buffer).is_err(), "a datagram of the guest reached the host");
    for address in [HOST, ELSEWHERE] {
        ensure!(!shell.test(&format!("ping -c 1 -W 1 {address}"))?, "{address} answers the guest's ping");
    }
    // They were not closed meanwhile, and the guest still gets out.
    ensure!(probe::connect(inside, HOST, on_host.port)?.is_some(), "the host's server is gone");
    ensure!(shell.test(&reach(BEYOND, outside.port))?, "the guest no longer reaches {BEYOND}");
    ensure!(probe::ssh_banner(inside, guest.public()?)?, "the guest is no longer reachable");
    say!("the guest reaches none of {addresses:?} on {ports:?}");
    Ok(())
}
