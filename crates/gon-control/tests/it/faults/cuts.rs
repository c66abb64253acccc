//! C5. The connection is cut at every byte around COMMIT, and at many before: what is unknown is 0 or 1, whole, and a
//! repetition with the same key makes it 1.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use gon_control::api::ApiConfig;
use gon_testkit::proxy::{Direction, Faults, Proxy};
use gon_testkit::{PostgresServer, did, measure, postgres_server};
use tokio::time::Instant;

use super::create;
use crate::api::{Api, User};

struct Bench {
    server: PostgresServer,
    proxy: Proxy,
    /// Straight to the server.
    direct: Api,
    trials: u32,
}

/// What a request through the proxy came to.
struct Trial {
    name: String,
    status: u16,
    code: Option<String>,
    /// Whether its connection was cut.
    cut: bool,
}

impl Bench {
    async fn new() -> Self {
        let server = postgres_server().await;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
        let proxy = Proxy::start(address, None, 5).await.unwrap();
        let direct = super::api(&server, server.port()).await;
        Self { server, proxy, direct, trials: 0 }
    }

    /// Asks for one VPC over a new connection that is cut after so many bytes of one direction; `None`: before the
    /// request began.
    async fn ask(&mut self, direction: Direction, faults: Faults, keyed: bool) -> Option<Trial> {
        self.trials += 1;
        // Of one length, so that all requests are.
        let name = format!("v{:06}", self.trials);
        self.proxy.heal();
        self.proxy.set(direction, faults);
        let before = self.proxy.connections();
        // One connection, so that all of it goes over the same.
        let database = self.server.database(self.proxy.address().port(), 1).await.ok()?;
        let mut api = Api::bare(database, ApiConfig::default());
        let token = api.app.tokens.issue(self.direct.admin.id, 0).unwrap();
        api.admin = User { token, ..self.direct.admin.clone() };
        let answer = create(&api, &name, keyed.then_some(&*name)).await;
        let cut = self.proxy.connections() > before + 1 || answer.status != 201;
        let code = answer.body["code"].as_str().map(ToOwned::to_owned);
        Some(Trial { name, status: answer.status.as_u16(), code, cut })
    }

    /// The bytes of a whole request in one direction.
    async fn length(&mut self, direction: Direction, keyed: bool) -> u64 {
        let (mut cut, mut whole) = (0, 1 << 18);
        while whole - cut > 1 {
            let at = u64::midpoint(cut, whole);
            let faults = Faults { reset_after: Some(at), ..Faults::default() };
            match self.ask(direction, faults, keyed).await {
                Some(trial) if !trial.cut => whole = at,
                _ => cut = at,
            }
        }
        whole
    }

    /// How many there are of this name, once nobody works on it any more; all of it or nothing.
    async fn count(&self, name: &str) -> i64 {
        let store = &self.direct.database.store;
        let begin = Instant::now();
        let busy = "select count(*) from pg_stat_activity
                    where datname = current_database() and pid <> pg_backend_pid() and backend_xid is not null";
        while gon_store::admin::number(store, busy).await.unwrap() > 0 {
            assert!(begin.elapsed() < Duration::from_secs(5), "a transaction does not end");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let found = self.direct.get(&format!("/vpcs?name={name}")).await.ok();
        found["items"].as_array().unwrap().len() as i64
    }

    /// Nothing of a VPC without the rest of it.
    async fn all_are_whole(&self) {
        for (what, count) in [
            ("main route tables", "select count(*) from route_tables where is_main"),
            ("default groups", "select count(*) from security_groups where is_default"),
            ("audit", "select count(*) from audit_log where action = 'CreateVpc'"),
            ("doorbells", "select count(*) from outbox where subject = 'vpc'"),
        ] {
            let all = self.direct.count("select count(*) from vpcs").await;
            assert_eq!(self.direct.count(count).await, all, "{what}");
        }
    }
}

/// Where to cut: every byte of the last ones, and many before; in the long run every byte that is the request's.
fn cuts(length: u64) -> Vec<u64> {
    let near = length.saturating_sub(100)..length;
    let far = near.start - length / 4;
    let far = (length / 4..near.start).step_by(measure((far / 40).max(1) as usize, 1));
    far.chain(near).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_around_commit_leaves_nothing_or_one_and_a_repetition_one() {
    let mut bench = Bench::new().await;
    let (mut done, mut resolved, mut unknown) = (0, 0, [0; 2]);
    for (direction, keyed) in [
        (Direction::ToServer, true),
        (Direction::ToClient, true),
        (Direction::ToServer, false),
        (Direction::ToClient, false),
    ] {
        let length = bench.length(direction, keyed).await;
        for (index, at) in cuts(length).into_iter().enumerate() {
            let faults = match index % 2 {
                0 => Faults { reset_after: Some(at), ..Faults::default() },
                _ => Faults { truncate_after: Some(at), ..Faults::default() },
            };
            let Some(trial) = bench.ask(direction, faults, keyed).await else { continue };
            let whence = format!("{direction:?} {at} of {length}: {} {:?}", trial.status, trial.code);
            done += 1;
            if keyed {
                // Whatever the first answer was, the second is the one that counts.
                let again = create(&bench.direct, &trial.name, Some(&trial.name)).await;
                assert_eq!(again.status, 201, "{whence}: {}", again.body);
                assert_eq!(bench.count(&trial.name).await, 1, "{whence}");
                resolved += u32::from(trial.cut && trial.status == 201);
                continue;
            }
            // Without a key the answer alone has to be true.
            let count = bench.count(&trial.name).await;
            match (trial.status, trial.code.as_deref()) {
                (201, None) => assert_eq!(count, 1, "{whence}"),
                (503, Some("Unavailable")) => assert_eq!(count, 0, "{whence}"),
                (503, Some("OutcomeUnknown")) => {
                    assert!(count <= 1, "{whence}");
                    unknown[count as usize] += 1;
                }
                _ => panic!("{whence}"),
            }
        }
    }
    bench.all_are_whole().await;
    // All of it happened: unknown ones that were none, unknown ones that were one, and those that the server itself found.
    let seen = format!("{done} cuts, {unknown:?} unknown, {resolved} resolved");
    did("C5", &format!("{seen}, no anomaly"));
    assert!(done >= 500 && unknown.iter().all(|n| *n > 0) && resolved > 0, "{seen}");
}

/// The planted bug: a client that repeats without the key what it does not know to be done. It must come to two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeating_without_the_key_would_be_noticed() {
    let mut bench = Bench::new().await;
    let length = bench.length(Direction::ToClient, false).await;
    let mut doubled = 0;
    for at in length - 24..length {
        let faults = Faults { reset_after: Some(at), ..Faults::default() };
        let Some(trial) = bench.ask(Direction::ToClient, faults, false).await else { continue };
        if trial.code.as_deref() == Some("OutcomeUnknown") {
            bench.count(&trial.name).await;
            assert_eq!(create(&bench.direct, &trial.name, None).await.status, 201);
            doubled += u32::from(bench.count(&trial.name).await == 2);
        }
    }
    assert!(doubled > 0);
}
