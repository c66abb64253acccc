//! Making and removing whole databases: for the first start of a cluster, and for tests.

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::{Result, Store, StoreError, commit};

/// Creates a database, as a copy of `template` if given. `admin_url` names another database of the same cluster.
/// Names are `[a-z0-9_]+`; anything else is refused before it reaches PostgreSQL.
pub async fn create_database(admin_url: &str, name: &str, template: Option<&str>) -> Result<()> {
    let name = identifier(name)?;
    let statement = match template {
        Some(template) => format!("create database {name} template {}", identifier(template)?),
        None => format!("create database {name}"),
    };
    run(admin_url, statement).await
}

/// Removes a database, also when somebody is connected to it. No error when there is none.
pub async fn drop_database(admin_url: &str, name: &str) -> Result<()> {
    run(admin_url, format!("drop database if exists {} with (force)", identifier(name)?)).await
}

/// Whether the cluster has a database of that name.
pub async fn database_exists(admin_url: &str, name: &str) -> Result<bool> {
    let mut conn = connect(admin_url).await?;
    let found = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(name)
        .fetch_one(&mut conn)
        .await?;
    conn.close().await?;
    Ok(found)
}

async fn connect(url: &str) -> Result<sqlx::PgConnection> {
    Ok(url.parse::<PgConnectOptions>()?.connect().await?)
}

async fn run(url: &str, statement: String) -> Result<()> {
    let mut conn = connect(url).await?;
    sqlx::query(AssertSqlSafe(statement)).execute(&mut conn).await?;
    conn.close().await?;
    Ok(())
}

fn identifier(name: &str) -> Result<&str> {
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        Ok(name)
    } else {
        Err(StoreError::Name(name.to_owned()))
    }
}

/// Runs a script of statements, all or none: for fixtures of tests and for repairs.
pub async fn script(store: &Store, statements: &'static str) -> Result<()> {
    let mut tx = store.begin().await?;
    sqlx::raw_sql(statements).execute(&mut *tx).await?;
    commit(tx).await
}

/// Runs a script of statements in a transaction that goes on: for tests of what others do meanwhile.
pub async fn script_in(tx: &mut crate::Conn, statements: &'static str) -> Result<()> {
    sqlx::raw_sql(statements).execute(tx).await?;
    Ok(())
}

/// Keeps everybody else from a table until the transaction ends: for tests of what they do then.
pub async fn lock_table(tx: &mut crate::Conn, table: &str) -> Result<()> {
    let statement = format!("lock table {} in access exclusive mode", identifier(table)?);
    sqlx::query(AssertSqlSafe(statement)).execute(tx).await?;
    Ok(())
}

/// The rows of a query that has one column of type `jsonb`: for assertions of tests and for repairs.
pub async fn json(store: &Store, query: &'static str) -> Result<Vec<serde_json::Value>> {
    Ok(sqlx::query_scalar(query).fetch_all(store.pool()).await?)
}

/// One number: for tests.
pub async fn number(store: &Store, query: &'static str) -> Result<i64> {
    Ok(sqlx::query_scalar(query).fetch_one(store.pool()).await?)
}
