//! Clients that leave, and what becomes of their servers.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proxy::Proxy;
use proxy::settings::Mode;
use support::*;

fn closed(proxy: &Proxy) -> u64 {
    proxy.snapshot().pools[0].closed.values().sum()
}

fn count(proxy: &Proxy, kind: &str) -> u32 {
    proxy.snapshot().pools[0].servers[kind]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_server_is_reset_and_used_again() {
    let (proxy, _admin, postgres) = site(|pool| pool.max = 1).await;
    let mut pid = None;
    for sql in [
        "SET work_mem = '3MB'",
        "CREATE TEMP TABLE mine (a int)",
        "SELECT pg_advisory_lock(7)",
        "LISTEN news",
        "PREPARE mine AS SELECT 1",
        "BEGIN; DECLARE mine CURSOR WITH HOLD FOR SELECT 1; COMMIT",
    ] {
        let client = connect(&owner(&proxy, &postgres)).await.unwrap();
        ask(&client, sql).await.unwrap();
        let own = ask(&client, "SELECT pg_backend_pid()").await.unwrap();
        assert_eq!(pid.get_or_insert(own.clone()), &own, "{sql}");
        drop(client);
        until("the server is reset", || count(&proxy, "idle") == 1).await;
        let client = connect(&owner(&proxy, &postgres)).await.unwrap();
        let left = "SELECT current_setting('work_mem') || (SELECT count(*) FROM pg_class WHERE relname = 'mine')
            || (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') || (SELECT count(*) FROM pg_cursors)
            || (SELECT count(*) FROM pg_listening_channels()) || (SELECT count(*) FROM pg_prepared_statements)";
        assert_eq!(ask(&client, left).await.unwrap(), "4MB00000", "{sql}");
        drop(client);
    }
    assert_eq!(closed(&proxy), 0);
    let snapshot = proxy.snapshot();
    let pool = &snapshot.pools[0];
    assert!(pool.pinned.is_empty(), "they have left");
    for reason in ["set", "temp_table", "advisory_lock", "listen", "prepare", "hold_cursor"] {
        assert_eq!(pool.pins.get(reason), Some(&1), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn session_mode_hands_servers_on_as_good_as_new() {
    let (proxy, _admin, postgres) = site(|pool| (pool.max, pool.mode) = (1, Mode::Session)).await;
    let mut pids = Vec::new();
    for _ in 0..3 {
        let client = connect(&owner(&proxy, &postgres)).await.unwrap();
        let statement = client.prepare("SELECT pg_backend_pid(), current_setting('work_mem')").await.unwrap();
        let row = client.query_one(&statement, &[]).await.unwrap();
        pids.push(row.get::<_, i32>(0));
        assert_eq!(row.get::<_, String>(1), "4MB");
        ask(&client, "SET work_mem = '5MB'").await.unwrap();
    }
    pids.dedup();
    assert_eq!((pids.len(), closed(&proxy)), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reset_is_closed() {
    let (proxy, _admin, postgres) = site(|pool| pool.max = 1).await;
    let client = connect(&owner(&proxy, &postgres)).await.unwrap();
    ask(&client, "CREATE TEMP TABLE mine (a int)").await.unwrap();
    // Dropping the temporary table needs the lock that another session holds.
    let table =
        ask(&client, "SELECT 'mine'::regclass::oid::text || ' ' || pg_my_temp_schema()::regnamespace")
            .await
            .unwrap();
    let schema = table.split(' ').nth(1).unwrap();
    let holder = connect(&postgres.url("postgres").parse().unwrap()).await.unwrap();
    ask(&holder, &format!("BEGIN; LOCK TABLE {schema}.mine IN ACCESS EXCLUSIVE MODE")).await.unwrap();
    drop(client);
    until("the reset is given up", || proxy.snapshot().pools[0].closed.get("reset_failed") == Some(&1)).await;
    ask(&holder, "ROLLBACK").await.unwrap();
    let client = connect(&owner(&proxy, &postgres)).await.unwrap();
    assert_eq!(ask(&client, "SELECT 1").await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_never_pass_max_whoever_leaves_how() {
    const MAX: i64 = 3;
    let (proxy, admin, _postgres) =
        site(|pool| (pool.max, pool.idle_in_transaction_timeout) = (MAX as u32, Duration::from_millis(300)))
            .await;
    let proxy = Arc::new(proxy);
    let stop = Arc::new(AtomicBool::new(false));
    let mut churn = Vec::new();
    for number in 0..8usize {
        let (proxy, stop) = (Arc::clone(&proxy), Arc::clone(&stop));
        churn.push(tokio::spawn(async move {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                let mut raw = Raw::login(&proxy, &[]).await;
                let mut frames = Vec::new();
                match (number + rounds) % 4 {
                    // Half a message.
                    0 => {
                        wire::craft::query(&mut frames, b"BEGIN");
                        wire::craft::query(&mut frames, b"COPY pg_temp.t FROM STDIN");
                        frames.extend_from_slice(b"Q\0\0\0\x20SELECT");
                    }
                    // Half a COPY row in a transaction, which cannot be ended by CopyFail.
                    1 => {
                        wire::craft::query(&mut frames, b"CREATE TEMP TABLE t (a text); COPY t FROM STDIN");
                        frames.extend_from_slice(b"d\0\0\x40\0half a row");
                    }
                    2 => wire::craft::query(&mut frames, b"BEGIN; SELECT pg_sleep(0.01)"),
                    _ => wire::craft::query(&mut frames, b"SELECT pg_terminate_backend(pg_backend_pid())"),
                }
                raw.send(&frames).await;
                // Some wait for an answer, some do not.
                if rounds % 2 == 0 {
                    raw.next().await;
                }
                rounds += 1;
            }
            rounds
        }));
    }
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let mut most = 0;
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        most = most.max(ask(&admin, sql).await.unwrap().parse::<i64>().unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    let mut rounds = 0;
    for task in churn {
        rounds += task.await.unwrap();
    }
    assert!((1..=MAX).contains(&most), "{most} servers at once");
    assert!(closed(&proxy) >= 10 && rounds >= 20, "{} closed in {rounds} rounds", closed(&proxy));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_whole_completes() {
    let (proxy, admin, _postgres) = site(|pool| pool.max = 1).await;
    ask(&admin, "CREATE TABLE t (a int)").await.unwrap();
    let rows = async || ask(&admin, "SELECT count(*) FROM t").await.unwrap();
    let insert = "INSERT INTO t SELECT 1 FROM pg_sleep(0.2)";
    for (done, sent) in [
        frames().query(insert).terminate(),
        frames().query(insert),
        frames().parse("", insert).run("", &[]).sync().terminate(),
        frames().query("BEGIN").query(insert).query("COMMIT"),
        frames().query("COPY t FROM STDIN").copy("1\n").copy_done(),
        frames().query(insert).query("BEGIN").query(insert),
    ]
    .into_iter()
    .enumerate()
    {
        let mut raw = Raw::login(&proxy, &[]).await;
        raw.send(&sent.0).await;
        drop(raw);
        until("the server is free again", || count(&proxy, "active") == 0 && count(&proxy, "idle") == 1)
            .await;
        let mut found = rows().await;
        let began = std::time::Instant::now();
        while found != (done + 1).to_string() && began.elapsed() < PATIENCE {
            found = rows().await;
        }
        assert_eq!(found, (done + 1).to_string());
    }
    assert_eq!(closed(&proxy), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_never_cancelled() {
    let (proxy, admin, _postgres) = site(|pool| pool.max = 1).await;
    let slow = "CREATE TABLE t (a int);
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()";
    admin.batch_execute(slow).await.unwrap();
    let mut raw = Raw::login(&proxy, &[]).await;
    raw.converse(&frames().query("BEGIN").query("INSERT INTO t VALUES (1)").0, 2).await;
    raw.send(&frames().query("COMMIT").0).await;
    until("it commits", || count(&proxy, "active") == 1).await;
    drop(raw);
    until("the commit is through", || count(&proxy, "idle") == 1).await;
    assert_eq!(ask(&admin, "SELECT count(*) FROM t").await.unwrap(), "1");
    assert_eq!(proxy.snapshot().pools[0].transactions.get("commit"), Some(&1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_open_is_rolled_back_on_the_same_server() {
    let (proxy, admin, _postgres) = site(|pool| pool.max = 1).await;
    ask(&admin, "CREATE TABLE t (a int)").await.unwrap();
    let mut pids = Vec::new();
    for (sent, reads) in [
        (frames().query("BEGIN").query("INSERT INTO t VALUES (1)"), 4),
        (frames().query("BEGIN").query("SELECT 1/0"), 4),
        (frames().parse("", "INSERT INTO t VALUES (1)").run("", &[]).parse("", "SELECT 1/0").run("", &[]), 0),
        (frames().query("COPY t FROM STDIN").copy("1\n"), 1),
        (frames().parse("", "COPY t FROM STDIN").run("", &[]).sync().copy("1\n"), 3),
        (frames().query("BEGIN").query("COPY t FROM STDIN").copy("1\n"), 3),
        (frames().query("BEGIN").parse("", "SELECT 1").run("", &[]).flush(), 2),
    ] {
        let mut raw = Raw::login(&proxy, &[]).await;
        raw.send(&sent.0).await;
        for _ in 0..reads {
            raw.next().await.unwrap();
        }
        drop(raw);
        let mut next = Raw::login(&proxy, &[]).await;
        let answer = next.converse(&frames().query("SELECT pg_backend_pid()").0, 1).await;
        assert_eq!(answer.kinds, "TDCZ");
        pids.extend(answer.rows);
        assert_eq!(next.converse(&frames().query("SELECT count(*) FROM t").0, 1).await.rows, ["0"]);
    }
    pids.dedup();
    assert_eq!((pids.len(), closed(&proxy)), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_message_costs_its_server_and_nobody_else() {
    let (proxy, admin, _postgres) = site(|pool| pool.max = 1).await;
    ask(&admin, "CREATE TABLE t (a int)").await.unwrap();
    for (sent, ends) in [
        // Not begun on a server: nothing is lost.
        (b"Q\0\0\0\x20SELECT".to_vec(), 0),
        // COPY data is passed on as it comes.
        ([frames().query("COPY t FROM STDIN").0, b"d\0\0\x40\0half".to_vec()].concat(), 1),
    ] {
        let mut raw = Raw::login(&proxy, &[]).await;
        raw.send(&sent).await;
        if ends > 0 {
            assert_eq!(raw.next().await.unwrap().0, b'G');
        }
        drop(raw);
        let mut next = Raw::login(&proxy, &[]).await;
        assert_eq!(next.converse(&frames().query("SELECT count(*) FROM t").0, 1).await.rows, ["0"]);
        assert_eq!(closed(&proxy), ends);
    }
    assert_eq!(proxy.snapshot().pools[0].closed.get("abandoned"), Some(&1));
}
