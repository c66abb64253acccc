//! End-to-end tests on real PostgreSQL, Open vSwitch and QEMU: what they need to build a cloud, look into it from all
//! sides, and prove that nothing of it is left.
//!
//! A [`World`] is one network namespace in which the real `gond standalone` runs, with a data directory of its own
//! below `/tmp`. Everything is asserted on what the parts do (packets, processes, devices), not on what the API says
//! about them. Assumes root and the packages of `scripts/setup.sh test`. Promises that a world leaves nothing, however
//! the test process ends: a watcher outside it takes it down.

pub mod api;
pub mod binaries;
pub mod capture;
pub mod cluster;
pub mod host;
pub mod leftovers;
pub mod namespace;
pub mod probe;
pub mod process;
pub mod shell;
pub mod story;
pub mod topology;
pub mod wait;
pub mod world;

pub use api::Api;
pub use capture::Capture;
pub use cluster::Cluster;
pub use host::Host;
pub use namespace::Namespace;
pub use shell::Shell;
pub use story::tell;
pub use topology::{Cloud, Instance, Network};
pub use world::World;

/// Prints a line of a test's story; `cargo test` shows it when the test fails.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => { eprintln!("[{:>8.3}] {}", $crate::wait::since_start().as_secs_f64(), format_args!($($arg)*)) };
}
