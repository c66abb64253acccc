//! `gond admin migrate`, `gond admin create-admin`

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
