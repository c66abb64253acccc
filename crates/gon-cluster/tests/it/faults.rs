//! What happens when etcd, or the way to it, or a holder breaks: rows D1 to D3, D6 and A5 of the fault matrix.

use std::sync::Arc;
use std::time::Duration;

use gon_cluster::{ClusterError, EtcdConfig, EtcdLiveness, LEADER_TTL, Liveness, NODE_TTL, keep_alive};
use gon_testkit::etcd;
use gon_testkit::proxy::{Faults, Proxy};
use nix::sys::signal::Signal;
use tokio::time::{Instant, timeout};

use crate::etcd::{SOON, site};
use crate::holder::Holder;

/// A node that is alive, as another process.
struct Node(tokio::task::JoinHandle<()>);

impl Node {
    fn keep(liveness: EtcdLiveness, name: &'static str) -> Self {
        Self(tokio::spawn(async move { match keep_alive(&liveness, name).await {} }))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// D1: the leading member of three is killed. Nothing that counts notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_dies_costs_no_lease_and_no_leadership() {
    let mut cluster = etcd::three().await;
    let liveness = site(&cluster);
    let leads = liveness.campaign("role", "one").await.unwrap();
    let _nodes = [Node::keep(site(&cluster), "a"), Node::keep(site(&cluster), "b")];
    let mut nodes = liveness.nodes().await;
    timeout(SOON, nodes.wait_for(|n| n.names.len() == 2)).await.unwrap().unwrap();
    let everybody = nodes.borrow_and_update().names.clone();

    let victim = cluster.leader().await;
    // The planted bug: a process that knows only the member that dies.
    let only = EtcdLiveness::new(EtcdConfig::new(vec![cluster.endpoints().swap_remove(victim)]));
    let planted = only.campaign("another-role", "one").await.unwrap();
    cluster.kill(victim);
    let killed = Instant::now();
    // The first call that is answered again.
    while liveness.publish("still", "there").await.is_err() {}
    println!("D1: etcd answers again {:?} after its leader was killed", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(10));

    // Longer than any lease lasts.
    while killed.elapsed() < NODE_TTL + Duration::from_secs(2) {
        assert!(leads.holds(), "{:?} after", killed.elapsed());
        assert_eq!(nodes.borrow().names, everybody, "{:?} after", killed.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!planted.holds(), "a member that dies is no test for anybody");
    cluster.restart(victim);
    cluster.ready().await;
    assert!(leads.holds());
}

/// D2: two of three are gone for longer than every lease. What was known is kept and marked stale, the leader steps
/// back by its own clock, nobody else can lead; and all is well again soon after they are back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_forgotten_and_nobody_leads() {
    let mut cluster = etcd::three().await;
    let liveness = site(&cluster);
    let first = liveness.campaign("role", "one").await.unwrap();
    let _nodes = [Node::keep(site(&cluster), "a"), Node::keep(site(&cluster), "b")];
    let _there = liveness.announce("manager", "10.0.0.1:8082");
    let mut nodes = liveness.nodes().await;
    timeout(SOON, nodes.wait_for(|n| n.names.len() == 2)).await.unwrap().unwrap();
    let mut services = liveness.services("manager").await;
    timeout(SOON, services.wait_for(|s| s.len() == 1)).await.unwrap().unwrap();
    let (everybody, everywhere) = (nodes.borrow().names.clone(), services.borrow().clone());

    cluster.kill(0);
    cluster.kill(1);
    let lost = Instant::now();
    timeout(SOON, nodes.wait_for(|n| n.stale)).await.unwrap().unwrap();
    println!("D2: known to be stale after {:?}", lost.elapsed());
    timeout(LEADER_TTL, first.lost()).await.expect("the leader knows before the lease can have run out");
    println!("D2: the leader knows after {:?}", lost.elapsed());
    let other = site(&cluster);
    assert!(!matches!(timeout(Duration::from_secs(3), other.campaign("role", "two")).await, Ok(Ok(_))));
    let asked = Instant::now();
    assert!(matches!(other.register("c", NODE_TTL).await, Err(ClusterError::Unavailable(_))));
    assert!(asked.elapsed() < Duration::from_secs(8), "a call ends: {:?}", asked.elapsed());
    // Who begins to watch now sees nobody, and that this says nothing. The planted bug, a controller that takes absence
    // from a stale set for death, would bury everybody.
    let fresh = other.nodes().await.borrow().clone();
    assert!(fresh.stale);
    assert_eq!(everybody.difference(&fresh.names).count(), 2);
    while lost.elapsed() < NODE_TTL + Duration::from_secs(1) {
        assert!(nodes.borrow().stale);
        assert_eq!(nodes.borrow().names, everybody);
        assert_eq!(*services.borrow(), everywhere);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!first.holds(), "what is lost stays lost");
    drop(first);

    cluster.restart(0);
    cluster.restart(1);
    let back = Instant::now();
    let again = async {
        // As a controller: errors do not end a campaign.
        loop {
            if let Ok(leads) = liveness.campaign("role", "one").await {
                return leads;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let leads = timeout(SOON, again).await.expect("led again");
    let led = back.elapsed();
    timeout(SOON, nodes.wait_for(|n| !n.stale && n.names == everybody)).await.unwrap().unwrap();
    println!("D2: led again {led:?}, nodes known again {:?} after the quorum was back", back.elapsed());
    assert!(leads.holds());
    assert!(led < Duration::from_secs(10) && back.elapsed() < Duration::from_secs(10));
    assert_eq!(*services.borrow(), everywhere);
}

/// D3: etcd is emptied. Everybody says again who they are, somebody leads, and nobody was missing meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_store_is_filled_again() {
    let mut cluster = etcd::three().await;
    let liveness = site(&cluster);
    let first = liveness.campaign("role", "one").await.unwrap();
    let _nodes = [Node::keep(site(&cluster), "a"), Node::keep(site(&cluster), "b")];
    let _there = liveness.announce("manager", "10.0.0.1:8082");
    let mut nodes = liveness.nodes().await;
    timeout(SOON, nodes.wait_for(|n| n.names.len() == 2)).await.unwrap().unwrap();
    let mut services = liveness.services("manager").await;
    timeout(SOON, services.wait_for(|s| s.len() == 1)).await.unwrap().unwrap();
    let everybody = nodes.borrow().names.clone();
    // So that the new store is visibly younger.
    for value in 0..20 {
        liveness.publish("noise", &value.to_string()).await.unwrap();
    }

    for member in 0..3 {
        cluster.kill(member);
    }
    for member in 0..3 {
        cluster.wipe(member);
        cluster.restart(member);
    }
    let back = Instant::now();
    timeout(SOON, first.lost()).await.expect("its lease is gone");
    drop(first);
    let other = site(&cluster);
    let leads = timeout(SOON, async {
        loop {
            if let Ok(leads) = other.campaign("role", "two").await {
                return leads;
            }
        }
    });
    let leads = leads.await.expect("led again");
    println!("D3: led again after {:?}", back.elapsed());
    // As another process sees it that was not there before.
    let mut seen = other.nodes().await;
    timeout(SOON, seen.wait_for(|n| n.names == everybody && !n.stale)).await.unwrap().unwrap();
    let mut places = other.services("manager").await;
    timeout(SOON, places.wait_for(|s| s.len() == 1)).await.unwrap().unwrap();
    println!("D3: nodes and services are back after {:?}", back.elapsed());
    assert!(leads.holds());
    while back.elapsed() < Duration::from_secs(30) {
        let now = nodes.borrow().clone();
        assert_eq!(now.names, everybody, "{:?} after", back.elapsed());
        assert_eq!(services.borrow().len(), 1);
        if !now.stale && back.elapsed() > NODE_TTL {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("full function within 30 s: {:?}", nodes.borrow());
}

/// One member restarts for a moment: nobody loses anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_only_member_loses_nothing() {
    let mut cluster = etcd::one().await;
    let liveness = site(&cluster);
    let leads = liveness.campaign("role", "one").await.unwrap();
    let _node = Node::keep(site(&cluster), "a");
    let mut nodes = liveness.nodes().await;
    timeout(SOON, nodes.wait_for(|n| n.names.len() == 1)).await.unwrap().unwrap();
    for restart in 0..3 {
        if restart == 0 {
            cluster.stop(0)
        } else {
            cluster.kill(0)
        }
        cluster.restart(0);
        cluster.ready().await;
        liveness.publish("restart", &restart.to_string()).await.unwrap();
        assert!(leads.holds());
        assert_eq!(nodes.borrow().names.len(), 1);
    }
    timeout(SOON, nodes.wait_for(|n| !n.stale && n.names.len() == 1)).await.unwrap().unwrap();
}

/// D6, A5: a leader is stopped for longer than its lease, another takes over, the first goes on. It finds out before it
/// does anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_stopped_knows_before_it_works_again() {
    let cluster = etcd::one().await;
    let holder = Holder::start(&cluster.endpoints());
    let other = site(&cluster);
    for _ in 0..10 {
        assert_eq!(holder.next(SOON).as_deref(), Some("work"));
    }
    holder.signal(Signal::SIGSTOP);
    let stopped = Instant::now();
    let leads = timeout(SOON, other.campaign("role", "other")).await.expect("≤ 15 s").unwrap();
    println!("takeover from a stopped leader: {:?}", stopped.elapsed());
    // What it said before it was stopped.
    holder.so_far();
    holder.signal(Signal::SIGCONT);
    assert_eq!(holder.next(SOON).as_deref(), Some("lost"), "the first thing it says");
    assert!(leads.holds());
}

/// A leader whose connections are silent knows that it lost before anybody else can win, and what is lost stays lost
/// when they speak again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_knows_before_the_next_wins() {
    let cluster = etcd::three().await;
    let mut proxies = Vec::new();
    for endpoint in cluster.endpoints() {
        let server = endpoint.trim_start_matches("http://").parse().unwrap();
        proxies.push(Proxy::start(server, None, 1).await.unwrap());
    }
    let through = proxies.iter().map(|p| format!("http://{}", p.address())).collect();
    let cut = EtcdLiveness::new(EtcdConfig::new(through));
    let first = Arc::new(cut.campaign("role", "one").await.unwrap());
    let other = site(&cluster);
    // A renewal or two.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(first.holds());

    for proxy in &proxies {
        proxy.set_both(Faults::frozen());
    }
    let frozen = Instant::now();
    let watched = Arc::clone(&first);
    let knew = tokio::spawn(async move {
        watched.lost().await;
        Instant::now()
    });
    let second = timeout(SOON, other.campaign("role", "two")).await.expect("≤ 15 s").unwrap();
    let won = Instant::now();
    assert!(!first.holds());
    let knew = knew.await.unwrap();
    println!("cut off: knew after {:?}, the next led after {:?}", knew - frozen, won - frozen);
    assert!(knew < won);

    for proxy in &proxies {
        proxy.heal();
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!first.holds());
    assert!(second.holds());
}

/// One member is silent instead of dead: the others are asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_silent_costs_no_leadership() {
    let cluster = etcd::three().await;
    let liveness = site(&cluster);
    let leads = liveness.campaign("role", "one").await.unwrap();
    let mut nodes = liveness.nodes().await;
    let _node = Node::keep(site(&cluster), "a");
    timeout(SOON, nodes.wait_for(|n| n.names.len() == 1)).await.unwrap().unwrap();
    let silent = cluster.leader().await;
    cluster.pause(silent);
    let paused = Instant::now();
    while paused.elapsed() < LEADER_TTL + Duration::from_secs(2) {
        assert!(leads.holds(), "{:?} after", paused.elapsed());
        assert_eq!(nodes.borrow().names.len(), 1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.resume(silent);
    timeout(SOON, nodes.wait_for(|n| !n.stale)).await.unwrap().unwrap();
}
