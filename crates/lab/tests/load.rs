//! The load generator against a real PostgreSQL, with the example's schema, data and workload at a tiny scale.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lab::load::{LoadError, LoadPlan, LoadResult, run};
use lab::postgres::{StartOptions, Throwaway};
use lab::workload::Workload;

fn example(file: &str) -> String {
    let path = format!("{}/../../examples/discord-bot/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

async fn execute(url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    lab::script::run(&client, sql).await.unwrap();
}

async fn count(url: &str, sql: &str) -> i64 {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn bot() -> (Throwaway, String, Arc<Workload>) {
    let server = Throwaway::start(&StartOptions::default()).unwrap();
    let url = server.url("postgres");
    execute(&url, &example("schema.sql")).await;
    execute(&url, &lab::script::fill(&example("data.sql"), &[("scale", "0.005"), ("seed", "1")])).await;
    let workload = Workload::parse(&example("workload.toml")).unwrap().scaled(0.005);
    (server, url, Arc::new(workload))
}

fn plan(url: &str, workload: &Arc<Workload>, rate_ops: f64, fixed: &[&str]) -> LoadPlan {
    LoadPlan {
        url: url.to_owned(),
        workload: Arc::clone(workload),
        fixed: fixed.iter().map(|kind| (*kind).to_owned()).collect::<BTreeSet<_>>(),
        rate_ops,
        duration: Duration::from_secs(2),
        seed: 3,
        round: 0,
        connections_max: 80,
    }
}

fn check_whole(result: &LoadResult) {
    assert_eq!(result.errors, 0, "{:?}", result.error_samples);
    assert_eq!(result.completed, result.offered);
    assert_eq!(result.latency.count(), result.offered);
    assert_eq!(result.lateness.count(), result.offered);
    assert_eq!(result.operations.iter().map(|o| o.latency.count()).sum::<u64>(), result.offered);
    assert!(!result.saturated, "{:?}", result.backlog_thirds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_the_example_before_and_after_its_repair() {
    let (_server, url, workload) = bot().await;
    let before_rows = count(&url, "select count(*) from matches").await;
    let before = run(plan(&url, &workload, 60.0, &[])).await.unwrap();
    check_whole(&before);
    assert!(count(&url, "select count(*) from matches").await > before_rows);
    let kinds = ["one_row_inserts", "n_plus_one", "repeated_reads", "offset_paging", "missing_where"];
    let after = run(plan(&url, &workload, 60.0, &kinds)).await.unwrap();
    check_whole(&after);
    let left = "select count(*) from pg_stat_activity where application_name = 'poolwright load'";
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while count(&url, left).await > 0 {
        assert!(std::time::Instant::now() < until, "the load's connections are closed when it is over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(after.offered, before.offered);
    assert!(after.qps < before.qps, "{} {}", after.qps, before.qps);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_what_fails_and_what_never_answers() {
    let (_server, url, workload) = bot().await;
    execute(&url, "alter table users rename to players").await;
    let result = run(plan(&url, &workload, 60.0, &[])).await.unwrap();
    assert!(result.errors > 0 && result.completed > 0);
    assert_eq!(result.errors + result.completed, result.offered);
    assert!(result.error_samples.iter().any(|m| m.starts_with("42P01")), "{:?}", result.error_samples);
    assert!(result.saturated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn says_that_it_cannot_connect() {
    let (server, url, workload) = bot().await;
    let wrong = url.replace(server.password(), "wrong");
    let error = run(plan(&wrong, &workload, 10.0, &[])).await.unwrap_err();
    assert!(matches!(&error, LoadError::Connect(m) if m.starts_with("28P01")), "{error}");
    drop(server);
    assert!(matches!(run(plan(&url, &workload, 10.0, &[])).await, Err(LoadError::Connect(_))));
}
