//! `poolwright doctor`: what it prints, its JSON and its exit code.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output, Stdio};

use lab::postgres::{StartOptions, Throwaway};
use tests::{connect, program, said};

fn doctor(url: &str, more: &[&str]) -> Output {
    Command::new(program()).arg("doctor").arg(url).args(more).stdin(Stdio::null()).output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exit_code_says_whether_something_is_wrong() {
    let postgres = Throwaway::start(&StartOptions::default()).unwrap();
    let url = postgres.url("postgres");
    let healthy = doctor(&url, &[]);
    assert_eq!(healthy.status.code(), Some(0), "{}", said(&healthy));
    assert!(said(&healthy).starts_with("Healthy"), "{}", said(&healthy));

    let client = connect(&url).await;
    client.batch_execute("CREATE TABLE goods AS SELECT 1 AS key FROM generate_series(1, 9)").await.unwrap();
    client.batch_execute("CREATE UNIQUE INDEX CONCURRENTLY broken ON goods (key)").await.unwrap_err();
    client
        .batch_execute("CREATE INDEX once ON goods (key); CREATE INDEX twice ON goods (key)")
        .await
        .unwrap();
    let sick = doctor(&url, &[]);
    assert_eq!(sick.status.code(), Some(1), "{}", said(&sick));
    let text = said(&sick);
    for piece in
        ["2 problem(s), worst first", "  1. [warning] index public.broken is invalid", "  2. [warning] index"]
    {
        assert!(text.contains(piece), "{piece}: {text}");
    }
    assert_eq!(text.matches("Remedy: ").count(), 2, "{text}");

    let json = doctor(&url, &["--json"]);
    assert_eq!(json.status.code(), Some(1));
    let told: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&told["schema_version"], &told["healthy"]), (&1.into(), &false.into()));
    assert_eq!(told["problems"].as_array().unwrap().len(), 2, "{told:#}");
    assert!(told["problems"].as_array().unwrap().iter().all(|problem| problem["remedy"].is_string()));
    assert!(told["facts"]["server_version"].is_string(), "{told:#}");
}

#[test]
fn a_database_that_cannot_be_looked_at_is_neither() {
    let postgres = Throwaway::start(&StartOptions::default()).unwrap();
    let wrong = postgres.url("postgres").replace(postgres.password(), "wrong");
    for (url, piece) in
        [(wrong.as_str(), "28P01"), ("postgres://a@127.0.0.1:1/a", "connect"), ("nonsense", "URL")]
    {
        let output = doctor(url, &[]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(piece) && output.stdout.is_empty(), "{}", said(&output));
    }
    let absent = doctor(&postgres.url("absent"), &["--json"]);
    assert_eq!(absent.status.code(), Some(2));
    assert!(said(&absent).contains("3D000"), "{}", said(&absent));
}
