//! postgres: follows.
