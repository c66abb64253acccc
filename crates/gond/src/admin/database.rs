//! `gond admin migrate`, `gond admin restored`, `gond admin create-admin`

use anyhow::Context;
use gon_driver::postgres::Postgres;
use gon_store::Store;
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::Config;
use crate::layout::Layout;
use crate::{api, control, terminal};

/// The configured database, or the private one if it runs.
async fn open(config: &Config) -> anyhow::Result<Store> {
    let mut config = config.clone();
    if config.database.url.is_none() {
        let server = Postgres::find(&Layout::new(&config.data_dir).postgres())
            .context("there is no database.url, and no private PostgreSQL runs in the data directory")?;
        config.database.url = Some(SecretString::from(server.url()));
    }
    control::connect(&config, 2).await
}

/// Brings the schema to this version.
pub async fn migrate(config: &Config) -> anyhow::Result<()> {
    open(config).await?.migrate().await.context("migrating the database")?;
    terminal::line("The schema is current.");
    Ok(())
}

/// Puts the database, which was just restored from a backup, ahead of everything that was seen of the one it replaces.
pub async fn restored(config: &Config) -> anyhow::Result<()> {
    let store = open(config).await?;
    // The backup may be of an earlier version.
    store.migrate().await.context("migrating the database")?;
    let done = gon_store::restoration::record(&store).await.context("the database")?;
    terminal::line(&format!(
        "The database is ahead of all that was seen of the lost one: {} roles, {} instances, {} VPCs, {} nodes.",
        done.roles, done.instances, done.vpcs, done.nodes
    ));
    terminal::line(
        "For a week, instances that it has forgotten are left alone where they run, and counted in",
    );
    terminal::line("gon_instances_forgotten. See docs/ops/backup-what-matters.md for what to look after.");
    Ok(())
}

/// Makes an administrator.
pub async fn create_admin(config: &Config, user: &str) -> anyhow::Result<()> {
    let store = open(config).await?;
    let (password, generated) = match &config.admin.password {
        Some(password) => (password.expose_secret().to_owned(), false),
        None => (api::generate_password()?, true),
    };
    let made =
        gon_control::service::ensure_admin(&store, user, &password).await.context("the administrator")?;
    match (made, generated) {
        (false, _) => terminal::line(&format!("There already is a user '{user}'; nothing was changed.")),
        (true, true) => terminal::line(&format!("Made '{user}' with password '{password}' (shown once).")),
        (true, false) => terminal::line(&format!("Made '{user}'.")),
    }
    Ok(())
}
