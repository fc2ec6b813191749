//! Snapshots of all pools.

use std::collections::BTreeMap;
use std::time::Duration;

use stats::{FingerprintFacts, PoolSnapshot, Snapshot};

use super::{
    Workers,
    state::{ACQUIRES, Phase, State},
};

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Workers {
    /// Counters and gauges of all pools, without those of login and process.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot { uptime_us: self.now_us(), ..Snapshot::default() };
        snapshot.taken_unix_us = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
        let count = self.workers.iter().map(|w| w.state.lock().pools.len()).max().unwrap_or(0);
        for index in 0..count {
            let mut pool = self.registry.pool(index as u16);
            {
                let state = self.workers[index % self.workers.len()].state.lock();
                state.gauges(index, self.now_us(), &mut pool);
                if let Some(own) = state.pools.get(index).and_then(Option::as_ref) {
                    snapshot.rewrites.extend(own.rewrites.states(&pool.name));
                }
            }
            let facts = |slot| {
                let catalog = self.catalog.lock();
                FingerprintFacts {
                    id: catalog.name(slot),
                    query: catalog.text(slot).to_owned(),
                    command: catalog.command(slot).as_str().to_owned(),
                    tables: catalog.tables(slot).to_vec(),
                }
            };
            snapshot.fingerprints.extend(self.registry.fingerprints(index as u16, &pool.name, facts));
            snapshot.pools.push(pool);
        }
        snapshot
    }
}

impl State {
    fn gauges(&self, index: usize, now_us: u64, out: &mut PoolSnapshot) {
        let Some(pool) = self.pools.get(index).and_then(Option::as_ref) else { return };
        debug_assert_eq!(pool.index.index(), index);
        let settings = &pool.settings;
        out.name.clone_from(&settings.name);
        out.database.clone_from(&settings.server.database);
        out.user.clone_from(&settings.server.user);
        out.server = settings.server.address.to_string();
        settings.mode.as_str().clone_into(&mut out.mode);
        (out.max, out.min) = (settings.max, settings.min);
        out.idle_timeout_ms = millis(settings.idle_timeout);
        out.query_timeout_ms = millis(settings.query_timeout);
        out.acquire_timeout_ms = millis(settings.acquire_timeout);
        let counts = pool.pool.counts();
        let in_transaction = self
            .servers
            .iter()
            .flatten()
            .filter(|s| s.pool == index && s.client.is_some() && s.session.idle_in_transaction())
            .count() as u32;
        out.servers = BTreeMap::from([
            ("active".to_owned(), counts.active.saturating_sub(in_transaction)),
            ("idle".to_owned(), counts.idle),
            ("idle_in_transaction".to_owned(), in_transaction),
            ("connecting".to_owned(), counts.opening),
            ("closing".to_owned(), counts.closing),
        ]);
        let (mut idle, mut linked, mut waiting) = (0u32, 0u32, 0u32);
        for client in self.clients.iter().flatten().filter(|c| c.pool == index) {
            match client.phase {
                Phase::Idle => idle += 1,
                Phase::Waiting(_) => waiting += 1,
                Phase::Linked(_) => {
                    linked += 1;
                    if let Some(pin) = client.session.pin() {
                        *out.pinned.entry(pin.as_str().to_owned()).or_default() += 1;
                    }
                }
            }
        }
        out.clients = BTreeMap::from([
            ("active".to_owned(), linked.saturating_sub(in_transaction)),
            ("waiting".to_owned(), waiting),
            ("idle".to_owned(), idle),
            ("idle_in_transaction".to_owned(), in_transaction.min(linked)),
        ]);
        out.oldest_wait_us = pool.pool.oldest_wait_us(now_us);
        out.oldest_checkout_us =
            pool.pool.held().map(|(_, since_us)| now_us.saturating_sub(since_us)).max().unwrap_or(0);
        for (name, value) in ACQUIRES.iter().zip(pool.acquires) {
            out.acquires.insert((*name).to_owned(), value);
        }
        let exhaustion = pool.pool.exhaustion();
        (out.exhausted_events, out.exhausted_us) = (exhaustion.events, exhaustion.total_us);
        out.pins.clone_from(&pool.pins);
    }
}
