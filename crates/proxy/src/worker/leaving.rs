//! Ends: clients that leave, servers that are lost.

use pool::CloseReason;
use relay::Unfinished;
use stats::Outcome;
use wire::craft::{self, ErrorReply};

use super::state::{Course, Phase, State};

fn fatal<'a>(code: &'a str, message: &'a str) -> ErrorReply<'a> {
    ErrorReply { severity: "FATAL", code, message, detail: None, hint: None }
}

impl State {
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
                client.abandoned = true;
                server.session.inject_rollback(&mut server.out);
                return self.flush_server(server_at);
            }
            Unfinished::Transaction => {
                client.abandoned = true;
                server.session.inject(b"ROLLBACK", &mut server.out);
                return self.flush_server(server_at);
            }
            Unfinished::Torn => {
                self.unlink(at, server_at, Some(Outcome::Abandoned));
                self.close_server(server_at, CloseReason::Abandoned);
            }
            Unfinished::Nothing if kept => {
                self.unlink(at, server_at, None);
                self.reset_server(server_at);
            }
            Unfinished::Nothing => {
                self.unlink(at, server_at, None);
                self.hand_on(server_at);
            }
        }
        self.remove_client(at);
    }

    /// The server's connection is `gone`, or not to be trusted.
    pub(super) fn server_lost(&mut self, at: usize, gone: bool) {
        let Some(server) = self.servers[at].as_mut() else { return };
        let resetting = matches!(server.course, Course::Resetting(_));
        let reason = if resetting { CloseReason::ResetFailed } else { CloseReason::Error };
        if let Some(c) = server.client {
            let told = server.session.dead();
            self.unlink(c, at, Some(Outcome::Rollback));
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
        if gone {
            self.end_server(at, reason);
            self.server_gone(at);
        } else {
            self.close_server(at, reason);
        }
    }

    pub(super) fn drain(&mut self) {
        for at in 0..self.clients.len() {
            if self.clients[at].as_ref().is_some_and(|c| c.phase == Phase::Idle && c.held.is_empty()) {
                self.expel(at, "57P01", "Poolwright is shutting down");
            }
        }
        self.run();
    }
}
