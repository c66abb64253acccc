//! Operator's verbs.

pub mod database;
pub mod down;
pub mod image;
