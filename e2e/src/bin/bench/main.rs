//! `make bench`: ours beside the peer, interleaved in one run, as ratios. Absolute figures of a shared machine drift by
//! a factor of two; the ratio of one run is what counts. Never fails for being slow: the marks are for people.
#![expect(clippy::print_stdout, reason = "a table is what it is for")]

mod api;
mod http;
mod launch;
mod memory;
mod moto;
mod net;
mod quickstart;
mod report;
mod rules;
mod site;

use anyhow::Context;
use e2e::world::World;

use crate::report::Report;

fn main() -> anyhow::Result<()> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    // Processes of its own that a part starts.
    match only.split_first() {
        Some((word, [dir])) if word == net::agent::WORD => return net::agent::run(dir.as_ref()),
        Some((word, words)) if word == net::simulation::WORD => return net::simulation::run(words),
        _ => {}
    }
    let wanted = |name: &str| only.is_empty() || only.iter().any(|o| o == name);
    let mut report = Report::default();
    let mut failed = Vec::new();
    let mut part = |name: &str, run: fn(&World, &mut Report) -> anyhow::Result<()>| {
        if !wanted(name) {
            return;
        }
        // A world of its own for each: what one measures does not depend on what another left.
        let told = World::start(name).and_then(|world| {
            let told = run(&world, &mut report).with_context(|| name.to_owned());
            if told.is_err() {
                eprintln!("{}", world.diagnosis());
            }
            told.and(world.end())
        });
        if let Err(error) = told {
            failed.push(format!("{name}: {error:#}"));
        }
    };
    part("api", api::measure);
    part("launch", launch::measure);
    part("rules", rules::measure);
    part("memory", memory::measure);
    part("quickstart", quickstart::measure);
    if wanted("site") {
        failed.extend(site::run(&mut report).err().map(|error| format!("site: {error:#}")));
    }
    if wanted("net") {
        failed.extend(net::run(&mut report).err().map(|error| format!("net: {error:#}")));
    }
    println!("{}", report.table());
    for line in &failed {
        println!("not measured: {line}");
    }
    anyhow::ensure!(failed.is_empty(), "{} parts could not be measured", failed.len());
    Ok(())
}
