//! How much a test does: in `make test` enough to see the fault and to leave time for the others, in `make test-long` the
//! whole figure of the fault matrix (`docs/ops/faults.md`).
//!
//! Which tests have more to do there stands in `scripts/long-tests`; a test of this crate compares.

use std::io::Write as _;
use std::sync::OnceLock;

/// Whether this is the long run: `GON_TEST_LONG=1`.
#[must_use]
pub fn long() -> bool {
    static LONG: OnceLock<bool> = OnceLock::new();
    *LONG.get_or_init(|| std::env::var_os("GON_TEST_LONG").is_some_and(|value| value == "1"))
}

/// How much to do in this run.
#[must_use]
pub fn measure<T>(ordinary: T, full: T) -> T {
    if long() { full } else { ordinary }
}

/// Says what the test of a row has done and seen. In the long run it also stands in the file that `GON_TEST_FIGURES`
/// names, which `make test-long` prints at its end.
#[expect(clippy::print_stdout, reason = "test support: the harness shows it when it is asked to")]
pub fn did(row: &str, what: &str) {
    println!("{row}: {what}");
    if let Some(path) = std::env::var_os("GON_TEST_FIGURES")
        && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(path)
    {
        let _ = writeln!(file, "{row}: {what}");
    }
}
