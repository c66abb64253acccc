//! Stop, start, reboot, the guest's own power-off, terminate: what stays, what changes, what is left.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::tell;
use e2e::topology::{BOOT, Instance, Network};
use e2e::world::World;
use e2e::{Cloud, Host};
use e2e::{probe, say};
use hyper::Method;
use serde_json::json;

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

#[test]
fn an_instance_stops_starts_reboots_and_ends_without_a_trace() {
    tell("lifecycle", |world: &World| {
        let api = world.api();
        let inside = world.inside();
        let network = Network::build(api, "life", "10.0.0.0/16", "10.0.1.0/24", true)?;
        network.open(api)?;
        let first = network.run(world, "life")?;
        let private = first.private_ip;
        let old_public = first.public()?;
        let tap = world.tap(&first)?;
        let mut shell = first.shell(world)?;
        let boot = shell.run(BOOT_ID)?;
        let console = first.console(api)?;
        ensure!(console.contains("gon-linux: userspace up"), "the console: {console}");

        // Reboot: the same machine with the same addresses, another boot.
        first.act(api, "reboot", &json!({}))?;
        let ((), took) = e2e::wait::until("another boot", BOOT, || {
            let mut shell = first.shell_as(world, "root", Duration::from_secs(2))?;
            Ok((shell.run(BOOT_ID)? != boot).then_some(()))
        })?;
        let rebooted = first.refresh(api)?;
        ensure!(rebooted.state == "running", "a reboot leaves the state running: {}", rebooted.state);
        ensure!(
            rebooted.public_ip == Some(old_public) && rebooted.private_ip == private,
            "addresses changed"
        );
        world.guest(&first)?;
        say!("rebooted within {} ms", took.as_millis());

        // Stop: the guest is asked, the private address stays, the public one goes.
        first.act(api, "stop", &json!({}))?;
        let stopped = first.becomes(api, "stopped", Duration::from_secs(60))?;
        let console = first.console(api)?;
        ensure!(console.contains("gon-linux: poweroff"), "the guest was not asked: {console}");
        ensure!(stopped.private_ip == private, "the private address changed: {}", stopped.private_ip);
        ensure!(stopped.public_ip.is_none(), "a stopped instance has {:?}", stopped.public_ip);
        ensure!(world.guests()?.is_empty(), "a stopped instance runs: {:?}", world.guests()?);
        probe::silent(inside, old_public, "the instance is stopped")?;
        let code =
            api.refused(&Method::POST, &format!("/instances/{}/reboot", first.id), Some(&json!({})))?;
        ensure!(code == "IncorrectInstanceState", "rebooting a stopped instance: {code}");

        // Start: a new public address.
        first.act(api, "start", &json!({}))?;
        let started = first.becomes(api, "running", BOOT)?;
        ensure!(started.private_ip == private, "the private address changed: {}", started.private_ip);
        let public = started.public()?;
        ensure!(public != old_public, "the old public address came back at once");
        let mut shell = started.shell(world)?;
        ensure!(shell.run(BOOT_ID)? != boot, "it did not boot");
        probe::answers(inside, public, "the instance is started again")?;
        probe::silent(inside, old_public, "the old address is nobody's")?;

        // The guest powers itself off.
        shell.run("poweroff")?;
        let off = started.becomes(api, "stopped", Duration::from_secs(60))?;
        ensure!(world.guests()?.is_empty(), "it still runs");
        ensure!(off.private_ip == private, "the private address changed");
        off.act(api, "start", &json!({}))?;
        let back = off.becomes(api, "running", BOOT)?;
        back.shell(world)?;

        // Stop without asking.
        back.act(api, "stop", &json!({ "force": true }))?;
        back.becomes(api, "stopped", Duration::from_secs(30))?;

        // Terminate: nothing of it is anywhere.
        back.terminate(api)?;
        ended(world, &back, &tap)?;
        back.terminate(api).context("terminating twice")?;
        ended(world, &back, &tap)?;

        // Terminate while it runs.
        let second = network.run(world, "short")?;
        let tap = world.tap(&second)?;
        ensure!(world.devices()?.contains(&tap), "{tap} is no device");
        second.terminate(api)?;
        ended(world, &second, &tap)?;
        probe::silent(inside, second.public()?, "the instance is terminated")
    });
}

/// Waits until an instance is terminated, and looks for traces of it.
pub fn ended(world: &World, instance: &Instance, tap: &str) -> anyhow::Result<()> {
    let api = world.api();
    let gone = instance.becomes(api, "terminated", Duration::from_secs(60))?;
    ensure!(gone.public_ip.is_none(), "a terminated instance has {:?}", gone.public_ip);
    let traces = || -> anyhow::Result<Vec<String>> {
        let mut traces = Vec::new();
        for process in world.processes()? {
            if process.command.contains(&instance.id) {
                traces.push(format!("process {process:?}"));
            }
        }
        if world.devices()?.iter().any(|d| d == tap) {
            traces.push(format!("device {tap}"));
        }
        if world.ovs(&["ovs-vsctl", "list-ports", "br-int"])?.lines().any(|port| port == tap) {
            traces.push(format!("port {tap} of the switch"));
        }
        let needle = format!("nw_dst={}", instance.private_ip);
        traces
            .extend(world.flows()?.into_iter().filter(|f| f.contains(&needle)).map(|f| format!("flow {f}")));
        for found in files(world.data_dir(), &[&instance.id, &instance.uuid]) {
            traces.push(format!("file {found}"));
        }
        Ok(traces)
    };
    e2e::wait::holds("no trace of the terminated instance", Duration::from_secs(5), || {
        let traces = traces()?;
        ensure!(traces.is_empty(), "{}", traces.join("\n"));
        Ok(true)
    })?;
    Ok(())
}

/// Files and folders below `folder` (images and the database left out) whose name contains one of `names`.
fn files(folder: &std::path::Path, names: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if names.iter().any(|n| name.contains(n)) {
            found.push(entry.path().display().to_string());
        }
        if entry.file_type().is_ok_and(|t| t.is_dir()) && name != "images" && name != "postgres" {
            found.extend(files(&entry.path(), names));
        }
    }
    found
}
