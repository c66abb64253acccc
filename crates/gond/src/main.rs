//! The daemon: every role in one multi-call binary.
fn main() {}
