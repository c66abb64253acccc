//! Developer tasks: architecture check, OpenAPI, benchmarks.
fn main() {}
