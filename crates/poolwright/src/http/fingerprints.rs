//! The families of fingerprints.

use std::collections::BTreeSet;

use stats::FingerprintSnapshot;

use super::text::{Labels, Page, seconds};

/// Longest query text in a label, in characters.
const QUERY_LIMIT: usize = 120;

/// Writes one fingerprint's part of a family.
type Write<'a> = &'a dyn Fn(&mut Page, Labels<'_>, &FingerprintSnapshot);

/// Writes what [`Selection::choose`](super::selection::Selection::choose) gave.
pub(super) fn write(page: &mut Page, shown: &[FingerprintSnapshot]) {
    let labels = |f: &FingerprintSnapshot| [("pool", f.pool.clone()), ("fingerprint", f.id.clone())];
    let mut each = |name: &str, kind: &str, help: &str, sample: Write<'_>| {
        page.family(name, kind, help);
        for fingerprint in shown {
            let owned = labels(fingerprint);
            let borrowed: Vec<(&str, &str)> =
                owned.iter().map(|(label, value)| (*label, value.as_str())).collect();
            sample(page, &borrowed, fingerprint);
        }
    };
    each(
        "poolwright_fingerprint_query_seconds",
        "histogram",
        "Time of a statement on PostgreSQL, by fingerprint; those without a series of their own are `other`.",
        &|page, labels, f| page.histogram(labels, &f.server_time),
    );
    each(
        "poolwright_fingerprint_wait_seconds_total",
        "counter",
        "Time in the queue before statements, by fingerprint.",
        &|page, labels, f| page.sample(labels, seconds(f.acquire_wait.sum_us())),
    );
    each(
        "poolwright_fingerprint_errors_total",
        "counter",
        "Statements that failed, by fingerprint.",
        &|page, labels, f| page.sample(labels, f.errors as f64),
    );
    each(
        "poolwright_fingerprint_rows_total",
        "counter",
        "Rows returned and affected, by fingerprint.",
        &|page, labels, f| page.sample(labels, f.rows as f64),
    );
    each(
        "poolwright_fingerprint_hold_seconds_total",
        "counter",
        "Time for which statements occupied a server connection, by fingerprint.",
        &|page, labels, f| page.sample(labels, seconds(f.hold_us)),
    );
    page.family(
        "poolwright_fingerprint_info",
        "gauge",
        "Command, tables and normalised text of a fingerprint; always 1.",
    );
    let mut seen = BTreeSet::new();
    for fingerprint in shown.iter().filter(|f| seen.insert(f.id.clone())) {
        let mut query: String = fingerprint.query.chars().take(QUERY_LIMIT).collect();
        if query.len() < fingerprint.query.len() {
            query.push('…');
        }
        let mut summary = fingerprint.command.clone();
        for table in &fingerprint.tables {
            summary.push(' ');
            summary.push_str(table);
        }
        let summary: String = summary.chars().take(QUERY_LIMIT).collect();
        page.sample(&[("fingerprint", &fingerprint.id), ("summary", &summary), ("query", &query)], 1.0);
    }
}
