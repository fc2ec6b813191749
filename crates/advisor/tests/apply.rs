//! Builds that are kept from their locks, cancelled or broken off: what is left behind, and what is said.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use advisor::apply::{self, Patience};
use advisor::indexes::IndexAdvice;
use lab::postgres::{StartOptions, Throwaway};
use tokio_postgres::{Client, NoTls};

const HASTE: Patience = Patience { tries: 2, lock_timeout_ms: 700, pause_ms: 10 };
const SLOWLY: Patience = Patience { tries: 60, lock_timeout_ms: 700, pause_ms: 1 };

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn started() -> (Throwaway, String, Client) {
    let server = Throwaway::start(&StartOptions::default()).unwrap();
    let url = server.url("postgres");
    let client = connect(&url).await;
    let tables = "CREATE TABLE goods AS SELECT n AS key, n % 100 AS shelf FROM generate_series(1, 20000) n; \
                  CREATE TABLE aside (key int)";
    client.batch_execute(tables).await.unwrap();
    (server, url, client)
}

fn index(name: &str, unique: bool) -> IndexAdvice {
    let unique = if unique { "UNIQUE " } else { "" };
    IndexAdvice {
        name: name.to_owned(),
        sql_up: format!("CREATE {unique}INDEX CONCURRENTLY {name} ON public.goods (shelf)"),
        sql_down: format!("DROP INDEX CONCURRENTLY IF EXISTS public.{name}"),
        schema: "public".to_owned(),
        table: "goods".to_owned(),
        columns: vec!["shelf".to_owned()],
        reason: String::new(),
        fingerprints: Vec::new(),
        plan_before: String::new(),
        plan_after: None,
        cost_before: 0.0,
        cost_after: None,
        size_bytes: 450_000,
        method: "explain".to_owned(),
    }
}

async fn indexes(client: &Client) -> i64 {
    let count = "SELECT count(*) FROM pg_index WHERE indrelid = 'goods'::regclass";
    client.query_one(count, &[]).await.unwrap().get(0)
}

/// A client in a transaction with a snapshot from before; with `table` also a lock on the table.
async fn blocker(url: &str, table: bool) -> Client {
    let client = connect(url).await;
    let from = if table { "goods" } else { "aside" };
    client
        .batch_execute(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM {from}"))
        .await
        .unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_waits_for_an_older_transaction_and_then_succeeds() {
    let (_server, url, client) = started().await;
    let older = Arc::new(blocker(&url, true).await);
    let heard = RefCell::new(Vec::new());
    let ended = AtomicU32::new(0);
    let built = apply::build_with(&url, &index("shelf_1", false), SLOWLY, |text| {
        heard.borrow_mut().push(text.to_owned());
        if text.contains("removing") && ended.fetch_add(1, Ordering::Relaxed) == 0 {
            let older = Arc::clone(&older);
            tokio::spawn(async move { older.batch_execute("COMMIT").await });
        }
    })
    .await
    .unwrap();
    let heard = heard.into_inner();
    assert!(built.valid && built.size_bytes > 0 && built.tries >= 2, "{built:?} {heard:#?}");
    assert_eq!(indexes(&client).await, 1, "{heard:#?}");
    let says = |piece: &str| heard.iter().any(|text| text.contains(piece));
    assert!(says("about 450.0 kB") && says("waiting for") && says("behind pid"), "{heard:#?}");
    assert!(says("in the way: pid") && says("idle in transaction"), "{heard:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_never_gets_its_lock_leaves_nothing() {
    let (_server, url, client) = started().await;
    let older = blocker(&url, false).await;
    let error =
        apply::build_with(&url, &index("shelf_2", false), HASTE, |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("lock timeout") && error.contains("in the way: pid"), "{error}");
    assert_eq!(indexes(&client).await, 0, "the leftover is gone");
    older.batch_execute("COMMIT").await.unwrap();

    // A lock on the table itself keeps the leftover too: it is named, with the statement that drops it.
    let older = blocker(&url, true).await;
    let advice = index("shelf_3", false);
    let error = apply::build_with(&url, &advice, HASTE, |_| {}).await.unwrap_err().to_string();
    assert!(error.contains(&advice.sql_down), "{error}");
    older.batch_execute("COMMIT").await.unwrap();
    apply::drop(&url, &advice).await.unwrap();
    assert_eq!(indexes(&client).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_is_not_tried_again_and_leaves_nothing() {
    let (_server, url, client) = started().await;
    let tries = AtomicU32::new(0);
    let error = apply::build(&url, &index("shelf_4", true), |text| {
        tries.fetch_add(u32::from(text.contains("try ")), Ordering::Relaxed);
    })
    .await
    .unwrap_err()
    .to_string();
    assert!(error.contains("23505"), "{error}");
    assert_eq!((tries.into_inner(), indexes(&client).await), (1, 0));
}

/// Waits until a build waits for old snapshots, and then evaluates `call` on its `pid`.
async fn while_waiting(client: &Client, call: &str) {
    let look = format!(
        "SELECT {call} FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting for old snapshots%'"
    );
    let began = Instant::now();
    while client.query_opt(&look, &[]).await.unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(30), "the build never waited");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_is_given_up_is_cancelled_and_leaves_nothing() {
    let (_server, url, client) = started().await;
    let _older = blocker(&url, false).await;
    let building = tokio::spawn(async move {
        let patience = Patience { lock_timeout_ms: 60_000, ..HASTE };
        apply::build_with(&url, &index("shelf_7", false), patience, |_| {}).await
    });
    while_waiting(&client, "pid").await;
    building.abort();
    assert!(building.await.unwrap_err().is_cancelled());
    assert_eq!(indexes(&client).await, 0);
    let running = "SELECT count(*) FROM pg_stat_progress_create_index";
    assert_eq!(client.query_one(running, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_cancelled_or_cut_off_midway_leaves_nothing() {
    let (_server, url, client) = started().await;
    for (number, how) in ["pg_cancel_backend", "pg_terminate_backend"].into_iter().enumerate() {
        let older = blocker(&url, false).await;
        let advice = index(&format!("shelf_{}", number + 5), false);
        let building = tokio::spawn({
            let (url, patience) = (url.clone(), Patience { lock_timeout_ms: 60_000, ..HASTE });
            async move { apply::build_with(&url, &advice, patience, |_| {}).await }
        });
        while_waiting(&client, &format!("{how}(pid)")).await;
        let error = building.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("not built"), "{error}");
        assert_eq!(indexes(&client).await, 0, "{how}: {error}");
        older.batch_execute("COMMIT").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_named_so_is_left_alone() {
    let (_server, url, client) = started().await;
    client.batch_execute("CREATE INDEX shelf_9 ON goods (key)").await.unwrap();
    // An invalid one may be a build that somebody else has under way.
    let invalid = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'shelf_9'::regclass";
    client.batch_execute(invalid).await.unwrap();
    let error = apply::build(&url, &index("shelf_9", false), |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("exists already"), "{error}");
    assert_eq!(indexes(&client).await, 1);
}
