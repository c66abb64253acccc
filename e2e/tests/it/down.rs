//! `gond admin down` leaves nothing on the machine, and the next start brings back what should run.

use anyhow::ensure;
use e2e::tell;
use e2e::topology::{BOOT, Network};
use e2e::world::World;
use e2e::{Cloud, Host};
use e2e::{probe, say};

#[test]
fn down_leaves_nothing_and_the_next_start_brings_everything_back() {
    tell("down", |world: &World| {
        let api = world.api();
        let network = Network::build(api, "down", "10.0.0.0/16", "10.0.1.0/24", true)?;
        network.open(api)?;
        let stays = network.launch(world, "stays")?;
        let rests = network.launch(world, "rests")?;
        let stays = stays.becomes(api, "running", BOOT)?;
        let rests = rests.becomes(api, "running", BOOT)?;
        rests.shell(world)?;
        rests.act(api, "stop", &serde_json::json!({ "force": true }))?;
        rests.becomes(api, "stopped", BOOT)?;
        let boot = stays.shell(world)?.run("cat /proc/sys/kernel/random/boot_id")?;
        // What is to be gone is there: the comparison can fail.
        let there = world.leftovers()?;
        for kind in
            ["left: process: ", "left: device: ", "left: filter: ", "left: address: ", "left: route: "]
        {
            ensure!(there.iter().any(|l| l.starts_with(kind)), "a running cloud has no {kind}: {there:#?}");
        }
        say!("a running cloud has {} things", there.len());

        world.admin_down()?;
        let left = world.leftovers()?;
        ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        ensure!(!probe::ping(world.inside(), stays.public()?)?, "the instance answers");
        // Nothing to do is done at once, and is no error.
        world.admin_down()?;

        world.start_gond()?;
        let back = stays.becomes(api, "running", BOOT)?;
        ensure!(
            back.private_ip == stays.private_ip && back.public_ip == stays.public_ip,
            "addresses changed"
        );
        let mut shell = back.shell(world)?;
        ensure!(shell.run("cat /proc/sys/kernel/random/boot_id")? != boot, "it did not boot");
        probe::answers(world.inside(), back.public()?, "the cloud is up again")?;
        let rests = rests.refresh(api)?;
        ensure!(rests.state == "stopped", "the stopped one is {}", rests.state);
        ensure!(world.guests()?.len() == 1, "guests: {:?}", world.guests()?);
        Ok(())
    });
}
