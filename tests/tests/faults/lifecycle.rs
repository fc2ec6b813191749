//! Signals, reloading, draining, and what is left behind: nothing.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lab::postgres::USER;
use tests::{Options, Raw, Site, TRUST, ended, free_port, program, said, signal, startup, wait_for};

const ENDS_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn a_reload_raises_and_lowers_the_limit_under_its_clients() {
    let site = Site::open(&Options { limits: "max = 1\nmin = 1", tables: TRUST, ..Options::default() });
    let mut holder = Raw::log_in(site.port());
    let mut waiting = Raw::log_in(site.port());
    assert_eq!(holder.query("BEGIN"), Ok(vec![]));
    waiting.ask("BEGIN");
    wait_for("one waits", || site.pool().clients["waiting"] == 1);
    site.reconfigure("max = 1", "max = 2");
    waiting.until(b'Z').unwrap();
    assert_eq!(
        (site.pool().max, site.pool().servers["idle_in_transaction"] + site.pool().servers["active"]),
        (2, 2)
    );

    site.reconfigure("max = 2", "max = 1");
    wait_for("the limit is in force", || site.pool().max == 1);
    assert_eq!(waiting.query("COMMIT"), Ok(vec![]));
    wait_for("the server above the limit is closed", || site.pool().servers.values().sum::<u32>() == 1);
    assert_eq!(holder.query("COMMIT"), Ok(vec![]));
    for raw in [&mut holder, &mut waiting] {
        assert_eq!(raw.query("SELECT 1"), Ok(vec!["1".to_owned()]));
    }
}

#[test]
fn a_reload_changes_time_outs_live() {
    let site = Site::open(&Options {
        limits: "max = 1\nmin = 1\nquery_timeout = \"60s\"\nacquire_timeout = \"60s\"",
        tables: TRUST,
        ..Options::default()
    });
    let mut raw = Raw::log_in(site.port());
    site.reconfigure("query_timeout = \"60s\"", "query_timeout = \"200ms\"");
    wait_for("it is in force", || site.pool().query_timeout_ms == 200);
    assert_eq!(raw.query("SELECT pg_sleep(30)"), Err("57014".to_owned()));
    let mut holder = Raw::log_in(site.port());
    assert_eq!(holder.query("BEGIN"), Ok(vec![]));
    site.reconfigure("acquire_timeout = \"60s\"", "acquire_timeout = \"200ms\"");
    wait_for("it is in force", || site.pool().acquire_timeout_ms == 200);
    assert_eq!(raw.query("SELECT 1"), Err("53300".to_owned()));
    assert_eq!(holder.query("COMMIT"), Ok(vec![]));
    assert_eq!(raw.query("SELECT 1"), Ok(vec!["1".to_owned()]));
}

#[test]
fn a_reload_of_a_bad_file_changes_nothing() {
    let mut site = Site::start("max = 2\nmin = 1");
    site.reconfigure("max = 2", "maxx = 5");
    wait_for("it says so", || site.log().contains("unknown key maxx"));
    assert!(site.log().contains("did you mean \"max\"?"), "{}", site.log());
    site.reconfigure("maxx = 5", "max = 2\nmode = \"session\"");
    wait_for("it says so", || site.log().contains("needs a restart"));
    assert_eq!((site.pool().max, site.pool().mode.as_str()), (2, "transaction"));
    assert!(site.alive());
    assert_eq!(site.psql("SELECT 1").unwrap(), "1");
}

#[test]
fn sigterm_lets_transactions_end() {
    let mut site = Site::open(&Options { limits: "max = 2\nmin = 1", tables: TRUST, ..Options::default() });
    site.psql("CREATE TABLE t (a int)").unwrap();
    let mut busy = Raw::log_in(site.port());
    let mut idle = Raw::log_in(site.port());
    let mut undecided = Raw::dial(site.port());
    assert_eq!(busy.query("BEGIN"), Ok(vec![]));
    assert_eq!(busy.query("INSERT INTO t VALUES (1)"), Ok(vec![]));
    signal(site.pid(), libc::SIGTERM);
    assert_eq!(idle.farewell(), "57P01", "who has no transaction is sent away");
    assert_eq!(undecided.farewell(), "57P03", "nor does a log-in hold the end up");
    wait_for("nobody new is taken", || std::net::TcpStream::connect(("127.0.0.1", site.port())).is_err());
    assert_eq!(busy.query("INSERT INTO t VALUES (2)"), Ok(vec![]));
    assert_eq!(busy.query("COMMIT"), Ok(vec![]));
    busy.farewell();
    assert!(site.left(ENDS_WITHIN).success());
    let mut direct = site.client("psql");
    direct.env("PGPORT", site.postgres.port().to_string()).args(["-XAtc", "SELECT count(*) FROM t"]);
    assert_eq!(said(&direct.output().unwrap()).trim(), "2");
    wait_for("its servers are gone", || site.postgres_clients() == 0);
}

#[test]
fn the_drain_has_an_end() {
    let mut site = Site::open(&Options {
        limits: "max = 1\nmin = 1",
        tables: TRUST,
        arguments: &["--drain-timeout", "1"],
        ..Options::default()
    });
    let mut busy = Raw::log_in(site.port());
    assert_eq!(busy.query("BEGIN"), Ok(vec![]));
    signal(site.pid(), libc::SIGTERM);
    assert!(site.left(ENDS_WITHIN).success());
    busy.farewell();
    assert!(site.log().contains("drain time-out"), "{}", site.log());
    wait_for("its servers are gone", || site.postgres_clients() == 0);
}

#[test]
fn sigint_ends_at_once() {
    let mut site = Site::open(&Options { limits: "max = 1\nmin = 1", tables: TRUST, ..Options::default() });
    let mut busy = Raw::log_in(site.port());
    busy.ask("SELECT pg_sleep(60)");
    wait_for("it runs", || site.pool().servers["active"] == 1);
    signal(site.pid(), libc::SIGINT);
    site.left(ENDS_WITHIN);
    busy.farewell();
}

/// `serve` of a folder as a Unix socket; no file, all of it on the command line.
fn serve_socket(site: &Site, folder: &Path) -> Child {
    let mut command = Command::new(program());
    command.arg("serve").arg(site.postgres.url("postgres")).arg("--listen").arg(folder);
    command.arg("--metrics-listen").arg(format!("127.0.0.1:{}", free_port()));
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("it listens", || UnixStream::connect(folder.join(".s.PGSQL.6432")).is_ok());
    child
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn no_socket_file_is_left_and_a_leftover_is_replaced() {
    let site = Site::start("max = 1\nmin = 0");
    let folder = tempfile::tempdir().unwrap();
    let ask = || {
        let mut psql = site.client("psql");
        psql.env("PGHOST", folder.path()).env("PGPORT", "6432").args(["-XAtc", "SELECT 1"]);
        said(&psql.output().unwrap()).trim().to_owned()
    };
    for end in [libc::SIGTERM, libc::SIGINT] {
        let mut serve = serve_socket(&site, folder.path());
        assert_eq!(ask(), "1");
        signal(serve.id(), end);
        ended(&mut serve, ENDS_WITHIN);
        assert_eq!(files(folder.path()), 0, "after signal {end}");
    }
    let mut serve = serve_socket(&site, folder.path());
    signal(serve.id(), libc::SIGKILL);
    ended(&mut serve, ENDS_WITHIN);
    assert_eq!(files(folder.path()), 1, "SIGKILL leaves the file");
    let mut serve = serve_socket(&site, folder.path());
    assert_eq!(ask(), "1");
    signal(serve.id(), libc::SIGTERM);
    ended(&mut serve, ENDS_WITHIN);
    assert_eq!(files(folder.path()), 0);
}

/// An address in use, by TCP or by a socket that somebody answers on.
#[test]
fn an_address_in_use_is_named() {
    let site = Site::start("max = 1\nmin = 0");
    let taken = format!("127.0.0.1:{}", site.port());
    let output = Command::new(program())
        .arg("serve")
        .arg(site.postgres.url("postgres"))
        .args(["--listen", &taken, "--metrics-listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains(&taken) && said(&output).contains("in use"), "{}", said(&output));

    let folder = tempfile::tempdir().unwrap();
    let mut first = serve_socket(&site, folder.path());
    let output = Command::new(program())
        .arg("serve")
        .arg(site.postgres.url("postgres"))
        .arg("--listen")
        .arg(folder.path())
        .args(["--metrics-listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(UnixStream::connect(folder.path().join(".s.PGSQL.6432")).is_ok(), "the first one still serves");
    signal(first.id(), libc::SIGTERM);
    ended(&mut first, ENDS_WITHIN);
}

/// `serve URL` asks its clients for the URL's user and password; trust is never a default.
#[test]
fn a_pooler_started_by_url_asks_for_its_password() {
    let site = Site::start("max = 1\nmin = 0");
    let port = free_port();
    let mut serve = Command::new(program())
        .arg("serve")
        .arg(site.postgres.url("postgres"))
        .args(["--listen", &format!("127.0.0.1:{port}"), "--metrics-listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let mut raw = Raw::dial(port);
    raw.send(&startup(&[("user", USER), ("database", "postgres")])).unwrap();
    let (kind, body) = raw.message().unwrap();
    assert_eq!((kind, &body[..4]), (b'R', &[0, 0, 0, 10][..]), "AuthenticationSASL");
    let ask = |password: &str| {
        let mut psql = site.client("psql");
        psql.env("PGPORT", port.to_string()).env("PGPASSWORD", password).args(["-XAtc", "SELECT 1"]);
        said(&psql.output().unwrap())
    };
    assert!(ask("wrong").contains("password authentication failed"), "{}", ask("wrong"));
    assert_eq!(ask(site.postgres.password()).trim(), "1");
    signal(serve.id(), libc::SIGTERM);
    ended(&mut serve, ENDS_WITHIN);
}
