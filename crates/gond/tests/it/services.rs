//! The seven services as processes of their own: ready, watched, measured, logged, and ended.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use gon_tls::Role;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::mini::{self, Then};
use crate::openmetrics::{self, Metrics};
use crate::site::{CONTROL, GATES, PATIENCE, SERVICES, Site, gond, port, tell, until};

/// Runs a service that cannot start to its end; what it says.
fn refused(site: &Site, role: Role, settings: &[(&str, &str)]) -> String {
    let data = site.dir.join("refused");
    let mut command = gond(role, &data);
    command.envs(settings.iter().copied());
    let begin = Instant::now();
    let Output { status, stderr, .. } = command.output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(!status.success(), "{role} with {settings:?}: {said}");
    assert!(begin.elapsed() < Duration::from_secs(5), "after {:?}: {said}", begin.elapsed());
    for line in said.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
        assert_eq!(line["service"], role.as_str());
    }
    said
}

#[test]
fn a_service_that_cannot_start_says_what_to_do() {
    tell(|site| {
        for role in CONTROL {
            let said = refused(site, *role, &[]);
            assert!(said.contains("database.url") && said.contains("GON_DATABASE_URL"), "{said}");
        }
        let said = refused(site, Role::NetworkAgent, &[("GON_ROLES_NETWORK_AGENT", "0.0.0.0:9091")]);
        assert!(said.contains("not loopback") && said.contains("gond join"), "{said}");
        let said = refused(site, Role::StorageAgent, &[("GON_CLUSTER_ENDPOINTS", "https://127.0.0.1:1")]);
        assert!(said.contains("https") && said.contains("no certificates in"), "{said}");
        // An authority, but no certificate of this service.
        site.certify();
        let tls = site.data().join("tls");
        for role in SERVICES {
            let file = tls.join(format!("{role}.crt"));
            std::fs::remove_file(&file).unwrap();
            let said = refused(site, role, &[("GON_TLS_DIR", &tls.to_string_lossy())]);
            let file = file.to_string_lossy();
            assert!(said.contains(&*file) && said.contains("gond join"), "{role}: {said}");
        }
        let taken = TcpListener::bind("127.0.0.1:9092").unwrap();
        let said = refused(site, Role::ContainerAgent, &[]);
        assert!(said.contains("listening on 127.0.0.1:9092"), "{said}");
        drop(taken);
    });
}

/// An image that starts at once, with right digests.
fn write_image(site: &Site) {
    let images = site.dir.join("images");
    mini::write_image(&images, "mini", Then::Halts);
    let dir = images.join("mini");
    let path = dir.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (part, file) in [("kernel", "vmlinux"), ("initrd", "initrd")] {
        let sum = Command::new("sha256sum").arg(dir.join(file)).output().unwrap().stdout;
        manifest[part]["sha256"] = String::from_utf8(sum).unwrap()[..64].into();
    }
    std::fs::write(&path, manifest.to_string()).unwrap();
}

fn metrics(site: &Site, role: Role) -> Metrics {
    let (status, head, body) = site.get(role, "/metrics").unwrap();
    assert_eq!(status, 200, "{role}");
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{role}: {head}");
    openmetrics::read(&body).unwrap_or_else(|why| panic!("{role}: {why}\n{body}"))
}

fn value(metrics: &Metrics, name: &str) -> f64 {
    metrics[name].samples[0].2
}

/// What is exported is what `docs/ops/metrics.md` explains, service by service.
fn compare_with_documentation(found: &BTreeMap<Role, Metrics>) {
    let documented = openmetrics::documented();
    let mut wrong = Vec::new();
    for (role, metrics) in found {
        for (name, family) in metrics {
            match documented.get(name) {
                None => wrong.push(format!("{role}: {name} ({}) is not explained", family.kind)),
                Some(row) if row.kind != family.kind => {
                    wrong.push(format!("{name} is a {}, not a {}", family.kind, row.kind));
                }
                Some(row) if !row.services.iter().any(|s| s == "all" || s == role.as_str()) => {
                    wrong.push(format!("{name} is also exported by {role}"));
                }
                Some(row) => {
                    let by_name = ["seconds", "bytes", "microseconds"]
                        .into_iter()
                        .find(|unit| name.trim_end_matches("_total").ends_with(&format!("_{unit}")));
                    if by_name.is_some_and(|unit| unit != row.unit) {
                        wrong.push(format!("{name} is not in {}", row.unit));
                    }
                }
            }
            if family.help.len() < 4 {
                wrong.push(format!("{role}: {name} does not say what it is"));
            }
        }
        for (name, row) in &documented {
            let expected = row.services.iter().any(|s| s == "all" || s == role.as_str());
            if expected && !metrics.contains_key(name) {
                wrong.push(format!("{name} is explained, but {role} does not export it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Launches an instance; the request's id and the operation's. It runs afterwards.
fn launch(site: &Site, token: &str) -> (String, String, String) {
    let vpc = site.must("POST", "/vpcs", token, Some(&json!({"name": "v", "cidr_block": "10.0.0.0/16"}))).1;
    let path = format!("/vpcs/{}/subnets", vpc["id"].as_str().unwrap());
    let subnet = site.must("POST", &path, token, Some(&json!({"name": "s", "cidr_block": "10.0.1.0/24"}))).1;
    let image = until("the node's image", PATIENCE, || {
        let page = site.must("GET", "/images", token, None).1;
        let found = page["items"].as_array().unwrap().iter().find(|i| i["name"] == "mini").cloned();
        found.ok_or_else(|| page.to_string())
    });
    let body = json!({
        "name": "guest", "image_id": image["id"], "instance_type": "g1.pico", "subnet_id": subnet["id"],
    });
    let (request, instance) = site.must("POST", "/instances", token, Some(&body));
    let id = instance["id"].as_str().unwrap().to_owned();
    until("the instance runs", PATIENCE, || {
        let now = site.must("GET", &format!("/instances/{id}"), token, None).1;
        if now["state"] == "running" { Ok(()) } else { Err(now.to_string()) }
    });
    (request, instance["operation_id"].as_str().unwrap().to_owned(), id)
}

/// The services in whose logs something is said on behalf of this request and this operation.
fn followed(site: &Site, request: &str, operation: &str) -> BTreeSet<Role> {
    let mut found = BTreeSet::new();
    for (role, process) in &site.running {
        for line in process.lines() {
            if line["request_id"] == request && line["operation_id"] == operation {
                found.insert(*role);
            }
        }
    }
    found
}

#[test]
fn seven_services_are_seven_processes() {
    tell(|site| {
        site.prepare();
        write_image(site);
        let begin = Instant::now();
        for role in SERVICES {
            site.start(role);
        }
        for role in SERVICES {
            let process = &site.running[&role];
            until("READY=1", PATIENCE, || match process.told("READY=1").as_slice() {
                [] => Err(process.tail()),
                _ => Ok(()),
            });
        }
        println!("started after {:?}", begin.elapsed());
        for role in SERVICES {
            let (status, _, body) = site.get(role, "/healthz").unwrap();
            assert_eq!((status, body.as_str()), (200, "ok\n"), "{role}");
            // There is no Docker here, and its agent says so.
            if role == Role::ContainerAgent {
                let (status, document) = site.until_dependency(role, "docker", "down");
                assert_eq!((status, &document["status"]), (503, &"unready".into()), "{document}");
                let why = document["dependencies"]["docker"]["why"].as_str().unwrap();
                assert!(why.contains("docker.sock"), "{why}");
                continue;
            }
            let document = site.until_ready(role);
            assert_eq!(document["service"], role.as_str());
            assert_eq!(document["node"], crate::site::NAME);
        }
        println!("ready after {:?}", begin.elapsed());

        // One request, from the API to the node.
        let token = site.token();
        let (request, operation, instance) = launch(site, &token);
        assert!(request.starts_with("req-") && operation.starts_with("op-"), "{request} {operation}");
        let expected = BTreeSet::from([Role::ApiServer, Role::InstanceManager, Role::HypervisorAgent]);
        let found = until("its trace", PATIENCE, || {
            let found = followed(site, &request, &operation);
            if found.is_superset(&expected) { Ok(found) } else { Err(format!("{found:?}")) }
        });
        println!("{request} {operation} in the logs of {found:?}");
        // Another one of the same instance is another trace.
        let path = format!("/instances/{instance}");
        let (request, ended) = site.must("DELETE", &path, &token, None);
        let operation = ended["operation_id"].as_str().unwrap().to_owned();
        until("its trace", PATIENCE, || {
            let found = followed(site, &request, &operation);
            if found.is_superset(&expected) { Ok(()) } else { Err(format!("{found:?}")) }
        });

        // That the first operation ended was no news for the node: two requests, two documents.
        let told: Vec<u64> = site.running[&Role::InstanceManager]
            .lines()
            .iter()
            .filter(|line| line["message"] == "its node is told")
            .map(|line| line["version"].as_str().unwrap().rsplit('.').next().unwrap().parse().unwrap())
            .collect();
        assert!(matches!(told[..], [first, second] if second == first + 1), "{told:?}");

        // The watchdog is fed, a third of its limit apart.
        for role in SERVICES {
            let process = &site.running[&role];
            let fed = until("WATCHDOG=1", PATIENCE, || match process.told("WATCHDOG=1") {
                fed if fed.len() >= 3 => Ok(fed),
                fed => Err(format!("{role}: {} times", fed.len())),
            });
            assert!(fed.last().unwrap().elapsed() < Duration::from_secs(4), "{role}");
        }

        // What is measured is explained.
        let found: BTreeMap<Role, Metrics> =
            SERVICES.into_iter().map(|role| (role, metrics(site, role))).collect();
        compare_with_documentation(&found);
        for (role, metrics) in &found {
            let build = &metrics["gon_build_info"].samples[0].1;
            assert_eq!(
                (build["service"].as_str(), build["node"].as_str()),
                (role.as_str(), crate::site::NAME)
            );
            let ready = if *role == Role::ContainerAgent { 0.0 } else { 1.0 };
            assert_eq!(value(metrics, "gon_ready"), ready, "{role}");
            println!(
                "{role}: {:.1} MiB, {:.2} s of processor time, {} files",
                value(metrics, "process_resident_memory_bytes") / 1048576.0,
                value(metrics, "process_cpu_seconds_total"),
                value(metrics, "process_open_fds"),
            );
        }
        assert!(value(&found[&Role::InstanceManager], "gon_leader_epoch") >= 1.0);
        assert!(value(&found[&Role::HypervisorAgent], "gon_reports_total") >= 1.0);

        dependencies_are_named(site);
        idle(site);
        documented_fields(site);

        for (role, process) in std::mem::take(&mut site.running) {
            let (status, took, said) = process.end();
            assert!(status.success() && took < Duration::from_secs(5), "{role}: {status} after {took:?}");
            assert!(said.iter().any(|word| word == "STOPPING=1"), "{role}: {said:?}");
            println!("{role} ended after {took:?}");
        }
    });
}

/// Each dependency that is away is called by its name, by each service that has it, and so is its return.
fn dependencies_are_named(site: &mut Site) {
    for (gate, name) in GATES.into_iter().enumerate() {
        let affected: Vec<Role> =
            SERVICES.into_iter().filter(|role| name == "etcd" || CONTROL.contains(role)).collect();
        if name == "etcd" {
            // The real thing: killed, not only cut off.
            site.backing.as_mut().unwrap().etcd.kill(0);
        } else {
            site.gate(gate, false);
        }
        let begin = Instant::now();
        for role in &affected {
            let (status, document) = site.until_dependency(*role, name, "down");
            let others: Vec<&str> = GATES.into_iter().filter(|other| *other != name).collect();
            for other in others {
                let said = &document["dependencies"][other];
                assert!(said.is_null() || said["status"] == "up", "{role}: {document}");
            }
            let dependency = &document["dependencies"][name];
            assert!(dependency["why"].as_str().is_some_and(|why| why.len() > 5), "{role}: {document}");
            // Without PostgreSQL nothing can be done; without the others everything, slower.
            match (*role, name) {
                (_, "postgresql") => assert_eq!(status, 503, "{role}: {document}"),
                (Role::ContainerAgent, _) => assert_eq!(status, 503),
                _ => {
                    assert_eq!((status, &document["status"]), (200, &"degraded".into()), "{role}: {document}")
                }
            }
            let up = &metrics(site, *role)["gon_dependency_up"];
            let sample = up.samples.iter().find(|(_, labels, _)| labels["dependency"] == name).unwrap();
            assert_eq!(sample.2, 0.0, "{role}");
            assert_eq!(site.get(*role, "/healthz").unwrap().0, 200, "{role} lives without {name}");
        }
        println!("{name} is missed by all within {:?}", begin.elapsed());
        if name == "etcd" {
            let backing = site.backing.as_mut().unwrap();
            backing.etcd.restart(0);
            site.runtime.block_on(backing.etcd.ready());
        } else {
            site.gate(gate, true);
        }
        let begin = Instant::now();
        for role in &affected {
            site.until_dependency(*role, name, "up");
        }
        println!("{name} is back for all within {:?}", begin.elapsed());
    }
    for role in SERVICES.into_iter().filter(|role| *role != Role::ContainerAgent) {
        site.until_ready(role);
    }
}

/// Ticks of the processor and context switches of every thread of a process.
fn used(pid: u32) -> (f64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    let mut switches = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        for line in status.lines().filter(|line| line.contains("ctxt_switches")) {
            switches += line.rsplit('\t').next().unwrap().parse::<u64>().unwrap();
        }
    }
    (ticks / 100.0, switches)
}

/// With nothing to do they do next to nothing, and hold little. An unoptimised build is let use more of a processor.
fn idle(site: &Site) {
    const OVER: Duration = Duration::from_secs(8);
    let before: Vec<(Role, (f64, u64))> =
        site.running.iter().map(|(role, process)| (*role, used(process.pid()))).collect();
    std::thread::sleep(OVER);
    let mut control = 0.0;
    for (role, (ticks, switches)) in before {
        let pid = site.running[&role].pid();
        let (now_ticks, now_switches) = used(pid);
        let share = (now_ticks - ticks) / OVER.as_secs_f64() * 100.0;
        let wakes = (now_switches - switches) as f64 / OVER.as_secs_f64();
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
        let memory = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let of = |name: &str| {
            let line = memory.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
        };
        println!(
            "{role}: idle {share:.1} % of a processor, {wakes:.0} wake-ups/s, {threads} threads; MiB: resident {:.1}, \
             proportional {:.1}, anonymous {:.1}",
            of("Rss:"),
            of("Pss:"),
            of("Anonymous:"),
        );
        assert!(share <= 6.0, "{role} uses {share} % of a processor for nothing");
        assert!(wakes <= 250.0, "{role} wakes up {wakes} times a second for nothing");
        // What is its own; the pages of the program itself are the kernel's to give and take.
        let anonymous = of("Anonymous:");
        if CONTROL.contains(&role) {
            control += anonymous;
        } else {
            assert!(anonymous <= 12.0, "{role} holds {anonymous} MiB");
        }
    }
    assert!(control <= 45.0, "the control plane holds {control} MiB");
}

/// Everything that could be logged.
fn sources() -> String {
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "tests" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    text
}

/// Every field that was logged is explained, and every line that is explained is one that can be logged.
fn documented_fields(site: &Site) {
    let text = include_str!("../../../../docs/ops/logs.md");
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let rows: Vec<Vec<String>> = text.lines().filter(|line| line.starts_with("| `")).map(cells).collect();
    let fields: BTreeSet<&str> =
        rows.iter().filter(|row| row.len() == 2).map(|row| row[0].as_str()).collect();
    assert!(fields.len() > 50);
    // Alarms are in a table of three.
    let sources = sources();
    for row in rows.iter().filter(|row| row.len() == 3) {
        assert!(sources.contains(&format!("\"{}\"", row[0])), "nobody logs '{}'", row[0]);
    }
    let mut unknown = BTreeSet::new();
    for process in site.running.values() {
        // What others than we write has fields of its own.
        for line in process.lines().iter().filter(|l| l["target"].as_str().unwrap().starts_with("gon")) {
            for name in line.as_object().unwrap().keys() {
                if !fields.contains(name.as_str()) {
                    unknown.insert(format!("{name}: {line}"));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "fields that docs/ops/logs.md does not explain:\n{unknown:#?}");
}

/// A second signal is an order.
#[test]
fn a_second_signal_ends_a_service_at_once() {
    tell(|site| {
        site.certify();
        site.start(Role::ContainerAgent);
        let process = &site.running[&Role::ContainerAgent];
        until("READY=1", PATIENCE, || match process.told("READY=1").is_empty() {
            true => Err(process.tail()),
            false => Ok(()),
        });
        process.signal(Signal::SIGINT);
        let (status, took, _) = site.running.remove(&Role::ContainerAgent).unwrap().end();
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert!(status.success() || status.code() == Some(130), "{status}");
        assert!(site.get_at(port(Role::ContainerAgent), "/healthz").is_err());
    });
}
