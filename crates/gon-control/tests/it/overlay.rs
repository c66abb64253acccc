//! The overlay in documents: who is where, how much fits through, and who is told when that changes.

use gon_proto::{NetworkReport, NodeNetwork, OverlayReport, PeerSpec};
use gon_types::DocumentVersion;
use gon_types::id::NodeId;

use crate::site::{Site, id, n1};

fn report(node: NodeId, overlay: Option<(&str, u16)>) -> NetworkReport {
    NetworkReport {
        format: gon_proto::FORMAT,
        node,
        applied: DocumentVersion::default(),
        vpcs: vec![],
        ports: vec![],
        overlay: overlay.map(|(address, mtu)| OverlayReport { address: address.parse().unwrap(), mtu }),
    }
}

async fn document(site: &Site, node: NodeId) -> NodeNetwork {
    site.network.refresh(node).await.unwrap();
    serde_json::from_slice(&site.network.documents().latest(node).unwrap().body).unwrap()
}

#[tokio::test]
async fn nodes_that_share_a_vpc_are_peers() {
    let site = Site::new().await;
    let n2: NodeId = id(2);
    let alone = document(&site, n1()).await;
    assert_eq!((alone.peers.as_slice(), alone.ports[0].dhcp.mtu), (&[][..], 1500));
    site.rung().await;

    site.network.ingest(n2, report(n2, Some(("192.0.2.2", 1500)))).await.unwrap();
    assert_eq!(site.rung().await, ["node 1", "node 2"], "every node is told");
    site.network.ingest(n2, report(n2, Some(("192.0.2.2", 1500)))).await.unwrap();
    assert!(site.rung().await.is_empty(), "nothing new");
    let now = document(&site, n1()).await;
    assert!(now.addresses.iter().any(|a| a.node == n2));
    assert_eq!(now.peers, [PeerSpec { node: n2, address: "192.0.2.2".parse().unwrap() }]);
    // The tunnel must fit, as soon as there is one.
    assert!(now.ports.iter().all(|p| p.dhcp.mtu == 1450));

    // The narrowest decides, up to what the site wants.
    site.network.ingest(n1(), report(n1(), Some(("192.0.2.1", 9000)))).await.unwrap();
    assert!(document(&site, n1()).await.ports.iter().all(|p| p.dhcp.mtu == 1450));
    site.network.ingest(n2, report(n2, Some(("192.0.2.2", 9000)))).await.unwrap();
    assert!(document(&site, n1()).await.ports.iter().all(|p| p.dhcp.mtu == 1500));
    // A node does not name itself.
    assert!(document(&site, n1()).await.peers.iter().all(|p| p.node != n1()));

    // Gone again.
    site.network.ingest(n2, report(n2, None)).await.unwrap();
    site.network.ingest(n1(), report(n1(), None)).await.unwrap();
    let back = document(&site, n1()).await;
    assert_eq!((back.peers.len(), back.ports[0].dhcp.mtu), (0, 1500));
}

#[tokio::test]
async fn two_nodes_never_have_one_address_and_keys_are_fixed() {
    let site = Site::new().await;
    let n2: NodeId = id(2);
    site.network.ingest(n1(), report(n1(), Some(("192.0.2.1", 1500)))).await.unwrap();
    assert!(site.network.ingest(n2, report(n2, Some(("192.0.2.1", 1500)))).await.is_err());
    assert!(site.network.ingest(n2, report(n2, Some(("192.0.2.2", 600)))).await.is_err());
    site.network.ingest(n2, report(n2, Some(("192.0.2.2", 1500)))).await.unwrap();

    let store = &site.database.store;
    for forbidden in [
        "update vpcs set key = 4711 where key = 101",
        "insert into vpcs (id, account_id, user_id, name, cidr_block, key) select gen_random_uuid(), account_id, user_id,
           'three', cidr_block, 16777216 from vpcs where key = 101",
        "insert into vpcs (id, account_id, user_id, name, cidr_block, key) select gen_random_uuid(), account_id, user_id,
           'three', cidr_block, 101 from vpcs where key = 101",
    ] {
        assert!(gon_store::admin::script(store, forbidden).await.is_err(), "{forbidden}");
    }
}
