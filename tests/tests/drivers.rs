//! Real drivers through Poolwright in transaction mode: more clients than servers, prepared statements, and
//! consecutive transactions of one client on different backends.
//!
//! That a client moves is not left to chance: others hold the server it had, so its next transaction must run on
//! another.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tests::{Site, node_folder, python, said, wait_until};
use tokio_postgres::{Client, NoTls, Statement};

const LIMITS: &str = "max = 3\nmin = 3";
const SERVERS: usize = 3;
const CLIENTS: usize = 8;

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/drivers").join(name)
}

/// Runs a driver's script, which prints how many backends there were and whether a client moved.
fn drive(command: &mut Command) {
    let site = Site::start(LIMITS);
    site.aim(command);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told, serde_json::json!({ "all": SERVERS, "moved": true }));
}

/// Eight at the same time, and each one's two statements on different servers.
#[test]
fn psql_shares_servers() {
    let site = Site::start(LIMITS);
    let sql = "CREATE TABLE t(a int); INSERT INTO t SELECT generate_series(1, 1000);";
    site.psql(sql).unwrap();
    assert_eq!(site.psql("SELECT count(*), sum(a) FROM t").unwrap(), "1000|500500");
    all_move(&site, |folder, open| {
        let file = folder.join("moves.sql");
        let wait = format!("\\! {}\n", until(open));
        let insert = "INSERT INTO seen VALUES (:client_id, pg_backend_pid());\n";
        std::fs::write(&file, format!("{insert}{wait}{insert}")).unwrap();
        let one = |number: usize| {
            let mut command = site.client("psql");
            command
                .args(["-Xq", "-v", "ON_ERROR_STOP=1", "-v", &format!("client_id={number}"), "-f"])
                .arg(&file);
            command
        };
        (0..CLIENTS).map(one).collect()
    });
}

/// A statement prepared in SQL is the session's own: its client keeps the server, and nobody finds it there later.
#[test]
fn psql_prepares_in_sql() {
    let site = Site::start(LIMITS);
    let file = site.folder().join("prepare.sql");
    let sql = "PREPARE twice(int) AS SELECT 2 * $1;\nEXECUTE twice(21);\nBEGIN;\nEXECUTE twice(4);\nCOMMIT;\n\
               SELECT count(*) FROM pg_prepared_statements;\n";
    std::fs::write(&file, sql).unwrap();
    for _ in 0..CLIENTS {
        let output = site.client("psql").args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&file).output();
        assert_eq!(said(&output.unwrap()), "42\n8\n1\n");
    }
    assert_eq!(site.psql("SELECT count(*) FROM pg_prepared_statements").unwrap(), "0");
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
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let (client, connection) = tokio_postgres::connect(&site.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        let who = client.prepare("SELECT pg_backend_pid(), $1::int").await.unwrap();
        clients.push((client, who));
    }
    let loads = clients.into_iter().enumerate().map(|(number, (client, who))| {
        tokio::spawn(async move {
            let mut seen = BTreeSet::new();
            for turn in 0..60 {
                let wanted = number as i32 * 1000 + turn;
                let row = client.query_one(&who, &[&wanted]).await.unwrap();
                assert_eq!(row.get::<_, i32>(1), wanted, "an answer meant for somebody else");
                seen.insert(row.get::<_, i32>(0));
            }
            (client, who, seen)
        })
    });
    let (mut clients, mut all) = (Vec::new(), BTreeSet::new());
    for load in loads.collect::<Vec<_>>() {
        let (client, who, seen) = load.await.unwrap();
        all.extend(seen);
        clients.push((client, who));
    }
    let first = backend(&clients[0]).await;
    let mut held = Vec::new();
    for other in &clients[1..=SERVERS] {
        other.0.batch_execute("BEGIN").await.unwrap();
        held.push(backend(other).await);
    }
    for (other, _) in clients[1..=SERVERS].iter().zip(&held).filter(|(_, pid)| **pid != first) {
        other.0.batch_execute("COMMIT").await.unwrap();
    }
    let second = backend(&clients[0]).await;
    assert_ne!(first, second);
    all.extend(held.iter().chain([&first, &second]));
    assert_eq!(all.len(), SERVERS);
}

async fn backend((client, who): &(Client, Statement)) -> i32 {
    client.query_one(who, &[&0]).await.unwrap().get(0)
}

/// pgbench prepares by the blocking PQprepare, one call a thread: with fewer threads than clients, the clients that
/// hold all servers could wait for a thread that waits for a server. Hence a thread for each client.
fn pgbench(mode: &str) {
    let site = Site::start(LIMITS);
    let clients = CLIENTS.to_string();
    assert!(site.client("pgbench").args(["-i", "-q", "-s", "1"]).output().unwrap().status.success());
    let output = site
        .client("pgbench")
        .args(["-n", "-M", mode, "-c", &clients, "-j", &clients, "-t", "50"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("actually processed: 400/400"), "{}", said(&output));
    let told = said(&output);
    assert!(!told.contains("number of failed transactions: ") || told.contains("transactions: 0 "), "{told}");
    all_move(&site, |folder, open| {
        let file = folder.join("moves.sql");
        let insert = "INSERT INTO seen VALUES (:client_id, pg_backend_pid());";
        std::fs::write(&file, format!("{insert}\n\\shell {}\n", until(open))).unwrap();
        let mut command = site.client("pgbench");
        command.args(["-n", "-M", mode, "-c", &clients, "-j", &clients, "-t", "2", "-f"]).arg(&file);
        vec![command]
    });
}

/// A shell's wait for a file, 40 s at most.
fn until(open: &Path) -> String {
    format!("n=0; until [ -e {} ] || [ $n -gt 2000 ]; do sleep 0.02; n=$((n + 1)); done", open.display())
}

/// `clients` are told where they may put files and which file to await between their two turns; in each turn they
/// write their number and backend into `seen`. In the first only server A is free, in the second only server B.
fn all_move(site: &Site, clients: impl FnOnce(&Path, &Path) -> Vec<Command>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let open = folder.path().join("open");
    let commands = clients(folder.path(), &open);
    runtime.block_on(async {
        let mut holders = Vec::new();
        for _ in 0..SERVERS {
            holders.push(tests::connect(&site.url()).await);
        }
        holders[0].batch_execute("CREATE TABLE seen (client int, pid int)").await.unwrap();
        for holder in &holders {
            holder.batch_execute("BEGIN").await.unwrap();
        }
        holders[0].batch_execute("COMMIT").await.unwrap();
        let start =
            |mut command: Command| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let running: Vec<Child> = commands.into_iter().map(start).collect();
        let watcher = tests::connect(&site.postgres.url("postgres")).await;
        let count = async |sql: &str| watcher.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
        wait_until("all clients had their first turn", async || {
            count("SELECT count(*) FROM seen").await == CLIENTS as i64
        })
        .await;
        holders[0].batch_execute("BEGIN").await.unwrap();
        holders[1].batch_execute("COMMIT").await.unwrap();
        std::fs::write(&open, "").unwrap();
        for child in running {
            let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
            assert!(output.status.success(), "{}", said(&output));
        }
        let moved =
            "SELECT count(*) FROM (SELECT client FROM seen GROUP BY client HAVING count(DISTINCT pid) = 2) m";
        assert_eq!(count(moved).await, CLIENTS as i64);
    });
}

#[test]
fn pgbench_simple() {
    pgbench("simple");
}

#[test]
fn pgbench_extended() {
    pgbench("extended");
}

#[test]
fn pgbench_prepared() {
    pgbench("prepared");
}
