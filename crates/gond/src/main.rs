//! The daemon: every role in one multi-call binary.

mod admin;
mod agents;
mod allocator;
mod api;
mod cli;
mod config;
mod console;
mod control;
mod health;
mod layout;
mod link;
mod lock;
mod node;
mod notify;
mod probes;
mod roles;
mod service;
mod standalone;
mod supervise;
mod telemetry;
mod terminal;
#[cfg(test)]
mod testing;
mod tracer;
mod wiring;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    allocator::be_frugal();
    let cli = cli::Cli::parse();
    let runtime = match cli::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal::error(&format!("no runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(cli::run(cli));
    // Blocking work that still runs (a file being synced) is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => {
            let why = format!("{error:#}");
            // A service writes lines of one form to its last.
            if telemetry::has_started() {
                tracing::error!(error = why, "it cannot go on");
            } else {
                terminal::error(&why);
            }
            cli::exit_code(&error)
        }
    }
}
