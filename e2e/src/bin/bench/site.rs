//! Three servers: how long until the node's agent has the work, with RabbitMQ and without, and what the services cost
//! when there is nothing to do.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::api::text;
use e2e::cluster::{CONTROL, Cluster, Server, WORKER};
use e2e::topology::{BOOT, Cloud, Network};
use e2e::wait;
use gon_types::Role;
use serde_json::Value;

use crate::report::{Report, Spread, Target, percentile};

/// Launches with RabbitMQ, and without.
const LAUNCHES: (usize, usize) = (60, 6);
/// Launches before.
const WARM_UP: usize = 16;
/// Longer than a delivery takes. Who looks earlier takes processors from what is measured.
const OVER: Duration = Duration::from_millis(100);
/// How long idle services are watched.
const IDLE: Duration = Duration::from_secs(20);

pub fn run(report: &mut Report) -> anyhow::Result<()> {
    // What is promised is promised of commits that are on a disk.
    gon_testkit::durable();
    let cluster = Cluster::start("site")?;
    let told = measure(&cluster, report);
    if told.is_err() {
        eprintln!("{}", cluster.diagnosis());
    }
    told.and(cluster.end())
}

fn measure(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    let network = Network::build(cluster.api(), "site", "10.0.0.0/16", "10.0.1.0/24", true)?;
    // What is measured is not the first use of anything: every connection to PostgreSQL learns a statement when it is first
    // asked for it, and each service takes its connections in turn.
    deliveries(cluster, &network, WARM_UP)?;
    let (mut with, on_disk): (Vec<_>, Vec<_>) =
        deliveries(cluster, &network, LAUNCHES.0)?.into_iter().unzip();
    with.sort_by(f64::total_cmp);
    let (p50, p99) = (Spread::of(&with).median, percentile(&with, 0.99));
    report.add("accepted → agent has the work, p50", "ms", Spread::of(&[p50]), None, Target::AtMost(5.0));
    report.add("accepted → agent has the work, p99", "ms", Spread::of(&[p99]), None, Target::AtMost(25.0));
    let p50 = Spread::of(&on_disk).median;
    report.add("accepted → on the agent's disk, p50", "ms", Spread::of(&[p50]), None, Target::None);
    idle(cluster, report)?;
    cluster.broker(false)?;
    let without: Vec<_> =
        deliveries(cluster, &network, LAUNCHES.1)?.into_iter().map(|(here, _)| here).collect();
    let without = Spread::of(&without);
    report.add("the same without RabbitMQ", "ms", without, None, Target::AtMost(10_000.0));
    cluster.broker(true)
}

/// Milliseconds from the log line that says "accepted" to those of the agent that has the document, and has it on its
/// disk.
fn deliveries(cluster: &Cluster, network: &Network, count: usize) -> anyhow::Result<Vec<(f64, f64)>> {
    let api = cluster.api();
    let mut all = Vec::new();
    for number in 0..count {
        let launched = network.launch(cluster, &format!("bench-{number}"))?;
        std::thread::sleep(OVER);
        let (took, _) = wait::until("the agent has the work", Duration::from_secs(30), || {
            delivery(cluster, &launched.id)
        })?;
        all.push(took);
        // Its end is no part of it; but what lives on would be in the way of the next.
        launched.terminate(api)?;
        launched.becomes(api, "terminated", BOOT)?;
    }
    Ok(all)
}

/// How long it took until the agent had the work that an instance is, and until that was on its disk, if it is.
fn delivery(cluster: &Cluster, instance: &str) -> anyhow::Result<Option<(f64, f64)>> {
    let told = lines(&cluster.control().log(Role::InstanceManager))?;
    let Some(told) =
        told.iter().rev().find(|l| l["message"] == "its node is told" && l["instance"] == instance)
    else {
        return Ok(None);
    };
    let (operation, version) = (text(told, "operation_id")?, text(told, "version")?);
    let accepted = lines(&cluster.control().log(Role::ApiServer))?;
    let accepted = accepted
        .iter()
        .rev()
        .find(|l| l["message"] == "accepted" && l["operation_id"] == operation.as_str())
        .context("it was accepted")?;
    for server in cluster.workers() {
        let log = lines(&server.log(Role::HypervisorAgent))?;
        let when = |message: &str| {
            let mine = log.iter().rev().find(|l| {
                l["message"] == message && l["version"] == version.as_str() && at(l).ok() > at(accepted).ok()
            });
            mine.map(at).transpose()
        };
        if let (Some(here), Some(kept)) =
            (when("a compute document is here")?, when("a compute document is in force")?)
        {
            let accepted = at(accepted)?;
            return Ok(Some(((here - accepted) * 1e3, (kept - accepted) * 1e3)));
        }
    }
    Ok(None)
}

/// The last lines of a log.
fn lines(path: &Path) -> anyhow::Result<Vec<Value>> {
    let log = e2e::process::tail(path, 40);
    Ok(log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Seconds since midnight.
fn at(line: &Value) -> anyhow::Result<f64> {
    let time = line["time"].as_str().context("a time")?;
    let clock = time.split_once('T').context("a time")?.1.trim_end_matches('Z');
    let mut seconds = 0.0;
    for part in clock.split(':') {
        seconds = seconds * 60.0 + part.parse::<f64>()?;
    }
    Ok(seconds)
}

fn idle(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    std::thread::sleep(Duration::from_secs(5));
    let mut all = Vec::new();
    for (server, roles) in [(cluster.control(), CONTROL), (&cluster.workers()[0], WORKER)] {
        for role in roles {
            all.push((*role, server, ticks(server, *role)?));
        }
    }
    std::thread::sleep(IDLE);
    let (mut control, mut busiest) = (0.0, 0.0_f64);
    for (role, server, before) in all {
        let cpu = (ticks(server, role)? - before) / IDLE.as_secs_f64() * 100.0;
        busiest = busiest.max(cpu);
        let resident = resident(server.pid(role)?)?;
        if CONTROL.contains(&role) {
            control += resident;
            report.add(
                &format!("{role}, resident when idle"),
                "MiB",
                Spread::of(&[resident]),
                None,
                Target::None,
            );
        } else {
            let target = Target::AtMost(25.0);
            report.add(&format!("{role}, resident when idle"), "MiB", Spread::of(&[resident]), None, target);
        }
    }
    report.add("the control plane together", "MiB", Spread::of(&[control]), None, Target::AtMost(150.0));
    report.add("the busiest idle service", "% of a CPU", Spread::of(&[busiest]), None, Target::AtMost(2.0));
    Ok(())
}

/// CPU seconds that a service has used.
fn ticks(server: &Server, role: Role) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid(role)?))?;
    let fields: Vec<&str> = stat.rsplit_once(") ").context("a command")?.1.split(' ').collect();
    ensure!(fields.len() > 12, "{stat}");
    // Fields 14 and 15 of proc(5), in hundredths of a second on every Linux.
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

fn resident(process: i32) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse::<f64>()? / 1024.0)
}
