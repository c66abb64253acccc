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
