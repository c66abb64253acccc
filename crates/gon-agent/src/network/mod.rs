//! The network agent: makes the switch of this node be what its document says.

pub mod dhcp;
pub mod dns;
pub mod metadata;
pub mod services;
pub mod view;

#[cfg(test)]
#[path = "../../tests/it/samples.rs"]
pub(crate) mod samples;
