//! The pages of `docs/ops` rehearsed on a site that works: the control plane is lost and put back from its backup, the
//! site is upgraded, a node is taken out.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::Host;
use e2e::cluster::{CONTROL, Cluster, WORKER};
use e2e::process::{self, Process, check};
use e2e::topology::{BOOT, Cloud, Instance, Network, living};
use e2e::{say, tell, wait};
use gon_types::Role;
use serde_json::json;

use crate::cluster::{answers, guests, long_pings, none_lost, one_on_each, restart, states};

/// How long after the restored control plane is there everybody may take to be as the backup says.
const CONVERGED: Duration = Duration::from_secs(30);

fn node_id(cluster: &Cluster, name: &str) -> anyhow::Result<String> {
    let page = cluster.api().get("/nodes")?;
    let nodes = page["items"].as_array().context("a list")?;
    let node = nodes.iter().find(|node| node["name"] == name).context("it is not known")?;
    Ok(node["id"].as_str().context("an id")?.to_owned())
}

/// What the page says to save: the database, and the site's authority with the server's own certificates.
struct Backup {
    dump: PathBuf,
    keys: PathBuf,
}

impl Backup {
    fn take(cluster: &Cluster) -> anyhow::Result<Self> {
        let beside = cluster.control().data_dir().parent().context("a folder")?;
        let backup = Self { dump: beside.join("gon.dump"), keys: beside.join("keys.tgz") };
        let mut dump = Command::new("pg_dump");
        dump.arg("-Fc").arg("-f").arg(&backup.dump).arg(cluster.database_url()?);
        check(&mut dump, Duration::from_secs(30))?;
        let mut keys = Command::new("tar");
        keys.arg("-C").arg(cluster.control().data_dir()).arg("-czf").arg(&backup.keys).arg("tls");
        check(&mut keys, Duration::from_secs(10))?;
        say!("the backup is taken");
        Ok(backup)
    }

    /// As the page says, up to the restored database.
    fn put_back(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let mut keys = Command::new("tar");
        keys.arg("-C").arg(cluster.control().data_dir()).arg("-xzf").arg(&self.keys);
        check(&mut keys, Duration::from_secs(10))?;
        // The part of `gond admin init` that concerns the database.
        cluster.admin(&["admin", "migrate"])?;
        let mut restore = Command::new("pg_restore");
        restore.args(["--clean", "--if-exists", "--no-owner", "--exit-on-error", "-d"]);
        restore.arg(cluster.database_url()?).arg(&self.dump);
        check(&mut restore, Duration::from_secs(30))?;
        say!("the backup is put back");
        Ok(())
    }
}

fn stop_control(cluster: &Cluster) -> anyhow::Result<()> {
    CONTROL.iter().try_for_each(|role| cluster.control().stop(*role).map(drop))
}

/// The user ids that guests of a server run as.
fn users(server: &e2e::cluster::Server) -> anyhow::Result<Vec<String>> {
    server
        .guests()?
        .iter()
        .map(|guest| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", guest.pid))?;
            let line = status.lines().find(|line| line.starts_with("Uid:")).context("a user")?;
            Ok(line.split_whitespace().nth(1).context("a number")?.to_owned())
        })
        .collect()
}

#[test]
fn a_lost_control_plane_is_put_back_from_its_backup() {
    tell("pages", |cluster: &Cluster| {
        let api = cluster.api();
        let network = Network::build(api, "pages", "10.0.0.0/16", "10.0.1.0/24", true)?;
        network.open(api)?;
        let both = one_on_each(cluster, &network)?;
        let changed = network.run(cluster, "changed")?;
        for instance in &both {
            answers(cluster, instance, "it runs")?;
        }
        let backup = Backup::take(cluster)?;

        // What the backup does not know: a node that is closed, instances, other generations of one, later leaders, a
        // certificate that was renewed.
        let far = node_id(cluster, "worker-2")?;
        api.post(&format!("/nodes/{far}/cordon"), &json!({}))?;
        let names: Vec<String> = (0..4).map(|n| format!("late-{n}")).collect();
        let late: Vec<Instance> =
            names.iter().map(|name| network.launch(cluster, name)).collect::<anyhow::Result<_>>()?;
        changed.act(api, "stop", &json!({ "force": true }))?;
        changed.becomes(api, "stopped", BOOT)?;
        changed.act(api, "start", &json!({}))?;
        let late: Vec<Instance> =
            late.iter().map(|i| i.becomes(api, "running", BOOT)).collect::<anyhow::Result<_>>()?;
        changed.becomes(api, "running", BOOT)?;
        for _ in 0..2 {
            for role in [Role::InstanceManager, Role::NetworkController] {
                cluster.control().stop(role)?;
                cluster.spawn(cluster.control(), role)?;
                cluster.control().wait_ready(role)?;
            }
        }
        ensure!(late.iter().all(|i| i.json["worker_node"] == "worker-1"), "the other worker is closed");
        let pids = guests(cluster)?;
        let near = cluster.workers().iter().find(|s| s.name() == "worker-1").context("worker-1")?;
        let is_late = |guest: &Process| late.iter().any(|instance| guest.command.contains(&instance.id));
        let taps: Vec<String> =
            near.guests()?.iter().filter(|g| is_late(g)).flat_map(|g| process::taps(g.pid)).collect();
        ensure!(taps.len() == late.len(), "not every late one has a tap: {taps:?}");
        let pings = long_pings(cluster, &both)?;

        cluster.lose_control_plane()?;
        backup.put_back(cluster)?;
        // As if it were another cluster of PostgreSQL, whose transactions are counted from the beginning; and as if a worker
        // had renewed its certificates since the backup.
        cluster.sql("update events set xid = '9000000000000'")?;
        let renewed = "delete from certificates where name = 'worker-1' and role = 'hypervisor-agent'";
        let other = "insert into certificates (serial, role, name, hosts, authority_sha256, not_after)
            select md5('another'), role, name, hosts, authority_sha256, not_after from certificates
            where name = 'worker-1' and role = 'hypervisor-agent'";
        cluster.sql(&format!("begin; {other}; {renewed} and serial <> md5('another'); commit"))?;

        // The page without its last step: nobody listens to what is older than what they heard before.
        cluster.start_control()?;
        let deaf = network.launch(cluster, "deaf")?;
        std::thread::sleep(Duration::from_secs(5));
        let state = deaf.refresh(api)?.state;
        ensure!(state == "pending", "an agent listens to a leader of the past: it is {state}");
        say!("without the last step a launch stays {state}");
        stop_control(cluster)?;
        say!("{}", cluster.admin(&["admin", "restored"])?.trim());
        cluster.start_control()?;
        for server in cluster.workers() {
            cluster.node_becomes(server.name(), "ready")?;
        }
        let deaf = deaf.becomes(api, "running", BOOT)?;
        none_lost(pings, "the control plane was lost and put back")?;
        let now = guests(cluster)?;
        ensure!(now.is_superset(&pids), "a guest was touched: {pids:?}, now {now:?}");
        ensure!(now.len() == pids.len() + 1, "one was launched: {pids:?}, now {now:?}");
        wait::holds("what the backup knows is as it was", CONVERGED, || {
            Ok(states(cluster, &both)? == ["running", "running"] && changed.refresh(api)?.state == "running")
        })?;
        let xid = cluster
            .sql("select max(xid) from events where at < (select max(restored_at) from restorations)")?;
        ensure!(xid.trim() == "3", "an event is of a transaction that is still to come: {xid}");

        // What the backup does not know runs on, is told of, has no network, and shares nothing with what is new.
        wait::holds("what was forgotten is counted", CONVERGED, || {
            let metrics = cluster.control().ask(Role::InstanceManager, "/metrics")?;
            Ok(metrics.lines().any(|line| line == "gon_instances_forgotten 4"))
        })?;
        let log = std::fs::read_to_string(cluster.control().log(Role::InstanceManager))?;
        for instance in &late {
            ensure!(instance.refresh(api).is_err(), "{} is known", instance.name);
            ensure!(log.contains(&instance.uuid), "nobody is told of {}", instance.name);
        }
        wait::holds("their ports are closed", CONVERGED, || {
            let devices = near.devices()?;
            Ok(!taps.iter().any(|tap| devices.contains(tap)))
        })?;
        for server in cluster.workers() {
            let users = users(server)?;
            let distinct: BTreeSet<&String> = users.iter().collect();
            ensure!(distinct.len() == users.len(), "two guests are one user: {users:?}");
        }
        say!("{} instances that the backup does not know run on", late.len());

        // The node that has them works all the same: also for many at once.
        answers(cluster, &deaf, "it was launched by the restored control plane")?;
        changed.act(api, "stop", &json!({ "force": true }))?;
        changed.becomes(api, "stopped", BOOT)?;
        for instance in living(api)?.iter().filter(|i| both.iter().all(|kept| kept.id != i.id)) {
            instance.terminate(api)?;
        }
        changed.becomes(api, "terminated", BOOT)?;
        deaf.becomes(api, "terminated", BOOT)?;

        // docs/ops/upgrade.md: first the control plane, then the nodes, one after the other.
        let pings = long_pings(cluster, &both)?;
        for role in CONTROL {
            cluster.control().stop(*role)?;
            cluster.spawn(cluster.control(), *role)?;
            cluster.control().wait_ready(*role)?;
        }
        for server in cluster.workers() {
            restart(cluster, server)?;
        }
        none_lost(pings, "everything was replaced")?;

        // docs/ops/remove-a-node.md.
        let far = node_id(cluster, "worker-2")?;
        api.post(&format!("/nodes/{far}/cordon"), &json!({}))?;
        api.post(&format!("/nodes/{far}/drain"), &json!({}))?;
        let refused = api.refused(&hyper::Method::DELETE, &format!("/nodes/{far}"), None)?;
        ensure!(refused == "DependencyViolation", "{refused}");
        for instance in living(api)?.iter().filter(|i| i.json["worker_node"] == "worker-2") {
            instance.terminate(api)?;
            instance.becomes(api, "terminated", BOOT)?;
        }
        wait::holds("the drain is done", CONVERGED, || {
            let open = "select count(*) from operations where action = 'DrainNode' and finished_at is null";
            Ok(cluster.sql(open)?.trim() == "0")
        })?;
        api.delete(&format!("/nodes/{far}"))?;
        let left = "select count(*) from certificates where name = 'worker-2' and revoked_at is null";
        ensure!(cluster.sql(left)?.trim() == "0", "a certificate of the node stands");
        let gone = cluster.workers().iter().find(|s| s.name() == "worker-2").context("worker-2")?;
        for role in WORKER {
            // Whoever is told that its node was removed may have ended by itself.
            let _ = gone.stop(*role);
        }
        ensure!(gone.guests()?.is_empty(), "something runs on the node that was taken out");
        Ok(())
    });
}
