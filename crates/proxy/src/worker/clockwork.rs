//! Everything that happens by time: the time-outs, retries, warm servers.

use std::collections::VecDeque;

use pool::CloseReason;
use wire::craft::{self, ErrorReply};

use super::{
    cancel,
    state::{Course, Phase, State},
};
use crate::handover::{ConnectFault, PoolIndex};
use crate::settings::micros;

/// An error that leaves the client connected.
pub(super) fn error<'a>(code: &'a str, message: &'a str) -> ErrorReply<'a> {
    ErrorReply { severity: "ERROR", code, message, detail: None, hint: None }
}

/// How long a client may leave the answer of a cancelled statement unread.
const DEAF_LIMIT_US: u64 = 2_000_000;

impl State {
    /// Every 100 ms.
    pub(super) fn tick(&mut self) {
        for index in 0..self.pools.len() {
            self.sweep_pool(index);
        }
        for at in 0..self.servers.len() {
            self.check_server(at);
        }
    }

    fn sweep_pool(&mut self, index: usize) {
        let now_us = self.now_us;
        let mut swept = std::mem::take(&mut self.swept);
        swept.clear();
        let Some(pool) = self.pools[index].as_mut() else {
            self.swept = swept;
            return;
        };
        pool.pool.sweep(now_us, now_us.wrapping_mul(0x9e37_79b9_7f4a_7c15), &mut swept);
        let mut due = Vec::new();
        pool.retry.retain(|(at_us, slot)| {
            if *at_us <= now_us {
                due.push(*slot);
            }
            *at_us > now_us
        });
        let somebody_waits = pool.pool.counts().waiting > 0;
        let tried = pool.reach.due(now_us, somebody_waits);
        self.act(index, &mut swept);
        for slot in due {
            self.open(index, Some(slot));
        }
        if let Some(slot) = tried {
            self.opener.open(PoolIndex(index as u16), slot);
        }
        self.swept = swept;
    }

    /// Does what the pool asks for.
    pub(super) fn act(&mut self, index: usize, swept: &mut pool::Swept) {
        for (client, _, waited_us) in swept.timed_out.drain(..) {
            self.acquire_timed_out(client.0 as usize, waited_us);
        }
        for (id, reason) in swept.close.drain(..) {
            let at = self.pools[index].as_ref().and_then(|p| p.slots.get(id.0 as usize).copied().flatten());
            if let Some(at) = at {
                self.close_server(at, reason);
            }
        }
        for slot in swept.open.drain(..) {
            self.open(index, Some(slot));
        }
        for (id, client, ticket, waited_us) in swept.granted.drain(..) {
            let at = self.pools[index].as_ref().and_then(|p| p.slots.get(id.0 as usize).copied().flatten());
            if let Some(at) = at {
                self.released(at, pool::Released::Next { client, ticket, waited_us });
            }
        }
    }

    fn acquire_timed_out(&mut self, at: usize, waited_us: u64) {
        let Some(index) = self.clients[at].as_ref().map(|c| c.pool) else { return };
        let Some(pool) = self.pools[index].as_mut() else { return };
        pool.acquires[2] += 1;
        self.shard.gave_up(index as u16, waited_us);
        let counts = pool.pool.counts();
        let fault = pool.reach.fault().cloned();
        if let Some(fault) = &fault
            && counts.active + counts.idle == 0
        {
            return self.refuse_unreachable(at, fault, waited_us);
        }
        let message = format!(
            "no server came free within acquire_timeout: waited {} ms; active {}, idle {}, waiting {}, max {}",
            waited_us / 1000,
            counts.active,
            counts.idle,
            counts.waiting + 1,
            counts.max
        );
        let mut detail = self.holders(index);
        if let Some(fault) = fault {
            detail.push_str(&format!(" No other server could be opened: {fault}."));
        }
        self.shard.error(index as u16, *b"53300");
        self.refuse(at, &ErrorReply { detail: Some(&detail), ..error("53300", &message) });
    }

    /// Who holds the servers of a pool, for the client that got none; without literals.
    fn holders(&self, index: usize) -> String {
        let mut running: Vec<(u32, u32, u64)> = Vec::new();
        let (mut thinking, mut others, mut closing) = (0u32, 0u32, 0u32);
        for server in self.servers.iter().flatten().filter(|server| server.pool == index) {
            if server.course != Course::Serving {
                closing += 1;
            } else if server.session.idle_in_transaction() {
                thinking += 1;
            } else if let Some((slot, since_us, _)) = server.session.running() {
                let age_us = self.now_us.saturating_sub(since_us);
                match running.iter_mut().find(|(known, ..)| *known == slot) {
                    Some((_, count, longest)) => (*count, *longest) = (*count + 1, age_us.max(*longest)),
                    None => running.push((slot, 1, age_us)),
                }
            } else {
                others += 1;
            }
        }
        running.sort_by_key(|(_, count, _)| std::cmp::Reverse(*count));
        let mut parts: Vec<String> = running
            .iter()
            .take(5)
            .map(|(slot, count, longest_us)| {
                let name = self.judge.name(*slot);
                format!("fingerprint {name} ×{count} (longest {} ms)", longest_us / 1000)
            })
            .collect();
        let more: u32 = running.iter().skip(5).map(|(_, count, _)| count).sum();
        for (count, what) in [
            (more, "other fingerprints"),
            (thinking, "idle in transaction"),
            (others, "kept between transactions"),
            (closing, "being reset or closed"),
        ] {
            if count > 0 {
                parts.push(format!("{what} ×{count}"));
            }
        }
        if parts.is_empty() {
            return "No server is open.".to_owned();
        }
        format!("Servers are held by: {}.", parts.join("; "))
    }

    /// A slot could not be opened. Waiters hear of it at once where waiting is no use.
    pub(super) fn not_opened(&mut self, index: usize, id: pool::ServerId, fault: ConnectFault) {
        let now_us = self.now_us;
        self.shard.connect_failed(index as u16, fault.sqlstate);
        let Some(pool) = self.pools[index].as_mut() else { return };
        if pool.reach.failed(id, fault.clone(), now_us) {
            tracing::warn!(pool = %pool.settings.name, hint = fault.hint(), "no server: {fault}");
        }
        let counts = pool.pool.counts();
        let hopeless = fault.is_permanent() && counts.active + counts.idle == 0;
        let left = if hopeless { pool.pool.dismiss(now_us) } else { Vec::new() };
        pool.acquires[2] += left.len() as u64;
        let next = pool.pool.open_failed(id, now_us);
        for (client, _, waited_us) in left {
            self.shard.gave_up(index as u16, waited_us);
            self.refuse_unreachable(client.0 as usize, &fault, waited_us);
        }
        self.open(index, next);
    }

    /// PostgreSQL answers again: the slots that were held back are opened.
    pub(super) fn reached(&mut self, index: usize, reached: Option<(u64, VecDeque<pool::ServerId>)>) {
        let (Some((down_us, slots)), Some(pool)) = (reached, self.pools[index].as_ref()) else { return };
        tracing::warn!(pool = %pool.settings.name, "PostgreSQL answers again, after {} ms", down_us / 1000);
        for slot in slots {
            self.open(index, Some(slot));
        }
    }

    fn refuse_unreachable(&mut self, at: usize, fault: &ConnectFault, waited_us: u64) {
        let Some(index) = self.clients[at].as_ref().map(|c| c.pool) else { return };
        self.shard.error(index as u16, fault.sqlstate);
        let detail = format!("The client waited {} ms for a server.", waited_us / 1000);
        let reply = error(fault.sqlstate(), &fault.message);
        self.refuse(at, &ErrorReply { detail: Some(&detail), hint: Some(fault.hint()), ..reply });
    }

    /// A queued client gets an error and stays connected.
    pub(super) fn refuse(&mut self, at: usize, reply: &ErrorReply<'_>) {
        let Some(client) = self.clients[at].as_mut() else { return };
        client.phase = Phase::Idle;
        craft::error(&mut client.out, reply);
        let taken = client.session.refuse(&client.held, &mut client.out);
        client.held.drain(..taken);
        client.unread = true;
        self.flush_client(at);
        self.todo.push_back(at);
    }

    fn check_server(&mut self, at: usize) {
        let Some(server) = self.servers[at].as_mut() else { return };
        if server.failed {
            server.failed = false;
            self.read_server(at, true);
            return;
        }
        if self.check_end(at) {
            return;
        }
        let (Some(server), now_us) = (self.servers[at].as_mut(), self.now_us) else { return };
        let Some(pool) = self.pools[server.pool].as_ref() else { return };
        if server.fenced {
            if std::sync::Arc::strong_count(&server.guard) == 1 {
                self.hand_on(at);
            }
            return;
        }
        let Some(client) = server.client else { return };
        let query_us = micros(pool.settings.query_timeout);
        let idle_us = micros(pool.settings.idle_in_transaction_timeout);
        let running = server.session.running();
        if running.is_none_or(|(_, since_us, _)| server.cancelled_us.is_some_and(|at_us| since_us > at_us)) {
            // The one that was cancelled has ended.
            server.cancelled_us = None;
        }
        if let Some((_, since_us, exempt)) = running
            && query_us > 0
            && !exempt
            && server.cancelled_us.is_none()
            && now_us.saturating_sub(since_us) >= query_us
        {
            server.cancelled_us = Some(now_us);
            let limit_ms = query_us / 1000;
            server.session.cancelled_by =
                Some(format!("canceling statement due to query_timeout ({limit_ms} ms)"));
            cancel::send(
                pool.settings.server.clone(),
                server.key.clone(),
                cancel::Guard::new(&server.guard, &self.waker),
            );
        }
        // PostgreSQL heeds no cancel while it waits for its answer to be taken.
        if server.unread
            && server.cancelled_us.is_some_and(|since| now_us.saturating_sub(since) >= DEAF_LIMIT_US)
        {
            self.unlink(client, at, Some(stats::Outcome::Abandoned));
            self.close_server(at, CloseReason::Abandoned);
            return self.expel(client, "57014", "the client does not read its answer");
        }
        if idle_us > 0 && server.idle_since_us.is_some_and(|since| now_us.saturating_sub(since) >= idle_us) {
            self.unlink(client, at, Some(stats::Outcome::Abandoned));
            self.close_server(at, CloseReason::Abandoned);
            self.expel(client, "25P03", "terminating connection due to idle_in_transaction_timeout");
        }
    }
}
