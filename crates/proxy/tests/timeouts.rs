//! Time-outs, and what a client is told.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_pool_says_who_holds_it() {
    let (proxy, admin, _postgres) =
        site(|pool| (pool.max, pool.acquire_timeout) = (2, Duration::from_millis(400))).await;
    let mut thinking = Raw::login(&proxy, &[]).await;
    thinking.converse(&frames().query("BEGIN").0, 1).await;
    let mut busy = Raw::login(&proxy, &[]).await;
    busy.send(&frames().query("SELECT pg_sleep(600), 'secret'").0).await;
    until("both servers are held", || {
        let servers = &proxy.snapshot().pools[0].servers;
        (servers["active"], servers["idle_in_transaction"]) == (1, 1)
    })
    .await;
    let (id, client) = (
        fingerprint::hex(fingerprint::scan(b"SELECT pg_sleep(600), 'secret'").id),
        owner(&proxy, &_postgres),
    );
    let client = connect(&client).await.unwrap();
    let error = ask(&client, "SELECT 1").await.unwrap_err();
    let said = error.as_db_error().unwrap();
    assert_eq!(said.code().code(), "53300");
    for part in ["acquire_timeout", "waited 4", "active 2", "idle 0", "waiting 1", "max 2"] {
        assert!(said.message().contains(part), "{part}: {}", said.message());
    }
    let detail = said.detail().unwrap();
    assert!(detail.contains(&format!("fingerprint {id} ×1 (longest ")), "{detail}");
    assert!(detail.ends_with("idle in transaction ×1."), "{detail}");
    assert!(!detail.contains("secret") && !detail.contains("×0"), "{detail}");
    // Its connection goes on: a pipeline is skipped up to its Sync, the next one is served.
    let mut raw = Raw::login(&proxy, &[]).await;
    let batch = frames().parse("a", "SELECT 1").run("a", &[]).parse("b", "SELECT 2").run("b", &[]).sync();
    let answer = raw.converse(&batch.0, 1).await;
    assert_eq!((answer.kinds.as_str(), answer.errors[0].0.as_str()), ("EZ", "53300"));
    thinking.converse(&frames().query("COMMIT").0, 1).await;
    assert_eq!(raw.converse(&frames().run("a", &[]).sync().0, 1).await.errors[0].0, "26000");
    assert_eq!(raw.converse(&batch.0, 1).await.rows, ["1", "2"]);
    let pools = &proxy.snapshot().pools[0];
    assert_eq!((pools.acquires["timeout"], pools.errors.get("53")), (2, Some(&2)));
    assert!(pools.exhausted_events >= 1);
    ask(&admin, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%600%' AND pid <> pg_backend_pid()").await.unwrap();
    assert_eq!(busy.answer(1).await.errors[0].0, "57014");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_over_its_time_ends_with_one_error() {
    let (proxy, _admin, _postgres) =
        site(|pool| (pool.max, pool.query_timeout) = (1, Duration::from_millis(500))).await;
    let mut raw = Raw::login(&proxy, &[]).await;
    let told = ("57014".to_owned(), "canceling statement due to query_timeout (500 ms)".to_owned());
    for sent in [
        frames().query("SELECT pg_sleep(600)"),
        frames().parse("", "SELECT pg_sleep(600)").run("", &[]).run("", &[]).sync(),
        frames().query("SELECT 1; SELECT pg_sleep(600)"),
    ] {
        let answer = raw.converse(&sent.0, 1).await;
        assert_eq!(answer.errors, std::slice::from_ref(&told), "{answer:?}");
        assert_eq!(raw.converse(&frames().query("SELECT 1").0, 1).await.rows, ["1"]);
    }
    // The transaction it was in is the client's to end.
    raw.converse(&frames().query("BEGIN").0, 1).await;
    assert_eq!(raw.converse(&frames().query("SELECT pg_sleep(600)").0, 1).await.errors, [told]);
    assert_eq!(raw.converse(&frames().query("SELECT 1").0, 1).await.errors[0].0, "25P02");
    assert_eq!(raw.converse(&frames().query("ROLLBACK").0, 1).await.kinds, "CZ");
    // A cancel of the client's own is told in PostgreSQL's words.
    let (mut other, key) = Raw::login_with_key(&proxy, &[]).await;
    other.send(&frames().query("SELECT pg_sleep(600)").0).await;
    until("it runs", || proxy.snapshot().pools[0].servers["active"] == 1).await;
    Raw::cancel(port(&proxy), &key).await;
    let answer = other.answer(1).await;
    assert_eq!(answer.errors[0].0, "57014");
    // Waiting does not count.
    raw.converse(&frames().query("BEGIN").0, 1).await;
    other.send(&frames().query("SELECT 7").0).await;
    for _ in 0..3 {
        raw.converse(&frames().query("SELECT pg_sleep(0.3)").0, 1).await;
    }
    raw.converse(&frames().query("COMMIT").0, 1).await;
    assert_eq!(other.answer(1).await.rows, ["7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_vacuum_and_index_builds_may_take_their_time() {
    let (proxy, admin, _postgres) =
        site(|pool| (pool.max, pool.query_timeout) = (1, Duration::from_millis(200))).await;
    ask(
        &admin,
        "CREATE TABLE t AS SELECT 1 AS a; CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql
        AS 'BEGIN PERFORM pg_sleep(0.6); RETURN 1; END'",
    )
    .await
    .unwrap();
    let mut raw = Raw::login(&proxy, &[]).await;
    for (sql, kinds) in [
        ("COPY (SELECT slow(1)) TO STDOUT", "HdcCZ"),
        ("CREATE INDEX ON t (slow(a))", "CZ"),
        ("/* x */ vacuum analyze t", "CZ"),
    ] {
        let answer = raw.converse(&frames().query(sql).0, 1).await;
        assert_eq!(answer.kinds, kinds, "{sql}: {answer:?}");
    }
    // The client's own pause in COPY FROM does not count either.
    raw.send(&frames().query("COPY t FROM STDIN").0).await;
    assert_eq!(raw.next().await.unwrap().0, b'G');
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(raw.converse(&frames().copy("5\n").copy_done().0, 1).await.kinds, "CZ");
    assert_eq!(raw.converse(&frames().query("SELECT slow(1)").0, 1).await.errors[0].0, "57014");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_idle_in_its_transaction_loses_the_server() {
    let (proxy, _admin, _postgres) =
        site(|pool| (pool.max, pool.idle_in_transaction_timeout) = (1, Duration::from_millis(300))).await;
    let mut raw = Raw::login(&proxy, &[]).await;
    raw.converse(&frames().query("CREATE TABLE t (a int)").0, 1).await;
    raw.converse(&frames().query("BEGIN").query("INSERT INTO t VALUES (1)").0, 2).await;
    let (code, message) = raw.fatal().await;
    assert_eq!(code, "25P03");
    assert!(message.contains("idle_in_transaction_timeout"), "{message}");
    let mut other = Raw::login(&proxy, &[]).await;
    assert_eq!(other.converse(&frames().query("SELECT count(*) FROM t").0, 1).await.rows, ["0"]);
    // Idle outside a transaction, or busy in one, is no fault.
    other.converse(&frames().query("BEGIN").0, 1).await;
    assert_eq!(other.converse(&frames().query("SELECT pg_sleep(0.8)").0, 1).await.kinds, "TDCZ");
    assert_eq!(other.converse(&frames().query("COMMIT").0, 1).await.kinds, "CZ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_does_not_keep_its_server() {
    let (proxy, _admin, _postgres) =
        site(|pool| (pool.max, pool.query_timeout) = (1, Duration::from_millis(500))).await;
    let mut deaf = Raw::login(&proxy, &[]).await;
    deaf.send(&frames().query("SELECT repeat('x', 1000) FROM generate_series(1, 200000)").0).await;
    until("it has its server", || proxy.snapshot().pools[0].servers["active"] == 1).await;
    let mut other = Raw::login(&proxy, &[]).await;
    assert_eq!(other.converse(&frames().query("SELECT 1").0, 1).await.rows, ["1"]);
}
