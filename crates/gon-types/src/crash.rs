//! Crash points: names of places where a test ends a process at once, as `kill -9` would.
//!
//! The steps of creating (C) and deleting (D) an instance, each with a place before and one after its effect. A test
//! names one in `GON_CRASH` (`C25:before`: the first process that comes there ends), or writes it into the file that
//! `GON_CRASH_FILE` names when the moment has come. Without these variables a crash point is one comparison.

use std::sync::OnceLock;

/// Every step and what it does. A step without a test that crashes there fails the test that enumerates them.
pub const STEPS: &[(&str, &str)] = &[
    ("C03", "API: the launch's transaction has begun"),
    ("C05", "API: address, interface and instance rows"),
    ("C08", "API: outbox, audit, event and idempotency rows"),
    ("C09", "API: COMMIT of the launch"),
    ("C11", "relay: doorbells published"),
    ("C13", "relay: outbox rows gone"),
    ("C14", "instance manager: COMMIT of the placement"),
    ("C15", "hypervisor agent: document stored"),
    ("C16", "hypervisor agent: image linked"),
    ("C17", "hypervisor agent: disk made"),
    ("C19", "hypervisor agent: files synced"),
    ("C20", "network agent: flows"),
    ("C21", "network agent: document stored"),
    ("C22", "network agent: tap made"),
    ("C23", "network agent: port on the switch, tap up"),
    ("C24", "hypervisor agent: journal says starting"),
    ("C25", "hypervisor agent: process started"),
    ("C26", "hypervisor agent: journal knows the process"),
    ("C27", "hypervisor agent: identity checked"),
    ("C28", "hypervisor agent: processors run"),
    ("C29", "hypervisor agent: reported"),
    ("C30", "instance manager: COMMIT of the report"),
    ("D01", "API: COMMIT of the termination"),
    ("D03", "hypervisor agent: guest asked to power off"),
    ("D04", "hypervisor agent: process ended"),
    ("D05", "network agent: tap silenced"),
    ("D06", "network agent: flows"),
    ("D07", "network agent: port off the switch"),
    ("D08", "network agent: conntrack zone emptied"),
    ("D10", "network agent: tap removed"),
    ("D12", "hypervisor agent: files removed"),
    ("D13", "hypervisor agent: directory removed"),
    ("D14", "hypervisor agent: removal reported"),
    ("D15", "instance manager: COMMIT of the removal's report"),
    ("D16", "instance manager: capacity and address returned, tombstone"),
    ("D17", "instance manager: COMMIT of the tombstone"),
];

/// Steps of the fault matrix (its creating C01 to C30, its deleting D01 to D17) that have no place of their own here, and
/// why. Every step is in [`STEPS`] or in this list.
pub const WITHOUT: &[(&str, &str)] = &[
    ("C01", "nothing is done yet: as C03:before"),
    ("C02", "nothing is done yet: as C03:before"),
    ("C04", "no quota of an account is kept yet"),
    ("C06", "written with C05's rows, in one transaction until C09"),
    ("C07", "written with C08's rows, in one transaction until C09"),
    ("C10", "the answer is no state: C09:after is the moment before it"),
    ("C12", "publishing returns when it is confirmed: C11:after"),
    ("C18", "a disk is made in its size, in C17"),
    ("D02", "the answer is no state: D01:after is the moment before it"),
    (
        "D09",
        "DHCP and metadata are answered from the document: they end with C21's, and nothing is taken down",
    ),
    ("D11", "disks are files that nobody is given again; volumes that must be wiped do not exist yet"),
];

/// The places of the steps that `wanted` picks: `NAME:before` and `NAME:after` of each.
pub fn points(wanted: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let steps = STEPS.iter().filter(|(name, what)| wanted(name, what));
    steps.flat_map(|(name, _)| [format!("{name}:before"), format!("{name}:after")]).collect()
}

/// What the environment says, read once.
enum Armed {
    Not,
    At(String),
    AsFileSays(String),
}

fn armed() -> &'static Armed {
    static ARMED: OnceLock<Armed> = OnceLock::new();
    ARMED.get_or_init(|| match (std::env::var("GON_CRASH"), std::env::var("GON_CRASH_FILE")) {
        (Ok(name), _) => Armed::At(name),
        (_, Ok(path)) => Armed::AsFileSays(path),
        _ => Armed::Not,
    })
}

/// Ends the process if this is the place that was named.
pub fn point(name: &str) {
    debug_assert!(
        name.split_once(':').is_some_and(|(step, side)| {
            STEPS.iter().any(|(known, _)| *known == step) && matches!(side, "before" | "after")
        }),
        "{name} is not in the list"
    );
    let here = match armed() {
        Armed::Not => return,
        Armed::At(named) => named == name,
        Armed::AsFileSays(path) => std::fs::read_to_string(path).is_ok_and(|named| named.trim() == name),
    };
    if here {
        // No destructor, no flush: what is not on the disk is lost.
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn root() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    fn sources(folder: &Path, text: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                sources(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn every_step_of_the_matrix_has_a_place_or_a_reason() {
        let all = (1..=30).map(|n| format!("C{n:02}")).chain((1..=17).map(|n| format!("D{n:02}")));
        let mut listed: Vec<_> = STEPS.iter().chain(WITHOUT).map(|(name, _)| (*name).to_owned()).collect();
        listed.sort();
        assert_eq!(listed, all.collect::<Vec<_>>(), "each once");
    }

    #[test]
    fn every_place_is_in_the_code() {
        let mut text = String::new();
        for entry in std::fs::read_dir(root().join("crates")).unwrap().flatten() {
            if !entry.path().ends_with("gon-types") && entry.path().join("src").exists() {
                sources(&entry.path().join("src"), &mut text);
            }
        }
        let missing: Vec<_> =
            STEPS.iter().filter(|(name, _)| !text.contains(&format!("\"{name}:"))).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    /// The tables of the page on faults are these lists. Who adds a step is told what to write there.
    #[test]
    fn operators_read_the_same() {
        let page = std::fs::read_to_string(root().join("docs/ops/faults.md")).unwrap();
        let tests =
            |name: &str, what: &str| match (what.starts_with("hypervisor agent"), name.starts_with('C')) {
                (true, true) => "a_launch_survives_a_crash_at_every_point",
                (true, false) => "a_removal_survives_a_crash_at_every_point",
                (false, _) => "an_instance_survives_a_crash_at_every_step_of_its_life",
            };
        let wanted: Vec<_> = STEPS
            .iter()
            .map(|(name, what)| format!("| {name}: {what} | `{}` |", tests(name, what)))
            .chain(WITHOUT.iter().map(|(name, why)| format!("- {name}: {why}")))
            .collect();
        let is_step = |line: &&str| {
            let (begin, name) = (line.get(..2).unwrap_or_default(), line.get(2..5).unwrap_or_default());
            matches!(begin, "| " | "- ")
                && name.starts_with(['C', 'D'])
                && name[1..].parse::<u8>().is_ok()
                && line.get(5..7) == Some(": ")
        };
        let found: Vec<_> = page.lines().filter(is_step).collect();
        assert_eq!(found, wanted, "it should be\n{}", wanted.join("\n"));
    }
}
