//! Three servers: instances on both workers, and every part that dies, is away or comes back (rows A5, B1, B2, D2–D4,
//! D6, E1–E3, M1, M5 of the fault matrix).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::Host;
use e2e::binaries::binaries;
use e2e::cluster::{CONTROL, Cluster, Server, WORKER};
use e2e::probe::{self, LongPing};
use e2e::shell::Shell;
use e2e::topology::{BOOT, Cloud, Instance, Network};
use e2e::world::{PASSWORD, USER};
use e2e::{say, tell, wait};
use gon_testkit::{did, measure};
use gon_types::Role;
use nix::sys::signal::Signal;

/// A controller that died has a successor within this time.
const TAKEOVER: Duration = Duration::from_secs(15);
/// Silence of a node is noticed within this time.
const NOTICED: Duration = Duration::from_secs(15 + 5);

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

/// Launches until there is one on each worker; they run.
pub(crate) fn one_on_each(cluster: &Cluster, network: &Network) -> anyhow::Result<Vec<Instance>> {
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
pub(crate) fn guests(cluster: &Cluster) -> anyhow::Result<BTreeSet<i32>> {
    let mut all = BTreeSet::new();
    for server in cluster.workers() {
        all.extend(server.guests()?.iter().map(|g| g.pid));
    }
    Ok(all)
}

/// Waits until an instance answers ping and SSH from its own worker, whose host its public address is on; it may have
/// to boot first.
pub(crate) fn answers(cluster: &Cluster, instance: &Instance, why: &str) -> anyhow::Result<Duration> {
    let (inside, public) = (cluster.worker_of(instance)?.inside(), instance.public()?);
    let took = wait::holds(&format!("{public} answers ({why})"), BOOT, || {
        Ok(probe::ping(inside, public)? && probe::ssh_banner(inside, public)?)
    })?;
    say!("{public} answers after {} ms: {why}", took.as_millis());
    Ok(took)
}

pub(crate) fn long_pings(cluster: &Cluster, instances: &[Instance]) -> anyhow::Result<Vec<LongPing>> {
    let start = |i: &Instance| LongPing::start(cluster.worker_of(i)?.inside(), i.public()?);
    instances.iter().map(start).collect()
}

/// No packet of any of them was lost.
pub(crate) fn none_lost(pings: Vec<LongPing>, while_: &str) -> anyhow::Result<()> {
    for ping in pings {
        let count = ping.finish()?;
        say!("{} pings, lost {:?}: {while_}", count.sent, count.lost);
        ensure!(count.sent > 50, "only {} pings", count.sent);
        ensure!(count.lost.is_empty(), "lost {:?} of {} while {while_}", count.lost, count.sent);
    }
    Ok(())
}

fn shell(cluster: &Cluster, instance: &Instance) -> anyhow::Result<Shell> {
    let worker = cluster.worker_of(instance)?;
    Shell::open(worker.inside(), cluster.key_file(), "root", instance.public()?, BOOT)
        .with_context(|| format!("a shell in {}", instance.name))
}

fn private(instance: &Instance) -> anyhow::Result<Ipv4Addr> {
    Ok(instance.json["private_ip"].as_str().context("a private address")?.parse()?)
}

/// One life from launch to terminated, whatever is away.
fn lives(cluster: &Cluster, network: &Network, names: &[&str]) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let api = cluster.api();
    let launched: Vec<Instance> =
        names.iter().map(|name| network.launch(cluster, name)).collect::<anyhow::Result<_>>()?;
    for instance in &launched {
        instance.becomes(api, "running", BOOT)?;
    }
    for instance in &launched {
        instance.terminate(api)?;
    }
    for instance in &launched {
        instance.becomes(api, "terminated", BOOT)?;
    }
    Ok(start.elapsed())
}

pub(crate) fn restart(cluster: &Cluster, server: &Server) -> anyhow::Result<()> {
    for role in WORKER {
        server.stop(*role)?;
    }
    cluster.spawn_all(server, WORKER)?;
    cluster.agents_ready(server)
}

/// States of all instances as the API tells them.
pub(crate) fn states(cluster: &Cluster, instances: &[Instance]) -> anyhow::Result<Vec<String>> {
    instances.iter().map(|i| Ok(i.refresh(cluster.api())?.state)).collect()
}

#[test]
fn instances_run_on_both_workers_and_nobody_notices_what_dies() {
    tell("site", |cluster: &Cluster| {
        let api = cluster.api();
        let network = Network::build(api, "site", "10.0.0.0/16", "10.0.1.0/24", true)?;
        network.open(api)?;
        let both = one_on_each(cluster, &network)?;
        for instance in &both {
            answers(cluster, instance, "it runs")?;
        }
        let pids = guests(cluster)?;

        // The client believes the site's authority, and nobody without being told whom.
        let gon = |arguments: &[&str]| {
            let mut command = cluster.control().inside().command(&binaries()?.join("gon").to_string_lossy());
            command.env("XDG_CONFIG_HOME", cluster.control().data_dir()).env("GON_PASSWORD", PASSWORD);
            e2e::process::check(command.args(arguments), Duration::from_secs(20))
        };
        let url = format!("https://{}:8080", cluster.control().address());
        let ca = cluster.control().data_dir().join("tls/ca.crt");
        let stranger = gon(&["--url", &url, "login", USER]).expect_err("nobody said whom to believe");
        ensure!(format!("{stranger:#}").contains("--ca"), "{stranger:#}");
        gon(&["--url", &url, "login", "--ca", &ca.to_string_lossy(), USER])?;
        let listed = gon(&["list", "nodes"])?;
        ensure!(listed.contains("worker-1") && listed.contains("worker-2"), "{listed}");

        // A VPC crosses servers; and its packets do so in the clear for nobody but the two workers.
        let mut inside = shell(cluster, &both[0])?;
        let other = private(&both[1])?;
        inside.run(&format!("ping -c 3 -W 2 {other}"))?;
        // An operator is told so, and the switches of both say the same.
        let packet = format!("icmp,{}>{other}", private(&both[0])?);
        let told = gon(&["trace", &both[0].id, &packet, "--live"])?;
        ensure!(told.matches("= the switch: the same").count() == 2, "{told}");
        ensure!(told.contains("on worker-1 (") && told.contains("on worker-2 ("), "{told}");
        ensure!(told.trim_end().ends_with(&format!("({other}) of {}", both[1].id)), "{told}");
        // Full frames: what a tunnel costs is taken off the guests' MTU.
        inside.run(&format!("ping -c 3 -W 2 -s 1300 {other}"))?;
        say!("{} reaches {} on the other worker", both[0].name, both[1].name);

        // M1: agents are replaced under running guests and their packets.
        let pings = long_pings(cluster, &both)?;
        for server in cluster.workers() {
            restart(cluster, server)?;
        }
        none_lost(pings, "agents were replaced")?;
        ensure!(guests(cluster)? == pids, "a guest was started again");
        inside.run(&format!("ping -c 1 -W 2 {other}"))?;

        // B1: RabbitMQ is away all the time; everything is done all the same, by looking.
        cluster.broker(false)?;
        let rounds = measure(1, 34);
        let mut slowest = Duration::ZERO;
        for round in 0..rounds {
            let names = [0, 1, 2].map(|n| format!("silent-{round}-{n}"));
            let names = [&*names[0], &*names[1], &*names[2]];
            slowest = slowest.max(lives(cluster, &network, &names)?);
        }
        did("B1", &format!("without RabbitMQ {} lives, three at once in {slowest:?} at most", 3 * rounds));
        // B2: it comes back and dies again while there is work: in the long run every twenty seconds for ten minutes.
        let (begin, kills) = (Instant::now(), measure(2, 30));
        for round in 0..kills {
            std::thread::sleep(
                measure(Duration::ZERO, Duration::from_secs(20 * round)).saturating_sub(begin.elapsed()),
            );
            cluster.broker(true)?;
            let names = [format!("again-{round}-0"), format!("again-{round}-1")];
            let launched: Vec<_> =
                names.iter().map(|n| network.launch(cluster, n)).collect::<anyhow::Result<_>>()?;
            cluster.broker(false)?;
            for instance in &launched {
                instance.becomes(api, "running", BOOT)?.terminate(api)?;
            }
            for instance in &launched {
                instance.becomes(api, "terminated", BOOT)?;
            }
        }
        cluster.broker(true)?;
        let took = wait::holds("every doorbell has been rung", Duration::from_secs(30), || {
            Ok(cluster.sql("select count(*) from outbox")?.trim() == "0")
        })?;
        did(
            "B2",
            &format!("{kills} kills in {:?}; the outbox is empty {took:?} after the last", begin.elapsed()),
        );

        // E1: the whole control plane ends in time when asked; nobody misses it; it comes back.
        let pings = long_pings(cluster, &both)?;
        for role in CONTROL {
            let took = cluster.control().stop(*role)?;
            ensure!(took < Duration::from_secs(5), "{role} took {took:?}");
        }
        let away = measure(Duration::ZERO, Duration::from_secs(600));
        std::thread::sleep(away);
        inside.run(&format!("ping -c 3 -W 2 {other}"))?;
        let metadata = "timeout 5 wget -q -O - http://169.254.169.254/latest/meta-data/instance-id";
        ensure!(inside.run(metadata)?.contains(&both[0].id), "no metadata while the control plane is away");
        cluster.start_control()?;
        none_lost(pings, "the control plane was away")?;
        ensure!(guests(cluster)? == pids, "a guest was started again");
        ensure!(states(cluster, &both)? == ["running", "running"], "not all run");
        Ok(())
    });
}

/// How a worker is cut off.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Its cable is out.
    Both,
    /// What it says is not heard.
    FromIt,
    /// It hears nothing.
    ToIt,
}

impl Cut {
    fn set(self, cluster: &Cluster, server: &Server, cut: bool) -> anyhow::Result<()> {
        let (hook, device, side) = match self {
            Self::Both => return cluster.part(server, cut),
            Self::FromIt => ("output", "oifname", "daddr"),
            Self::ToIt => ("input", "iifname", "saddr"),
        };
        let inside = server.inside();
        if cut {
            let hook = format!("{{ type filter hook {hook} priority -300; }}");
            inside.check(&["nft", "add", "table", "ip", "gon_cut"])?;
            inside.check(&["nft", "add", "chain", "ip", "gon_cut", "all", &hook])?;
            let rule = ["nft", "add", "rule", "ip", "gon_cut", "all", device, "!=", "lo"];
            inside.check(&[&rule[..], &["ip", side, "192.0.2.0/24", "drop"]].concat())?;
        } else {
            inside.check(&["nft", "delete", "table", "ip", "gon_cut"])?;
        }
        say!("{}: cut {self:?} {}", server.name(), if cut { "begins" } else { "ends" });
        Ok(())
    }
}

/// D4: a worker is parted from the others. Its guests run on; nobody says of them what nobody knows. What was changed
/// meanwhile (ping, the rule `icmp`, is forbidden) is in force there soon after. The rule that allows it again.
fn parted(
    cluster: &Cluster,
    network: &Network,
    both: &[Instance],
    cut: Cut,
    icmp: &str,
) -> anyhow::Result<String> {
    let api = cluster.api();
    let far = cluster.workers().iter().find(|s| s.name() == "worker-2").context("worker-2")?;
    let (there, here): (Vec<Instance>, Vec<Instance>) =
        both.iter().cloned().partition(|i| i.json["worker_node"] == far.name());
    let pings = long_pings(cluster, both)?;
    cut.set(cluster, far, true)?;
    let begin = Instant::now();
    let took = wait::holds("its instances are unknown", NOTICED, || {
        Ok(states(cluster, &there)? == ["unknown"] && states(cluster, &here)? == ["running"])
    })?;
    ensure!(took > Duration::from_secs(5), "a short silence is no death: {took:?}");
    cluster.node_becomes(far.name(), "unknown")?;
    // What is wanted changes meanwhile: a rule is to go.
    std::thread::sleep(Duration::from_secs(measure(0, 300)).saturating_sub(begin.elapsed()));
    none_lost(pings, "a worker was parted from the control plane")?;
    network.forbid(api, icmp)?;
    let away = begin.elapsed();
    cut.set(cluster, far, false)?;
    let start = Instant::now();
    cluster.node_becomes(far.name(), "ready")?;
    wait::holds("the instance is known again", BOOT, || Ok(states(cluster, &there)? == ["running"]))?;
    let inside = cluster.worker_of(&there[0])?.inside();
    let public = there[0].public()?;
    wait::holds("the rule that went is gone there, too", BOOT, || Ok(!probe::ping(inside, public)?))?;
    let converged = start.elapsed();
    did(
        "D4",
        &format!("{cut:?} for {away:?}: unknown after {took:?}, converged {converged:?} after its end"),
    );
    ensure!(converged < TAKEOVER, "{converged:?}");
    network.allow(api, "icmp", "all", "0.0.0.0/0")
}

#[test]
fn etcd_partitions_and_power_cuts_cost_nobody_anything() {
    tell("faults", |cluster: &Cluster| {
        let api = cluster.api();
        let network = Network::build(api, "faults", "10.0.0.0/16", "10.0.1.0/24", true)?;
        let (_, icmp) = network.open(api)?;
        let both = one_on_each(cluster, &network)?;
        for instance in &both {
            answers(cluster, instance, "it runs")?;
        }
        let pids = guests(cluster)?;

        // D2: etcd is away for longer than every lease.
        let pings = long_pings(cluster, &both)?;
        cluster.kill_etcd()?;
        let away = Duration::from_secs(measure(20, 600));
        std::thread::sleep(away);
        ensure!(
            states(cluster, &both)? == ["running", "running"],
            "an instance is told to be something else"
        );
        let meanwhile = network.launch(cluster, "meanwhile")?;
        // M5, D3: it comes back with nothing in it.
        cluster.start_etcd(true)?;
        let start = Instant::now();
        meanwhile.becomes(api, "running", BOOT)?.terminate(api)?;
        meanwhile.becomes(api, "terminated", BOOT)?;
        for role in CONTROL {
            cluster.control().wait_ready(*role)?;
        }
        let took = start.elapsed();
        did(
            "D2, D3, M5",
            &format!("etcd away for {away:?}; everything works {took:?} after an empty one is there"),
        );
        ensure!(took < Duration::from_secs(30), "{took:?}");
        none_lost(pings, "etcd was away and then empty")?;
        ensure!(guests(cluster)? == pids, "a guest was started again");

        // D4: a worker is parted from everybody, in the long run also one way only.
        let far = cluster.workers().iter().find(|s| s.name() == "worker-2").context("worker-2")?;
        let there: Vec<Instance> =
            both.iter().filter(|i| i.json["worker_node"] == far.name()).cloned().collect();
        let mut icmp = icmp;
        for cut in measure(&[Cut::Both][..], &[Cut::Both, Cut::FromIt, Cut::ToIt][..]) {
            icmp = parted(cluster, &network, &both, *cut, &icmp)?;
            ensure!(guests(cluster)? == pids, "a guest was started again");
        }

        // E2: everything of the control plane is off, RabbitMQ and etcd too; a worker loses its power and starts again:
        // its instance comes back from the document it kept.
        let mut before = Vec::new();
        for instance in &there {
            before.push(shell(cluster, instance)?.run(BOOT_ID)?);
        }
        for role in CONTROL {
            cluster.control().kill(*role)?;
        }
        cluster.broker(false)?;
        cluster.kill_etcd()?;
        cluster.power_cut(far)?;
        cluster.spawn_all(far, WORKER)?;
        let start = Instant::now();
        for (instance, before) in there.iter().zip(&before) {
            let public = instance.public()?;
            wait::holds("it comes back by itself", BOOT, || probe::ssh_banner(far.inside(), public))?;
            say!("{} is back {:.1} s after its worker", instance.name, start.elapsed().as_secs_f64());
            let now = Shell::open(far.inside(), cluster.key_file(), "root", instance.public()?, BOOT)?
                .run(BOOT_ID)?;
            ensure!(now != *before, "the guest has not been started again");
        }

        // E3: a cold start in an order that nobody would choose: agents run, controllers next, what they need last.
        let power = cluster.workers().iter().find(|s| s.name() == "worker-1").context("worker-1")?;
        cluster.power_cut(power)?;
        cluster.spawn_all(power, &[Role::HypervisorAgent, Role::StorageAgent])?;
        cluster.spawn_all(cluster.control(), &[Role::InstanceManager])?;
        cluster.spawn_all(power, &[Role::NetworkAgent, Role::ContainerAgent])?;
        cluster.spawn_all(cluster.control(), &[Role::ApiServer, Role::NetworkController])?;
        cluster.start_etcd(false)?;
        cluster.broker(true)?;
        let start = Instant::now();
        for role in CONTROL {
            cluster.control().wait_ready(*role)?;
        }
        for server in cluster.workers() {
            cluster.node_becomes(server.name(), "ready")?;
        }
        for instance in &both {
            instance.becomes(api, "running", BOOT)?;
            answers(cluster, instance, "the site has started cold")?;
        }
        say!("everything is there {:.1} s after the last part was started", start.elapsed().as_secs_f64());
        let mut inside = shell(cluster, &both[0])?;
        inside.run(&format!("ping -c 3 -W 2 {}", private(&both[1])?))?;
        lives(cluster, &network, &["after-all"])?;
        Ok(())
    });
}

#[test]
fn a_second_control_plane_takes_over_and_a_sleeper_does_no_harm() {
    tell("plural", |cluster: &Cluster| {
        let api = cluster.api();
        let network = Network::build(api, "plural", "10.0.0.0/16", "10.0.1.0/24", true)?;
        network.open(api)?;
        let first = network.run(cluster, "first")?;
        let pids = guests(cluster)?;
        let roles = [Role::NetworkController, Role::InstanceManager];
        let spare = cluster.spare();
        cluster.spawn_all(spare, &roles)?;
        for role in roles {
            spare.wait_ready(role)?;
        }
        let epochs = || cluster.sql("select role, epoch from leader_epochs order by role");
        // Every role is led by somebody else than before.
        let taken_over = |before: &str| {
            let now = epochs()?;
            Ok(before.lines().zip(now.lines()).all(|(before, now)| before != now))
        };
        let before = epochs()?;

        // C: the leaders die; the others lead, and agents find them.
        for role in roles {
            cluster.control().kill(role)?;
        }
        let start = Instant::now();
        wait::holds("others lead", TAKEOVER, || taken_over(&before))?;
        say!("a new leader after {:.1} s", start.elapsed().as_secs_f64());
        let second = network.run(cluster, "second")?;
        say!("an instance runs {:.1} s after the leaders died", start.elapsed().as_secs_f64());

        // A5, D6: the leader sleeps past its lease; the other one takes over; the sleeper wakes in the middle of work.
        cluster.spawn_all(cluster.control(), &roles)?;
        for role in roles {
            cluster.control().wait_ready(role)?;
        }
        let before = epochs()?;
        for role in roles {
            spare.signal(role, Signal::SIGSTOP)?;
        }
        let start = Instant::now();
        wait::holds("others lead", TAKEOVER, || taken_over(&before))?;
        let third = network.launch(cluster, "third")?;
        for role in roles {
            spare.signal(role, Signal::SIGCONT)?;
        }
        third.becomes(api, "running", BOOT)?;
        say!("an instance runs {:.1} s after the leaders fell asleep", start.elapsed().as_secs_f64());
        let after = epochs()?;
        std::thread::sleep(Duration::from_secs(5));
        ensure!(epochs()? == after, "two leaders take turns");
        // One QEMU for each instance, on both workers together.
        let alive: BTreeSet<i32> = guests(cluster)?;
        ensure!(alive.len() == 3 && alive.is_superset(&pids), "{alive:?}");
        for instance in [&first, &second, &third] {
            instance.terminate(api)?;
        }
        for instance in [&first, &second, &third] {
            instance.becomes(api, "terminated", BOOT)?;
        }
        Ok(())
    });
}
