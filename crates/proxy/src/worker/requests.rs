//! From clients to servers: what a client sends, and the server that it gets for it.

use std::io::ErrorKind;

use pool::Acquired;
use relay::{Context, Need};

use super::state::{Client, HELD_BYTES, OWED_MAX, Phase, State, UNSENT_BYTES};

impl State {
    /// Works off clients that can go on.
    pub(super) fn run(&mut self) {
        while let Some(at) = self.todo.pop_front() {
            self.pump(at);
            self.resume(at);
        }
    }

    /// Reads on, on both sides, where reading was paused and may go on. An edge that came meanwhile is spent, the
    /// end of the stream included: so both are read to the end.
    fn resume(&mut self, at: usize) {
        let unread = |c: &Client| c.unread && !matches!(c.phase, Phase::Waiting(_));
        if self.clients[at].as_deref().is_some_and(unread) {
            self.read_client(at, true);
        }
        if let Some(Phase::Linked(server)) = self.clients[at].as_deref().map(|client| client.phase)
            && self.servers[server].as_ref().is_some_and(|server| server.unread)
        {
            self.read_server(server, true);
        }
    }

    /// Whether nothing more is read from a client for now.
    fn paused(&self, client: &Client) -> bool {
        match client.phase {
            Phase::Waiting(_) => client.held.len() > HELD_BYTES,
            // What is left of one that has ended is read, however slowly it takes answers: its leaving is seen.
            _ if client.out.len() > UNSENT_BYTES && !client.ended => true,
            Phase::Idle => false,
            Phase::Linked(server) => self.servers[server].as_ref().is_some_and(|server| {
                server.out.len() > UNSENT_BYTES
                    || server.session.owed() > OWED_MAX
                    || server.session.holds_back() && client.held.len() > HELD_BYTES
            }),
        }
    }

    pub(super) fn client_event(&mut self, at: usize, readable: bool, writable: bool, closing: bool) {
        if self.clients.get(at).is_none() {
            return;
        }
        if writable {
            self.flush_client(at);
            self.resume(at);
        }
        if closing && let Some(client) = self.clients[at].as_mut() {
            client.ended = true;
        }
        if readable && self.clients[at].is_some() {
            self.read_client(at, closing);
        }
    }

    pub(super) fn read_client(&mut self, at: usize, closing: bool) {
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(client) = self.clients[at].as_deref() {
            let paused = self.paused(client);
            let Some(client) = self.clients[at].as_mut() else { break };
            client.unread = paused;
            if paused {
                break;
            }
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

    pub(super) fn after_pump(&mut self, at: usize, phase: Phase) {
        let mut answered = true;
        if let Phase::Linked(server) = phase {
            self.flush_server(server);
            if let Some(server) = self.servers[server].as_mut() {
                answered = !server.session.owes();
                if !answered
                    && let Some(client) = self.clients[at].as_mut()
                    && client.resting
                {
                    client.resting = false;
                    client.began_us = self.now_us;
                }
                if !answered && let Some(since) = server.idle_since_us.take() {
                    server.idle_us += self.now_us.saturating_sub(since);
                }
            }
        }
        let Some(client) = self.clients[at].as_ref() else { return };
        // Paused for this, nobody else would send it.
        if answered || client.session.flush || client.out.len() > UNSENT_BYTES {
            self.flush_client(at);
        }
        if self.clients[at].as_ref().is_some_and(|c| c.leaving) {
            self.finish_leaving(at);
        }
    }

    /// Asks the pool for a server; true when the client has one.
    pub(super) fn acquire(&mut self, at: usize) -> bool {
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
    pub(super) fn link(&mut self, at: usize, server: Option<usize>, waited_us: u64) -> bool {
        let Some(server_at) = server else { return false };
        let (Some(client), Some(server)) = (self.clients[at].as_mut(), self.servers[server_at].as_mut())
        else {
            return false;
        };
        client.phase = Phase::Linked(server_at);
        client.waited_us = waited_us;
        client.linked_us = self.now_us;
        client.wait_counted = false;
        client.abandoned = false;
        client.began_us = self.now_us;
        client.resting = false;
        server.client = Some(at);
        server.idle_since_us = None;
        server.idle_us = 0;
        server.cancelled_us = None;
        server.session.restore(&mut client.session, &mut server.out);
        true
    }
}
