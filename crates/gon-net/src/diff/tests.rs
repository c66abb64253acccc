use proptest::prelude::*;

use super::*;
use crate::compile::compile;
use crate::testing::any_topology;
use crate::topology::{allow, facts, id, mac, two_vpcs};

#[test]
fn only_what_changed() {
    let old = compile(&two_vpcs().doc, &facts());
    assert_eq!(diff(&old.flows, &old.flows), []);
    let mut topology = two_vpcs();
    topology.doc.groups[0].rules.push(allow(99, "in tcp 443 from 0.0.0.0/0"));
    let new = compile(&topology.doc, &facts());
    // A rule is one flow, however many ports have the group.
    let mods = diff(&old.flows, &new.flows);
    assert_eq!(mods.len(), 1, "{mods:?}");
    assert!(matches!(mods[0], FlowMod::Add(f) if f.cookie.is_of(id::<gon_types::id::SecurityGroupRule>(99))));
    assert!(matches!(diff(&new.flows, &old.flows)[..], [FlowMod::Delete(_)]));
}

#[test]
fn a_new_member_is_one_flow_whoever_names_the_group() {
    let old = compile(&two_vpcs().doc, &facts());
    let mut topology = two_vpcs();
    topology.doc.groups[0].members.push("10.0.2.99".parse().unwrap());
    let new = compile(&topology.doc, &facts());
    // Group 1 is named by itself and by group 2, inbound.
    assert_eq!(diff(&old.flows, &new.flows).len(), 1);
}

#[test]
fn zones_are_emptied_when_their_owner_changes() {
    let base = compile(&two_vpcs().doc, &facts());
    let owners: BTreeMap<u16, Owner> = base.zones.iter().map(|(no, zone)| (*no, zone.owner)).collect();
    assert_eq!(zones_to_empty(&owners, &base), [] as [u16; 0]);

    let mut gone = two_vpcs();
    gone.doc.ports.remove(0);
    let moved = two_vpcs().with_port(18, |p| p.id = id(55));
    let mut remade = two_vpcs().with_port(19, |p| p.mac = mac(99));
    remade.doc.addresses[3].mac = mac(99);
    for (change, zone) in [(gone, 16), (moved, 18), (remade, 19)] {
        let new = compile(&change.doc, &facts());
        assert_eq!(new.degraded, []);
        assert_eq!(zones_to_empty(&owners, &new), [zone]);
    }
    // A new port has nothing to empty.
    let more = two_vpcs().port(21, 21, "10.0.1.12", &[3], None);
    assert_eq!(zones_to_empty(&owners, &compile(&more.doc, &facts())), [] as [u16; 0]);
    // Nor is a port that may do less.
    let mut less = two_vpcs();
    less.doc.groups[1].rules.remove(0);
    assert_eq!(zones_to_empty(&owners, &compile(&less.doc, &facts())), [] as [u16; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn changes_lead_from_old_to_new(a in any_topology(), b in any_topology()) {
        let (a, b) = (compile(&a.doc, &facts()).flows, compile(&b.doc, &facts()).flows);
        prop_assert!(diff(&a, &a).is_empty());
        let mods = diff(&a, &b);
        prop_assert_eq!(&apply(&a, &mods), &b);
        let first_add = mods.iter().position(|m| matches!(m, FlowMod::Add(_))).unwrap_or(mods.len());
        prop_assert!(mods[first_add..].iter().all(|m| matches!(m, FlowMod::Add(_))));
    }
}
