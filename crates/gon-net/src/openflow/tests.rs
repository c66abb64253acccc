use proptest::prelude::*;

use super::*;
use crate::flow::{Action, Field, Match};
use crate::pipeline::Stage;

#[test]
fn messages_are_as_the_standard_lays_them_out() {
    assert_eq!(hello(1)[..16], [5, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0, 8, 0, 0, 0, 0x20]);
    assert_eq!(hello(1)[16..], [5, 9, 0, 12, 0, 0, 0, 1, 0, 3, 0, 0]);
    assert_eq!(echo_reply(2, b"hi"), [5, 3, 0, 10, 0, 0, 0, 2, b'h', b'i']);
    assert_eq!(barrier_request(3), [5, 20, 0, 8, 0, 0, 0, 3]);
    let empty = bundle(4, 9, &[]);
    assert_eq!(empty[..16], [5, 33, 0, 16, 0, 0, 0, 4, 0, 0, 0, 9, 0, 0, 0, 3]);
    assert_eq!(empty[16..], [5, 33, 0, 16, 0, 0, 0, 4, 0, 0, 0, 9, 0, 4, 0, 3]);
    let flow = Flow::new(7, 1, Cookie::fixed(Stage::Local), Match::ip(), vec![Action::Output(2)]);
    let add = flow_mod(1, FlowMod::Add(&flow));
    assert_eq!(add.len(), 8 + 40 + 16 + 8 + 16);
    assert_eq!(usize::from(u16::from_be_bytes([add[2], add[3]])), add.len());
    // A removal names the flow and carries no actions.
    assert_eq!(flow_mod(1, FlowMod::Delete(&flow)).len(), 8 + 40 + 16);
}

#[test]
fn answers_are_read_in_pieces() {
    let mut stream = vec![5, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0, 8, 0, 0, 0, 0x20];
    stream.extend([5, 2, 0, 9, 0, 0, 0, 2, 0xaa]);
    stream.extend([5, 33, 0, 16, 0, 0, 0, 3, 0, 0, 0, 9, 0, 5, 0, 3]);
    stream.extend([5, 1, 0, 14, 0, 0, 0, 4, 0, 5, 0, 6, 1, 2]);
    let mut seen = vec![];
    let mut buffer = vec![];
    for byte in stream {
        buffer.push(byte);
        if let Some((received, used)) = decode(&buffer).unwrap() {
            assert_eq!(used, buffer.len());
            buffer.clear();
            seen.push((received.xid, received.message));
        }
    }
    let error = SwitchError { kind: 5, code: 6, request: vec![1, 2] };
    assert_eq!(
        seen,
        [
            (1, Incoming::Hello(true)),
            (2, Incoming::EchoRequest(vec![0xaa])),
            (3, Incoming::BundleReply { bundle: 9, step: BundleStep::Commit }),
            (4, Incoming::Error(error)),
        ]
    );
}

#[test]
fn other_versions_are_noticed() {
    let greets = |bytes: &[u8]| decode(bytes).unwrap().unwrap().0.message;
    assert_eq!(greets(&[4, 0, 0, 8, 0, 0, 0, 1]), Incoming::Hello(false));
    assert_eq!(greets(&[6, 0, 0, 8, 0, 0, 0, 1]), Incoming::Hello(true));
    assert_eq!(greets(&[6, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0, 8, 0, 0, 0, 0x12]), Incoming::Hello(false));
    assert_eq!(decode(&[1, 3, 0, 8, 0, 0, 0, 1]), Err(WireError::Header));
    assert_eq!(decode(&[5, 3, 0, 7, 0, 0, 0, 1]), Err(WireError::Header));
    assert_eq!(decode(&[5, 33, 0, 10, 0, 0, 0, 1, 0, 0]), Err(WireError::Short(33)));
}

/// What the switch would report of a flow, made from what is sent.
fn report(flow: &Flow) -> Vec<u8> {
    let sent = flow_mod(1, FlowMod::Add(flow));
    let tail = &sent[8 + 40..];
    message(MULTIPART_REPLY, 1, |out| {
        put16(out, MULTIPART_FLOW);
        put16(out, 0);
        put32(out, 0);
        put16(out, u16::try_from(FLOW_STATS_FIXED + tail.len()).unwrap());
        out.extend_from_slice(&[flow.table, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        put16(out, flow.priority);
        out.extend_from_slice(&[0; 10]);
        put64(out, flow.cookie.to_bits());
        put64(out, 11);
        put64(out, 22);
        out.extend_from_slice(tail);
    })
}

proptest! {
    #[test]
    fn what_is_sent_reads_back(topology in crate::testing::any_topology()) {
        let facts = crate::NodeFacts { mirror: crate::Mirror::Accepting, ..crate::topology::facts() };
        for flow in crate::compile(&topology.doc, &facts).flows.flows() {
            let bytes = report(flow);
            let (received, used) = decode(&bytes).unwrap().unwrap();
            prop_assert_eq!(used, bytes.len());
            let Incoming::FlowStats { flows, more: false } = received.message else { panic!() };
            prop_assert_eq!((flows[0].packets, flows[0].bytes), (11, 22));
            prop_assert_eq!(flows[0].flow.as_ref(), Some(flow));
        }
    }

    /// Whatever the bytes, there is an answer and no panic.
    #[test]
    fn noise_is_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..40u8) {
        if bytes.len() >= 8 {
            let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            bytes[..4].copy_from_slice(&[5, kind, length[0], length[1]]);
        }
        let _ = decode(&bytes);
    }

    #[test]
    fn damaged_reports_are_survived(at in 0..200usize, value in any::<u8>()) {
        let matches = Match::tcp().with(Field::TcpDst, 80);
        let flow = Flow::new(3, 9, Cookie::fixed(Stage::Local), matches, vec![Action::go(4), Action::DecTtl]);
        let mut bytes = report(&flow);
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = decode(&bytes);
    }
}
