//! The etcd adapter, on servers that work.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gon_cluster::{EtcdConfig, EtcdLiveness, Liveness, NODE_TTL};
use gon_testkit::etcd::{self, Etcd};
use gon_testkit::proxy::{End, Proxy};
use nix::sys::signal::Signal;
use tokio::time::{Instant, timeout};

use crate::conformance;
use crate::holder::Holder;

/// Long enough for a loaded machine.
pub const SOON: Duration = Duration::from_secs(15);

/// A liveness with a part of the store that nobody else uses.
pub fn apart(cluster: &Etcd) -> EtcdLiveness {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let part = NEXT.fetch_add(1, Ordering::Relaxed);
    EtcdLiveness::new(EtcdConfig { prefix: format!("/part{part}"), ..EtcdConfig::new(cluster.endpoints()) })
}

/// The site's liveness as another process has it: a connection of its own.
pub fn site(cluster: &Etcd) -> EtcdLiveness {
    EtcdLiveness::new(EtcdConfig::new(cluster.endpoints()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn liveness_of_one_member_conforms() {
    let cluster = etcd::one().await;
    conformance::all(|| async { apart(&cluster) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn liveness_of_three_members_conforms() {
    let cluster = etcd::three().await;
    conformance::all(|| async { apart(&cluster) }).await;
}

/// What one process says reaches the others, and is where the specification of the store says.
#[tokio::test]
async fn processes_see_each_other() {
    let cluster = etcd::one().await;
    let (a, b) = (site(&cluster), site(&cluster));
    let _lease = a.register("worker-1", NODE_TTL).await.unwrap();
    let _there = a.announce("instance-manager", "10.0.0.1:8082");
    let _leads = a.campaign("instance-manager", "server-1").await.unwrap();
    a.publish("mtu", "1450").await.unwrap();
    let mut nodes = b.nodes().await;
    assert!(timeout(SOON, nodes.wait_for(|n| n.names.contains("worker-1") && !n.stale)).await.is_ok());
    let mut services = b.services("instance-manager").await;
    assert!(timeout(SOON, services.wait_for(|s| s.contains("10.0.0.1:8082"))).await.is_ok());
    assert_eq!(b.setting("mtu").await.borrow().as_deref(), Some("1450"));
    let mut client = etcd_client::Client::connect(cluster.endpoints(), None).await.unwrap();
    let below = etcd_client::GetOptions::new().with_prefix();
    let keys = client.get("/gon/v1/", Some(below)).await.unwrap();
    let keys: Vec<&str> = keys.kvs().iter().map(|kv| kv.key_str().unwrap()).collect();
    assert_eq!(
        keys,
        [
            "/gon/v1/leaders/instance-manager",
            "/gon/v1/nodes/worker-1",
            "/gon/v1/services/instance-manager/10.0.0.1:8082",
            "/gon/v1/settings/mtu",
        ]
    );
}

/// A crash frees the seat when the lease has run out; a clean stop at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_leads_within_fifteen_seconds_of_a_crash_and_at_once_after_a_stop() {
    let cluster = etcd::one().await;
    let holder = Holder::start(&cluster.endpoints());
    let other = site(&cluster);
    // Waits in line, as the other controllers of a site do.
    let next =
        tokio::spawn(async move { other.campaign("role", "two").await.map(|won| (won, Instant::now())) });
    tokio::time::sleep(Duration::from_secs(3)).await;
    holder.signal(Signal::SIGKILL);
    let crashed = Instant::now();
    let (next, won) = timeout(SOON, next).await.expect("≤ 15 s").unwrap().unwrap();
    assert!(won > crashed, "nobody leads beside a leader");

    let third = site(&cluster);
    let third =
        tokio::spawn(async move { third.campaign("role", "three").await.map(|won| (won, Instant::now())) });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stopped = Instant::now();
    next.resign().await;
    let (third, followed) = timeout(SOON, third).await.unwrap().unwrap().unwrap();
    println!("takeover: {:?} after a crash, {:?} after a clean stop", won - crashed, followed - stopped);
    assert!(third.holds());
    assert!(followed - stopped < Duration::from_secs(3));
}

/// What happened while a watch was broken off, and was compacted away before it came back, is not missed.
#[tokio::test]
async fn a_compacted_history_is_read_again() {
    let cluster = etcd::one().await;
    let server = cluster.endpoints()[0].trim_start_matches("http://").parse().unwrap();
    let proxy = Proxy::start(server, None, 1).await.unwrap();
    let through = EtcdLiveness::new(EtcdConfig::new(vec![format!("http://{}", proxy.address())]));
    let mut nodes = through.nodes().await;
    let direct = site(&cluster);
    let mut client = etcd_client::Client::connect(cluster.endpoints(), None).await.unwrap();
    let mut before = None;
    for round in 0..3 {
        proxy.refuse(true);
        proxy.end(End::Reset);
        let name = format!("n{round}");
        let lease = direct.register(&name, NODE_TTL).await.unwrap();
        drop(before.replace(lease));
        for _ in 0..20 {
            client.put("/noise", "", None).await.unwrap();
        }
        let revision = client.get("/noise", None).await.unwrap().header().unwrap().revision();
        client.compact(revision, None).await.unwrap();
        proxy.heal();
        let seen = timeout(SOON, nodes.wait_for(|n| n.names.iter().eq([&name]) && !n.stale)).await;
        assert!(seen.is_ok_and(|r| r.is_ok()), "round {round}");
    }
}

/// Somebody who takes our keys away by hand costs us a moment: the node comes back with its next renewal, and the
/// leader steps back before it has noticed anything else.
#[tokio::test]
async fn keys_that_were_taken_away_are_noticed() {
    let cluster = etcd::one().await;
    let liveness = site(&cluster);
    let mut nodes = liveness.nodes().await;
    let mut lease = liveness.register("n", NODE_TTL).await.unwrap();
    let leads = liveness.campaign("role", "one").await.unwrap();
    let mut client = etcd_client::Client::connect(cluster.endpoints(), None).await.unwrap();
    let below = etcd_client::DeleteOptions::new().with_prefix();
    client.delete("/gon/v1/", Some(below)).await.unwrap();
    timeout(SOON, nodes.wait_for(|n| n.names.is_empty())).await.unwrap().unwrap();
    lease.renew().await.unwrap();
    timeout(SOON, nodes.wait_for(|n| n.names.contains("n"))).await.unwrap().unwrap();
    timeout(SOON, leads.lost()).await.unwrap();
    assert!(!leads.holds());
}
