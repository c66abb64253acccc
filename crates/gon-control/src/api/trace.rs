//! What becomes of a packet, for operators; and what the API server needs for that from whoever runs it: the compiler, which
//! the control plane does not have, and the way to the switches.

use std::net::Ipv4Addr;

use async_trait::async_trait;
use gon_core::authz::Action;
use gon_proto::NodeNetwork;
use gon_proto::trace::{Followed, SwitchAnswer, SwitchQuestion};
use gon_types::id::NetworkInterfaceId;

use super::route::{Routes, Spec, Verb};
use crate::service::trace as service;

/// Why a packet could not be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTrace {
    /// The words for the packet are wrong.
    #[error("{0}")]
    Packet(String),
    /// The interface is not in these documents, or closed.
    #[error("{0}")]
    Port(String),
}

/// Follows packets. The daemon brings one.
#[async_trait]
pub trait Tracer: Send + Sync + 'static {
    /// Follows the first packet of a connection that an interface begins through what these documents of nodes (each with its
    /// node's end of the tunnels) are compiled to. May take 100 ms of a processor.
    fn follow(
        &self,
        nodes: &[(NodeNetwork, Option<Ipv4Addr>)],
        port: NetworkInterfaceId,
        packet: &str,
    ) -> Result<Followed, NoTrace>;

    /// Asks the switch of the node of this name what would become of a packet; else says why it cannot.
    async fn ask(&self, node: &str, question: &SwitchQuestion) -> Result<SwitchAnswer, String>;
}

/// Routes of this page.
pub fn register(routes: &mut Routes) {
    routes.add(
        Action::TracePacket,
        Spec {
            operation: "tracePacket",
            method: Verb::Post,
            path: "/trace",
            status: 200,
            summary: "Follow a packet of an interface through the compiled network, stage by stage",
        },
        service::trace,
    );
}
