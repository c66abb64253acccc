//! Every adapter of liveness passes the same suite; what etcd does when it breaks; and the fences that safety rests on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod clock;
mod conformance;
mod etcd;
mod faults;
mod fence;
mod holder;
mod memory;
mod pause;
mod tls;
