//! The hypervisor agent around its instances: documents in, reports out. As `gon_agent::hypervisor`; the rule by which it
//! takes a document is its own.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use gon_agent::hypervisor::fence::Grant;
use gon_agent::ledger::{LedgerError, judge};
use gon_proto::{InstanceReport, InstanceSpec, NodeCompute};
use gon_types::DocumentVersion;
use uuid::Uuid;

use crate::exec::{Bell, MS, S, Time, race};
use crate::server::Link;
use crate::world::{Bug, Ctx};
use crate::{compute, recovery};

/// Pauses after a failed call, shortest and longest.
const RETRY: (Time, Time) = (200 * MS, 5 * S);

/// What an instance's task is told.
#[derive(Clone)]
pub struct Told {
    /// What the document says of it.
    pub spec: Option<InstanceSpec>,
    /// Rung when that changes.
    pub bell: Bell,
}

/// What the agent holds in memory.
pub struct Agent {
    /// What its ledger holds, as far as it knows.
    pub ledger: Option<Rc<NodeCompute>>,
    /// The tasks of the instances.
    pub tasks: BTreeMap<Uuid, Told>,
    /// The last word on every instance.
    pub board: BTreeMap<Uuid, InstanceReport>,
    /// Rung when the board changes.
    pub changed: Bell,
    /// Its grant.
    pub grant: Option<Grant>,
}

/// Shared by its tasks.
pub type Shared = Rc<RefCell<Agent>>;

/// Starts the process.
pub fn boot(ctx: &Ctx, node: usize) {
    let (held, dirs, grant) = {
        let state = ctx.w.nodes[node].state.borrow();
        let disk = &state.disk;
        (disk.compute.clone(), disk.dirs.keys().copied().collect::<Vec<_>>(), disk.grant)
    };
    let agent = Rc::new(RefCell::new(Agent {
        ledger: held.clone(),
        tasks: BTreeMap::new(),
        board: BTreeMap::new(),
        changed: Bell::new(&ctx.w.exec),
        grant: recovery::last(&ctx.w, grant, ctx.w.nodes[node].clock(ctx.w.exec.now())),
    }));
    if let Some(document) = &held {
        // Perhaps it died right after it had written that.
        ctx.w.truth.borrow_mut().accepted_compute(&ctx.w, node, document);
        apply(ctx, node, &agent, document);
    }
    for id in dirs {
        if !agent.borrow().tasks.contains_key(&id) {
            tell(ctx, node, &agent, id, None);
        }
    }
    ctx.spawn(ctx.clone().keep_lease(node));
    ctx.spawn(introduce(ctx.clone(), node));
    ctx.spawn(send_reports(ctx.clone(), node, Rc::clone(&agent)));
    if ctx.w.config.recovery {
        ctx.spawn(renew(ctx.clone(), node, Rc::clone(&agent)));
    }
    ctx.spawn(pull_documents(ctx.clone(), node, agent));
}

/// Asks for grants, as `gon_agent::hypervisor::fence::renew`.
async fn renew(ctx: Ctx, node: usize, agent: Shared) {
    let link = Link::new(ctx.range(0, 7) as usize);
    let mut known = agent.borrow().grant.map(|grant| grant.number);
    loop {
        let mut given = ask(&ctx, node, &agent, &link, &mut known).await;
        if given == Some(false) {
            given = ask(&ctx, node, &agent, &link, &mut known).await;
        }
        let pause = if given == Some(true) { 4 * S } else { ctx.range(S / 2, S) };
        ctx.sleep(pause).await;
    }
}

async fn ask(ctx: &Ctx, node: usize, agent: &Shared, link: &Link, known: &mut Option<u64>) -> Option<bool> {
    let machine = &ctx.w.nodes[node];
    let epoch = machine.state.borrow().disk.epoch;
    let asked = machine.clock(ctx.w.exec.now());
    // The worst moment to be stopped: with the wish under way.
    let stalls = ctx.w.chaos.borrow().stall_ppm;
    if stalls > 0 && ctx.w.rng.borrow_mut().ppm(stalls) {
        ctx.stall(3 * MS);
    }
    let (managers, number) = (ctx.w.managers(), *known);
    let answer = link
        .call(ctx, &managers, 10 * S, move |me, server| recovery::grant(me, server, node, epoch, number))
        .await
        .ok()?;
    *known = Some(answer.number);
    if !answer.granted || answer.epoch != epoch {
        return Some(false);
    }
    let counted = if ctx.w.has(Bug::GrantFromAnswer) { machine.clock(ctx.w.exec.now()) } else { asked };
    let grant = Grant { boot: counted.boot, epoch, number: answer.number, asked_ms: counted.now_ms };
    ctx.point().await;
    // The file first, for the keeper.
    machine.state.borrow_mut().disk.grant = Some(grant);
    let mut agent = agent.borrow_mut();
    agent.grant = Some(grant);
    for told in agent.tasks.values() {
        told.bell.ring();
    }
    Some(true)
}

/// Tells every task what the document says of its instance.
fn apply(ctx: &Ctx, node: usize, agent: &Shared, document: &NodeCompute) {
    let named: BTreeSet<Uuid> = document.instances.iter().map(|spec| spec.id.uuid()).collect();
    let others: Vec<Uuid> = agent.borrow().tasks.keys().filter(|id| !named.contains(id)).copied().collect();
    for id in others {
        tell(ctx, node, agent, id, None);
    }
    for spec in &document.instances {
        tell(ctx, node, agent, spec.id.uuid(), Some(spec.clone()));
    }
}

fn tell(ctx: &Ctx, node: usize, agent: &Shared, id: Uuid, spec: Option<InstanceSpec>) {
    let mut a = agent.borrow_mut();
    if let Some(told) = a.tasks.get_mut(&id) {
        if told.spec != spec {
            told.spec = spec;
            told.bell.ring();
        }
        return;
    }
    a.tasks.insert(id, Told { spec, bell: Bell::new(&ctx.w.exec) });
    ctx.spawn(crate::guest::run(ctx.clone(), node, Rc::clone(agent), id));
}

async fn introduce(ctx: Ctx, node: usize) {
    let link = Link::new(ctx.range(0, 7) as usize);
    loop {
        let managers = ctx.w.managers();
        let call =
            link.call(&ctx, &managers, 10 * S, move |me, server| compute::ingest_node(me, server, node));
        let mut pause = S;
        if let Ok(epoch) = call.await {
            ctx.w.nodes[node].state.borrow_mut().disk.epoch = epoch;
            // More often where something hangs on it.
            pause = if ctx.w.config.recovery { 5 * S } else { 10 * S };
        }
        ctx.sleep(pause).await;
    }
}

async fn pull_documents(ctx: Ctx, node: usize, agent: Shared) {
    let link = Link::new(ctx.range(0, 7) as usize);
    let mut pause = RETRY.0;
    loop {
        let after = agent.borrow().ledger.as_ref().map_or(DocumentVersion::default(), |d| d.version);
        let managers = ctx.w.managers();
        let answer = link
            .call(&ctx, &managers, 35 * S, move |me, server| compute::poll(me, server, node, after))
            .await;
        match answer {
            Ok(None) => {
                pause = RETRY.0;
                continue;
            }
            Ok(Some(document)) => {
                if accept(&ctx, node, &agent, document).await {
                    pause = RETRY.0;
                    continue;
                }
                pause = RETRY.1;
            }
            Err(_) => {}
        }
        ctx.sleep(pause / 2 + ctx.range(0, pause / 2)).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

async fn accept(ctx: &Ctx, node: usize, agent: &Shared, document: Rc<NodeCompute>) -> bool {
    let held = agent.borrow().ledger.clone();
    let verdict = {
        let mut offered = (*document).clone();
        offered.mass_change_ok |= ctx.w.has(Bug::NoBrake);
        judge(ctx.w.nodes[node].id, held.as_deref(), &offered)
    };
    match verdict {
        Ok(false) => return true,
        Ok(true) => {}
        Err(LedgerError::Stale { offered, accepted })
            if ctx.w.has(Bug::EpochUnchecked) && offered.generation > accepted.generation
                || ctx.w.has(Bug::GenerationUnchecked) && offered.epoch >= accepted.epoch => {}
        Err(error) => {
            ctx.note(|| format!("refuses a document: {error}"));
            return false;
        }
    }
    let written = Rc::clone(&document);
    if ctx.write_disk(node, move |disk| disk.compute = Some(written)).await.is_err() {
        return false;
    }
    ctx.note(|| format!("takes compute {}", document.version));
    ctx.w.truth.borrow_mut().accepted_compute(&ctx.w, node, &document);
    agent.borrow_mut().ledger = Some(Rc::clone(&document));
    apply(ctx, node, agent, &document);
    true
}

async fn send_reports(ctx: Ctx, node: usize, agent: Shared) {
    let link = Link::new(ctx.range(0, 7) as usize);
    let mut pause = RETRY.0;
    let changed = agent.borrow().changed.clone();
    loop {
        let reports: Vec<InstanceReport> = agent.borrow().board.values().cloned().collect();
        ctx.point().await;
        let managers = ctx.w.managers();
        let sent = link
            .call(&ctx, &managers, 10 * S, move |me, server| compute::ingest(me, server, node, reports))
            .await;
        if sent.is_ok() {
            pause = RETRY.0;
            let _ = race(changed.heard(), ctx.sleep(10 * S)).await;
            ctx.sleep(2 * MS).await;
        } else {
            ctx.sleep(pause / 2 + ctx.range(0, pause / 2)).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }
}

impl Agent {
    /// Puts up an instance's report.
    pub fn publish(&mut self, report: InstanceReport) {
        let id = report.id.uuid();
        if self.board.get(&id) != Some(&report) {
            self.board.insert(id, report);
            self.changed.ring();
        }
    }
}
