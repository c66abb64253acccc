//! A5, D6, two hundred times: a leader falls asleep at any moment of anything that it does, before its transaction and in
//! the middle of it, another one takes over, and it wakes. The sleep is that of `SIGSTOP`: nothing of the effect goes on.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use gon_control::compute::ComputeSettings;
use gon_store::StoreError;
use gon_testkit::{did, measure};
use tokio::sync::Notify;

use super::{EFFECTS, act, everything, prepare};
use crate::site::Site;

/// Sites that sleep beside each other.
const SITES: usize = 20;

/// Where it sleeps.
#[derive(Default)]
struct Bed {
    asleep: Notify,
    /// Whether it was woken, and whom to tell.
    woken: Mutex<(bool, Option<Waker>)>,
}

impl Bed {
    fn wake(&self) {
        let mut woken = self.woken.lock().unwrap();
        woken.0 = true;
        if let Some(waker) = woken.1.take() {
            waker.wake();
        }
    }
}

/// Goes so many steps and falls asleep.
struct Sleeper<T> {
    inner: Pin<Box<dyn Future<Output = T> + Send>>,
    steps: usize,
    bed: Arc<Bed>,
}

impl<T> Future for Sleeper<T> {
    type Output = T;
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = self.get_mut();
        if this.steps > 0 {
            this.steps -= 1;
        } else {
            let mut woken = this.bed.woken.lock().unwrap();
            if !woken.0 {
                woken.1 = Some(context.waker().clone());
                this.bed.asleep.notify_one();
                return Poll::Pending;
            }
        }
        this.inner.as_mut().poll(context)
    }
}

/// What came of the runs.
#[derive(Debug, Default)]
struct Tally {
    slept: usize,
    /// The one that took over had to wait for the sleeper's transaction.
    inside: usize,
    /// Something changed after another led.
    stale: Vec<&'static str>,
}

/// Whoever leads is succeeded, however long that takes; true if the sleeper was in the way.
async fn succeeded(site: &Site) -> bool {
    let (heir, other_heir) = (site.standby(ComputeSettings::default()), site.another_controller());
    let begin = Instant::now();
    let mut waited = false;
    let mut again = |result: Result<u64, StoreError>| match result {
        Ok(_) => false,
        Err(error) => {
            assert!(begin.elapsed() < Duration::from_secs(15), "nobody takes over: {error}");
            waited = true;
            true
        }
    };
    while again(heir.take_over("heir").await) {}
    while again(other_heir.take_over("heir").await) {}
    waited
}

/// So many sleepers of one site after the other; a site where one of them got through before it slept is made anew.
async fn sleepers(seed: u64, count: usize) -> Tally {
    let mut tally = Tally::default();
    let mut dice = seed;
    let mut throw = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    let mut site = None;
    while tally.slept < count {
        let here = match site.take() {
            Some(site) => site,
            None => {
                let site = Site::new().await;
                prepare(&site).await;
                site
            }
        };
        let what = EFFECTS[throw(EFFECTS.len() as u64) as usize];
        // Half of them have done nothing yet or have just begun; what the others did they have to lose.
        let steps = if throw(2) == 0 { throw(2) } else { 2 + throw(9) };
        here.compute.take_over("sleeper").await.unwrap();
        let network_epoch = here.network.take_over("sleeper").await.unwrap();
        let before = everything(&here).await;
        let bed = Arc::new(Bed::default());
        let (manager, controller) = (Arc::clone(&here.compute), Arc::clone(&here.network));
        let inner = Box::pin(async move { act(what, &manager, &controller, network_epoch).await });
        let mut running = tokio::spawn(Sleeper { inner, steps: steps as usize, bed: Arc::clone(&bed) });
        tokio::select! {
            () = bed.asleep.notified() => {}
            done = &mut running => {
                // It was done while it led.
                done.unwrap();
                continue;
            }
        }
        let waited = succeeded(&here).await;
        let led = everything(&here).await;
        bed.wake();
        running.await.unwrap();
        if everything(&here).await != led {
            tally.stale.push(what);
        }
        tally.slept += 1;
        tally.inside += usize::from(waited);
        // It may have fallen asleep before it heard that it was done.
        site = (led == before).then_some(here);
    }
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_leader_that_wakes_does_anything() {
    let each = measure(200, 2_000) / SITES;
    let begin = Instant::now();
    let mut total = Tally::default();
    for tally in futures_util::future::join_all((0..SITES).map(|site| sleepers(site as u64, each))).await {
        total.slept += tally.slept;
        total.inside += tally.inside;
        total.stale.extend(tally.stale);
    }
    did(
        "A5, D6",
        &format!(
            "{} leaders slept through their fall, {} of them inside a transaction: {} stale effects; {:?}",
            total.slept,
            total.inside,
            total.stale.len(),
            begin.elapsed()
        ),
    );
    assert_eq!(total.stale, [] as [&str; 0]);
    assert!(total.inside >= total.slept / 10 && total.inside < total.slept, "{total:?}");
}

/// The planted bug: a leader that asks who leads when it wakes, and goes on as that one. Each of its effects is seen.
#[tokio::test]
async fn a_leader_without_a_fence_would_be_noticed() {
    let site = Site::new().await;
    prepare(&site).await;
    for what in EFFECTS {
        let bed = Arc::new(Bed::default());
        let (manager, controller) = (Arc::clone(&site.compute), Arc::clone(&site.network));
        let (compute, network) = (site.standby(ComputeSettings::default()), site.another_controller());
        let led = (compute.take_over("heir").await.unwrap(), network.take_over("heir").await.unwrap());
        let inner = Box::pin(async move { act(what, &manager, &controller, led.1).await });
        let running = tokio::spawn(Sleeper { inner, steps: 0, bed: Arc::clone(&bed) });
        bed.asleep.notified().await;
        let before = everything(&site).await;
        site.compute.assume(led.0);
        site.network.assume(led.1);
        bed.wake();
        running.await.unwrap();
        assert_ne!(everything(&site).await, before, "{what}");
    }
}
