//! Follows packets for the API server: with the compiler that the agents have, and by asking the network agents of nodes over
//! mTLS what their switches say. In one process the switch of this machine is asked directly.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gon_agent::network::trace::{self, FollowError};
use gon_control::api::{NoTrace, Tracer};
use gon_driver::ovs;
use gon_proto::NodeNetwork;
use gon_proto::trace::{Followed, SwitchAnswer, SwitchQuestion};
use gon_store::Store;
use gon_tls::{Role, Tls};
use gon_types::id::NetworkInterfaceId;
use hyper::StatusCode;
use ipnet::Ipv4Net;

use crate::agents::{gateway, ovs_config};
use crate::config::Config;
use crate::console::{Asked, fetch};
use crate::layout::Layout;
use crate::probes::chain;

/// How long a node may take from the connection to the last byte.
const DEADLINE: Duration = Duration::from_secs(5);

/// Follows packets.
pub struct PacketTracer {
    gateway: Ipv4Net,
    switches: Switches,
}

/// The way to the switches.
enum Switches {
    /// There is this machine's.
    Here { name: Arc<str>, config: ovs::Config },
    /// Those of all nodes, whose network agents listen on `port`.
    Site { store: Store, tls: Tls, port: u16 },
    /// None.
    Nowhere,
}

impl PacketTracer {
    /// For the node of this process.
    #[must_use]
    pub fn here(config: &Config, layout: &Layout, name: &Arc<str>) -> Self {
        let switches = Switches::Here { name: Arc::clone(name), config: ovs_config(config, layout) };
        Self { gateway: gateway(config.network.public_pool), switches }
    }

    /// For the nodes of `store`.
    #[must_use]
    pub fn of_site(config: &Config, store: &Store, tls: Option<&Tls>) -> Self {
        let switches = match tls {
            Some(tls) => Switches::Site {
                store: store.clone(),
                tls: tls.clone(),
                port: config.roles.network_agent.port(),
            },
            None => Switches::Nowhere,
        };
        Self { gateway: gateway(config.network.public_pool), switches }
    }
}

#[async_trait]
impl Tracer for PacketTracer {
    fn follow(
        &self,
        nodes: &[(NodeNetwork, Option<Ipv4Addr>)],
        port: NetworkInterfaceId,
        packet: &str,
    ) -> Result<Followed, NoTrace> {
        trace::follow(nodes, Some(self.gateway), port, packet).map_err(|error| match error {
            FollowError::Question(why) => NoTrace::Packet(why.to_string()),
            FollowError::Explain(why) => NoTrace::Port(why.to_string()),
        })
    }

    async fn ask(&self, node: &str, question: &SwitchQuestion) -> Result<SwitchAnswer, String> {
        let answer = async {
            match &self.switches {
                Switches::Here { name, config } if **name == *node => {
                    trace::ask(config, question).await.map_err(|error| chain(&error))
                }
                Switches::Here { .. } => Err(format!("node {node} is not this one")),
                Switches::Site { store, tls, port } => ask_node(store, tls, *port, node, question).await,
                Switches::Nowhere => Err("this API server has no certificate to show to nodes".to_owned()),
            }
        };
        let answer = tokio::time::timeout(DEADLINE, answer).await;
        answer.unwrap_or_else(|_| Err(format!("node {node} did not answer within {DEADLINE:?}")))
    }
}

async fn ask_node(
    store: &Store,
    tls: &Tls,
    port: u16,
    node: &str,
    question: &SwitchQuestion,
) -> Result<SwitchAnswer, String> {
    let address = gon_store::nodes::address_by_name(store, node)
        .await
        .map_err(|error| chain(&error))?
        .ok_or_else(|| format!("node {node} has not said where it is"))?;
    let body = Some(serde_json::to_vec(question).map_err(|error| error.to_string())?);
    let place = SocketAddr::new(address, port);
    let asked = Asked { role: Role::NetworkAgent, place, node, path: trace::PATH, body };
    let (status, body) = fetch(tls, asked).await.map_err(|why| format!("node {node}: {why}"))?;
    if status != StatusCode::OK {
        let said: String = String::from_utf8_lossy(&body).chars().take(200).collect();
        return Err(format!("node {node} answered {status}: {}", said.trim()));
    }
    serde_json::from_slice(&body).map_err(|error| format!("node {node} speaks another version: {error}"))
}
