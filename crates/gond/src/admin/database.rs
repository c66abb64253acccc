//! `gond admin migrate`, `gond admin create-admin`

use crate::config::Config;
use crate::{control, terminal};

/// Brings the schema to this version.
pub async fn migrate(config: &Config) -> anyhow::Result<()> {
    control::connect(config, 2).await?.migrate().await?;
    terminal::line("The schema is current.");
    Ok(())
}

/// Makes an administrator.
pub async fn create_admin(_config: &Config, _user: &str) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
