//! Settings, connections, transactions, slow statements.

use tokio_postgres::Client;

use super::{Connections, Examination, Severity, Slow};
use crate::AdvisorError;

/// What stands for a text that the role may not see.
const HIDDEN: &str = "<insufficient privilege>";
/// Longest text of a statement that is planned, and that is shown.
const TEXT_BYTES_MAX: usize = 64 << 10;
const SHOWN_BYTES_MAX: usize = 500;
/// Most statements that are listed as the slowest.
const LISTED_MAX: usize = 5;
/// Calls from which a statement is frequent.
const SLOW_CALLS_MIN: i64 = 10;

pub(super) async fn settings(client: &Client, found: &mut Examination) -> Result<(), AdvisorError> {
    // Our own transaction sets statement_timeout: the session's is the reset value.
    let rows = client
        .query(
            "SELECT name::pg_catalog.text, CASE name WHEN 'statement_timeout' THEN reset_val || 'ms' \
             ELSE pg_catalog.current_setting(name) END::pg_catalog.text \
             FROM pg_catalog.pg_settings WHERE name IN ('server_version', 'max_connections', \
             'superuser_reserved_connections', 'reserved_connections', 'idle_in_transaction_session_timeout', 'statement_timeout', \
             'idle_session_timeout', 'shared_buffers', 'work_mem', 'effective_cache_size', 'autovacuum', \
             'track_counts', 'plan_cache_mode', 'shared_preload_libraries')",
            &[],
        )
        .await?;
    for row in rows {
        found.facts.insert(row.get(0), row.get(1));
    }
    let recovery: bool = client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await?.get(0);
    found.facts.insert("in_recovery".to_owned(), recovery.to_string());
    for setting in ["autovacuum", "track_counts"] {
        if found.facts.get(setting).is_some_and(|value| value == "off") {
            found.add(
                Severity::Warning,
                90.0,
                format!("{setting} is off"),
                "Dead rows stay and statistics grow stale; the planner then chooses badly.".to_owned(),
                format!("ALTER SYSTEM SET {setting} = on; then reload."),
            );
        }
    }
    Ok(())
}

pub(super) async fn connections(client: &Client, found: &mut Examination) -> Result<(), AdvisorError> {
    let rows = client
        .query(
            // Of other users' backends a role without pg_read_all_stats sees neither type nor state.
            "SELECT COALESCE(state, CASE WHEN backend_type IS NULL THEN 'hidden' ELSE 'unknown' END), \
             COALESCE(usename::pg_catalog.text, ''), \
             COALESCE(application_name, ''), pg_catalog.count(*) FROM pg_catalog.pg_stat_activity \
             WHERE (backend_type = 'client backend' \
               OR backend_type IS NULL AND usesysid IS NOT NULL AND datid IS NOT NULL) \
             AND pid <> pg_catalog.pg_backend_pid() GROUP BY 1, 2, 3 ORDER BY 4 DESC",
            &[],
        )
        .await?;
    found.connections = rows
        .iter()
        .map(|row| Connections {
            state: row.get(0),
            user: row.get(1),
            application: row.get(2),
            count: row.get(3),
        })
        .collect();
    let number = |name: &str| found.facts.get(name).and_then(|value| value.parse::<i64>().ok()).unwrap_or(0);
    let reserved = number("superuser_reserved_connections") + number("reserved_connections");
    let usable = (number("max_connections") - reserved).max(1);
    let of = |state: &str| -> i64 {
        found.connections.iter().filter(|c| c.state.starts_with(state)).map(|c| c.count).sum()
    };
    let (total, idle, hidden) = (of(""), of("idle") - of("idle in transaction"), of("hidden"));
    if hidden > 0 {
        found.skipped.push(format!(
            "states and transactions of {hidden} connection(s) of other users: this role may not see them \
             (GRANT pg_monitor TO it shows them)"
        ));
    }
    #[allow(clippy::cast_precision_loss)]
    let share = total as f64 / usable as f64;
    if share >= 0.8 {
        let severity = if share >= 0.95 { Severity::Critical } else { Severity::Warning };
        found.add(
            severity,
            5e3 + share * 100.0,
            "connections are running out".to_owned(),
            format!("{total} of {usable} connections that PostgreSQL allows are taken, {idle} of them idle."),
            "Put a pooler in transaction mode between the application and PostgreSQL (poolwright serve URL)."
                .to_owned(),
        );
    } else if idle >= 20 && idle * 10 >= total * 8 {
        #[allow(clippy::cast_precision_loss)]
        found.add(
            Severity::Warning,
            idle as f64,
            "most connections do nothing".to_owned(),
            format!("{idle} of {total} connections are idle; each is a process with its own memory."),
            "Pool them in transaction mode with a small max (poolwright serve URL; max 15, min 5)."
                .to_owned(),
        );
    }
    Ok(())
}

pub(super) async fn transactions(client: &Client, found: &mut Examination) -> Result<(), AdvisorError> {
    let rows = client
        .query(
            "SELECT pid, COALESCE(usename::pg_catalog.text, ''), COALESCE(application_name, ''), state, \
             EXTRACT(epoch FROM pg_catalog.clock_timestamp() - xact_start)::pg_catalog.float8, \
             COALESCE(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - state_change), 0)::pg_catalog.float8 \
             FROM pg_catalog.pg_stat_activity WHERE xact_start IS NOT NULL AND state IS NOT NULL \
             AND backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid() ORDER BY xact_start LIMIT 50",
            &[],
        )
        .await?;
    if let Some(oldest) = rows.first() {
        let (pid, age_s): (i32, f64) = (oldest.get(0), oldest.get(4));
        found.facts.insert("oldest_transaction_s".to_owned(), format!("{age_s:.1}"));
        if age_s >= found.thresholds.transaction_s {
            let (user, application): (String, String) = (oldest.get(1), oldest.get(2));
            found.add(
                Severity::Critical,
                age_s,
                "a transaction has been open for long".to_owned(),
                format!(
                    "pid {pid} (user {user}, application '{application}') has been in one for {age_s:.0} s."
                ),
                format!("Find out what it waits for, then SELECT pg_terminate_backend({pid});"),
            );
        }
    }
    let limit_s = found.thresholds.idle_in_transaction_s;
    let idle = |row: &&tokio_postgres::Row| {
        row.get::<_, String>(3).starts_with("idle in transaction") && row.get::<_, f64>(5) >= limit_s
    };
    let waiting = rows.iter().filter(idle).count();
    let longest_s = rows.iter().filter(idle).map(|row| row.get::<_, f64>(5)).fold(0.0, f64::max);
    if waiting > 0 {
        found.add(
            Severity::Warning,
            longest_s,
            "clients sit idle in a transaction".to_owned(),
            format!("{waiting} of them, the longest for {longest_s:.0} s; each keeps a connection and its locks."),
            "ALTER ROLE … SET idle_in_transaction_session_timeout = '30s', and take other work out of transactions."
                .to_owned(),
        );
    }
    Ok(())
}

pub(super) async fn slowest(client: &Client, found: &mut Examination) -> Result<(), AdvisorError> {
    let row = client
        .query_opt(
            "SELECT n.nspname::pg_catalog.text, EXISTS (SELECT 1 FROM pg_catalog.pg_attribute a \
             JOIN pg_catalog.pg_class c ON c.oid = a.attrelid WHERE c.relname = 'pg_stat_statements' \
             AND c.relnamespace = n.oid AND a.attname = 'mean_exec_time') \
             FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace \
             WHERE e.extname = 'pg_stat_statements'",
            &[],
        )
        .await?;
    let Some(row) = row else {
        found
            .skipped
            .push("slowest statements: the extension pg_stat_statements is not installed here".to_owned());
        return Ok(());
    };
    let schema = crate::quote(&row.get::<_, String>(0));
    // PostgreSQL 13 renamed the columns; an extension that was never updated still has the old ones.
    let exec = if row.get(1) { "exec_" } else { "" };
    let rows = client
        .query(
            &format!(
                "SELECT s.query, s.calls, s.mean_{exec}time, s.total_{exec}time \
                 FROM {schema}.pg_stat_statements s WHERE s.dbid = (SELECT oid FROM pg_catalog.pg_database \
                 WHERE datname = pg_catalog.current_database()) ORDER BY s.total_{exec}time DESC LIMIT 50"
            ),
            &[],
        )
        .await?;
    // pg_stat_statements keeps the literals of utility statements, passwords among them.
    let text = |row: &tokio_postgres::Row, limit_bytes: usize| match row.get::<_, Option<String>>(0) {
        Some(text) if text == HIDDEN => text,
        text => fingerprint::normalize(text.unwrap_or_default().as_bytes(), limit_bytes),
    };
    found.texts = rows.iter().map(|row| (text(row, TEXT_BYTES_MAX), row.get(1))).collect();
    found.slowest = rows
        .iter()
        .take(LISTED_MAX)
        .map(|row| Slow {
            query: text(row, SHOWN_BYTES_MAX),
            calls: row.get(1),
            mean_ms: row.get(2),
            total_ms: row.get(3),
        })
        .collect();
    if found.slowest.iter().any(|slow| slow.query == HIDDEN) {
        found.skipped.push(
            "texts of other users' statements: this role may not see them (GRANT pg_monitor TO it shows them)"
                .to_owned(),
        );
    }
    for slow in found.slowest.clone() {
        if slow.mean_ms >= found.thresholds.slow_mean_ms && slow.calls >= SLOW_CALLS_MIN {
            found.add(
                Severity::Warning,
                slow.mean_ms,
                "a frequent statement is slow".to_owned(),
                format!("{} calls of {:.0} ms on average: {}", slow.calls, slow.mean_ms, slow.query),
                "Run it under EXPLAIN (ANALYZE, BUFFERS); poolwright optimize URL proposes an index or a rewrite."
                    .to_owned(),
            );
        }
    }
    Ok(())
}
