//! From the API call of a launch to the guest's first userspace line, beside the same image booted by a bare QEMU.
//!
//! The bare command has our machine model, processor, memory, kernel, initramfs and kernel command line, a serial port
//! on a pipe, and QEMU's own user network: what somebody would type who needs no cloud.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use e2e::topology::{BOOT, Instance, Network};
use e2e::world::World;
use e2e::{Cloud, Host};
use e2e::{process, wait};

use crate::report::{Report, Spread, Target};

const ROUNDS: usize = 7;
/// What the image says first.
const LINE: &str = "userspace up";

pub fn measure(world: &World, report: &mut Report) -> anyhow::Result<()> {
    let api = world.api();
    let network = Network::build(api, "launch", "10.0.0.0/16", "10.0.1.0/24", true)?;
    network.open(api)?;
    // The first one shows the command line; it also brings the files into the page cache.
    let first = network.run(world, "first")?;
    let arguments = arguments(world, &first)?;
    end(world, &first)?;
    bare(world, &arguments)?;

    let (mut theirs, mut ours, mut accepted, mut answers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        theirs.push(bare(world, &arguments)?);
        let start = Instant::now();
        let instance = network.launch(world, &format!("round-{round}"))?;
        let accept = start.elapsed();
        accepted.push(milliseconds(accept));
        wait_for_line(world, &instance)?;
        ours.push(milliseconds(start.elapsed() - accept));
        let address = instance.refresh(api)?.public()?;
        wait::holds("SSH answers", BOOT, || e2e::probe::ssh_banner(world.inside(), address))?;
        answers.push(milliseconds(start.elapsed()));
        end(world, &instance)?;
    }
    report.add("launch: the API call", "ms", Spread::of(&accepted), None, Target::None);
    report.add(
        "launch: accepted → first userspace line",
        "ms",
        Spread::of(&ours),
        Some(("bare QEMU", Spread::of(&theirs))),
        Target::RatioAtMost(1.25),
    );
    report.add("launch: API call → SSH answers", "ms", Spread::of(&answers), None, Target::None);
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn wait_for_line(world: &World, instance: &Instance) -> anyhow::Result<()> {
    let start = Instant::now();
    while start.elapsed() < BOOT {
        if instance.console(world.api()).is_ok_and(|text| text.contains(LINE)) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("{} never reached userspace", instance.name)
}

fn end(world: &World, instance: &Instance) -> anyhow::Result<()> {
    instance.terminate(world.api())?;
    instance.becomes(world.api(), "terminated", BOOT)?;
    Ok(())
}

/// The argument vector of an instance's QEMU.
fn arguments(world: &World, instance: &Instance) -> anyhow::Result<Vec<String>> {
    let guest = world.guest(instance)?;
    let bytes = std::fs::read(format!("/proc/{}/cmdline", guest.pid))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(text.trim_end_matches('\0').split('\0').map(str::to_owned).collect())
}

/// Boots the image with a bare command; milliseconds from its start to the first line.
fn bare(world: &World, ours: &[String]) -> anyhow::Result<f64> {
    let (program, options) = ours.split_first().context("a program")?;
    let image = world.images_dir().join("gon-linux");
    let mut command = world.inside().command(program);
    let mut words = options.iter().peekable();
    while let Some(option) = words.next() {
        let value = words.next_if(|word| !word.starts_with('-')).map_or("", String::as_str);
        match option.as_str() {
            "-kernel" => command.arg(option).arg(image.join("vmlinux")),
            "-initrd" => command.arg(option).arg(image.join("initrd")),
            "-nodefaults" | "-no-user-config" => command.arg(option),
            "-display" | "-vga" | "-M" | "-global" | "-accel" | "-cpu" | "-smp" | "-m" | "-append" => {
                command.args([option, value])
            }
            _ => &mut command,
        };
    }
    command.args(["-serial", "stdio", "-netdev", "user,id=net0", "-device", "virtio-net-device,netdev=net0"]);
    time_to_line(&mut command)
}

fn time_to_line(command: &mut Command) -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let stdout = child.stdout.take().context("a pipe")?;
    let pid = child.id().cast_signed();
    // A guest that says nothing must not hold us.
    let (done, waits) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if waits.recv_timeout(BOOT).is_err() {
            process::kill_hard(pid);
        }
    });
    let mut found = None;
    for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
        if String::from_utf8_lossy(&line).contains(LINE) {
            found = Some(milliseconds(start.elapsed()));
            break;
        }
    }
    let _ = done.send(());
    process::kill_hard(pid);
    let _ = child.wait();
    let _ = watchdog.join();
    found.with_context(|| format!("{command:?} never reached userspace"))
}
