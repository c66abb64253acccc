//! The API server, put together once for standalone and for a process of its own.

use std::sync::Arc;

use anyhow::Context;
use gon_control::api::{self, ApiConfig, AppState, ConsoleSource, Tokens, Tracer};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::control::{self, Shared};
use crate::layout::Layout;
use crate::node::write_private;
use crate::service;
use crate::supervise::supervise;
use crate::terminal;

/// Makes the first administrator if there is none: as configured, or with a generated password that is written to
/// `admin.json` and shown once.
pub async fn ensure_admin(shared: &Shared, config: &Config, layout: &Layout) -> anyhow::Result<()> {
    let generated = config.admin.password.is_none();
    let password = match &config.admin.password {
        Some(password) => password.expose_secret().to_owned(),
        None => generate_password()?,
    };
    let user = config.admin.user.clone();
    let made = gon_control::service::ensure_admin(&shared.store, &user, &password)
        .await
        .context("the first administrator")?;
    if made && generated {
        let file = layout.admin_file();
        write_private(
            &file,
            &serde_json::to_vec_pretty(&json!({ "username": user, "password": password }))?,
        )?;
        terminal::line(&format!(
            "The administrator is '{user}' with password '{password}' (shown once; also in {}).",
            file.display()
        ));
    }
    Ok(())
}

/// 24 characters of 32, from the kernel: 120 bits.
pub fn generate_password() -> anyhow::Result<String> {
    use std::io::Read as _;
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0u8; 24];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes).context("no random numbers")?;
    Ok(bytes.iter().map(|b| char::from(LETTERS[usize::from(b % 32)])).collect())
}

/// What the API server has at hand.
pub async fn state(
    config: &Config,
    layout: &Layout,
    shared: &Shared,
    console: Arc<dyn ConsoleSource>,
    tracer: Arc<dyn Tracer>,
) -> anyhow::Result<AppState> {
    let store = control::connect(config, config.database.connections).await?;
    let tokens = Tokens::load_or_create(&layout.token_key()).context("the key of access tokens")?;
    let zone = config.node.availability_zone.clone();
    let region = zone.trim_end_matches(|c: char| c.is_ascii_lowercase()).to_owned();
    let max_in_flight = config.limits.requests as usize;
    Ok(AppState::new(
        store,
        shared.nudge.clone(),
        tokens,
        console,
        ApiConfig { region, default_zone: zone, max_in_flight, ..ApiConfig::default() },
        Arc::clone(&shared.registry),
    )
    .trace_with(tracer))
}

/// Starts the API server's tasks in standalone. Listens when this returns, so that whoever waits for us may call.
pub async fn start(
    config: &Config,
    layout: &Layout,
    shared: &Shared,
    console: Arc<dyn ConsoleSource>,
    tracer: Arc<dyn Tracer>,
    roles: &mut Vec<JoinHandle<()>>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let app = state(config, layout, shared, console, tracer).await?;
    roles.push(supervise("events", stop.clone(), {
        let (app, bus) = (app.clone(), Arc::clone(&shared.bus));
        move |stop| api::watch_events(app.clone(), Arc::clone(&bus), stop)
    }));
    // The first listener is made here, so that an address in use ends the start; the next ones by the role.
    let address = config.listen;
    let listener = listen(address).await?;
    let first = Arc::new(std::sync::Mutex::new(Some(listener)));
    roles.push(supervise("api-server", stop.clone(), {
        let (router, limits) = (api::router(app), service::limits(config));
        move |stop| {
            let (router, first) = (router.clone(), Arc::clone(&first));
            async move {
                let kept = first.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                let listener = match kept {
                    Some(listener) => listener,
                    None => listen(address).await?,
                };
                gon_tls::serve(listener, None, router, limits, stop).await?;
                Ok(())
            }
        }
    }));
    tracing::info!(%address, "API and console");
    Ok(())
}

async fn listen(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_passwords_are_long_and_differ() {
        let (a, b) = (generate_password().unwrap(), generate_password().unwrap());
        assert_eq!(a.len(), 24);
        assert_ne!(a, b);
    }
}
