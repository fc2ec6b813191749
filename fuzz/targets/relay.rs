//! Whatever a client and a server say, in whatever pieces, the relay does not panic, takes no more than it was
//! given, and does not make much out of little.
//!
//! The input is a row of pieces. Each begins with a byte of flags (1: the server speaks, 2: the piece is the body of
//! a frame whose kind follows and whose length is right) and one of length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay::{Client, Context, Inspect, Need, Server, StatementInfo, Statements};
use wire::craft;

/// What `crafted` may add to each byte of input: a rewritten name, an injected Parse of a remembered statement.
const AMPLIFIED: usize = 1 << 14;

struct Judge;

impl Inspect for Judge {
    fn statement(&mut self, sql: &[u8]) -> StatementInfo {
        let drops = sql.starts_with(b"DEALLOCATE");
        StatementInfo { deallocates: drops, ..StatementInfo::default() }
    }

    fn deallocated(&mut self, sql: &[u8]) -> Option<Vec<u8>> {
        sql.strip_prefix(b"DEALLOCATE ").map(<[u8]>::to_vec)
    }
}

struct Pieces<'a>(&'a [u8]);

impl<'a> Iterator for Pieces<'a> {
    /// Whether the server speaks, and what.
    type Item = (bool, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        let [flags, length, rest @ ..] = self.0 else { return None };
        let (kind, rest) = match (flags & 2 != 0, rest) {
            (true, [kind, rest @ ..]) => (Some(*kind), rest),
            _ => (None, rest),
        };
        let (piece, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        self.0 = rest;
        let mut said = Vec::new();
        match kind {
            Some(kind) => craft::frame(&mut said, kind, |body| body.extend_from_slice(piece)),
            None => said.extend_from_slice(piece),
        }
        Some((flags & 1 != 0, said))
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut client, mut server) = (Client::new(1, [("application_name", "x")]), Server::new([("TimeZone", "UTC")]));
    let (mut statements, mut events) = (Statements::default(), Vec::new());
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
    for (now_us, (server_speaks, said)) in Pieces(data).enumerate() {
        if server_speaks {
            from_server.extend_from_slice(&said);
            let received =
                server.receive(Some(&mut client), &from_server, &mut to_client, &mut events, now_us as u64);
            from_server.drain(..received.consumed);
            if received.fault.is_some() || server.dead() {
                return;
            }
        } else {
            from_client.extend_from_slice(&said);
        }
        let mut context = Context {
            inspect: &mut Judge,
            statements: &mut statements,
            per_server: 3,
            per_client: 5,
            now_us: now_us as u64,
            rewriting: None,
        };
        let step = client.take(Some(&mut server), &from_client, &mut to_server, &mut to_client, &mut context);
        from_client.drain(..step.consumed);
        if step.need != Need::More {
            return;
        }
        let _ = (server.unfinished(), server.running(), server.idle_in_transaction());
    }
    assert!(to_server.len() + to_client.len() <= (data.len() + 1) * AMPLIFIED);
});
