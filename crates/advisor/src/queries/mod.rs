//! What is wrong with the statements themselves, with the evidence and the statement that would be right.
//!
//! A rule needs both the shape of the statement and what was observed of it; a look-alike that does no harm (a
//! LIMIT present, a small table, a look-up by key) gives no finding.

mod rewrite;

use serde::{Deserialize, Serialize};
use stats::FingerprintSnapshot;
use tokio_postgres::Client;

use crate::catalog::{Catalog, Table};
use crate::statement::{self, Kind, Statement, Use};
use crate::{AdvisorError, session};

pub use rewrite::LIMIT_ROWS;

/// One piece of advice on one statement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// `<kind>-<fingerprint>`: the same over runs.
    pub id: String,
    /// `missing_limit`, `missing_where`, `offset_paging`, `one_row_inserts`, `n_plus_one` or `repeated_reads`.
    pub kind: String,
    /// Fingerprint id of the statement.
    pub fingerprint: String,
    /// What was observed, in a sentence; no literals.
    pub evidence: String,
    /// The statement that would be right; `None` where none could be made of the one observed.
    pub sql_after: Option<String>,
    /// Whether `sql_after` gives the same rows.
    pub same_rows: bool,
    /// Whether the pooler can put `sql_after` in its place while running.
    pub live: bool,
}

/// Calls below this are no habit of the application.
const CALLS_MIN: u64 = 2;
/// Executions with an OFFSET below this are too few to judge by.
const PAGES_MIN: u64 = 5;
/// Rows a call, on average or at most, from which an unlimited answer is a fault.
const ROWS_MEAN_MIN: u64 = 100;
const ROWS_MAX_MIN: u64 = 300;
/// Runs of one statement by one client.
const RUNS_MIN: u64 = 3;
/// Share of calls that must lie in runs.
const RUN_SHARE_MIN: f64 = 0.5;
/// Share of reads that repeat one of the last 60 s.
const REPEAT_SHARE_MIN: f64 = 0.5;
/// Repeats below this are too few to judge by.
const REPEATS_MIN: u64 = 20;
/// OFFSET from which paging costs.
const OFFSET_MIN: u64 = 1_000;

/// Advises on the statements of one database; reads only the catalog, in a transaction of its own.
pub async fn advise(
    client: &Client,
    fingerprints: &[FingerprintSnapshot],
) -> Result<Vec<Finding>, AdvisorError> {
    let schemas = session::begin(client).await?;
    let catalog = Catalog::read(client, schemas).await;
    session::end(client).await?;
    Ok(find(&catalog?, fingerprints))
}

/// The findings on these statements, those that cost most time first.
pub fn find(catalog: &Catalog, fingerprints: &[FingerprintSnapshot]) -> Vec<Finding> {
    let mut sorted: Vec<&FingerprintSnapshot> =
        fingerprints.iter().filter(|f| f.calls >= CALLS_MIN).collect();
    sorted.sort_by_key(|f| std::cmp::Reverse(f.server_time.sum_us()));
    let read: Vec<(&FingerprintSnapshot, Statement)> =
        sorted.into_iter().filter_map(|f| Some((f, statement::read(&f.query, catalog)?))).collect();
    let all = Observed { catalog, read: &read };
    read.iter()
        .flat_map(|(f, statement)| {
            [
                all.offset_paging(f, statement),
                all.missing_where(f, statement),
                all.missing_limit(f, statement),
                all.one_row_inserts(f, statement),
                all.n_plus_one(f, statement),
                all.repeated_reads(f, statement),
            ]
        })
        .flatten()
        .collect()
}

struct Observed<'a> {
    catalog: &'a Catalog,
    read: &'a [(&'a FingerprintSnapshot, Statement)],
}

impl<'a> Observed<'a> {
    fn table(&self, used: &Use) -> Option<&'a Table> {
        self.catalog.resolve(Some(&used.schema), &used.table)
    }

    /// The one use of a SELECT from one table that is not small.
    fn large<'s>(&self, statement: &'s Statement) -> Option<(&'s Use, &'a Table)> {
        let [used] = statement.uses.as_slice() else { return None };
        let table = self.table(used)?;
        (statement.kind == Kind::Select && !table.small()).then_some((used, table))
    }

    /// Deep and climbing OFFSET: every page reads all pages before it.
    fn offset_paging(&self, f: &FingerprintSnapshot, statement: &Statement) -> Option<Finding> {
        let depth = f.offset.as_ref().filter(|depth| depth.count >= PAGES_MIN && depth.max >= OFFSET_MIN)?;
        let (used, table) = self.large(statement)?;
        let mean = depth.sum / depth.count.max(1);
        if mean < OFFSET_MIN / 4 {
            return None;
        }
        let evidence = format!(
            "{} executions skip {mean} rows on average and {} at most by OFFSET{}; every skipped row is read \
             and thrown away.",
            depth.count,
            depth.max,
            if depth.climbing > 0 {
                format!(", and {} times a client went on to the next page", depth.climbing)
            } else {
                String::new()
            },
        );
        let sql = rewrite::keyset(&f.query, used, table);
        // The page after a given row has the same rows; only how it is asked for changes.
        Some(finding(f, "offset_paging", evidence, sql, true, false))
    }

    /// A whole table sent, while others read it by a column.
    fn missing_where(&self, f: &FingerprintSnapshot, statement: &Statement) -> Option<Finding> {
        let (used, table) = self.large(statement)?;
        let unfiltered = used.equal.is_empty() && used.range.is_empty() && used.joined.is_empty();
        // With a LIMIT, and where one row sums up all, the whole table is meant: an index may serve it.
        if used.limited || !unfiltered || !many_rows(f) || !rewrite::unfiltered(&f.query) {
            return None;
        }
        let column = self.filtered_by(used, f, table)?;
        let evidence = format!(
            "{} calls read all {} rows of {} and returned {} on average: there is no WHERE. Other statements read \
             the table by {column}.",
            f.calls,
            table.rows,
            table.name,
            f.rows / f.calls.max(1),
        );
        let sql = rewrite::with_where(&f.query, &used.alias, &column);
        Some(finding(f, "missing_where", evidence, sql, false, false))
    }

    /// The column by which other statements filter the same table most often.
    fn filtered_by(&self, used: &Use, f: &FingerprintSnapshot, table: &Table) -> Option<String> {
        let mut calls: Vec<(String, u64)> = Vec::new();
        for (other, statement) in self.read.iter().filter(|(other, _)| other.id != f.id) {
            for same in statement.uses.iter().filter(|u| u.table == used.table && u.schema == used.schema) {
                for column in same.equal.iter().filter(|column| groups(table, column)) {
                    match calls.iter_mut().find(|(name, _)| name == column) {
                        Some((_, count)) => *count += other.calls,
                        None => calls.push((column.clone(), other.calls)),
                    }
                }
            }
        }
        calls.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name)
    }

    /// Many rows a call with no LIMIT.
    fn missing_limit(&self, f: &FingerprintSnapshot, statement: &Statement) -> Option<Finding> {
        let (used, table) = self.large(statement)?;
        let mean = f.rows / f.calls.max(1);
        if used.limited || table.unique_in(&used.equal) || !many_rows(f) {
            return None;
        }
        let sql = rewrite::with_limit(&f.query)?;
        let evidence = format!(
            "{} calls returned {mean} rows on average and {} at most ({} bytes a call), with no LIMIT.",
            f.calls,
            f.max_rows,
            f.bytes / f.calls.max(1)
        );
        Some(finding(f, "missing_limit", evidence, Some(sql), false, true))
    }

    /// Bursts of INSERTs of one row each.
    fn one_row_inserts(&self, f: &FingerprintSnapshot, statement: &Statement) -> Option<Finding> {
        let single = statement.kind == Kind::Insert && rewrite::inserts_one_row(&f.query);
        if !single || !in_runs(f) || f.rows > f.calls.saturating_mul(2) {
            return None;
        }
        let sql = rewrite::unnest(&f.query, self.catalog);
        let evidence = format!(
            "{} of {} calls came in {} runs by one client, {} in the longest, one row each: a round trip and, \
             outside a transaction, a flush of the log for every row.",
            f.bursts.calls_in_runs, f.calls, f.bursts.runs, f.bursts.longest_run
        );
        Some(finding(f, "one_row_inserts", evidence, sql, true, false))
    }

    /// One look-up after another for the rows of an earlier answer.
    fn n_plus_one(&self, f: &FingerprintSnapshot, statement: &Statement) -> Option<Finding> {
        let looks_up = statement.uses.iter().any(|used| !used.equal.is_empty());
        if statement.kind != Kind::Select || !looks_up || !in_runs(f) || !varied(f) {
            return None;
        }
        let after = match &f.bursts.parent {
            Some(parent) => format!(", most often right after fingerprint {parent}"),
            None => String::new(),
        };
        let evidence = format!(
            "{} of {} calls came in {} runs by one client, {} in the longest, with {} different values{after}: one \
             statement can fetch them all.",
            f.bursts.calls_in_runs,
            f.calls,
            f.bursts.runs,
            f.bursts.longest_run,
            f.bursts.distinct_binds_in_runs
        );
        let sql = rewrite::any(&f.query, statement, self.catalog);
        Some(finding(f, "n_plus_one", evidence, sql, true, false))
    }

    /// The same rows read again and again.
    fn repeated_reads(&self, f: &FingerprintSnapshot, statement: &Statement) -> Option<Finding> {
        #[allow(clippy::cast_precision_loss)]
        let share = f.repeats.hits as f64 / f.repeats.calls.max(1) as f64;
        let keyed = statement.uses.iter().any(|used| !used.equal.is_empty());
        // A run of different values is an N+1; the same answer once more is what a cache is for.
        if statement.kind != Kind::Select
            || !keyed
            || f.repeats.hits < REPEATS_MIN
            || share < REPEAT_SHARE_MIN
            || (in_runs(f) && varied(f))
        {
            return None;
        }
        if f.rows > f.calls.saturating_mul(10) {
            return None;
        }
        let evidence = format!(
            "{} of {} calls asked for what had been asked with the same values within 60 s: keep the answer in \
             the application for a moment.",
            f.repeats.hits, f.repeats.calls
        );
        let sql = format!("/* once for each value, then from memory */ {}", f.query);
        Some(finding(f, "repeated_reads", evidence, Some(sql), true, false))
    }
}

/// Whether a value of the column stands for several rows: not a key, declared or in fact.
fn groups(table: &Table, column: &str) -> bool {
    !table.unique_in(&[column.to_owned()]) && table.distinct(column) * 5.0 <= table.rows
}

/// Whether an execution answers with more rows than somebody reads.
fn many_rows(f: &FingerprintSnapshot) -> bool {
    let mean = f.rows / f.calls.max(1);
    mean >= ROWS_MEAN_MIN || (f.max_rows >= ROWS_MAX_MIN && mean >= ROWS_MEAN_MIN / 5)
}

/// Whether the values in runs mostly differ.
fn varied(f: &FingerprintSnapshot) -> bool {
    f.bursts.distinct_binds_in_runs * 2 >= f.bursts.calls_in_runs
}

/// Whether most calls come in runs.
#[allow(clippy::cast_precision_loss)]
fn in_runs(f: &FingerprintSnapshot) -> bool {
    f.bursts.runs >= RUNS_MIN && f.bursts.calls_in_runs as f64 >= f.calls as f64 * RUN_SHARE_MIN
}

fn finding(
    f: &FingerprintSnapshot,
    kind: &str,
    evidence: String,
    sql_after: Option<String>,
    same_rows: bool,
    live: bool,
) -> Finding {
    let live = live && sql_after.is_some();
    let id = format!("{kind}-{}", f.id);
    Finding { id, kind: kind.to_owned(), fingerprint: f.id.clone(), evidence, sql_after, same_rows, live }
}

/// Proves by Describe that a replacement takes the same parameters and gives the same columns; the error says
/// what differs. Nothing is executed.
pub async fn prove(client: &Client, original: &str, replacement: &str) -> Result<(), String> {
    let described = |sql: String| async move {
        let statement = client.prepare(&sql).await.map_err(|error| AdvisorError::from(error).to_string())?;
        let parameters: Vec<u32> = statement.params().iter().map(tokio_postgres::types::Type::oid).collect();
        let columns: Vec<(String, u32)> = statement
            .columns()
            .iter()
            .map(|column| (column.name().to_owned(), column.type_().oid()))
            .collect();
        Ok::<_, String>((parameters, columns))
    };
    let before = described(original.to_owned()).await?;
    let after = described(replacement.to_owned()).await?;
    if before.0 != after.0 {
        return Err(format!("parameter types differ: {:?} and {:?}", before.0, after.0));
    }
    if before.1 != after.1 {
        return Err("columns differ in name, type or order".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
