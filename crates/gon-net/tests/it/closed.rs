//! A port of which the document says something impossible is closed and named; its neighbours and the agent go on. Random sites in
//! which one thing is spoilt, by every reason that the compiler has: exactly those whom it concerns are closed, for the right
//! reason; nothing comes from them and nothing to them; what belongs to everybody else is byte for byte what it was, and so is
//! what becomes of every packet between them.
//!
//! `GON_TEST_LONG=1` tries ten times as many; `GON_TEST_SEED=n` one site.

use gon_net::Reason;

use crate::interpreted::{measure, say};
use crate::random::{Case, Dice};
use crate::spoiled::{BUGS, Bug, SPOILS, Spoiled, Tally, right};

/// The site of a seed, and what is spoilt of it.
fn site(seed: u64) -> Option<(Case, Spoiled)> {
    let case = Case::random(seed, 8);
    let spoil = SPOILS[usize::try_from(seed).unwrap() % SPOILS.len()];
    let spoiled = Spoiled::new(&case, spoil, &mut Dice::new(seed))?;
    Some((case, spoiled))
}

/// Every reason, by name: one that is added makes this incomplete.
fn every_reason() -> Vec<Reason> {
    use Reason::{
        BadAcl, BadAddress, BadMac, BadNetworkKey, BadPortNumber, BadPublicAddress, BadRule, BadSubnet,
        NoGroup, NoSuchAcl, NoSuchGroup, NoSuchSubnet, NoSuchVpc, Repeated, SharedAddress, SharedMac,
        SharedPortNumber, SharedPublicAddress, TooManyRules, WrongNode,
    };
    let all = vec![
        WrongNode,
        BadPortNumber,
        SharedPortNumber,
        Repeated,
        NoSuchSubnet,
        NoSuchVpc,
        BadNetworkKey,
        BadSubnet,
        BadAddress,
        SharedAddress,
        BadMac,
        SharedMac,
        BadPublicAddress,
        SharedPublicAddress,
        NoGroup,
        NoSuchGroup,
        NoSuchAcl,
        BadAcl,
        BadRule,
        TooManyRules,
    ];
    for reason in &all {
        match reason {
            WrongNode | BadPortNumber | SharedPortNumber | Repeated | NoSuchSubnet | NoSuchVpc
            | BadNetworkKey | BadSubnet | BadAddress | SharedAddress | BadMac | SharedMac
            | BadPublicAddress | SharedPublicAddress | NoGroup | NoSuchGroup | NoSuchAcl | BadAcl
            | BadRule | TooManyRules => {}
        }
    }
    all
}

#[test]
fn whom_it_concerns_is_closed_and_nobody_else() {
    let one: Option<u64> = std::env::var("GON_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let sites = measure(4_000, 40_000);
    let mut tally = Tally::default();
    for seed in one.map_or(0..sites, |seed| seed..seed + 1) {
        let Some((case, spoiled)) = site(seed) else { continue };
        if let Err(complaint) = spoiled.complaint(&case, right, &mut tally) {
            panic!("GON_TEST_SEED={seed}, {}: {complaint}\n{case:#?}", spoiled.what);
        }
        *tally.spoiled.entry(spoiled.what).or_default() += 1;
        tally.reasons.insert(spoiled.reason);
    }
    if one.is_some() {
        return;
    }
    let Tally { packets, cut, kept, spoiled, reasons } = tally;
    let count: usize = spoiled.values().sum();
    let text = format!(
        "{count} sites spoilt in {} ways for {} reasons: {packets} packets, {cut} of or to closed ports stopped, {kept} arrived as before",
        spoiled.len(),
        reasons.len()
    );
    say("closed ports", &text);
    let often: Vec<String> = spoiled.iter().map(|(what, times)| format!("{what} {times}")).collect();
    println!("{}", often.join(", "));
    assert!(reasons.into_iter().eq(every_reason()), "every reason");
    assert_eq!(spoiled.len(), SPOILS.len(), "every way");
    assert!(spoiled.values().all(|times| *times >= 10));
    assert!(cut * 20 > packets && kept * 50 > packets);
}

/// A test of the test.
#[test]
fn planted_bugs_are_found() {
    for (name, bug) in BUGS {
        let tells = |(case, spoiled): &(Case, Spoiled), bug: Bug| {
            spoiled.complaint(case, bug, &mut Tally::default()).err()
        };
        let found = (0..400).filter_map(site).find_map(|site| Some((tells(&site, bug)?, site)));
        let (complaint, site) = found.unwrap_or_else(|| panic!("nobody notices that {name}"));
        println!("{name}: {} tells: {}", site.1.what, complaint.lines().next().unwrap_or_default());
        assert_eq!(tells(&site, right), None, "{name}");
    }
}
