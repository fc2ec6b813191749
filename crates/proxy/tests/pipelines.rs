//! Pipelines that end in unusual ways: nothing is lost, kept or done that PostgreSQL would not.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use proxy::Proxy;
use support::*;
use tokio::io::AsyncWriteExt;

async fn comes_free(proxy: &Proxy, what: &str) {
    until(what, || proxy.snapshot().pools[0].servers["idle"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_without_sync_is_undone_when_its_client_leaves() {
    let (proxy, admin, _postgres) = site(|pool| pool.max = 1).await;
    ask(&admin, "CREATE TABLE kept (a int)").await.unwrap();
    let insert = || frames().parse("", "INSERT INTO kept VALUES (1)").run("", &[]);
    let copy = || frames().parse("", "COPY kept FROM STDIN").run("", &[]);
    for (batch, first) in [
        (insert().terminate(), None),
        (insert(), None),
        (insert().flush(), Some(b'C')),
        (insert().flush().terminate(), Some(b'C')),
        (copy().copy("1\n").copy_done(), None),
        (copy().flush(), Some(b'G')),
        (frames().query("BEGIN").parse("", "INSERT INTO kept VALUES (1)").run("", &[]), None),
        (frames().parse("", "SELEC").parse("", "INSERT INTO kept VALUES (1)").run("", &[]), None),
    ] {
        let mut raw = Raw::login(&proxy, &[]).await;
        raw.send(&batch.0).await;
        while let Some(awaited) = first
            && raw.next().await.unwrap().0 != awaited
        {}
        drop(raw);
        until("the client is gone", || proxy.snapshot().client_connections == 0).await;
        comes_free(&proxy, "the server of the batch").await;
        assert_eq!(ask(&admin, "SELECT count(*) FROM kept").await.unwrap(), "0");
    }
    // What was whole is kept.
    let mut raw = Raw::login(&proxy, &[]).await;
    raw.send(&insert().sync().parse("", "INSERT INTO kept VALUES (2)").run("", &[]).terminate().0).await;
    drop(raw);
    until("the client is gone", || proxy.snapshot().client_connections == 0).await;
    assert_eq!(ask(&admin, "SELECT sum(a) FROM kept").await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_copy_keeps_a_server() {
    let (proxy, admin, _postgres) = site(|pool| pool.max = 1).await;
    ask(&admin, "CREATE TABLE kept (a int)").await.unwrap();
    let twice = "COPY kept FROM STDIN; COPY kept FROM STDIN";
    let mut raw = Raw::login(&proxy, &[]).await;
    // PostgreSQL ignores a Sync while it takes COPY data.
    let copy = frames().query("COPY kept FROM STDIN").sync().copy("1\n").sync().copy_done();
    assert_eq!(raw.converse(&copy.0, 1).await.kinds, "GCZ");
    let both = frames().query(twice).copy("2\n").copy_done().copy("3\n").copy_done().query("SELECT 7");
    assert_eq!(raw.converse(&both.0, 2).await.kinds, "GCGCZTDCZ");
    comes_free(&proxy, "the server of a COPY").await;
    for left in [
        frames().query(twice).copy("4\n").copy_done(),
        frames().query(twice),
        frames().query("COPY kept FROM STDIN").sync(),
    ] {
        raw.send(&left.0).await;
        assert_eq!(raw.next().await.unwrap().0, b'G');
        drop(raw);
        comes_free(&proxy, "the server of a client that left in a COPY").await;
        raw = Raw::login(&proxy, &[]).await;
        assert_eq!(raw.converse(&frames().query("SELECT count(*) FROM kept").0, 1).await.rows, ["3"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_paused_client_is_seen() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    // It falls behind with reading, and says that it will send no more.
    let mut slow = Raw::login(&proxy, &[]).await;
    slow.send(&frames().query("SELECT repeat('x', 1000000) FROM generate_series(1, 8)").0).await;
    until("much is on its way", || proxy.snapshot().pools[0].server_in_bytes > 1_000_000).await;
    slow.0.shutdown().await.unwrap();
    comes_free(&proxy, "the server of a client that fell behind").await;
    drop(slow);
    // It sends more than is taken, and ends.
    let mut eager = Raw::login(&proxy, &[]).await;
    eager.converse(&frames().query("BEGIN").0, 1).await;
    let one = frames().query(&format!("SELECT '{}'", "x".repeat(8_000))).0;
    let mut many = frames().query("SELECT pg_sleep(1)").0;
    (0..700).for_each(|_| many.extend_from_slice(&one));
    // Reading stops when Poolwright does: so this ends in the middle.
    let sent = tokio::time::timeout(Duration::from_millis(500), eager.0.write_all(&many)).await;
    eager.0.shutdown().await.unwrap();
    comes_free(&proxy, "the server of a client that sent too much").await;
    drop((eager, sent));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_are_bounded() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let mut raw = Raw::login(&proxy, &[]).await;
    let syncs = (0..200_000).fold(frames(), |frames, _| frames.sync()).0;
    let before = proxy.snapshot().process.rss_bytes;
    // 60 MB of them; the answers are never read, so at some point no more are taken.
    let flood = async {
        for _ in 0..60 {
            raw.0.write_all(&syncs).await.unwrap();
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(3), flood).await.is_err());
    assert!(proxy.snapshot().process.rss_bytes < before + (8 << 20));
    // Replies that need no server pile up behind a statement: too many are an error.
    let mut raw = Raw::login(&proxy, &[]).await;
    let closes = (0..5_000).fold(frames().parse("", "SELECT 1"), |frames, _| frames.close("none"));
    assert_eq!(raw.converse(&closes.0, 1).await.errors[0].0, "54000");
    comes_free(&proxy, "its server").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unnamed_statement_outlives_anothers_settings() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let mut one = Raw::login(&proxy, &[("TimeZone", "Asia/Tokyo")]).await;
    let mut other = Raw::login(&proxy, &[("TimeZone", "Europe/Paris")]).await;
    other.converse(&frames().parse("named", "SELECT 2").sync().0, 1).await;
    one.converse(&frames().parse("", "SELECT 1").sync().0, 1).await;
    assert_eq!(other.converse(&frames().run("named", &[]).sync().0, 1).await.rows, ["2"]);
    assert_eq!(one.converse(&frames().run("", &[]).sync().0, 1).await.rows, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_deallocate_holds_nobody_up() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    for skipped in ["DEALLOCATE one", "DEALLOCATE ALL", "DISCARD ALL"] {
        let mut raw = Raw::login(&proxy, &[]).await;
        raw.send(&frames().describe("none").query(skipped).0).await;
        drop(raw);
        let mut raw = Raw::login(&proxy, &[]).await;
        assert_eq!(raw.converse(&frames().query("SELECT 1").0, 1).await.rows, ["1"], "{skipped}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_statement_of_a_checkout_has_its_own_time() {
    let (proxy, _admin, _postgres) =
        site(|pool| (pool.max, pool.query_timeout) = (1, Duration::from_millis(300))).await;
    let mut raw = Raw::login(&proxy, &[]).await;
    raw.converse(&frames().query("SET work_mem = '5MB'").0, 1).await;
    for _ in 0..3 {
        let answer = raw.converse(&frames().query("SELECT pg_sleep(600)").0, 1).await;
        assert_eq!(answer.errors[0].0, "57014");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_a_session_by_a_side_door_reaches_nobody() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let mut lock = vec![b'F', 0, 0, 0, 26];
    for part in [&2_880_u32.to_be_bytes()[..], &[0, 1, 0, 1, 0, 1, 0, 0, 0, 8], &7_u64.to_be_bytes(), &[0, 1]]
    {
        lock.extend_from_slice(part);
    }
    let length = u32::try_from(lock.len() - 1).unwrap();
    lock[1..5].copy_from_slice(&length.to_be_bytes());
    for door in [
        lock,
        frames().query("DO $$ BEGIN PERFORM set_config('search_path', 'evil', false); END $$").0,
        frames().query("UPDATE pg_settings SET setting = 'evil' WHERE name = 'search_path'").0,
        frames().query("SELECT U&\"set\\005fconfig\"('search_path', 'evil', false)").0,
        frames().query("EXPLAIN ANALYZE CREATE TEMP TABLE left_1 AS SELECT 1").0,
        frames().query("SELECT 1 AS a INTO LOCAL TEMP left_2").0,
        frames().query("SELECT 1 AS a INTO pg_temp.left_3").0,
        frames().query("CREATE TABLE \"pg_temp\".left_4 (a int)").0,
        frames().query("SELECT E'a'\n'\\''; SET search_path = evil; --'").0,
        frames()
            .query("SET standard_conforming_strings = off")
            .query("SELECT '\\''; SET search_path = evil; --'")
            .0,
    ] {
        let mut raw = Raw::login(&proxy, &[]).await;
        let answers = door.windows(5).filter(|five| five[..2] == [b'Q', 0]).count().max(1);
        assert_eq!(raw.converse(&door, answers).await.errors, []);
        drop(raw);
        comes_free(&proxy, "the server").await;
        let mut raw = Raw::login(&proxy, &[]).await;
        let left =
            "SELECT current_setting('search_path') || (SELECT count(*) FROM pg_class WHERE relname ~ 'left_')
            || (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')";
        let rows = raw.converse(&frames().query(left).0, 1).await.rows;
        assert_eq!(rows, ["\"$user\", public00"], "{}", String::from_utf8_lossy(&door));
    }
}
