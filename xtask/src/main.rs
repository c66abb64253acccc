//! Developer tasks: what a change must pass beyond `cargo test`.
//!
//! `cargo xtask arch` holds the crates against the import table of ARCHITECTURE.md.

mod arch;

use anyhow::bail;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["arch"] => arch::check(),
        _ => bail!("usage: cargo xtask arch"),
    }
}
