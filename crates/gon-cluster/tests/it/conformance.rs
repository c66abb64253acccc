//! What the trait promises, as tests any adapter can be put through. `make` gives a liveness nobody else uses.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use gon_cluster::{Alive, ClusterError, Liveness};
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
    who_resigns_is_followed_at_once(&make().await).await;
    who_gives_up_waiting_blocks_nobody(&make().await).await;
    roles_are_independent(&make().await).await;
    services_are_found_while_they_are_announced(&make().await).await;
    settings_reach_everybody(&make().await).await;
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

async fn until(nodes: &mut watch::Receiver<Alive>, expected: &[&str]) {
    let expected = Alive { names: set(expected), stale: false };
    let seen = timeout(SOON, nodes.wait_for(|now| *now == expected)).await;
    assert!(matches!(seen, Ok(Ok(_))), "expected {expected:?}");
}

async fn until_at(services: &mut watch::Receiver<BTreeSet<String>>, expected: &[&str]) {
    let expected = set(expected);
    let seen = timeout(SOON, services.wait_for(|now| *now == expected)).await;
    assert!(matches!(seen, Ok(Ok(_))), "expected {expected:?}");
}

async fn a_registered_node_is_alive_until_its_lease_is_dropped(liveness: &dyn Liveness) {
    let mut nodes = liveness.nodes().await;
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
    let mut nodes = liveness.nodes().await;
    let mut lease = liveness.register("silent", TTL).await.unwrap();
    until(&mut nodes, &["silent"]).await;
    until(&mut nodes, &[]).await;
    assert!(matches!(lease.renew().await, Err(ClusterError::Lost)));
}

async fn a_renewed_lease_stays(liveness: &dyn Liveness) {
    let mut nodes = liveness.nodes().await;
    let mut lease = liveness.register("steady", TTL).await.unwrap();
    until(&mut nodes, &["steady"]).await;
    for _ in 0..8 {
        tokio::time::sleep(TTL / 4).await;
        lease.renew().await.unwrap();
        assert!(nodes.borrow().names.contains("steady"));
    }
}

async fn one_leads_and_the_next_follows(liveness: &dyn Liveness) {
    let first = timeout(SOON, liveness.campaign("role", "one")).await.unwrap().unwrap();
    assert!(timeout(Duration::from_millis(100), liveness.campaign("role", "two")).await.is_err());
    assert!(timeout(Duration::from_millis(100), first.lost()).await.is_err());
    assert!(first.holds());
    drop(first);
    timeout(SOON, liveness.campaign("role", "two")).await.unwrap().unwrap();
}

async fn roles_are_independent(liveness: &dyn Liveness) {
    let _one = timeout(SOON, liveness.campaign("role-a", "one")).await.unwrap().unwrap();
    let _two = timeout(SOON, liveness.campaign("role-b", "one")).await.unwrap().unwrap();
}

async fn who_resigns_is_followed_at_once(liveness: &dyn Liveness) {
    let first = timeout(SOON, liveness.campaign("role", "one")).await.unwrap().unwrap();
    let (second, ()) = tokio::join!(timeout(SOON / 5, liveness.campaign("role", "two")), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        first.resign().await;
    });
    assert!(second.expect("before any lease can run out").unwrap().holds());
}

async fn who_gives_up_waiting_blocks_nobody(liveness: &dyn Liveness) {
    // Given up at many moments, also in the middle of winning.
    for millis in 0..20 {
        let won = timeout(Duration::from_millis(millis), liveness.campaign("role", "one")).await;
        drop(won);
    }
    timeout(SOON / 5, liveness.campaign("role", "two")).await.expect("nobody leads").unwrap();
}

async fn services_are_found_while_they_are_announced(liveness: &dyn Liveness) {
    let mut before = liveness.services("manager").await;
    let one = liveness.announce("manager", "10.0.0.1:8082");
    until_at(&mut before, &["10.0.0.1:8082"]).await;
    let two = liveness.announce("manager", "10.0.0.2:8082");
    let _other = liveness.announce("controller", "10.0.0.1:8081");
    until_at(&mut before, &["10.0.0.1:8082", "10.0.0.2:8082"]).await;
    // Who asks later finds what is there.
    until_at(&mut liveness.services("manager").await, &["10.0.0.1:8082", "10.0.0.2:8082"]).await;
    drop(one);
    until_at(&mut before, &["10.0.0.2:8082"]).await;
    drop(two);
    until_at(&mut before, &[]).await;
}

async fn settings_reach_everybody(liveness: &dyn Liveness) {
    let mut mtu = liveness.setting("mtu").await;
    assert_eq!(*mtu.borrow_and_update(), None);
    for value in ["1450", "1400"] {
        liveness.publish("mtu", value).await.unwrap();
        let seen = timeout(SOON, mtu.wait_for(|now| now.as_deref() == Some(value))).await;
        assert!(matches!(seen, Ok(Ok(_))), "{value}");
    }
    assert_eq!(liveness.setting("mtu").await.borrow().as_deref(), Some("1400"));
    assert_eq!(*liveness.setting("other").await.borrow(), None);
}
