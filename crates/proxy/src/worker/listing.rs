//! Clients and servers one by one, for the console.

use super::{
    Workers,
    state::{Course, Phase, State},
};
use crate::handover::PoolIndex;

/// One client.
#[derive(Debug, Clone)]
pub(crate) struct ClientRow {
    /// Unique in this process.
    pub id: i32,
    pub pool: usize,
    pub user: String,
    pub peer: String,
    pub application: String,
    /// `active`, `waiting`, `idle` or `idle_in_transaction`.
    pub state: &'static str,
    /// Since it was handed over, µs.
    pub connected_us: u64,
    /// How long it waits now, µs.
    pub waiting_us: u64,
    /// PostgreSQL's process id of the server it has.
    pub remote_pid: Option<i32>,
    /// Why it keeps its server.
    pub pinned: Option<&'static str>,
}

/// One server.
#[derive(Debug, Clone)]
pub(crate) struct ServerRow {
    pub pool: usize,
    /// `active`, `idle`, `idle_in_transaction`, `resetting` or `closing`.
    pub state: &'static str,
    /// PostgreSQL's process id.
    pub remote_pid: i32,
    /// How long it has been lent, µs.
    pub held_us: Option<u64>,
    /// The client that has it.
    pub client: Option<i32>,
    /// Fingerprint of the statement that runs.
    pub fingerprint: Option<String>,
}

impl Workers {
    /// All clients.
    pub(crate) fn client_rows(&self) -> Vec<ClientRow> {
        self.workers.iter().flat_map(|w| w.state.lock().client_rows(self.now_us())).collect()
    }

    /// All servers.
    pub(crate) fn server_rows(&self) -> Vec<ServerRow> {
        self.workers.iter().flat_map(|w| w.state.lock().server_rows(self.now_us())).collect()
    }

    /// Servers of a pool that are lent, and whether it is paused.
    pub(crate) fn lent(&self, pool: PoolIndex) -> (u32, bool) {
        let state = self.worker(pool).state.lock();
        let own = state.pools.get(pool.index()).and_then(Option::as_ref);
        own.map_or((0, false), |own| (own.pool.counts().active, own.pool.is_paused()))
    }

    /// Closes the connection of the client with this id; false when there is none.
    pub(crate) fn kill_client(&self, id: i32) -> bool {
        self.workers.iter().any(|worker| {
            let mut state = worker.state.lock();
            state.now_us = self.now_us();
            let found = state.clients.iter().position(|c| c.as_ref().is_some_and(|c| c.cancel.pid == id));
            if let Some(at) = found {
                state.expel(at, "57P01", "the connection was closed by an administrator of Poolwright");
                state.run();
            }
            found.is_some()
        })
    }
}

impl State {
    fn client_rows(&self, now_us: u64) -> Vec<ClientRow> {
        let row = |client: &super::state::Client| {
            let server = match client.phase {
                Phase::Linked(at) => self.servers[at].as_ref(),
                _ => None,
            };
            let state = match client.phase {
                Phase::Idle => "idle",
                Phase::Waiting(_) => "waiting",
                Phase::Linked(_) if server.is_some_and(|s| s.session.idle_in_transaction()) => {
                    "idle_in_transaction"
                }
                Phase::Linked(_) => "active",
            };
            ClientRow {
                id: client.cancel.pid,
                pool: client.pool,
                user: client.about.user.clone(),
                peer: client.about.peer.clone(),
                application: client.about.application.clone(),
                state,
                connected_us: now_us.saturating_sub(client.about.since_us),
                waiting_us: if state == "waiting" { now_us.saturating_sub(client.arrived_us) } else { 0 },
                remote_pid: server.map(|server| server.key.pid),
                pinned: client.session.pin().map(relay::PinReason::as_str),
            }
        };
        self.clients.iter().flatten().map(|client| row(client)).collect()
    }

    fn server_rows(&self, now_us: u64) -> Vec<ServerRow> {
        let row = |server: &super::state::Server| {
            let pool = self.pools[server.pool].as_ref();
            let held = pool.and_then(|pool| pool.pool.held_since(server.id));
            let state = match (server.course, held) {
                (Course::Closing(..), _) => "closing",
                (Course::Resetting(_), _) => "resetting",
                (Course::Serving, Some(_)) if server.session.idle_in_transaction() => "idle_in_transaction",
                (Course::Serving, Some(_)) => "active",
                (Course::Serving, None) => "idle",
            };
            ServerRow {
                pool: server.pool,
                state,
                remote_pid: server.key.pid,
                held_us: held.map(|since_us| now_us.saturating_sub(since_us)),
                client: server.client.and_then(|at| self.clients[at].as_ref()).map(|c| c.cancel.pid),
                fingerprint: server.session.running().map(|(slot, ..)| self.judge.name(slot)),
            }
        };
        self.servers.iter().flatten().map(|server| row(server)).collect()
    }
}
