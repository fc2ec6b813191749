//! However the bytes are cut, the relay says the same.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use relay::{Client, Context, Inspect, Need, Server, StatementInfo, Statements};
use wire::craft;

struct Judge;

impl Inspect for Judge {
    fn statement(&mut self, _: &[u8]) -> StatementInfo {
        StatementInfo::default()
    }
    fn deallocated(&mut self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

fn batch() -> Vec<u8> {
    let mut sent = Vec::new();
    craft::parse(&mut sent, b"a", b"SELECT $1\0\0\0");
    craft::bind(&mut sent, b"", b"a", b"\0\0\0\x01\0\0\0\x015\0\0", 0);
    craft::frame(&mut sent, b'E', |b| b.extend_from_slice(b"\0\0\0\0\0"));
    craft::sync(&mut sent);
    craft::query(&mut sent, b"SELECT 2");
    sent
}

fn answers() -> Vec<u8> {
    let mut said = b"1\0\0\0\x042\0\0\0\x04".to_vec();
    craft::frame(&mut said, b'D', |b| b.extend_from_slice(b"\0\x01\0\0\0\x015"));
    craft::frame(&mut said, b'C', |b| b.extend_from_slice(b"SELECT 1\0"));
    craft::ready(&mut said, b'I');
    craft::frame(&mut said, b'C', |b| b.extend_from_slice(b"SELECT 1\0"));
    craft::ready(&mut said, b'I');
    said
}

/// Sends and answers in pieces of these sizes; gives what server and client got.
fn converse(sizes: &[usize]) -> (Vec<u8>, Vec<u8>, usize) {
    let (mut client, mut server) = (Client::new(1, []), Server::new([]));
    let (mut statements, mut to_server, mut to_client) = (Statements::default(), Vec::new(), Vec::new());
    let mut sizes = sizes.iter().copied().cycle();
    let (sent, mut held, mut at) = (batch(), Vec::new(), 0);
    while at < sent.len() {
        let n = sizes.next().unwrap().min(sent.len() - at);
        held.extend_from_slice(&sent[at..at + n]);
        at += n;
        let mut context = Context {
            inspect: &mut Judge,
            statements: &mut statements,
            per_server: 10,
            per_client: 10,
            now_us: 1,
            rewriting: None,
        };
        let step = client.take(Some(&mut server), &held, &mut to_server, &mut to_client, &mut context);
        assert_eq!(step.need, Need::More);
        held.drain(..step.consumed);
    }
    assert!(held.is_empty() && !server.at_rest());
    let (said, mut at, mut events) = (answers(), 0, Vec::new());
    while at < said.len() {
        let n = sizes.next().unwrap().min(said.len() - at);
        held.extend_from_slice(&said[at..at + n]);
        at += n;
        let received = server.receive(Some(&mut client), &held, &mut to_client, &mut events, 2);
        assert_eq!(received.fault, None);
        assert_eq!(received.at_rest, at == said.len());
        held.drain(..received.consumed);
    }
    (to_server, to_client, events.len())
}

proptest! {
    #[test]
    fn cuts_change_nothing(sizes in prop::collection::vec(1usize..40, 1..20)) {
        prop_assert_eq!(converse(&sizes), converse(&[usize::MAX]));
    }
}

#[test]
fn answers_reach_the_client_whole() {
    let (_, to_client, statements) = converse(&[usize::MAX]);
    assert_eq!((to_client, statements), (answers(), 2));
}

#[test]
fn a_known_statement_is_answered_here() {
    let mut server = Server::new([]);
    let mut statements = Statements::default();
    for number in 1..=2 {
        let mut client = Client::new(number, []);
        let (mut sent, mut to_server, mut to_client) = (Vec::new(), Vec::new(), Vec::new());
        craft::parse(&mut sent, b"a", b"SELECT 1\0\0\0");
        craft::sync(&mut sent);
        let mut context = Context {
            inspect: &mut Judge,
            statements: &mut statements,
            per_server: 10,
            per_client: 10,
            now_us: 1,
            rewriting: None,
        };
        client.take(Some(&mut server), &sent, &mut to_server, &mut to_client, &mut context);
        let mut said = Vec::new();
        if number == 1 {
            craft::parse_complete(&mut said);
        } else {
            assert_eq!(to_server, b"S\0\0\0\x04");
        }
        craft::ready(&mut said, b'I');
        let received = server.receive(Some(&mut client), &said, &mut to_client, &mut Vec::new(), 2);
        assert!(received.at_rest);
        assert_eq!(to_client, b"1\0\0\0\x04Z\0\0\0\x05I");
    }
}
