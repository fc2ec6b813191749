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

#[tokio::test(flavor = "multi_thread")]
async fn resetting_the_session_brings_back_what_it_began_with() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let began = [("application_name", "mine"), ("options", "-c search_path=mine -c statement_timeout=9s")];
    let mut plain = Raw::login(&proxy, &[]).await;
    let default = shown(&mut plain).await;
    // The last is what asyncpg's pool sends when a connection comes back.
    for reset in [
        frames().query("DISCARD ALL"),
        frames().query("RESET ALL"),
        frames().parse("", "RESET ALL").run("", &[]).sync(),
        frames().query("SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;"),
    ] {
        let mut one = Raw::login(&proxy, &began).await;
        let own = shown(&mut one).await;
        assert_eq!(own[4..], ["mine", "mine", "9s"]);
        one.converse(&frames().query("SET TimeZone = 'Asia/Tokyo'").0, 1).await;
        // Sent in one write: what follows the reset has the settings as well.
        let mut together = reset.0.clone();
        together.extend(frames().query("SHOW search_path").0);
        assert_eq!(one.converse(&together, 2).await.rows.last().unwrap(), "mine");
        let mut other = Raw::login(&proxy, &began).await;
        assert_eq!(shown(&mut other).await, own);
        assert_eq!(shown(&mut plain).await, default);
        assert_eq!(shown(&mut one).await, own);
    }
    assert!(proxy.snapshot().pools[0].pinned.is_empty());
    let mut one = Raw::login(&proxy, &began).await;
    let undone = frames().query("BEGIN").query("RESET ALL").query("ROLLBACK").query("SHOW search_path");
    assert_eq!(one.converse(&undone.0, 4).await.rows, ["mine"]);
    drop(one);
    let mut other = Raw::login(&proxy, &began).await;
    assert_eq!(shown(&mut other).await[4..], ["mine", "mine", "9s"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_what_a_reset_changes() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let mut raw = Raw::login(&proxy, &[("application_name", "mine")]).await;
    raw.converse(&frames().query("SET application_name = 'other'").0, 1).await;
    raw.send(&frames().query("DISCARD ALL").query("SHOW application_name").0).await;
    let (mut told, mut ready) = (Vec::new(), 0);
    while ready < 2 {
        let (kind, body) = raw.next().await.unwrap();
        ready += usize::from(kind == b'Z');
        if kind == b'S' && body.starts_with(b"application_name\0") {
            told.push(String::from_utf8_lossy(&body[17..body.len() - 1]).into_owned());
        }
    }
    assert_eq!(told.last().map(String::as_str), Some("mine"), "{told:?}");
}
