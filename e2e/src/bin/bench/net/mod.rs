//! `bench net`: the network of one node beside OVN's, which is set up here as its packages have it, with the same topology,
//! rules and devices, and changed in turn with ours. Both get a change as their control planes hand it over: ours as a
//! document that is rendered already, OVN as a transaction of its northbound database. API and PostgreSQL are in neither; they
//! are in `rules` and `api`.
//!
//! What a node is: userspace datapath, one VPC with two subnets, a router, a network ACL (OVN has none), a client in one
//! subnet and a server in the other, and 100 or 1000 further taps, all in a group with 20 rules.
//!
//! `GON_BENCH_PORTS=100,1000` are the sizes, `GON_BENCH_ROUNDS=20` how often a thing is done, `GON_BENCH_SECONDS=3` how long TCP runs,
//! `GON_BENCH_SITE=1000,10000,100` VPCs, ports and nodes of the site in memory.

pub mod agent;
mod controller;
mod document;
mod ours;
mod ovn;
mod ovsdb;
mod place;
pub mod simulation;
mod stream;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use gon_net::{Mirror, NodeFacts, compile};
use gon_types::MacAddr;
use serde_json::Value;

use self::document::{Groups, OPEN, OPENED};
use self::ours::Ours;
use self::ovn::Ovn;
use self::stream::{Guest, Stream, throughput};
use crate::report::{Report, Spread, Target, percentile};

/// A node of one kind or the other.
trait Side {
    /// The client and the server.
    fn guests(&self) -> [&Guest; 2];
    /// What comes before the clock starts: the rule is to be there, or gone.
    fn prepare(&mut self, opened: bool) -> anyhow::Result<()>;
    /// Hands the prepared change over, and asks for a confirmation if that is wanted.
    fn change(&mut self, confirm: bool) -> anyhow::Result<()>;
    /// Waits until the node has said that the last change is in force; when it said so.
    fn confirmed(&mut self) -> anyhow::Result<Instant>;
    /// Milliseconds for one more port, until the node has said that it is ready.
    fn plug(&mut self) -> anyhow::Result<f64>;
    /// Kills the agent and starts it again; seconds until it says that everything is as it should be.
    fn restart(&mut self) -> anyhow::Result<f64>;
    /// Kills the switch; it, or its keeper, starts again at once.
    fn kill_switch(&mut self) -> anyhow::Result<()>;
    /// MiB that the control of the node holds, the switch and its database left out.
    fn resident(&self) -> anyhow::Result<f64>;
    /// Flows in the switch.
    fn flows(&self) -> anyhow::Result<f64>;
}

/// How much is done.
struct Plan {
    sizes: Vec<usize>,
    rounds: usize,
    time: Duration,
    site: Vec<usize>,
}

fn numbers(variable: &str, default: &[usize]) -> anyhow::Result<Vec<usize>> {
    let Ok(text) = std::env::var(variable) else { return Ok(default.to_vec()) };
    let numbers = text.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>();
    let numbers = numbers.with_context(|| format!("{variable}={text}"))?;
    ensure!(numbers.len() >= default.len().min(1), "{variable} is empty");
    Ok(numbers)
}

impl Plan {
    fn read() -> anyhow::Result<Self> {
        let plan = Self {
            sizes: numbers("GON_BENCH_PORTS", &[100, 1000])?,
            rounds: numbers("GON_BENCH_ROUNDS", &[20])?[0].max(1),
            time: Duration::from_secs(numbers("GON_BENCH_SECONDS", &[3])?[0].max(1) as u64),
            site: numbers("GON_BENCH_SITE", &[1000, 10_000, 100])?,
        };
        ensure!(plan.site.len() == 3 && plan.site.iter().all(|n| *n > 0), "GON_BENCH_SITE has three numbers");
        ensure!(plan.site[1] / plan.site[0] <= 200, "a VPC of the site has at most 200 ports");
        Ok(plan)
    }
}

/// What performance.md has of OVN, for machines where it cannot be installed.
fn recorded(what: &str, ports: usize) -> Option<Spread> {
    let (min, max) = match (what, ports) {
        ("rule", 100) => (11.0, 17.0),
        ("rule", 1000) => (165.0, 188.0),
        ("plug", 100) => (96.0, 174.0),
        ("plug", 1000) => (1700.0, 3800.0),
        ("shared", _) => (88.0, 93.0),
        ("own", _) => (78.0, 83.0),
        ("restart", 1000) => (17.0, 43.0),
        _ => return None,
    };
    Some(Spread { median: (min + max) / 2.0, min, max })
}
const RECORDED: &str = "OVN (recorded on another day)";

/// The peer's figure: measured here, or as it was recorded.
fn peer(measured: Option<&[f64]>, what: &str, ports: usize) -> Option<(&'static str, Spread)> {
    match measured {
        Some(times) => Some(("OVN", Spread::of(times))),
        None => recorded(what, ports).map(|spread| (RECORDED, spread)),
    }
}

pub fn run(report: &mut Report) -> anyhow::Result<()> {
    let plan = Plan::read()?;
    let with_ovn = ovn::installed();
    if !with_ovn {
        report.note(format!(
            "OVN is not installed here (packages ovn-central and ovn-host). Where a row says \"{RECORDED}\", its figure is \
             from another run and the ratio is no measurement."
        ));
    }
    let mut failed = Vec::new();
    let mut attempt = |what: String, result: anyhow::Result<()>| {
        if let Err(error) = result {
            failed.push(format!("{what}: {error:#}"));
        }
    };
    let largest = plan.sizes.iter().copied().max();
    for ports in plan.sizes.iter().copied() {
        let here = |what: &str| format!("{what}, {ports} ports");
        eprintln!("net: a node with {ports} ports");
        let started = Instant::now();
        let mut ours = match Ours::start(ports, false) {
            Ok(ours) => ours,
            Err(error) => {
                attempt(here("our node"), Err(error));
                continue;
            }
        };
        eprintln!("net: ours is up after {:.1} s", started.elapsed().as_secs_f64());
        let mut ovn = None;
        if with_ovn {
            let started = Instant::now();
            match Ovn::start(ports, Groups::Shared) {
                Ok(up) => ovn = Some(up),
                Err(error) => attempt(here("OVN"), Err(error)),
            }
            eprintln!("net: OVN is up after {:.1} s", started.elapsed().as_secs_f64());
        }
        attempt(here("rule changes"), changes(&plan, ports, &mut ours, ovn.as_mut(), report));
        attempt(here("flows"), flows(ports, &ours, ovn.as_ref(), report));
        attempt(here("memory"), memory(ports, &ours, ovn.as_ref(), report));
        attempt(here("TCP"), tcp(&plan, ports, false, &ours, ovn.as_ref(), report));
        attempt(here("plugging"), plug(&plan, ports, &mut ours, ovn.as_mut(), report));
        if Some(ports) == largest {
            attempt(here("restarts"), restarts(&plan, ports, &mut ours, ovn.as_mut(), report));
        }
    }
    if let Some(ports) = plan.sizes.first().copied() {
        let segments = Ours::start(ports, true).and_then(|ours| tcp(&plan, ports, true, &ours, None, report));
        attempt(format!("TCP with segmentation left to the switch, {ports} ports"), segments);
    }
    attempt("a site in memory".to_owned(), site(&plan, report));
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// The target of a size that has one.
fn target(ports: usize, hundred: f64, thousand: f64) -> Target {
    match ports {
        100 => Target::AtMost(hundred),
        1000 => Target::AtMost(thousand),
        _ => Target::None,
    }
}

/// Milliseconds until the first packet passes that a rule allows, and until the last one that it had allowed, in turn.
#[derive(Default)]
struct OnTheWire {
    granted: Vec<f64>,
    revoked: Vec<f64>,
}

impl OnTheWire {
    fn some(&mut self, side: &mut dyn Side, rounds: usize) -> anyhow::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(60);
        let [client, server] = side.guests();
        let stream = Stream::start(client, server, OPENED, Duration::from_micros(250))?;
        stream.becomes(false, PATIENCE)?;
        for _ in 0..rounds {
            // Not in step with any timer of anybody.
            let number = self.granted.len() as u64;
            std::thread::sleep(Duration::from_micros(20_000 + number * 7_919 % 30_000));
            side.prepare(true)?;
            let start = Instant::now();
            side.change(false)?;
            stream.becomes(true, PATIENCE)?;
            let first = stream.first(start).context("a packet after the rule was granted")?;
            self.granted.push(first.saturating_duration_since(start).as_secs_f64() * 1e3);
            std::thread::sleep(Duration::from_micros(20_000 + number * 6_101 % 30_000));
            side.prepare(false)?;
            let start = Instant::now();
            side.change(false)?;
            stream.becomes(false, PATIENCE)?;
            let last = stream.last().context("a packet before the rule was revoked")?;
            self.revoked.push(last.saturating_duration_since(start).as_secs_f64() * 1e3);
        }
        Ok(())
    }
}

/// Milliseconds until the node has said that the change is in force.
fn confirmations(side: &mut dyn Side, rounds: usize) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for opened in [true, false].into_iter().cycle().take(rounds.next_multiple_of(2)) {
        std::thread::sleep(Duration::from_millis(100));
        side.prepare(opened)?;
        let start = Instant::now();
        side.change(true)?;
        times.push(side.confirmed()?.saturating_duration_since(start).as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// Turns: so that both see the same moods of the machine.
const TURNS: usize = 4;

fn changes(
    plan: &Plan,
    ports: usize,
    ours: &mut Ours,
    mut ovn: Option<&mut Ovn>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (mut own, mut theirs) = (OnTheWire::default(), OnTheWire::default());
    let (mut own_confirmed, mut their_confirmed) = (Vec::new(), Vec::new());
    let mut wired = Vec::new();
    let each = plan.rounds.div_ceil(TURNS);
    for _ in 0..TURNS.min(plan.rounds) {
        own.some(ours, each)?;
        for _ in 0..each {
            own_confirmed.extend(confirmations(ours, 1)?);
            wired.push(ours.status()?["wired_us"].as_f64().context("wired_us")? / 1e3);
        }
        if let Some(ovn) = ovn.as_deref_mut() {
            theirs.some(ovn, each)?;
            their_confirmed.extend(confirmations(ovn, each)?);
        }
    }
    let measured = |times: &'_ Vec<f64>| (!times.is_empty()).then(|| times.clone());
    for (what, mut times, their) in [
        ("granted → first packet", own.granted, theirs.granted),
        ("revoked → last packet", own.revoked, theirs.revoked),
    ] {
        let beside = peer(measured(&their).as_deref(), "rule", ports);
        let name = format!("net: rule {what}, {ports} ports");
        report.add(&name, "ms", Spread::of(&times), beside, target(ports, 10.0, 20.0));
        times.sort_by(f64::total_cmp);
        let p99 = Spread::of(&[percentile(&times, 0.99)]);
        report.add(&format!("{name}, p99"), "ms", p99, None, Target::None);
    }
    let beside = measured(&their_confirmed).map(|times| ("OVN", Spread::of(&times)));
    let name = format!("net: rule change → confirmed by the node, {ports} ports");
    report.add(&name, "ms", Spread::of(&own_confirmed), beside, Target::None);
    let name = format!("net: of that, from the document's arrival to the switch, {ports} ports");
    report.add(&name, "ms", Spread::of(&wired), None, Target::None);
    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    let size = ours.document_bytes() as f64 / 1024.0;
    report.add(&format!("net: the document, {ports} ports"), "KiB", Spread::of(&[size]), None, Target::None);
    Ok(())
}

/// Flows that a document becomes.
fn compiled(ports: usize, groups: Groups) -> anyhow::Result<f64> {
    let facts = NodeFacts {
        node: document::node(),
        meta_mac: MacAddr([0x0a, 0x67, 0x6f, 0x6e, 0, 2]),
        external: None,
        overlay: None,
        mirror: Mirror::Off,
    };
    let compiled = compile(&document::document(1, ports, groups, false)?, &facts);
    ensure!(compiled.degraded.is_empty(), "{:?}", compiled.degraded.first());
    Ok(f64::from(u32::try_from(compiled.flows.len())?))
}

fn flows(ports: usize, ours: &Ours, ovn: Option<&Ovn>, report: &mut Report) -> anyhow::Result<()> {
    let further = f64::from(u32::try_from(ports)?);
    let expected = compiled(ports, Groups::Shared)?;
    ensure!((ours.flows()? - expected).abs() < 0.5, "{} flows instead of {expected}", ours.flows()?);
    let per_port = |of: f64, base: f64| (of - base) / further;
    let shared = per_port(expected, compiled(0, Groups::Shared)?);
    let theirs = match ovn {
        Some(ovn) => Some([per_port(ovn.flows()?, ovn.base()?)]),
        None => None,
    };
    let beside = peer(theirs.as_ref().map(<[f64; 1]>::as_slice), "shared", ports);
    let name = format!("net: flows per port, a shared group of 20 rules, {ports} ports");
    report.add(&name, "", Spread::of(&[shared]), beside, Target::AtMost(20.0));
    // Each port its own group: another node of OVN's. Of the large size it takes minutes and says the same.
    let own = per_port(compiled(ports, Groups::Own)?, compiled(0, Groups::Own)?);
    let theirs = match ovn {
        Some(_) if ports <= 100 => {
            let ovn = Ovn::start(ports, Groups::Own)?;
            Some([per_port(ovn.flows()?, ovn.base()?)])
        }
        _ => None,
    };
    let beside = match ovn {
        Some(_) => theirs.as_ref().map(|flows| ("OVN", Spread::of(flows))),
        None => peer(None, "own", ports),
    };
    let name = format!("net: flows per port, own groups of 20 rules, {ports} ports");
    report.add(&name, "", Spread::of(&[own]), beside, Target::AtMost(45.0));
    Ok(())
}

fn memory(ports: usize, ours: &Ours, ovn: Option<&Ovn>, report: &mut Report) -> anyhow::Result<()> {
    let theirs = ovn.map(Side::resident).transpose()?;
    let beside = theirs.map(|mib| ("OVN", Spread::of(&[mib])));
    let name = format!("net: resident, agent alone, {ports} ports");
    report.add(&name, "MiB", Spread::of(&[ours.resident()?]), beside, Target::AtMost(60.0));
    Ok(())
}

fn tcp(
    plan: &Plan,
    ports: usize,
    tso: bool,
    ours: &Ours,
    ovn: Option<&Ovn>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (mut own, mut plain, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5.min(plan.rounds) {
        let [client, server] = ours.guests();
        own.push(throughput(client, server, OPEN, plan.time).context("through our pipeline")?);
        let [one, other] = &ours.neighbours;
        plain.push(throughput(one, other, OPEN, plan.time).context("through NORMAL")?);
        if let Some(ovn) = ovn {
            let [client, server] = ovn.guests();
            theirs.push(throughput(client, server, OPEN, plan.time).context("through OVN")?);
        }
    }
    let how = if tso { " with userspace TSO" } else { "" };
    let name = format!("net: TCP, groups + ACL + routing{how}, {ports} ports");
    let normal = Some(("NORMAL", Spread::of(&plain)));
    report.add(&name, "Gbit/s", Spread::of(&own), normal, Target::RatioAtLeast(0.9));
    if !theirs.is_empty() {
        report.add(&name, "Gbit/s", Spread::of(&own), Some(("OVN", Spread::of(&theirs))), Target::None);
    }
    Ok(())
}

fn plug(
    plan: &Plan,
    ports: usize,
    ours: &mut Ours,
    mut ovn: Option<&mut Ovn>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (mut own, mut floor, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds.div_ceil(2) {
        own.push(ours.plug().context("ours")?);
        floor.push(ours.floor().context("the switch alone")?);
        if let Some(ovn) = ovn.as_deref_mut() {
            theirs.push(ovn.plug().context("OVN")?);
        }
    }
    let beside = peer((!theirs.is_empty()).then_some(theirs.as_slice()), "plug", ports);
    let name = format!("net: plug a port → ready, {ports} ports");
    report.add(&name, "ms", Spread::of(&own), beside, target(ports, 15.0, 250.0));
    let alone = Some(("tap and OVSDB alone", Spread::of(&floor)));
    report.add(&name, "ms", Spread::of(&own), alone, Target::None);
    Ok(())
}

/// Seconds, packets lost, and packets lost in the second before, when nothing was done.
type Interruption = [f64; 3];

fn interrupted(
    side: &mut dyn Side,
    act: impl FnOnce(&mut dyn Side, &Stream) -> anyhow::Result<f64>,
) -> anyhow::Result<Interruption> {
    const PATIENCE: Duration = Duration::from_secs(120);
    side.prepare(true)?;
    side.change(true)?;
    side.confirmed()?;
    let [client, server] = side.guests();
    // No more than a queue of a device can hold while the two processors are busy with something else.
    let stream = Stream::start(client, server, OPENED, Duration::from_millis(1))?;
    stream.becomes(true, PATIENCE)?;
    // Two processors have moods of their own.
    std::thread::sleep(Duration::from_secs(1));
    let start = Instant::now();
    let seconds = act(side, &stream)?;
    let end = Instant::now();
    // What was sent last has to arrive.
    stream.becomes(true, PATIENCE)?;
    let lost = stream.lost(start, end);
    let before = stream.lost(start - Duration::from_secs(1), start);
    drop(stream);
    side.prepare(false)?;
    side.change(true)?;
    side.confirmed()?;
    Ok([seconds, f64::from(u32::try_from(lost)?), f64::from(u32::try_from(before)?)])
}

fn restart(side: &mut dyn Side) -> anyhow::Result<Interruption> {
    interrupted(side, |side, _| side.restart())
}

fn without_switch(side: &mut dyn Side) -> anyhow::Result<Interruption> {
    interrupted(side, |side, stream| {
        side.kill_switch()?;
        // To find it among all processes takes longer than to kill it.
        let start = Instant::now();
        // Those on their way may still have arrived.
        let after = start + Duration::from_millis(20);
        std::thread::sleep(Duration::from_millis(50));
        let (_, waited) =
            e2e::wait::until("packets pass again", Duration::from_secs(300), || Ok(stream.first(after)))?;
        let first = stream.first(after).context("a packet")?;
        ensure!(waited < Duration::from_secs(300), "no packet");
        Ok(first.saturating_duration_since(start).as_secs_f64())
    })
}

fn restarts(
    plan: &Plan,
    ports: usize,
    ours: &mut Ours,
    mut ovn: Option<&mut Ovn>,
    report: &mut Report,
) -> anyhow::Result<()> {
    type Act = fn(&mut dyn Side) -> anyhow::Result<Interruption>;
    let acts: [(&str, Act, &str, Target); 2] = [
        ("agent killed → all in order", restart, "restart", Target::AtMost(5.0)),
        ("switch killed → packets pass", without_switch, "", Target::AtMost(1.0)),
    ];
    for (what, act, record, target) in acts {
        let (mut own, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..3.min(plan.rounds) {
            own.push(act(ours).with_context(|| format!("ours: {what}"))?);
            if let Some(ovn) = ovn.as_deref_mut() {
                theirs.push(act(ovn).with_context(|| format!("OVN: {what}"))?);
            }
        }
        let column = |of: &[Interruption], n: usize| of.iter().map(|i| i[n]).collect::<Vec<f64>>();
        let measured = (!theirs.is_empty()).then(|| column(&theirs, 0));
        let name = format!("net: {what}, {ports} ports");
        let beside = peer(measured.as_deref(), record, ports);
        report.add(&name, "s", Spread::of(&column(&own, 0)), beside, target);
        let beside = (!theirs.is_empty()).then(|| ("OVN", Spread::of(&column(&theirs, 1))));
        let none = if record.is_empty() { Target::None } else { Target::AtMost(0.0) };
        let lost = Spread::of(&column(&own, 1));
        report.add(&format!("{name}: packets lost of 1000 a second"), "", lost, beside, none);
        if !record.is_empty() {
            let before = Spread::of(&column(&own, 2));
            let name = format!("net: lost in a second without any of it, {ports} ports");
            report.add(&name, "", before, None, Target::None);
        }
    }
    Ok(())
}

fn site(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let [vpcs, ports, nodes] = plan.site[..] else { return Ok(()) };
    let all = simulation::measure(vpcs, ports, nodes)?;
    let tenth = simulation::measure(vpcs.div_ceil(10), ports.div_ceil(10), nodes.div_ceil(10))?;
    let list = |of: &Value, name: &str| -> anyhow::Result<Vec<f64>> {
        let list = of[name].as_array().with_context(|| name.to_owned())?;
        Ok(list.iter().filter_map(Value::as_f64).collect())
    };
    let number = |of: &Value, name: &str| of[name].as_f64().with_context(|| name.to_owned());
    let what = format!("{vpcs} VPCs, {ports} ports on {nodes} nodes");
    let times = Spread::of(&list(&all, "compile_ms")?);
    report.add(&format!("net: {what}: compile a node"), "ms", times, None, Target::AtMost(100.0));
    let times = Spread::of(&list(&all, "change_ms")?);
    report.add(
        &format!("net: {what}: a rule changes, compile + compare a node"),
        "ms",
        times,
        None,
        Target::AtMost(10.0),
    );
    let mods = number(&all, "flow_mods")? / number(&all, "concerned")?;
    let name = format!("net: {what}: flows changed on each node");
    report.add(&name, "", Spread::of(&[mods]), None, Target::None);
    let memory =
        |of: &Value| Ok::<f64, anyhow::Error>(number(of, "documents_mib")? + number(of, "flows_mib")?);
    let spread = Spread::of(&[memory(&all)?]);
    let name = format!("net: {what}: documents and flows of all nodes");
    report.add(&name, "MiB", spread, None, Target::None);
    // Linear: ten times the site is ten times the memory.
    let small = ("a tenth of the site, times ten", Spread::of(&[memory(&tenth)? * 10.0]));
    report.add(&format!("{name}, linear"), "MiB", spread, Some(small), Target::RatioAtMost(1.1));
    Ok(())
}
