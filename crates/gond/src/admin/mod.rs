//! Operator's verbs.

pub mod config;
pub mod database;
pub mod doctor;
pub mod down;
pub mod image;
pub mod init;
pub mod join;
pub mod steps;
pub mod trace;
pub mod uplink;
