//! The container agent: says which Docker this node has.
//!
//! It drives no container yet, and offers nothing that would need one. Assumes Docker's socket, which may appear and
//! vanish at any time; promises to look every [`facts::REPEAT`] and to say what it saw: on its own port, and to the
//! hypervisor agent, which puts it into the node's report.

use std::future::Future;
use std::path::PathBuf;

use gon_driver::docker::{self, DockerFacts};
use serde::Serialize;
use tokio::sync::watch;

use crate::facts::{self, ContainerFacts};

/// What the role is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Docker's socket.
    pub socket: PathBuf,
    /// Where the agents of this node leave what they found out.
    pub facts: PathBuf,
    /// How it is.
    pub status: watch::Sender<ContainerStatus>,
}

/// How the container agent is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ContainerStatus {
    /// Docker, if it answers.
    pub docker: Option<DockerFacts>,
    /// Why it does not.
    pub error: Option<String>,
    /// How often it was looked for.
    pub rounds: u64,
}

/// Runs the role until `stop`.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    tokio::select! {
        () = look(&config) => {}
        () = stop => {}
    }
    facts::untell(&config.facts, facts::CONTAINER);
    Ok(())
}

async fn look(config: &Config) {
    loop {
        let (docker, error) = match docker::facts(&config.socket).await {
            Ok(docker) => (Some(docker), None),
            Err(error) => (None, Some(crate::chain(&error))),
        };
        if let Err(error) =
            facts::tell(&config.facts, facts::CONTAINER, &ContainerFacts { docker: docker.clone() })
        {
            tracing::warn!(%error, "the node's facts cannot be written");
        }
        config.status.send_modify(|status| {
            if status.docker != docker {
                match &docker {
                    Some(d) => {
                        tracing::info!(version = d.version, api = d.api, cgroup = d.cgroup, "Docker answers")
                    }
                    None => tracing::warn!(error, "Docker does not answer any more"),
                }
            }
            (status.docker, status.error) = (docker, error);
            status.rounds += 1;
        });
        tokio::time::sleep(facts::REPEAT).await;
    }
}
