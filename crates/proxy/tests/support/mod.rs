//! What the tests of the data plane share: a PostgreSQL, a proxy before it, and a client that speaks raw frames.
#![allow(clippy::unwrap_used, dead_code, unused_imports)]

mod raw;

use std::path::Path;
use std::time::Duration;

use lab::postgres::{StartOptions, Throwaway, USER};
use proxy::Proxy;
use proxy::settings::{
    AuthMethod, ConsoleSettings, ListenAddress, PoolSettings, ServerAddress, ServerSettings, Settings,
    UserSettings,
};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

pub use raw::{Answer, Frames, Raw};

/// Longest wait for anything in these tests.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A throwaway PostgreSQL.
pub fn postgres() -> Throwaway {
    Throwaway::start(&StartOptions::default()).unwrap()
}

/// The superuser's server connection to `database` of `postgres`.
pub fn server(postgres: &Throwaway, database: &str) -> ServerSettings {
    ServerSettings {
        address: ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: postgres.port() },
        database: database.to_owned(),
        user: USER.to_owned(),
        password: postgres.password().to_owned(),
        connect_timeout: Duration::from_secs(5),
    }
}

/// A server at `port` where no PostgreSQL need be.
pub fn server_at(port: u16) -> ServerSettings {
    ServerSettings {
        address: ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port },
        database: "app".to_owned(),
        user: "app".to_owned(),
        password: "secret".to_owned(),
        connect_timeout: Duration::from_secs(1),
    }
}

/// A small pool named `app`: up to 3 servers, none kept warm.
pub fn pool(server: ServerSettings) -> PoolSettings {
    PoolSettings { max: 3, min: 0, ..PoolSettings::new("app", server) }
}

/// A user with a password in any form.
pub fn user(name: &str, password: &str) -> UserSettings {
    UserSettings { name: name.to_owned(), password: password.to_owned() }
}

/// Settings with these pools on a free port of 127.0.0.1.
pub fn settings(auth: AuthMethod, pools: Vec<PoolSettings>) -> Settings {
    Settings {
        listen: vec![ListenAddress::Tcp(([127, 0, 0, 1], 0).into())],
        client_max: 100,
        workers: 2,
        auth,
        login_timeout: PATIENCE,
        console: ConsoleSettings::default(),
        pools,
    }
}

/// A proxy with one SCRAM pool.
pub async fn proxy(pool: PoolSettings) -> Proxy {
    Proxy::start(settings(AuthMethod::Scram, vec![pool])).await.unwrap()
}

/// A PostgreSQL, its superuser's direct connection, and a trusting proxy with this pool before it.
pub async fn site(limits: impl FnOnce(&mut PoolSettings)) -> (Proxy, Client, Throwaway) {
    let postgres = postgres();
    let admin = connect(&postgres.url("postgres").parse().unwrap()).await.unwrap();
    let mut pool = pool(server(&postgres, "postgres"));
    limits(&mut pool);
    (trusting(pool).await, admin, postgres)
}

/// No frames yet.
pub fn frames() -> Frames {
    Frames::default()
}

/// A proxy with one pool that asks nobody for a password.
pub async fn trusting(pool: PoolSettings) -> Proxy {
    Proxy::start(settings(AuthMethod::Trust, vec![pool])).await.unwrap()
}

/// Its TCP port.
pub fn port(proxy: &Proxy) -> u16 {
    proxy
        .addresses()
        .iter()
        .find_map(|address| match address {
            ListenAddress::Tcp(tcp) => Some(tcp.port()),
            ListenAddress::Unix(_) => None,
        })
        .unwrap()
}

/// Connection parameters for the proxy.
pub fn config(port: u16, user: &str, password: &str) -> Config {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user(user).password(password).dbname("app");
    config
}

/// The superuser's connection parameters, through the proxy.
pub fn owner(proxy: &Proxy, postgres: &Throwaway) -> Config {
    config(port(proxy), USER, postgres.password())
}

/// Connects, and drives the connection in the background.
pub async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio::time::timeout(PATIENCE, config.connect(NoTls)).await.unwrap()?;
    tokio::spawn(connection);
    Ok(client)
}

/// First column of the first row of a simple query.
pub async fn ask(client: &Client, sql: &str) -> Result<String, tokio_postgres::Error> {
    let answer = tokio::time::timeout(PATIENCE, client.simple_query(sql)).await.unwrap()?;
    let first = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    });
    Ok(first.unwrap_or_default())
}

/// SQLSTATE and message of an error.
pub fn why(error: &tokio_postgres::Error) -> (String, String) {
    let said = error.as_db_error().unwrap_or_else(|| panic!("no error of a server: {error:?}"));
    (said.code().code().to_owned(), said.message().to_owned())
}

/// The error with which the proxy refuses a log-in.
pub async fn refusal(config: &Config) -> (String, String) {
    match connect(config).await {
        Ok(_) => panic!("the log-in was accepted"),
        Err(error) => why(&error),
    }
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Appends lines to the front of pg_hba.conf; they hold after a reload.
pub fn allow(postgres: &Throwaway, lines: &str) {
    let file: &Path = &postgres.folder().join("data/pg_hba.conf");
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, format!("{lines}\n{text}")).unwrap();
}

/// Reason counters of refused log-ins.
pub fn refused(proxy: &Proxy, reason: &str) -> u64 {
    proxy.snapshot().client_rejections.get(reason).copied().unwrap_or(0)
}
