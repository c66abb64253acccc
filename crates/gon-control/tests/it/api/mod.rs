//! The REST API against a real PostgreSQL.

mod harness;
mod vertical;

pub use harness::{Answer, Api, User};
