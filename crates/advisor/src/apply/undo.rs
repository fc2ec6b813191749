//! A build whose future is dropped (Ctrl-C): PostgreSQL would go on with it, and may leave an invalid index.

use std::time::{Duration, Instant};

use tokio_postgres::{CancelToken, Client, NoTls};

use super::{Patience, connect, drop_with, state};
use crate::indexes::IndexAdvice;

/// How long the cancelled backend may take to end.
const END_MAX: Duration = Duration::from_secs(5);
/// Nobody waits long for a program that was told to stop.
const HASTE: Patience = Patience { tries: 3, lock_timeout_ms: 1_000, pause_ms: 100 };

/// Cancels the build and drops its leftover when dropped before it was told that the build has ended.
pub(super) struct Undo<'a> {
    armed: Option<CancelToken>,
    url: &'a str,
    index: &'a IndexAdvice,
    pid: Option<i32>,
}

impl<'a> Undo<'a> {
    /// For the statement that `client` (backend `pid`) runs next.
    pub(super) fn arm(url: &'a str, client: &Client, index: &'a IndexAdvice, pid: Option<i32>) -> Self {
        Self { armed: Some(client.cancel_token()), url, index, pid }
    }

    /// The statement has ended by itself.
    pub(super) fn disarm(mut self) {
        self.armed = None;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let Some(token) = self.armed.take() else { return };
        let (url, index, pid) = (self.url.to_owned(), self.index.clone(), self.pid);
        // A thread and runtime of its own: the one that this runs in may be ending.
        let clearing = std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            runtime.block_on(async {
                if let Err(error) = token.cancel_query(NoTls).await {
                    tracing::warn!(index = %index.name, %error, "the build could not be cancelled");
                }
                if let Err(error) = clear(&url, &index, pid).await {
                    tracing::warn!(index = %index.name, %error, "an invalid index may be left");
                }
            });
        });
        if clearing.join().is_err() {
            tracing::warn!(index = %self.index.name, "clearing up failed");
        }
    }
}

/// Drops what the build left, once its backend has ended. An index that became valid stays.
async fn clear(url: &str, index: &IndexAdvice, pid: Option<i32>) -> Result<(), crate::AdvisorError> {
    let client = connect(url, HASTE).await?;
    let building = "SELECT 1 FROM pg_catalog.pg_stat_progress_create_index WHERE pid = $1";
    let until = Instant::now() + END_MAX;
    while client.query_opt(building, &[&pid]).await?.is_some() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    match state(&client, index).await? {
        Some((false, _)) => drop_with(&client, index, HASTE).await,
        _ => Ok(()),
    }
}
