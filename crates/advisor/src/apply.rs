//! Migrations: written as plain SQL, up and down, and run without locking anybody out.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::AdvisorError;
use crate::indexes::IndexAdvice;

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

/// Writes `NNNN_<name>.up.sql` and `.down.sql` into `dir`, numbered after what is there; answers the paths.
pub fn write_migrations(dir: &Path, advice: &[IndexAdvice]) -> Result<Vec<PathBuf>, AdvisorError> {
    fs::create_dir_all(dir)?;
    let mut number = fs::read_dir(dir)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.split('_').next()?.parse::<u32>().ok())
        .max()
        .unwrap_or(0);
    let mut paths = Vec::new();
    for index in advice {
        number += 1;
        let safe: String =
            index.name.chars().map(|c| if c.is_alphanumeric() || c == '_' { c } else { '_' }).collect();
        let head = "-- Not inside a transaction: CONCURRENTLY may not run there.";
        let reason = index.reason.replace(['\n', '\r'], " ");
        let up = format!("-- {reason}\n{head}\nSET lock_timeout = '5s';\n{};\n", index.sql_up);
        let down = format!("{head}\nSET lock_timeout = '5s';\n{};\n", index.sql_down);
        for (side, text) in [("up", up), ("down", down)] {
            let path = dir.join(format!("{number:04}_{safe}.{side}.sql"));
            fs::write(&path, text)?;
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Builds one index over a connection of its own, straight to PostgreSQL. A try that fails leaves nothing behind:
/// its own invalid leftover is dropped, and nothing else. `progress` hears what is being done.
pub async fn build(
    url: &str,
    index: &IndexAdvice,
    progress: impl Fn(&str),
) -> Result<BuildResult, AdvisorError> {
    let client = connect(url).await?;
    if state(&client, index).await?.is_some() {
        return Err(AdvisorError::Other(format!("{}: a relation of that name exists already", index.name)));
    }
    for attempt in 1..=TRIES_MAX {
        progress(&format!("{}: building, try {attempt} of {TRIES_MAX}", index.name));
        let started = Instant::now();
        let result = client.batch_execute(&index.sql_up).await;
        let build_ms = started.elapsed().as_secs_f64() * 1000.0;
        match result {
            Ok(()) => {
                let (valid, size_bytes) = state(&client, index).await?.unwrap_or((false, 0));
                if !valid {
                    drop_with(&client, index).await?;
                }
                return Ok(BuildResult { build_ms, size_bytes, valid, tries: attempt });
            }
            Err(error) => {
                // 42P07: somebody else took the name in between; what stands there is not ours.
                let taken = error.code() == Some(&SqlState::DUPLICATE_TABLE);
                // A lost connection leaves our leftover to be cleared over a new one.
                let fresh = if client.is_closed() { Some(connect(url).await?) } else { None };
                let clearing = fresh.as_ref().unwrap_or(&client);
                if !taken && matches!(state(clearing, index).await?, Some((false, _))) {
                    progress(&format!("{}: removing what the failed build left", index.name));
                    drop_with(clearing, index).await?;
                }
                if !retry(&error) || attempt == TRIES_MAX || fresh.is_some() {
                    return Err(error.into());
                }
                progress(&format!("{}: the lock was not free, waiting", index.name));
                tokio::time::sleep(Duration::from_millis(500 * u64::from(attempt))).await;
            }
        }
    }
    Err(AdvisorError::Other(format!("{}: not built", index.name)))
}

/// Drops an index that this run built.
pub async fn drop(url: &str, index: &IndexAdvice) -> Result<(), AdvisorError> {
    drop_with(&connect(url).await?, index).await
}

async fn drop_with(client: &Client, index: &IndexAdvice) -> Result<(), AdvisorError> {
    for attempt in 1..=TRIES_MAX {
        match client.batch_execute(&index.sql_down).await {
            Ok(()) => return Ok(()),
            Err(error) if attempt < TRIES_MAX && retry(&error) => {
                tokio::time::sleep(Duration::from_millis(500 * u64::from(attempt))).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn retry(error: &tokio_postgres::Error) -> bool {
    matches!(error.code(), Some(&SqlState::LOCK_NOT_AVAILABLE | &SqlState::T_R_DEADLOCK_DETECTED))
}

async fn connect(url: &str) -> Result<Client, AdvisorError> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client
        .batch_execute(&format!(
            "SET lock_timeout = {LOCK_TIMEOUT_MS}; SET statement_timeout = {BUILD_TIMEOUT_MS}; \
             SET search_path = pg_catalog"
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
