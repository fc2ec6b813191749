//! Events of clients and servers.

use std::io::ErrorKind;

use pool::{Acquired, CloseReason, Released};
use relay::{Context, Need, Unfinished};
use stats::{Execution, Outcome};
use wire::craft::{self, ErrorReply};

use super::state::{HELD_BYTES, Phase, State, UNSENT_BYTES};

fn fatal<'a>(code: &'a str, message: &'a str) -> ErrorReply<'a> {
    ErrorReply { severity: "FATAL", code, message, detail: None, hint: None }
}

impl State {
    /// Works off clients that can go on.
    pub(super) fn run(&mut self) {
        while let Some(at) = self.todo.pop_front() {
            self.pump(at);
            let unread = |c: &super::state::Client| c.unread && !matches!(c.phase, Phase::Waiting(_));
            if self.clients[at].as_deref().is_some_and(unread) {
                self.read_client(at, false);
            }
        }
    }

    pub(super) fn read_client(&mut self, at: usize, closing: bool) {
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(client) = self.clients[at].as_mut() {
            let blocked = match client.phase {
                Phase::Idle => false,
                Phase::Waiting(_) => client.held.len() > HELD_BYTES,
                Phase::Linked(server) => {
                    self.servers[server].as_ref().is_some_and(|s| s.out.len() > UNSENT_BYTES)
                }
            };
            if blocked {
                client.unread = true;
                break;
            }
            client.unread = false;
            let Some(socket) = client.socket.as_mut() else { break };
            match socket.read(&mut scratch) {
                Ok(0) => {
                    self.client_left(at);
                    break;
                }
                Ok(n) => {
                    client.held.extend_from_slice(&scratch[..n]);
                    self.shard.client_bytes(client.pool as u16, n as u64, 0);
                    self.pump(at);
                    if n < scratch.len() && !closing {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.client_left(at);
                    break;
                }
            }
        }
        self.scratch = scratch;
    }

    /// The client's socket is closed. What it had sent whole completes.
    pub(super) fn client_left(&mut self, at: usize) {
        let Some(client) = self.clients[at].as_mut() else { return };
        if let Some(mut socket) = client.socket.take() {
            socket.deregister(&self.registry);
        }
        client.out.clear();
        client.leaving = true;
        self.todo.push_back(at);
    }

    /// Tells the client, then lets it go.
    pub(super) fn expel(&mut self, at: usize, code: &str, message: &str) {
        if let Some(client) = self.clients[at].as_mut() {
            craft::error(&mut client.out, &fatal(code, message));
            client.held.clear();
            self.flush_client(at);
            self.client_left(at);
        }
    }

    /// Takes what the client sent as far as it goes.
    pub(super) fn pump(&mut self, at: usize) {
        loop {
            let Some(mut client) = self.clients[at].take() else { return };
            if matches!(client.phase, Phase::Waiting(_)) {
                self.clients[at] = Some(client);
                return;
            }
            let index = client.pool;
            let Some(pool) = self.pools[index].as_mut() else {
                self.clients[at] = Some(client);
                return;
            };
            let mut nowhere = Vec::new();
            let (session, to_server) = match client.phase {
                Phase::Linked(server) => match self.servers[server].as_mut() {
                    Some(server) => {
                        let server = &mut **server;
                        (Some(&mut server.session), &mut server.out)
                    }
                    None => (None, &mut nowhere),
                },
                _ => (None, &mut nowhere),
            };
            let mut context = Context {
                inspect: &mut self.judge,
                statements: &mut pool.statements,
                per_server: pool.settings.statements_per_server,
                per_client: pool.settings.statements_per_client,
                now_us: self.now_us,
                rewriting: if pool.rewrites.idle() { None } else { Some(&mut pool.rewrites) },
            };
            let held = std::mem::take(&mut client.held);
            let step = client.session.take(session, &held, to_server, &mut client.out, &mut context);
            client.held = held;
            if step.consumed == client.held.len() {
                client.held.clear();
                client.held.shrink_to(HELD_BYTES);
            } else {
                client.held.drain(..step.consumed);
            }
            let phase = client.phase;
            self.clients[at] = Some(client);
            match step.need {
                Need::Server => match self.acquire(at) {
                    true => continue,
                    false => {
                        self.flush_client(at);
                        return;
                    }
                },
                Need::More => {}
                Need::Terminate => {
                    if let Some(client) = self.clients[at].as_mut() {
                        client.held.clear();
                        client.leaving = true;
                    }
                }
                Need::Fault(fault) => {
                    tracing::debug!(?fault, "client closed");
                    let (code, text) = match fault {
                        relay::Fault::TooLarge => ("54000", "a message or table is over its limit"),
                        _ => ("08P01", "protocol violation"),
                    };
                    self.expel(at, code, text);
                }
            }
            self.after_pump(at, phase);
            return;
        }
    }

    fn after_pump(&mut self, at: usize, phase: Phase) {
        let mut answered = true;
        if let Phase::Linked(server) = phase {
            self.flush_server(server);
            if let Some(server) = self.servers[server].as_mut() {
                answered = !server.session.owes();
                if !answered && let Some(since) = server.idle_since_us.take() {
                    server.idle_us += self.now_us.saturating_sub(since);
                }
            }
        }
        let Some(client) = self.clients[at].as_ref() else { return };
        if answered || client.session.flush {
            self.flush_client(at);
        }
        if self.clients[at].as_ref().is_some_and(|c| c.leaving) {
            self.finish_leaving(at);
        }
    }

    /// Asks the pool for a server; true when the client has one.
    fn acquire(&mut self, at: usize) -> bool {
        let now_us = self.now_us;
        let Some(client) = self.clients[at].as_mut() else { return false };
        let index = client.pool;
        let Some(pool) = self.pools[index].as_mut() else { return false };
        client.arrived_us = now_us;
        match pool.pool.acquire(Self::client_id(at), now_us) {
            Acquired::Server(id) => {
                pool.acquires[0] += 1;
                let server = pool.slots.get(id.0 as usize).copied().flatten();
                self.link(at, server, 0)
            }
            Acquired::Queued { ticket, open } => {
                client.phase = Phase::Waiting(ticket);
                self.open(index, open);
                false
            }
        }
    }

    /// Lends a server to a client.
    fn link(&mut self, at: usize, server: Option<usize>, waited_us: u64) -> bool {
        let Some(server_at) = server else { return false };
        let (Some(client), Some(server)) = (self.clients[at].as_mut(), self.servers[server_at].as_mut())
        else {
            return false;
        };
        client.phase = Phase::Linked(server_at);
        client.waited_us = waited_us;
        client.linked_us = self.now_us;
        client.wait_counted = false;
        client.rolled_back = false;
        server.client = Some(at);
        server.idle_since_us = None;
        server.idle_us = 0;
        server.cancelled = false;
        server.session.restore(&mut client.session, &mut server.out);
        true
    }

    /// A checked-out server has come free.
    pub(super) fn hand_on(&mut self, server_at: usize) {
        let Some(server) = self.servers[server_at].as_mut() else { return };
        server.client = None;
        if std::sync::Arc::strong_count(&server.guard) > 1 {
            server.fenced = true;
            return;
        }
        server.fenced = false;
        let (index, id) = (server.pool, server.id);
        let now_us = self.now_us;
        let Some(pool) = self.pools[index].as_mut() else { return };
        let released = pool.pool.release(id, now_us);
        self.released(server_at, released);
    }

    pub(super) fn released(&mut self, server_at: usize, released: Released) {
        match released {
            Released::Idle => {}
            Released::Close(reason) => self.close_server(server_at, reason),
            Released::Next { client, waited_us, .. } => {
                let at = client.0 as usize;
                if let Some(pool) = self.servers[server_at].as_ref().and_then(|s| self.pools[s.pool].as_mut())
                {
                    pool.acquires[1] += 1;
                }
                if self.link(at, Some(server_at), waited_us) {
                    self.todo.push_front(at);
                } else {
                    self.close_server(server_at, CloseReason::Error);
                }
            }
        }
    }

    pub(super) fn read_server(&mut self, at: usize, closing: bool) {
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(server) = self.servers[at].as_mut() {
            let blocked = server
                .client
                .and_then(|c| self.clients[c].as_ref())
                .is_some_and(|c| c.out.len() > UNSENT_BYTES);
            if blocked {
                server.unread = true;
                break;
            }
            server.unread = false;
            match server.socket.read(&mut scratch) {
                Ok(0) => {
                    self.server_lost(at);
                    break;
                }
                Ok(n) => {
                    self.shard.server_bytes(server.pool as u16, n as u64, 0);
                    self.answer(at, &scratch[..n]);
                    if n < scratch.len() && !closing {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.server_lost(at);
                    break;
                }
            }
        }
        self.scratch = scratch;
    }

    /// Bytes came from a server.
    pub(super) fn answer(&mut self, at: usize, bytes: &[u8]) {
        let Some(mut server) = self.servers[at].take() else { return };
        let mut client = server.client.and_then(|c| self.clients[c].take());
        let mut nowhere = Vec::new();
        let (session, out) = match client.as_mut() {
            Some(client) => {
                let client = &mut **client;
                (Some(&mut client.session), &mut client.out)
            }
            None => (None, &mut nowhere),
        };
        let (events, now_us) = (&mut self.events, self.now_us);
        let held_back = server.session.holds_back();
        let received = if server.held.is_empty() {
            let received = server.session.receive(session, bytes, out, events, now_us);
            server.held.extend_from_slice(&bytes[received.consumed..]);
            received
        } else {
            let mut held = std::mem::take(&mut server.held);
            held.extend_from_slice(bytes);
            let received = server.session.receive(session, &held, out, events, now_us);
            held.drain(..received.consumed);
            server.held = held;
            received
        };
        if server.session.idle_in_transaction() && server.idle_since_us.is_none() {
            server.idle_since_us = Some(now_us);
        }
        let (linked, dead) = (server.client, server.session.dead());
        let held_back = held_back && !server.session.holds_back();
        self.servers[at] = Some(server);
        self.rewrites_answered(at);
        if let (Some(c), Some(client)) = (linked, client) {
            self.clients[c] = Some(client);
            self.count(c);
        }
        self.events.clear();
        if received.fault.is_some() || dead {
            self.server_lost(at);
            return;
        }
        let Some(c) = linked else { return };
        self.flush_client(c);
        let Some(client) = self.clients[c].as_ref() else { return };
        if held_back && !client.held.is_empty() && (client.leaving || !received.at_rest) {
            // What it sent behind a rewritten query.
            self.todo.push_back(c);
        } else if client.leaving {
            self.finish_leaving(c);
        } else if received.at_rest && !self.keeps(c) {
            self.unlink(c, at, Outcome::Commit);
            if self.clients[c].as_ref().is_some_and(|client| !client.held.is_empty() || client.unread) {
                self.todo.push_back(c);
            }
            self.hand_on(at);
        }
    }

    /// What failed rewrites ask for: their end, and the client's own text in their place.
    fn rewrites_answered(&mut self, at: usize) {
        let Some(server) = self.servers[at].as_mut() else { return };
        for number in server.session.failed_rewrites.drain(..) {
            if let Some(pool) = self.pools[server.pool].as_mut()
                && let Some(id) = pool.rewrites.failed(number)
            {
                tracing::warn!(pool = %pool.settings.name, rewrite = %id, "PostgreSQL refuses a rewrite: it is off");
            }
        }
        if !server.session.resend.is_empty() {
            server.out.append(&mut server.session.resend);
            self.flush_server(at);
        }
    }

    /// Statistics of what ended for this client.
    fn count(&mut self, at: usize) {
        let Some(client) = self.clients[at].as_mut() else { return };
        for event in &self.events {
            let server_us = self.now_us.saturating_sub(event.sent_us);
            if event.rewrite != 0
                && let Some(pool) = self.pools[client.pool].as_mut()
            {
                pool.rewrites.applied(event.rewrite);
            }
            let wait_us = if client.wait_counted { 0 } else { client.waited_us };
            client.wait_counted = true;
            self.shard.execution(Execution {
                pool: client.pool as u16,
                slot: event.slot,
                wait_us,
                server_us,
                hold_us: server_us,
                rows: event.rows,
                bytes: event.bytes,
                error: event.error,
            });
            if !event.control {
                let sent_us = event.sent_us;
                client.trail.observe(&mut self.shard, event.slot, event.bind_hash, event.offset, sent_us);
                client.trail.finished(self.now_us);
            }
        }
    }

    /// Whether the client keeps its server until it leaves.
    fn keeps(&mut self, at: usize) -> bool {
        let Some(client) = self.clients[at].as_mut() else { return false };
        if let Some(pin) = client.session.pin() {
            if !client.pin_counted {
                client.pin_counted = true;
                if let Some(pool) = self.pools[client.pool].as_mut() {
                    *pool.pinned.entry(pin.as_str().to_owned()).or_default() += 1;
                }
            }
            return true;
        }
        client.session_mode
    }

    pub(super) fn unlink(&mut self, at: usize, server_at: usize, outcome: Outcome) {
        let (Some(client), Some(server)) = (self.clients[at].as_mut(), self.servers[server_at].as_mut())
        else {
            return;
        };
        client.phase = Phase::Idle;
        server.client = None;
        let held_us = self.now_us.saturating_sub(client.linked_us);
        let pool = client.pool as u16;
        self.shard.checkout(pool, client.arrived_us, client.waited_us, held_us);
        let outcome = if client.rolled_back { Outcome::Rollback } else { outcome };
        self.shard.transaction(pool, outcome, held_us, server.idle_us);
    }

    /// The server's connection is gone or not to be trusted.
    fn server_lost(&mut self, at: usize) {
        let Some(server) = self.servers[at].as_mut() else { return };
        if let Some(c) = server.client {
            let told = server.session.dead();
            self.unlink(c, at, Outcome::Abandoned);
            if told {
                self.flush_client(c);
                if let Some(client) = self.clients[c].as_mut() {
                    client.held.clear();
                }
                self.client_left(c);
            } else {
                self.expel(c, "08006", "the connection to PostgreSQL was lost");
            }
        }
        self.close_server(at, CloseReason::Error);
    }

    /// Brings a leaving client's server to rest, step by step; then forgets the client.
    pub(super) fn finish_leaving(&mut self, at: usize) {
        let Some(client) = self.clients[at].as_mut() else { return };
        let server_at = match client.phase {
            Phase::Waiting(_) => {
                if client.held.is_empty() {
                    self.remove_client(at);
                }
                return;
            }
            Phase::Idle => return self.remove_client(at),
            Phase::Linked(server_at) => server_at,
        };
        let kept = client.session_mode || client.session.pin().is_some();
        let Some(server) = self.servers[server_at].as_mut() else { return self.remove_client(at) };
        match server.session.unfinished() {
            Unfinished::Owes => return,
            Unfinished::Copy { extended } => {
                server.session.inject_copy_fail("the client left", &mut server.out);
                if extended {
                    server.session.inject_sync(&mut server.out);
                }
                return self.flush_server(server_at);
            }
            Unfinished::Batch => {
                server.session.inject_sync(&mut server.out);
                return self.flush_server(server_at);
            }
            Unfinished::Transaction => {
                client.rolled_back = true;
                server.session.inject(b"ROLLBACK", &mut server.out);
                return self.flush_server(server_at);
            }
            Unfinished::Torn => {
                self.unlink(at, server_at, Outcome::Abandoned);
                self.close_server(server_at, CloseReason::Abandoned);
            }
            // Session state was left behind: a fresh connection is certain to be clean.
            Unfinished::Nothing if kept => {
                self.unlink(at, server_at, Outcome::Commit);
                self.close_server(server_at, CloseReason::Abandoned);
            }
            Unfinished::Nothing => {
                self.unlink(at, server_at, Outcome::Commit);
                self.hand_on(server_at);
            }
        }
        self.remove_client(at);
    }
}
