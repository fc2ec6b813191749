//! Session state of clients that share servers.
#![allow(clippy::unwrap_used)]

mod support;

use support::*;

const NAMES: [&str; 7] = [
    "TimeZone",
    "DateStyle",
    "IntervalStyle",
    "client_encoding",
    "application_name",
    "search_path",
    "statement_timeout",
];

async fn shown(raw: &mut Raw) -> Vec<String> {
    let mut values = Vec::new();
    for name in NAMES {
        values.extend(raw.converse(&frames().query(&format!("SHOW {name}")).0, 1).await.rows);
    }
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_with_different_settings_share_one_server() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let mut paris = Raw::login(
        &proxy,
        &[
            ("TimeZone", "Europe/Paris"),
            ("application_name", "it's \\ \"one\""),
            ("options", "-c search_path=a,b -c statement_timeout=9s"),
        ],
    )
    .await;
    let mut plain = Raw::login(&proxy, &[]).await;
    let mut tokyo = Raw::login(
        &proxy,
        &[
            ("timezone", "Asia/Tokyo"),
            ("DateStyle", "German"),
            ("client_encoding", "LATIN1"),
            ("application_name", "two"),
        ],
    )
    .await;
    let default = shown(&mut plain).await;
    let mut pids = Vec::new();
    for _ in 0..3 {
        for (raw, expected) in [
            (
                &mut paris,
                ["Europe/Paris", &default[1], &default[2], &default[3], "it's \\ \"one\"", "a,b", "9s"],
            ),
            (
                &mut tokyo,
                ["Asia/Tokyo", "German, DMY", &default[2], "LATIN1", "two", &default[5], &default[6]],
            ),
        ] {
            assert_eq!(shown(raw).await, expected);
            pids.extend(raw.converse(&frames().query("SELECT pg_backend_pid()").0, 1).await.rows);
        }
        assert_eq!(shown(&mut plain).await, default);
    }
    pids.dedup();
    assert_eq!(pids.len(), 1);
    // The bytes of a row are in the client's own encoding.
    tokyo.send(&frames().query("SELECT chr(228)").0).await;
    let mut row = Vec::new();
    while let Some((kind, body)) = tokyo.next().await {
        match kind {
            b'D' => row = body,
            b'Z' => break,
            _ => {}
        }
    }
    assert_eq!(row[6..], [0xe4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_changed_later_follow_their_client() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let (mut one, mut other) = (Raw::login(&proxy, &[]).await, Raw::login(&proxy, &[]).await);
    let default = shown(&mut other).await;
    let zone = frames().query("SHOW TimeZone").0;
    for (sent, ready, expected) in [
        (frames().query("SET TimeZone = 'Asia/Tokyo'"), 1, "Asia/Tokyo"),
        (frames().query("BEGIN").query("SET TimeZone = 'Europe/Paris'").query("ROLLBACK"), 3, "Asia/Tokyo"),
        (
            frames().query("BEGIN").query("SET LOCAL TimeZone = 'Europe/Paris'").query("COMMIT"),
            3,
            "Asia/Tokyo",
        ),
        (frames().query("BEGIN").query("SET TIME ZONE 'Europe/Rome'").query("COMMIT"), 3, "Europe/Rome"),
        (frames().parse("", "SET TimeZone = 'Asia/Tokyo'").run("", &[]).sync(), 1, "Asia/Tokyo"),
        (frames().query("SET SESSION application_name TO 'x'"), 1, "Asia/Tokyo"),
        (frames().query("SET TimeZone TO DEFAULT"), 1, &default[0]),
    ] {
        one.converse(&sent.0, ready).await;
        assert_eq!(shown(&mut other).await, default, "{expected}");
        assert_eq!(one.converse(&zone, 1).await.rows, [expected]);
    }
    assert!(proxy.snapshot().pools[0].pinned.is_empty());
    // What PostgreSQL does not report cannot be followed: its client keeps the server.
    one.converse(&frames().query("SET work_mem = '3MB'").0, 1).await;
    assert_eq!(proxy.snapshot().pools[0].pinned.get("set"), Some(&1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_cannot_be_had_is_told() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let mut raw = Raw::login(&proxy, &[("TimeZone", "Nowhere/Land")]).await;
    raw.send(&frames().query("SELECT 1").0).await;
    let answer = raw.answer(1).await;
    assert_eq!(answer.errors[0].0, "22023", "{answer:?}");
    assert!(answer.errors[0].1.contains("TimeZone"));
    let mut other = Raw::login(&proxy, &[]).await;
    assert_eq!(other.converse(&frames().query("SELECT 1").0, 1).await.rows, ["1"]);
}
