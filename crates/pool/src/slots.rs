//! Slots for servers: what each one is doing, and the stack of idle ones.

/// A slot of a pool: small, dense, used again after its server is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Free,
    Opening,
    Idle { since_us: u64 },
    Active { since_us: u64 },
    Closing,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    state: State,
    born_us: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: Vec<ServerId>,
    /// Longest idle first.
    idle: Vec<ServerId>,
    opening: u32,
    active: u32,
    closing: u32,
}

impl Slots {
    pub fn state(&self, server: ServerId) -> Option<State> {
        self.slots.get(server.0 as usize).map(|slot| slot.state)
    }

    /// Takes a free slot for a server that is about to be opened.
    pub fn open(&mut self, now_us: u64) -> ServerId {
        let server = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { state: State::Free, born_us: now_us });
            ServerId(self.slots.len() as u32 - 1)
        });
        self.put(server, State::Opening);
        server
    }

    pub fn born(&mut self, server: ServerId, now_us: u64) {
        if let Some(slot) = self.slots.get_mut(server.0 as usize) {
            slot.born_us = now_us;
        }
    }

    pub fn lend(&mut self, server: ServerId, now_us: u64) {
        self.put(server, State::Active { since_us: now_us });
    }

    pub fn rest(&mut self, server: ServerId, now_us: u64) {
        self.put(server, State::Idle { since_us: now_us });
    }

    pub fn closing(&mut self, server: ServerId) {
        if self.state(server).is_some_and(|state| state != State::Free) {
            self.put(server, State::Closing);
        }
    }

    pub fn free(&mut self, server: ServerId) {
        if self.state(server).is_some_and(|state| state != State::Free) {
            self.put(server, State::Free);
            self.free.push(server);
        }
    }

    /// The most recently used idle server; the caller lends it at once.
    pub fn last_idle(&self) -> Option<ServerId> {
        self.idle.last().copied()
    }

    /// The idle server that `place` others have been idle longer than.
    pub fn idle_at(&self, place: usize) -> Option<ServerId> {
        self.idle.get(place).copied()
    }

    pub fn expired(&self, server: ServerId, now_us: u64, lifetime_us: u64) -> bool {
        self.expired_jittered(server, now_us, lifetime_us, 0)
    }

    /// Age over the lifetime, less up to a fifth of it, by a spread of `jitter` and the slot's number.
    pub fn expired_jittered(&self, server: ServerId, now_us: u64, lifetime_us: u64, jitter: u64) -> bool {
        if lifetime_us == 0 {
            return false;
        }
        let spread = if jitter == 0 {
            0
        } else {
            (jitter ^ u64::from(server.0)).wrapping_mul(0x9E37_79B9_7F4A_7C15) % (lifetime_us / 5 + 1)
        };
        self.slots
            .get(server.0 as usize)
            .is_some_and(|slot| now_us.saturating_sub(slot.born_us) >= lifetime_us - spread)
    }

    pub fn stale(&self, server: ServerId, now_us: u64, idle_timeout_us: u64) -> bool {
        idle_timeout_us > 0
            && matches!(self.state(server), Some(State::Idle { since_us })
                if now_us.saturating_sub(since_us) >= idle_timeout_us)
    }

    pub fn held(&self) -> impl Iterator<Item = (ServerId, u64)> + '_ {
        self.slots.iter().enumerate().filter_map(|(at, slot)| match slot.state {
            State::Active { since_us } => Some((ServerId(at as u32), since_us)),
            _ => None,
        })
    }

    /// Slots that count towards the limit.
    pub fn used(&self) -> u32 {
        self.opening + self.active + self.closing + self.idle_count()
    }

    pub fn idle_count(&self) -> u32 {
        self.idle.len() as u32
    }

    pub fn opening_count(&self) -> u32 {
        self.opening
    }

    pub fn active_count(&self) -> u32 {
        self.active
    }

    pub fn closing_count(&self) -> u32 {
        self.closing
    }

    fn put(&mut self, server: ServerId, state: State) {
        let old = std::mem::replace(&mut self.slots[server.0 as usize].state, state);
        match old {
            State::Opening => self.opening -= 1,
            State::Active { .. } => self.active -= 1,
            State::Closing => self.closing -= 1,
            State::Idle { .. } => {
                if let Some(place) = self.idle.iter().rposition(|idle| *idle == server) {
                    self.idle.remove(place);
                }
            }
            State::Free => {}
        }
        match state {
            State::Opening => self.opening += 1,
            State::Active { .. } => self.active += 1,
            State::Closing => self.closing += 1,
            State::Idle { .. } => self.idle.push(server),
            State::Free => {}
        }
    }
}
