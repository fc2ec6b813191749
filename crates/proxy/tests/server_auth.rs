//! How the pool logs in at PostgreSQL: SCRAM, md5, cleartext, trust, by TCP and Unix socket; and what clients are
//! told when it cannot.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use lab::postgres::Throwaway;
use proxy::Proxy;
use proxy::settings::{AuthMethod, PoolSettings, ServerAddress, ServerSettings};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A client that is trusted, so that only the server's log-in counts.
async fn trusting(server: ServerSettings) -> (Proxy, tokio_postgres::Config) {
    let name = server.user.clone();
    let pool = PoolSettings {
        users: vec![user(&name, "x")],
        acquire_timeout: Duration::from_millis(300),
        ..pool(server)
    };
    let proxy = Proxy::start(settings(AuthMethod::Trust, vec![pool])).await.unwrap();
    let config = config(port(&proxy), &name, "");
    (proxy, config)
}

async fn roles(postgres: &Throwaway) {
    allow(
        postgres,
        "host all by_md5 127.0.0.1/32 md5\nhost all by_clear 127.0.0.1/32 password\n\
         host all by_trust 127.0.0.1/32 trust\nhost all by_reject 127.0.0.1/32 reject\n\
         local all by_md5 md5\n",
    );
    let (client, connection) =
        tokio_postgres::connect(&postgres.url("postgres"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let sql = "CREATE ROLE by_scram LOGIN PASSWORD 's3cret ä'; CREATE ROLE by_clear LOGIN PASSWORD 's3cret ä'; \
               CREATE ROLE by_trust LOGIN; CREATE ROLE by_reject LOGIN; \
               SET password_encryption = 'md5'; CREATE ROLE by_md5 LOGIN PASSWORD 's3cret ä'; \
               SELECT pg_reload_conf()";
    ask(&client, sql).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn every_method_of_postgresql_logs_in() {
    let postgres = postgres();
    roles(&postgres).await;
    let unix = ServerAddress::Unix(postgres.folder().join(format!(".s.PGSQL.{}", postgres.port())));
    for (name, password) in
        [("by_scram", "s3cret ä"), ("by_md5", "s3cret ä"), ("by_clear", "s3cret ä"), ("by_trust", "")]
    {
        let by_tcp = ServerSettings {
            user: name.to_owned(),
            password: password.to_owned(),
            ..server(&postgres, "postgres")
        };
        let (proxy, config) = trusting(by_tcp.clone()).await;
        let client = connect(&config).await.unwrap();
        assert_eq!(ask(&client, "SELECT current_user").await.unwrap(), name);
        assert_eq!(ask(&client, "SELECT inet_server_port() > 0").await.unwrap(), "t");
        drop(proxy);
        if matches!(name, "by_scram" | "by_md5") {
            let (_proxy, config) = trusting(ServerSettings { address: unix.clone(), ..by_tcp.clone() }).await;
            let client = connect(&config).await.unwrap();
            assert_eq!(ask(&client, "SELECT inet_server_port() IS NULL").await.unwrap(), "t", "{name}");
        }
        if password.is_empty() {
            continue;
        }
        let (_proxy, config) = trusting(ServerSettings { password: "wrong".to_owned(), ..by_tcp }).await;
        let (code, message) = refusal(&config).await;
        assert_eq!(code, "28P01");
        let said = format!(": password authentication failed for user \"{name}\"");
        assert!(message.starts_with("PostgreSQL at 127.0.0.1:") && message.ends_with(&said), "{message}");
    }
    let rejected = ServerSettings { user: "by_reject".to_owned(), ..server(&postgres, "postgres") };
    let (_proxy, config) = trusting(rejected).await;
    assert_eq!(refusal(&config).await.0, "28000", "pg_hba.conf rejects");
}

#[tokio::test]
async fn a_missing_database_is_said_in_postgresqls_words() {
    let postgres = postgres();
    let (proxy, config) = trusting(server(&postgres, "nowhere")).await;
    let (code, message) = refusal(&config).await;
    assert_eq!(code, "3D000");
    assert!(message.ends_with(": database \"nowhere\" does not exist"), "{message}");
    assert_eq!(refused(&proxy, "server"), 1);
    let mut direct = postgres.url("postgres").parse::<tokio_postgres::Config>().unwrap();
    let admin = connect(direct.dbname("postgres")).await.unwrap();
    ask(&admin, "CREATE DATABASE nowhere").await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let client = connect(&config).await.unwrap();
    assert_eq!(ask(&client, "SELECT current_database()").await.unwrap(), "nowhere");
}

#[tokio::test]
async fn an_unreachable_server_is_named() {
    let (_proxy, config) = trusting(server_at(1)).await;
    let (code, message) = refusal(&config).await;
    assert_eq!(code, "08001");
    assert!(message.starts_with("could not connect to PostgreSQL at 127.0.0.1:1: "), "{message}");
    assert!(message.contains("refused"), "{message}");
    let missing =
        ServerSettings { address: ServerAddress::Unix("/nowhere/.s.PGSQL.5432".into()), ..server_at(1) };
    let (_proxy, config) = trusting(missing).await;
    assert!(refusal(&config).await.1.contains("/nowhere/.s.PGSQL.5432"));
}

/// Answers each connection with these bytes after its start-up packet, and then closes or stays.
async fn stand_in(answer: &'static [u8], stay: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut startup = [0; 1024];
            let _read = socket.read(&mut startup).await;
            let _written = socket.write_all(answer).await;
            if stay {
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    drop(socket);
                });
            }
        }
    });
    port
}

#[tokio::test]
async fn a_server_that_is_no_postgresql_is_no_riddle() {
    let lost = "lost PostgreSQL at 127.0.0.1:";
    let odd = "does not answer like PostgreSQL";
    let cases: [(&[u8], bool, &str, &str); 7] = [
        (b"", false, "08006", lost),
        (b"", true, "08001", "no answer within 0.3 s"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", false, "08006", "invalid message length"),
        (b"R\0\0\0\x05\0", false, "08P01", odd),
        (b"T\0\0\0\x04", false, "08P01", odd),
        (b"R\0\0\0\x08\0\0\0\x07", false, "28000", "authentication method 7 is not supported"),
        (b"R\0\0\0\x11\0\0\0\x0aPLAIN-X\0\0", false, "28000", "not SCRAM-SHA-256"),
    ];
    for (answer, stay, code, text) in cases {
        let (_proxy, config) = trusting(server_at(stand_in(answer, stay).await)).await;
        let began = Instant::now();
        let told = refusal(&config).await;
        assert_eq!(told.0, code, "{told:?}");
        assert!(told.1.contains(text), "{told:?}");
        assert!(began.elapsed() < Duration::from_secs(3));
    }
}

#[tokio::test]
async fn a_server_that_is_starting_up_is_quoted() {
    let said = b"E\0\0\0\x3eSFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
    let (_proxy, config) = trusting(server_at(stand_in(said, false).await)).await;
    let (code, message) = refusal(&config).await;
    assert_eq!(code, "57P03");
    assert!(message.ends_with(": the database system is starting up"), "{message}");
}

#[tokio::test]
async fn a_standby_is_served_and_may_be_promoted() {
    let mut postgres = postgres();
    postgres.halt();
    std::fs::write(postgres.folder().join("data/standby.signal"), "").unwrap();
    postgres.restart().unwrap();
    let proxy = proxy(pool(server(&postgres, "postgres"))).await;
    let client = connect(&owner(&proxy, &postgres)).await.unwrap();
    assert_eq!(ask(&client, "SELECT pg_is_in_recovery()").await.unwrap(), "t");
    let error = ask(&client, "CREATE TABLE t (i int)").await.unwrap_err();
    assert_eq!(why(&error).0, "25006", "read-only, in PostgreSQL's own words");
    assert_eq!(ask(&client, "SELECT pg_promote()").await.unwrap(), "t");
    ask(&client, "CREATE TABLE t (i int)").await.unwrap();
    assert_eq!(ask(&client, "SELECT count(*) FROM t").await.unwrap(), "0");
}
