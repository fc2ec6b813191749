//! The console of the running program: by psql and drivers, and the commands that the program itself carries out.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Stdio};
use std::time::Duration;

use tests::{Options, Raw, Site, TRUST, node_folder, python, said, wait_for};

const CONSOLE: &str = "[console]\nadmins = { admin = \"hush\" }";
const ENDS_WITHIN: Duration = Duration::from_secs(10);

fn site() -> Site {
    Site::open(&Options { limits: "max = 3\nmin = 1", tables: CONSOLE, ..Options::default() })
}

/// What psql says of a command on the console.
fn console(site: &Site, sql: &str) -> String {
    let mut psql = site.client("psql");
    psql.env("PGUSER", "admin").env("PGPASSWORD", "hush").env("PGDATABASE", "pgbouncer");
    said(&psql.args(["-XAt", "-c", sql]).output().unwrap()).trim().to_owned()
}

fn drive(command: &mut Command) {
    let site = site();
    let url = format!("postgres://admin:hush@127.0.0.1:{}/poolwright", site.port());
    let output = command.env("CONSOLE_URL", url).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = serde_json::json!({
        "pool": "postgres", "max": 3, "stats": "postgres", "version": "Poolwright", "refused": "42601"
    });
    assert_eq!(told, expected);
}

fn script(name: &str) -> std::path::PathBuf {
    std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/drivers").join(name)
}

#[test]
fn node_postgres_uses_the_console() {
    let folder = node_folder();
    drive(Command::new("node").arg(script("console.js")).env("NODE_PATH", folder.join("node_modules")));
}

#[test]
fn psycopg_uses_the_console() {
    drive(Command::new(python()).arg(script("console.py")));
}

#[test]
fn reload_by_the_console_says_what_is_wrong_and_changes_limits() {
    let site = site();
    let text = std::fs::read_to_string(site.file()).unwrap();
    let write = |from: &str, to: &str| std::fs::write(site.file(), text.replace(from, to)).unwrap();
    write("max = 3", "max = 4");
    assert_eq!(console(&site, "RELOAD"), "RELOAD");
    assert_eq!(site.pool().max, 4);
    assert!(console(&site, "SHOW CONFIG").contains("pool.postgres.max|4|15|yes"));
    assert!(site.log().contains("reloaded: pool.postgres.max: 3 -> 4"), "{}", site.log());
    write("max = 3", "maxx = 5");
    let told = console(&site, "RELOAD");
    assert!(told.contains("the old settings stay") && told.contains("unknown key maxx"), "{told}");
    write("[metrics]\nlisten = \"127.0.0.1:", "workers_are_not_here = 1\n[metrics]\nlisten = \"127.0.0.1:");
    assert!(console(&site, "RELOAD").contains("unknown key workers_are_not_here"));
    let other = text.replace("listen = \"127.0.0.1:", "listen = \"127.0.0.2:").replace("max = 3", "max = 9");
    std::fs::write(site.file(), other).unwrap();
    let told = console(&site, "RELOAD");
    for part in ["needs a restart", "; metrics.listen: 127.0.0.1:", "listen: 127.0.0.1:"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    assert_eq!(site.pool().max, 4, "nothing of it was applied");
    assert_eq!(site.psql("SELECT 1").unwrap(), "1");
}

#[test]
fn shutdown_by_the_console_ends_the_program() {
    let mut site = site();
    assert_eq!(console(&site, "SHUTDOWN"), "SHUTDOWN");
    assert!(site.left(ENDS_WITHIN).success());

    let tables = format!("{CONSOLE}\n{TRUST}");
    let mut site = Site::open(&Options { limits: "max = 2\nmin = 1", tables: &tables, ..Options::default() });
    let mut busy = Raw::log_in(site.port());
    assert_eq!(busy.query("BEGIN"), Ok(vec![]));
    assert_eq!(console(&site, "SHUTDOWN WAIT_FOR_SERVERS"), "SHUTDOWN");
    wait_for("it drains", || site.log().contains("draining"));
    assert!(site.alive());
    assert_eq!(busy.query("SELECT 1"), Ok(vec!["1".to_owned()]));
    assert_eq!(busy.query("COMMIT"), Ok(vec![]));
    assert!(site.left(ENDS_WITHIN).success());
}

#[test]
fn a_second_sigterm_ends_the_drain() {
    let mut site = Site::open(&Options { limits: "max = 2\nmin = 1", tables: TRUST, ..Options::default() });
    let mut busy = Raw::log_in(site.port());
    assert_eq!(busy.query("BEGIN"), Ok(vec![]));
    tests::signal(site.pid(), libc::SIGTERM);
    wait_for("it drains", || site.log().contains("draining"));
    tests::signal(site.pid(), libc::SIGTERM);
    assert!(site.left(ENDS_WITHIN).success());
    busy.farewell();
    assert!(site.log().contains("SIGTERM again"), "{}", site.log());
}

#[test]
fn the_console_answers_while_postgresql_is_down() {
    let mut site = site();
    assert_eq!(site.psql("SELECT 1").unwrap(), "1");
    site.postgres.halt();
    wait_for("its servers are gone", || site.pool().servers["idle"] == 0);
    assert!(console(&site, "SHOW POOLS").starts_with("postgres|poolwright|0|0|0|0|0|"));
    site.postgres.restart().unwrap();
    assert_eq!(site.psql("SELECT 1").unwrap(), "1");
}

#[test]
fn what_postgresql_allows_is_in_the_metrics() {
    let postgres: &[(&str, &str)] = &[("max_connections", "37"), ("superuser_reserved_connections", "5")];
    let site = Site::open(&Options { limits: "max = 2\nmin = 1", postgres, ..Options::default() });
    wait_for("a server was opened", || site.pool().created > 0);
    wait_for("its limits are known", || site.snapshot().server.is_some());
    let page = site.http("/metrics");
    for line in ["poolwright_postgres_max_connections 37", "poolwright_postgres_reserved_connections 5"] {
        assert!(page.lines().any(|found| found == line), "{line}");
    }
}
