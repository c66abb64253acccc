//! The instance manager, as `gon_control::compute`: the order of its steps is said again here, its decisions are its own.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use gon_control::compute::ingest::judge;
use gon_control::compute::place;
use gon_control::compute::{ComputeSettings, mass_change_ok, resolve};
use gon_control::network::resolve::device_name;
use gon_core::drain::{self, Occupant};
use gon_core::instance::Power;
use gon_core::placement::{Batch, Candidate, Refusal, refuse};
use gon_core::report::is_news;
use gon_proto::{InstanceReport, NodeCompute, ObservedInstance, PowerSpec};
use gon_store::compute_document::InstanceRow;
use gon_store::reports::{Observation, ReportedRow};
use gon_types::id::InstanceId;
use gon_types::{DocumentVersion, InstanceState as State};
use uuid::Uuid;

use crate::bus::Wake;
use crate::db::{Durability, SqlError};
use crate::exec::{MS, S, Time, race};
use crate::recovery;
use crate::rows;
use crate::server::{Documents, Manager, NotLeading, hold};
use crate::tables::{COMPUTE, Doorbell, Remains, Row, Tables};
use crate::world::{Bug, Ctx};

/// How often a controller looks at everything.
pub const SWEEP: Time = 10 * S;
/// How long an instance waits for a node.
pub const PATIENCE: Time = 600 * S;
/// How long a guest may take to power itself off, seconds.
pub const GRACE: u32 = 5;

/// Starts the process.
pub fn boot(ctx: &Ctx, server: usize) {
    *ctx.w.servers[server].manager.borrow_mut() = new_memory(ctx);
    ctx.spawn(run(ctx.clone(), server));
}

/// Nothing.
pub fn new_memory(ctx: &Ctx) -> Manager {
    Manager {
        documents: Documents::new(&ctx.w.exec),
        leads: None,
        reports: BTreeMap::new(),
        waiting: Rc::default(),
        eyes: Default::default(),
    }
}

async fn run(ctx: Ctx, server: usize) {
    // Every process that writes the outbox runs a relay.
    ctx.spawn(crate::api::relay(ctx.clone(), server));
    loop {
        let epoch = ctx.win(COMPUTE).await;
        {
            let mut manager = ctx.w.servers[server].manager.borrow_mut();
            manager.reports.clear();
            manager.eyes = Default::default();
            manager.waiting.borrow_mut().clear();
            manager.documents.clear();
            manager.leads = Some(epoch);
        }
        ctx.note(|| format!("leads since epoch {epoch}"));
        // Its lease is one thing; that it leads ends when PostgreSQL says so.
        let work = race(lead(&ctx, server, epoch), tick(&ctx, server, epoch));
        let _ = race(work, ctx.keep_ticket(COMPUTE)).await;
        ctx.note(|| "is deposed".to_owned());
        {
            let mut manager = ctx.w.servers[server].manager.borrow_mut();
            manager.leads = None;
            manager.documents.clear();
        }
        ctx.sleep(S).await;
    }
}

/// Until it is deposed: its rounds.
async fn lead(ctx: &Ctx, server: usize, epoch: u64) {
    let subscription = ctx.w.bus.subscribe(&ctx.w.exec, ctx.host);
    let mut sweep_at = ctx.w.exec.now();
    loop {
        let wake = subscription.next(ctx, sweep_at).await;
        let rung = match &wake {
            Wake::Sweep => None,
            Wake::Rung(bells) => Some(bells),
        };
        if rung.is_none() {
            sweep_at = ctx.w.exec.now() + SWEEP;
        }
        match round(ctx, server, epoch, rung).await {
            Ok(()) => {}
            Err(SqlError::Deposed) => return,
            Err(_) => sweep_at = sweep_at.min(ctx.w.exec.now() + S),
        }
        if ctx.w.servers[server].manager.borrow().leads != Some(epoch) {
            return;
        }
    }
}

/// Until it is deposed: work besides the rounds, which is emptying nodes and recovering what was on lost ones.
async fn tick(ctx: &Ctx, server: usize, epoch: u64) {
    loop {
        ctx.sleep(S).await;
        if ctx.w.config.recovery && recovery::look(ctx, server, epoch).await == Err(SqlError::Deposed) {
            return;
        }
        let work = |t: &mut Tables, now: Time| {
            let mut done = 0;
            for node in 0..t.nodes.len() {
                let Some(may_stop) = t.nodes[node].draining else { continue };
                let there = t.instances.iter().filter(|r| r.node == Some(node)).map(|row| {
                    let occupant = Occupant {
                        state: row.state,
                        power: row.power,
                        has_disk: row.needs[2] > 0,
                        is_leaving: row.leaving,
                    };
                    (row.clone(), occupant)
                });
                let look = drain::look(there.collect::<Vec<_>>(), may_stop);
                done += look.leave.len() + look.stop.len();
                for row in look.leave {
                    t.update(row.id, |r| {
                        r.leaving = true;
                        r.generation += 1;
                    })?;
                    t.ring(Doorbell::Instance(row.id));
                }
                for row in look.stop {
                    t.update(row.id, |r| {
                        (r.power, r.state, r.force) = (Power::Stopped, State::Stopping, false);
                        r.reason = Some("Server.ScheduledStop".into());
                        r.generation += 1;
                    })?;
                    if t.release_public(row.nic, now) {
                        t.touch_vpc(row.vpc);
                    }
                    t.ring(Doorbell::Instance(row.id));
                }
            }
            Ok(done)
        };
        let busy = |t: &mut Tables, _| Ok(t.nodes.iter().any(|n| n.draining.is_some()));
        let result = match ctx.leader_sql(Durability::Read, (COMPUTE, epoch), busy).await {
            Ok(true) => ctx.leader_sql(Durability::Disk, (COMPUTE, epoch), work).await,
            other => other.map(|_| 0),
        };
        match result {
            Err(SqlError::Deposed) => return,
            Ok(0) | Err(_) => {}
            Ok(_) => ctx.w.servers[server].nudge.ring(),
        }
    }
}

async fn round(
    ctx: &Ctx,
    server: usize,
    epoch: u64,
    rung: Option<&BTreeSet<Doorbell>>,
) -> Result<(), SqlError> {
    let mut nodes: BTreeSet<usize> = BTreeSet::new();
    match rung {
        None => nodes.extend(0..ctx.w.nodes.len()),
        Some(rings) => {
            let ids: Vec<Uuid> = rings
                .iter()
                .filter_map(|b| match b {
                    Doorbell::Instance(id) => Some(*id),
                    _ => None,
                })
                .collect();
            nodes.extend(rings.iter().filter_map(|b| match b {
                Doorbell::Node(node) => Some(*node),
                _ => None,
            }));
            let of = move |t: &mut Tables, _| {
                Ok(ids.iter().filter_map(|id| t.find(*id)?.node).collect::<Vec<_>>())
            };
            nodes.extend(ctx.sql(Durability::Read, of).await?);
        }
    }
    nodes.extend(place(ctx, server, epoch, rung).await?);
    for node in nodes {
        refresh(ctx, server, epoch, node).await?;
    }
    finish(ctx, server, epoch).await
}

/// Places what waits.
async fn place(
    ctx: &Ctx,
    server: usize,
    epoch: u64,
    rung: Option<&BTreeSet<Doorbell>>,
) -> Result<BTreeSet<usize>, SqlError> {
    let now = ctx.w.exec.now();
    // A stale set vouches for nobody.
    let leases = if ctx.w.etcd.lost_quorum.get() { BTreeSet::new() } else { ctx.w.etcd.alive(now) };
    let alive: BTreeSet<String> = leases.iter().map(|n| rows::node_name(*n)).collect();
    let unchecked = ctx.w.has(Bug::NoCapacityCheck);
    let presumed_dead = ctx.w.has(Bug::LeaseAsFence).then(|| ctx.w.etcd.alive(now));
    let waits = |row: &&Row| {
        row.node.is_none() && row.lives() && row.state == State::Pending && row.power == Power::Running
    };
    let again: BTreeSet<Uuid> = match (rung, ctx.w.has(Bug::PlacedPerRing)) {
        (Some(rung), true) => rung
            .iter()
            .filter_map(|bell| match bell {
                Doorbell::Instance(id) => Some(*id),
                _ => None,
            })
            .collect(),
        _ => BTreeSet::new(),
    };
    let wall_clock = ctx.w.has(Bug::WallClockPatience).then(|| ctx.w.servers[server].wall_clock_off.get());
    let own_clock = Rc::clone(&ctx.w.servers[server].manager.borrow().waiting);
    own_clock.borrow_mut().begin(Duration::from_micros(now));
    let work = move |t: &mut Tables, now: Time| {
        let mut waiting: Vec<Row> = t.instances.iter().filter(waits).cloned().collect();
        if presumed_dead.is_some() || !again.is_empty() {
            let is_dead = |n: usize| presumed_dead.as_ref().is_some_and(|alive| !alive.contains(&n));
            let lost = t.instances.iter().filter(|r| {
                matches!(r.state, State::Pending | State::Running)
                    && r.power == Power::Running
                    && r.node
                        .is_some_and(|n| is_dead(n) || (r.state == State::Pending && again.contains(&r.id)))
            });
            let lost: Vec<Row> = lost.cloned().collect();
            for row in &lost {
                t.lend(row.node.unwrap_or(0), row.needs.map(|n| -n))?;
            }
            waiting.extend(lost);
        }
        let candidates: Vec<_> = (0..t.nodes.len()).filter(|n| t.nodes[*n].joined).collect();
        let candidate_rows: Vec<_> = candidates.iter().map(|n| rows::candidate(t, *n, now)).collect();
        let mut nodes: Vec<Candidate> =
            candidate_rows.iter().map(|row| place::candidate(row, &alive)).collect();
        if unchecked {
            for node in &mut nodes {
                (node.vcpus.used, node.memory_mib.used, node.disk_gib.used) = (0, 0, 0);
            }
        }
        let mut batch = Batch::new(nodes);
        let mut touched = BTreeSet::new();
        for row in waiting {
            let need = place::request(&rows::unplaced(t, &row));
            match batch.choose(&need) {
                Ok(index) => {
                    let node = candidates[index];
                    if batch.lacks_numbers(index) {
                        let in_use = rows::numbers_in_use(t, node);
                        batch.learn(index, place::numbers(in_use, &candidate_rows[index]));
                    }
                    let Some(given) = batch.place(index, &need, 1) else { continue };
                    let (uid, port_no) = (given.uid.cast_signed(), given.ports[0].cast_signed());
                    t.update(row.id, |r| {
                        (r.node, r.uid, r.port_no) = (Some(node), Some(uid), Some(port_no));
                        r.epoch += 1;
                        r.generation += 1;
                        r.reason = None;
                    })?;
                    t.lend(node, row.needs)?;
                    let held = &mut Rc::make_mut(&mut t.nodes)[node];
                    (held.last_uid, held.last_port_no) = (uid, port_no);
                    t.touch_vpc(row.vpc);
                    t.ring(Doorbell::Instance(row.id));
                    own_clock.borrow_mut().placed(InstanceId::from_uuid(row.id));
                    touched.insert(node);
                }
                Err(_) if row.node.is_some() => t.lend(row.node.unwrap_or(0), row.needs)?,
                Err(none) => {
                    let id = InstanceId::from_uuid(row.id);
                    let own = own_clock.borrow_mut().refused(id, Duration::from_micros(now));
                    let waited = wall_clock.map_or(own, |off| {
                        let wall = now.saturating_add_signed(off * S as i64);
                        Duration::from_micros(wall.saturating_sub(row.created_at))
                    });
                    let reason: Rc<str> = none.to_string().into();
                    match refuse(waited, Duration::from_micros(PATIENCE), row.reason.as_deref(), &reason) {
                        Refusal::GiveUp => {
                            t.update(row.id, |r| {
                                (r.power, r.state) = (Power::Terminated, State::ShuttingDown);
                                r.reason = Some(reason);
                                r.generation += 1;
                            })?;
                            t.ring(Doorbell::Instance(row.id));
                        }
                        Refusal::Tell => t.update(row.id, |r| r.reason = Some(reason))?,
                        Refusal::Wait => {}
                    }
                }
            }
        }
        Ok(touched)
    };
    let touched = ctx.leader_sql(Durability::Disk, (COMPUTE, epoch), work).await?;
    if !touched.is_empty() {
        ctx.note(|| format!("placed on {touched:?}"));
        ctx.w.servers[server].nudge.ring();
    }
    Ok(touched)
}

/// Reads, resolves and publishes one node's document.
async fn refresh(ctx: &Ctx, server: usize, epoch: u64, node: usize) -> Result<(), SqlError> {
    let turn = ctx.w.servers[server].manager.borrow().documents.turn.clone();
    let _turn = if ctx.w.has(Bug::NoTurn) { None } else { Some(turn.take().await) };
    let read = move |t: &mut Tables, _| {
        let here = t.instances.iter().filter(|r| r.node == Some(node) && r.compute);
        let left = t.remains.iter().filter(|r| r.node == node).map(rows::remains);
        let here = here.map(|row| rows::instance(row, t.nodes[node].epoch));
        Ok(here.chain(left).collect::<Vec<InstanceRow>>())
    };
    let mut found: Vec<InstanceRow> = ctx.leader_read((COMPUTE, epoch), read).await?;
    let had = ctx.w.servers[server].manager.borrow().had(node);
    let missing = match had {
        None => None,
        Some(mut missing) => {
            missing.retain(|id| !found.iter().any(|row| row.id == *id));
            let count = missing.len();
            let left = move |t: &mut Tables, _| {
                let left =
                    |id: &Uuid| t.find(*id).is_some_and(|r| r.node != Some(node) || r.leaving || !r.compute);
                Ok(missing.is_empty() || missing.iter().all(left))
            };
            ctx.sql(Durability::Read, left).await?.then_some(count)
        }
    };
    let mut mass = mass_change_ok(&found, missing);
    // A document that is wrong: the agent's brake is there for it.
    let wrong = {
        // The brake holds where much would be lost: by whatever document the node may work from by then.
        let much = |document: &NodeCompute| {
            document.instances.iter().filter(|spec| spec.power != PowerSpec::Terminated).count() > 5
        };
        let told = ctx.w.servers[server].manager.borrow().documents.newer(node, DocumentVersion::default());
        let held = ctx.w.nodes[node].state.borrow().disk.compute.clone();
        let chaos = ctx.w.chaos.borrow();
        told.is_some_and(|told| much(&told))
            && held.is_some_and(|held| much(&held))
            && ctx.w.rng.borrow_mut().percent(chaos.false_documents)
    };
    if wrong {
        ctx.note(|| format!("publishes a wrong document for node{node}"));
        mass = false;
        found.iter_mut().for_each(|row| {
            row.power = "terminated".to_owned();
        });
    }
    let settings = ComputeSettings { stop_grace_seconds: GRACE, ..ComputeSettings::default() };
    let id = ctx.w.nodes[node].id;
    let document = match resolve::document(id, found, &settings) {
        Ok(mut document) => {
            if ctx.w.has(Bug::DeviceOfEveryPlacement) {
                for nic in document.instances.iter_mut().flat_map(|spec| &mut spec.nics) {
                    nic.device = device_name(nic.id.uuid(), 0);
                }
            }
            document
        }
        Err(error) => {
            ctx.w.fail(format_args!("the rows of node{node} make no document: {error}"));
            return Ok(());
        }
    };
    let mut manager = ctx.w.servers[server].manager.borrow_mut();
    if manager.leads != Some(epoch) {
        return Err(SqlError::Deposed);
    }
    let (version, new) = manager.documents.publish(epoch, node, document, mass);
    if new {
        ctx.note(|| format!("publishes compute {version} for node{node}"));
        if let Some(document) = manager.documents.newer(node, DocumentVersion::default()) {
            ctx.w.truth.borrow_mut().old_documents.push((node, document));
        }
    }
    if wrong {
        // It reads again, soon, and finds what is true.
        let (ctx, w) = (ctx.clone(), Rc::clone(&ctx.w));
        drop(manager);
        w.exec.spawn(ctx.proc, async move {
            ctx.sleep(2 * S).await;
            let _ = Box::pin(refresh(&ctx, server, epoch, node)).await;
        });
    }
    Ok(())
}

/// Turns instances that have nothing left anywhere into tombstones.
async fn finish(ctx: &Ctx, server: usize, epoch: u64) -> Result<(), SqlError> {
    let work = |t: &mut Tables, now: Time| {
        let over: Vec<Row> = t
            .instances
            .iter()
            .filter(|r| {
                r.power == Power::Terminated
                    && r.state == State::ShuttingDown
                    && (r.node.is_none() || !r.compute && !r.network)
            })
            .cloned()
            .collect();
        for row in &over {
            t.release_public(row.nic, now);
            if let Some(node) = row.node {
                t.lend(node, row.needs.map(|n| -n))?;
            }
            t.update(row.id, |r| {
                r.state = State::Terminated;
                (r.compute, r.network) = (false, false);
                (r.node, r.uid, r.port_no) = (None, None, None);
                r.generation += 1;
                r.deleted_at = Some(now);
            })?;
            t.touch_vpc(row.vpc);
        }
        Ok(over.len())
    };
    let waits = |t: &mut Tables, _| Ok(t.instances.iter().any(|r| r.state == State::ShuttingDown));
    if ctx.sql(Durability::Read, waits).await? {
        let done = ctx.leader_sql(Durability::Disk, (COMPUTE, epoch), work).await?;
        if done > 0 {
            ctx.w.servers[server].nudge.ring();
        }
    }
    Ok(())
}

/// Answers a poll.
pub async fn poll(
    ctx: Ctx,
    server: usize,
    node: usize,
    after: DocumentVersion,
) -> Result<Option<Rc<NodeCompute>>, NotLeading> {
    let replays = {
        let chaos = ctx.w.chaos.borrow();
        ctx.w.rng.borrow_mut().percent(chaos.old_documents)
    };
    if replays {
        // Something between serves what it kept.
        let truth = ctx.w.truth.borrow();
        let old: Vec<_> = truth.old_documents.iter().filter(|(n, _)| *n == node).collect();
        if let Some((_, document)) = ctx.w.rng.borrow_mut().pick(&old) {
            return Ok(Some(Rc::clone(document)));
        }
    }
    let (bell, epoch) = {
        let manager = ctx.w.servers[server].manager.borrow();
        let Some(epoch) = manager.leads else { return Err(NotLeading) };
        (manager.documents.bell.clone(), epoch)
    };
    let (w, me) = (Rc::clone(&ctx.w), server);
    let found = hold(&ctx, &bell, 25 * S, move || {
        let manager = w.servers[me].manager.borrow();
        match manager.leads {
            Some(e) if e == epoch => manager.documents.newer(node, after).map(Some),
            _ => Some(None),
        }
    })
    .await;
    match found {
        None => Ok(None),
        Some(Some(document)) => Ok(Some(document)),
        Some(None) => Err(NotLeading),
    }
}

fn refused(result: Result<(), SqlError>) -> Result<(), NotLeading> {
    // 503, whatever it was: the agent says it again.
    result.map_err(|_| NotLeading)
}

/// Takes a report.
pub async fn ingest(
    ctx: Ctx,
    server: usize,
    node: usize,
    reports: Vec<InstanceReport>,
) -> Result<(), NotLeading> {
    let now = ctx.w.exec.now();
    let epoch = {
        let manager = ctx.w.servers[server].manager.borrow();
        let Some(epoch) = manager.leads else { return Err(NotLeading) };
        let known = manager.reports.get(&node);
        let age = |at: Time| Duration::from_micros(now - at);
        if known.is_some_and(|(held, at)| !is_news(*held == reports, age(*at))) {
            return Ok(());
        }
        epoch
    };
    let result = take(&ctx, server, epoch, node, reports).await;
    if result == Err(SqlError::Deposed) {
        ctx.w.servers[server].manager.borrow_mut().leads = None;
    }
    refused(result)
}

async fn take(
    ctx: &Ctx,
    server: usize,
    epoch: u64,
    node: usize,
    reports: Vec<InstanceReport>,
) -> Result<(), SqlError> {
    ctx.step(3 * MS).await;
    let uncompared = ctx.w.has(Bug::ReportWithoutCompare);
    let reported = reports.clone();
    let w = Rc::clone(&ctx.w);
    let (work_w, durable) = (Rc::clone(&w), Rc::new(std::cell::Cell::new(false)));
    let durable_ = Rc::clone(&durable);
    let work = move |t: &mut Tables, now: Time| {
        let mut changed = 0;
        for report in reported.iter().filter(|r| r.observed == ObservedInstance::Gone) {
            let gone = |r: &Remains| {
                (r.node, r.instance) == (node, report.id.uuid())
                    && r.epoch.unsigned_abs() == report.placement_epoch
            };
            if t.remains.iter().any(gone) {
                Rc::make_mut(&mut t.remains).retain(|r| !gone(r));
                t.ring(Doorbell::Node(node));
                changed += 1;
            }
        }
        for report in &reported {
            let id = report.id.uuid();
            let Some(row) = t.find(id).filter(|r| r.node == Some(node)).cloned() else { continue };
            let mut report = report.clone();
            let stale = report.generation != row.generation.unsigned_abs()
                || report.placement_epoch != row.epoch.unsigned_abs();
            if uncompared {
                report.generation = row.generation.unsigned_abs();
                report.placement_epoch = row.epoch.unsigned_abs();
            }
            let change = match judge(&rows::reported(&row), &report) {
                Ok(Some(change)) => change,
                Ok(None) => continue,
                Err(error) => {
                    work_w.fail(format_args!("a row makes no sense to a report: {error}"));
                    continue;
                }
            };
            if stale {
                work_w.fail(format_args!("a stale report of node{node} changed {id}: {report:?}"));
            }
            work_w.note(|| {
                format!("node{node} says {:?} of i-{}: {change:?}", report.observed, id.as_u128() as u32)
            });
            durable_.set(durable_.get() | observe(t, now, &row, &rows::reported(&row), &change)?);
            changed += 1;
        }
        Ok(changed)
    };
    // A transaction that gives a generation waits for the disk; which one does is only known afterwards, so both are
    // the same here but for what a crash may take back.
    let changed = ctx.leader_sql(Durability::Memory, (COMPUTE, epoch), work).await?;
    if durable.get() {
        w.db.borrow_mut().flush();
    }
    if changed > 0 {
        w.servers[server].nudge.ring();
    }
    let now = w.exec.now();
    let first = {
        let mut manager = w.servers[server].manager.borrow_mut();
        if manager.leads != Some(epoch) {
            return Err(SqlError::Deposed);
        }
        manager.reports.insert(node, (reports, now)).is_none()
    };
    if first {
        // Now it is known what the node has, and so whether many may go.
        refresh(ctx, server, epoch, node).await?;
    }
    Ok(())
}

/// `gon_store::reports::observe`. True if the commit waits for the disk.
fn observe(
    t: &mut Tables,
    now: Time,
    row: &Row,
    reported: &ReportedRow,
    change: &Observation,
) -> Result<bool, SqlError> {
    let state = rows::state(change.state);
    let moved = change.state != reported.state;
    let respecified = change.power.is_some_and(|p| p != reported.power);
    t.update(row.id, |r| {
        r.state = state;
        r.reason = change.reason.as_deref().map(Into::into);
        if let Some(power) = change.power {
            r.power = rows::power(power);
        }
        r.observed = r.observed.max(r.generation);
        r.generation += i64::from(respecified);
        r.compute &= !change.compute_gone;
    })?;
    let mut touched = false;
    if moved && state == State::Stopped && t.release_public(row.nic, now) {
        t.touch_vpc(row.vpc);
        touched = true;
    }
    if change.compute_gone {
        t.touch_vpc(row.vpc);
        touched = true;
    }
    if change.left_node {
        if let Some(node) = row.node {
            t.lend(node, row.needs.map(|n| -n))?;
        }
        t.update(row.id, |r| {
            (r.node, r.uid, r.port_no, r.leaving) = (None, None, None, false);
            r.generation += 1;
        })?;
        t.touch_vpc(row.vpc);
        touched = true;
    }
    if respecified || change.compute_gone || change.left_node {
        t.ring(Doorbell::Instance(row.id));
    }
    Ok(respecified || touched)
}

/// Takes what a node says of itself: its epoch.
pub async fn ingest_node(ctx: Ctx, server: usize, node: usize) -> Result<u64, NotLeading> {
    let Some(epoch) = ctx.w.servers[server].manager.borrow().leads else { return Err(NotLeading) };
    let work = move |t: &mut Tables, now: Time| {
        let row = &mut Rc::make_mut(&mut t.nodes)[node];
        row.last_report_at = now;
        if !std::mem::replace(&mut row.joined, true) {
            t.ring(Doorbell::Node(node));
        }
        Ok(t.nodes[node].epoch)
    };
    let result = ctx.leader_sql(Durability::Disk, (COMPUTE, epoch), work).await;
    ctx.w.servers[server].nudge.ring();
    // 503, whatever it was: the agent says it again.
    result.map_err(|_| NotLeading)
}
