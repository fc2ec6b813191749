//! A client's side: what it sent, what it has prepared, and what goes to the server for it.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use wire::{Malformed, craft};

use crate::{
    Fault, HELD_BYTES_MAX, Inspect, Parameters, PinReason, Rewriting, STREAMED_BYTES_MIN, Server, Statement,
    StatementInfo, Statements, rewriting::Substitute, server::Work,
};

/// What `take` works with besides the two sessions.
pub struct Context<'a> {
    /// Judges texts.
    pub inspect: &'a mut dyn Inspect,
    /// Named statements of the pool.
    pub statements: &'a mut Statements,
    /// Statements a server may know, at most.
    pub per_server: usize,
    /// Named statements a client may have, at most.
    pub per_client: usize,
    /// Now, in microseconds.
    pub now_us: u64,
    /// Live rewrites; `None` where none is in force.
    pub rewriting: Option<&'a mut dyn Rewriting>,
}

/// What `take` needs to go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// More bytes from the client.
    More,
    /// A server.
    Server,
    /// Nothing: the client said good-bye.
    Terminate,
    /// The client's connection must close.
    Fault(Fault),
}

/// How far `take` came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// Bytes taken from the input.
    pub consumed: usize,
    /// Why it stopped.
    pub need: Need,
}

/// Relay state of one client.
pub struct Client {
    pub(crate) named: HashMap<Box<[u8]>, Arc<Statement>, FixedState>,
    /// Tail of the unnamed statement's Parse, kept to tell it to another server.
    pub(crate) unnamed: Vec<u8>,
    pub(crate) unnamed_info: StatementInfo,
    /// Identifies the unnamed statement over all clients; 0 for none.
    pub(crate) unnamed_serial: u64,
    pub(crate) number: u64,
    pub(crate) parses: u64,
    pub(crate) bound: Work,
    /// What the bound statement deallocates.
    pub(crate) bound_target: Option<Box<[u8]>>,
    /// What the statement under way deallocates.
    pub(crate) target: Option<Box<[u8]>>,
    pub(crate) parameters: Parameters,
    /// What it began with.
    pub(crate) initial: Parameters,
    pub(crate) compared: bool,
    pub(crate) pin: Option<PinReason>,
    /// A SET LOCAL is in force, perhaps.
    pub(crate) set_local: bool,
    /// What the unnamed statement was replaced by at Parse.
    pub(crate) unnamed_substitute: Option<Substitute>,
    skipping: bool,
    /// Bytes still to come of a frame that nobody gets.
    dropping: usize,
    /// It asked for answers at once (Flush).
    pub flush: bool,
}

pub(crate) fn hash(bytes: &[u8]) -> u64 {
    use core::hash::BuildHasher;
    FixedState::with_seed(0x706f_6f6c).hash_one(bytes)
}

impl Client {
    /// A client with its settings; `number` differs from every other client's of the pool and is below 2^32.
    pub fn new<'a>(number: u64, parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut own = Parameters::default();
        for (name, value) in parameters {
            if Parameters::settable(name.as_bytes()) {
                own.set(name.as_bytes(), value.as_bytes());
            }
        }
        // Texts mean something else then, and cannot be judged.
        let escapes = own.get(b"standard_conforming_strings").is_some_and(|value| value != b"on");
        Self {
            named: HashMap::default(),
            unnamed: Vec::new(),
            unnamed_info: StatementInfo::default(),
            unnamed_serial: 0,
            number,
            parses: 0,
            bound: Work::default(),
            bound_target: None,
            target: None,
            initial: own.clone(),
            parameters: own,
            compared: false,
            pin: escapes.then_some(PinReason::Set),
            set_local: false,
            unnamed_substitute: None,
            skipping: false,
            dropping: 0,
            flush: false,
        }
    }

    /// Why it keeps its server, if it does.
    pub fn pin(&self) -> Option<PinReason> {
        self.pin
    }

    /// Its request was refused by an error: the first held Query is answered with ReadyForQuery, or
    /// everything up to Sync is skipped. Gives the bytes of `held` that are done with.
    pub fn refuse(&mut self, held: &[u8], to_client: &mut Vec<u8>) -> usize {
        if let Ok(Some(head)) = wire::head(held)
            && matches!(head.kind, b'Q' | b'F')
        {
            craft::ready(to_client, b'I');
            let taken = held.len().min(head.bytes);
            self.dropping = head.bytes - taken;
            return taken;
        }
        self.skipping = true;
        0
    }

    /// Everything prepared is gone (DISCARD ALL, DEALLOCATE ALL).
    pub(crate) fn forget(&mut self) {
        self.named.clear();
    }

    /// Takes whole frames from `input`: appends what goes to the server to `to_server` and what can
    /// be answered here to `to_client`.
    pub fn take(
        &mut self,
        mut server: Option<&mut Server>,
        input: &[u8],
        to_server: &mut Vec<u8>,
        to_client: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Step {
        let mut at = 0;
        let stop = |consumed, need| Step { consumed, need };
        loop {
            let rest = &input[at..];
            if server.as_deref().is_some_and(Server::holds_back) {
                return stop(at, Need::More);
            }
            if let Some(n) = self.stream(server.as_deref_mut(), rest, to_server, context.now_us) {
                at += n;
                if n == rest.len() {
                    return stop(at, Need::More);
                }
                continue;
            }
            let head = match wire::head(rest) {
                Err(Malformed) => return stop(at, Need::Fault(Fault::Protocol)),
                Ok(None) => return stop(at, Need::More),
                Ok(Some(head)) => head,
            };
            if head.kind == b'd'
                && !self.skipping
                && let Some(server) = server.as_deref_mut()
            {
                server.sending = head.bytes;
                continue;
            }
            if head.kind == b'X' {
                return stop(at, Need::Terminate);
            }
            if self.skipping {
                self.dropping = head.bytes;
                if head.kind == b'S' {
                    self.skipping = false;
                    craft::ready(to_client, b'I');
                }
                continue;
            }
            let frame = &rest[..rest.len().min(head.bytes)];
            let missing = head.bytes - frame.len();
            if missing > 0 && !may_begin(head.kind, head.bytes, frame) {
                // Bind and Query begin soon, whatever their length; the rest is held whole.
                let held = if matches!(head.kind, b'B' | b'F' | b'Q') { frame.len() } else { head.bytes };
                let fits = held <= HELD_BYTES_MAX;
                return stop(at, if fits { Need::More } else { Need::Fault(Fault::TooLarge) });
            }
            let Some(server) = server.as_deref_mut() else {
                match head.kind {
                    b'S' => craft::ready(to_client, b'I'),
                    b'H' | b'd' | b'c' | b'f' => {}
                    b'P' | b'B' | b'C' | b'D' | b'E' | b'Q' | b'F' => return stop(at, Need::Server),
                    _ => return stop(at, Need::Fault(Fault::Protocol)),
                }
                self.dropping = head.bytes;
                continue;
            };
            if server.name_in_doubt(head.kind, frame)
                || self.drops_in_doubt(server, head.kind, frame, context)
            {
                server.doubtful = true;
                return stop(at, Need::More);
            }
            if let Err(fault) = self.forward(server, head.kind, frame, missing, to_server, context) {
                return stop(at, Need::Fault(fault));
            }
            server.settle(to_client);
            server.sending = missing;
            at += frame.len();
        }
    }

    /// Passes on, or drops, what belongs to a frame begun earlier: how many bytes. `None` when none is.
    fn stream(
        &mut self,
        server: Option<&mut Server>,
        rest: &[u8],
        to_server: &mut Vec<u8>,
        now_us: u64,
    ) -> Option<usize> {
        if self.dropping > 0 {
            let n = rest.len().min(self.dropping);
            self.dropping -= n;
            return Some(n);
        }
        let server = server.filter(|server| server.sending > 0)?;
        let n = rest.len().min(server.sending);
        to_server.extend_from_slice(&rest[..n]);
        server.sending -= n;
        if server.sending == 0 && server.queue.len() == 1 {
            // A long statement runs from now on.
            server.since_us = now_us;
        }
        Some(n)
    }
}

/// Whether a frame may go on its way before all of it is here, with `frame` so far.
fn may_begin(kind: u8, bytes: usize, frame: &[u8]) -> bool {
    if bytes <= STREAMED_BYTES_MIN {
        return false;
    }
    match kind {
        // Its names must be here.
        b'B' => wire::cstr(wire::read::body(frame)).and_then(|(_, rest)| wire::cstr(rest)).is_ok(),
        b'F' => true,
        b'Q' => bytes > HELD_BYTES_MAX && frame.len() >= STREAMED_BYTES_MIN,
        _ => false,
    }
}
