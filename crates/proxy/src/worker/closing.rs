//! A server after its clients: reset, or told to end and awaited.
//!
//! PostgreSQL closes a connection when its process is gone (`socket_close` in pqcomm.c), so its end of file tells
//! that the slot is free. Until then, or until a time-out, the server counts towards `max`.

use std::io::ErrorKind;

use pool::CloseReason;

use super::cancel;
use super::state::{Course, State};

/// Longest wait for a server to go.
const GONE_LIMIT_US: u64 = 3_000_000;
/// Longest time for DISCARD ALL.
const RESET_LIMIT_US: u64 = 5_000_000;

impl State {
    /// Clears the session of a server whose client left state behind; then others may have it.
    pub(super) fn reset_server(&mut self, at: usize) {
        let now_us = self.now_us;
        let Some(server) = self.servers[at].as_mut() else { return };
        server.course = Course::Resetting(now_us);
        server.session.reset(&mut server.out);
        self.flush_server(at);
    }

    /// Ends a server whose client, if it had one, is dealt with already.
    pub(super) fn close_server(&mut self, at: usize, reason: CloseReason) {
        if self.servers[at].as_ref().is_some_and(|server| matches!(server.course, Course::Closing(..))) {
            return;
        }
        self.end_server(at, reason);
        let Some(server) = self.servers[at].as_mut() else { return };
        if server.session.owes()
            && !server.session.dead()
            && let Some(pool) = self.pools[server.pool].as_ref()
        {
            // A statement under way would go on for nobody.
            let guard = cancel::Guard::new(&server.guard, &self.waker);
            cancel::send(pool.settings.server.clone(), server.key.clone(), guard);
        }
        if !server.session.torn() {
            wire::craft::terminate(&mut server.out);
        }
        if server.out.is_empty() {
            server.socket.end_writing();
        }
        self.flush_server(at);
    }

    /// From now on it serves nobody.
    pub(super) fn end_server(&mut self, at: usize, reason: CloseReason) {
        let now_us = self.now_us;
        let Some(server) = self.servers[at].as_mut() else { return };
        if matches!(server.course, Course::Closing(..)) {
            return;
        }
        server.course = Course::Closing(reason, now_us);
        server.fenced = false;
        let (index, id) = (server.pool, server.id);
        let Some(pool) = self.pools[index].as_mut() else { return };
        if let Some(slot) = pool.slots.get_mut(id.0 as usize) {
            *slot = None;
        }
        pool.pool.close(id);
        self.shard.server_closed(index as u16, reason.as_str());
    }

    /// Reads what a closing server still says, up to its end.
    pub(super) fn read_closing(&mut self, at: usize) {
        let mut scratch = std::mem::take(&mut self.scratch);
        while let Some(server) = self.servers[at].as_mut() {
            match server.socket.read(&mut scratch) {
                Ok(0) => self.server_gone(at),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.server_gone(at),
            }
        }
        self.scratch = scratch;
    }

    /// A closing server is gone: its slot is free.
    pub(super) fn server_gone(&mut self, at: usize) {
        let Some(mut server) = self.servers[at].take() else { return };
        self.free_servers.push(at);
        server.socket.deregister(&self.registry);
        let now_us = self.now_us;
        let Some(pool) = self.pools[server.pool].as_mut() else { return };
        let Some(next) = pool.pool.closed(server.id, now_us) else { return };
        // After a failure PostgreSQL is given a moment.
        if matches!(server.course, Course::Closing(CloseReason::Error, _)) {
            pool.retry.push((now_us + 100_000, next));
        } else {
            self.open(server.pool, Some(next));
        }
    }

    /// Looks whether a reset or a close takes too long; true when the server serves nobody.
    pub(super) fn check_end(&mut self, at: usize) -> bool {
        let Some(server) = self.servers[at].as_ref() else { return true };
        match server.course {
            Course::Serving => return false,
            Course::Resetting(since_us) if self.now_us.saturating_sub(since_us) >= RESET_LIMIT_US => {
                self.close_server(at, CloseReason::ResetFailed);
            }
            Course::Closing(_, since_us) if self.now_us.saturating_sub(since_us) >= GONE_LIMIT_US => {
                self.server_gone(at);
            }
            Course::Resetting(_) | Course::Closing(..) => {}
        }
        true
    }
}
