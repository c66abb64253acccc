//! The client: signs in, shows and changes resources, and walks a newcomer to a first instance.
//!
//! Assumes only the REST API (`gon-api`). Promises that whatever it does is a call anybody can make: `--verbose` prints
//! each one.

mod network;
mod nodes;
mod operations;
mod output;
mod quickstart;
mod session;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Talks to a Gon cloud.
#[derive(Parser)]
#[command(name = "gon", version, about, propagate_version = true)]
struct Arguments {
    /// Where the API is.
    #[arg(long, env = "GON_URL", global = true)]
    url: Option<String>,
    /// Print every call to standard error.
    #[arg(long, short, global = true)]
    verbose: bool,
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sign in; the session is kept in the user's configuration directory.
    Login {
        /// Whom to sign in.
        username: String,
        /// Otherwise asked for on the terminal.
        #[arg(long, env = "GON_PASSWORD", hide_env_values = true)]
        password: Option<String>,
        /// The certificate (PEM) of the authority that an https address is believed by; kept with the session. On a
        /// server of the site its own is the default.
        #[arg(long, env = "GON_CA")]
        ca: Option<std::path::PathBuf>,
    },
    /// Forget the session, here and on the server.
    Logout,
    /// List resources: instances, vpcs, subnets, security-groups, route-tables, internet-gateways, network-interfaces,
    /// prefix-lists, addresses, key-pairs, images, instance-types, nodes, operations.
    List {
        /// Which kind.
        resource: String,
        /// Filters, as the API takes them: `state=running`, `vpc_id=vpc-…`.
        filters: Vec<String>,
    },
    /// Show one resource.
    Get {
        /// Its id; the prefix says what it is.
        id: String,
    },
    /// Delete one resource.
    Delete {
        /// Its id.
        id: String,
    },
    /// Start a stopped instance.
    Start {
        /// Its id.
        id: String,
    },
    /// Stop an instance.
    Stop {
        /// Its id.
        id: String,
        /// Do not ask the guest first.
        #[arg(long)]
        force: bool,
    },
    /// Reboot an instance.
    Reboot {
        /// Its id.
        id: String,
    },
    /// Terminate an instance.
    Terminate {
        /// Its id.
        id: String,
    },
    /// Print what an instance's serial console has said.
    Console {
        /// Its id.
        id: String,
    },
    /// Change networks: blocks, routes, route tables, network interfaces, prefix lists.
    #[command(visible_alias = "net")]
    Network {
        /// Answer when it is in force on every node, or after a minute.
        #[arg(long, global = true)]
        wait: bool,
        #[command(subcommand)]
        verb: network::Verb,
    },
    /// Servers that run instances: list them, keep instances away, empty, remove. For administrators.
    #[command(visible_alias = "node")]
    Nodes {
        #[command(subcommand)]
        verb: nodes::Verb,
    },
    /// Show what becomes of a packet that an interface sends: stage by stage, on every node it comes through, with the rule,
    /// entry or route that decides. For administrators.
    Trace(trace::Asked),
    /// What was answered before it was done: list it, show it, wait for its end, call it off.
    #[command(visible_alias = "operation")]
    Operations {
        #[command(subcommand)]
        verb: operations::Verb,
    },
    /// Make a VPC with a public subnet, a key pair and an instance, and wait until it answers SSH. Idempotent.
    Quickstart {
        /// The data directory of `gond standalone`, for the administrator's password and the SSH key.
        #[arg(long, env = "GON_DATA_DIR", default_value = ".gon")]
        data_dir: PathBuf,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { url, verbose, json, command } = arguments;
    match command {
        Command::Login { username, password, ca } => {
            session::login(url, ca, &username, password, verbose).await
        }
        Command::Quickstart { data_dir } => {
            quickstart::run(url.as_deref().unwrap_or(session::DEFAULT_URL), &data_dir, verbose).await
        }
        command => {
            let mut api = session::Api::resume(url, verbose)?;
            match command {
                Command::Logout => api.logout().await?,
                Command::List { resource, filters } => {
                    let path = session::list_path(&resource, &filters)?;
                    output::list(&resource, &api.list(&path).await?, json)?;
                }
                Command::Get { id } => output::one(&api.get(&session::path_of(&id)?).await?)?,
                Command::Delete { id } => {
                    output::changed(&id, api.delete(&session::path_of(&id)?).await?, json)?
                }
                Command::Start { id } => act(&mut api, &id, "start", serde_json::json!({}), json).await?,
                Command::Stop { id, force } => {
                    act(&mut api, &id, "stop", serde_json::json!({ "force": force }), json).await?;
                }
                Command::Reboot { id } => act(&mut api, &id, "reboot", serde_json::json!({}), json).await?,
                Command::Terminate { id } => {
                    let path = session::path_of_instance(&id)?;
                    output::changed(&id, api.delete(&path).await?, json)?;
                }
                Command::Console { id } => {
                    let path = format!("{}/console-output", session::path_of_instance(&id)?);
                    output::console(&api.get(&path).await?)?;
                }
                Command::Network { wait, verb } => network::run(&mut api, verb, wait, json).await?,
                Command::Nodes { verb } => nodes::run(&mut api, verb, json).await?,
                Command::Trace(asked) => trace::run(&mut api, &asked, json).await?,
                Command::Operations { verb } => operations::run(&mut api, verb, json).await?,
                Command::Login { .. } | Command::Quickstart { .. } => {}
            }
            Ok(())
        }
    }
}

async fn act(
    api: &mut session::Api,
    id: &str,
    verb: &str,
    body: serde_json::Value,
    json: bool,
) -> anyhow::Result<()> {
    let path = format!("{}/{verb}", session::path_of_instance(id)?);
    output::changed(id, api.post(&path, &body).await?, json)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn a_trace_takes_an_interface_and_a_packet() {
        let parse = |words: &[&str]| Arguments::try_parse_from([&["gon", "trace"][..], words].concat());
        let packet = "tcp,10.0.1.5:40000>10.0.2.7:22";
        let Command::Trace(asked) = parse(&["eni-1", packet, "--live"]).unwrap().command else {
            panic!("another command")
        };
        assert_eq!((asked.port.as_str(), asked.packet.as_str()), ("eni-1", packet));
        assert_eq!((asked.live, asked.flows), (true, false));
        assert!(parse(&["eni-1"]).is_err());
        Arguments::command().debug_assert();
    }
}
