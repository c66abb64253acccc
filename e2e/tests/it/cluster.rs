//! Three servers: instances on both workers, and every part that dies, is away or comes back (rows B1, D2–D4, E1–E3,
//! M1, M5).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::cluster::{CONTROL, Cluster, WORKER, tell};
use e2e::probe;
use e2e::say;
use e2e::topology::{BOOT, Cloud, Instance, Network};
use gon_types::Role;

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

/// Launches until there is one on each worker; they run.
fn one_on_each(cluster: &Cluster, network: &Network) -> anyhow::Result<Vec<Instance>> {
    let mut found: Vec<Instance> = Vec::new();
    for number in 0..4 {
        let launched = network.run(cluster, &format!("guest-{number}"))?;
        if !found.iter().any(|i| i.json["worker_node"] == launched.json["worker_node"]) {
            found.push(launched);
        }
        if found.len() == 2 {
            return Ok(found);
        }
    }
    anyhow::bail!("every instance is on the same worker: {found:?}")
}

/// Every process number of a guest.
fn guests(cluster: &Cluster) -> anyhow::Result<BTreeSet<i32>> {
    let mut all = BTreeSet::new();
    for server in cluster.workers() {
        all.extend(server.guests()?.iter().map(|g| g.pid));
    }
    Ok(all)
}

/// From its own worker, whose host every instance's public address is on.
fn answers(cluster: &Cluster, instance: &Instance, why: &str) -> anyhow::Result<Duration> {
    probe::answers(cluster.worker_of(instance)?.inside(), instance.public()?, why)
}

#[test]
fn instances_run_on_both_workers_and_nobody_notices_what_dies() {
    tell("site", |cluster| {
        let api = cluster.api();
        let network = Network::build(api, "site", "10.0.0.0/16", "10.0.1.0/24", true)?;
        network.open(api)?;
        let both = one_on_each(cluster, &network)?;
        for instance in &both {
            answers(cluster, instance, "it runs")?;
        }
        let pids = guests(cluster)?;

        // M1: agents are replaced under running guests.
        for server in cluster.workers() {
            for role in WORKER {
                server.stop(*role)?;
            }
            for role in WORKER {
                cluster.spawn(server, *role)?;
            }
            for role in WORKER {
                server.wait_ready(*role)?;
            }
        }
        ensure!(guests(cluster)? == pids, "a guest was started again");
        for instance in &both {
            answers(cluster, instance, "its agents were replaced")?;
        }

        // B1: RabbitMQ is away all the time; everything is done all the same, by looking.
        cluster.broker(false)?;
        let start = Instant::now();
        let mut more = Vec::new();
        for number in 0..3 {
            more.push(network.launch(cluster, &format!("silent-{number}"))?);
        }
        for instance in &more {
            instance.becomes(api, "running", BOOT)?;
        }
        for instance in &more {
            instance.terminate(api)?;
        }
        for instance in &more {
            instance.becomes(api, "terminated", BOOT)?;
        }
        say!("without RabbitMQ: three lives in {:.1} s", start.elapsed().as_secs_f64());
        cluster.broker(true)?;

        // Everything of the control plane ends in time when asked, and comes back.
        for role in CONTROL {
            let took = cluster.control().stop(*role)?;
            ensure!(took < Duration::from_secs(5), "{role} took {took:?}");
        }
        cluster.start_control()?;
        ensure!(guests(cluster)? == pids, "a guest was started again");
        for instance in &both {
            let now = instance.refresh(api)?;
            ensure!(now.state == "running", "{} is {}", now.name, now.state);
        }
        Ok(())
    });
}
