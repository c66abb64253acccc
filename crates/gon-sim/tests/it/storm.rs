//! A recovery storm (row D8): everybody comes back at once, to a control plane that knows nothing of them yet.
//!
//! Real are the database, the controllers with their elections, their TLS listeners and gates, the relay, and of the agents
//! the link with its connections and the ledger with its disk. Simulated are the guests and the switch: what a document
//! says is so at once. The pauses between tries are those of the agents' loops.

mod agent;
mod site;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent::Agent;
use site::{Server, Site};

/// Nodes of the site.
const NODES: usize = 200;
/// Instances that are to be placed in the middle of each storm.
const NEWCOMERS: i64 = 25;
/// Everybody must be healthy within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// In so many seconds one after the other at least one call must be answered well.
const WINDOW: usize = 4;

/// What calls came to, second by second.
pub struct Meter {
    began: Instant,
    /// Calls that were answered well, by second.
    well: Mutex<Vec<u64>>,
    /// What the others ended with, and how often.
    ill: Mutex<BTreeMap<String, u64>>,
}

impl Meter {
    fn new() -> Self {
        Self { began: Instant::now(), well: Mutex::default(), ill: Mutex::default() }
    }
    /// A call was answered well.
    pub fn well(&self) {
        let second = self.began.elapsed().as_secs() as usize;
        let mut well = self.well.lock().unwrap();
        if well.len() <= second {
            well.resize(second + 1, 0);
        }
        well[second] += 1;
    }
    /// A call ended in another way.
    pub fn ill(&self, how: String) {
        *self.ill.lock().unwrap().entry(how).or_default() += 1;
    }
}

/// Waits until everybody is healthy under the leaders of `server`; the goodput of each second until then, and how long it
/// took.
fn recovered(site: &Site, server: &Server, agents: &[Arc<Agent>], began: Instant, what: &str) -> Duration {
    let meter = &site.meter;
    let from = meter.began.elapsed().as_secs() as usize;
    let mut led = None;
    let healthy = loop {
        let epochs = server.epochs();
        if epochs.0 > 0 && epochs.1 > 0 {
            led.get_or_insert(meter.began.elapsed().as_secs() as usize);
        }
        let ill = agents.iter().filter(|agent| !agent.is_healthy(epochs, began)).count();
        let waiting = site.number("select to_jsonb(count(*)) from instances where state <> 'running'");
        if ill == 0 && waiting == 0 {
            break began.elapsed();
        }
        let (well, ill_calls) = (meter.well.lock().unwrap().clone(), meter.ill.lock().unwrap().clone());
        assert!(
            began.elapsed() < PATIENCE,
            "{what}: {ill} of {NODES} are not healthy, {waiting} instances do not run; calls a second {well:?}; {ill_calls:?}",
        );
        std::thread::sleep(Duration::from_millis(50));
    };
    let until = meter.began.elapsed().as_secs() as usize;
    let well: Vec<u64> = meter.well.lock().unwrap()[from..until].to_vec();
    let ill = std::mem::take(&mut *meter.ill.lock().unwrap());
    let led = led.unwrap_or(until) - from;
    println!(
        "{what}: led after {led} s, {NODES} nodes healthy after {healthy:?}; calls a second {well:?}; not answered well: {ill:?}"
    );
    // From when there is a leader, with some allowance for a machine that has other things to do.
    assert!(
        well[led..].windows(WINDOW).all(|window| window.iter().sum::<u64>() > 0),
        "{what}: the control plane collapsed: {well:?}"
    );
    // Nobody is told that something is broken, or that a node is not one of ours.
    let wrong: Vec<_> = ill.keys().filter(|how| how.starts_with("status") && *how != "status 503").collect();
    assert!(wrong.is_empty(), "{what}: {wrong:?}");
    healthy
}

#[test]
fn two_hundred_nodes_come_back_at_once() {
    let _all = crate::PROCESSORS.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _ = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).map(|(_, most)| {
        // Two ends of some thousand connections.
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, most)
    });
    let site = Site::new(NODES);
    let agents: Vec<Arc<Agent>> = (1..=NODES).map(|n| Agent::start(&site, n)).collect();
    // Nobody answers, nobody leads, no lease is left: every node asks and asks.
    std::thread::sleep(Duration::from_secs(2));
    site.launch(NEWCOMERS);
    let began = Instant::now();
    let first = Server::start(&site, 0);
    recovered(&site, &first, &agents, began, "a cold start");

    // The leader is killed in the middle of everything, while another one waits.
    let second = Server::start(&site, 1);
    site.launch(NEWCOMERS);
    let began = Instant::now();
    first.kill();
    recovered(&site, &second, &agents, began, "a leader's death");

    // It stays so, and nothing that ran was touched: not one generation, not one placement is new.
    std::thread::sleep(Duration::from_secs(3));
    let epochs = second.epochs();
    assert!(agents.iter().all(|agent| agent.is_healthy(epochs, began)));
    assert_eq!(
        site.number("select to_jsonb(count(*)) from nodes where last_report_at < now() - interval '15 s'"),
        0
    );
    assert_eq!(site.number("select to_jsonb(count(*)) from instances where state = 'running'"), {
        3 * NODES as i64 + 2 * NEWCOMERS
    });
    assert_eq!(
        site.number("select to_jsonb(count(*)) from instances where name = 'old' and (generation, placement_epoch) <> (2, 1)"),
        0
    );
    assert_eq!(agents.iter().map(|agent| agent.removals()).sum::<usize>(), 0);
    assert_eq!(site.number("select to_jsonb(count(*)) from outbox"), 0);
    second.kill();
}
