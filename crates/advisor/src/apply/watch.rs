//! What a build is doing while it runs, and who is in its way.

use std::future::Future;
use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use crate::indexes::IndexAdvice;

/// How often the server is asked.
const INTERVAL: Duration = Duration::from_millis(500);

/// Watches one backend's build over a second connection; without one nothing is heard, and the build goes on.
pub(super) struct Watcher(Option<(Client, i32)>);

impl Watcher {
    pub(super) async fn start(url: &str, building: &Client) -> Watcher {
        let open = async {
            let row = building.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await?;
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::spawn(connection);
            client
                .batch_execute("SET statement_timeout = 2000; SET default_transaction_read_only = on")
                .await?;
            Ok::<_, tokio_postgres::Error>((client, row.get(0)))
        };
        Watcher(open.await.ok())
    }

    /// The backend that builds, where it could be asked for.
    pub(super) fn pid(&self) -> Option<i32> {
        self.0.as_ref().map(|(_, pid)| *pid)
    }

    /// `building index: scanning table, 45 %`, while there is something to say.
    async fn look(&self) -> Option<String> {
        let (client, pid) = self.0.as_ref()?;
        let row = client
            .query_opt(
                "SELECT phase, CASE WHEN blocks_total > 0 THEN 100 * blocks_done / blocks_total \
                 WHEN tuples_total > 0 THEN 100 * tuples_done / tuples_total END, \
                 CASE WHEN lockers_total > 0 THEN current_locker_pid END \
                 FROM pg_catalog.pg_stat_progress_create_index WHERE pid = $1",
                &[pid],
            )
            .await
            .ok()??;
        let phase: String = row.get(0);
        let share = row.get::<_, Option<i64>>(1).map(|share| format!(", {share} %")).unwrap_or_default();
        let locker = row.get::<_, Option<i64>>(2).filter(|pid| *pid > 0);
        let locker = locker.map(|pid| format!(", behind pid {pid}")).unwrap_or_default();
        Some(format!("{phase}{share}{locker}"))
    }
}

/// Runs `build` to its end, telling every half second what it does.
pub(super) async fn while_running<T>(
    build: impl Future<Output = T>,
    watcher: &Watcher,
    name: &str,
    progress: &impl Fn(&str),
) -> T {
    tokio::pin!(build);
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            done = &mut build => return done,
            _tick = ticks.tick() => {
                tokio::select! {
                    done = &mut build => return done,
                    heard = watcher.look() => if let Some(heard) = heard {
                        progress(&format!("{name}: {heard}"));
                    }
                }
            }
        }
    }
}

/// The oldest open transaction besides ours that holds a snapshot or a lock on the table, in words; without literals.
pub(super) async fn blockers(client: &Client, index: &IndexAdvice) -> Option<String> {
    let row = client
        .query_opt(
            "SELECT a.pid, COALESCE(a.usename::pg_catalog.text, '?'), COALESCE(a.application_name, ''), \
             COALESCE(a.state, '?'), \
             EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::pg_catalog.float8 \
             FROM pg_catalog.pg_stat_activity a WHERE a.pid <> pg_catalog.pg_backend_pid() \
             AND a.datname = pg_catalog.current_database() AND a.xact_start IS NOT NULL \
             AND (a.backend_xmin IS NOT NULL OR EXISTS (SELECT 1 FROM pg_catalog.pg_locks l \
               JOIN pg_catalog.pg_class c ON c.oid = l.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE l.pid = a.pid AND l.granted AND n.nspname = $1 AND c.relname = $2)) \
             ORDER BY a.xact_start LIMIT 1",
            &[&index.schema, &index.table],
        )
        .await
        .ok()??;
    let (pid, user, application, state, age_s): (i32, String, String, String, f64) =
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
    Some(format!(
        "pid {pid} (user {user}, application '{application}'), {state}, in a transaction for {age_s:.0} s"
    ))
}

/// Bytes in words: `12.3 MB`.
#[allow(clippy::cast_precision_loss)]
pub(super) fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.1} GB", count as f64 / 1e9),
    }
}
