//! Waiters in the order of their tickets.

use std::collections::VecDeque;

use crate::ClientId;

/// A place in the queue. Tickets rise; none is given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    /// `None` once the waiter has left; such an entry goes when it reaches the front.
    client: Option<ClientId>,
    since_us: u64,
}

/// First in, first out. Tickets are consecutive, so a waiter's place follows from its ticket.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiters: VecDeque<Waiter>,
    next: u64,
    len: u32,
}

impl Queue {
    pub fn push(&mut self, client: ClientId, now_us: u64) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.len += 1;
        self.waiters.push_back(Waiter { ticket, client: Some(client), since_us: now_us });
        ticket
    }

    pub fn pop(&mut self, now_us: u64) -> Option<(Ticket, ClientId, u64)> {
        let (ticket, client, waited_us) = self.front(now_us)?;
        self.remove(ticket);
        Some((ticket, client, waited_us))
    }

    pub fn front(&self, now_us: u64) -> Option<(Ticket, ClientId, u64)> {
        let waiter = self.waiters.front()?;
        Some((waiter.ticket, waiter.client?, now_us.saturating_sub(waiter.since_us)))
    }

    pub fn remove(&mut self, ticket: Ticket) -> bool {
        let Some(first) = self.waiters.front().map(|waiter| waiter.ticket.0) else { return false };
        let Some(place) = ticket.0.checked_sub(first) else { return false };
        let Some(waiter) = self.waiters.get_mut(place as usize) else { return false };
        if waiter.client.take().is_none() {
            return false;
        }
        self.len -= 1;
        while self.waiters.front().is_some_and(|waiter| waiter.client.is_none()) {
            self.waiters.pop_front();
        }
        true
    }

    pub fn oldest(&self, now_us: u64) -> Option<u64> {
        self.front(now_us).map(|(_, _, waited_us)| waited_us)
    }

    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
