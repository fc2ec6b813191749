//! PostgreSQL out of reach while clients are there: what they are told, how soon, and that all recovers by itself.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use lab::postgres::Throwaway;
use proxy::Proxy;
use proxy::settings::{AuthMethod, PoolSettings, ServerSettings};
use support::*;
use tokio_postgres::Client;

/// A PostgreSQL with the role and the database `app`, and its superuser.
async fn site() -> (Throwaway, Client) {
    let postgres = postgres();
    let admin = connect(&postgres.url("postgres").parse().unwrap()).await.unwrap();
    for sql in ["CREATE ROLE app LOGIN PASSWORD 'secret'", "CREATE DATABASE app OWNER app"] {
        ask(&admin, sql).await.unwrap();
    }
    (postgres, admin)
}

/// A pool before `app`, and a client that is logged in.
async fn pooled(postgres: &Throwaway, acquire_timeout: Duration) -> (Proxy, Client) {
    let server =
        ServerSettings { user: "app".to_owned(), password: "secret".to_owned(), ..server(postgres, "app") };
    let proxy = proxy(PoolSettings { acquire_timeout, ..pool(server) }).await;
    let client = connect(&config(port(&proxy), "app", "secret")).await.unwrap();
    assert_eq!(ask(&client, "SELECT 1").await.unwrap(), "1");
    (proxy, client)
}

async fn lose_servers(proxy: &Proxy, admin: &Client) {
    ask(admin, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app'")
        .await
        .unwrap();
    until("the idle servers are gone", || proxy.snapshot().pools[0].servers["idle"] == 0).await;
}

fn hint(error: &tokio_postgres::Error) -> String {
    error.as_db_error().unwrap().hint().unwrap().to_owned()
}

/// Patience far beyond the test's: an answer at all shows that it did not wait for the acquire time-out.
const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_password_that_no_longer_fits_is_told_at_once_and_heals() {
    let (postgres, admin) = site().await;
    let (proxy, client) = pooled(&postgres, LONG).await;
    ask(&admin, "ALTER ROLE app PASSWORD 'other'").await.unwrap();
    lose_servers(&proxy, &admin).await;
    let error = ask(&client, "SELECT 1").await.unwrap_err();
    let (code, message) = why(&error);
    assert_eq!(code, "28P01");
    let place = format!("PostgreSQL at 127.0.0.1:{}: password authentication failed", postgres.port());
    assert!(message.starts_with(&place), "{message}");
    assert!(hint(&error).contains("`server` setting"));
    let again = ask(&client, "SELECT 1").await.unwrap_err();
    assert_eq!(why(&again).0, "28P01", "the client is still connected");
    assert!(proxy.snapshot().pools[0].connect_failures["28P01"] >= 2);
    ask(&admin, "ALTER ROLE app PASSWORD 'secret'").await.unwrap();
    assert_eq!(ask(&client, "SELECT 1").await.unwrap(), "1");
}

#[tokio::test]
async fn a_database_that_is_dropped_is_told_at_once_and_heals() {
    let (postgres, admin) = site().await;
    let (proxy, client) = pooled(&postgres, LONG).await;
    lose_servers(&proxy, &admin).await;
    ask(&admin, "DROP DATABASE app WITH (FORCE)").await.unwrap();
    let error = ask(&client, "SELECT 1").await.unwrap_err();
    assert_eq!(why(&error).0, "3D000");
    assert!(why(&error).1.contains("database \"app\" does not exist"));
    assert!(hint(&error).contains("Create the database"));
    ask(&admin, "CREATE DATABASE app OWNER app").await.unwrap();
    assert_eq!(ask(&client, "SELECT 1").await.unwrap(), "1");
}

#[tokio::test]
async fn too_many_connections_are_waited_out() {
    let (postgres, admin) = site().await;
    let (proxy, client) = pooled(&postgres, Duration::from_millis(700)).await;
    ask(&admin, "ALTER ROLE app CONNECTION LIMIT 1").await.unwrap();
    lose_servers(&proxy, &admin).await;
    let mut direct = postgres.url("app").parse::<tokio_postgres::Config>().unwrap();
    let only = connect(direct.user("app").password("secret")).await.unwrap();
    let error = ask(&client, "SELECT 1").await.unwrap_err();
    let (code, message) = why(&error);
    assert_eq!(code, "53300");
    assert!(message.ends_with("too many connections for role \"app\""), "{message}");
    assert!(hint(&error).contains("max_connections"));
    let waiting = tokio::spawn(async move { ask(&client, "SELECT 1").await });
    until("somebody waits", || proxy.snapshot().pools[0].clients["waiting"] == 1).await;
    drop(only);
    assert_eq!(waiting.await.unwrap().unwrap(), "1", "served within the acquire time-out");
}

#[tokio::test]
async fn a_stopped_postgresql_is_named_when_the_wait_is_over() {
    let (mut postgres, admin) = site().await;
    let (proxy, client) = pooled(&postgres, Duration::from_millis(700)).await;
    drop(admin);
    postgres.halt();
    until("the idle server is gone", || proxy.snapshot().pools[0].servers["idle"] == 0).await;
    let error = ask(&client, "SELECT 1").await.unwrap_err();
    let (code, message) = why(&error);
    assert_eq!(code, "08001");
    let place = format!("could not connect to PostgreSQL at 127.0.0.1:{}: ", postgres.port());
    assert!(message.starts_with(&place), "{message}");
    assert!(hint(&error).contains("keeps trying"));
    assert!(error.as_db_error().unwrap().detail().unwrap().starts_with("The client waited 7"), "{error:?}");
    let tries = proxy.snapshot().pools[0].connect_failures["08001"];
    assert!(tries <= 6, "{tries} attempts in less than a second");
    postgres.restart().unwrap();
    // The next attempt may be a second away, longer than this pool's clients wait.
    let began = Instant::now();
    while let Err(error) = ask(&client, "SELECT 1").await {
        assert!(began.elapsed() < PATIENCE, "{error:?}");
    }
}

#[tokio::test]
async fn log_ins_wait_for_a_postgresql_that_is_not_up_yet() {
    let mut postgres = postgres();
    postgres.halt();
    let settings = PoolSettings { acquire_timeout: LONG, ..pool(server(&postgres, "postgres")) };
    let proxy = proxy(settings).await;
    let config = owner(&proxy, &postgres);
    let early = tokio::spawn(async move { connect(&config).await });
    until("the log-in has begun", || proxy.snapshot().client_connections == 1).await;
    postgres.restart().unwrap();
    let client = early.await.unwrap().unwrap();
    assert_eq!(ask(&client, "SELECT 1").await.unwrap(), "1");
}

/// How one client fared in a restart.
struct Fared {
    served_after: bool,
    faults: Vec<String>,
}

/// Asks until `deadline`, reconnecting when the connection was closed.
async fn persist(
    config: tokio_postgres::Config,
    restarted: std::sync::Arc<std::sync::atomic::AtomicBool>,
) -> Fared {
    let mut fared = Fared { served_after: false, faults: Vec::new() };
    let mut client = connect(&config).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !fared.served_after && Instant::now() < deadline {
        let after = restarted.load(std::sync::atomic::Ordering::SeqCst);
        match ask(&client, "SELECT pg_sleep(0.002)").await {
            Ok(_) => fared.served_after = after,
            Err(error) => {
                let code = error.as_db_error().map_or("closed".to_owned(), |e| e.code().code().to_owned());
                fared.faults.push(code);
                // The driver may not yet have seen the end that a FATAL announces.
                if error.as_db_error().is_none_or(|error| error.severity() == "FATAL") {
                    client = connect(&config).await.unwrap();
                }
            }
        }
    }
    fared
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_costs_only_the_transactions_in_flight() {
    let mut postgres = postgres();
    let settings = PoolSettings { acquire_timeout: LONG, ..pool(server(&postgres, "postgres")) };
    let proxy = Proxy::start(settings_of(settings)).await.unwrap();
    let restarted = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| tokio::spawn(persist(owner(&proxy, &postgres), std::sync::Arc::clone(&restarted))))
        .collect();
    until("all work", || proxy.snapshot().pools[0].queries > 50).await;
    let postgres = tokio::task::spawn_blocking(move || {
        postgres.restart().unwrap();
        postgres
    })
    .await
    .unwrap();
    restarted.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut faults = Vec::new();
    for client in clients {
        let fared = client.await.unwrap();
        assert!(fared.served_after, "a client was never served again: {:?}", fared.faults);
        faults.extend(fared.faults);
    }
    assert!(faults.len() <= 3, "three servers were lent at most: {faults:?}");
    assert!(faults.iter().all(|code| ["57P01", "08006", "closed"].contains(&code.as_str())), "{faults:?}");
    drop(postgres);
}

fn settings_of(pool: PoolSettings) -> proxy::Settings {
    settings(AuthMethod::Scram, vec![pool])
}
