//! Roles of the control plane: api-server, network-controller, instance-manager.

pub mod api;
pub mod compute;
pub mod documents;
pub mod join;
pub mod lead;
pub mod network;
pub mod peers;
pub mod reconcile;
pub mod relay;
pub mod service;
pub mod status;
