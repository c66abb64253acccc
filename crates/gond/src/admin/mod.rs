//! Operator's verbs.

pub mod database;
pub mod down;
pub mod doctor;
pub mod image;
pub mod init;
pub mod join;
pub mod steps;
pub mod uplink;
