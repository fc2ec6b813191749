//! PostgreSQL dies, returns, refuses, or is not there.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use lab::postgres::USER;
use tests::{Options, Raw, Site, TRUST, ended, free_port, said, signal, startup, wait_for};

const SERVERS: usize = 3;
const CLIENTS: usize = 8;
/// Longest run of pgbench, in seconds; the test ends it when it has seen enough.
const LOAD_S_MAX: u32 = 120;

/// A load that writes down what it committed, while `fault` happens to PostgreSQL. Only transactions in flight may
/// fail, at most one for each server connection, and the others go on by themselves.
fn survive(fault: impl FnOnce(&mut Site)) {
    let mut site = Site::start("max = 3\nmin = 3");
    site.psql("CREATE TABLE done (client int, at timestamptz DEFAULT clock_timestamp())").unwrap();
    let script = site.folder().join("load.sql");
    std::fs::write(&script, "BEGIN;\nINSERT INTO done VALUES (:client_id);\nEND;\n").unwrap();
    let (clients, seconds) = (CLIENTS.to_string(), LOAD_S_MAX.to_string());
    let mut command = site.client("pgbench");
    command.args(["-n", "-M", "prepared", "-c", &clients, "-j", &clients, "-T", &seconds, "-f"]).arg(&script);
    let load = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let done = |site: &Site| {
        let answer = site.psql("SELECT count(*) FROM done");
        answer.ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
    };
    wait_for("the load runs", || done(&site) > 200);
    fault(&mut site);
    let before = done(&site);
    let returned = Instant::now();
    wait_for("the load goes on by itself", || done(&site) > before + 200);
    println!("{before} transactions before, the next 200 within {:?}", returned.elapsed());
    // Its own timer's signal: it lets each client end its transaction and reports.
    signal(load.id(), libc::SIGALRM);
    let output = load.wait_with_output().unwrap();
    let lost = said(&output).matches(" aborted in command ").count();
    println!("{}", said(&output));
    assert!(
        lost <= SERVERS,
        "{lost} clients lost their transaction, but only {SERVERS} can have been in flight"
    );
    let reported: u64 = processed(&output);
    let committed = done(&site);
    // A transaction whose COMMIT was answered by nobody may have happened or not.
    assert!(
        (reported..=reported + lost as u64).contains(&committed),
        "{reported} reported, {committed} in the table"
    );
    let pool = site.pool();
    assert_eq!((pool.clients["waiting"], pool.servers["active"]), (0, 0), "{pool:?}");
    assert!(site.alive());
}

fn processed(output: &Output) -> u64 {
    let text = said(output);
    let line = text.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
    line.expect(&text).parse().unwrap()
}

#[test]
fn postgres_is_restarted_under_load() {
    survive(|site| site.postgres.restart().unwrap());
}

#[test]
fn postgres_crashes_under_load_and_is_started_again() {
    survive(|site| {
        site.postgres.crash();
        site.postgres.restart().unwrap();
    });
}

/// One backend killed: PostgreSQL ends the others itself and recovers.
#[test]
fn a_backend_is_killed_under_load() {
    survive(|site| {
        let backend = site.psql("SELECT pg_backend_pid()").unwrap();
        signal(backend.parse().unwrap(), libc::SIGKILL);
        // Until the last one is gone, the old backends may still answer.
        wait_for("PostgreSQL notices", || {
            site.psql("SELECT pg_backend_pid()").is_ok_and(|pid| pid != backend)
        });
    });
}

/// Nothing answers for longer than a client waits: it is told why, stays connected, and goes on afterwards.
#[test]
fn postgres_is_away_longer_than_a_client_waits() {
    let mut site = Site::open(&Options {
        limits: "max = 2\nmin = 0\nacquire_timeout = \"500ms\"",
        tables: TRUST,
        ..Options::default()
    });
    let mut raw = Raw::log_in(site.port());
    assert_eq!(raw.query("SELECT 1"), Ok(vec!["1".to_owned()]));
    site.postgres.halt();
    wait_for("the pooler has seen its server close", || site.pool().servers["idle"] == 0);
    assert_eq!(raw.query("SELECT 2"), Err("08001".to_owned()));
    site.postgres.restart().unwrap();
    wait_for("the client goes on", || raw.query("SELECT 3").is_ok());
    assert!(site.pool().connect_failures["08001"] > 0);
}

#[test]
fn a_hot_standby_serves_reads_and_refuses_writes() {
    let mut site = Site::start("max = 2\nmin = 1");
    site.psql("CREATE TABLE t (a int)").unwrap();
    site.postgres.halt();
    std::fs::write(site.postgres.folder().join("data/standby.signal"), "").unwrap();
    site.postgres.restart().unwrap();
    wait_for("reads go on", || site.psql("SELECT pg_is_in_recovery()").is_ok_and(|answer| answer == "t"));
    let refused = site.psql("INSERT INTO t VALUES (1)").unwrap_err();
    assert!(refused.contains("25006") && refused.contains("read-only"), "{refused}");
    assert_eq!(site.psql("SELECT count(*) FROM t").unwrap(), "0");
}

/// A standby that takes no connections answers each with 57P03.
#[test]
fn a_server_that_does_not_accept_connections_yet_is_awaited() {
    let mut site = Site::open(&Options { limits: "max = 2\nmin = 0", tables: TRUST, ..Options::default() });
    site.postgres.halt();
    let data = site.postgres.folder().join("data");
    std::fs::write(data.join("standby.signal"), "").unwrap();
    let owner = std::fs::metadata(&data).unwrap();
    let mut command = Command::new(site.postgres.bin().join("postgres"));
    command.arg("-D").arg(&data).args([
        "-p",
        &site.postgres.port().to_string(),
        "-c",
        "hot_standby=off",
        "-c",
    ]);
    command.arg(format!("unix_socket_directories={}", site.postgres.folder().display()));
    command
        .uid(owner.uid())
        .gid(owner.gid())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut standby = command.spawn().unwrap();
    wait_for("a new client gets PostgreSQL's own answer", || {
        let mut raw = Raw::dial(site.port());
        raw.send(&startup(&[("user", USER), ("database", "postgres")])).unwrap();
        raw.farewell() == "57P03"
    });
    let told = site.psql("SELECT 1").unwrap_err();
    assert!(told.contains("not accepting connections") || told.contains("starting up"), "{told}");
    signal(standby.id(), libc::SIGINT);
    ended(&mut standby, Duration::from_secs(20));
    std::fs::remove_file(data.join("standby.signal")).unwrap();
    site.postgres.restart().unwrap();
    wait_for("the pool recovers", || site.psql("SELECT 1").is_ok_and(|answer| answer == "1"));
}

#[test]
fn a_clients_wrong_password_is_refused_and_others_are_served() {
    let site = Site::start("max = 2\nmin = 1");
    let output = site.client("psql").args(["-XAtc", "SELECT 1"]).env("PGPASSWORD", "wrong").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("password authentication failed for user \"poolwright\""),
        "{}",
        said(&output)
    );
    let output = site.client("psql").args(["-XAtc", "SELECT 1"]).env("PGUSER", "nobody").output().unwrap();
    assert!(
        said(&output).contains("password authentication failed for user \"nobody\""),
        "{}",
        said(&output)
    );
    assert_eq!(site.psql("SELECT 1").unwrap(), "1");
    assert_eq!(site.snapshot().client_rejections["password"], 2);
}

#[test]
fn a_servers_wrong_password_is_told_as_postgres_says_it() {
    let other = Site::start("max = 1\nmin = 0");
    let server = format!("postgres://poolwright:wrong@127.0.0.1:{}/postgres", other.postgres.port());
    let site = Site::open(&Options { server: Some(server), tables: TRUST, ..Options::default() });
    let told = site.psql("SELECT 1").unwrap_err();
    assert!(told.contains("password authentication failed for user \"poolwright\""), "{told}");
    wait_for("the log says so", || site.log().contains("password authentication failed"));
}

#[test]
fn a_missing_database_is_named() {
    let site = Site::start("max = 2\nmin = 0");
    let output =
        site.client("psql").args(["-XAtc", "SELECT 1"]).env("PGDATABASE", "nowhere").output().unwrap();
    let told = said(&output);
    assert!(told.contains("database \"nowhere\" is not served here; pools: postgres"), "{told}");

    let server = format!(
        "postgres://poolwright:{}@127.0.0.1:{}/nowhere",
        site.postgres.password(),
        site.postgres.port()
    );
    let site = Site::open(&Options { server: Some(server), tables: TRUST, ..Options::default() });
    let told = site.psql("SELECT 1").unwrap_err();
    assert!(told.contains("database \"nowhere\" does not exist"), "{told}");
}

#[test]
fn an_unreachable_server_is_named_with_the_reason() {
    let port = free_port();
    let site = Site::open(&Options {
        server: Some(format!("postgres://poolwright:secret@127.0.0.1:{port}/postgres")),
        tables: TRUST,
        ..Options::default()
    });
    let told = site.psql("SELECT 1").unwrap_err();
    assert!(told.contains(&format!("could not connect to PostgreSQL at 127.0.0.1:{port}")), "{told}");
    assert!(told.contains("Connection refused"), "{told}");
    assert!(!told.contains("secret"));
    assert!(!site.log().contains("secret"), "{}", site.log());
}
