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
    Request {
        vcpus: 1,
        memory_mib,
        disk_gib: 0,
        availability_zone: "local-1a".to_owned(),
        image: image(),
        remains: BTreeSet::new(),
    }
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
fn where_something_is_left_of_it_it_does_not_return() {
    let nodes = [node("a", 4000, 0), node("b", 1000, 0)];
    let again = Request { remains: BTreeSet::from([nodes[0].id]), ..request(100) };
    assert_eq!(choose(&again, &nodes), Ok(1));
    assert!(choose(&again, &nodes[..1]).unwrap_err().to_string().contains("a has not cleaned up"));
    let mut batch = Batch::new(nodes.to_vec());
    batch.close(1);
    assert!(batch.choose(&again).is_err());
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

fn numbers(last_port: u32, last_uid: u32) -> Numbers {
    Numbers { ports: BTreeSet::new(), uids: BTreeSet::new(), last_port, last_uid }
}

#[test]
fn a_batch_never_lends_twice() {
    let mut batch = Batch::new(vec![node("a", 1000, 0), node("b", 900, 0)]);
    let mut placed = Vec::new();
    while let Ok(index) = batch.choose(&request(300)) {
        if batch.lacks_numbers(index) {
            batch.learn(index, numbers(15, 599_999));
        }
        let given = batch.place(index, &request(300), 2).unwrap();
        assert!(!placed.contains(&(index, given.uid)));
        placed.push((index, given.uid));
        let first = 16 + 2 * (given.uid - 600_000);
        assert_eq!(given.ports, [first, first + 1]);
    }
    assert_eq!(placed.iter().filter(|(index, _)| *index == 0).count(), 3);
    assert_eq!(placed.iter().filter(|(index, _)| *index == 1).count(), 3);
}

#[test]
fn a_node_without_numbers_is_chosen_no_more() {
    let mut batch = Batch::new(vec![node("a", 1000, 0), node("b", 900, 0)]);
    batch.learn(0, Numbers { ports: PORT_NOS.collect(), ..numbers(16, 600_000) });
    batch.learn(1, numbers(16, 600_000));
    assert_eq!(batch.choose(&request(10)), Ok(0));
    assert_eq!(batch.place(0, &request(10), 1), None);
    assert_eq!(batch.choose(&request(10)), Ok(1));
    assert_eq!(batch.place(1, &request(10), 1), Some(Given { uid: 600_001, ports: vec![17] }));
}

#[test]
fn a_user_is_told_once_and_given_up_in_time() {
    let (patience, at) = (Duration::from_secs(600), Duration::from_secs);
    assert_eq!(refuse(at(0), patience, None, "full"), Refusal::Tell);
    assert_eq!(refuse(at(5), patience, Some("full"), "full"), Refusal::Wait);
    assert_eq!(refuse(at(5), patience, Some("full"), "silent"), Refusal::Tell);
    assert_eq!(refuse(at(599), patience, Some("full"), "full"), Refusal::Wait);
    assert_eq!(refuse(at(600), patience, Some("full"), "full"), Refusal::GiveUp);
    assert_eq!(refuse(at(0), at(0), None, "full"), Refusal::GiveUp);
}

#[test]
fn waiting_is_counted_while_it_lasts() {
    let (mut waiting, at) = (Waiting::default(), Duration::from_secs);
    let (a, b) = (InstanceId::new(), InstanceId::new());
    for now in (100..=700).step_by(10) {
        waiting.begin(at(now));
        assert_eq!(waiting.refused(a, at(now)), at(now - 100));
    }
    assert_eq!(waiting.refused(b, at(700)), at(0));
    waiting.placed(a);
    assert_eq!(waiting.refused(a, at(710)), at(0), "it was placed meanwhile");
    // Whoever leads again after a while has not looked meanwhile.
    waiting.begin(at(2000));
    assert_eq!(waiting.refused(b, at(2000)), at(0));
}
