//! The support is tested, too: a fault that does not happen makes every test that relies on it worthless.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod documents;
mod proxy;
mod rabbitmq;
