//! tap: follows.
