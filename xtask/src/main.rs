//! Developer tasks: what a change must pass beyond `cargo test`.
//!
//! `cargo xtask arch` holds the crates against the import table of ARCHITECTURE.md; `cargo xtask openapi` writes the
//! contract of the REST API, `cargo xtask openapi --check` holds it against the routes.

mod arch;
mod openapi;

use anyhow::bail;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["arch"] => arch::check(),
        ["openapi"] => openapi::write(),
        ["openapi", "--check"] => openapi::check(),
        _ => bail!("usage: cargo xtask arch | openapi [--check]"),
    }
}
