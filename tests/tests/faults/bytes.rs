//! Clients that break the protocol: each is told and closed, or only closed, and nobody else notices.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use lab::postgres::USER;
use tests::{Options, Raw, Site, TRUST, frame, startup, wait_for};

/// Length and code of a start-up packet, and what follows.
fn packet(length: u32, code: u32, rest: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes()[..], &code.to_be_bytes(), rest].concat()
}

const PROTOCOL_3: u32 = 196_608;
const SSL_REQUEST: u32 = 80_877_103;
const CANCEL_REQUEST: u32 = 80_877_102;

/// A site whose one client, logged in before all the nonsense, must keep its connection and its backend.
struct Bystander {
    site: Site,
    raw: Raw,
    backend: String,
}

impl Bystander {
    fn new() -> Self {
        let site = Site::open(&Options { limits: "max = 1\nmin = 1", tables: TRUST, ..Options::default() });
        let mut raw = Raw::log_in(site.port());
        let backend = raw.query("SELECT pg_backend_pid()").unwrap().remove(0);
        Self { site, raw, backend }
    }

    /// Sends `bytes` on a fresh connection; the SQLSTATE with which it ended, empty where it was only closed.
    fn dial(&self, bytes: &[u8]) -> String {
        let mut raw = Raw::dial(self.site.port());
        // The pooler may have closed before the last byte.
        let _ = raw.send(bytes);
        raw.farewell()
    }

    /// The same after log-in.
    fn log_in(&self, bytes: &[u8]) -> String {
        let mut raw = Raw::log_in(self.site.port());
        let _ = raw.send(bytes);
        raw.farewell()
    }

    fn check(&mut self) {
        assert_eq!(self.raw.query("SELECT pg_backend_pid()"), Ok(vec![self.backend.clone()]));
        let pool = self.site.pool();
        assert_eq!((pool.servers["active"], pool.clients["waiting"]), (0, 0));
    }
}

#[test]
fn malformed_start_up_packets_are_refused() {
    let mut bystander = Bystander::new();
    let user = startup(&[("user", USER), ("database", "postgres")]);
    let unended = packet(18, PROTOCOL_3, b"user\0x\0abc");
    let cases: [(&str, Vec<u8>, &str); 12] = [
        ("length 0", packet(0, PROTOCOL_3, b""), ""),
        ("length 7", packet(7, PROTOCOL_3, b""), ""),
        ("length 10,001", packet(10_001, PROTOCOL_3, &[b'a'; 10_000]), ""),
        ("length 2^32 - 1", packet(u32::MAX, PROTOCOL_3, &[0; 64]), ""),
        ("another protocol's first line", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), ""),
        ("protocol 2.0", packet(9, 131_072, b"\0"), "0A000"),
        ("no user", packet(9, PROTOCOL_3, b"\0"), "28000"),
        ("no terminator", unended, "08P01"),
        ("bytes behind the terminator", packet(18, PROTOCOL_3, b"user\0x\0\0ab"), "08P01"),
        ("text that is not UTF-8", packet(15, PROTOCOL_3, b"user\0\xff\0"), "08P01"),
        ("data sent ahead of the answer about TLS", [packet(8, SSL_REQUEST, b""), user].concat(), "08P01"),
        ("a cancel request without a key", packet(8, CANCEL_REQUEST, b""), "08P01"),
    ];
    for (name, bytes, told) in cases {
        let answer = bystander.dial(&bytes);
        // A length that cannot be may be answered or only closed, as PostgreSQL does.
        assert!(answer == told || told.is_empty() && answer == "08P01", "{name}: {answer:?}");
        bystander.check();
    }
}

#[test]
fn a_start_up_packet_cut_anywhere_costs_nothing() {
    let mut bystander = Bystander::new();
    let whole = startup(&[("user", USER), ("database", "postgres")]);
    for length in 0..whole.len() {
        let mut socket = TcpStream::connect(("127.0.0.1", bystander.site.port())).unwrap();
        socket.write_all(&whole[..length]).unwrap();
    }
    wait_for("they are forgotten", || bystander.site.snapshot().client_connections == 1);
    bystander.check();
}

/// Bytes from a fixed seed, before log-in and after: whatever they mean, the connection ends or stays in step.
#[test]
fn noise_harms_nobody() {
    let mut bystander = Bystander::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = |length: usize| -> Vec<u8> {
        let mut step = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()[0]
        };
        (0..length).map(|_| step()).collect()
    };
    for length in 1..=150 {
        let mut raw = Raw::dial(bystander.site.port());
        let _ = raw.send(&noise(length));
        raw.hang_up();
        let mut raw = Raw::log_in(bystander.site.port());
        let _ = raw.send(&noise(length));
        raw.hang_up();
    }
    wait_for("they are forgotten", || bystander.site.snapshot().client_connections == 1);
    bystander.check();
}

#[test]
fn malformed_and_oversized_frames_end_their_client_only() {
    let mut bystander = Bystander::new();
    let head = |kind: u8, length: u32| [&[kind][..], &length.to_be_bytes()].concat();
    let cases: [(&str, Vec<u8>); 8] = [
        ("a Query of length 0", head(b'Q', 0)),
        ("a Query of length 3", head(b'Q', 3)),
        ("a Query of 2 GiB", head(b'Q', 1 << 31)),
        ("a Query of 4 GiB", head(b'Q', u32::MAX)),
        ("a Sync of 1 GiB", head(b'S', 1 << 30)),
        ("a Bind of 4 GiB", head(b'B', u32::MAX)),
        ("a kind that nobody knows", frame(b'~', b"")),
        ("a server's message", frame(b'Z', b"I")),
    ];
    for (name, bytes) in cases {
        assert_eq!(bystander.log_in(&bytes), "08P01", "{name}");
        bystander.check();
    }
}

/// Bodies that only PostgreSQL looks into: its error comes back, and the connection goes on after Sync.
#[test]
fn broken_bodies_are_answered_and_the_client_goes_on() {
    let mut bystander = Bystander::new();
    let cases: [(&str, u8, &[u8]); 6] = [
        ("a Bind that ends after its names", b'B', b"\0\0"),
        ("a Bind with fewer parameters than it says", b'B', b"\0\0\0\0\0\x02\0\0\0\x01a"),
        ("a Parse without its number of types", b'P', b"\0SELECT 1\0"),
        ("a Describe of nothing there is", b'D', b"X\0"),
        ("an Execute without its limit", b'E', b"\0"),
        ("a Close of nothing there is", b'C', b"X\0"),
    ];
    for (name, kind, body) in cases {
        let mut raw = Raw::log_in(bystander.site.port());
        raw.send(&[frame(kind, body), frame(b'S', b"")].concat()).unwrap();
        match raw.until(b'Z') {
            Ok(messages) => {
                assert!(messages.iter().any(|(kind, _)| *kind == b'E'), "{name}: {messages:?}");
                assert_eq!(raw.query("SELECT 1"), Ok(vec!["1".to_owned()]), "{name}");
            }
            // Ended with an error is in order, too; silence or an answer is not.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{name}"),
        }
        bystander.check();
    }
}

#[test]
fn an_oversized_password_is_not_read() {
    let site = Site::start("max = 1\nmin = 1");
    let mut raw = Raw::dial(site.port());
    raw.send(&startup(&[("user", USER), ("database", "postgres")])).unwrap();
    assert_eq!(raw.message().unwrap().0, b'R');
    let _ = raw.send(&frame(b'p', &vec![b'x'; 1 << 20]));
    raw.farewell();
    assert_eq!(site.psql("SELECT 1").unwrap(), "1");
}

#[test]
fn who_never_logs_in_is_closed() {
    let site = Site::open(&Options {
        limits: "max = 1\nmin = 1",
        head: "login_timeout = \"300ms\"",
        ..Options::default()
    });
    let began = Instant::now();
    let mut raw = Raw::dial(site.port());
    raw.send(&startup(&[("user", USER), ("database", "postgres")])[..9]).unwrap();
    raw.farewell();
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(site.psql("SELECT 1").unwrap(), "1");
}

#[test]
fn clients_above_the_limit_are_told() {
    let site = Site::open(&Options {
        limits: "max = 1\nmin = 1",
        head: "client_max = 2",
        tables: TRUST,
        ..Options::default()
    });
    let (mut first, mut second) = (Raw::log_in(site.port()), Raw::log_in(site.port()));
    let mut third = Raw::dial(site.port());
    third.send(&startup(&[("user", USER), ("database", "postgres")])).unwrap();
    assert_eq!(third.farewell(), "53300");
    assert_eq!(first.query("SELECT 1"), Ok(vec!["1".to_owned()]));
    second.hang_up();
    wait_for("its place is free", || site.snapshot().client_connections == 1);
    second = Raw::log_in(site.port());
    assert_eq!(second.query("SELECT 1"), Ok(vec!["1".to_owned()]));
}
