use super::*;
use crate::cookie::Cookie;
use crate::pipeline::Stage;

fn flow(priority: u16, matches: Match, actions: Vec<Action>) -> Flow {
    Flow::new(0, priority, Cookie::fixed(Stage::Classify), matches, actions)
}

#[test]
fn matches_are_canonical() {
    let a = Match::tcp().with(Field::TcpDst, 80).addr(Field::IpSrc, Ipv4Addr::new(10, 0, 0, 1));
    let b = Match::any()
        .addr(Field::IpSrc, Ipv4Addr::new(10, 0, 0, 1))
        .with(Field::TcpDst, 80)
        .with(Field::IpProto, 6)
        .with(Field::EthType, 0x800);
    assert_eq!(a, b);
    assert_eq!(a.to_string(), "ip,nw_proto=6,nw_src=10.0.0.1,tp_dst=80");
    // Bits outside the mask do not count, an empty mask is no condition.
    let net: Ipv4Net = "10.1.2.3/16".parse().unwrap();
    assert_eq!(Match::ip().net(Field::IpDst, net).to_string(), "ip,nw_dst=10.1.0.0/16");
    assert_eq!(Match::ip().net(Field::IpDst, "0.0.0.0/0".parse().unwrap()), Match::ip());
    let bits =
        Match::any().slice(Slice::new(Field::Reg(7), 0, 1), 1).slice(Slice::new(Field::Reg(7), 2, 1), 0);
    assert_eq!(bits.to_string(), "reg7=0x1/0x5");
}

#[test]
fn a_table_is_sorted_and_contradictions_drop() {
    let pass = |port| vec![Action::Output(port)];
    let flows = vec![
        flow(1, Match::any(), vec![]),
        flow(9, Match::ip(), pass(3)),
        flow(5, Match::arp(), pass(1)),
        flow(5, Match::arp(), pass(1)),
        flow(9, Match::ip(), pass(4)),
    ];
    let mut reversed = flows.clone();
    reversed.reverse();
    let table = FlowTable::from_flows(flows);
    assert_eq!(table, FlowTable::from_flows(reversed));
    let seen: Vec<(u16, usize)> = table.flows().map(|f| (f.priority, f.actions.len())).collect();
    assert_eq!(seen, [(9, 0), (5, 1), (1, 0)]);
}

#[test]
fn slices_read_and_write_their_bits() {
    let slice = Slice::new(Field::Reg(0), 4, 8);
    assert_eq!(slice.get(0xabcd), 0xbc);
    assert_eq!(slice.set(0xffff, 0), 0xf00f);
    assert_eq!(slice.to_string(), "NXM_NX_REG0[4..11]");
    assert_eq!(Slice::new(Field::Reg(0), 4, 1).to_string(), "NXM_NX_REG0[4]");
}
