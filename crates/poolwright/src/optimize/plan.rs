//! What can be said of a database without loading or changing it: statements, indexes and findings, costed by its
//! own planner. Nothing here proves anything; the verdict of such a report stays empty.

use std::time::Duration;

use stats::FingerprintSnapshot;
use tokio_postgres::{Client, NoTls};

use crate::config;
use crate::report::evidence::Evidence;
use crate::report::model::{
    Environment, Finding, Index, PhaseName, Report, SCHEMA_VERSION, SlowQuery, Targets,
};

/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Statements shown as the slowest.
const SLOWEST: usize = 5;
/// Statements taken from `pg_stat_statements`.
const STATEMENTS: &str = "SELECT s.query, s.calls, s.total_exec_time, s.rows \
    FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid \
    WHERE d.datname = current_database() AND s.calls > 0 AND s.query <> '<insufficient privilege>' \
    ORDER BY s.total_exec_time DESC LIMIT 200";

/// A statement with what is known of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// The statement, its literals taken out.
    pub query: String,
    /// Executions, or a relative weight where nothing was executed.
    pub calls: u64,
    /// All its time on PostgreSQL, in milliseconds.
    pub total_ms: f64,
    /// Rows over all executions.
    pub rows: u64,
}

/// Connects without TLS.
///
/// # Errors
/// A sentence for the user.
pub async fn connect(url: &str) -> Result<Client, String> {
    let mut config = config::connection(url)?;
    config.application_name("poolwright optimize").connect_timeout(CONNECT_MAX);
    let connecting = tokio::time::timeout(CONNECT_MAX, config.connect(NoTls)).await;
    let (client, connection) = connecting
        .map_err(|_elapsed| "the database did not answer within 10 s".to_owned())?
        .map_err(|error| format!("cannot connect to {}: {}", config::destination(&config), told(&error)))?;
    tokio::spawn(connection);
    Ok(client)
}

/// The server's own words where there are any, else the error with its cause.
pub fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(fault) => format!("{} (SQLSTATE {})", fault.message(), fault.code().code()),
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}

/// The database's statements by `pg_stat_statements`; a sentence where it is not there.
///
/// # Errors
/// The extension is absent, not loaded, or may not be read.
pub async fn statements(client: &Client) -> Result<Vec<Known>, String> {
    let run = async {
        client.batch_execute("BEGIN READ ONLY; SET LOCAL statement_timeout = '10s'").await?;
        client.query(STATEMENTS, &[]).await
    };
    let rows = run.await;
    let _ended = client.batch_execute("ROLLBACK").await;
    let rows = rows.map_err(|error| {
        format!(
            "pg_stat_statements cannot be read: {}. Without it no statement is known here: have it in \
             shared_preload_libraries, then CREATE EXTENSION pg_stat_statements, and run the application for a while",
            told(&error)
        )
    })?;
    let count = |value: i64| u64::try_from(value).unwrap_or(0);
    let known = rows.iter().filter_map(|row| {
        Some(Known {
            query: row.try_get(0).ok()?,
            calls: count(row.try_get(1).ok()?),
            total_ms: row.try_get(2).ok()?,
            rows: count(row.try_get(3).ok()?),
        })
    });
    Ok(known.collect())
}

fn fingerprint(known: &Known) -> FingerprintSnapshot {
    let shape = fingerprint::scan(known.query.as_bytes());
    FingerprintSnapshot {
        id: fingerprint::hex(shape.id),
        query: known.query.clone(),
        command: shape.command.as_str().to_owned(),
        tables: fingerprint::tables(known.query.as_bytes()),
        calls: known.calls,
        rows: known.rows,
        ..FingerprintSnapshot::default()
    }
}

/// Said where indexes cannot be supposed.
pub const NO_HYPOPG: &str = "HypoPG is not installed on this PostgreSQL: the indexes were chosen from plain \
    EXPLAIN, and their gain was not priced beforehand.";

/// What could be said without a load.
#[derive(Debug)]
pub struct Planned {
    /// Plans only: no phase, no check, no proof.
    pub report: Report,
    /// Remarks.
    pub evidence: Evidence,
    /// The indexes of the report, as the advisor gave them.
    pub advice: Vec<advisor::indexes::IndexAdvice>,
    /// The statements.
    pub prints: Vec<FingerprintSnapshot>,
}

/// Plans only: nothing is measured, nothing changed.
///
/// # Errors
/// A sentence for the user.
pub async fn plan(
    client: &Client,
    known: &[Known],
    source: &str,
    targets: &Targets,
) -> Result<Planned, String> {
    let version = client.query_one("SHOW server_version", &[]).await.map_err(|error| told(&error))?;
    let prints: Vec<FingerprintSnapshot> = known.iter().map(fingerprint).collect();
    let advisor::indexes::Advice { indexes: advice, remarks: unadvised } =
        advisor::indexes::consider(client, &prints).await.map_err(|error| error.to_string())?;
    let found = advisor::queries::advise(client, &prints).await.map_err(|error| error.to_string())?;
    let slow_queries = known
        .iter()
        .zip(&prints)
        .take(SLOWEST)
        .map(|(known, print)| SlowQuery {
            fingerprint: print.id.clone(),
            query: print.query.clone(),
            phase: PhaseName::Baseline,
            calls: known.calls,
            p95_ms: None,
            total_ms: known.total_ms,
            findings: found.iter().filter(|f| f.fingerprint == print.id).map(|f| f.id.clone()).collect(),
        })
        .collect();
    let report = Report {
        schema_version: SCHEMA_VERSION,
        environment: Environment {
            poolwright: env!("CARGO_PKG_VERSION").to_owned(),
            postgres: version.get(0),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            ..Environment::default()
        },
        targets: targets.clone(),
        slow_queries,
        indexes: advice.iter().map(index).collect(),
        findings: found.into_iter().map(finding).collect(),
        ..Report::default()
    };
    let mut remarks = vec![
        format!("Statements: {source}."),
        "No load was run; costs are the planner's, not measurements.".to_owned(),
    ];
    if advice.iter().any(|advice| advice.method == "explain") {
        remarks.push(NO_HYPOPG.to_owned());
    }
    remarks.extend(unadvised);
    Ok(Planned { report, evidence: Evidence { remarks, ..Evidence::default() }, advice, prints })
}

/// An index as it stands in the report before anything is built.
pub fn index(advice: &advisor::indexes::IndexAdvice) -> Index {
    Index {
        name: advice.name.clone(),
        sql: advice.sql_up.clone(),
        table: advice.table.clone(),
        columns: advice.columns.clone(),
        reason: advice.reason.clone(),
        plan_before: advice.plan_before.clone(),
        plan_after: advice.plan_after.clone().unwrap_or_default(),
        cost_before: Some(advice.cost_before),
        cost_after: advice.cost_after,
        ..Index::default()
    }
}

/// A finding as it stands in the report before anybody agreed to it.
pub fn finding(found: advisor::queries::Finding) -> Finding {
    Finding {
        id: found.id,
        kind: found.kind,
        fingerprint: found.fingerprint,
        evidence: found.evidence,
        sql_after: found.sql_after,
        same_rows: found.same_rows,
        ..Finding::default()
    }
}
