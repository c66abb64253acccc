//! Crash points: names of places where a test ends this process at once, as `kill -9` would.
//!
//! `GON_CRASH=C25:before` ends the first process that comes to that place. Without the variable a crash point is one
//! comparison. Numbers are those of the create (C) and delete (D) sequences that the tests enumerate: C15 document
//! stored, C16 image linked, C17 disk made, C19 files synced, C24 journal "starting", C25 process started, C26 journal
//! pid, C27 identity checked, C28 processors run, C29 reported; D03 guest asked, D04 process ended, D12 files removed,
//! D13 directory removed, D14 removal reported.

use std::sync::OnceLock;

/// Every crash point of this role.
pub const POINTS: [&str; 30] = [
    "C15:before",
    "C15:after",
    "C16:before",
    "C16:after",
    "C17:before",
    "C17:after",
    "C19:before",
    "C19:after",
    "C24:before",
    "C24:after",
    "C25:before",
    "C25:after",
    "C26:before",
    "C26:after",
    "C27:before",
    "C27:after",
    "C28:before",
    "C28:after",
    "C29:before",
    "C29:after",
    "D03:before",
    "D03:after",
    "D04:before",
    "D04:after",
    "D12:before",
    "D12:after",
    "D13:before",
    "D13:after",
    "D14:before",
    "D14:after",
];

/// Ends the process if this is the place that was named.
pub fn point(name: &str) {
    static ARMED: OnceLock<Option<String>> = OnceLock::new();
    debug_assert!(POINTS.contains(&name), "{name} is not in the list");
    if ARMED.get_or_init(|| std::env::var("GON_CRASH").ok()).as_deref() == Some(name) {
        // No destructor, no flush: what is not on the disk is lost.
        std::process::abort();
    }
}
