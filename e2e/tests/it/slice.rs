//! An instance is reachable exactly while gateway, route, public address and rule are all there; each is taken away and
//! given back under a running instance, which never notices.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::api::text;
use e2e::tell;
use e2e::topology::Network;
use e2e::world::World;
use e2e::{Cloud, Host};
use e2e::{probe, say};
use hyper::Method;
use serde_json::json;

#[test]
fn an_instance_answers_only_while_all_four_are_there() {
    tell("slice", |world: &World| {
        let api = world.api();
        let inside = world.inside();
        // The gateway is missing and everything else is there: the route outlives it, as a black hole.
        let network = Network::build(api, "slice", "10.0.0.0/16", "10.0.1.0/24", true)?;
        let body = json!({ "vpc_id": network.vpc });
        let detach = format!("/internet-gateways/{}/detach", network.gateway);
        api.post(&detach, &body)?;
        let (ssh_rule, ping_rule) = network.open(api)?;
        let instance = network.run(world, "web")?;
        let automatic = instance.public()?;
        wait_for_boot(world, &instance)?;
        probe::silent(inside, automatic, "the gateway is not attached")?;
        network.attach(api)?;
        probe::answers(inside, automatic, "the gateway is attached")?;
        let boot = boot_id(world, &instance)?;
        // EC2 keeps a gateway whose VPC has mapped addresses.
        let code = api.refused(&Method::POST, &detach, Some(&body))?;
        ensure!(code == "DependencyViolation", "detaching a gateway in use: {code}");

        // The route.
        network.unroute_out(api)?;
        probe::silent(inside, automatic, "the route is gone")?;
        network.route_out(api)?;
        probe::answers(inside, automatic, "the route is back")?;

        // The public address: an allocated one takes the place of the automatic one.
        let address = api.post("/addresses", &json!({ "name": "web" }))?;
        let (allocation, elastic) = (text(&address, "id")?, text(&address, "public_ip")?.parse()?);
        let associate = || {
            let body = json!({ "instance_id": instance.id });
            api.post(&format!("/addresses/{allocation}/associate"), &body)
        };
        probe::silent(inside, elastic, "the address is nobody's")?;
        associate()?;
        probe::answers(inside, elastic, "the address is associated")?;
        probe::silent(inside, automatic, "the automatic address is released")?;
        api.post(&format!("/addresses/{allocation}/disassociate"), &json!({}))?;
        probe::silent(inside, elastic, "the address is disassociated")?;
        // Without a mapped address the gateway goes; then an association is refused, and the way back is the same.
        api.post(&detach, &body)?;
        let refused = api.refused(
            &Method::POST,
            &format!("/addresses/{allocation}/associate"),
            Some(&json!({ "instance_id": instance.id })),
        )?;
        ensure!(refused == "Gateway.NotAttached", "associating without a gateway: {refused}");
        probe::silent(inside, elastic, "gateway and address are gone")?;
        network.attach(api)?;
        associate()?;
        probe::answers(inside, elastic, "gateway and address are back")?;

        // The rules, each for itself.
        network.forbid(api, &ping_rule)?;
        e2e::wait::holds("ping falls silent", Duration::from_secs(10), || {
            Ok(!probe::ping(inside, elastic)?)
        })?;
        ensure!(!probe::ping(inside, elastic)?, "ping is answered although its rule is gone");
        ensure!(probe::ssh_banner(inside, elastic)?, "SSH is silent although its rule is there");
        network.forbid(api, &ssh_rule)?;
        probe::silent(inside, elastic, "both rules are gone")?;
        network.allow(api, "icmp", "all", "0.0.0.0/0")?;
        e2e::wait::holds("ping is answered", Duration::from_secs(10), || probe::ping(inside, elastic))?;
        ensure!(probe::connect(inside, elastic, 22)?.is_none(), "TCP although only ICMP is allowed");
        network.allow(api, "tcp", "22", "0.0.0.0/0")?;
        probe::answers(inside, elastic, "both rules are back")?;

        ensure!(boot_id(world, &instance.refresh(api)?)? == boot, "the guest has rebooted");
        Ok(())
    });
}

#[test]
fn rules_take_effect_on_connections_that_are_open() {
    tell("rules", |world: &World| {
        let api = world.api();
        let inside = world.inside();
        let network = Network::build(api, "rules", "10.0.0.0/16", "10.0.1.0/24", true)?;
        let (mut ssh_rule, _) = network.open(api)?;
        let instance = network.run(world, "web")?;
        let address = instance.public()?;
        let mut watching = instance.shell(world)?;
        let boot = watching.run("cat /proc/sys/kernel/random/boot_id")?;

        for round in 1..=3 {
            let mut open = instance.shell(world)?;
            open.run("true")?;
            let start = Instant::now();
            network.forbid(api, &ssh_rule)?;
            let answered = start.elapsed();
            let closed = probe::port_becomes(inside, address, 22, false)?;
            let cut = open.run_for("true", Duration::from_secs(2));
            ensure!(cut.is_err(), "an open connection lives on after its rule was removed");
            let start_again = Instant::now();
            ssh_rule = network.allow(api, "tcp", "22", "0.0.0.0/0")?;
            let granted = start_again.elapsed();
            let opened = probe::port_becomes(inside, address, 22, true)?;
            say!(
                "round {round}: revoke {} ms, then closed within {} ms; grant {} ms, then open within {} ms",
                answered.as_millis(),
                closed.as_millis(),
                granted.as_millis(),
                opened.as_millis()
            );
        }
        let mut shell = instance.shell(world)?;
        let now = shell.run("cat /proc/sys/kernel/random/boot_id")?;
        ensure!(now == boot, "the guest has rebooted");

        // A rule for one peer only: another source stays outside.
        network.forbid(api, &ssh_rule)?;
        probe::port_becomes(inside, address, 22, false)?;
        let other = network.allow(api, "tcp", "22", "198.51.100.0/24")?;
        ensure!(probe::connect(inside, address, 22)?.is_none(), "a rule for others lets the host in");
        network.forbid(api, &other)?;
        network.allow(api, "tcp", "22", "203.0.113.1/32")?;
        probe::port_becomes(inside, address, 22, true)?;
        Ok(())
    });
}

fn boot_id(world: &World, instance: &e2e::Instance) -> anyhow::Result<String> {
    instance.refresh(world.api())?.shell(world)?.run("cat /proc/sys/kernel/random/boot_id")
}

/// Until the guest says that it is ready: silence of a guest that does not run proves nothing.
fn wait_for_boot(world: &World, instance: &e2e::Instance) -> anyhow::Result<()> {
    e2e::wait::holds("the guest is ready", e2e::topology::BOOT, || {
        Ok(instance.console(world.api())?.contains("gon-linux: ready"))
    })?;
    Ok(())
}
