//! `kill -9` of gond at any time: the next start takes up where it was, guests never notice, nothing is orphaned.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::probe::LongPing;
use e2e::tell;
use e2e::topology::{BOOT, Instance, Network, living};
use e2e::world::World;
use e2e::{Cloud, Host};
use e2e::{probe, say};

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

#[test]
fn a_killed_gond_is_not_noticed_by_running_guests() {
    tell("crash-running", |world: &World| {
        let api = world.api();
        let inside = world.inside();
        let network = Network::build(api, "crash", "10.0.0.0/16", "10.0.1.0/24", true)?;
        let (_, ping_rule) = network.open(api)?;
        let guests = [network.launch(world, "one")?, network.launch(world, "two")?];
        let guests = [guests[0].becomes(api, "running", BOOT)?, guests[1].becomes(api, "running", BOOT)?];
        let address = guests[0].public()?;
        let mut shell = guests[0].shell(world)?;
        let mut neighbour = guests[1].shell(world)?;
        let boot = shell.run(BOOT_ID)?;
        let pid = world.guest(&guests[0])?.pid;
        // From here on packets are counted: through the gateway, and from guest to guest.
        let outside = LongPing::start(inside, address)?;
        neighbour.run(&format!(
            "ping -i 0.2 -q {} >/tmp/ping.log 2>&1 & echo $! >/tmp/ping.pid",
            guests[0].private_ip
        ))?;
        let flows = world.flows()?;
        for round in 1..=3 {
            world.kill_gond()?;
            // The data path needs nobody.
            let reaches = || probe::ping(inside, address);
            e2e::wait::holds("a ping while gond is away", Duration::from_secs(5), reaches)?;
            shell.run("true")?;
            world.start_gond()?;
            ensure!(shell.run(BOOT_ID)? == boot, "the guest has rebooted");
            for guest in &guests {
                guest.becomes(api, "running", Duration::from_secs(10))?;
            }
            ensure!(world.guest(&guests[0])?.pid == pid, "another process runs the guest");
            ensure!(world.guests()?.len() == 2, "guests: {:?}", world.guests()?);
            say!("round {round}: nobody noticed");
        }
        std::thread::sleep(Duration::from_secs(1));
        let count = outside.finish()?;
        neighbour.run("kill -INT $(cat /tmp/ping.pid); sleep 0.3")?;
        let inner = neighbour.run("grep transmitted /tmp/ping.log")?;
        say!("{count:?} from outside; between guests: {inner}");
        ensure!(count.lost.is_empty() && count.sent > 50, "packets were lost: {count:?}");
        let numbers: Vec<u32> = inner.split(' ').filter_map(|w| w.parse().ok()).collect();
        ensure!(
            numbers.len() >= 2 && numbers[0] <= numbers[1] + 1,
            "packets between guests were lost: {inner}"
        );
        ensure!(world.flows()? == flows, "other flows than before");

        // And it is in charge again: rules, and what guests ask of it.
        network.forbid(api, &ping_rule)?;
        e2e::wait::holds("ping falls silent", Duration::from_secs(10), || {
            Ok(!probe::ping(inside, address)?)
        })?;
        network.allow(api, "icmp", "all", "0.0.0.0/0")?;
        probe::answers(inside, address, "the rule is back")?;
        let metadata = "timeout 5 wget -q -O - http://169.254.169.254/latest/meta-data/instance-id";
        ensure!(shell.run(metadata)? == guests[0].id, "no metadata after the restarts");

        // What gond runs beside itself may die too: the switch, whose guests' connections go on, and the database.
        for program in ["ovs-vswitchd", "ovsdb-server", "postgres"] {
            let all = world.processes()?;
            let victim = all.iter().find(|p| p.program() == program).context(program)?;
            e2e::process::kill_hard(victim.pid);
            say!("{program} ({}) is killed", victim.pid);
            probe::answers(inside, address, "the switch is back")?;
            ensure!(shell.run(BOOT_ID)? == boot, "the guest has rebooted");
            let api_again = || Ok(guests[0].refresh(api).is_ok_and(|g| g.state == "running"));
            e2e::wait::holds("the API is back", Duration::from_secs(20), api_again)?;
            e2e::wait::holds(&format!("{program} runs again"), Duration::from_secs(20), || {
                Ok(world.processes()?.iter().any(|p| p.program() == program && p.pid != victim.pid))
            })?;
        }
        // For a minute after the switch's restart there are more: those that let known connections back in.
        e2e::wait::holds("the flows are back", Duration::from_secs(10), || {
            let (now, then) = (kinds(&world.flows()?), kinds(&flows));
            let gone: Vec<_> = then.difference(&now).collect();
            ensure!(gone.is_empty(), "gone: {gone:#?}");
            Ok(true)
        })?;
        Ok(())
    });
}

/// Flows without their origins: a rule that was removed and given again has another id.
fn kinds(flows: &[String]) -> BTreeSet<String> {
    flows.iter().map(|flow| flow.split_once(' ').map_or("", |(_, rest)| rest).to_owned()).collect()
}

#[test]
fn a_launch_survives_a_kill_at_any_moment() {
    tell("crash-launch", |world: &World| {
        let api = world.api();
        let network = Network::build(api, "crash", "10.0.0.0/16", "10.0.1.0/24", true)?;
        network.open(api)?;
        // Milliseconds after the answer to the launch: before placement, before the tap, before QEMU, before the
        // processors run, while the guest boots.
        for (index, delay) in [0, 15, 40, 80, 150, 400].into_iter().enumerate() {
            let name = format!("kill-{delay}");
            let instance = network.launch(world, &name)?;
            std::thread::sleep(Duration::from_millis(delay));
            world.kill_gond()?;
            let running = world.guests()?;
            let at_kill = running.iter().find(|g| g.command.contains(&instance.id)).map(|g| g.pid);
            world.start_gond()?;
            let instance = instance.becomes(api, "running", BOOT)?;
            let guest = world.guest(&instance)?;
            say!("killed {delay} ms after the launch: {at_kill:?} ran then, {} runs now", guest.pid);
            let mut shell = instance.shell(world)?;
            let uptime: f64 = shell.run("cut -d ' ' -f 1 /proc/uptime")?.parse()?;
            ensure!(uptime < 90.0, "an uptime of {uptime}");
            ensure!(world.guests()?.len() == 1, "after round {index}: {:?}", world.guests()?);
            // The next one has the machine for itself.
            drop(shell);
            let tap = world.tap(&instance)?;
            instance.terminate(api)?;
            crate::lifecycle::ended(world, &instance, &tap)?;
        }
        nothing_but(world, &[])
    });
}

#[test]
fn a_stop_and_a_termination_survive_a_kill_at_any_moment() {
    tell("crash-terminate", |world: &World| {
        let api = world.api();
        let network = Network::build(api, "crash", "10.0.0.0/16", "10.0.1.0/24", true)?;
        network.open(api)?;
        let bystander = network.run(world, "bystander")?;
        let mut watching = bystander.shell(world)?;
        let boot = watching.run(BOOT_ID)?;
        for delay in [0, 30, 120] {
            let instance = network.run(world, &format!("end-{delay}"))?;
            let tap = world.tap(&instance)?;
            instance.terminate(api)?;
            std::thread::sleep(Duration::from_millis(delay));
            world.kill_gond()?;
            world.start_gond()?;
            crate::lifecycle::ended(world, &instance, &tap)?;
            say!("killed {delay} ms after the termination: nothing is left");
        }
        // Killed while a guest is asked to stop.
        let instance = network.run(world, "stopping")?;
        instance.shell(world)?;
        instance.act(api, "stop", &serde_json::json!({}))?;
        std::thread::sleep(Duration::from_millis(100));
        world.kill_gond()?;
        world.start_gond()?;
        instance.becomes(api, "stopped", BOOT)?;
        nothing_but(world, std::slice::from_ref(&bystander))?;
        // Killed again and again, faster than it starts.
        for _ in 0..4 {
            world.kill_gond()?;
            world.spawn_gond()?;
            std::thread::sleep(Duration::from_millis(250));
        }
        world.wait_ready()?;
        ensure!(watching.run(BOOT_ID)? == boot, "the bystander has rebooted");
        nothing_but(world, std::slice::from_ref(&bystander))
    });
}

/// Exactly these instances run, each once, and every tap is the one of an instance that still is.
fn nothing_but(world: &World, running: &[Instance]) -> anyhow::Result<()> {
    e2e::wait::holds("nothing is orphaned", Duration::from_secs(10), || {
        let guests = world.guests()?;
        ensure!(guests.len() == running.len(), "{} guests: {guests:?}", guests.len());
        for instance in running {
            world.tap(instance)?;
        }
        let living = living(world.api())?;
        let mut taps = Vec::new();
        for instance in &living {
            taps.push(instance.device()?);
        }
        let mut devices = world.devices()?;
        devices.retain(|d| {
            !["lo", "br-int", "gon-meta", "gon-ext", "ovs-netdev", "ovs-system"].contains(&d.as_str())
        });
        devices.sort();
        taps.sort();
        ensure!(devices == taps, "devices {devices:?}, but the instances have {taps:?}");
        let count = living.iter().filter(|i| i.state == "running").count();
        ensure!(count == running.len(), "{count} are running, says the API");
        Ok(true)
    })?;
    Ok(())
}
