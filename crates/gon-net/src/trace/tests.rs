use super::*;
use crate::testing::{Lab, golden};
use crate::topology::two_vpcs;

#[test]
fn a_trace_can_be_read() {
    let mut lab = Lab::new(two_vpcs());
    let sql = lab.between(16, 18, IP_TCP, 5432);
    let mut text = lab.send(16, &sql).to_string();
    text += "\n";
    text += &lab.send(16, &lab.between(16, 18, IP_TCP, 80)).to_string();
    golden("trace", &text);
}

#[test]
fn conjunctions_need_every_clause() {
    let cookie = Cookie::fixed(Stage::Policy);
    let clause = |id, clause| Action::Conjunction { id, clause, of: 2 };
    let flow = |priority, matches, actions| Flow::new(0, priority, cookie, matches, actions);
    let src = |bits: u64| Match::ip().with(Field::IpSrc, bits);
    let table = FlowTable::from_flows(vec![
        flow(9, src(1), vec![clause(7, 1)]),
        flow(9, src(2), vec![clause(7, 1), clause(8, 1)]),
        flow(9, Match::tcp().with(Field::TcpDst, 80), vec![clause(7, 2)]),
        flow(9, Match::udp(), vec![clause(8, 2)]),
        flow(9, Match::any().with(Field::ConjId, 7), vec![Action::Output(1)]),
        flow(9, Match::any().with(Field::ConjId, 8), vec![Action::Output(2)]),
        flow(1, Match::any(), vec![Action::Output(3)]),
    ]);
    let out = |source: u64, proto: u8, port: u64| {
        let packet = Packet::default()
            .with(Field::EthType, ETH_IP.into())
            .with(Field::IpSrc, source)
            .with(Field::IpProto, proto.into())
            .with(ports_of(proto.into()).1, port);
        trace(&table, 5, &packet, &mut Conntrack::new()).outputs[0].0
    };
    assert_eq!(out(1, IP_TCP, 80), 1);
    assert_eq!(out(2, IP_TCP, 80), 1);
    assert_eq!(out(2, IP_UDP, 1), 2);
    assert_eq!(out(1, IP_UDP, 1), 3);
    assert_eq!(out(3, IP_TCP, 80), 3);
    assert_eq!(out(1, IP_TCP, 81), 3);
}

#[test]
fn tracking_knows_directions() {
    let mut table = Conntrack::new();
    let addr = |n| (MacAddr([2, 0, 0, 0, 0, n]), Ipv4Addr::new(10, 0, 0, n));
    let syn = Packet::ip(addr(1), addr(2), IP_TCP).with(Field::TcpSrc, 5).with(Field::TcpDst, 80);
    let state = |table: &mut Conntrack, zone, packet: &Packet| {
        let mut packet = packet.clone();
        table.track(zone, &mut packet);
        packet
    };
    use ct_state::{EST, INV, NEW, RPL, TRK};
    assert_eq!(state(&mut table, 1, &syn).get(Field::CtState), TRK | NEW);
    table.commit(1, &syn, Some(3));
    let answer = state(&mut table, 1, &syn.answer());
    assert_eq!(answer.get(Field::CtState), TRK | EST | RPL);
    assert_eq!(answer.get(Field::CtMark), 3);
    assert_eq!(answer.get(Field::CtTpDst), 80);
    assert_eq!(answer.addr(Field::CtIpSrc), Ipv4Addr::new(10, 0, 0, 1));
    assert_eq!(answer.as_first().unwrap().get(Field::TcpDst), 80);
    assert_eq!(state(&mut table, 1, &syn).get(Field::CtState), TRK | EST);
    assert_eq!(state(&mut table, 2, &syn).get(Field::CtState), TRK | NEW);
    let gre = Packet::ip(addr(1), addr(2), 47);
    assert_eq!(state(&mut table, 1, &gre).get(Field::CtState), TRK | NEW);
    table.commit(1, &gre, None);
    assert_eq!(state(&mut table, 1, &gre.answer()).get(Field::CtState), TRK | EST | RPL);
    let timestamp = Packet::ip(addr(1), addr(2), IP_ICMP).with(Field::IcmpType, 13);
    assert_eq!(state(&mut table, 1, &timestamp).get(Field::CtState), TRK | INV);
    table.flush(1);
    assert!(table.is_empty());
}
