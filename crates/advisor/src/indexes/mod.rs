//! Which indexes are missing, and what the planner says of them.
//!
//! Candidates come from the observed statements; the planner prices them with HypoPG where the database has it.
//! They are chosen one by one: the largest saving over all calls per byte first, a longer index taking the place
//! of its own prefix. No statement may get dearer.

mod candidates;
mod choose;
mod partitioned;
mod plan;

use serde::{Deserialize, Serialize};
use stats::FingerprintSnapshot;
use tokio_postgres::Client;

pub use candidates::Candidate;
pub use plan::{Plan, Planner};

use crate::catalog::{Catalog, Table};
use crate::statement::{self, Kind, Statement};
use crate::{AdvisorError, session};

/// PostgreSQL's limit on a name, in bytes.
const NAME_BYTES_MAX: usize = 63;
/// Statements looked at, the dearest first.
const STATEMENTS_MAX: usize = 100;

/// One index worth building.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexAdvice {
    /// `idx_<table>_<columns>`, unquoted.
    pub name: String,
    /// The statement that builds it, without a semicolon.
    pub sql_up: String,
    /// The statement that drops it, without a semicolon.
    pub sql_down: String,
    /// Schema of its table, unquoted.
    pub schema: String,
    /// Its table, unquoted.
    pub table: String,
    /// Key columns in order, unquoted.
    pub columns: Vec<String>,
    /// Why, in a sentence.
    pub reason: String,
    /// Ids of the fingerprints it serves, the most gaining first.
    pub fingerprints: Vec<String>,
    /// Plan of the first of them as it is.
    pub plan_before: String,
    /// The same with the index; `None` where it could not be supposed.
    pub plan_after: Option<String>,
    /// Cost of the first fingerprint's plan, in the planner's units.
    pub cost_before: f64,
    /// The same with the index; `None` where it could not be supposed.
    pub cost_after: Option<f64>,
    /// Estimated size in bytes.
    pub size_bytes: u64,
    /// `hypopg`, or `explain` where the index could not be supposed.
    pub method: String,
}

/// A statement with how often it ran.
pub(crate) struct Observed {
    pub id: String,
    pub sql: String,
    pub calls: f64,
    /// Rows added or updated.
    pub rows: f64,
    pub read: Statement,
}

/// Installs HypoPG. Only for a database that Poolwright itself created, or where its owner said yes.
pub async fn enable_hypopg(client: &Client) -> Result<(), AdvisorError> {
    Ok(client.batch_execute("CREATE EXTENSION IF NOT EXISTS hypopg").await?)
}

/// What came of looking for indexes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Advice {
    /// Those worth building.
    pub indexes: Vec<IndexAdvice>,
    /// What could not be advised, and why, in sentences.
    pub remarks: Vec<String>,
}

/// As [`advise`], with what could not be advised.
///
/// # Errors
/// The database refused to be looked at.
pub async fn consider(client: &Client, fingerprints: &[FingerprintSnapshot]) -> Result<Advice, AdvisorError> {
    let schemas = session::begin(client).await?;
    let result = inside(client, schemas, fingerprints).await;
    session::end(client).await?;
    result
}

/// Advises on the statements of one database; reads only, in a transaction of its own, which it rolls back.
/// The client must not be inside a transaction.
pub async fn advise(
    client: &Client,
    fingerprints: &[FingerprintSnapshot],
) -> Result<Vec<IndexAdvice>, AdvisorError> {
    Ok(consider(client, fingerprints).await?.indexes)
}

/// The same inside a transaction that [`session::begin`] began; leaves the application's search_path set.
pub(crate) async fn inside(
    client: &Client,
    schemas: Vec<String>,
    fingerprints: &[FingerprintSnapshot],
) -> Result<Advice, AdvisorError> {
    let catalog = Catalog::read(client, schemas).await?;
    let observed = observe(fingerprints, &catalog);
    if observed.is_empty() {
        return Ok(Advice::default());
    }
    let planner = Planner::new(client).await?;
    session::application_path(client, &catalog.schemas).await?;
    let result = choose::choose(&planner, &catalog, &observed).await;
    let forgotten = planner.forget().await;
    let indexes = result?;
    forgotten?;
    let remarks = partitioned::remarks(&catalog, &observed);
    Ok(Advice { indexes, remarks })
}

/// The statements that an index could serve, those that took the most time first.
pub(crate) fn observe(fingerprints: &[FingerprintSnapshot], catalog: &Catalog) -> Vec<Observed> {
    let mut sorted: Vec<&FingerprintSnapshot> = fingerprints.iter().filter(|f| f.calls > 0).collect();
    sorted.sort_by_key(|f| std::cmp::Reverse(f.server_time.sum_us()));
    let read = sorted.into_iter().filter_map(|f| {
        let read = statement::read(&f.query, catalog)?;
        let serves = matches!(read.kind, Kind::Select | Kind::Update | Kind::Delete | Kind::Insert);
        #[allow(clippy::cast_precision_loss)]
        let (calls, rows) = (f.calls as f64, f.rows as f64);
        (serves && (!read.uses.is_empty() || read.write.is_some())).then(|| Observed {
            id: f.id.clone(),
            sql: f.query.trim().trim_end_matches(';').to_owned(),
            calls,
            rows,
            read,
        })
    });
    read.take(STATEMENTS_MAX).collect()
}

/// A free name `idx_<table>_<columns>` of at most 63 bytes.
fn name(table: &Table, columns: &[String], catalog: &Catalog, given: &[String]) -> String {
    let whole = format!("idx_{}_{}", table.name, columns.join("_"));
    for number in 1_u32.. {
        let suffix = if number == 1 { String::new() } else { format!("_{number}") };
        let mut end = whole.len().min(NAME_BYTES_MAX - suffix.len());
        while !whole.is_char_boundary(end) {
            end -= 1;
        }
        let name = format!("{}{suffix}", &whole[..end]);
        if !catalog.taken(&name) && !given.contains(&name) {
            return name;
        }
    }
    whole
}
