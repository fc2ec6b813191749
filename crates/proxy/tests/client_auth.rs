//! How clients prove who they are: SCRAM, md5, trust; passwords stored in clear and as verifiers; Unix sockets.
#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::FileTypeExt;

use lab::postgres::USER;
use proxy::Proxy;
use proxy::settings::{AuthMethod, ListenAddress, PoolSettings};
use support::*;

/// `md5` + md5("open sesame" + "ann"), and a SCRAM verifier of "open sesame", as pg_authid has them.
async fn stored(postgres: &lab::postgres::Throwaway) -> (String, String) {
    let (client, connection) =
        tokio_postgres::connect(&postgres.url("postgres"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let read = async |method: &str| {
        let sql = format!(
            "SET password_encryption = '{method}'; DROP ROLE IF EXISTS ann; \
             CREATE ROLE ann LOGIN PASSWORD 'open sesame'; \
             SELECT rolpassword FROM pg_authid WHERE rolname = 'ann'"
        );
        ask(&client, &sql).await.unwrap()
    };
    (read("md5").await, read("scram-sha-256").await)
}

async fn proxy_with(method: AuthMethod, pool: PoolSettings) -> Proxy {
    Proxy::start(settings(method, vec![pool])).await.unwrap()
}

fn denied(user: &str) -> (String, String) {
    ("28P01".to_owned(), format!("password authentication failed for user \"{user}\""))
}

/// The code of the first authentication request that a user is sent.
async fn asked(proxy: &Proxy, user: &str) -> u32 {
    let mut client = Raw::dial(port(proxy)).await;
    client.startup(0, &[("user", user), ("database", "app")]).await;
    let (kind, body) = client.next().await.unwrap();
    assert_eq!(kind, b'R');
    u32::from_be_bytes(body[..4].try_into().unwrap())
}

#[tokio::test]
async fn scram_md5_and_trust_with_passwords_in_every_form() {
    let postgres = postgres();
    let (md5, scram) = stored(&postgres).await;
    let mut pool = pool(server(&postgres, "postgres"));
    pool.users = vec![
        user("clear", "open sesame"),
        user("ann", &md5),
        user("ben", &scram),
        user("ohne", ""),
        user("umlaut", "p\u{e4}ss\u{a0}w\u{f6}rd"),
    ];

    let proxy = proxy_with(AuthMethod::Scram, pool.clone()).await;
    for (name, request) in [("clear", 10), ("ann", 5), ("ben", 10), ("ohne", 10), ("nobody", 10)] {
        assert_eq!(asked(&proxy, name).await, request, "{name}");
    }
    for name in ["clear", "ann", "ben"] {
        let client = connect(&config(port(&proxy), name, "open sesame")).await.unwrap();
        assert_eq!(ask(&client, "SELECT current_user").await.unwrap(), USER, "the pool's own user serves");
        let wrong = config(port(&proxy), name, "open says me");
        assert_eq!(refusal(&wrong).await, denied(name));
    }
    // SASLprep: a no-break space and a space are the same character of a password.
    connect(&config(port(&proxy), "umlaut", "p\u{e4}ss w\u{f6}rd")).await.unwrap();
    assert_eq!(refusal(&config(port(&proxy), "ohne", "")).await, denied("ohne"));
    assert_eq!(refusal(&config(port(&proxy), "nobody", "open sesame")).await, denied("nobody"));
    assert_eq!(refusal(&owner(&proxy, &postgres)).await, denied(USER), "a list of users excludes the owner");
    assert_eq!(refused(&proxy, "password"), 6);

    let proxy = proxy_with(AuthMethod::Md5, pool.clone()).await;
    for (name, request) in [("clear", 5), ("ann", 5), ("ben", 10), ("nobody", 5)] {
        assert_eq!(asked(&proxy, name).await, request, "{name}");
    }
    for name in ["clear", "ann", "ben"] {
        connect(&config(port(&proxy), name, "open sesame")).await.unwrap();
        assert_eq!(refusal(&config(port(&proxy), name, "x")).await, denied(name));
    }
    assert_eq!(refusal(&config(port(&proxy), "ohne", "")).await, denied("ohne"));
    assert_eq!(refusal(&config(port(&proxy), "nobody", "x")).await, denied("nobody"));

    let proxy = proxy_with(AuthMethod::Trust, pool).await;
    for name in ["clear", "ann", "ohne"] {
        connect(&config(port(&proxy), name, "anything")).await.unwrap();
    }
    assert_eq!(refusal(&config(port(&proxy), "nobody", "x")).await, denied("nobody"));
}

#[tokio::test]
async fn the_owner_logs_in_where_nobody_is_listed() {
    let postgres = postgres();
    for method in [AuthMethod::Scram, AuthMethod::Md5] {
        let proxy = proxy_with(method, pool(server(&postgres, "postgres"))).await;
        let client = connect(&owner(&proxy, &postgres)).await.unwrap();
        assert_eq!(ask(&client, "SELECT 6 * 7").await.unwrap(), "42");
        assert_eq!(refusal(&config(port(&proxy), USER, "wrong")).await, denied(USER));
        assert_eq!(refusal(&config(port(&proxy), "nobody", "x")).await, denied("nobody"));
    }
}

#[tokio::test]
async fn unknown_databases_are_named_only_to_those_who_proved_a_password() {
    let postgres = postgres();
    let proxy = proxy(pool(server(&postgres, "postgres"))).await;
    let mut good = owner(&proxy, &postgres);
    let (code, message) = refusal(good.dbname("nowhere")).await;
    assert_eq!(code, "3D000");
    assert_eq!(message, "database \"nowhere\" is not served here; pools: app");
    let mut bad = config(port(&proxy), USER, "wrong");
    assert_eq!(refusal(bad.dbname("nowhere")).await, denied(USER));
    let mut stranger = config(port(&proxy), "nobody", "x");
    assert_eq!(refusal(stranger.dbname("nowhere")).await, denied("nobody"));
}

#[tokio::test]
async fn clients_come_by_unix_socket_and_a_leftover_file_is_replaced() {
    let postgres = postgres();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".s.PGSQL.6432");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "nobody answers there any more");
    let mut settings = settings(AuthMethod::Scram, vec![pool(server(&postgres, "postgres"))]);
    settings.listen.push(ListenAddress::Unix(path.clone()));
    let proxy = Proxy::start(settings.clone()).await.unwrap();
    let mut by_unix = config(6432, USER, postgres.password());
    let mut config = tokio_postgres::Config::new();
    config.host_path(folder.path()).port(6432).user(USER).password(postgres.password()).dbname("app");
    let client = connect(&config).await.unwrap();
    assert_eq!(ask(&client, "SELECT 6 * 7").await.unwrap(), "42");
    assert_eq!(refusal(config.password("wrong")).await, denied(USER));
    assert!(connect(by_unix.port(1)).await.is_err());

    let taken = Proxy::start(settings).await.err().unwrap().to_string();
    assert!(taken.starts_with("cannot listen on /"), "{taken}");
    drop(proxy);
    assert!(
        !std::fs::metadata(&path).is_ok_and(|file| file.file_type().is_socket()),
        "the file stays behind"
    );
}

#[tokio::test]
async fn start_up_parameters_reach_the_server_and_are_reported_back() {
    let postgres = postgres();
    let proxy = proxy(pool(server(&postgres, "postgres"))).await;
    let mut config = owner(&proxy, &postgres);
    config.application_name("bot");
    config.options("-c search_path=a,\\ b -c statement_timeout=1234 --TimeZone=Asia/Tokyo");
    let client = connect(&config).await.unwrap();
    for (name, value) in [
        ("application_name", "bot"),
        ("search_path", "a, b"),
        ("statement_timeout", "1234ms"),
        ("TimeZone", "Asia/Tokyo"),
    ] {
        assert_eq!(ask(&client, &format!("SHOW {name}")).await.unwrap(), value);
    }
    let plain = connect(&owner(&proxy, &postgres)).await.unwrap();
    assert_ne!(ask(&plain, "SHOW TimeZone").await.unwrap(), "Asia/Tokyo");
    let refused = refusal(owner(&proxy, &postgres).options("-x")).await;
    assert_eq!(refused, ("0A000".to_owned(), "start-up option \"-x\" is not supported".to_owned()));
}
