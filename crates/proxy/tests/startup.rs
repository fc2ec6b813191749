//! Start-up packets: questions for encryption, protocol versions, malformed and oversized ones, limits.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use proxy::Proxy;
use proxy::settings::AuthMethod;
use support::*;

const SSL: [u8; 4] = 80_877_103_u32.to_be_bytes();
const GSSENC: [u8; 4] = 80_877_104_u32.to_be_bytes();

/// A proxy that never needs its server.
async fn alone(change: impl FnOnce(&mut proxy::Settings)) -> Proxy {
    let mut settings = settings(AuthMethod::Scram, vec![pool(server_at(1))]);
    change(&mut settings);
    Proxy::start(settings).await.unwrap()
}

#[tokio::test]
async fn questions_for_encryption_are_declined_and_the_start_up_goes_on() {
    let proxy = alone(|_| {}).await;
    for asked in [&[SSL][..], &[GSSENC], &[GSSENC, SSL], &[SSL, GSSENC]] {
        let mut client = Raw::dial(port(&proxy)).await;
        for question in asked {
            client.packet(question).await;
            assert_eq!(client.byte().await, b'N');
        }
        client.startup(0, &[("user", "app"), ("database", "app")]).await;
        let (kind, body) = client.next().await.unwrap();
        assert_eq!((kind, &body[..4]), (b'R', &10_u32.to_be_bytes()[..]), "SASL is asked for");
    }
    let mut client = Raw::dial(port(&proxy)).await;
    for _ in 0..2 {
        client.packet(&SSL).await;
        assert_eq!(client.byte().await, b'N');
    }
    client.packet(&SSL).await;
    assert_eq!(client.fatal().await.0, "0A000", "nobody asks for ever");
}

#[tokio::test]
async fn bytes_stuffed_behind_a_question_for_encryption_are_refused() {
    let proxy = alone(|_| {}).await;
    for question in [SSL, GSSENC] {
        let mut client = Raw::dial(port(&proxy)).await;
        let mut bytes = [&8_u32.to_be_bytes()[..], &question].concat();
        bytes.extend_from_slice(b"\0\0\0\x20\0\x03\0\0user\0app\0database\0app\0\0");
        client.send(&bytes).await;
        let (code, message) = client.fatal().await;
        assert_eq!(code, "08P01");
        assert!(message.contains("unencrypted data"), "{message}");
    }
    assert_eq!(refused(&proxy, "protocol"), 2);
}

#[tokio::test]
async fn a_newer_protocol_is_negotiated_down() {
    let proxy = alone(|_| {}).await;
    let mut client = Raw::dial(port(&proxy)).await;
    client.startup(2, &[("user", "app"), ("database", "app"), ("_pq_.shiny", "1")]).await;
    let (kind, body) = client.next().await.unwrap();
    assert_eq!(kind, b'v');
    assert_eq!(body, [&[0, 0, 0, 0, 0, 0, 0, 1], &b"_pq_.shiny\0"[..]].concat());
    assert_eq!(client.next().await.unwrap().0, b'R');
}

#[tokio::test]
async fn older_and_unknown_protocols_are_refused() {
    let proxy = alone(|_| {}).await;
    for version in [2_u32 << 16, 4 << 16, 0, 1234 << 16] {
        let mut client = Raw::dial(port(&proxy)).await;
        client.packet(&version.to_be_bytes()).await;
        let (code, message) = client.fatal().await;
        assert_eq!(code, "0A000");
        assert!(message.starts_with("unsupported frontend protocol"), "{message}");
    }
}

#[tokio::test]
async fn malformed_start_up_packets_are_refused() {
    let proxy = alone(|_| {}).await;
    let bodies: [&[u8]; 6] = [
        b"\0\x03\0\0user",                           // no end of a text
        b"\0\x03\0\0user\0app\0",                    // no terminator
        b"\0\x03\0\0user\0app\0\0database\0app\0\0", // goes on behind it
        b"\0\x03\0\0user\0\xff\xfe\0\0",             // not UTF-8
        b"\0\x03\0\0",                               // nothing
        b"\0\x03\0\0\0junk",
    ];
    for body in bodies {
        let mut client = Raw::dial(port(&proxy)).await;
        client.packet(body).await;
        assert_eq!(client.fatal().await.0, "08P01", "{body:?}");
    }
    let mut client = Raw::dial(port(&proxy)).await;
    client.startup(0, &[("database", "app")]).await;
    assert_eq!(client.fatal().await.0, "28000", "no user");
    let mut client = Raw::dial(port(&proxy)).await;
    client.startup(0, &[("user", "app"), ("replication", "database")]).await;
    assert_eq!(client.fatal().await.0, "0A000", "replication");
}

#[tokio::test]
async fn impossible_lengths_are_refused_at_once() {
    let proxy = alone(|_| {}).await;
    for length in [0_u32, 3, 7, 10_001, 0x4000_0000, u32::MAX] {
        let mut client = Raw::dial(port(&proxy)).await;
        client.send(&length.to_be_bytes()).await;
        let (code, message) = client.fatal().await;
        assert_eq!((code.as_str(), message.as_str()), ("08P01", "invalid length of startup packet"));
    }
    let mut client = Raw::dial(port(&proxy)).await;
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(client.fatal().await.0, "08P01", "a lost browser");
}

#[tokio::test]
async fn an_oversized_or_wrong_message_in_the_log_in_is_refused() {
    let proxy = alone(|_| {}).await;
    let start = async || {
        let mut client = Raw::dial(port(&proxy)).await;
        client.startup(0, &[("user", "app"), ("database", "app")]).await;
        assert_eq!(client.next().await.unwrap().0, b'R');
        client
    };
    let mut client = start().await;
    client.send(b"p\x7f\xff\xff\xff").await;
    assert_eq!(client.fatal().await.0, "08P01");
    let mut client = start().await;
    client.frame(b'Q', b"SELECT 1\0").await;
    assert_eq!(client.fatal().await.0, "08P01");
    for body in [&b"SCRAM-SHA-256"[..], b"PLAIN\0\0\0\0\x01x", b"SCRAM-SHA-256\0\0\0\0\x05n,,n="] {
        let mut client = start().await;
        client.frame(b'p', body).await;
        assert_eq!(client.fatal().await.0, "08P01", "{body:?}");
    }
}

#[tokio::test]
async fn a_silent_client_is_sent_away_after_the_log_in_time_out() {
    let proxy = alone(|settings| settings.login_timeout = Duration::from_millis(300)).await;
    let began = Instant::now();
    let mut silent = Raw::dial(port(&proxy)).await;
    let mut half = Raw::dial(port(&proxy)).await;
    half.startup(0, &[("user", "app"), ("database", "app")]).await;
    assert_eq!(half.next().await.unwrap().0, b'R');
    assert_eq!(silent.fatal().await, ("08006".to_owned(), "log-in took too long".to_owned()));
    assert_eq!(half.fatal().await.0, "08006");
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(refused(&proxy, "timeout"), 2);
}

#[tokio::test]
async fn the_client_limit_counts_those_who_are_there() {
    let proxy = alone(|settings| settings.client_max = 1).await;
    let mut first = Raw::dial(port(&proxy)).await;
    first.startup(0, &[("user", "app"), ("database", "app")]).await;
    assert_eq!(first.next().await.unwrap().0, b'R');
    let second = config(port(&proxy), "app", "secret");
    let (code, message) = refusal(&second).await;
    assert_eq!((code.as_str(), message.as_str()), ("53300", "client limit of 1 is reached"));
    drop(first);
    until("the place is free", || proxy.snapshot().client_connections == 0).await;
    assert_eq!(refusal(&second).await.0, "08001", "past the limit, at the unreachable server");
}
