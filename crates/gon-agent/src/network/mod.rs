//! The network agent: follows.
