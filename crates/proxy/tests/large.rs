//! Large messages pass through in pieces.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::*;
use tokio::io::AsyncReadExt;

const LARGE: usize = 48 << 20;
/// Memory that may come and go while a large message passes: far less than one.
const SPARE: u64 = 16 << 20;

/// Highest resident memory of this process so far, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// The head of a frame and the beginning of its body, when all of the body has `body` bytes.
fn begin(kind: u8, body: usize, start: &[u8]) -> Vec<u8> {
    [&[kind][..], &u32::try_from(body + 4).unwrap().to_be_bytes(), start].concat()
}

async fn pour(raw: &mut Raw, mut bytes: usize) {
    let piece = vec![b'x'; 64 << 10];
    while bytes > 0 {
        let n = bytes.min(piece.len());
        raw.send(&piece[..n]).await;
        bytes -= n;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_rows_and_copy_data_are_never_held_whole() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let mut raw = Raw::login(&proxy, &[]).await;
    let prepare = Frames::default().parse("long", "SELECT length($1::text)").sync();
    assert_eq!(raw.converse(&prepare.0, 1).await.kinds, "1Z");
    raw.converse(&Frames::default().query("CREATE TABLE kept (a text)").0, 1).await;
    let before = peak();

    let tail = 2 + 2 + 4 + LARGE + 2;
    let mut start = b"\0long\0\0\0\0\x01".to_vec();
    start.extend_from_slice(&u32::try_from(LARGE).unwrap().to_be_bytes());
    for _ in 0..2 {
        raw.send(&begin(b'B', 6 + tail, &start)).await;
        pour(&mut raw, LARGE).await;
        raw.send(b"\0\0").await;
        let answer = raw.converse(&Frames::default().execute().sync().0, 1).await;
        assert_eq!((answer.kinds.as_str(), answer.rows), ("2DCZ", vec![LARGE.to_string()]));
    }

    raw.send(&Frames::default().query("COPY kept FROM STDIN").0).await;
    assert_eq!(raw.next().await.unwrap().0, b'G');
    raw.send(&begin(b'd', LARGE + 1, b"")).await;
    pour(&mut raw, LARGE).await;
    raw.send(b"\n").await;
    assert_eq!(raw.converse(&Frames::default().copy_done().0, 1).await.kinds, "CZ");

    raw.send(&Frames::default().query("SELECT a FROM kept").0).await;
    assert_eq!(raw.next().await.unwrap().0, b'T');
    assert_eq!(raw.byte().await, b'D');
    let mut left = usize::try_from(raw.0.read_u32().await.unwrap()).unwrap() - 4;
    assert_eq!(left, LARGE + 6);
    let mut piece = vec![0; 64 << 10];
    while left > 0 {
        let n = left.min(piece.len());
        raw.0.read_exact(&mut piece[..n]).await.unwrap();
        left -= n;
    }
    assert_eq!(raw.kinds().await, "CZ");
    let grown = peak() - before;
    assert!(grown < SPARE, "{grown} bytes more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_very_long_query_is_streamed_and_keeps_its_server() {
    let (proxy, _admin, _postgres) =
        site(|pool| (pool.max, pool.acquire_timeout) = (1, Duration::from_millis(300))).await;
    let mut raw = Raw::login(&proxy, &[]).await;
    let (start, end) = ("SELECT length('", "'); SET work_mem = '3MB'\0");
    raw.send(&begin(b'Q', start.len() + LARGE + end.len(), start.as_bytes())).await;
    pour(&mut raw, LARGE).await;
    let answer = raw.converse(end.as_bytes(), 1).await;
    assert_eq!((answer.kinds.as_str(), answer.rows), ("TDCCZ", vec![LARGE.to_string()]));
    // Nobody could read what it does to the session: nobody else gets this server before it is reset.
    assert_eq!(proxy.snapshot().pools[0].pinned.get("long_text"), Some(&1));
    let mut other = Raw::login(&proxy, &[]).await;

    // Refused while its body is still on the way: the rest is dropped, and the conversation goes on.
    other.send(&begin(b'Q', start.len() + LARGE + end.len(), start.as_bytes())).await;
    pour(&mut other, LARGE).await;
    let answer = other.converse(end.as_bytes(), 1).await;
    assert_eq!((answer.kinds.as_str(), answer.errors[0].0.as_str()), ("EZ", "53300"));
    drop(raw);
    until("the server is reset", || proxy.snapshot().pools[0].servers["idle"] == 1).await;
    assert_eq!(other.converse(&Frames::default().query("SHOW work_mem").0, 1).await.rows, ["4MB"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_must_be_remembered_has_a_limit() {
    let (proxy, _admin, _postgres) = site(|pool| pool.max = 1).await;
    let mut raw = Raw::login(&proxy, &[]).await;
    raw.send(&begin(b'P', LARGE, b"name\0SELECT '")).await;
    assert_eq!(raw.fatal().await.0, "54000");
    let mut raw = Raw::login(&proxy, &[]).await;
    let text = format!("SELECT length('{}')", "y".repeat(3 << 20));
    let answer =
        raw.converse(&Frames::default().parse("", &text).run("", &[]).sync().query(&text).0, 2).await;
    assert_eq!(answer.rows, ["3145728", "3145728"]);
    assert!(proxy.snapshot().pools[0].pinned.is_empty());
}
