//! A guest that claims to be somebody else is silent, and is itself again as soon as it stops.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::ensure;
use e2e::capture::Way;
use e2e::tell;
use e2e::topology::{Launch, Network, launch};
use e2e::world::World;
use e2e::{Capture, say};
use e2e::{Cloud, Host};

/// A lie: what it is called, and how it is told. Runs in the background of the guest, as it may cut the shell off.
struct Lie {
    name: &'static str,
    begin: String,
    tell: String,
    end: String,
    /// Words of the frames that the neighbour must not be given.
    frames: Vec<Vec<String>>,
}

const FOREIGN_MAC: &str = "02:66:66:66:66:66";

#[test]
fn a_guest_that_claims_to_be_another_is_silent() {
    tell("spoof", |world: &World| {
        let api = world.api();
        let inside = world.inside();
        let network = Network::build(api, "spoof", "10.0.0.0/16", "10.0.1.0/24", true)?;
        network.open(api)?;
        network.allow(api, "udp", "all", "0.0.0.0/0")?;
        // Addresses of which none is the beginning of another, as lines are searched for words.
        let groups = [network.group.clone()];
        let at = |name: &str, last: u8| {
            let address = Some(Ipv4Addr::new(10, 0, 1, last));
            launch(
                world,
                &Launch { groups: &groups, private_ip: address, ..Launch::tiny(name, &network.subnet) },
            )
        };
        let liar = at("liar", 21)?;
        let victim = at("victim", 22)?;
        let liar = liar.becomes(api, "running", e2e::topology::BOOT)?;
        let victim = victim.becomes(api, "running", e2e::topology::BOOT)?;
        let mut shell = liar.shell(world)?;
        let mut other = victim.shell(world)?;
        let mac = shell.run("cat /sys/class/net/eth0/address")?;
        let victim_mac = other.run("cat /sys/class/net/eth0/address")?;
        let gateway_mac =
            shell.run("arping -c 1 -w 2 -I eth0 10.0.1.1 | sed -n 's/.*\\[\\(.*\\)\\].*/\\1/p'")?;
        ensure!(gateway_mac.len() == 17, "the router's Ethernet address: {gateway_mac}");
        let tap = world.tap(&victim)?;
        let to = victim.private_ip;
        let free = "10.0.1.200";

        let honest = format!("ping -c 2 -W 1 {to}");
        let through = |source: &str| {
            format!(
                "ping -c 2 -W 1 -I {source} {to}; traceroute -n -q 1 -w 1 -f 5 -m 5 -p 9000 -s {source} {to}; \
                 arping -c 2 -w 2 -U -I eth0 {source}"
            )
        };
        let lies = [
            Lie {
                name: "a foreign Ethernet address",
                begin: format!("ip link set eth0 address {FOREIGN_MAC}"),
                tell: format!(
                    "{honest}; arping -c 2 -w 2 -I eth0 {to}; arping -c 2 -w 2 -U -I eth0 {}",
                    liar.private_ip
                ),
                end: format!("ip link set eth0 address {mac}"),
                frames: vec![vec![FOREIGN_MAC.to_owned()], vec![format!("{} > {to}", liar.private_ip)]],
            },
            Lie {
                name: "the neighbour's own Ethernet address",
                begin: format!("ip link set eth0 address {victim_mac}"),
                tell: honest.clone(),
                end: format!("ip link set eth0 address {mac}"),
                frames: vec![vec![format!("{} > {to}", liar.private_ip)]],
            },
            Lie {
                name: "a foreign address",
                begin: format!("ip addr add {free}/24 dev eth0"),
                tell: through(free),
                end: format!("ip addr del {free}/24 dev eth0"),
                frames: vec![vec![free.to_owned()]],
            },
            Lie {
                name: "the router's address",
                begin: "ip addr add 10.0.1.1/32 dev eth0".to_owned(),
                tell: through("10.0.1.1"),
                end: "ip addr del 10.0.1.1/32 dev eth0".to_owned(),
                // What the router itself may say to the neighbour does not come with an ICMP request or our UDP.
                frames: vec![
                    vec![format!("10.0.1.1 > {to}"), "echo request".to_owned()],
                    vec![format!("10.0.1.1."), "UDP".to_owned()],
                    vec!["Reply 10.0.1.1 is-at".to_owned(), mac.clone()],
                ],
            },
            Lie {
                name: "the router's Ethernet address",
                begin: format!("ip link set eth0 address {gateway_mac}"),
                tell: format!("{honest}; timeout 2 nc -w 1 {to} 9"),
                end: format!("ip link set eth0 address {mac}"),
                frames: vec![vec![format!("{} > {to}", liar.private_ip)]],
            },
            Lie {
                name: "the neighbour's address",
                begin: format!("ip addr add {to}/32 dev eth0"),
                tell: format!("arping -c 3 -w 3 -U -I eth0 {to}; arping -c 2 -w 2 -A -I eth0 {to}"),
                end: format!("ip addr del {to}/32 dev eth0"),
                frames: vec![vec![format!("who-has {to}")], vec![format!("{to} is-at")]],
            },
        ];
        for lie in lies {
            // It can hear: the honest one is heard on the same capture, before and after.
            let mut capture = Capture::start(inside, &tap, Way::ToGuest, "not (tcp port 22)")?;
            shell.run(&honest)?;
            capture.expect(&["echo request"], Duration::from_secs(2))?;
            drop(capture);

            let mut capture = Capture::start(inside, &tap, Way::ToGuest, "not (tcp port 22)")?;
            let at_liar = Capture::start(inside, &world.tap(&liar)?, Way::FromGuest, "not (tcp port 22)")?;
            let script = format!(
                "(sleep 0.2; {}; {}; {}; echo told) </dev/null >/tmp/lie.log 2>&1 &",
                lie.begin, lie.tell, lie.end
            );
            shell.run(&script)?;
            e2e::wait::holds(&format!("the lie of {} is told", lie.name), Duration::from_secs(30), || {
                shell.test("grep -q ^told /tmp/lie.log")
            })?;
            let sent = at_liar.finish(&[]).len();
            ensure!(sent > 0, "{}: the guest sent nothing, which proves nothing", lie.name);
            shell.run(&honest)?;
            capture
                .expect(&["echo request", &format!("{} > {to}", liar.private_ip)], Duration::from_secs(2))?;
            // Frames of the honest ping at the end carry the right Ethernet address: they are the last two requests.
            let heard = capture.finish(&[]);
            let honest_ones = heard
                .iter()
                .filter(|f| f.contains(&format!("{} > {to}", liar.private_ip)) && f.contains("echo request"))
                .count();
            ensure!(
                honest_ones <= 2,
                "{}: {honest_ones} requests reached the neighbour: {heard:?}",
                lie.name
            );
            for words in &lie.frames {
                let caught: Vec<_> = heard
                    .iter()
                    .filter(|f| words.iter().all(|w| f.contains(w.as_str())))
                    .filter(|f| {
                        !(f.contains("echo request") && f.contains(&format!("{} > {to}", liar.private_ip)))
                    })
                    .collect();
                ensure!(caught.is_empty(), "{}: the neighbour was given {caught:?}", lie.name);
            }
            say!("{}: {sent} frames sent, none of them delivered", lie.name);
        }
        // Both are who they were, also for each other.
        ensure!(
            other.test(&format!("ping -c 1 -W 2 {}", liar.private_ip))?,
            "the neighbour does not reach the liar"
        );
        let known = other.run("ip neigh; true")?;
        ensure!(!known.contains(FOREIGN_MAC), "the neighbour believed it: {known}");
        Ok(())
    });
}
