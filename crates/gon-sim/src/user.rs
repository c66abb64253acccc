//! Users: they ask, ask again with the same key until they are told, and remember what they were told.

use std::cell::RefCell;
use std::rc::Rc;

use gon_core::instance::Power;
use gon_types::InstanceState as State;
use uuid::Uuid;

use crate::api::{Ask, Told, handle};
use crate::exec::{MS, S, Time};
use crate::tables::Tables;
use crate::world::Ctx;

/// What was asked under a key, and what was told, once it was.
#[derive(Debug, Clone)]
pub struct Request {
    /// The key.
    pub key: u64,
    /// What for.
    pub ask: Ask,
    /// What came of it.
    pub told: Option<Told>,
}

/// Everything that was ever asked.
#[derive(Default)]
pub struct History(pub RefCell<Vec<Request>>);

/// How busy the users of a run are.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Instances they want at most.
    pub instances: usize,
    /// The longest pause between two wishes.
    pub pause: Time,
    /// They wish for nothing new from then on.
    pub until: Time,
    /// VPCs.
    pub vpcs: u64,
}

/// One user, until there is nothing left to wish for.
pub async fn run(ctx: Ctx, history: Rc<History>, load: Load) {
    loop {
        let pause = ctx.range(10 * MS, load.pause);
        ctx.sleep(pause).await;
        if ctx.w.exec.now() > load.until {
            return;
        }
        let ask = wish(&ctx, &history, load);
        let index = {
            let mut all = history.0.borrow_mut();
            let key = all.len() as u64 + 1;
            all.push(Request { key, ask, told: None });
            key as usize - 1
        };
        let key = index as u64 + 1;
        ctx.note(|| format!("asks {ask:?} with key {key}"));
        let told = insist(&ctx, key, ask).await;
        ctx.note(|| format!("is told {told:?} for key {key}"));
        history.0.borrow_mut()[index].told = told;
    }
}

async fn insist(ctx: &Ctx, key: u64, ask: Ask) -> Option<Told> {
    for _ in 0..200 {
        let server = ctx.range(0, ctx.w.servers.len() as u64 - 1) as usize;
        let api = ctx.w.api(server);
        let deadline = ctx.range(S, 8 * S);
        let me = api.clone();
        // Impatient users send again before they were answered.
        if ctx.percent(10) {
            let (twin, ctx_) = (api.clone(), ctx.clone());
            ctx.spawn(async move {
                let me = twin.clone();
                let _ = ctx_.call(&twin, 5 * S, move || handle(me, server, key, ask)).await;
            });
        }
        match ctx.call(&api, deadline, move || handle(me, server, key, ask)).await {
            Ok(Told::Unknown) | Err(_) => {}
            Ok(told) => return Some(told),
        }
        let pause = ctx.range(100 * MS, 3 * S);
        ctx.sleep(pause).await;
    }
    None
}

fn wish(ctx: &Ctx, history: &History, load: Load) -> Ask {
    let all = history.0.borrow();
    let made = all.iter().filter_map(|r| match (&r.ask, &r.told) {
        (Ask::Launch { .. }, Some(Told::Done(answer))) => Some(answer.instances.iter().copied()),
        _ => None,
    });
    let ended: Vec<Uuid> = all
        .iter()
        .filter_map(|r| match r.ask {
            Ask::Terminate(id) if matches!(r.told, Some(Told::Done(_))) => Some(id),
            _ => None,
        })
        .collect();
    let live: Vec<Uuid> = made.flatten().filter(|id| !ended.contains(id)).collect();
    let launch = |count| Ask::Launch {
        count,
        needs: [[1, 512, 0], [1, 1024, 0], [1, 1024, 4], [2, 2048, 8]][ctx.range(0, 3) as usize],
        vpc: ctx.range(0, load.vpcs - 1) as usize,
        public: ctx.percent(30),
    };
    let mut rng = ctx.w.rng.borrow_mut();
    let one = rng.pick(&live).copied();
    let dice = rng.below(100);
    let force = rng.percent(30);
    drop(rng);
    match (one, dice) {
        (None, _) => launch(ctx.range(1, 4) as u32),
        (Some(_), 0..30) if live.len() < load.instances => launch(ctx.range(1, 4) as u32),
        (Some(id), 0..50) => Ask::Stop { id, force },
        (Some(id), 50..70) => Ask::Start(id),
        (Some(id), 70..80) => Ask::Reboot(id),
        (Some(id), _) => Ask::Terminate(id),
    }
}

/// Whether what users were told is so: nothing that was acknowledged is lost (I1), no key had two effects (I2), each
/// acknowledged mutation stands once in the audit log and nothing else does (I10), and everything became what was asked for.
pub fn kept(t: &Tables, history: &History) -> Result<(), String> {
    let all = history.0.borrow();
    for request in all.iter() {
        let made = t.instances.iter().filter(|r| r.made_by.0 == request.key).count();
        let audited = t.audit.iter().filter(|key| **key == request.key).count();
        match &request.told {
            Some(Told::Done(_)) if audited != 1 => {
                return Err(format!(
                    "{request:?} was acknowledged and stands {audited} times in the audit log"
                ));
            }
            _ if audited > 1 => return Err(format!("{request:?} stands {audited} times in the audit log")),
            _ => {}
        }
        match (&request.told, request.ask) {
            (Some(Told::Done(answer)), Ask::Launch { count, .. })
                if made != count as usize || answer.instances.iter().any(|id| t.find(*id).is_none()) =>
            {
                return Err(format!("{request:?} was acknowledged, {made} instances are there"));
            }
            // A copy of it that was under way may have come later and found room: then whole.
            (_, Ask::Launch { count, .. }) if made != 0 && made != count as usize => {
                return Err(format!("{request:?} was refused, {made} instances are there"));
            }
            (Some(Told::Done(answer)), _)
                if answer
                    .instances
                    .first()
                    .and_then(|id| t.find(*id))
                    .is_none_or(|row| row.generation < answer.generation) =>
            {
                return Err(format!("{request:?} was acknowledged and is lost"));
            }
            (Some(Told::Done(answer)), _) => {
                for id in &answer.instances {
                    came_true(t, &all, request, *id, answer.generation)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether an instance became what was acknowledged, unless somebody asked for something else since, or the platform said
/// why not.
fn came_true(t: &Tables, all: &[Request], of: &Request, id: Uuid, generation: i64) -> Result<(), String> {
    let Some(row) = t.find(id) else { return Err(format!("{of:?} was acknowledged and is lost")) };
    // Whether somebody asked for this later, or perhaps later.
    let later = |what: fn(&Ask) -> bool| {
        all.iter().any(|other| {
            let about = match other.ask {
                Ask::Start(of) | Ask::Stop { id: of, .. } | Ask::Terminate(of) => of == id,
                Ask::Launch { .. } | Ask::Reboot(_) => false,
            };
            let after = match &other.told {
                Some(Told::Done(answer)) => answer.generation > generation,
                // A copy of it may have come later and not been refused.
                Some(Told::Refused(_) | Told::Unknown) | None => true,
            };
            about && after && what(&other.ask)
        })
    };
    let kept = match of.ask {
        Ask::Terminate(_) => row.state == State::Terminated,
        Ask::Stop { .. } => row.power != Power::Running || later(|ask| matches!(ask, Ask::Start(_))),
        Ask::Launch { .. } | Ask::Start(_) => {
            let undone = |ask: &Ask| matches!(ask, Ask::Stop { .. } | Ask::Terminate(_));
            row.power == Power::Running || row.reason.is_some() || later(undone)
        }
        // How many were done is compared with the journal when everything has settled.
        Ask::Reboot(_) => true,
    };
    if kept {
        return Ok(());
    }
    Err(format!("{of:?} was acknowledged; i-{} is {:?} ({:?})", id.as_u128() as u32, row.state, row.reason))
}
