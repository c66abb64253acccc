use proptest::prelude::*;

use super::*;

fn image() -> (String, String) {
    ("gon-linux".to_owned(), "0".repeat(64))
}

fn node(name: &str, memory: u64, used: u64) -> Candidate {
    Candidate {
        id: NodeId::new(),
        name: name.to_owned(),
        availability_zone: "local-1a".to_owned(),
        schedulable: true,
        alive: true,
        vcpus: Room { capacity: 16, used: 0 },
        memory_mib: Room { capacity: memory, used },
        disk_gib: Room { capacity: 100, used: 0 },
        images: BTreeSet::from([image()]),
    }
}

fn request(memory_mib: u64) -> Request {
    Request { vcpus: 1, memory_mib, disk_gib: 0, availability_zone: "local-1a".to_owned(), image: image() }
}

#[test]
fn the_emptiest_node_is_taken() {
    let nodes = [node("a", 1000, 600), node("b", 4000, 2000), node("c", 1000, 550)];
    assert_eq!(choose(&request(100), &nodes), Ok(1));
}

#[test]
fn every_node_says_why_not() {
    let nodes = [
        Candidate { schedulable: false, ..node("a", 1000, 0) },
        Candidate { alive: false, ..node("b", 1000, 0) },
        Candidate { availability_zone: "local-1b".to_owned(), ..node("c", 1000, 0) },
        Candidate { images: BTreeSet::new(), ..node("d", 1000, 0) },
        node("e", 1000, 950),
        Candidate { vcpus: Room { capacity: 2, used: 3 }, ..node("f", 1000, 0) },
    ];
    let text = choose(&request(100), &nodes).unwrap_err().to_string();
    assert_eq!(
        text,
        "Server.InsufficientInstanceCapacity: a takes no new instances; b is not heard of; c is in local-1b; \
         d does not have the image; e has 50 of 100 MiB of memory free; f has 0 of 1 vCPUs free"
    );
    assert!(choose(&request(100), &[]).unwrap_err().to_string().contains("no node yet"));
}

#[test]
fn numbers_rest_before_they_are_given_again() {
    let range = 16..=20;
    assert_eq!(next_free(&range, 15, &BTreeSet::new()), Some(16));
    assert_eq!(next_free(&range, 17, &BTreeSet::from([18])), Some(19));
    assert_eq!(next_free(&range, 20, &BTreeSet::from([16])), Some(17));
    assert_eq!(next_free(&range, 18, &BTreeSet::from([19, 20, 16, 17])), Some(18));
    assert_eq!(next_free(&range, 18, &BTreeSet::from([16, 17, 18, 19, 20])), None);
}

proptest! {
    #[test]
    fn placements_never_exceed_what_a_node_has(
        nodes in prop::collection::vec((0u64..8000, 0u64..9000, 0u64..32, 0u64..40), 0..5),
        requests in prop::collection::vec((1u32..8, 64u64..4096, 0u64..40), 0..60),
    ) {
        let mut nodes: Vec<Candidate> = nodes
            .into_iter()
            .enumerate()
            .map(|(i, (memory, used, vcpus, vcpus_used))| Candidate {
                vcpus: Room { capacity: vcpus, used: vcpus_used },
                ..node(&format!("n{i}"), memory, used)
            })
            .collect();
        for (vcpus, memory_mib, disk_gib) in requests {
            let request = Request { vcpus, disk_gib, ..request(memory_mib) };
            match choose(&request, &nodes) {
                Ok(index) => {
                    nodes[index].take(&request);
                    let n = &nodes[index];
                    for room in [n.vcpus, n.memory_mib, n.disk_gib] {
                        prop_assert!(room.used <= room.capacity);
                    }
                }
                Err(NoCapacity(why)) => prop_assert_eq!(why.len(), nodes.len()),
            }
        }
    }

    #[test]
    fn a_free_number_is_free_and_found_if_there_is_one(
        last in 0u32..40, used in prop::collection::btree_set(16u32..=24, 0..9)
    ) {
        let range = 16..=24;
        match next_free(&range, last, &used) {
            Some(n) => prop_assert!(range.contains(&n) && !used.contains(&n)),
            None => prop_assert_eq!(used.len(), 9),
        }
    }
}
