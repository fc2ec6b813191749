//! The fingerprints that took most time, and the sum of the others.

use std::collections::BTreeSet;

use stats::{FingerprintSnapshot, Snapshot};

use super::text::{Labels, Page, seconds};

/// Fingerprints of all pools that have series of their own.
const TOP: usize = 50;

/// Longest query text in a label, in characters.
const QUERY_LIMIT: usize = 120;

/// Writes one fingerprint's part of a family.
type Write<'a> = &'a dyn Fn(&mut Page, Labels<'_>, &FingerprintSnapshot);

/// Writes the families of fingerprints.
pub(super) fn write(page: &mut Page, snapshot: &Snapshot) {
    let shown = select(snapshot);
    let labels = |f: &FingerprintSnapshot| [("pool", f.pool.clone()), ("fingerprint", f.id.clone())];
    let mut each = |name: &str, kind: &str, help: &str, sample: Write<'_>| {
        page.family(name, kind, help);
        for fingerprint in &shown {
            let owned = labels(fingerprint);
            let borrowed: Vec<(&str, &str)> =
                owned.iter().map(|(label, value)| (*label, value.as_str())).collect();
            sample(page, &borrowed, fingerprint);
        }
    };
    each(
        "poolwright_fingerprint_query_seconds",
        "histogram",
        "Server time of statements, by fingerprint.",
        &|page, labels, f| page.histogram(labels, &f.server_time),
    );
    each(
        "poolwright_fingerprint_wait_seconds",
        "histogram",
        "Time in the queue before statements, by fingerprint.",
        &|page, labels, f| page.histogram(labels, &f.acquire_wait),
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
    page.family("poolwright_fingerprint_info", "gauge", "What a fingerprint stands for, without literals.");
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

/// The top ones as they are, and per pool one `other` that holds the rest, so that sums stay exact.
///
/// A fingerprint that falls out of the top takes its counts to `other`: there `rate` sees a rise, here a series
/// that ends, never one that goes down and up.
fn select(snapshot: &Snapshot) -> Vec<FingerprintSnapshot> {
    let mut ranked: Vec<&FingerprintSnapshot> =
        snapshot.fingerprints.iter().filter(|f| f.calls > 0).collect();
    ranked.sort_by(|a, b| {
        let time = |f: &FingerprintSnapshot| f.server_time.sum_us();
        time(b).cmp(&time(a)).then_with(|| (&a.pool, &a.id).cmp(&(&b.pool, &b.id)))
    });
    let mut shown: Vec<FingerprintSnapshot> = Vec::new();
    let mut others: Vec<FingerprintSnapshot> = Vec::new();
    for fingerprint in ranked {
        if fingerprint.id != "other" && shown.len() < TOP {
            shown.push(fingerprint.clone());
            continue;
        }
        let place = others.iter().position(|other| other.pool == fingerprint.pool).unwrap_or_else(|| {
            others.push(FingerprintSnapshot {
                pool: fingerprint.pool.clone(),
                id: "other".to_owned(),
                query: "other".to_owned(),
                command: "QUERY".to_owned(),
                ..FingerprintSnapshot::default()
            });
            others.len() - 1
        });
        let other = &mut others[place];
        other.calls += fingerprint.calls;
        other.errors += fingerprint.errors;
        other.rows += fingerprint.rows;
        other.bytes += fingerprint.bytes;
        other.hold_us += fingerprint.hold_us;
        other.server_time.merge(&fingerprint.server_time);
        other.acquire_wait.merge(&fingerprint.acquire_wait);
    }
    shown.extend(others);
    shown
}
