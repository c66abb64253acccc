//! `gon operations …`: what was answered before it was done.

use std::time::Duration;

use anyhow::bail;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::output;
use crate::session::{self, Api};

/// How often a running operation is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What to do.
#[derive(Subcommand)]
pub enum Verb {
    /// List them, newest first.
    #[command(visible_alias = "ls")]
    List {
        /// Those in this state: pending, running, succeeded, failed, cancelled.
        #[arg(long)]
        state: Option<String>,
        /// Those about this instance or node.
        #[arg(long)]
        resource: Option<String>,
    },
    /// Show one: how far it has come, how often it was tried, and until when it may take.
    Show {
        /// Its id: `op-…`.
        id: String,
    },
    /// Wait until one has ended; fails unless it succeeded.
    Wait {
        /// Its id: `op-…`.
        id: String,
    },
    /// Call one off that the platform works on: a drain. Its node stays cordoned.
    Cancel {
        /// Its id: `op-…`.
        id: String,
    },
}

/// Does it.
pub async fn run(api: &mut Api, verb: Verb, json: bool) -> anyhow::Result<()> {
    match verb {
        Verb::List { state, resource } => {
            let state = state.map(|state| format!("state={state}"));
            let resource = resource.map(|id| format!("resource_id={id}"));
            let filters: Vec<String> = state.into_iter().chain(resource).collect();
            let all = api.list(&session::list_path("operations", &filters)?).await?;
            output::list("operations", &all, json)
        }
        Verb::Show { id } => output::one(&api.get(&path_of(&id)?).await?),
        Verb::Wait { id } => wait(api, &id, json).await,
        Verb::Cancel { id } => {
            let answer = api.post(&format!("{}/cancel", path_of(&id)?), &json!({})).await?;
            output::changed(&id, answer, json)
        }
    }
}

fn path_of(id: &str) -> anyhow::Result<String> {
    if !id.starts_with("op-") {
        bail!("'{id}' is not the id of an operation: expected something like op-0123456789abcdef0");
    }
    session::path_of(id)
}

/// Waits until an operation has ended, and says how.
pub async fn wait(api: &mut Api, id: &str, json: bool) -> anyhow::Result<()> {
    let path = path_of(id)?;
    loop {
        let operation = api.get(&path).await?;
        let text = |key: &str| operation.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        match text("state").as_str() {
            "pending" | "running" => tokio::time::sleep(LOOK).await,
            "succeeded" => return output::changed(id, operation, json),
            "cancelled" => bail!("the operation {id} was cancelled: {}", text("error")),
            state => bail!("the operation {id} has {state}: {}", text("error")),
        }
    }
}
