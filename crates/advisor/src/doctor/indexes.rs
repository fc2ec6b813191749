//! Indexes that are missing, unused, doubled or broken; statistics that are stale.

use stats::FingerprintSnapshot;
use tokio_postgres::Client;

use super::{Examination, Severity};
use crate::AdvisorError;

/// Most problems of one sort that are listed.
const LISTED_MAX: i64 = 10;

/// What the planner would gain from an index for the statements of pg_stat_statements that took the most time.
pub(super) async fn missing(
    client: &Client,
    found: &mut Examination,
    schemas: Vec<String>,
) -> Result<(), AdvisorError> {
    let statements: Vec<FingerprintSnapshot> = found
        .texts
        .iter()
        .enumerate()
        .map(|(place, (query, calls))| FingerprintSnapshot {
            id: place.to_string(),
            query: query.clone(),
            calls: u64::try_from(*calls).unwrap_or(0),
            ..FingerprintSnapshot::default()
        })
        .collect();
    for index in crate::indexes::inside(client, schemas, &statements).await?.indexes {
        found.add(
            Severity::Warning,
            2e3 + index.cost_before.max(1.0).log10(),
            format!("{} has no index on ({})", index.table, index.columns.join(", ")),
            index.reason,
            format!("{};", index.sql_up),
        );
    }
    client.batch_execute("SET LOCAL search_path = pg_catalog").await?;
    Ok(())
}

/// Tables of some size that are read whole often.
pub(super) async fn scans(client: &Client, found: &mut Examination) -> Result<(), AdvisorError> {
    let rows = client
        .query(
            "SELECT pg_catalog.format('%I.%I', s.schemaname, s.relname), s.seq_scan, s.seq_tup_read, \
             COALESCE(s.idx_scan, 0), c.reltuples::pg_catalog.float8 \
             FROM pg_catalog.pg_stat_user_tables s JOIN pg_catalog.pg_class c ON c.oid = s.relid \
             WHERE s.seq_scan >= 50 AND c.reltuples >= 10000 AND c.relpages >= 128 \
             AND s.seq_tup_read / s.seq_scan >= c.reltuples / 2 AND s.seq_scan >= COALESCE(s.idx_scan, 0) / 10 \
             ORDER BY s.seq_tup_read DESC LIMIT $1",
            &[&LISTED_MAX],
        )
        .await?;
    for row in rows {
        let (table, scans, read, by_index, rows): (String, i64, i64, i64, f64) =
            (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
        #[allow(clippy::cast_precision_loss)]
        found.add(
            Severity::Warning,
            1e3 + (read as f64).log10(),
            format!("{table} is read whole, again and again"),
            format!(
                "{scans} sequential scans read {read} rows of a table of {rows:.0}; {by_index} used an index."
            ),
            "Index the columns it is looked up by: poolwright optimize URL names them from the statements."
                .to_owned(),
        );
    }
    Ok(())
}

/// Foreign keys with no index on the referencing side.
pub(super) async fn foreign_keys(client: &Client, found: &mut Examination) -> Result<(), AdvisorError> {
    let rows = client
        .query(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), k.conname::pg_catalog.text, \
             (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY u.place) \
              FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY u(attnum, place) \
              JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum), \
             c.reltuples::pg_catalog.float8 \
             FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE k.contype = 'f' AND k.conparentid = 0 AND c.reltuples >= 10000 AND c.relkind = 'r' AND NOT EXISTS ( \
               SELECT 1 FROM pg_catalog.pg_index i WHERE i.indrelid = k.conrelid AND i.indisvalid \
               AND i.indpred IS NULL AND i.indnkeyatts >= pg_catalog.cardinality(k.conkey) \
               AND (SELECT pg_catalog.bool_and(x.attnum = ANY (k.conkey)) FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) \
                    WITH ORDINALITY x(attnum, place) WHERE x.place <= pg_catalog.cardinality(k.conkey))) \
             ORDER BY c.reltuples DESC LIMIT $1",
            &[&LISTED_MAX],
        )
        .await?;
    for row in rows {
        let (table, key, columns, rows): (String, String, String, f64) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        found.add(
            Severity::Warning,
            rows.log10(),
            format!("a foreign key of {table} has no index"),
            format!(
                "{key} on ({columns}): each DELETE or key change on the other side reads all {rows:.0} rows."
            ),
            format!("CREATE INDEX CONCURRENTLY ON {table} ({columns});"),
        );
    }
    Ok(())
}

/// Leftovers of a failed CREATE INDEX CONCURRENTLY: written to, never read. One being built is left out.
pub(super) async fn invalid(client: &Client, found: &mut Examination) -> Result<(), AdvisorError> {
    let rows = client
        .query(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), COALESCE(pg_catalog.pg_relation_size(c.oid), 0) \
             FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE NOT i.indisvalid AND c.relkind = 'i' AND NOT EXISTS (SELECT 1 \
             FROM pg_catalog.pg_stat_progress_create_index p WHERE COALESCE(p.relid, i.indrelid) = i.indrelid) LIMIT $1",
            &[&LISTED_MAX],
        )
        .await?;
    for row in rows {
        let (index, bytes): (String, i64) = (row.get(0), row.get(1));
        #[allow(clippy::cast_precision_loss)]
        found.add(
            Severity::Warning,
            50.0 + (bytes as f64 + 1.0).log10(),
            format!("index {index} is invalid"),
            format!("A build that failed left it: {bytes} bytes, kept up by every write, used by no query."),
            format!("DROP INDEX CONCURRENTLY {index}; then build it again if it was wanted."),
        );
    }
    Ok(())
}

/// Indexes on the very same columns, operator classes, expressions and predicate.
pub(super) async fn duplicates(client: &Client, found: &mut Examination) -> Result<(), AdvisorError> {
    let rows = client
        .query(
            "SELECT a.indexrelid::pg_catalog.regclass::pg_catalog.text, b.indexrelid::pg_catalog.regclass::pg_catalog.text, \
             COALESCE(pg_catalog.pg_relation_size(b.indexrelid), 0) \
             FROM pg_catalog.pg_index a JOIN pg_catalog.pg_index b ON a.indrelid = b.indrelid \
             AND a.indexrelid <> b.indexrelid AND a.indkey::pg_catalog.text = b.indkey::pg_catalog.text \
             AND a.indclass::pg_catalog.text = b.indclass::pg_catalog.text \
             AND a.indcollation::pg_catalog.text = b.indcollation::pg_catalog.text \
             AND a.indoption::pg_catalog.text = b.indoption::pg_catalog.text \
             AND a.indnkeyatts = b.indnkeyatts \
             AND COALESCE(pg_catalog.pg_get_expr(a.indexprs, a.indrelid), '') = COALESCE(pg_catalog.pg_get_expr(b.indexprs, b.indrelid), '') \
             AND COALESCE(pg_catalog.pg_get_expr(a.indpred, a.indrelid), '') = COALESCE(pg_catalog.pg_get_expr(b.indpred, b.indrelid), '') \
             JOIN pg_catalog.pg_class ac ON ac.oid = a.indexrelid JOIN pg_catalog.pg_class bc ON bc.oid = b.indexrelid \
             AND ac.relam = bc.relam JOIN pg_catalog.pg_namespace n ON n.oid = bc.relnamespace \
             WHERE a.indisvalid AND b.indisvalid AND NOT b.indisprimary AND n.nspname !~ '^pg_' \
             AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_constraint k WHERE k.conindid = b.indexrelid) \
             AND (NOT b.indisunique OR a.indisunique) \
             AND (a.indisunique::pg_catalog.int4, b.indexrelid::pg_catalog.int8) > (b.indisunique::pg_catalog.int4, a.indexrelid::pg_catalog.int8) \
             LIMIT $1",
            &[&LISTED_MAX],
        )
        .await?;
    for row in rows {
        let (kept, double, bytes): (String, String, i64) = (row.get(0), row.get(1), row.get(2));
        if found.doomed.contains(&kept) || !found.doomed.insert(double.clone()) {
            continue;
        }
        found.relied_on.insert(kept.clone());
        #[allow(clippy::cast_precision_loss)]
        found.add(
            Severity::Warning,
            (bytes as f64 + 1.0).log10(),
            format!("index {double} doubles {kept}"),
            format!("Both index the same; {bytes} bytes are kept up at every write for nothing."),
            format!("DROP INDEX CONCURRENTLY {double};"),
        );
    }
    Ok(())
}

/// Indexes whose columns are the first ones of another: what they serve, that one serves too.
pub(super) async fn beginnings(client: &Client, found: &mut Examination) -> Result<(), AdvisorError> {
    let rows = client
        .query(
            "SELECT a.indexrelid::pg_catalog.regclass::pg_catalog.text, b.indexrelid::pg_catalog.regclass::pg_catalog.text, \
             COALESCE(pg_catalog.pg_relation_size(a.indexrelid), 0) \
             FROM pg_catalog.pg_index a JOIN pg_catalog.pg_index b ON a.indrelid = b.indrelid \
             AND b.indkey::pg_catalog.text LIKE a.indkey::pg_catalog.text || ' %' \
             AND b.indclass::pg_catalog.text LIKE a.indclass::pg_catalog.text || ' %' \
             AND b.indcollation::pg_catalog.text LIKE a.indcollation::pg_catalog.text || ' %' \
             AND b.indoption::pg_catalog.text LIKE a.indoption::pg_catalog.text || ' %' \
             JOIN pg_catalog.pg_class ac ON ac.oid = a.indexrelid JOIN pg_catalog.pg_class bc ON bc.oid = b.indexrelid \
             JOIN pg_catalog.pg_am m ON m.oid = ac.relam AND m.oid = bc.relam AND m.amname = 'btree' \
             JOIN pg_catalog.pg_namespace n ON n.oid = ac.relnamespace \
             WHERE a.indisvalid AND b.indisvalid AND NOT a.indisunique AND n.nspname !~ '^pg_' \
             AND a.indpred IS NULL AND b.indpred IS NULL AND a.indexprs IS NULL AND b.indexprs IS NULL \
             AND a.indnkeyatts = a.indnatts \
             AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_constraint k WHERE k.conindid = a.indexrelid) \
             ORDER BY 3 DESC LIMIT $1",
            &[&LISTED_MAX],
        )
        .await?;
    for row in rows {
        let (short, long, bytes): (String, String, i64) = (row.get(0), row.get(1), row.get(2));
        if found.doomed.contains(&long) || !found.doomed.insert(short.clone()) {
            continue;
        }
        found.relied_on.insert(long.clone());
        #[allow(clippy::cast_precision_loss)]
        found.add(
            Severity::Notice,
            bytes as f64,
            format!("index {short} is the beginning of {long}"),
            format!("The longer one serves the same look-ups; {bytes} bytes are kept up at every write."),
            format!("If the longer one is not much slower to read: DROP INDEX CONCURRENTLY {short};"),
        );
    }
    Ok(())
}

/// Indexes no query has used since the statistics were reset.
pub(super) async fn unused(client: &Client, found: &mut Examination) -> Result<(), AdvisorError> {
    let rows = client
        .query(
            "SELECT s.indexrelid::pg_catalog.regclass::pg_catalog.text, \
             COALESCE(pg_catalog.pg_relation_size(s.indexrelid), 0) \
             FROM pg_catalog.pg_stat_user_indexes s JOIN pg_catalog.pg_index i ON i.indexrelid = s.indexrelid \
             WHERE s.idx_scan = 0 AND i.indisvalid AND NOT i.indisunique \
             AND pg_catalog.pg_relation_size(s.indexrelid) >= 1048576 \
             AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_constraint k WHERE k.conindid = s.indexrelid) \
             ORDER BY 2 DESC LIMIT $1",
            &[&LISTED_MAX],
        )
        .await?;
    for row in rows {
        let (index, bytes): (String, i64) = (row.get(0), row.get(1));
        if found.doomed.contains(&index) || found.relied_on.contains(&index) {
            continue;
        }
        #[allow(clippy::cast_precision_loss)]
        found.add(
            Severity::Notice,
            bytes as f64,
            format!("index {index} is not used"),
            format!("No scan since the statistics were last reset; {bytes} bytes."),
            format!("If no replica uses it either: DROP INDEX CONCURRENTLY {index};"),
        );
    }
    Ok(())
}

/// Tables that changed much since they were analysed, or never were.
pub(super) async fn statistics(client: &Client, found: &mut Examination) -> Result<(), AdvisorError> {
    let rows = client
        .query(
            "SELECT pg_catalog.format('%I.%I', s.schemaname, s.relname), s.n_live_tup, s.n_mod_since_analyze, \
             GREATEST(s.last_analyze, s.last_autoanalyze) IS NULL \
             FROM pg_catalog.pg_stat_user_tables s WHERE s.n_live_tup >= 10000 \
             AND s.n_mod_since_analyze >= s.n_live_tup / 5 ORDER BY s.n_mod_since_analyze DESC LIMIT $1",
            &[&LISTED_MAX],
        )
        .await?;
    for row in rows {
        let (table, live, changed, never): (String, i64, i64, bool) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        let since = if never { "and it was never analysed" } else { "since it was last analysed" };
        #[allow(clippy::cast_precision_loss)]
        found.add(
            Severity::Warning,
            changed as f64 / live.max(1) as f64,
            format!("the statistics of {table} are stale"),
            format!("{changed} of about {live} rows changed, {since}."),
            format!("ANALYZE {table};"),
        );
    }
    Ok(())
}
