//! The doctor on databases in which something is wrong, and on what it may not see or must not do.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use advisor::doctor::{self, Examination, Severity, Thresholds};
use lab::postgres::{StartOptions, Throwaway, USER};
use tokio_postgres::{Client, NoTls};

const SCHEMA: &str = r#"
CREATE EXTENSION pg_stat_statements;
CREATE TABLE "Goods" AS SELECT n AS key, n % 5000 AS shelf, n % 7 AS kind, repeat('x', 60) AS label
  FROM generate_series(1, 60000) n;
CREATE INDEX once ON "Goods" (key);
CREATE INDEX twice ON "Goods" (key);
CREATE INDEX idle ON "Goods" (kind, key);
CREATE INDEX longer ON "Goods" (label, key);
CREATE INDEX shorter ON "Goods" (label);
CREATE TABLE turned AS SELECT n AS key FROM generate_series(1, 20000) n;
ANALYZE "Goods"; ANALYZE turned;
UPDATE turned SET key = key + 1"#;

fn settings(list: &[(&str, &str)]) -> StartOptions {
    let settings = list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    StartOptions { settings, ..StartOptions::default() }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A database with one of each problem, and the connections that are some of them.
async fn sick() -> (Throwaway, Client, Vec<Client>) {
    let server = Throwaway::start(&settings(&[
        ("max_connections", "20"),
        ("autovacuum", "off"),
        ("shared_preload_libraries", "pg_stat_statements"),
    ]))
    .unwrap();
    let url = server.url("postgres");
    let client = connect(&url).await;
    client.batch_execute(SCHEMA).await.unwrap();
    client.batch_execute(r#"CREATE UNIQUE INDEX CONCURRENTLY broken ON "Goods" (kind)"#).await.unwrap_err();
    for shelf in 0..60_i32 {
        client.query(r#"SELECT label FROM "Goods" WHERE shelf = $1"#, &[&shelf]).await.unwrap();
    }
    let mut others = Vec::new();
    for _ in 0..15 {
        others.push(connect(&url).await);
    }
    others[0].batch_execute("BEGIN; SELECT 1 FROM turned LIMIT 1").await.unwrap();
    let counted = "SELECT seq_scan >= 60 FROM pg_stat_user_tables WHERE relname = 'Goods'";
    let began = Instant::now();
    while !client.query_one(counted, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(began.elapsed() < Duration::from_secs(30), "the scans were never counted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (server, client, others)
}

fn titles(found: &Examination) -> Vec<String> {
    found.problems.iter().map(|problem| problem.title.clone()).collect()
}

fn has(found: &Examination, piece: &str) -> bool {
    titles(found).iter().any(|title| title.contains(piece))
}

const STRICT: Thresholds = Thresholds { transaction_s: 0.0, idle_in_transaction_s: 0.0, slow_mean_ms: 0.0 };

#[tokio::test(flavor = "multi_thread")]
async fn every_planted_problem_is_listed_worst_first_with_its_remedy() {
    let (_server, client, others) = sick().await;
    let found = doctor::examine_by(&client, STRICT).await.unwrap();
    let expected = [
        "connections are running out",
        "idle in a transaction",
        "a transaction has been open",
        "index public.broken is invalid",
        "doubles",
        "index public.idle is not used",
        "index public.shorter is the beginning of public.longer",
        "the statistics of public.turned are stale",
        r#"public."Goods" is read whole"#,
        "Goods has no index on (shelf)",
        "a frequent statement is slow",
        "autovacuum is off",
    ];
    for piece in expected {
        assert!(has(&found, piece), "{piece}: {found:#?}");
    }
    assert!(
        found.problems.windows(2).all(|pair| pair[0].severity <= pair[1].severity),
        "{:#?}",
        titles(&found)
    );
    assert_eq!(found.problems[0].severity, Severity::Critical);
    assert!(found.problems.iter().all(|problem| !problem.evidence.is_empty() && !problem.remedy.is_empty()));
    assert!(!found.healthy() && found.skipped.is_empty(), "{:?}", found.skipped);
    assert_eq!(found.connections.iter().map(|group| group.count).sum::<i64>(), 15);
    assert!(!found.slowest.is_empty() && found.slowest.len() <= 5);

    // The remedies that are statements are statements that help.
    others[0].batch_execute("COMMIT").await.unwrap();
    drop(others);
    for problem in &found.problems {
        let sql = problem.remedy.split(';').next().unwrap();
        if let Some(at) = ["DROP INDEX", "CREATE INDEX", "ANALYZE "].iter().find_map(|word| sql.find(word)) {
            client.batch_execute(&sql[at..]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
    }
    let cured = doctor::examine_by(&client, Thresholds { slow_mean_ms: 1e9, ..STRICT }).await.unwrap();
    for piece in [
        "invalid",
        "doubles",
        "beginning of",
        "public.idle",
        "stale",
        "has no index",
        "running out",
        "in a transaction",
    ] {
        assert!(!has(&cured, piece), "{piece}: {:#?}", cured.problems);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_rights_is_told_what_it_could_not_see() {
    let (server, client, _others) = sick().await;
    client.batch_execute("CREATE ROLE plain LOGIN PASSWORD 'plain'").await.unwrap();
    let url = server.url("postgres").replace(&format!("{USER}:{}", server.password()), "plain:plain");
    let found = doctor::examine_by(&connect(&url).await, STRICT).await.unwrap();
    for piece in ["connections are running out", "invalid", "doubles", "stale", "is read whole"] {
        assert!(has(&found, piece), "{piece}: {found:#?}");
    }
    let hidden: Vec<&String> = found.skipped.iter().filter(|part| part.contains("pg_monitor")).collect();
    assert_eq!(hidden.len(), 2, "{:#?}", found.skipped);
    assert!(!has(&found, "idle in a transaction"), "it cannot know");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_read_only_under_time_outs_and_waits_for_no_lock() {
    let (server, client, _others) = sick().await;
    // What runs inside of it tells of its settings; a write of it would be refused.
    let view = "ALTER EXTENSION pg_stat_statements DROP VIEW pg_stat_statements; DROP VIEW pg_stat_statements; \
        CREATE TABLE written (a int); \
        CREATE FUNCTION writes() RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.written VALUES (1); \
          RETURN 'written'; EXCEPTION WHEN read_only_sql_transaction THEN RETURN 'refused'; END $$; \
        CREATE VIEW pg_stat_statements AS SELECT concat_ws(' ', 'read_only_' || current_setting('transaction_read_only'), \
          'in_' || current_setting('statement_timeout'), 'locks_' || current_setting('lock_timeout'), \
          current_setting('search_path'), public.writes()) AS query, 1::bigint AS calls, 1::float8 AS mean_exec_time, \
          1::float8 AS total_exec_time, oid AS dbid FROM pg_database WHERE datname = current_database() \
        UNION ALL SELECT 'ALTER ROLE somebody PASSWORD ''geheim''', 1, 1, 0.5, oid FROM pg_database";
    client.batch_execute(view).await.unwrap();
    let found = doctor::examine(&client).await.unwrap();
    let told: Vec<&str> = found.slowest.iter().map(|slow| slow.query.as_str()).collect();
    let expected = ["read_only_on in_5s locks_500ms pg_catalog refused", "ALTER role somebody password $1"];
    assert_eq!(told, expected, "{found:#?}");
    let after = "SELECT current_setting('statement_timeout') || current_setting('transaction_read_only')";
    assert_eq!(client.query_one(after, &[]).await.unwrap().get::<_, String>(0), "0off", "nothing stays");

    let other = connect(&server.url("postgres")).await;
    other.batch_execute(r#"BEGIN; LOCK TABLE "Goods" IN ACCESS EXCLUSIVE MODE"#).await.unwrap();
    let found = doctor::examine(&client).await.unwrap();
    assert!(found.skipped.iter().any(|part| part.contains("55P03")), "{:?}", found.skipped);
    assert!(has(&found, "connections are running out"), "the rest is looked at: {found:#?}");
}
