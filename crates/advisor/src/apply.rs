//! Migrations: written as plain SQL, up and down, and run without locking anybody out.

mod migrations;
mod undo;
mod watch;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::AdvisorError;
use crate::indexes::IndexAdvice;

pub use migrations::{is_migration_of, write_migrations};

/// How often a build is tried that could not get its lock.
const TRIES_MAX: u32 = 5;
/// Longest wait for a lock in one try, ms.
const LOCK_TIMEOUT_MS: u32 = 5_000;
/// Longest build, ms.
const BUILD_TIMEOUT_MS: u32 = 3_600_000;

/// What became of a build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildResult {
    /// How long the last try took, ms.
    pub build_ms: f64,
    /// Size of the index in bytes.
    pub size_bytes: u64,
    /// Whether PostgreSQL uses it.
    pub valid: bool,
    /// How many tries it took.
    pub tries: u32,
}

/// How patient a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How often a build is tried that could not get its lock, at least 1.
    pub tries: u32,
    /// Longest wait for a lock in one try, ms. PostgreSQL applies it to the waits for older transactions as well.
    pub lock_timeout_ms: u32,
    /// Pause after the first failed try, ms; as much longer after each further one.
    pub pause_ms: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { tries: TRIES_MAX, lock_timeout_ms: LOCK_TIMEOUT_MS, pause_ms: 500 }
    }
}

/// Builds one index over a connection of its own, straight to PostgreSQL. A try that fails leaves nothing behind:
/// its own invalid leftover is dropped, and nothing else; so is that of a build whose future is dropped, which
/// blocks for it. `progress` hears what is being done.
///
/// # Errors
/// The name is taken, the build failed, or nobody let it have its lock; the error names who was in the way, and the
/// leftover where even that could not be dropped.
pub async fn build(
    url: &str,
    index: &IndexAdvice,
    progress: impl Fn(&str),
) -> Result<BuildResult, AdvisorError> {
    build_with(url, index, Patience::default(), progress).await
}

/// The same with a patience of one's own.
///
/// # Errors
/// As [`build`].
pub async fn build_with(
    url: &str,
    index: &IndexAdvice,
    patience: Patience,
    progress: impl Fn(&str),
) -> Result<BuildResult, AdvisorError> {
    let client = connect(url, patience).await?;
    if state(&client, index).await?.is_some() {
        return Err(AdvisorError::Other(format!("{}: a relation of that name exists already", index.name)));
    }
    let name = &index.name;
    for attempt in 1..=patience.tries {
        progress(&format!(
            "{name}: building about {}, try {attempt} of {}",
            watch::bytes(index.size_bytes),
            patience.tries
        ));
        let started = Instant::now();
        let watcher = watch::Watcher::start(url, &client).await;
        let undo = undo::Undo::arm(url, &client, index, watcher.pid());
        let result =
            watch::while_running(client.batch_execute(&index.sql_up), &watcher, name, &progress).await;
        undo.disarm();
        let build_ms = started.elapsed().as_secs_f64() * 1000.0;
        let error = match result {
            Ok(()) => match state(&client, index).await? {
                Some((true, size_bytes)) => {
                    return Ok(BuildResult { build_ms, size_bytes, valid: true, tries: attempt });
                }
                Some((false, _)) => {
                    drop_with(&client, index, patience).await?;
                    return Err(AdvisorError::Other(format!(
                        "{name}: PostgreSQL built it and calls it invalid"
                    )));
                }
                None => return Err(AdvisorError::Other(format!("{name}: somebody dropped it at once"))),
            },
            Err(error) => error,
        };
        let again = retry(&error) && attempt < patience.tries;
        let blockers = if retry(&error) { watch::blockers(&client, index).await } else { None };
        let in_the_way = blockers.map(|who| format!("; in the way: {who}")).unwrap_or_default();
        if again {
            progress(&format!("{name}: the lock was not free{in_the_way}"));
        }
        clear(url, &client, index, patience, &error, &progress).await?;
        if !again {
            let why = crate::describe(&error);
            return Err(AdvisorError::Other(format!("{name}: not built: {why}{in_the_way}")));
        }
        tokio::time::sleep(Duration::from_millis(u64::from(patience.pause_ms * attempt))).await;
    }
    Err(AdvisorError::Other(format!("{name}: not tried")))
}

/// Drops the invalid index that a failed try of ours left, if it left one.
async fn clear(
    url: &str,
    client: &Client,
    index: &IndexAdvice,
    patience: Patience,
    error: &tokio_postgres::Error,
    progress: &impl Fn(&str),
) -> Result<(), AdvisorError> {
    // 42P07: somebody else took the name in between; what stands there is not ours.
    if error.code() == Some(&SqlState::DUPLICATE_TABLE) {
        return Ok(());
    }
    // A lost connection leaves our leftover to be cleared over a new one.
    let fresh = if retry(error) { None } else { Some(connect(url, patience).await?) };
    let client = fresh.as_ref().unwrap_or(client);
    if !matches!(state(client, index).await?, Some((false, _))) {
        return Ok(());
    }
    progress(&format!("{}: removing what the failed build left", index.name));
    drop_with(client, index, patience).await.map_err(|stuck| {
        let name = &index.name;
        let first = crate::describe(error);
        AdvisorError::Other(format!(
            "{name}: not built ({first}), and its invalid leftover cannot be dropped yet ({stuck}). When the \
             transaction in the way has ended, run: {};",
            index.sql_down
        ))
    })
}

/// Drops an index that this run built.
///
/// # Errors
/// It could not get its lock in time, or the connection failed.
pub async fn drop(url: &str, index: &IndexAdvice) -> Result<(), AdvisorError> {
    let patience = Patience::default();
    drop_with(&connect(url, patience).await?, index, patience).await
}

async fn drop_with(client: &Client, index: &IndexAdvice, patience: Patience) -> Result<(), AdvisorError> {
    for attempt in 1..=patience.tries {
        match client.batch_execute(&index.sql_down).await {
            Ok(()) => break,
            Err(error) if attempt < patience.tries && retry(&error) => {
                tokio::time::sleep(Duration::from_millis(u64::from(patience.pause_ms * attempt))).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn retry(error: &tokio_postgres::Error) -> bool {
    matches!(error.code(), Some(&SqlState::LOCK_NOT_AVAILABLE | &SqlState::T_R_DEADLOCK_DETECTED))
}

async fn connect(url: &str, patience: Patience) -> Result<Client, AdvisorError> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client
        .batch_execute(&format!(
            "SET lock_timeout = {}; SET statement_timeout = {BUILD_TIMEOUT_MS}; SET search_path = pg_catalog",
            patience.lock_timeout_ms
        ))
        .await?;
    Ok(client)
}

/// Whether the index is valid, and its bytes; `None` if there is none of that name on that table's schema.
async fn state(client: &Client, index: &IndexAdvice) -> Result<Option<(bool, u64)>, AdvisorError> {
    let row = client
        .query_opt(
            "SELECT COALESCE(i.indisvalid, true), pg_catalog.pg_relation_size(c.oid)::pg_catalog.int8 \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid \
             WHERE n.nspname = $1 AND c.relname = $2",
            &[&index.schema, &index.name],
        )
        .await?;
    Ok(row.map(|row| (row.get(0), u64::try_from(row.get::<_, i64>(1)).unwrap_or(0))))
}
