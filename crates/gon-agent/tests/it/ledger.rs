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
    // A shorter one after a longer one leaves nothing of it.
    ledger.accept(document(1, 4, 30)).unwrap();
    ledger.accept(document(1, 5, 30)).unwrap();
    for generation in 6..9 {
        let shorter = NodeNetwork { mass_change_ok: true, ..document(1, generation, 1) };
        ledger.accept(shorter.clone()).unwrap();
        let again: Ledger<NodeNetwork> = Ledger::open(dir.path(), samples::node()).unwrap();
        assert_eq!(again.current(), Some(&shorter));
    }
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

/// Which of the two files holds the newest document.
fn newest(dir: &std::path::Path, generation: u64) -> (std::path::PathBuf, std::path::PathBuf) {
    let [a, b] = ["network.a", "network.b"].map(|file| dir.join(file));
    let has = |path: &std::path::Path| {
        let bytes = std::fs::read(path).unwrap();
        String::from_utf8_lossy(&bytes).contains(&format!("\"generation\":{generation}"))
    };
    if has(&a) { (a, b) } else { (b, a) }
}

/// Power that is lost at any moment of a write: the document before it is in force, and the next one is taken.
#[test]
fn a_torn_write_leaves_the_document_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(dir.path(), samples::node()).unwrap();
    for generation in 1..3 {
        ledger.accept(document(1, generation, 2)).unwrap();
    }
    let (path, other) = newest(dir.path(), 2);
    let (whole, before) = (std::fs::read(&path).unwrap(), std::fs::read(&other).unwrap());
    let length = whole.iter().rposition(|b| *b != 0).unwrap() + 1;
    // What the slot held: nothing yet, or a document of the same length.
    for under in [vec![0; whole.len()], before.clone()] {
        for cut in (0..length).step_by(61) {
            let torn: Vec<u8> = whole[..cut].iter().chain(&under[cut..]).copied().collect();
            if torn == whole {
                continue;
            }
            std::fs::write(&path, torn).unwrap();
            let again = Ledger::<NodeNetwork>::open(dir.path(), samples::node()).unwrap();
            assert_eq!(again.current(), Some(&document(1, 1, 2)), "cut at {cut}");
        }
    }
    let mut again = Ledger::<NodeNetwork>::open(dir.path(), samples::node()).unwrap();
    again.accept(document(1, 3, 2)).unwrap();
    assert_eq!(std::fs::read(&other).unwrap(), before, "the only whole one is not written over");
    let again = Ledger::<NodeNetwork>::open(dir.path(), samples::node()).unwrap();
    assert_eq!(again.current(), Some(&document(1, 3, 2)));
}

/// The very first write may be torn, too; nothing was accepted then.
#[test]
fn a_torn_first_write_is_nothing() {
    let dir = tempfile::tempdir().unwrap();
    drop(Ledger::<NodeNetwork>::open(dir.path(), samples::node()).unwrap());
    std::fs::write(dir.path().join("network.a"), "gon-ledger 2 net").unwrap();
    let mut ledger = Ledger::<NodeNetwork>::open(dir.path(), samples::node()).unwrap();
    assert_eq!(ledger.version(), DocumentVersion::default());
    ledger.accept(document(1, 1, 1)).unwrap();
    // From now on both hold it.
    for file in ["network.a", "network.b"] {
        let kept = std::fs::read(dir.path().join(file)).unwrap();
        std::fs::write(dir.path().join(file), "").unwrap();
        let again = Ledger::<NodeNetwork>::open(dir.path(), samples::node()).unwrap();
        assert_eq!(again.current(), Some(&document(1, 1, 1)), "without {file}");
        std::fs::write(dir.path().join(file), kept).unwrap();
    }
}

#[test]
fn damage_is_said_not_guessed_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(dir.path(), samples::node()).unwrap();
    ledger.accept(document(1, 1, 1)).unwrap();
    let paths = ["network.a", "network.b"].map(|file| dir.path().join(file));
    let good = std::fs::read(&paths[0]).unwrap();
    let length = good.iter().rposition(|b| *b != 0).unwrap() + 1;
    for at in (0..length).step_by(97) {
        let mut bad = good.clone();
        bad[at] ^= 0x01;
        for path in &paths {
            std::fs::write(path, &bad).unwrap();
        }
        let opened = Ledger::<NodeNetwork>::open(dir.path(), samples::node());
        assert!(matches!(opened, Err(LedgerError::Damaged { .. })), "byte {at}");
    }
    for path in &paths {
        std::fs::write(path, &good[..length - 1]).unwrap();
    }
    assert!(Ledger::<NodeNetwork>::open(dir.path(), samples::node()).is_err());
}
