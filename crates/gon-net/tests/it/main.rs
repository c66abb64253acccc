//! The compiled flows of whole sites, interpreted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod closed;
#[path = "../../fixtures/interpreted.rs"]
mod interpreted;
#[path = "../../fixtures/model.rs"]
mod model;
#[path = "../../fixtures/random.rs"]
mod random;
mod sites;
#[path = "../../fixtures/spoiled.rs"]
mod spoiled;
#[path = "../../fixtures/topology.rs"]
mod topology;
