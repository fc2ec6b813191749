//! From servers to clients: what a server answers, and who gets the server next.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use pool::{CloseReason, Released};
use stats::{Execution, Outcome};

use super::state::{Course, Phase, State, UNSENT_BYTES};

impl State {
    pub(super) fn server_event(&mut self, at: usize, readable: bool, writable: bool, closing: bool) {
        if writable {
            self.flush_server(at);
            let client = self.servers.get(at).and_then(|s| s.as_ref()).and_then(|s| s.client);
            if let Some(client) = client
                && self.clients[client].as_ref().is_some_and(|c| c.unread)
            {
                self.read_client(client, true);
            }
        }
        if readable && self.servers.get(at).is_some_and(Option::is_some) {
            self.read_server(at, closing);
        }
    }

    pub(super) fn read_server(&mut self, at: usize, closing: bool) {
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(server) = self.servers[at].as_mut() {
            if matches!(server.course, Course::Closing(..)) {
                self.scratch = scratch;
                return self.read_closing(at);
            }
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
                    self.server_lost(at, true);
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
                    self.server_lost(at, true);
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
            self.server_lost(at, false);
            return;
        }
        let Some(c) = linked else {
            if received.at_rest {
                self.reset_done(at);
            }
            return;
        };
        self.flush_client(c);
        let Some(client) = self.clients[c].as_ref() else { return };
        if client.unread {
            self.todo.push_back(c);
        }
        let more = held_back && !client.held.is_empty();
        if client.leaving && !more {
            self.finish_leaving(c);
        } else if !received.at_rest || client.leaving || self.keeps(c) {
            if received.at_rest {
                self.transaction_ended(c, at, None);
            }
            if more {
                // What it sent behind a statement whose answer had to be awaited.
                self.todo.push_back(c);
            }
        } else {
            self.unlink(c, at, None);
            if self.clients[c].as_ref().is_some_and(|client| !client.held.is_empty() || client.unread) {
                self.todo.push_back(c);
            }
            self.hand_on(at);
        }
    }

    /// What failed rewrites ask for: their end, and the client's own text in their place.
    pub(super) fn rewrites_answered(&mut self, at: usize) {
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
    pub(super) fn count(&mut self, at: usize) {
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
    pub(super) fn keeps(&mut self, at: usize) -> bool {
        let Some(client) = self.clients[at].as_mut() else { return false };
        if let Some(pin) = client.session.pin() {
            if !client.pin_counted {
                client.pin_counted = true;
                if let Some(pool) = self.pools[client.pool].as_mut() {
                    *pool.pins.entry(pin.as_str().to_owned()).or_default() += 1;
                }
            }
            return true;
        }
        client.session_mode
    }

    pub(super) fn unlink(&mut self, at: usize, server_at: usize, outcome: Option<Outcome>) {
        let (Some(client), Some(server)) = (self.clients[at].as_mut(), self.servers[server_at].as_mut())
        else {
            return;
        };
        client.phase = Phase::Idle;
        server.client = None;
        let held_us = self.now_us.saturating_sub(client.linked_us);
        let pool = client.pool as u16;
        self.shard.checkout(pool, client.arrived_us, client.waited_us, held_us);
        self.transaction_ended(at, server_at, outcome);
    }

    /// Counts a transaction, once; without `outcome` as PostgreSQL told it.
    fn transaction_ended(&mut self, at: usize, server_at: usize, outcome: Option<Outcome>) {
        let (Some(client), Some(server)) = (self.clients[at].as_mut(), self.servers[server_at].as_mut())
        else {
            return;
        };
        let rolled_back = server.session.take_rolled_back();
        if std::mem::replace(&mut client.resting, true) {
            return;
        }
        let told = if rolled_back { Outcome::Rollback } else { Outcome::Commit };
        let outcome = if client.abandoned { Outcome::Abandoned } else { outcome.unwrap_or(told) };
        let length_us = self.now_us.saturating_sub(client.began_us);
        let idle_us = std::mem::take(&mut server.idle_us);
        self.shard.transaction(client.pool as u16, outcome, length_us, idle_us);
    }

    /// A server without client is at rest: if it was being reset, it has come free.
    fn reset_done(&mut self, at: usize) {
        if let Some(server) = self.servers[at].as_mut()
            && matches!(server.course, Course::Resetting(_))
        {
            server.course = Course::Serving;
            self.hand_on(at);
        }
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
        if server.guard.load(Ordering::Acquire) {
            // A cancel may still come, and would hit the next client.
            return self.close_server(server_at, CloseReason::Error);
        }
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
}
