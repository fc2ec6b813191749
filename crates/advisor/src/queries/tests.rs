#![allow(clippy::unwrap_used)]
use stats::{Bursts, Depth, FingerprintSnapshot, Repeats};

use super::{Finding, find};
use crate::catalog::{Catalog, Column, Index, Table};

fn table(name: &str, rows: f64, columns: &[&str]) -> Table {
    let column = |name: &&str| Column {
        name: (*name).to_owned(),
        type_name: "bigint".to_owned(),
        btree: true,
        not_null: true,
        width_bytes: 8.0,
        distinct: 0.0,
    };
    let key = Index {
        name: format!("{name}_pkey"),
        columns: vec![columns[0].to_owned()],
        descending: vec![false],
        plain: true,
        valid: true,
        unique: true,
    };
    Table {
        schema: "public".to_owned(),
        name: name.to_owned(),
        rows,
        pages: 8_000,
        partitioned: false,
        columns: columns.iter().map(column).collect(),
        indexes: vec![key],
    }
}

fn catalog() -> Catalog {
    let large = table("orders", 1e6, &["id", "customer", "placed", "total"]);
    let small = table("colours", 200.0, &["id", "customer"]);
    Catalog::of(vec![large, small], vec!["public".to_owned()])
}

fn seen(id: &str, query: &str, rows: u64) -> FingerprintSnapshot {
    let (id, query) = (id.to_owned(), query.to_owned());
    FingerprintSnapshot { id, query, calls: 100, rows: rows * 100, max_rows: rows, ..Default::default() }
}

fn only(fingerprint: FingerprintSnapshot) -> Option<Finding> {
    let mut found = find(&catalog(), &[fingerprint]);
    assert!(found.len() <= 1, "{found:?}");
    found.pop()
}

#[test]
fn many_rows_without_a_limit() {
    let found =
        only(seen("a", "SELECT * FROM orders WHERE customer = $1 ORDER BY placed DESC", 500)).unwrap();
    assert_eq!(found.kind, "missing_limit");
    let expected = "SELECT * FROM orders WHERE customer = $1 ORDER BY placed DESC LIMIT 100";
    assert_eq!(found.sql_after.as_deref(), Some(expected));
    assert!(found.live && !found.same_rows);
}

#[test]
fn look_alikes_give_nothing() {
    assert_eq!(only(seen("a", "SELECT * FROM orders WHERE customer = $1 LIMIT $2", 500)), None);
    assert_eq!(only(seen("a", "SELECT * FROM orders WHERE customer = $1", 5)), None);
    assert_eq!(only(seen("a", "SELECT * FROM colours", 200)), None);
    assert_eq!(only(seen("a", "SELECT * FROM orders WHERE id = $1", 1)), None);
    assert_eq!(only(seen("a", "SELECT id FROM orders ORDER BY id LIMIT $1 OFFSET $2", 20)), None);
    assert_eq!(only(seen("a", "INSERT INTO orders (id, total) VALUES ($1, $2)", 1)), None);
}

#[test]
fn deep_offset_becomes_a_key() {
    let mut f = seen("a", "SELECT id, total FROM orders ORDER BY total DESC LIMIT $1 OFFSET $2", 20);
    f.offset = Some(Depth { min: 0, max: 90_000, sum: 4_000_000, count: 100, climbing: 80 });
    let found = find(&catalog(), &[f]).into_iter().find(|f| f.kind == "offset_paging").unwrap();
    let sql = found.sql_after.unwrap();
    assert!(sql.contains("(orders.total, orders.id) < ($2, $3)"), "{sql}");
    assert!(!sql.contains("OFFSET") && sql.ends_with("LIMIT $1"), "{sql}");
}

#[test]
fn a_whole_table_is_filtered_by_what_others_use() {
    let whole = seen("a", "SELECT customer, total FROM orders ORDER BY total DESC", 50_000);
    let other = seen("b", "SELECT id FROM orders WHERE customer = $1 LIMIT $2", 10);
    let found = find(&catalog(), &[whole.clone(), other.clone()]);
    let kinds: Vec<&str> = found.iter().map(|f| f.kind.as_str()).collect();
    assert_eq!(kinds, ["missing_where", "missing_limit"], "{found:?}");
    assert!(found[0].sql_after.as_ref().unwrap().contains("WHERE orders.customer = $1"));
    // The first rows of all, and one row that sums up all, are meant as they are.
    let first = "SELECT customer, total FROM orders ORDER BY total DESC LIMIT $1";
    assert_eq!(find(&catalog(), &[seen("a", first, 10), other.clone()]), []);
    assert_eq!(find(&catalog(), &[seen("a", "SELECT count(*) FROM orders", 1), other]), []);
}

#[test]
fn runs_of_inserts_become_one() {
    let mut f = seen("a", "INSERT INTO orders (customer, total, placed) VALUES ($1, $2, now())", 1);
    f.bursts = Bursts { runs: 10, calls_in_runs: 100, longest_run: 10, ..Bursts::default() };
    let found = only(f).unwrap();
    assert_eq!(found.kind, "one_row_inserts");
    let sql = found.sql_after.unwrap();
    assert!(sql.contains("now() FROM unnest($1::bigint[], $2::bigint[])"), "{sql}");
}

#[test]
fn runs_of_look_ups_become_one() {
    let mut f = seen("a", "SELECT total FROM orders WHERE id = $1", 1);
    f.bursts = Bursts {
        runs: 10,
        calls_in_runs: 100,
        longest_run: 10,
        distinct_binds_in_runs: 95,
        ..Bursts::default()
    };
    let found = only(f.clone()).unwrap();
    assert_eq!(found.kind, "n_plus_one");
    let sql = found.sql_after.unwrap();
    assert!(sql.contains("= ANY($1::bigint[])") && sql.contains("orders.id"), "{sql}");
    f.bursts.calls_in_runs = 10;
    assert_eq!(only(f), None);
}

#[test]
fn the_same_read_again() {
    let mut f = seen("a", "SELECT total FROM orders WHERE id = $1", 1);
    f.repeats = Repeats { hits: 90, calls: 100 };
    let found = only(f.clone()).unwrap();
    assert_eq!(found.kind, "repeated_reads");
    assert!(found.sql_after.unwrap().ends_with("SELECT total FROM orders WHERE id = $1"));
    f.bursts = Bursts {
        runs: 30,
        calls_in_runs: 100,
        longest_run: 4,
        distinct_binds_in_runs: 30,
        ..Bursts::default()
    };
    assert_eq!(only(f.clone()).unwrap().kind, "repeated_reads");
    f.repeats.hits = 10;
    assert_eq!(only(f), None);
}
