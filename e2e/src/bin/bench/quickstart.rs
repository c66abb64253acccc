//! What `make up` does after building: an empty cloud to an instance that answers SSH, and the same when all is there.

use std::time::{Duration, Instant};

use e2e::Host;
use e2e::world::World;
use e2e::{binaries, process};

use crate::report::{Report, Spread, Target};

const ROUNDS: usize = 5;

pub fn measure(world: &World, report: &mut Report) -> anyhow::Result<()> {
    let first = quickstart(world)?;
    let mut again = Vec::new();
    for _ in 0..ROUNDS {
        // A newer build replaces the daemon: the second `make up` may do that too.
        let start = Instant::now();
        world.kill_gond()?;
        world.start_gond()?;
        quickstart(world)?;
        again.push(start.elapsed().as_secs_f64());
    }
    report.add("quick start on an empty cloud", "s", Spread::of(&[first]), None, Target::None);
    let what = "second `make up` without its build: new daemon, quick start";
    report.add(what, "s", Spread::of(&again), None, Target::AtMost(10.0));
    Ok(())
}

fn quickstart(world: &World) -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut command = world.inside().command(&binaries::binaries()?.join("gon").to_string_lossy());
    command.args(["--url", e2e::world::API_URL, "quickstart", "--data-dir"]).arg(world.data_dir());
    command.env("GON_ADMIN_USER", e2e::world::USER).env("GON_ADMIN_PASSWORD", e2e::world::PASSWORD);
    process::check(&mut command, Duration::from_secs(120))?;
    Ok(start.elapsed().as_secs_f64())
}
