//! `gon nodes …`: what operators do with servers. Nodes go by name here, as people call them, or by id.

use anyhow::Context;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::session::{self, Api};
use crate::{operations, output};

/// What to do.
#[derive(Subcommand)]
pub enum Verb {
    /// List them.
    #[command(visible_alias = "ls")]
    List {
        /// Those in this state: ready, cordoned, draining, unknown, removed.
        #[arg(long)]
        state: Option<String>,
    },
    /// Show one.
    Show {
        /// Its name or id.
        node: String,
    },
    /// Keep new instances away.
    Cordon {
        /// Its name or id.
        node: String,
    },
    /// Let instances come again; ends a drain.
    Uncordon {
        /// Its name or id.
        node: String,
    },
    /// Empty it: what can move moves; what runs, or has its disk there, is named.
    Drain {
        /// Its name or id.
        node: String,
        /// Stop what runs: asked, not cut.
        #[arg(long)]
        stop_instances: bool,
        /// Wait until it is done; fails unless it was.
        #[arg(long)]
        wait: bool,
    },
    /// Remove it for good, with its certificates. It must have nothing.
    #[command(visible_alias = "rm")]
    Remove {
        /// Its name or id.
        node: String,
        /// Give up what is on it, if it is unknown: its instances end and their disks are lost.
        #[arg(long)]
        force: bool,
    },
}

/// Does it.
pub async fn run(api: &mut Api, verb: Verb, json: bool) -> anyhow::Result<()> {
    match verb {
        Verb::List { state } => {
            let filters: Vec<String> = state.iter().map(|state| format!("state={state}")).collect();
            let nodes = api.list(&session::list_path("nodes", &filters)?).await?;
            output::list("nodes", &nodes, json)
        }
        Verb::Show { node } => {
            let path = path(api, &node).await?;
            output::one(&api.get(&path).await?)
        }
        Verb::Cordon { node } => act(api, &node, "cordon", json!({}), json).await.map(drop),
        Verb::Uncordon { node } => act(api, &node, "uncordon", json!({}), json).await.map(drop),
        Verb::Drain { node, stop_instances, wait: until_done } => {
            let body = json!({ "stop_instances": stop_instances });
            let answer = act(api, &node, "drain", body, json).await?;
            match answer.get("operation_id").and_then(Value::as_str) {
                Some(operation) if until_done => operations::wait(api, operation, json).await,
                _ => Ok(()),
            }
        }
        Verb::Remove { node, force } => {
            let path = path(api, &node).await?;
            let answer = api.delete(&format!("{path}?force={force}")).await?;
            output::changed(&node, answer, json)
        }
    }
}

/// The path of a node: by its id, or by its name in the list of all.
async fn path(api: &mut Api, node: &str) -> anyhow::Result<String> {
    let is_id = |short: &str| short.len() == 17 && short.bytes().all(|b| b.is_ascii_hexdigit());
    if node.strip_prefix("node-").is_some_and(is_id) {
        return session::path_of(node);
    }
    let nodes = api.list(&session::list_path("nodes", &[])?).await?;
    let found = nodes.iter().find(|n| n.get("name").and_then(Value::as_str) == Some(node));
    let id = found.and_then(|n| n.get("id")).and_then(Value::as_str);
    session::path_of(id.with_context(|| format!("there is no node '{node}': see 'gon nodes list'"))?)
}

async fn act(api: &mut Api, node: &str, verb: &str, body: Value, json: bool) -> anyhow::Result<Value> {
    let path = format!("{}/{verb}", path(api, node).await?);
    let answer = api.post(&path, &body).await?;
    output::changed(node, answer.clone(), json)?;
    Ok(answer)
}
