//! Which indexes are advised on a real PostgreSQL, and which are not: what is there already, what writes would pay
//! for, what the planner does not want.
#![allow(clippy::unwrap_used)]

use advisor::indexes::{self, IndexAdvice};
use lab::postgres::{StartOptions, Throwaway};
use stats::FingerprintSnapshot;
use tokio_postgres::{Client, NoTls};

const SCHEMA: &str = r#"
CREATE TABLE boxes (key bigint PRIMARY KEY, shelf bigint NOT NULL, placed timestamptz NOT NULL, weight int NOT NULL,
  email text NOT NULL, done timestamptz, open boolean NOT NULL, label text NOT NULL);
INSERT INTO boxes SELECT n, n % 4000, now() - n * interval '1 minute', n % 100, 'Name' || n || '@example.org',
  CASE WHEN n % 500 <> 0 THEN now() END, n % 300 = 0, repeat('x', 120) FROM generate_series(1, 60000) n;
CREATE TABLE parts (key bigint NOT NULL, region bigint NOT NULL) PARTITION BY RANGE (key);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (30000);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (30000) TO (60000);
INSERT INTO parts SELECT n, n % 500 FROM generate_series(1, 59000) n;
VACUUM ANALYZE boxes; ANALYZE parts"#;

async fn started(more: &str) -> (Throwaway, Client, bool) {
    let server = Throwaway::start(&StartOptions::default()).unwrap();
    let (client, connection) = tokio_postgres::connect(&server.url("postgres"), NoTls).await.unwrap();
    tokio::spawn(connection);
    for statement in SCHEMA.split(';').chain(more.split(';')) {
        client.batch_execute(statement).await.unwrap();
    }
    let priced = indexes::enable_hypopg(&client).await.is_ok();
    (server, client, priced)
}

fn seen(query: &str, calls: u64) -> FingerprintSnapshot {
    let id = format!("{:016x}", fingerprint(query));
    FingerprintSnapshot { id, query: query.to_owned(), calls, rows: calls, ..FingerprintSnapshot::default() }
}

fn fingerprint(query: &str) -> u64 {
    query.bytes().fold(7, |hash, byte| hash * 31 % 1_000_000_007 + u64::from(byte))
}

async fn advised(client: &Client, seen: &[FingerprintSnapshot]) -> Vec<IndexAdvice> {
    indexes::advise(client, seen).await.unwrap()
}

fn targets(advice: &[IndexAdvice]) -> Vec<&str> {
    advice.iter().map(|index| index.sql_up.split(" ON ").nth(1).unwrap()).collect()
}

const BY_SHELF: &str = "SELECT label FROM boxes WHERE shelf = $1";
const NEWEST: &str = "SELECT label FROM boxes WHERE shelf = $1 ORDER BY placed DESC LIMIT $2";

#[tokio::test(flavor = "multi_thread")]
async fn what_exists_is_not_advised_again() {
    let (_server, client, _priced) = started("").await;
    let look = [seen(BY_SHELF, 1_000)];
    assert_eq!(targets(&advised(&client, &look).await), ["public.boxes (shelf)"]);
    let kept = [
        "CREATE INDEX there ON boxes (shelf)",
        "CREATE INDEX there ON boxes (shelf DESC NULLS LAST)",
        "CREATE UNIQUE INDEX there ON boxes (shelf, key)",
        "CREATE INDEX there ON boxes (shelf) INCLUDE (label)",
        "CREATE INDEX there ON boxes USING hash (shelf)",
    ];
    for create in kept {
        client.batch_execute(create).await.unwrap();
        assert_eq!(targets(&advised(&client, &look).await), Vec::<&str>::new(), "{create}");
        client.batch_execute("DROP INDEX there").await.unwrap();
    }
    let not_enough = [
        "CREATE INDEX there ON boxes (shelf) WHERE weight > 90",
        "CREATE INDEX there ON boxes ((shelf + 1))",
        "CREATE INDEX there ON boxes USING brin (shelf)",
    ];
    for create in not_enough {
        client.batch_execute(create).await.unwrap();
        assert_eq!(targets(&advised(&client, &look).await), ["public.boxes (shelf)"], "{create}");
        client.batch_execute("DROP INDEX there").await.unwrap();
    }
    // A failed build's leftover serves nobody: another name is taken, and the leftover is named.
    client
        .batch_execute("CREATE UNIQUE INDEX CONCURRENTLY idx_boxes_shelf ON boxes (shelf)")
        .await
        .unwrap_err();
    let advice = advised(&client, &look).await;
    assert_eq!(advice[0].name, "idx_boxes_shelf_2");
    assert!(advice[0].reason.contains("idx_boxes_shelf on the same columns"), "{}", advice[0].reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_index_takes_the_place_of_its_prefix() {
    let (_server, client, priced) = started("").await;
    let advice = advised(&client, &[seen(BY_SHELF, 1_000), seen(NEWEST, 1_000)]).await;
    assert_eq!(advice.len(), 1, "{advice:#?}");
    assert_eq!(advice[0].columns[0], "shelf");
    if priced {
        let plan = advice[0].plan_after.as_ref().unwrap();
        assert!(plan.contains(&advice[0].name) && !plan.contains("btree_"), "{plan}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_pay_for_an_index() {
    let (_server, client, priced) = started("").await;
    if !priced {
        return;
    }
    let look = seen(BY_SHELF, 10);
    let insert = "INSERT INTO boxes (key, shelf) VALUES ($1, $2)";
    let few = advised(&client, &[look.clone(), seen(insert, 100)]).await;
    assert_eq!(targets(&few), ["public.boxes (shelf)"]);
    assert!(few[0].reason.contains("make 100 entries"), "{}", few[0].reason);
    let none: Vec<&str> = Vec::new();
    assert_eq!(targets(&advised(&client, &[look.clone(), seen(insert, 1_000_000)]).await), none);
    let moves = "UPDATE boxes SET shelf = $1 WHERE key = $2";
    assert_eq!(targets(&advised(&client, &[look.clone(), seen(moves, 1_000_000)]).await), none);
    let other = "UPDATE boxes SET label = $1 WHERE key = $2";
    assert_eq!(targets(&advised(&client, &[look, seen(other, 1_000_000)]).await), ["public.boxes (shelf)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn include_partial_and_expression_indexes_where_the_planner_gains() {
    let (_server, client, priced) = started("").await;
    if !priced {
        return;
    }
    let sum = "SELECT sum(weight) FROM boxes WHERE shelf = $1";
    let covering = advised(&client, &[seen(sum, 1_000)]).await;
    assert_eq!(targets(&covering), ["public.boxes (shelf) INCLUDE (weight)"]);
    assert!(covering[0].plan_after.as_ref().unwrap().contains("Index Only Scan"));
    let insert = seen("INSERT INTO boxes (key, shelf) VALUES ($1, $2)", 100);
    assert_eq!(targets(&advised(&client, &[seen(sum, 1_000), insert]).await), ["public.boxes (shelf)"]);

    let pending = "SELECT label FROM boxes WHERE done IS NULL ORDER BY placed LIMIT $1";
    let open = "SELECT label FROM boxes WHERE open AND placed < $1";
    assert_eq!(
        targets(&advised(&client, &[seen(pending, 1_000)]).await),
        ["public.boxes (placed) WHERE done IS NULL"]
    );
    assert_eq!(targets(&advised(&client, &[seen(open, 1_000)]).await), ["public.boxes (placed) WHERE open"]);

    let email = "SELECT label FROM boxes b WHERE lower(b.email) = $1";
    let advice = advised(&client, &[seen(email, 1_000)]).await;
    assert_eq!(targets(&advice), ["public.boxes ((lower(email)))"]);
    assert_eq!((advice[0].name.as_str(), advice[0].columns[0].as_str()), ("idx_boxes_email", "email"));
    // Not immutable: PostgreSQL would not build it.
    let day = "SELECT label FROM boxes WHERE date(placed) = $1";
    assert_eq!(targets(&advised(&client, &[seen(day, 1_000)]).await), Vec::<&str>::new());
    for index in [&covering[0], &advice[0]] {
        client.batch_execute(&index.sql_up).await.unwrap();
    }
    assert_eq!(targets(&advised(&client, &[seen(sum, 1_000), seen(email, 1_000)]).await), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn partitioned_tables_are_refused_in_words() {
    let (_server, client, _priced) = started("").await;
    let look = [seen("SELECT key FROM parts WHERE region = $1", 1_000)];
    let advice = indexes::consider(&client, &look).await.unwrap();
    assert_eq!(advice.indexes, []);
    let remark = advice.remarks.iter().find(|remark| remark.contains("partitioned")).unwrap();
    assert!(remark.contains("CREATE INDEX ON ONLY public.parts (region)"), "{remark}");
    client.batch_execute("CREATE INDEX ON parts (region)").await.unwrap();
    let advice = indexes::consider(&client, &look).await.unwrap();
    assert!(!advice.remarks.iter().any(|remark| remark.contains("partitioned")), "{:?}", advice.remarks);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_quoted_cut_and_unique() {
    let long = "a_very_long_name_of_a_column_that_leaves_no_room_for_more_ü";
    let table = format!(
        "CREATE TABLE \"Größe von Allem\" (\"{long}1\" bigint NOT NULL, \"{long}2\" bigint NOT NULL, \"select\" bigint); \
         INSERT INTO \"Größe von Allem\" SELECT n, n, n FROM generate_series(1, 30000) n; ANALYZE \"Größe von Allem\""
    );
    let (_server, client, _priced) = started(&table).await;
    let by =
        |column: &str| seen(&format!("SELECT 1 FROM \"Größe von Allem\" WHERE \"{column}\" = $1"), 1_000);
    let look = [by(&format!("{long}1")), by(&format!("{long}2")), by("select")];
    let advice = advised(&client, &look).await;
    assert_eq!(advice.len(), 3, "{advice:#?}");
    for index in &advice {
        assert!(index.name.len() <= 63 && index.name.starts_with("idx_Größe von Allem_"), "{}", index.name);
        client.batch_execute(&index.sql_up).await.unwrap();
        let there = "SELECT 1 FROM pg_class WHERE relname = $1";
        client.query_one(there, &[&index.name]).await.unwrap();
    }
    assert_eq!(advised(&client, &look).await, []);
}
