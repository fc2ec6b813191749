//! A load in which everything happens that the dashboard has a panel for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::prometheus::Prometheus;
use tests::{Site, wait_until};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::page;

/// A live rewrite that PostgreSQL takes, and one that it refuses.
pub const REWRITE: &str = r#"
[[rewrite]]
pool = "postgres"
id = "newest"
original = "SELECT text FROM notes ORDER BY id DESC"
replacement = "SELECT text FROM notes ORDER BY id DESC LIMIT 10"
rows = "different"

[[rewrite]]
pool = "postgres"
id = "mistaken"
original = "SELECT id FROM notes ORDER BY text"
replacement = "SELECT id FROM notes ORDER BY no_such_column"
rows = "same"
"#;

/// Longest wait for something to show in Prometheus.
const SHOWN_MAX: Duration = Duration::from_secs(60);

/// Transactions of several statements, with thinking in between, until told to stop. PostgreSQL may go away meanwhile.
struct Steady {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Steady {
    fn start(url: &str, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..clients).map(|_| tokio::spawn(steady(url.to_owned(), Arc::clone(&stop)))).collect();
        Self { stop, tasks }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

async fn steady(url: String, stop: Arc<AtomicBool>) {
    let mut client: Option<Client> = None;
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        if client.as_ref().is_none_or(Client::is_closed) {
            client = tokio_postgres::connect(&url, NoTls).await.ok().map(|(client, connection)| {
                tokio::spawn(connection);
                client
            });
        }
        turn += 1;
        let Some(client) = &client else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _may_fail = transaction(client, turn).await;
    }
}

async fn transaction(client: &Client, turn: u32) -> Result<(), tokio_postgres::Error> {
    client.batch_execute("BEGIN").await?;
    client.execute("INSERT INTO notes (text) VALUES ($1)", &[&format!("note {turn}")]).await?;
    // The application thinks while it holds a server.
    tokio::time::sleep(Duration::from_millis(5)).await;
    client.query("SELECT id, text FROM notes ORDER BY id DESC LIMIT 20", &[]).await?;
    client.batch_execute(if turn.is_multiple_of(5) { "ROLLBACK" } else { "COMMIT" }).await?;
    client.query("SELECT text FROM notes ORDER BY id DESC", &[]).await?;
    client.query("SELECT id FROM notes ORDER BY text", &[]).await?;
    client.query_one("SELECT count(*) FROM notes", &[]).await?;
    Ok(())
}

async fn connect(url: &str) -> Client {
    tests::connect(url).await
}

fn code(error: &tokio_postgres::Error) -> &str {
    error.code().map_or("", tokio_postgres::error::SqlState::code)
}

/// Everything in turn, with the steady load beside it.
pub async fn run(site: &mut Site, prometheus: &Prometheus) {
    // What happens before the first scrape is no rise.
    seen(prometheus, "a first scrape", "poolwright_queries_total").await;
    let url = site.url();
    connect(&url)
        .await
        .batch_execute("CREATE TABLE notes (id bigserial PRIMARY KEY, text text)")
        .await
        .unwrap();
    post_event(site, "phase", "baseline");
    let steady = Steady::start(&url, 2);
    errors(&url).await;
    rejections(site).await;
    exhaust(&url).await;
    cancels(&url).await;
    holders(&url, prometheus).await;
    post_event(site, "change", "restart of PostgreSQL");
    restart(site, prometheus).await;
    steady.end().await;
    wait_until("idle servers are closed", async || {
        family(site, "poolwright_server_connections_closed_total").sum_where("reason", "idle") > 0.0
    })
    .await;
}

fn post_event(site: &Site, kind: &str, id: &str) {
    let url = format!("http://127.0.0.1:{}/events", site.metrics_port());
    let event = serde_json::json!({ "kind": kind, "id": id }).to_string();
    tokio::task::block_in_place(|| ureq::post(&url).send(event)).unwrap();
}

fn family(site: &Site, name: &str) -> page::Family {
    page::read(&site.http("/metrics")).remove(name).unwrap()
}

async fn errors(url: &str) {
    let client = connect(url).await;
    for _ in 0..5 {
        let division = client.query("SELECT 1 / (random() * 0)::int", &[]).await.unwrap_err();
        let missing = client.query("SELECT * FROM no_such_table", &[]).await.unwrap_err();
        assert_eq!((code(&division), code(&missing)), ("22012", "42P01"));
    }
}

async fn rejections(site: &Site) {
    let wrong = site.url().replace(site.postgres.password(), "wrong");
    let error = tokio_postgres::connect(&wrong, NoTls).await.err().unwrap();
    assert_eq!(code(&error), "28P01");
    let elsewhere = site.url().replace("/postgres", "/elsewhere");
    assert!(tokio_postgres::connect(&elsewhere, NoTls).await.is_err());
}

/// More clients than servers, for longer than the acquire time-out.
async fn exhaust(url: &str) {
    let mut sleepers = Vec::new();
    for _ in 0..20 {
        let client = connect(url).await;
        sleepers.push(tokio::spawn(async move {
            let mut refused = 0;
            for _ in 0..4 {
                let slept = client.batch_execute("SELECT pg_sleep(0.5)").await;
                refused += u32::from(slept.is_err_and(|error| code(&error) == "53300"));
            }
            refused
        }));
    }
    let mut refused = 0;
    for sleeper in sleepers {
        refused += sleeper.await.unwrap();
    }
    assert!(refused > 0, "nobody waited in vain");
}

/// By the client, and by the query time-out.
async fn cancels(url: &str) {
    let client = connect(url).await;
    for _ in 0..3 {
        let token = client.cancel_token();
        let canceller = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            token.cancel_query(NoTls).await
        });
        let error = client.batch_execute("SELECT pg_sleep(1)").await.unwrap_err();
        assert_eq!(code(&error), "57014");
        canceller.await.unwrap().unwrap();
    }
    let error = client.batch_execute("SELECT pg_sleep(30)").await.unwrap_err();
    assert_eq!(code(&error), "57014", "{error}");
}

/// One client idle in its transaction, one that keeps its server for a setting, until Prometheus has seen both.
async fn holders(url: &str, prometheus: &Prometheus) {
    let (idle, pinned) = (connect(url).await, connect(url).await);
    idle.batch_execute("BEGIN; SELECT 1").await.unwrap();
    pinned.batch_execute("SET work_mem = '8MB'").await.unwrap();
    for (what, expr) in [
        ("idle in transaction", "sum(poolwright_server_connections{state=\"idle_in_transaction\"}) > 0"),
        ("pinned", "sum(poolwright_pinned_connections) > 0"),
    ] {
        seen(prometheus, what, expr).await;
    }
    idle.batch_execute("COMMIT").await.unwrap();
}

/// PostgreSQL goes, is missed, and comes back.
async fn restart(site: &mut Site, prometheus: &Prometheus) {
    tokio::task::block_in_place(|| site.postgres.crash());
    // A series that has just appeared has not risen yet.
    seen(prometheus, "failing connects", "increase(poolwright_server_connect_failures_total[10s]) > 0").await;
    tokio::task::block_in_place(|| site.postgres.restart()).unwrap();
    let url = site.url();
    wait_until("queries are answered again", async || {
        let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await else { return false };
        tokio::spawn(connection);
        client.query_one("SELECT count(*) FROM notes", &[]).await.is_ok()
    })
    .await;
}

/// Waits until an expression has a value in Prometheus.
async fn seen(prometheus: &Prometheus, what: &str, expr: &str) {
    let began = Instant::now();
    while tokio::task::block_in_place(|| prometheus.query(expr, crate::unix_s())).unwrap().is_empty() {
        assert!(began.elapsed() < SHOWN_MAX, "not seen by Prometheus: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until Prometheus has scraped after this moment, and evaluated its rules on it.
pub async fn scraped_after(prometheus: &Prometheus, at_s: f64) {
    for name in ["up", "poolwright:queries_per_second"] {
        seen(prometheus, "a scrape", &format!("timestamp({name}) > {at_s}")).await;
    }
}
