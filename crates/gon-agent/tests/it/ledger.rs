//! The ledger: what it takes, what it refuses, what is on the disk.

use gon_agent::ledger::{Ledger, LedgerError};
use gon_proto::NodeNetwork;
use gon_types::DocumentVersion;
use gon_types::id::NodeId;

use crate::samples;

fn document(epoch: u64, generation: u64, ports: u16) -> NodeNetwork {
    let ports = (0..ports).map(|n| samples::port(16 + n, &format!("10.0.1.{}", 10 + n))).collect();
    NodeNetwork { version: DocumentVersion { epoch, generation }, ..samples::document(1, ports) }
}

#[test]
fn what_was_accepted_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(dir.path(), samples::node()).unwrap();
    assert_eq!(ledger.version(), DocumentVersion::default());
    for generation in 1..4 {
        ledger.accept(document(1, generation, 2)).unwrap();
        let again: Ledger<NodeNetwork> = Ledger::open(dir.path(), samples::node()).unwrap();
        assert_eq!(again.current(), Some(&document(1, generation, 2)));
    }
    // A half-written next one does not count.
    std::fs::write(dir.path().join("network.json.new"), "gon-ledger 1 net").unwrap();
    let again: Ledger<NodeNetwork> = Ledger::open(dir.path(), samples::node()).unwrap();
    assert_eq!(again.version(), DocumentVersion { epoch: 1, generation: 3 });
}

#[test]
fn older_and_foreign_documents_are_refused_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(dir.path(), samples::node()).unwrap();
    ledger.accept(document(2, 5, 1)).unwrap();
    for stale in [document(2, 4, 1), document(1, 900, 1)] {
        assert!(matches!(ledger.accept(stale), Err(LedgerError::Stale { .. })));
    }
    // The same again is nothing; the same version with another content is a lie.
    assert!(!ledger.judge(&document(2, 5, 1)).unwrap());
    ledger.accept(document(2, 5, 1)).unwrap();
    assert!(matches!(ledger.accept(document(2, 5, 2)), Err(LedgerError::Stale { .. })));
    let other = NodeNetwork { node: NodeId::new(), ..document(3, 1, 1) };
    assert!(matches!(ledger.accept(other), Err(LedgerError::OtherNode { .. })));
    let newer = NodeNetwork { format: gon_proto::FORMAT + 1, ..document(3, 1, 1) };
    assert!(matches!(ledger.accept(newer), Err(LedgerError::Format(_))));
    ledger.accept(document(3, 1, 1)).unwrap();
    assert!(matches!(
        Ledger::<NodeNetwork>::open(dir.path(), NodeId::new()),
        Err(LedgerError::OtherNode { .. })
    ));
}

#[test]
fn removing_most_of_a_node_must_be_meant() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(dir.path(), samples::node()).unwrap();
    ledger.accept(document(1, 1, 20)).unwrap();
    assert!(matches!(
        ledger.accept(document(1, 2, 15)),
        Err(LedgerError::MassChange { removed: 5, of: 20, .. })
    ));
    ledger.accept(document(1, 2, 16)).unwrap();
    assert!(matches!(ledger.accept(document(1, 3, 0)), Err(LedgerError::MassChange { .. })));
    let meant = NodeNetwork { mass_change_ok: true, ..document(1, 4, 3) };
    ledger.accept(meant).unwrap();
    // The last three may always go.
    ledger.accept(document(1, 5, 0)).unwrap();
}

#[test]
fn damage_is_said_not_guessed_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(dir.path(), samples::node()).unwrap();
    ledger.accept(document(1, 1, 1)).unwrap();
    let path = dir.path().join("network.json");
    let good = std::fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(97) {
        let mut bad = good.clone();
        bad[at] ^= 0x01;
        std::fs::write(&path, bad).unwrap();
        let opened = Ledger::<NodeNetwork>::open(dir.path(), samples::node());
        assert!(matches!(opened, Err(LedgerError::Damaged { .. })), "byte {at}");
    }
    std::fs::write(&path, &good[..good.len() - 1]).unwrap();
    assert!(Ledger::<NodeNetwork>::open(dir.path(), samples::node()).is_err());
}
