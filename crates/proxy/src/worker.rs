//! The workers: threads with an edge-triggered event loop each, which relay between clients and servers.
//!
//! A pool with all its clients and servers lives on one worker, so the queue is exactly first in, first out and
//! the limit global without a lock between workers. A worker's state has one lock; its loop holds it while it
//! works off a batch of events, others (a new client, a new server, a cancel, a snapshot) between batches.

mod arriving;
mod cancel;
mod clockwork;
mod closing;
mod inspect;
mod leaving;
pub(crate) mod listing;
mod observe;
mod reach;
mod replies;
mod requests;
mod rewrites;
mod socket;
mod state;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fingerprint::Catalog;
use mio::{Events, Poll, Token, Waker};
use parking_lot::Mutex;

pub use cancel::Guard;

use crate::handover::{CancelKey, CancelTarget, ConnectFault, NewClient, NewServer, Opener, PoolIndex};
use crate::settings::Settings;
use inspect::Judge;
use rewrites::Rewrites;
use state::{PoolState, READ_BYTES, State};

/// How often time-outs are looked at.
const TICK: Duration = Duration::from_millis(100);
const WAKE: Token = Token(usize::MAX);
/// Fingerprints told apart; the rest are `other`.
const FINGERPRINTS_MAX: u32 = 5_000;

/// The default target of latency, 75 ms: histograms count exactly at it.
const TARGET_US: u64 = 75_000;

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
            extra_bounds_us: vec![TARGET_US],
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
                cancels: HashMap::new(),
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
            pins: std::collections::BTreeMap::new(),
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
            state.cancels.clear();
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
