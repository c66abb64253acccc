//! Rows A1 and A2: gond dies before and after every step of creating and of deleting an instance that is not the
//! hypervisor agent's (whose own are in its crate, one by one). The steps are those of `gon_types::crash`: a step that
//! no life of an instance comes to fails this test.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::Cloud;
use e2e::say;
use e2e::tell;
use e2e::topology::{BOOT, Instance, Launch, Network, request};
use e2e::world::World;
use gon_types::crash;

/// How long a restarted cloud may take until everything is as it should be.
const CONVERGED: Duration = Duration::from_secs(30);
/// From the restart until the instance runs, and until nothing is left of it.
const RUNS: Duration = Duration::from_secs(15);
const GONE: Duration = Duration::from_secs(20);

fn ours(kind: char) -> Vec<String> {
    crash::points(|step, what| step.starts_with(kind) && !what.starts_with("hypervisor agent"))
}

#[test]
fn an_instance_survives_a_crash_at_every_step_of_its_life() {
    tell("crash-points", |world: &World| {
        let api = world.api();
        let network = Network::build(api, "crash", "10.0.0.0/16", "10.0.1.0/24", true)?;
        let (creating, deleting) = (ours('C'), ours('D'));
        ensure!(creating.len() >= 20 && deleting.len() >= 16, "{creating:?} {deleting:?}");
        let rounds = creating.len().max(deleting.len());
        let (mut runs, mut gone) = (Duration::ZERO, Duration::ZERO);
        for round in 0..rounds {
            let (instance, took) = launched(world, &network, round, creating.get(round))?;
            runs = runs.max(took);
            let mut restarted = None;
            let tap = world.tap(&instance)?;
            if let Some(point) = deleting.get(round) {
                world.crash_at(point)?;
                // The answer may be lost with the process; asking twice is asking once.
                let asked = instance.terminate(api);
                world.wait_crashed(Duration::from_secs(20)).map_err(|e| e.context(point.clone()))?;
                restarted = Some(Instant::now());
                world.start_gond()?;
                if asked.is_err() {
                    instance.terminate(api)?;
                }
                say!("{point}: came to it");
            } else {
                instance.terminate(api)?;
            }
            crate::lifecycle::ended(world, &instance, &tap)?;
            gone = gone.max(restarted.map_or(Duration::ZERO, |at| at.elapsed()));
        }
        gon_testkit::did(
            "A1, A2",
            &format!(
                "{} crashes of a launch, it runs {runs:?} after the restart at most; {} of a removal, gone after {gone:?}",
                creating.len(),
                deleting.len()
            ),
        );
        ensure!(runs < RUNS && gone < GONE, "runs {runs:?}, gone {gone:?} after a restart");
        books_are_even(world)
    });
}

/// Launches an instance while gond dies at `point`; it runs exactly once in the end, whatever the client heard.
fn launched(
    world: &World,
    network: &Network,
    round: usize,
    point: Option<&String>,
) -> anyhow::Result<(Instance, Duration)> {
    let (api, name) = (world.api(), format!("life-{round}"));
    let what =
        Launch { groups: std::slice::from_ref(&network.group), ..Launch::tiny(&name, &network.subnet) };
    let body = request(world, &what)?;
    let (mut first, mut restarted) = (None, Instant::now());
    if let Some(point) = point {
        world.crash_at(point)?;
        first = api.post_once("/instances", &body, &name).ok();
        world.wait_crashed(Duration::from_secs(20)).map_err(|e| e.context(point.clone()))?;
        restarted = Instant::now();
        world.start_gond()?;
        say!("{point}: came to it, the launch {}", if first.is_some() { "answered" } else { "unanswered" });
    }
    let instance = Instance::parse(api.post_once("/instances", &body, &name)?)?;
    if let Some(first) = first {
        ensure!(first["id"] == instance.id.as_str(), "one key, two instances: {first} and {}", instance.id);
    }
    let instance = instance.becomes(api, "running", BOOT)?;
    let took = restarted.elapsed();
    let all = api.get(&format!("/instances?name={name}"))?;
    ensure!(all["items"].as_array().is_some_and(|items| items.len() == 1), "{all}");
    world.guest(&instance)?;
    Ok((instance, took))
}

/// Nothing is lent that nobody has, nothing waits, every key was used for one instance.
fn books_are_even(world: &World) -> anyhow::Result<()> {
    let question = "select (select count(*) from outbox), \
        (select coalesce(sum(used_vcpus + used_memory_mib + used_disk_gib), 0) from nodes), \
        (select count(*) from network_interfaces where deleted_at is null), \
        (select count(*) from public_ips where network_interface_id is not null)";
    e2e::wait::holds("the books are even", CONVERGED, || {
        let answer = world.sql(question)?;
        ensure!(answer.trim() == "0|0|0|0", "outbox|lent|interfaces|addresses: {}", answer.trim());
        Ok(true)
    })?;
    Ok(())
}
