//! The workers: threads with an edge-triggered event loop each, which relay between clients and servers.
//!
//! A pool with all its clients and servers lives on one worker, so the queue is exactly first in, first out and
//! the limit global without a lock between workers. A worker's state has one lock; its loop holds it while it
//! works off a batch of events, others (a new client, a new server, a cancel, a snapshot) between batches.

mod cancel;
mod clockwork;
mod inspect;
mod observe;
mod reach;
mod relaying;
mod rewrites;
mod socket;
mod state;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fingerprint::Catalog;
use mio::{Events, Poll, Token, Waker};
use parking_lot::Mutex;

use crate::handover::{CancelKey, CancelTarget, ConnectFault, NewClient, NewServer, Opener, PoolIndex};
use crate::settings::Settings;
use clockwork::error;
use inspect::Judge;
use rewrites::Rewrites;
use socket::Stream;
use state::{Client, Phase, PoolState, READ_BYTES, Server, State, client_token, place, server_token};

/// How often time-outs are looked at.
const TICK: Duration = Duration::from_millis(100);
const WAKE: Token = Token(usize::MAX);
/// Fingerprints told apart; the rest are `other`.
const FINGERPRINTS_MAX: u32 = 5_000;

/// What the workers start from.
pub struct Shared {
    /// Limits and pools.
    pub settings: Arc<Settings>,
    /// Opens servers.
    pub opener: Arc<dyn Opener>,
}

struct Worker {
    state: Mutex<State>,
    waker: Arc<Waker>,
}

/// The worker threads.
pub struct Workers {
    workers: Vec<Arc<Worker>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    registry: stats::Registry,
    catalog: Arc<Mutex<Catalog>>,
    started: Instant,
}

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// When a thread or an event queue cannot be had.
    pub fn start(shared: Arc<Shared>) -> io::Result<Arc<Self>> {
        let settings = &shared.settings;
        let count = settings.workers.clamp(1, settings.pools.len().max(1));
        let config = stats::Config {
            workers: count,
            pools: settings.pools.len().max(1),
            fingerprints_max: FINGERPRINTS_MAX,
            extra_bounds_us: Vec::new(),
        };
        let registry = stats::Registry::new(config);
        let catalog = Arc::new(Mutex::new(Catalog::new(FINGERPRINTS_MAX)));
        let started = Instant::now();
        let (mut workers, mut threads) = (Vec::new(), Vec::new());
        for number in 0..count {
            let poll = Poll::new()?;
            let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
            let state = State {
                pools: pools(settings, number, count),
                clients: Vec::new(),
                free_clients: Vec::new(),
                servers: Vec::new(),
                free_servers: Vec::new(),
                todo: VecDeque::new(),
                scratch: vec![0; READ_BYTES],
                events: Vec::new(),
                swept: pool::Swept::default(),
                shard: registry.shard(number),
                judge: Judge::new(Arc::clone(&catalog)),
                registry: poll.registry().try_clone()?,
                opener: Arc::clone(&shared.opener),
                waker: Arc::clone(&waker),
                now_us: 1,
                client_number: 0,
                draining: false,
                stopped: false,
            };
            let worker = Arc::new(Worker { state: Mutex::new(state), waker });
            let own = Arc::clone(&worker);
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || work(&own, poll, started))?;
            workers.push(worker);
            threads.push(thread);
        }
        Ok(Arc::new(Self { workers, threads: Mutex::new(threads), registry, catalog, started }))
    }

    fn worker(&self, pool: PoolIndex) -> &Worker {
        &self.workers[pool.index() % self.workers.len()]
    }

    fn now_us(&self) -> u64 {
        elapsed_us(self.started)
    }

    /// Takes a client over.
    pub fn add_client(&self, new: NewClient) {
        let worker = self.worker(new.pool);
        let mut state = worker.state.lock();
        state.now_us = self.now_us();
        if let Err(error) = state.add_client(new) {
            tracing::warn!(%error, "a client could not be taken over");
        }
        state.run();
    }

    /// The answer to `Opener::open`.
    pub fn server_opened(
        &self,
        pool: PoolIndex,
        slot: pool::ServerId,
        result: Result<NewServer, ConnectFault>,
    ) {
        let mut state = self.worker(pool).state.lock();
        state.now_us = self.now_us();
        state.server_opened(pool.index(), slot, result);
        state.run();
    }

    /// Where a cancel request goes.
    pub fn cancel(&self, key: CancelKey) -> CancelTarget {
        for worker in &self.workers {
            let mut state = worker.state.lock();
            state.now_us = self.now_us();
            let found = state.cancel(key);
            state.run();
            if let Some(target) = found {
                return target;
            }
        }
        CancelTarget::Nothing
    }

    /// New limits, time-outs and rewrites; the pools are the same ones in the same order.
    pub fn apply(&self, settings: Arc<Settings>) {
        for (index, new) in settings.pools.iter().enumerate() {
            let mut state = self.workers[index % self.workers.len()].state.lock();
            state.now_us = self.now_us();
            let now_us = state.now_us;
            let mut swept = pool::Swept::default();
            if let Some(pool) = state.pools.get_mut(index).and_then(Option::as_mut) {
                pool.settings = new.clone();
                pool.rewrites.apply(&new.rewrites);
                pool.statements.forget_substitutes();
                pool.pool.set_limits(new.limits(), now_us, &mut swept);
            }
            state.act(index, &mut swept);
            state.run();
        }
    }

    /// Takes a live rewrite out of use at once, in `pool` or in all pools; false when none of this name was in force.
    pub fn revoke(&self, pool: Option<PoolIndex>, id: &str) -> bool {
        let mut found = false;
        for worker in &self.workers {
            let mut state = worker.state.lock();
            for own in state.pools.iter_mut().flatten() {
                if pool.is_none_or(|pool| pool == own.index) {
                    found |= own.rewrites.revoke(id);
                }
            }
        }
        found
    }

    /// PAUSE (true) or RESUME (false) of the console.
    pub fn pause(&self, index: PoolIndex, paused: bool) {
        let mut state = self.worker(index).state.lock();
        state.now_us = self.now_us();
        let now_us = state.now_us;
        let mut swept = pool::Swept::default();
        if let Some(pool) = state.pools.get_mut(index.index()).and_then(Option::as_mut) {
            if paused {
                pool.pool.pause();
            } else {
                pool.pool.resume(now_us, &mut swept);
            }
        }
        state.act(index.index(), &mut swept);
        state.run();
    }

    /// Idle clients are closed with 57P01, the others when their transaction ends.
    pub fn drain(&self) {
        for worker in &self.workers {
            let mut state = worker.state.lock();
            state.draining = true;
            state.now_us = self.now_us();
            state.drain();
        }
    }

    /// Clients still connected.
    pub fn clients(&self) -> u32 {
        self.workers.iter().map(|w| w.state.lock().clients.iter().flatten().count() as u32).sum()
    }

    /// Closes everything and ends the threads.
    pub fn stop(&self) {
        for worker in &self.workers {
            worker.state.lock().stopped = true;
            // The loop looks every 100 ms even without.
            let _ = worker.waker.wake();
        }
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}

fn elapsed_us(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
}

fn pools(settings: &Settings, number: usize, count: usize) -> Vec<Option<PoolState>> {
    let own = |(index, settings): (usize, &crate::settings::PoolSettings)| {
        (index % count == number).then(|| PoolState {
            index: PoolIndex(index as u16),
            settings: settings.clone(),
            pool: pool::Pool::new(settings.limits()),
            slots: Vec::new(),
            statements: relay::Statements::default(),
            rewrites: Rewrites::new(&settings.rewrites),
            retry: Vec::new(),
            reach: reach::Reach::default(),
            acquires: [0; 4],
            pinned: std::collections::BTreeMap::new(),
        })
    };
    settings.pools.iter().enumerate().map(own).collect()
}

fn work(worker: &Worker, mut poll: Poll, started: Instant) {
    let mut events = Events::with_capacity(1024);
    let mut next_tick_us = 0;
    loop {
        if let Err(error) = poll.poll(&mut events, Some(TICK))
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "the event queue failed");
            return;
        }
        let mut state = worker.state.lock();
        if state.stopped {
            state.clients.clear();
            state.servers.clear();
            return;
        }
        state.now_us = elapsed_us(started);
        for event in &events {
            if event.token() == WAKE {
                next_tick_us = 0;
                continue;
            }
            let (at, closing) = (event.token().0 / 2, event.is_read_closed() || event.is_error());
            state.now_us = elapsed_us(started);
            if event.token().0 % 2 == 0 {
                state.client_event(at, event.is_readable() || closing, event.is_writable(), closing);
            } else {
                state.server_event(at, event.is_readable() || closing, event.is_writable(), closing);
            }
            state.run();
        }
        if state.now_us >= next_tick_us {
            next_tick_us = state.now_us + 100_000;
            state.tick();
            state.run();
            if state.draining {
                state.drain();
            }
        }
    }
}

impl State {
    fn client_event(&mut self, at: usize, readable: bool, writable: bool, closing: bool) {
        if writable {
            self.flush_client(at);
            if let Some(Phase::Linked(server)) =
                self.clients.get(at).and_then(|c| c.as_ref()).map(|c| c.phase)
                && self.servers[server].as_ref().is_some_and(|s| s.unread)
            {
                self.read_server(server, false);
            }
        }
        if readable && self.clients.get(at).is_some_and(Option::is_some) {
            self.read_client(at, closing);
        }
    }

    fn server_event(&mut self, at: usize, readable: bool, writable: bool, closing: bool) {
        if writable {
            self.flush_server(at);
            let client = self.servers.get(at).and_then(|s| s.as_ref()).and_then(|s| s.client);
            if let Some(client) = client
                && self.clients[client].as_ref().is_some_and(|c| c.unread)
            {
                self.read_client(client, false);
            }
        }
        if readable && self.servers.get(at).is_some_and(Option::is_some) {
            self.read_server(at, closing);
        }
    }

    fn add_client(&mut self, new: NewClient) -> io::Result<()> {
        let at = place(&mut self.clients, &mut self.free_clients);
        let mut socket = Stream::new(new.socket)?;
        socket.register(&self.registry, client_token(at))?;
        self.client_number += 1;
        let parameters = new.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let session = relay::Client::new(self.client_number & 0xffff_ffff, parameters);
        self.clients[at] = Some(Box::new(Client {
            socket: Some(socket),
            pool: new.pool.index(),
            session,
            held: new.received,
            out: Vec::new(),
            writing: false,
            unread: false,
            leaving: false,
            rolled_back: false,
            phase: Phase::Idle,
            session_mode: new.session_mode,
            pin_counted: false,
            cancel: new.cancel,
            trail: stats::Trail::new(new.pool.0),
            arrived_us: 0,
            waited_us: 0,
            linked_us: 0,
            wait_counted: false,
            _permit: new.permit,
        }));
        self.todo.push_back(at);
        Ok(())
    }

    fn server_opened(&mut self, index: usize, id: pool::ServerId, result: Result<NewServer, ConnectFault>) {
        let now_us = self.now_us;
        let Some(pool) = self.pools.get_mut(index).and_then(Option::as_mut) else { return };
        let new = match result {
            Ok(new) => new,
            Err(fault) => return self.not_opened(index, id, fault),
        };
        let at = place(&mut self.servers, &mut self.free_servers);
        let registered = Stream::new(new.socket).and_then(|mut socket| {
            socket.register(&self.registry, server_token(at))?;
            Ok(socket)
        });
        let socket = match registered {
            Ok(socket) => socket,
            Err(error) => {
                self.free_servers.push(at);
                let fault = ConnectFault::new(b"58000", format!("a server could not be registered: {error}"));
                return self.not_opened(index, id, fault);
            }
        };
        self.shard.server_created(index as u16, new.connect_us);
        let slot = id.0 as usize;
        if pool.slots.len() <= slot {
            pool.slots.resize(slot + 1, None);
        }
        pool.slots[slot] = Some(at);
        let reported = new.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        self.servers[at] = Some(Box::new(Server {
            socket,
            pool: index,
            id,
            session: relay::Server::new(reported),
            held: Vec::new(),
            out: Vec::new(),
            writing: false,
            unread: false,
            client: None,
            key: new.key,
            guard: Arc::new(()),
            fenced: false,
            idle_since_us: None,
            idle_us: 0,
            failed: false,
            cancelled: false,
        }));
        let reached = pool.reach.opened(now_us);
        let released = pool.pool.opened(id, now_us);
        self.released(at, released);
        self.reached(index, reached);
        if !new.received.is_empty() {
            self.answer(at, &new.received);
        }
    }

    fn cancel(&mut self, key: CancelKey) -> Option<CancelTarget> {
        let at = self.clients.iter().position(|c| c.as_ref().is_some_and(|c| c.cancel == key))?;
        let client = self.clients[at].as_ref()?;
        let index = client.pool;
        match client.phase {
            Phase::Idle => Some(CancelTarget::Nothing),
            Phase::Waiting(ticket) => {
                if let Some(pool) = self.pools[index].as_mut() {
                    pool.pool.cancel(ticket);
                    pool.acquires[3] += 1;
                }
                self.refuse(at, &error("57014", "canceling statement due to user request"));
                Some(CancelTarget::Queued)
            }
            Phase::Linked(server) => {
                let server = self.servers[server].as_ref()?;
                let settings = Arc::new(self.pools[index].as_ref()?.settings.server.clone());
                let guard = Guard { mark: Some(Arc::clone(&server.guard)), waker: Arc::clone(&self.waker) };
                Some(CancelTarget::Server { settings, key: server.key.clone(), guard: Box::new(guard) })
            }
        }
    }

    fn drain(&mut self) {
        for at in 0..self.clients.len() {
            if self.clients[at].as_ref().is_some_and(|c| c.phase == Phase::Idle && c.held.is_empty()) {
                self.expel(at, "57P01", "Poolwright is shutting down");
            }
        }
        self.run();
    }
}

/// Keeps a server from being lent while a cancel is on its way; wakes the worker at the end.
struct Guard {
    mark: Option<Arc<()>>,
    waker: Arc<Waker>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.mark = None;
        // Without it the next tick finds the server.
        let _ = self.waker.wake();
    }
}
