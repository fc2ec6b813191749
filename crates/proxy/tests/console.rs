//! The console: who may do what, by psql and by a driver of the extended protocol.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;
use std::time::Duration;

use lab::postgres::{Throwaway, USER};
use proxy::settings::{AuthMethod, PoolSettings, Rewrite};
use proxy::{Proxy, Request};
use support::*;
use tokio_postgres::{Client, Config, SimpleQueryMessage};

/// A proxy whose console knows `root` (admin) and `guest` (viewer).
async fn site(pool: PoolSettings, auth: AuthMethod) -> Proxy {
    let mut settings = settings(auth, vec![pool]);
    settings.console.admins = vec![user("root", "toor")];
    settings.console.viewers = vec![user("guest", "look")];
    Proxy::start(settings).await.unwrap()
}

fn console(proxy: &Proxy, user: &str, password: &str) -> Config {
    let mut config = config(port(proxy), user, password);
    config.dbname("poolwright");
    config
}

async fn admin(proxy: &Proxy) -> Client {
    connect(&console(proxy, "root", "toor")).await.unwrap()
}

/// Rows of a SHOW by the simple protocol, as column=value.
async fn show(client: &Client, sql: &str) -> Vec<Vec<(String, Option<String>)>> {
    let messages = client.simple_query(sql).await.unwrap();
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| {
        let names = row.columns().iter().map(|column| column.name().to_owned());
        names.enumerate().map(|(at, name)| (name, row.get(at).map(str::to_owned))).collect()
    })
    .collect()
}

fn value<'a>(row: &'a [(String, Option<String>)], name: &str) -> &'a str {
    row.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.as_deref()).unwrap()
}

fn psql(postgres: &Throwaway, proxy: &Proxy, sql: &str) -> String {
    let beside = postgres.bin().join("psql");
    let output = Command::new(if beside.is_file() { beside } else { "psql".into() })
        .args(["-X", "-A", "-h", "127.0.0.1", "-U", "root", "-d", "pgbouncer", "-p"])
        .args([&port(proxy).to_string(), "-c", sql])
        .env("PGPASSWORD", "toor")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_shows_pools_clients_servers_and_fingerprints() {
    let postgres = postgres();
    let proxy = site(pool(server(&postgres, "postgres")), AuthMethod::Trust).await;
    let mut config = owner(&proxy, &postgres);
    let client = connect(config.application_name("the bot")).await.unwrap();
    ask(&client, "BEGIN; SELECT 'a secret literal'").await.unwrap();
    let lines = |sql: &str| psql(&postgres, &proxy, sql).lines().map(str::to_owned).collect::<Vec<_>>();
    let pools = lines("SHOW POOLS");
    assert!(
        pools[0].starts_with("database|user|cl_active|cl_waiting|cl_idle|sv_active|sv_idle|"),
        "{pools:?}"
    );
    assert!(pools[1].starts_with(&format!("app|{USER}|1|0|0|1|0|1|0|0|0|0|transaction|3|0")), "{pools:?}");
    let clients = lines("SHOW CLIENTS;");
    assert!(clients[1].starts_with(&format!("C|{USER}|app|idle_in_transaction|127.0.0.1:")), "{clients:?}");
    assert!(clients[1].contains("|the bot|"), "{clients:?}");
    let servers = lines("show servers");
    let address = format!("S|{USER}|app|idle_in_transaction|127.0.0.1:{}|", postgres.port());
    assert!(servers[1].starts_with(&address), "{servers:?}");
    let fingerprints = lines("SHOW FINGERPRINTS").join("\n");
    assert!(fingerprints.contains("SELECT $1") && !fingerprints.contains("secret"), "{fingerprints}");
    let stats = lines("SHOW STATS");
    assert!(stats[0].starts_with("database|total_xact_count|total_query_count|total_received|"), "{stats:?}");
    assert_eq!(lines("SHOW VERSION")[1], format!("Poolwright {}", env!("CARGO_PKG_VERSION")));
    for topic in ["HELP", "DATABASES", "REWRITES", "EVENTS", "CONFIG", "LISTS", "STATE", "STATS_TOTALS"] {
        let told = psql(&postgres, &proxy, &format!("SHOW {topic}"));
        assert!(told.contains('|') && !told.contains("ERROR"), "{topic}: {told}");
        assert!(!told.contains(postgres.password()) && !told.contains("toor"), "a password in SHOW {topic}");
    }
    let wrong = psql(&postgres, &proxy, "SHOW TABLES");
    assert!(wrong.contains("there is no SHOW TABLES") && wrong.contains("SHOW HELP"), "{wrong}");
    let several = psql(&postgres, &proxy, "SHOW STATE; SHOW LISTS; DROP TABLE x; SHOW VERSION");
    assert!(several.contains("the console does not know this form of DROP"), "{several}");
    let lent = psql(&postgres, &proxy, &format!("KILL_CLIENT {}", clients[1].rsplit('|').next().unwrap()));
    assert_eq!(lent.trim(), "KILL_CLIENT");
    assert!(ask(&client, "SELECT 1").await.is_err(), "the killed client is gone");
    assert!(psql(&postgres, &proxy, "KILL_CLIENT 99").contains("there is no client 99"));
}

#[tokio::test]
async fn a_driver_of_the_extended_protocol_is_served() {
    let proxy = site(pool(server_at(1)), AuthMethod::Scram).await;
    let client = admin(&proxy).await;
    let rows = client.query("SHOW POOLS", &[]).await.unwrap();
    assert_eq!(rows[0].get::<_, &str>("database"), "app");
    assert_eq!(rows[0].get::<_, i32>("pool_size"), 3, "binary int4");
    let stats = client.prepare("SHOW STATS").await.unwrap();
    for _ in 0..3 {
        let row = client.query_one(&stats, &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>("total_query_count"), 0, "binary int8");
        assert_eq!(row.get::<_, Option<i64>>("query_p95_us"), None);
    }
    assert_eq!(client.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
    let error = client.query("SELECT * FROM orders", &[]).await.unwrap_err();
    assert_eq!(why(&error).0, "42601");
    assert_eq!(client.query("SHOW CONFIG", &[]).await.unwrap()[0].get::<_, &str>("key"), "listen");
    let mut client = client;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SHOW CONFIG", &[]).await.unwrap();
    let (mut seen, all) = (0, transaction.query("SHOW CONFIG", &[]).await.unwrap().len());
    loop {
        let some = transaction.query_portal(&portal, 5).await.unwrap().len();
        assert!(some <= 5);
        seen += some;
        if some == 0 {
            break;
        }
    }
    assert_eq!(seen, all);
    assert!(transaction.simple_query("nonsense").await.is_err());
    let aborted = transaction.simple_query("SHOW VERSION").await.unwrap_err();
    assert_eq!(why(&aborted).0, "25P02");
    transaction.rollback().await.unwrap();
    client.batch_execute("SET extra_float_digits = 3; DISCARD ALL; SHOW VERSION").await.unwrap();
}

#[tokio::test]
async fn who_may_use_the_console() {
    let proxy = site(pool(server_at(1)), AuthMethod::Trust).await;
    for (name, password) in
        [("root", "wrong"), ("guest", "toor"), ("app", "secret"), ("nobody", "x"), ("root", "")]
    {
        let (code, message) = match connect(&console(&proxy, name, password)).await {
            Ok(_) => panic!("{name} was let in"),
            Err(error) if error.as_db_error().is_some() => why(&error),
            Err(_client_gives_up) if password.is_empty() => continue,
            Err(error) => panic!("{error:?}"),
        };
        assert_eq!(code, "28P01", "{name}: {message}");
    }
    let guest = connect(&console(&proxy, "guest", "look")).await.unwrap();
    assert_eq!(show(&guest, "SHOW POOLS").await.len(), 1);
    for sql in ["RELOAD", "PAUSE", "RESUME app", "KILL_CLIENT 1", "REVOKE x", "SHUTDOWN"] {
        let error = guest.simple_query(sql).await.unwrap_err();
        assert_eq!(why(&error).0, "42501", "{sql}");
    }
    assert_eq!(value(&show(&guest, "SHOW STATE").await[0], "value"), "yes", "nothing was paused");
}

#[tokio::test]
async fn without_a_list_the_owner_may_look() {
    let proxy = proxy(pool(server_at(1))).await;
    let owner = connect(&console(&proxy, "app", "secret")).await.unwrap();
    assert_eq!(value(&show(&owner, "SHOW DATABASES").await[0], "name"), "app");
    assert_eq!(why(&owner.simple_query("PAUSE").await.unwrap_err()).0, "42501");
    assert_eq!(refusal(&console(&proxy, "app", "wrong")).await.0, "28P01");
}

#[tokio::test]
async fn consoles_have_places_of_their_own_and_these_are_bounded() {
    let mut settings = settings(AuthMethod::Scram, vec![pool(server_at(1))]);
    settings.client_max = 1;
    let proxy = Proxy::start(settings).await.unwrap();
    let mut full = Raw::dial(port(&proxy)).await;
    full.startup(0, &[("user", "app"), ("database", "app")]).await;
    assert_eq!(full.next().await.unwrap().0, b'R');
    let config = console(&proxy, "app", "secret");
    let mut consoles = Vec::new();
    for _ in 0..16 {
        consoles.push(connect(&config).await.unwrap());
    }
    let (code, message) = refusal(&config).await;
    assert_eq!((code.as_str(), message.as_str()), ("53300", "limit of 16 consoles is reached"));
    assert_eq!(value(&show(&consoles[15], "SHOW LISTS").await[3], "items"), "1", "one client");
}

#[tokio::test]
async fn malformed_and_oversized_messages_end_a_console_alone() {
    let proxy = proxy(pool(server_at(1))).await;
    let witness = connect(&console(&proxy, "app", "secret")).await.unwrap();
    let cases: [(u8, &[u8], &str); 6] = [
        (b'B', b"\0\0\0\x05", "malformed"),
        (b'P', b"name without end", "malformed"),
        (b'E', b"\0\0", "malformed"),
        (b'D', b"", "malformed"),
        (b'F', b"", "messages of type"),
        (b'Q', &[b'x'; 66_000], "invalid message length"),
    ];
    for (kind, body, told) in cases {
        let mut raw = Raw::dial(port(&proxy)).await;
        raw.scram_login("app", "secret", "poolwright").await;
        raw.frame(kind, body).await;
        let (code, message) = raw.fatal().await;
        assert_eq!(code, "08P01");
        assert!(message.contains(told), "{message}");
    }
    assert_eq!(show(&witness, "SHOW VERSION").await.len(), 1);
}

#[tokio::test]
async fn pause_holds_clients_and_resume_serves_them() {
    let postgres = postgres();
    let pool =
        PoolSettings { acquire_timeout: Duration::from_millis(200), ..pool(server(&postgres, "postgres")) };
    let proxy = site(pool, AuthMethod::Scram).await;
    let (admin, other) = (admin(&proxy).await, admin(&proxy).await);
    let busy = connect(&owner(&proxy, &postgres)).await.unwrap();
    ask(&busy, "BEGIN").await.unwrap();
    let pausing = tokio::spawn(async move {
        admin.simple_query("PAUSE app").await.unwrap();
        admin
    });
    until("it pauses", || proxy.snapshot().events.iter().any(|event| event.kind == "pause")).await;
    assert_eq!(value(&show(&other, "SHOW DATABASES").await[0], "paused"), "1");
    assert!(!pausing.is_finished(), "a server is still lent");
    ask(&busy, "COMMIT").await.unwrap();
    let admin = pausing.await.unwrap();
    let waiting = tokio::spawn(async move { ask(&busy, "SELECT 1").await });
    until("it waits", || proxy.snapshot().pools[0].clients["waiting"] == 1).await;
    until("longer than acquire_timeout", || proxy.snapshot().pools[0].oldest_wait_us > 400_000).await;
    assert!(!waiting.is_finished(), "a pause is no time-out");
    admin.simple_query("RESUME").await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), "1");
    let error = admin.simple_query("PAUSE nowhere").await.unwrap_err();
    assert_eq!(why(&error), ("3D000".to_owned(), "there is no pool \"nowhere\"".to_owned()));
}

#[tokio::test]
async fn a_rewrite_is_visible_and_revoked_at_once() {
    let postgres = postgres();
    let rewrite = Rewrite {
        id: "q1".to_owned(),
        original: "SELECT $1 AS answer".to_owned(),
        replacement: "SELECT $1 || '!' AS answer".to_owned(),
        same_rows: false,
        parameter_types: Vec::new(),
    };
    let pool = PoolSettings { rewrites: vec![rewrite], ..pool(server(&postgres, "postgres")) };
    let proxy = site(pool, AuthMethod::Scram).await;
    let admin = admin(&proxy).await;
    let before = show(&admin, "SHOW REWRITES").await;
    assert_eq!((value(&before[0], "id"), value(&before[0], "state")), ("q1", "active"));
    assert_eq!(value(&before[0], "rows"), "different");
    admin.simple_query("REVOKE app q1").await.unwrap();
    let after = show(&admin, "SHOW REWRITES").await;
    assert_eq!((value(&after[0], "id"), value(&after[0], "state")), ("q1", "revoked"));
    assert!(proxy.snapshot().events.iter().any(|event| event.kind == "revoke" && event.id == "q1"));
    for (sql, code) in [("REVOKE q1", "42704"), ("REVOKE none", "42704"), ("REVOKE x q1", "3D000")] {
        assert_eq!(why(&admin.simple_query(sql).await.unwrap_err()).0, code, "{sql}");
    }
}

#[tokio::test]
async fn reload_and_shutdown_are_the_programs() {
    let proxy = site(pool(server_at(1)), AuthMethod::Scram).await;
    let admin = admin(&proxy).await;
    let mut requests = proxy.requests().unwrap();
    assert!(proxy.requests().is_none());
    let program = tokio::spawn(async move {
        let mut seen = Vec::new();
        for answer in [Ok(vec!["max 5".to_owned()]), Err("line 3: unknown key".to_owned())] {
            match requests.recv().await.unwrap() {
                Request::Reload(told) => told.send(answer).unwrap(),
                Request::Shutdown { .. } => panic!("too early"),
            }
        }
        while seen.len() < 2 {
            match requests.recv().await.unwrap() {
                Request::Shutdown { drain } => seen.push(drain),
                Request::Reload(_) => panic!("too late"),
            }
        }
        seen
    });
    admin.simple_query("RELOAD").await.unwrap();
    let error = admin.simple_query("RELOAD").await.unwrap_err();
    assert_eq!(why(&error), ("F0000".to_owned(), "line 3: unknown key".to_owned()));
    admin.simple_query("SHUTDOWN WAIT_FOR_SERVERS").await.unwrap();
    admin.simple_query("SHUTDOWN").await.unwrap();
    assert_eq!(program.await.unwrap(), [true, false]);
}

/// The reference's column "live" for a key of SHOW CONFIG.
fn documented_live(key: &str) -> bool {
    let reference = include_str!("../../../docs/configuration.md");
    let (heading, name) = match key.split('.').collect::<Vec<_>>()[..] {
        ["pool", _, name] => ("`[pool.NAME]`", name),
        ["auth", name] => ("`[auth]`", name),
        ["console", name] => ("`[console]`", name),
        [name] => ("Top level", name),
        _ => panic!("{key} is in no section"),
    };
    let section = reference.split("\n## ").find(|section| section.lines().next() == Some(heading)).unwrap();
    let row = section.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).expect(key);
    row.split(" | ").nth(3) == Some("yes")
}

#[tokio::test]
async fn the_reference_says_of_each_key_whether_a_reload_may_change_it() {
    let proxy = site(pool(server_at(1)), AuthMethod::Scram).await;
    let rows = show(&admin(&proxy).await, "SHOW CONFIG").await;
    assert!(rows.len() > 15);
    for row in rows {
        let key = value(&row, "key");
        assert_eq!(value(&row, "changeable") == "yes", documented_live(key), "{key}");
    }
}
