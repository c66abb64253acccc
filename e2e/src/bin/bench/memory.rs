//! What the daemon itself holds in memory with ten instances, and how fast it is back.

use std::time::{Duration, Instant};

use anyhow::Context;
use e2e::Cloud;
use e2e::topology::{BOOT, Network};
use e2e::world::World;

use crate::report::{Report, Spread, Target};

const INSTANCES: usize = 10;

pub fn measure(world: &World, report: &mut Report) -> anyhow::Result<()> {
    let api = world.api();
    let network = Network::build(api, "memory", "10.0.0.0/16", "10.0.1.0/24", true)?;
    network.open(api)?;
    let launched: anyhow::Result<Vec<_>> =
        (0..INSTANCES).map(|n| network.launch(world, &format!("memory-{n}"))).collect();
    for instance in launched? {
        instance.becomes(api, "running", BOOT)?;
        instance.shell(world)?;
    }
    let mut resident = Vec::new();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(500));
        resident.push(kib(world.gond_pid()?, "status", "VmRSS:")? / 1024.0);
    }
    let shared = kib(world.gond_pid()?, "smaps_rollup", "Pss:")? / 1024.0;
    report.add("gond, resident with 10 instances", "MiB", Spread::of(&resident), None, Target::AtMost(120.0));
    report.add("gond, proportional share", "MiB", Spread::of(&[shared]), None, Target::None);

    let mut restarts = Vec::new();
    for _ in 0..5 {
        world.kill_gond()?;
        let start = Instant::now();
        world.start_gond()?;
        restarts.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let target = Target::AtMost(10_000.0);
    report.add("gond, killed → ready again", "ms", Spread::of(&restarts), None, target);
    Ok(())
}

fn kib(process: i32, file: &str, field: &str) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/{file}"))?;
    let line = text.lines().find(|l| l.starts_with(field)).with_context(|| format!("{field} in {file}"))?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse()?)
}
