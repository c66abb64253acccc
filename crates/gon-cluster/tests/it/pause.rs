//! D6, A5 to the end: a leader is stopped between its look at the lease and its effect, or in the middle of the effect,
//! for longer than the lease lasts. It wakes up with a plan in its hands and acts. The lease cannot stop it; the fence
//! does.

use std::time::Duration;

use gon_cluster::{EtcdConfig, EtcdLiveness, Liveness};
use gon_store::leader::{self, Fence};
use gon_store::{Store, StoreError};
use gon_testkit::etcd;
use nix::sys::signal::{Signal, raise};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::etcd::{SOON, site};
use crate::holder::Holder;

const ENDPOINTS: &str = "GON_TEST_VICTIM";
const DATABASE: &str = "GON_TEST_VICTIM_DATABASE";
const ROLE: &str = "GON_TEST_VICTIM_ROLE";

/// The three of them, by the names of the roles they lead.
const FENCED: &str = "stops-before-the-effect";
const INSIDE: &str = "stops-inside-the-effect";
/// The planted bug: the lease is all it looks at.
const LEASED: &str = "trusts-the-lease";

/// What the process does: wins, plans, is stopped, acts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim_process() {
    let Ok(endpoints) = std::env::var(ENDPOINTS) else { return };
    let store = Store::connect(&std::env::var(DATABASE).unwrap(), 2).await.unwrap();
    let role = std::env::var(ROLE).unwrap();
    let role = [FENCED, INSIDE, LEASED].into_iter().find(|known| *known == role).unwrap();
    let liveness = EtcdLiveness::new(EtcdConfig::new(endpoints.split(',').map(str::to_owned).collect()));
    let leads = liveness.campaign(role, "victim").await.unwrap();
    let fence = Fence { role, epoch: leader::take_over(&store, role, "victim").await.unwrap() };
    println!("@leads");
    assert!(leads.holds(), "the look before the effect");
    let acted = match role {
        FENCED => {
            raise(Signal::SIGSTOP).unwrap();
            act(&store, Some(fence), || {}).await
        }
        INSIDE => act(&store, Some(fence), || raise(Signal::SIGSTOP).unwrap()).await,
        _ => {
            raise(Signal::SIGSTOP).unwrap();
            act(&store, None, || {}).await
        }
    };
    match acted {
        Ok(()) => println!("@acted"),
        Err(error) => println!("@refused {error:?}"),
    }
}

/// An effect: a row. `pause` is in the middle of it.
async fn act(store: &Store, fence: Option<Fence>, pause: impl Fn()) -> Result<(), StoreError> {
    let mut tx = match fence {
        Some(fence) => fence.begin(store).await?,
        None => store.begin().await?,
    };
    gon_store::relay::ring(&mut tx, "instance", Uuid::now_v7()).await?;
    pause();
    gon_store::commit(tx).await
}

/// Lets it go so far, has another lead, lets it go on, and returns what it said then.
async fn deposed(
    endpoints: &[String],
    url: &str,
    role: &'static str,
    other: EtcdLiveness,
    store: Store,
) -> String {
    let environment = [(ENDPOINTS, endpoints.join(",")), (DATABASE, url.to_owned()), (ROLE, role.to_owned())];
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let victim = Holder::run("pause::victim_process", &environment);
    let deadline = Instant::now() + SOON;
    while !victim.is_stopped() {
        assert!(Instant::now() < deadline, "{role}: it does not stop");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stopped = Instant::now();
    let leads = timeout(SOON, other.campaign(role, "other")).await.expect("≤ 15 s").unwrap();
    // One that was stopped inside its transaction holds it until PostgreSQL throws it out.
    let epoch = loop {
        match leader::take_over(&store, role, "other").await {
            Ok(epoch) => break epoch,
            Err(error) => assert!(stopped.elapsed() < SOON, "{role}: {error:?}"),
        }
    };
    println!("{role}: led by another {:?} after it was stopped, epoch {epoch}", stopped.elapsed());
    assert_eq!(epoch, 2);
    victim.signal(Signal::SIGCONT);
    let said = tokio::task::block_in_place(|| victim.next(SOON)).expect("it says something");
    println!("{role}: {said}");
    assert!(leads.holds());
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_was_stopped_is_refused_by_the_fence_and_not_by_its_lease() {
    let cluster = etcd::one().await;
    let database = gon_testkit::database().await;
    let endpoints = cluster.endpoints();
    let said = |role| deposed(&endpoints, &database.url, role, site(&cluster), database.store.clone());
    let (fenced, inside, leased) = tokio::join!(said(FENCED), said(INSIDE), said(LEASED));
    assert!(fenced.starts_with("refused Deposed"), "{fenced}");
    assert!(inside.starts_with("refused"), "{inside}");
    assert_eq!(leased, "acted", "without the fence it does harm, or the test is blind");
    assert_eq!(gon_store::relay::waiting(&database.store).await.unwrap(), 1, "and nobody else did");
}
