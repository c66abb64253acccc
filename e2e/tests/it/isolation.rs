//! Two VPCs with the same addresses never hear each other; subnets of one VPC do, as far as rules allow.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::capture::Way;
use e2e::tell;
use e2e::topology::{Instance, Launch, Network, launch};
use e2e::world::World;
use e2e::{Capture, Shell, say};
use e2e::{Cloud, Host};

const BLOCK: &str = "10.0.0.0/16";
const SUBNET: &str = "10.0.1.0/24";

struct Guest {
    instance: Instance,
    tap: String,
    shell: Shell,
    mac: String,
}

impl Guest {
    fn new(world: &World, launched: &Instance) -> anyhow::Result<Self> {
        let instance = launched.becomes(world.api(), "running", e2e::topology::BOOT)?;
        let mut shell = instance.shell(world)?;
        let mac = shell.run("cat /sys/class/net/eth0/address")?;
        Ok(Self { tap: world.tap(&instance)?, instance, shell, mac })
    }
    fn ip(&self) -> Ipv4Addr {
        self.instance.private_ip
    }
    fn pings(&mut self, to: Ipv4Addr) -> anyhow::Result<bool> {
        self.shell.test(&format!("ping -c 1 -W 1 {to}"))
    }
}

#[test]
fn equal_addresses_of_two_vpcs_never_meet() {
    tell("isolation", |world: &World| {
        let api = world.api();
        let inside = world.inside();
        let red = Network::build(api, "red", BLOCK, SUBNET, true)?;
        let blue = Network::build(api, "blue", BLOCK, SUBNET, true)?;
        red.open(api)?;
        blue.open(api)?;
        let far_subnet = red.add_subnet(api, "far", "10.0.2.0/24")?;
        let at = |network: &Network, name: &str, subnet: &str, last: u8| {
            let address = Ipv4Addr::new(10, 0, if subnet == network.subnet { 1 } else { 2 }, last);
            let groups = [network.group.clone()];
            launch(
                world,
                &Launch { groups: &groups, private_ip: Some(address), ..Launch::tiny(name, subnet) },
            )
        };
        // The third of blue has an address nobody has in red.
        let launched = [
            at(&red, "red-1", &red.subnet, 11)?,
            at(&red, "red-2", &red.subnet, 12)?,
            at(&red, "red-far", &far_subnet, 13)?,
            at(&blue, "blue-1", &blue.subnet, 11)?,
            at(&blue, "blue-2", &blue.subnet, 12)?,
            at(&blue, "blue-3", &blue.subnet, 13)?,
        ];
        let taken = at(&red, "red-again", &red.subnet, 12).map(|i| i.id);
        ensure!(
            format!("{:#}", taken.unwrap_err()).contains("InvalidIPAddress.InUse"),
            "an address given twice"
        );
        let mut guests: Vec<Guest> =
            launched.iter().map(|i| Guest::new(world, i)).collect::<anyhow::Result<_>>()?;
        let mut next = || guests.remove(0);
        let (mut red_1, red_2, mut red_far) = (next(), next(), next());
        let (mut blue_1, blue_2, blue_3) = (next(), next(), next());
        ensure!(
            red_1.ip() == blue_1.ip() && red_2.ip() == blue_2.ip(),
            "the VPCs' addresses are not the same"
        );
        let twice = red_2.ip();

        // Everything that blue's guests are given, whoever it claims to be from. The test's own SSH is left out.
        let listen = |tap: &str| Capture::start(inside, tap, Way::ToGuest, "not (tcp port 22)");
        let mut at_red_2 = listen(&red_2.tap)?;
        let mut at_blue_2 = listen(&blue_2.tap)?;
        let at_blue_1 = listen(&blue_1.tap)?;
        let mut at_blue_3 = listen(&blue_3.tap)?;
        let at_red_far = listen(&red_far.tap)?;

        // An address that both have: only the own VPC's hears.
        ensure!(red_1.pings(twice)?, "red-1 does not reach red-2");
        at_red_2.expect(&["ICMP echo request"], Duration::from_secs(2))?;
        ensure!(
            !at_blue_2.frames().iter().any(|f| f.contains("ICMP")),
            "blue-2 was given red's ping: {:?}",
            at_blue_2.frames()
        );
        // One that only blue has.
        ensure!(!red_1.pings(blue_3.ip())?, "red-1 reaches {}, which only blue has", blue_3.ip());
        ensure!(
            !red_1.shell.test(&format!("arping -c 2 -w 2 -I eth0 {}", blue_3.ip()))?,
            "somebody in red answers ARP for {}",
            blue_3.ip()
        );
        // Broadcast, multicast, IPv6: nothing floods, not even inside the VPC.
        let noise = "ping -c 2 -W 1 -I eth0 10.0.1.255; ping -c 2 -W 1 -I eth0 255.255.255.255; \
                     ping -c 2 -W 1 -I eth0 224.0.0.1; ping6 -c 2 -W 1 -I eth0 ff02::1; true";
        red_1.shell.run(noise)?;
        // A claim to an address of the other side, as ARP and as neighbours would believe it.
        red_1.shell.run(&format!("arping -c 2 -w 2 -U -I eth0 {}; true", red_1.ip()))?;
        // The other direction, so that what is silent can hear.
        ensure!(blue_1.pings(blue_3.ip())?, "blue-1 does not reach blue-3");
        at_blue_3.expect(&["ICMP echo request"], Duration::from_secs(2))?;
        ensure!(blue_1.pings(twice)?, "blue-1 does not reach blue-2");
        at_blue_2.expect(&["ICMP echo request"], Duration::from_secs(2))?;

        let of_red = [&red_1.mac, &red_2.mac, &red_far.mac];
        for (name, capture) in [("blue-1", at_blue_1), ("blue-2", at_blue_2), ("blue-3", at_blue_3)] {
            let all = capture.finish(&[]);
            let foreign: Vec<_> = all.iter().filter(|f| of_red.iter().any(|mac| f.contains(*mac))).collect();
            ensure!(foreign.is_empty(), "{name} was given frames of red: {foreign:?}");
            let pings = all.iter().filter(|f| f.contains("ICMP echo request")).count();
            ensure!(pings <= 1, "{name} was given {pings} pings, but blue-1 sent one: {all:?}");
            say!("{name} was given {} frames, none of them from red", all.len());
        }
        for (name, capture) in [("red-2", at_red_2), ("red-far", at_red_far)] {
            let noise: Vec<_> = capture
                .finish(&[])
                .into_iter()
                .filter(|f| {
                    ["10.0.1.255", "255.255.255.255", "224.0.0.1", "ff02::1", "33:33:"]
                        .iter()
                        .any(|w| f.contains(w))
                })
                .collect();
            ensure!(noise.is_empty(), "{name} was given broadcasts: {noise:?}");
        }

        routing_between_subnets(world, &red, &mut red_1, &mut red_far)
    });
}

/// Subnets of a VPC reach each other through the router, with a rule and not without.
fn routing_between_subnets(
    world: &World,
    red: &Network,
    near: &mut Guest,
    far: &mut Guest,
) -> anyhow::Result<()> {
    let api = world.api();
    let far_ip = far.ip();
    let answer = near.shell.run(&format!("ping -c 1 -W 2 {far_ip}"))?;
    // Linux starts at 64 and the router takes one.
    ensure!(answer.contains("ttl=63"), "not routed exactly once: {answer}");
    ensure!(near.pings(Ipv4Addr::new(10, 0, 1, 1))?, "the router does not answer");

    // One attempt: the far side listens, the near side says hello.
    let listen = "kill $(cat /tmp/nc.pid) 2>/dev/null; rm -f /tmp/got; \
                  nc -l -p 7777 </dev/null >/tmp/got 2>&1 & echo $! >/tmp/nc.pid; sleep 0.2";
    let mut serving = || -> anyhow::Result<bool> {
        far.shell.run(listen)?;
        near.shell.run(&format!("echo hello | timeout 3 nc -w 1 {far_ip} 7777; true"))?;
        far.shell.test("sleep 0.2; grep -q hello /tmp/got")
    };
    ensure!(!serving()?, "TCP between the subnets without a rule");
    let rule = red.allow(api, "tcp", "7777", "10.0.1.0/24")?;
    e2e::wait::holds("TCP between the subnets", Duration::from_secs(10), &mut serving)?;
    red.forbid(api, &rule)?;
    std::thread::sleep(Duration::from_millis(300));
    ensure!(!serving()?, "TCP between the subnets although the rule is gone");
    // A rule that names the group itself, as members' addresses.
    let rule = red.allow(api, "tcp", "7777", &red.group)?;
    e2e::wait::holds("TCP between members of the group", Duration::from_secs(10), &mut serving)?;
    red.forbid(api, &rule)?;
    std::thread::sleep(Duration::from_millis(300));
    ensure!(!serving()?, "TCP between members although the rule is gone");
    far.shell.run("kill $(cat /tmp/nc.pid) 2>/dev/null; true").context("stopping the listener")?;
    say!("subnets of a VPC reach each other with a rule, and not without");
    Ok(())
}
