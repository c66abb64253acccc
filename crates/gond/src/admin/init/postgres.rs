//! The site's database in the server's PostgreSQL: a role without a password and a database of its own, reached over the
//! unix socket by the accounts of our services only (peer authentication with a map). There is no password that could
//! leak, and nothing listens that did not before.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use gon_driver::run::{Cmd, RunAs, run};

use super::files;
use crate::admin::steps::Done;

/// Name of role, database and map.
const NAME: &str = "gon";
/// Accounts that may be that role: those of the services, and root for `gond admin`.
const ACCOUNTS: [&str; 4] = ["gon-api", "gon-network", "gon-compute", "root"];

/// A running cluster, as `pg_lsclusters` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    version: u32,
    name: String,
    port: u16,
}

impl Cluster {
    fn config(&self) -> PathBuf {
        Path::new("/etc/postgresql").join(self.version.to_string()).join(&self.name)
    }
    /// The URL of our database.
    #[must_use]
    pub fn url(&self) -> String {
        // Without an authority: a URL with a user has to have a host there, too.
        format!("postgres:///{NAME}?host=/run/postgresql&port={}&user={NAME}", self.port)
    }
}

/// Finds the cluster to use: the newest that runs and is new enough.
pub async fn find() -> anyhow::Result<Cluster> {
    let listed = run(Cmd::new("pg_lsclusters").arg("--no-header")).await.context("PostgreSQL's clusters")?;
    match newest(&listed.text()) {
        Some(cluster) => Ok(cluster),
        None => bail!(
            "no PostgreSQL 14 or newer runs here (pg_lsclusters); 'pg_createcluster 15 main --start' makes one, of your \
             version"
        ),
    }
}

/// `15  main    5432 online postgres /var/lib/postgresql/15/main /var/log/postgresql/postgresql-15-main.log`
fn newest(listed: &str) -> Option<Cluster> {
    let read = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (version, name) = (fields.next()?.parse().ok()?, fields.next()?.to_owned());
        let (port, state) = (fields.next()?.parse().ok()?, fields.next()?);
        (version >= 14 && state == "online").then_some(Cluster { version, name, port })
    };
    listed.lines().filter_map(read).max_by_key(|c| c.version)
}

async fn psql(cluster: &Cluster, sql: &str) -> anyhow::Result<String> {
    let cmd = Cmd::new("psql")
        .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"])
        .args(["--host=/run/postgresql", "--dbname=postgres"])
        .arg(format!("--port={}", cluster.port))
        .stdin(sql)
        .cwd("/")
        .run_as(RunAs::named("postgres").context("the user 'postgres'")?)
        .deadline(Duration::from_secs(60));
    Ok(run(cmd).await?.text().trim().to_owned())
}

/// Makes role, database and the way in.
pub async fn set_up(cluster: &Cluster) -> anyhow::Result<Done> {
    let mut changed = false;
    // Names are constants of ours.
    if psql(cluster, "select 1 from pg_roles where rolname = 'gon'").await?.is_empty() {
        psql(cluster, "create role gon login nosuperuser nocreatedb nocreaterole").await?;
        changed = true;
    }
    if psql(cluster, "select 1 from pg_database where datname = 'gon'").await?.is_empty() {
        psql(
            cluster,
            "create database gon owner gon encoding 'UTF8' lc_collate 'C.UTF-8' lc_ctype 'C.UTF-8' template template0",
        )
        .await?;
        psql(cluster, "revoke all on database gon from public").await?;
        changed = true;
    }
    let (access, map) = (cluster.config().join("pg_hba.conf"), cluster.config().join("pg_ident.conf"));
    let accounts: String = ACCOUNTS.iter().map(|a| format!("{NAME} {a} {NAME}\n")).collect();
    changed |= files::put_block(&map, Some(&accounts))?;
    changed |= files::put_block(&access, Some(&format!("local {NAME} {NAME} peer map={NAME}")))?;
    psql(cluster, "select pg_reload_conf()").await?;
    // As whom our services come, so that a mistake shows here and not in their logs.
    let came = run(Cmd::new("psql")
        .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--command=select 1"])
        .args(["--host=/run/postgresql", "--username=gon", "--dbname=gon"])
        .arg(format!("--port={}", cluster.port)))
    .await;
    came.context("the database does not let us in")?;
    Ok(if changed { Done::Now } else { Done::Already })
}

/// Takes the way in away, and, if asked, the database.
pub async fn remove(cluster: &Cluster, data: bool) -> anyhow::Result<()> {
    for name in ["pg_hba.conf", "pg_ident.conf"] {
        files::put_block(&cluster.config().join(name), None)?;
    }
    if data {
        psql(cluster, "drop database if exists gon with (force)").await?;
        psql(cluster, "drop role if exists gon").await?;
    }
    psql(cluster, "select pg_reload_conf()").await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_url_is_one_for_those_who_read_it() {
        let nobody = Cluster { version: 15, name: "main".to_owned(), port: 1 };
        let refused = |url: String| async move {
            let error = gon_store::Store::connect(&url, 1).await.err().unwrap();
            format!("{:#}", anyhow::Error::from(error))
        };
        assert!(!refused(nobody.url()).await.contains("configuration"), "nobody listens, that is all");
        // As it was: read by psql, and by nobody else.
        let error = refused("postgres://gon@/gon?host=/run/postgresql&port=1".to_owned()).await;
        assert!(error.contains("configuration"), "{error}");
    }

    #[test]
    fn the_newest_running_cluster_is_used() {
        let listed = "14  main    5432 online postgres /var/lib/postgresql/14/main /x.log\n\
                      15  main    5433 online postgres /var/lib/postgresql/15/main /x.log\n\
                      16  main    5434 down   postgres /var/lib/postgresql/16/main /x.log\n\
                      13  old     5435 online postgres /var/lib/postgresql/13/old /x.log\n";
        let cluster = newest(listed).unwrap();
        assert_eq!(cluster.url(), "postgres:///gon?host=/run/postgresql&port=5433&user=gon");
        assert_eq!(cluster.config(), Path::new("/etc/postgresql/15/main"));
        assert_eq!(newest("13 main 5432 online postgres /x /y\n"), None);
        assert_eq!(newest("Error: no clusters\n"), None);
    }
}
