//! Who gets which server, and when.
//!
//! A [`Pool`] owns no connection: it hands out slot numbers. The caller opens, closes and relays; it tells the
//! pool what happened and does what the pool answers. All times are µs of one monotonic clock.
//!
//! ```text
//!             acquire                       release
//!   client ───────────▶ idle stack ◀─────────────────── active
//!              │ none idle   ▲ opened           ▲
//!              ▼             │                  │ Released::Next
//!            queue ──▶ opening (slot) ──────────┘
//! ```
//!
//! Invariants: servers go to waiters in the order of their tickets; nobody waits while a server is idle, unless
//! the pool is paused; active, idle, opening and closing slots together never exceed `max`, except those left
//! over from before `max` was lowered, which go as they come back.

mod answers;
mod queue;
mod slots;

pub use answers::{Acquired, CloseReason, Released};
pub use queue::Ticket;
pub use slots::ServerId;

use queue::Queue;
use slots::{Slots, State};

/// Limits of a pool. Times are µs, and 0 switches one off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most servers.
    pub max: u32,
    /// Servers kept warm.
    pub min: u32,
    /// Idle servers above `min` go after this time.
    pub idle_timeout_us: u64,
    /// Longest wait for a server.
    pub acquire_timeout_us: u64,
    /// Greatest age of a server, less a jitter of up to a fifth.
    pub lifetime_us: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max: 15,
            min: 5,
            idle_timeout_us: 30_000_000,
            acquire_timeout_us: 5_000_000,
            lifetime_us: 3_600_000_000,
        }
    }
}

/// A client, as the caller numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// What a sweep asks the caller to do. The caller clears and reuses it.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// Waiters that left the queue: client, ticket, how long they waited in µs.
    pub timed_out: Vec<(ClientId, Ticket, u64)>,
    /// Idle servers to close; each is told to [`Pool::closed`] when it is gone.
    pub close: Vec<(ServerId, CloseReason)>,
    /// Slots in which to open a server.
    pub open: Vec<ServerId>,
    /// Idle servers given to waiters: server, client, ticket, waited µs. Only filled by [`Pool::resume`].
    pub granted: Vec<(ServerId, ClientId, Ticket, u64)>,
}

impl Swept {
    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.timed_out.clear();
        self.close.clear();
        self.open.clear();
        self.granted.clear();
    }
}

/// How many there are of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Servers lent to clients.
    pub active: u32,
    /// Servers at rest.
    pub idle: u32,
    /// Clients in the queue.
    pub waiting: u32,
    /// Servers being opened.
    pub opening: u32,
    /// Servers being closed.
    pub closing: u32,
    /// The limit.
    pub max: u32,
    /// The number kept warm.
    pub min: u32,
}

/// Spans in which somebody waited and no server was free or could be opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exhaustion {
    /// Spans begun.
    pub events: u64,
    /// Their length in µs; the present one counts up to the last call that was given a time.
    pub total_us: u64,
}

/// The servers of one database and user, and who waits for them.
#[derive(Debug)]
pub struct Pool {
    limits: Limits,
    slots: Slots,
    queue: Queue,
    paused: bool,
    exhaustion: Exhaustion,
    exhausted_since_us: Option<u64>,
    last_us: u64,
}

impl Pool {
    /// An empty pool. The first [`Self::sweep`] asks for `min` servers.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            slots: Slots::default(),
            queue: Queue::default(),
            paused: false,
            exhaustion: Exhaustion::default(),
            exhausted_since_us: None,
            last_us: 0,
        }
    }

    /// Asks for a server. Most recently used first, so that the surplus can age and go.
    pub fn acquire(&mut self, client: ClientId, now_us: u64) -> Acquired {
        if !self.paused
            && self.queue.is_empty()
            && let Some(server) = self.slots.last_idle()
        {
            self.slots.lend(server, now_us);
            self.note(now_us);
            return Acquired::Server(server);
        }
        let ticket = self.queue.push(client, now_us);
        let open = self.wanted().then(|| self.slots.open(now_us));
        self.note(now_us);
        Acquired::Queued { ticket, open }
    }

    /// A lent server is clean and free again.
    pub fn release(&mut self, server: ServerId, now_us: u64) -> Released {
        if !matches!(self.slots.state(server), Some(State::Active { .. })) {
            return Released::Idle;
        }
        self.settle(server, now_us)
    }

    /// The server in this slot is connected.
    pub fn opened(&mut self, server: ServerId, now_us: u64) -> Released {
        if !matches!(self.slots.state(server), Some(State::Opening)) {
            return Released::Idle;
        }
        self.slots.born(server, now_us);
        self.settle(server, now_us)
    }

    /// The slot's connection could not be made: the slot is free. Returns another slot to open when somebody
    /// still waits; the caller paces its attempts.
    pub fn open_failed(&mut self, server: ServerId, now_us: u64) -> Option<ServerId> {
        self.closed(server, now_us)
    }

    /// Takes a server out of use; it counts until [`Self::closed`].
    pub fn close(&mut self, server: ServerId) {
        self.slots.closing(server);
    }

    /// A server is known to be gone: its slot is free. Returns a slot to open when somebody waits who has no
    /// server coming.
    pub fn closed(&mut self, server: ServerId, now_us: u64) -> Option<ServerId> {
        self.slots.free(server);
        let open = self.wanted().then(|| self.slots.open(now_us));
        self.note(now_us);
        open
    }

    /// A waiter leaves the queue. False when the ticket was served or has left already.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let left = self.queue.remove(ticket);
        self.note(self.last_us);
        left
    }

    /// Empties the queue, for want of a server for good: client, ticket and how long each waited, oldest first.
    pub fn dismiss(&mut self, now_us: u64) -> Vec<(ClientId, Ticket, u64)> {
        let mut left = Vec::new();
        while let Some((ticket, client, waited_us)) = self.queue.pop(now_us) {
            left.push((client, ticket, waited_us));
        }
        self.note(now_us);
        left
    }

    /// Looks at the clock: waiters past the acquire time-out, idle servers past their time, servers missing
    /// for `min` or for waiters. `jitter` is any number, best
    /// the same at each call: it spreads the lifetimes of servers. Adds to `swept`.
    pub fn sweep(&mut self, now_us: u64, jitter: u64, swept: &mut Swept) {
        let timeout_us = self.limits.acquire_timeout_us;
        while timeout_us > 0 && !self.paused {
            let Some((ticket, client, waited_us)) = self.queue.front(now_us) else { break };
            if waited_us < timeout_us {
                break;
            }
            self.queue.remove(ticket);
            swept.timed_out.push((client, ticket, waited_us));
        }
        self.retire(now_us, jitter, swept);
        while self.slots.used() < self.limits.max
            && (self.wanted()
                || self.slots.used() - self.slots.closing_count() < self.limits.min && !self.paused)
        {
            swept.open.push(self.slots.open(now_us));
        }
        self.note(now_us);
    }

    /// Changes the limits. What is over the new `max` goes: idle servers now, lent ones when they come back.
    pub fn set_limits(&mut self, limits: Limits, now_us: u64, swept: &mut Swept) {
        self.limits = limits;
        self.sweep(now_us, 0, swept);
    }

    /// From now on nobody gets a server; those lent come back as ever.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Ends the pause: waiters get the idle servers (`swept.granted`), and new ones are opened for the rest.
    pub fn resume(&mut self, now_us: u64, swept: &mut Swept) {
        self.paused = false;
        while !self.queue.is_empty() {
            let Some(server) = self.slots.last_idle() else { break };
            if let Some((ticket, client, waited_us)) = self.queue.pop(now_us) {
                self.slots.lend(server, now_us);
                swept.granted.push((server, client, ticket, waited_us));
            }
        }
        self.sweep(now_us, 0, swept);
    }

    /// True between [`Self::pause`] and [`Self::resume`].
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many servers and waiters there are.
    pub fn counts(&self) -> Counts {
        Counts {
            active: self.slots.active_count(),
            idle: self.slots.idle_count(),
            waiting: self.queue.len(),
            opening: self.slots.opening_count(),
            closing: self.slots.closing_count(),
            max: self.limits.max,
            min: self.limits.min,
        }
    }

    /// How long the oldest waiter has waited, in µs; 0 when nobody waits.
    pub fn oldest_wait_us(&self, now_us: u64) -> u64 {
        self.queue.oldest(now_us).unwrap_or(0)
    }

    /// Exhaustion up to the last call.
    pub fn exhaustion(&self) -> Exhaustion {
        let open_us = self.exhausted_since_us.map_or(0, |since| self.last_us.saturating_sub(since));
        Exhaustion { total_us: self.exhaustion.total_us + open_us, ..self.exhaustion }
    }

    /// When the present checkout of a server began, in µs; `None` when it is not lent.
    pub fn held_since(&self, server: ServerId) -> Option<u64> {
        match self.slots.state(server) {
            Some(State::Active { since_us }) => Some(since_us),
            _ => None,
        }
    }

    /// Lent servers and when their checkout began.
    pub fn held(&self) -> impl Iterator<Item = (ServerId, u64)> + '_ {
        self.slots.held()
    }

    /// Gives a server to the next waiter, or lets it rest, or has it closed.
    fn settle(&mut self, server: ServerId, now_us: u64) -> Released {
        let released = if self.slots.used() > self.limits.max {
            self.slots.closing(server);
            Released::Close(CloseReason::Admin)
        } else if self.slots.expired(server, now_us, self.limits.lifetime_us) {
            self.slots.closing(server);
            Released::Close(CloseReason::Lifetime)
        } else if let Some((ticket, client, waited_us)) = self.next_waiter(now_us) {
            self.slots.lend(server, now_us);
            Released::Next { client, ticket, waited_us }
        } else {
            self.slots.rest(server, now_us);
            Released::Idle
        };
        self.note(now_us);
        released
    }

    fn next_waiter(&mut self, now_us: u64) -> Option<(Ticket, ClientId, u64)> {
        if self.paused { None } else { self.queue.pop(now_us) }
    }

    /// Closes idle servers that are too many, too old, or idle for too long (down to `min`), oldest first.
    fn retire(&mut self, now_us: u64, jitter: u64, swept: &mut Swept) {
        let mut live = self.slots.used() - self.slots.closing_count();
        let mut place = 0;
        while let Some(server) = self.slots.idle_at(place) {
            let reason = if self.slots.used() - self.slots.closing_count() > self.limits.max {
                CloseReason::Admin
            } else if self.slots.expired_jittered(server, now_us, self.limits.lifetime_us, jitter) {
                CloseReason::Lifetime
            } else if live > self.limits.min && self.slots.stale(server, now_us, self.limits.idle_timeout_us)
            {
                CloseReason::Idle
            } else {
                place += 1;
                continue;
            };
            self.slots.closing(server);
            live -= 1;
            swept.close.push((server, reason));
        }
    }

    /// True when one more server should be opened for the waiters.
    fn wanted(&self) -> bool {
        !self.paused && self.slots.used() < self.limits.max && self.queue.len() > self.slots.opening_count()
    }

    /// Keeps the account of exhaustion: somebody waits and every slot is taken by a server in use.
    fn note(&mut self, now_us: u64) {
        self.last_us = self.last_us.max(now_us);
        let exhausted = !self.paused
            && self.queue.len() > self.slots.opening_count()
            && self.slots.used() >= self.limits.max;
        match (exhausted, self.exhausted_since_us) {
            (true, None) => {
                self.exhaustion.events += 1;
                self.exhausted_since_us = Some(self.last_us);
            }
            (false, Some(since_us)) => {
                self.exhaustion.total_us += self.last_us - since_us;
                self.exhausted_since_us = None;
            }
            _ => {}
        }
    }
}
