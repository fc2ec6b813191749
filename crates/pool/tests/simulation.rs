//! Random lives of a pool, from a seed that is printed. Set POOLWRIGHT_SEED to repeat one.
#![allow(clippy::unwrap_used, missing_docs, clippy::print_stdout, clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pool::{Acquired, ClientId, Limits, Pool, Released, ServerId, Swept, Ticket};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// What the caller knows, kept apart from the pool's own account.
struct World {
    pool: Pool,
    now_us: u64,
    waiting: VecDeque<(Ticket, ClientId)>,
    active: BTreeMap<ServerId, ClientId>,
    idle: BTreeSet<ServerId>,
    opening: BTreeSet<ServerId>,
    closing: BTreeSet<ServerId>,
    max: u32,
    highest: u32,
    paused: bool,
    next_client: u64,
}

impl World {
    fn new(limits: Limits) -> Self {
        Self {
            max: limits.max,
            highest: limits.max,
            pool: Pool::new(limits),
            now_us: 0,
            waiting: VecDeque::new(),
            active: BTreeMap::new(),
            idle: BTreeSet::new(),
            opening: BTreeSet::new(),
            closing: BTreeSet::new(),
            paused: false,
            next_client: 0,
        }
    }

    fn open(&mut self, server: ServerId) {
        let known = self.active.contains_key(&server)
            || self.idle.contains(&server)
            || self.closing.contains(&server)
            || !self.opening.insert(server);
        assert!(!known, "slot {server:?} is in use already");
        assert!(self.used() <= self.max, "opened over the limit");
    }

    fn used(&self) -> u32 {
        (self.active.len() + self.idle.len() + self.opening.len() + self.closing.len()) as u32
    }

    fn came_free(&mut self, server: ServerId, released: Released) {
        match released {
            Released::Idle => assert!(self.idle.insert(server)),
            Released::Close(_) => assert!(self.closing.insert(server)),
            Released::Next { client, ticket, .. } => self.granted(server, client, ticket),
        }
    }

    fn granted(&mut self, server: ServerId, client: ClientId, ticket: Ticket) {
        assert_eq!(self.waiting.pop_front(), Some((ticket, client)), "not first in, first out");
        assert!(self.active.insert(server, client).is_none());
    }

    fn swept(&mut self, swept: Swept) {
        for (server, client, ticket, _) in swept.granted {
            assert!(self.idle.remove(&server));
            self.granted(server, client, ticket);
        }
        for (client, ticket, _) in swept.timed_out {
            assert_eq!(self.waiting.pop_front(), Some((ticket, client)), "the oldest times out first");
        }
        for (server, _) in swept.close {
            assert!(self.idle.remove(&server));
            self.closing.insert(server);
        }
        swept.open.into_iter().for_each(|server| self.open(server));
    }

    fn step(&mut self, random: &mut Random) {
        self.now_us += random.next() % 2_000;
        let now_us = self.now_us;
        match random.below(16) {
            0..=4 => {
                let client = ClientId(self.next_client);
                self.next_client += 1;
                match self.pool.acquire(client, now_us) {
                    Acquired::Server(server) => {
                        assert!(self.waiting.is_empty() && !self.paused, "jumped the queue");
                        assert!(self.idle.remove(&server));
                        self.active.insert(server, client);
                    }
                    Acquired::Queued { ticket, open } => {
                        self.waiting.push_back((ticket, client));
                        open.into_iter().for_each(|server| self.open(server));
                    }
                }
            }
            5..=8 => {
                if let Some(server) = pick(&self.active.keys().copied().collect(), random) {
                    self.active.remove(&server);
                    let released = self.pool.release(server, now_us);
                    self.came_free(server, released);
                }
            }
            9 | 10 => {
                if let Some(server) = pick(&self.opening, random) {
                    self.opening.remove(&server);
                    let released = self.pool.opened(server, now_us);
                    self.came_free(server, released);
                }
            }
            11 => {
                if let Some(server) = pick(&self.opening, random) {
                    self.opening.remove(&server);
                    let open = self.pool.open_failed(server, now_us);
                    open.into_iter().for_each(|server| self.open(server));
                }
            }
            12 => {
                let held: BTreeSet<ServerId> = self.active.keys().chain(&self.idle).copied().collect();
                if let Some(server) = pick(&held, random) {
                    self.active.remove(&server);
                    self.idle.remove(&server);
                    self.closing.insert(server);
                    self.pool.close(server);
                }
            }
            13 => {
                if let Some(server) = pick(&self.closing, random) {
                    self.closing.remove(&server);
                    let open = self.pool.closed(server, now_us);
                    open.into_iter().for_each(|server| self.open(server));
                }
            }
            14 => self.leave(random),
            _ => self.administrate(random),
        }
        self.check();
    }

    fn leave(&mut self, random: &mut Random) {
        if self.waiting.is_empty() {
            return;
        }
        let (ticket, _) = self.waiting.remove(random.below(self.waiting.len())).unwrap();
        assert!(self.pool.cancel(ticket), "lost ticket");
        assert!(!self.pool.cancel(ticket), "a ticket left twice");
    }

    fn administrate(&mut self, random: &mut Random) {
        let mut swept = Swept::default();
        match random.below(6) {
            0 => {
                self.max = 1 + random.below(8) as u32;
                let limits = Limits { max: self.max, ..self.pool.limits().clone() };
                self.pool.set_limits(limits, self.now_us, &mut swept);
            }
            1 => {
                self.pool.pause();
                self.paused = true;
            }
            2 => {
                self.paused = false;
                self.pool.resume(self.now_us, &mut swept);
            }
            _ => self.pool.sweep(self.now_us, 7, &mut swept),
        }
        self.swept(swept);
    }

    fn check(&mut self) {
        let counts = self.pool.counts();
        assert_eq!(counts.active as usize, self.active.len());
        assert_eq!(counts.idle as usize, self.idle.len());
        assert_eq!(counts.opening as usize, self.opening.len());
        assert_eq!(counts.closing as usize, self.closing.len());
        assert_eq!(counts.waiting as usize, self.waiting.len());
        assert!(self.paused || self.idle.is_empty() || self.waiting.is_empty(), "idle while somebody waits");
        self.highest = if self.used() <= self.max { self.max } else { self.highest.max(self.max) };
        assert!(self.used() <= self.highest, "over the limit");
        assert!(self.pool.exhaustion().total_us <= self.now_us);
    }
}

fn pick(from: &BTreeSet<ServerId>, random: &mut Random) -> Option<ServerId> {
    from.iter().nth(random.below(from.len())).copied()
}

#[test]
fn keeps_its_promises_through_random_lives() {
    let given = std::env::var("POOLWRIGHT_SEED").ok().and_then(|seed| seed.parse().ok());
    let start: u64 = given.unwrap_or(0x5eed_0000);
    for seed in start..start + if given.is_some() { 1 } else { 200 } {
        println!("POOLWRIGHT_SEED={seed}");
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let limits = Limits {
            max: 1 + random.below(6) as u32,
            min: random.below(3) as u32,
            idle_timeout_us: 20_000,
            acquire_timeout_us: 50_000,
            lifetime_us: 300_000,
        };
        let mut world = World::new(limits);
        for _ in 0..2_000 {
            world.step(&mut random);
        }
        drain(&mut world);
    }
}

/// When all comes back and opens, nobody is left waiting.
fn drain(world: &mut World) {
    let mut swept = Swept::default();
    world.paused = false;
    world.pool.resume(world.now_us, &mut swept);
    world.swept(swept);
    for _ in 0..10_000 {
        if let Some(server) = world.closing.pop_first() {
            let open = world.pool.closed(server, world.now_us);
            open.into_iter().for_each(|server| world.open(server));
        } else if let Some(server) = world.opening.pop_first() {
            let released = world.pool.opened(server, world.now_us);
            world.came_free(server, released);
        } else if let Some((server, _)) = world.active.pop_first() {
            let released = world.pool.release(server, world.now_us);
            world.came_free(server, released);
        } else {
            break;
        }
        world.check();
    }
    assert!(world.waiting.is_empty(), "somebody was forgotten");
}

#[test]
fn counts_exhaustion_once_per_span() {
    let mut pool = Pool::new(Limits { max: 1, min: 0, ..Limits::default() });
    let Acquired::Queued { open: Some(server), .. } = pool.acquire(ClientId(1), 0) else { panic!() };
    assert_eq!(pool.exhaustion().events, 0, "one is on its way");
    assert!(matches!(pool.opened(server, 10), Released::Next { client: ClientId(1), waited_us: 10, .. }));
    pool.acquire(ClientId(2), 100);
    pool.acquire(ClientId(3), 150);
    assert!(matches!(pool.release(server, 200), Released::Next { client: ClientId(2), .. }));
    assert_eq!(pool.exhaustion().events, 1);
    assert!(matches!(pool.release(server, 300), Released::Next { client: ClientId(3), .. }));
    assert_eq!(pool.release(server, 400), Released::Idle);
    let exhaustion = pool.exhaustion();
    assert_eq!((exhaustion.events, exhaustion.total_us), (1, 200));
}

#[test]
fn keeps_min_warm_and_lets_the_rest_go() {
    let mut pool = Pool::new(Limits { max: 4, min: 2, idle_timeout_us: 100, ..Limits::default() });
    let mut swept = Swept::default();
    pool.sweep(0, 0, &mut swept);
    assert_eq!(swept.open.len(), 2);
    for server in swept.open.clone() {
        assert_eq!(pool.opened(server, 0), Released::Idle);
    }
    swept.clear();
    pool.sweep(1_000, 0, &mut swept);
    assert!(swept.close.is_empty() && swept.open.is_empty());
}
