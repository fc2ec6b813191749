//! Clients that leave, and what becomes of their servers.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proxy::Proxy;
use proxy::settings::{Mode, PoolSettings};
use support::*;
use tokio_postgres::Client;

/// A PostgreSQL, its superuser's direct connection, and a proxy with this pool before it.
async fn site(limits: impl FnOnce(&mut PoolSettings)) -> (Proxy, Client, lab::postgres::Throwaway) {
    let postgres = postgres();
    let admin = connect(&postgres.url("postgres").parse().unwrap()).await.unwrap();
    let mut pool = pool(server(&postgres, "postgres"));
    limits(&mut pool);
    (trusting(pool).await, admin, postgres)
}

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
