//! Test support: throw-away servers, and a network that can be broken.
//!
//! - PostgreSQL, one cluster per test process, one migrated database per test; or a server of a test's own, to be killed;
//! - [`rabbitmq`], one broker per test process, one virtual host per test;
//! - [`etcd`], members that a test can break one by one;
//! - [`proxy`], which stands between two services and does what bad networks do;
//! - [`measure`], which says how much of it a test does.
//!
//! Assumes the servers' binaries (Debian: `postgresql-15` or any other from 14 on, `rabbitmq-server`, `etcd-server`). Promises that
//! nothing is left behind, however the test process ends: a server belongs to a watcher that stops it and removes its
//! files as soon as the test process is gone, `kill -9` included.

pub mod etcd;
mod measure;
pub mod ports;
mod postgres;
pub mod proxy;
pub mod rabbitmq;
mod server;

pub use measure::{did, long, measure};
pub use postgres::{TestDatabase, database, durable};
pub use server::{PostgresServer, postgres_server};
