//! What the trait promises, as tests any adapter can be put through. `make` gives a liveness nobody else uses.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use gon_cluster::{ClusterError, Liveness};
use tokio::sync::watch;
use tokio::time::timeout;

/// Long enough for a loaded machine and a remote store.
const SOON: Duration = Duration::from_secs(10);
/// The shortest time to live that every adapter can keep.
const TTL: Duration = Duration::from_secs(1);

pub async fn all<L: Liveness, F: Future<Output = L>>(make: impl Fn() -> F) {
    a_registered_node_is_alive_until_its_lease_is_dropped(&make().await).await;
    a_silent_node_leaves_and_its_lease_is_lost(&make().await).await;
    a_renewed_lease_stays(&make().await).await;
    one_leads_and_the_next_follows(&make().await).await;
    roles_are_independent(&make().await).await;
}

async fn until(nodes: &mut watch::Receiver<BTreeSet<String>>, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|n| (*n).to_owned()).collect();
    let seen = timeout(SOON, nodes.wait_for(|now| *now == expected)).await;
    assert!(matches!(seen, Ok(Ok(_))), "expected {expected:?}");
}

async fn a_registered_node_is_alive_until_its_lease_is_dropped(liveness: &dyn Liveness) {
    let mut nodes = liveness.nodes().await.unwrap();
    let a = liveness.register("a", Duration::from_secs(60)).await.unwrap();
    let b = liveness.register("b", Duration::from_secs(60)).await.unwrap();
    until(&mut nodes, &["a", "b"]).await;
    drop(a);
    until(&mut nodes, &["b"]).await;
    // A restarted node registers anew before its old lease is gone.
    let again = liveness.register("b", Duration::from_secs(60)).await.unwrap();
    drop(b);
    until(&mut nodes, &["b"]).await;
    drop(again);
    until(&mut nodes, &[]).await;
}

async fn a_silent_node_leaves_and_its_lease_is_lost(liveness: &dyn Liveness) {
    let mut nodes = liveness.nodes().await.unwrap();
    let mut lease = liveness.register("silent", TTL).await.unwrap();
    until(&mut nodes, &["silent"]).await;
    until(&mut nodes, &[]).await;
    assert!(matches!(lease.renew().await, Err(ClusterError::Lost)));
}

async fn a_renewed_lease_stays(liveness: &dyn Liveness) {
    let mut nodes = liveness.nodes().await.unwrap();
    let mut lease = liveness.register("steady", TTL).await.unwrap();
    until(&mut nodes, &["steady"]).await;
    for _ in 0..8 {
        tokio::time::sleep(TTL / 4).await;
        lease.renew().await.unwrap();
        assert!(nodes.borrow().contains("steady"));
    }
}

async fn one_leads_and_the_next_follows(liveness: &dyn Liveness) {
    let first = timeout(SOON, liveness.campaign("role", "one")).await.unwrap().unwrap();
    assert!(timeout(Duration::from_millis(100), liveness.campaign("role", "two")).await.is_err());
    assert!(timeout(Duration::from_millis(100), first.lost()).await.is_err());
    drop(first);
    timeout(SOON, liveness.campaign("role", "two")).await.unwrap().unwrap();
}

async fn roles_are_independent(liveness: &dyn Liveness) {
    let _one = timeout(SOON, liveness.campaign("role-a", "one")).await.unwrap().unwrap();
    let _two = timeout(SOON, liveness.campaign("role-b", "one")).await.unwrap().unwrap();
}
