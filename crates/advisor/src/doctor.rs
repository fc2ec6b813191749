//! A look at a live database: what is wrong, worst first, one remedy each. Reads only.

mod indexes;
mod load;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::{AdvisorError, session};

/// Longest that one statement of the examination may run, in ms.
const STATEMENT_TIMEOUT_MS: u32 = 5_000;

/// How bad a problem is. The order is the order of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Work is refused, or will be soon.
    Critical,
    /// Work is slower than it needs to be, or may be stopped.
    Warning,
    /// Waste, with no harm yet.
    Notice,
}

impl Severity {
    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What it is, in a few words.
    pub title: String,
    /// What was seen.
    pub evidence: String,
    /// The one thing to do.
    pub remedy: String,
    /// Orders problems of the same severity: the larger comes first.
    pub weight: f64,
}

/// Connections of one user and application in one state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connections {
    /// State as pg_stat_activity names it.
    pub state: String,
    /// Role.
    pub user: String,
    /// application_name.
    pub application: String,
    /// How many.
    pub count: i64,
}

/// One of the slowest statements of pg_stat_statements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slow {
    /// Normalised text without literals, at most about 500 bytes.
    pub query: String,
    /// How often it ran.
    pub calls: i64,
    /// Mean execution time, ms.
    pub mean_ms: f64,
    /// Total execution time, ms.
    pub total_ms: f64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Examination {
    /// Worst first.
    pub problems: Vec<Problem>,
    /// Version and settings that matter to pooling.
    pub facts: BTreeMap<String, String>,
    /// Client connections by state, user and application.
    pub connections: Vec<Connections>,
    /// The slowest statements; empty where pg_stat_statements is not there.
    pub slowest: Vec<Slow>,
    /// Parts that could not be looked at, and why.
    pub skipped: Vec<String>,
    /// Whole texts and calls of the statements that took the most time.
    #[serde(skip)]
    texts: Vec<(String, i64)>,
    /// Indexes that a problem already says to drop.
    #[serde(skip)]
    doomed: BTreeSet<String>,
    /// Indexes that are to do the work of those.
    #[serde(skip)]
    relied_on: BTreeSet<String>,
    #[serde(skip)]
    thresholds: Thresholds,
}

impl Examination {
    /// Whether anything needs doing: notices alone do not count.
    pub fn healthy(&self) -> bool {
        self.problems.iter().all(|problem| problem.severity == Severity::Notice)
    }

    fn add(&mut self, severity: Severity, weight: f64, title: String, evidence: String, remedy: String) {
        self.problems.push(Problem { severity, title, evidence, remedy, weight });
    }
}

/// From when on something counts as a problem.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// A transaction open for longer holds back vacuum and CREATE INDEX CONCURRENTLY: seconds.
    pub transaction_s: f64,
    /// A client that waits inside a transaction for longer holds a connection for nothing: seconds.
    pub idle_in_transaction_s: f64,
    /// A frequent statement slower than this on average is slow: ms.
    pub slow_mean_ms: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { transaction_s: 300.0, idle_in_transaction_s: 5.0, slow_mean_ms: 100.0 }
    }
}

/// Examines one database inside a read-only transaction under a statement_timeout, which is rolled back.
/// A part that fails (no right to look, too slow) is skipped and said; a lost connection is the error.
///
/// # Errors
/// The connection was lost, or the transaction could not be begun.
pub async fn examine(client: &Client) -> Result<Examination, AdvisorError> {
    examine_by(client, Thresholds::default()).await
}

/// The same by thresholds of one's own.
///
/// # Errors
/// As [`examine`].
pub async fn examine_by(client: &Client, thresholds: Thresholds) -> Result<Examination, AdvisorError> {
    let schemas = session::begin(client).await?;
    let mut found = Examination { thresholds, ..Examination::default() };
    let result = inside(client, schemas, &mut found).await;
    session::end(client).await?;
    result?;
    found.problems.sort_by(|a, b| a.severity.cmp(&b.severity).then_with(|| b.weight.total_cmp(&a.weight)));
    Ok(found)
}

async fn inside(client: &Client, schemas: Vec<String>, found: &mut Examination) -> Result<(), AdvisorError> {
    client.batch_execute(&format!("SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")).await?;
    macro_rules! part {
        ($name:literal, $look:path $(, $more:expr)?) => {
            client.batch_execute("SAVEPOINT poolwright_part").await?;
            match $look(client, found $(, $more)?).await {
                Ok(()) => client.batch_execute("RELEASE SAVEPOINT poolwright_part").await?,
                Err(AdvisorError::Database(error)) if error.as_db_error().is_some() => {
                    client
                        .batch_execute(
                            "ROLLBACK TO SAVEPOINT poolwright_part; RELEASE SAVEPOINT poolwright_part",
                        )
                        .await?;
                    found.skipped.push(format!("{}: {}", $name, AdvisorError::Database(error)));
                }
                Err(error) => return Err(error),
            }
        };
    }
    part!("settings", load::settings);
    part!("connections", load::connections);
    part!("transactions", load::transactions);
    part!("slowest statements", load::slowest);
    part!("missing indexes", indexes::missing, schemas);
    part!("sequential scans", indexes::scans);
    part!("foreign keys", indexes::foreign_keys);
    part!("invalid indexes", indexes::invalid);
    part!("duplicate indexes", indexes::duplicates);
    part!("indexes that begin others", indexes::beginnings);
    part!("unused indexes", indexes::unused);
    part!("statistics", indexes::statistics);
    Ok(())
}
