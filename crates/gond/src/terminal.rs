//! What commands say to the person who typed them. Logs go elsewhere.

use std::io::Write as _;

/// A line of the answer, to standard output. A reader that is gone is no failure of ours.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Why a command failed, to standard error.
pub fn error(text: &str) {
    let _ = writeln!(std::io::stderr(), "gond: {text}");
}
