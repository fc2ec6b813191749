//! What one worker holds: its pools with their servers, and the clients of these pools.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mio::{Registry, Token};
use pool::{ClientId, ServerId, Ticket};

use super::{inspect::Judge, reach::Reach, rewrites::Rewrites, socket::Stream};
use crate::handover::{BackendKey, CancelKey, ClientPermit, Opener, PoolIndex};
use crate::settings::PoolSettings;

/// Held bytes of a waiting client above which it is read no further.
pub(super) const HELD_BYTES: usize = 64 << 10;
/// Unsent bytes to a peer above which the other side is read no further.
pub(super) const UNSENT_BYTES: usize = 256 << 10;
/// Replies owed by a server above which its client is read no further.
pub(super) const OWED_MAX: usize = 8 << 10;
/// One read.
pub(super) const READ_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No server, none wanted.
    Idle,
    /// In the queue.
    Waiting(Ticket),
    /// Has this server (its place in `State::servers`).
    Linked(usize),
}

pub(super) struct Client {
    pub socket: Option<Stream>,
    pub pool: usize,
    pub session: relay::Client,
    pub held: Vec<u8>,
    pub out: Vec<u8>,
    pub writing: bool,
    /// Bytes may be waiting in its socket that were left there.
    pub unread: bool,
    /// The end of what it sends has been announced.
    pub ended: bool,
    /// It is gone or going: what it sent whole completes.
    pub leaving: bool,
    /// A transaction was open when it left.
    pub abandoned: bool,
    /// When the present transaction began.
    pub began_us: u64,
    /// It keeps its server, which is at rest.
    pub resting: bool,
    pub phase: Phase,
    pub session_mode: bool,
    pub pin_counted: bool,
    pub cancel: CancelKey,
    pub about: About,
    pub trail: stats::Trail,
    pub arrived_us: u64,
    pub waited_us: u64,
    pub linked_us: u64,
    pub wait_counted: bool,
    pub _permit: ClientPermit,
}

/// What a server connection is there for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// Clients, or waits for one.
    Serving,
    /// Nobody: its session is being reset, since then.
    Resetting(u64),
    /// Nobody: it was told to end, and why, and when. Counts towards `max` until it is known to be gone.
    Closing(pool::CloseReason, u64),
}

/// What only the console asks for.
pub(super) struct About {
    pub user: String,
    pub peer: String,
    pub application: String,
    pub since_us: u64,
}

pub(super) struct Server {
    pub socket: Stream,
    pub pool: usize,
    pub id: ServerId,
    pub session: relay::Server,
    pub held: Vec<u8>,
    pub out: Vec<u8>,
    pub writing: bool,
    pub unread: bool,
    pub client: Option<usize>,
    pub key: BackendKey,
    /// Cancels aimed at it hold a copy; true when the end of one was not seen, so that it may still come.
    pub guard: Arc<AtomicBool>,
    /// Waits for the end of a cancel before it is lent again.
    pub fenced: bool,
    pub idle_since_us: Option<u64>,
    pub idle_us: u64,
    pub failed: bool,
    /// When a limit of ours cancelled the statement under way.
    pub cancelled_us: Option<u64>,
    pub course: Course,
}

pub(super) struct PoolState {
    pub index: PoolIndex,
    pub settings: PoolSettings,
    pub pool: pool::Pool,
    pub slots: Vec<Option<usize>>,
    pub statements: relay::Statements,
    pub rewrites: Rewrites,
    pub retry: Vec<(u64, ServerId)>,
    pub reach: Reach,
    pub acquires: [u64; 4],
    pub pins: std::collections::BTreeMap<String, u64>,
}

/// Places of `PoolState::acquires`.
pub(super) const ACQUIRES: [&str; 4] = ["immediate", "waited", "timeout", "cancelled"];

pub(super) struct State {
    pub pools: Vec<Option<PoolState>>,
    pub clients: Vec<Option<Box<Client>>>,
    pub free_clients: Vec<usize>,
    pub servers: Vec<Option<Box<Server>>>,
    pub free_servers: Vec<usize>,
    /// Places of clients by what they cancel with.
    pub cancels: HashMap<CancelKey, usize>,
    pub todo: VecDeque<usize>,
    pub scratch: Vec<u8>,
    pub events: Vec<relay::Executed>,
    pub swept: pool::Swept,
    pub shard: stats::Shard,
    pub judge: Judge,
    pub registry: Registry,
    pub opener: Arc<dyn Opener>,
    pub waker: Arc<mio::Waker>,
    pub now_us: u64,
    pub client_number: u64,
    pub draining: bool,
    pub stopped: bool,
}

pub(super) fn client_token(at: usize) -> Token {
    Token(at * 2)
}

pub(super) fn server_token(at: usize) -> Token {
    Token(at * 2 + 1)
}

pub(super) fn place<T>(list: &mut Vec<Option<T>>, free: &mut Vec<usize>) -> usize {
    free.pop().unwrap_or_else(|| {
        list.push(None);
        list.len() - 1
    })
}

impl State {
    pub(super) fn client_id(at: usize) -> ClientId {
        ClientId(at as u64)
    }

    pub(super) fn flush_client(&mut self, at: usize) {
        let Some(client) = self.clients[at].as_mut() else { return };
        client.session.flush = false;
        let Some(socket) = client.socket.as_mut() else {
            client.out.clear();
            return;
        };
        if client.out.is_empty() && !client.writing {
            return;
        }
        let bytes = client.out.len();
        match socket.flush(&mut client.out) {
            Ok(left) => {
                let written = (bytes - client.out.len()) as u64;
                self.shard.client_bytes(client.pool as u16, 0, written);
                if left != client.writing {
                    client.writing = left;
                    if socket.watch_writing(&self.registry, client_token(at), left).is_err() {
                        self.client_left(at);
                    }
                }
            }
            Err(_) => self.client_left(at),
        }
    }

    pub(super) fn flush_server(&mut self, at: usize) {
        let Some(server) = self.servers[at].as_mut() else { return };
        if server.out.is_empty() && !server.writing {
            return;
        }
        let bytes = server.out.len();
        match server.socket.flush(&mut server.out) {
            Ok(left) => {
                let written = (bytes - server.out.len()) as u64;
                self.shard.server_bytes(server.pool as u16, 0, written);
                if left != server.writing {
                    server.writing = left;
                    server.failed |=
                        server.socket.watch_writing(&self.registry, server_token(at), left).is_err();
                }
                if !left && matches!(server.course, Course::Closing(..)) {
                    server.socket.end_writing();
                }
            }
            // What it still says (why it closes) is read first.
            Err(_) => server.out.clear(),
        }
    }

    pub(super) fn open(&mut self, pool: usize, slot: Option<ServerId>) {
        if let (Some(slot), false, Some(state)) = (slot, self.stopped, self.pools[pool].as_mut())
            && state.reach.admit(slot)
        {
            self.opener.open(PoolIndex(pool as u16), slot);
        }
    }

    /// Forgets a client for good.
    pub(super) fn remove_client(&mut self, at: usize) {
        let Some(mut client) = self.clients[at].take() else { return };
        if let Some(socket) = client.socket.as_mut() {
            socket.deregister(&self.registry);
        }
        if let (Phase::Waiting(ticket), Some(pool)) = (client.phase, self.pools[client.pool].as_mut()) {
            pool.pool.cancel(ticket);
            pool.acquires[3] += 1;
        }
        self.cancels.remove(&client.cancel);
        self.free_clients.push(at);
        if let Some(pool) = self.pools[client.pool].as_mut() {
            drop(client);
            pool.statements.trim(2 * pool.settings.statements_per_server.max(1_000));
        }
    }
}
