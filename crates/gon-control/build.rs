//! The console is embedded from `console/dist`, which exists only after it has been built.

fn main() -> std::io::Result<()> {
    std::fs::create_dir_all("../../console/dist")?;
    println!("cargo:rerun-if-changed=../../console/dist");
    println!("cargo:rerun-if-changed=build.rs");
    Ok(())
}
