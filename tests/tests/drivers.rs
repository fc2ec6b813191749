//! Real drivers through Poolwright in transaction mode: more clients than servers, prepared statements, and
//! consecutive transactions of one client on different backends.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use tests::{Site, node_folder, python, said};
use tokio_postgres::NoTls;

const LIMITS: &str = "max = 3\nmin = 3";

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/drivers").join(name)
}

/// Runs a driver's script, which prints how many backends one client saw at most.
fn drive(command: &mut Command) {
    let site = Site::start(LIMITS);
    site.aim(command);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let backends: usize = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    assert!((2..=3).contains(&backends), "one client saw {backends} backends");
}

#[test]
fn psql_runs_queries() {
    let site = Site::start(LIMITS);
    let sql = "CREATE TABLE t(a int); INSERT INTO t SELECT generate_series(1, 1000);";
    assert!(site.client("psql").args(["-X", "-c", sql]).status().unwrap().success());
    let output = site.client("psql").args(["-XAtc", "SELECT count(*), sum(a) FROM t"]).output().unwrap();
    assert_eq!(said(&output).trim(), "1000|500500");
}

#[test]
fn pgbench_runs_simple_queries() {
    let site = Site::start(LIMITS);
    assert!(site.client("pgbench").args(["-i", "-q", "-s", "1"]).output().unwrap().status.success());
    let output = site.client("pgbench").args(["-n", "-c", "8", "-j", "2", "-t", "50"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("actually processed: 400/400"), "{}", said(&output));
}

#[test]
fn node_postgres_shares_servers() {
    let folder = node_folder();
    drive(Command::new("node").arg(script("node.js")).env("NODE_PATH", folder.join("node_modules")));
}

#[test]
fn psycopg_shares_servers() {
    drive(Command::new(python()).arg(script("psycopg_client.py")));
}

#[test]
fn asyncpg_shares_servers() {
    drive(Command::new(python()).arg(script("asyncpg_client.py")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokio_postgres_shares_servers() {
    let site = Site::start(LIMITS);
    let url = site.url();
    let clients = (0..8).map(|number| tokio::spawn(backends_seen(url.clone(), number)));
    let mut most = 0;
    for client in clients.collect::<Vec<_>>() {
        most = most.max(client.await.unwrap());
    }
    assert!((2..=3).contains(&most), "one client saw {most} backends");
}

async fn backends_seen(url: String, number: i32) -> usize {
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let statement = client.prepare("SELECT pg_backend_pid(), $1::int").await.unwrap();
    let mut seen = BTreeSet::new();
    for turn in 0..60 {
        let wanted = number * 1000 + turn;
        let row = client.query_one(&statement, &[&wanted]).await.unwrap();
        assert_eq!(row.get::<_, i32>(1), wanted, "an answer meant for somebody else");
        seen.insert(row.get::<_, i32>(0));
    }
    seen.len()
}
