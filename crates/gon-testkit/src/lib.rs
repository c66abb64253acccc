//! Test support: a throw-away PostgreSQL, one cluster per test process, one migrated database per test.
//!
//! Assumes PostgreSQL's server binaries (Debian: `postgresql-15` or any other from 14 on). Promises that nothing is
//! left behind, however the test process ends: the cluster belongs to a watcher that stops it and removes its files
//! as soon as the test process is gone, `kill -9` included.

mod postgres;

pub use postgres::{TestDatabase, database};
