//! Clients that leave in the middle, or stop reading. The next client finds a clean server.

use std::time::Duration;

use tests::{Options, Raw, Site, TRUST, frame, wait_for};

fn site() -> Site {
    let site = Site::open(&Options {
        limits: "max = 2\nmin = 2\nquery_timeout = \"60s\"",
        tables: TRUST,
        ..Options::default()
    });
    site.psql("CREATE TABLE t (a int)").unwrap();
    site
}

/// Nothing is lent out, nothing open in PostgreSQL, no row of `t` written, and both servers can be had again.
fn clean(site: &Site) {
    wait_for("the server comes back", || {
        let pool = site.pool();
        pool.servers["active"] + pool.servers["idle_in_transaction"] + pool.servers["closing"] == 0
    });
    let (mut one, mut two) = (Raw::log_in(site.port()), Raw::log_in(site.port()));
    for raw in [&mut one, &mut two] {
        assert_eq!(raw.query("BEGIN"), Ok(vec![]));
        assert_eq!(raw.query("SELECT count(*) FROM t"), Ok(vec!["0".to_owned()]));
    }
    let open = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' \
                AND state <> 'idle' AND pid <> pg_backend_pid()";
    assert_eq!(one.query(open), Ok(vec!["1".to_owned()]), "only the other client's transaction is open");
    for raw in [&mut one, &mut two] {
        assert_eq!(raw.query("ROLLBACK"), Ok(vec![]));
    }
}

fn leave(raw: Raw, way: usize) {
    match way {
        0 => raw.hang_up(),
        1 => raw.finish(),
        _ => {
            let mut raw = raw;
            let _ = raw.send(&frame(b'X', b""));
        }
    }
}

#[test]
fn in_a_transaction() {
    let site = site();
    for way in 0..3 {
        let mut raw = Raw::log_in(site.port());
        assert_eq!(raw.query("BEGIN"), Ok(vec![]));
        assert_eq!(raw.query("INSERT INTO t VALUES (1)"), Ok(vec![]));
        leave(raw, way);
        clean(&site);
    }
}

#[test]
fn in_a_failed_transaction() {
    let site = site();
    for way in 0..3 {
        let mut raw = Raw::log_in(site.port());
        assert_eq!(raw.query("BEGIN"), Ok(vec![]));
        assert_eq!(raw.query("SELECT 1 / 0"), Err("22012".to_owned()));
        leave(raw, way);
        clean(&site);
    }
}

#[test]
fn while_copying_in() {
    let site = site();
    for way in 0..3 {
        let mut raw = Raw::log_in(site.port());
        raw.ask("COPY t FROM STDIN");
        raw.until(b'G').unwrap();
        raw.send(&frame(b'd', b"1\n2\n")).unwrap();
        leave(raw, way);
        clean(&site);
    }
}

#[test]
fn with_half_a_copy_message() {
    let site = site();
    for way in 0..2 {
        let mut raw = Raw::log_in(site.port());
        raw.ask("COPY t FROM STDIN");
        raw.until(b'G').unwrap();
        raw.send(&frame(b'd', &vec![b'1'; 100_000])[..50_000]).unwrap();
        leave(raw, way);
        clean(&site);
    }
}

#[test]
fn with_half_a_query() {
    let site = site();
    for way in 0..2 {
        let mut raw = Raw::log_in(site.port());
        let query = frame(b'Q', b"INSERT INTO t VALUES (1)\0");
        raw.send(&query[..query.len() - 3]).unwrap();
        leave(raw, way);
        clean(&site);
    }
}

#[test]
fn while_rows_or_a_copy_come_out() {
    let site = site();
    for sql in [
        "SELECT repeat('x', 1000) FROM generate_series(1, 300000)",
        "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 300000)) TO STDOUT",
    ] {
        for way in 0..3 {
            let mut raw = Raw::log_in(site.port());
            raw.ask(sql);
            raw.message().unwrap();
            leave(raw, way);
            clean(&site);
        }
    }
}

/// What was sent whole completes as on PostgreSQL: nobody reads the answer, and the row is there.
#[test]
fn right_behind_a_whole_statement() {
    let site = site();
    let mut raw = Raw::log_in(site.port());
    let bye = [frame(b'Q', b"INSERT INTO t SELECT 7 FROM pg_sleep(0.2)\0"), frame(b'X', b"")].concat();
    raw.send(&bye).unwrap();
    raw.hang_up();
    wait_for("it is committed", || site.psql("SELECT count(*) FROM t WHERE a = 7").unwrap() == "1");
}

/// A client that stops reading holds its own server back, not the pooler's memory and not the others.
#[test]
fn a_client_that_stops_reading_is_held_back() {
    let site = site();
    let before = site.snapshot().process.rss_bytes;
    let mut slow = Raw::log_in(site.port());
    slow.ask("SELECT repeat('x', 1000) FROM generate_series(1, 500000)");
    let held = || site.pool().servers["active"] == 1;
    wait_for("it has a server", held);
    let mut sent = 0;
    wait_for("PostgreSQL is held back", || {
        let now = site.pool().server_in_bytes;
        let still = now == sent && now > 0;
        sent = now;
        std::thread::sleep(Duration::from_millis(200));
        still
    });
    assert!(sent < 500_000_000, "all of it was read: {sent}");
    let grown = site.snapshot().process.rss_bytes.saturating_sub(before);
    assert!(grown < 32 << 20, "the pooler grew by {grown} bytes");
    let mut other = Raw::log_in(site.port());
    for _ in 0..50 {
        assert_eq!(other.query("SELECT 1"), Ok(vec!["1".to_owned()]));
    }
    drop(other);
    // It reads again: every row is there.
    let rows = slow.until(b'Z').unwrap().iter().filter(|(kind, _)| *kind == b'D').count();
    assert_eq!(rows, 500_000);
    drop(slow);
    clean(&site);
}

/// The same, but it leaves without reading another byte.
#[test]
fn a_client_that_stops_reading_leaves() {
    let site = site();
    let mut slow = Raw::log_in(site.port());
    slow.ask("SELECT repeat('x', 1000) FROM generate_series(1, 500000)");
    wait_for("it has a server", || site.pool().servers["active"] == 1);
    slow.hang_up();
    clean(&site);
}
