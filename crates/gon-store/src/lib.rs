//! The door to PostgreSQL: rows in, rows out. The only crate that names sqlx.
//!
//! Assumes a database whose migrations have been applied ([`Store::migrate`]). Promises that every mutation is one
//! transaction, that a refused constraint comes back by its name (names are part of the interface: the service maps
//! them to EC2's codes), and that nothing here decides anything.

pub mod accounts;
pub mod addresses;
pub mod admin;
pub mod certificates;
pub mod compute_document;
pub mod events;
pub mod idempotency;
pub mod images;
pub mod instances;
pub mod internet_gateways;
pub mod join_tokens;
pub mod journal;
pub mod key_pairs;
pub mod leader;
pub mod network_acls;
pub mod network_document;
pub mod network_interfaces;
pub mod node_views;
pub mod nodes;
pub mod operations;
pub mod placement;
mod pool;
pub mod prefix_lists;
pub mod prune;
pub mod recovery;
pub mod reference;
pub mod relay;
pub mod reports;
pub mod restoration;
pub mod route_tables;
pub mod security_groups;
pub mod sessions;
pub mod subnets;
pub mod trace;
pub mod users;
pub mod v4;
pub mod vpcs;

use std::sync::Arc;
use std::time::Duration;

pub use pool::{Change, OneStatement, Reader, Tx, aside, patience_anew, patiently};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

/// A pool of connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pool: sqlx::PgPool,
    /// Places of changes: fewer than there are connections.
    changes: Arc<tokio::sync::Semaphore>,
    /// How long who wants a connection waits for one.
    patience: Duration,
}

/// The connection that queries run on: a pool's or a transaction's.
pub type Conn = sqlx::PgConnection;

/// Why PostgreSQL did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such row, or not the caller's.
    #[error("no such row")]
    NotFound,
    /// A constraint refused the change.
    #[error("constraint {name} refused the change")]
    Constraint {
        /// The constraint's name in the migrations.
        name: String,
        /// What PostgreSQL said.
        #[source]
        source: sqlx::Error,
    },
    /// A conflict with a concurrent transaction (serialisation, deadlock); trying again may succeed.
    #[error("conflict with a concurrent change")]
    Conflict(#[source] sqlx::Error),
    /// The database cannot be reached, or all its connections are in use.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// COMMIT was sent and its outcome is unknown.
    #[error("the outcome of the commit is unknown")]
    OutcomeUnknown(#[source] sqlx::Error),
    /// Anything else: ours to mend.
    #[error("database error")]
    Db(#[source] sqlx::Error),
    /// Somebody else leads this role by now: nothing was done.
    #[error("epoch {epoch} no longer leads {role}: {by} does")]
    Deposed {
        /// The role.
        role: &'static str,
        /// Under which epoch the caller led; 0 if it did not.
        epoch: u64,
        /// The epoch that leads.
        by: u64,
    },
    /// Not a name for a database.
    #[error("'{0}' is not a name for a database")]
    Name(String),
    /// Migrations could not be applied.
    #[error("the schema could not be migrated")]
    Migrate(#[source] sqlx::migrate::MigrateError),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::RowNotFound => Self::NotFound,
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Tls(_) => Self::Unavailable(error),
            sqlx::Error::Database(db) => {
                let code = db.code().unwrap_or_default().into_owned();
                match (db.constraint(), code.as_str()) {
                    (Some(name), _) => Self::Constraint { name: name.to_owned(), source: error },
                    (None, "40001" | "40P01") => Self::Conflict(error),
                    // Shutting down, starting up, a statement that ran out of time, or waited too long for a lock.
                    (None, "57P01" | "57P02" | "57P03" | "57014" | "55P03" | "25P03") => {
                        Self::Unavailable(error)
                    }
                    // Connection exceptions (class 08); no connections, memory or room on its disk (class 53).
                    (None, code) if code.starts_with("08") || code.starts_with("53") => {
                        Self::Unavailable(error)
                    }
                    _ => Self::Db(error),
                }
            }
            _ => Self::Db(error),
        }
    }
}

impl StoreError {
    /// The constraint that refused, if one did.
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Constraint { name, .. } => Some(name),
            _ => None,
        }
    }
}

/// What every function of this crate returns.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

impl Store {
    /// Opens a pool of at most `max_connections`. `url` is a PostgreSQL URL; for a unix socket
    /// `postgres:///gon?host=/path/to/socket-dir&user=gon`.
    pub async fn connect(url: &str, max_connections: u32) -> Result<Self> {
        Self::connect_patient(url, max_connections, pool::PATIENCE).await
    }

    /// Like [`Store::connect`], for those who may be kept waiting that long for a connection: tests on a machine that has
    /// much else to do. What waits for a row or a table waits no longer than with any other.
    pub async fn connect_patient(url: &str, max_connections: u32, patience: Duration) -> Result<Self> {
        let options: PgConnectOptions = url.parse().map_err(StoreError::from)?;
        let options = options.application_name("gond").options([
            // A statement that runs for 5 s is a defect or an attack (rule R21).
            ("statement_timeout", "5000"),
            // Who waits longer than this for a row or a table is told to try again, within a second (row C6). Less for
            // whoever has waited for a connection before.
            ("lock_timeout", "650"),
            ("idle_in_transaction_session_timeout", "10000"),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .min_connections(1)
            .acquire_timeout(patience)
            // A round trip before every use would double the cost of a read; one that rested may have died meanwhile.
            .test_before_acquire(false)
            .before_acquire(|conn, meta| {
                Box::pin(async move {
                    if meta.idle_for > Duration::from_secs(1) && !pool::untested() {
                        sqlx::Connection::ping(conn).await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(options)
            .await?;
        Ok(Self { pool, changes: pool::places(max_connections), patience })
    }

    /// Brings the schema to this binary's version. Forward only; safe to run from several processes at once.
    pub async fn migrate(&self) -> Result<()> {
        // A connection of its own, which is not given back: it waits for others that migrate, and has all the time.
        let mut conn = self.pool.acquire().await?.detach();
        sqlx::raw_sql("set statement_timeout = 0; set lock_timeout = '60s'").execute(&mut conn).await?;
        let migrated = sqlx::migrate!("./migrations").run(&mut conn).await.map_err(StoreError::Migrate);
        let _ = sqlx::Connection::close(conn).await;
        migrated
    }

    /// Whether the database answers: for readiness.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("select 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Waits for its connections to end; later calls fail.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// How many connections there are, and how many of them rest: for the metrics.
    #[must_use]
    pub fn connections(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }

    /// The pool, for what only a pool can do (listening for notifications).
    #[must_use]
    pub fn pool(&self) -> &sqlx::PgPool {
        &self.pool
    }
}

/// The error for a stored value that a CHECK of the schema forbids: a defect, not an input.
#[must_use]
pub fn invalid(what: String) -> sqlx::Error {
    sqlx::Error::Decode(what.into())
}

/// How long the answer to COMMIT is waited for. Less than the statement time-out: at that, PostgreSQL gives up waiting for
/// a synchronous standby and says "committed" of what only it has.
pub const COMMIT_DEADLINE: Duration = Duration::from_secs(4);

/// Commits. An error after COMMIT was sent, or no answer within [`COMMIT_DEADLINE`], is [`StoreError::OutcomeUnknown`]
/// unless PostgreSQL itself refused.
pub async fn commit(tx: Tx) -> Result<()> {
    match in_time(tx.commit()).await {
        Ok(Ok(())) => Ok(()),
        // PostgreSQL's own words; those of one that is going down say nothing of the outcome.
        Ok(Err(error @ sqlx::Error::Database(_))) => Err(match StoreError::from(error) {
            StoreError::Unavailable(source) => StoreError::OutcomeUnknown(source),
            refused => refused,
        }),
        Ok(Err(error)) => Err(StoreError::OutcomeUnknown(error)),
        Err(unknown) => Err(unknown),
    }
}

/// A statement that changes something and is its own transaction, under the rules of [`commit`]: no answer within
/// [`COMMIT_DEADLINE`], or a connection that broke under it, and nobody knows.
pub async fn statement<T: Send + 'static>(
    done: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match in_time(done).await? {
        Err(StoreError::Unavailable(source)) => Err(match &source {
            // It was rolled back: cancelled, or it waited too long for a lock.
            sqlx::Error::Database(error) if matches!(error.code().as_deref(), Some("57014" | "55P03")) => {
                StoreError::Unavailable(source)
            }
            _ => StoreError::OutcomeUnknown(source),
        }),
        Err(StoreError::Db(source)) if !matches!(source, sqlx::Error::Database(_)) => {
            Err(StoreError::OutcomeUnknown(source))
        }
        result => result,
    }
}

/// Waits for what PostgreSQL was told to do. What is not done within [`COMMIT_DEADLINE`] goes on alone, with its
/// connection and its place among the changes, so that those who come after it know that both are taken.
async fn in_time<T: Send + 'static>(done: impl Future<Output = T> + Send + 'static) -> Result<T> {
    let mut done = Box::pin(done);
    match tokio::time::timeout(COMMIT_DEADLINE, &mut done).await {
        Ok(done) => Ok(done),
        Err(_) => {
            tokio::spawn(tokio::time::timeout(COMMIT_DEADLINE, done));
            Err(StoreError::OutcomeUnknown(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
        }
    }
}

/// Rolls back and waits for it, so that its locks are gone. Dropping a transaction rolls back as well, in a moment.
pub async fn rollback(tx: Tx) -> Result<()> {
    Ok(tx.rollback().await?)
}

/// Where a page begins and how long it is. Lists are newest first: by id, downwards.
///
/// Statements of lists are planned anew each time (`persistent(false)`), for the filters that are given: a plan kept for
/// all of them would fit none.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Only ids below this one.
    pub before: Option<uuid::Uuid>,
    /// At most so many.
    pub limit: i64,
}
