//! How many servers a pool needs: recorded checkouts replayed through the pool's own policy, size by size.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use pool::{Acquired, ClientId, Limits, Pool, Released, ServerId};
use serde::{Deserialize, Serialize};
use stats::{CheckoutRecord, PoolSnapshot};

/// What the pool should reach.
#[derive(Clone, Debug, PartialEq)]
pub struct Targets {
    /// Longest acceptable 95th percentile of the wait for a server, ms.
    pub wait_p95_ms: f64,
    /// Most servers to advise; also where the search ends.
    pub max: u32,
    /// Fewest servers to keep warm, at most.
    pub min: u32,
    /// How much denser the load may become than the recorded one: 1.0 as recorded.
    pub headroom: f64,
}

impl Default for Targets {
    fn default() -> Self {
        Self { wait_p95_ms: 5.0, max: 15, min: 5, headroom: 2.0 }
    }
}

/// Advice on one pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolAdvice {
    /// Most servers.
    pub max: u32,
    /// Servers kept warm.
    pub min: u32,
    /// Idle time-out, ms.
    pub idle_timeout_ms: u64,
    /// Query time-out, ms.
    pub query_timeout_ms: u64,
    /// Size of the pool against the 95th percentile of the wait in ms, as replayed.
    pub curve: Vec<(u32, f64)>,
    /// Why, in a sentence or two.
    pub reason: String,
}

/// Fewer recorded checkouts than this say nothing.
const CHECKOUTS_MIN: usize = 100;
const IDLE_TIMEOUT_MS: u64 = 30_000;
const QUERY_TIMEOUT_MS: u64 = 10_000;
/// A wait that never ends within the record counts as this much: µs.
const NEVER_US: u64 = 60_000_000;

/// Sizes a pool from what it recorded. Max 15, min 5, 30 s and 10 s stand unless the record says otherwise.
pub fn pool_size(pool: &PoolSnapshot, targets: &Targets) -> PoolAdvice {
    let longest_us = pool.query.quantile(0.999).unwrap_or(0);
    // A query that a healthy run needs must not be cut off: three times the longest, where that is more.
    let query_timeout_ms = QUERY_TIMEOUT_MS.max((longest_us * 3).div_ceil(1000).min(600_000));
    let mut advice = PoolAdvice {
        max: targets.max,
        min: targets.min.min(targets.max),
        idle_timeout_ms: IDLE_TIMEOUT_MS,
        query_timeout_ms,
        curve: Vec::new(),
        reason: format!(
            "Only {} checkouts were recorded: too few to size the pool by, so the defaults stand.",
            pool.checkouts.len()
        ),
    };
    if pool.checkouts.len() < CHECKOUTS_MIN {
        return advice;
    }
    let records = denser(&pool.checkouts, targets.headroom);
    let ends = targets.max.max(pool.max).max(1);
    advice.curve = (1..=ends).map(|size| (size, wait_p95_ms(&records, size))).collect();
    let busy = busy_mean(&records);
    let enough = advice.curve.iter().find(|(_, wait)| *wait <= targets.wait_p95_ms).map(|(size, _)| *size);
    // One server in four is kept free for what the record did not show.
    let wanted = enough.map(|size| size + size.div_ceil(4));
    advice.max = wanted.map_or(targets.max, |size| size.clamp(2.min(targets.max), targets.max));
    advice.min = targets.min.min(advice.max);
    advice.reason = match enough {
        Some(size) if size <= targets.max => format!(
            "{} recorded checkouts, replayed {}x as dense, keep {busy:.1} servers busy on average; {size} servers \
             hold the wait (P95) at or under {} ms, {} leave room for more.",
            records.len(),
            targets.headroom,
            targets.wait_p95_ms,
            advice.max,
        ),
        _ => format!(
            "{} recorded checkouts, replayed {}x as dense, keep {busy:.1} servers busy on average; no size up to {} \
             holds the wait (P95) at {} ms: the queries hold servers too long, and more servers would only queue \
             inside PostgreSQL.",
            records.len(),
            targets.headroom,
            targets.max,
            targets.wait_p95_ms,
        ),
    };
    advice
}

/// The record in order of arrival, with the times between arrivals divided by `factor`.
fn denser(checkouts: &[CheckoutRecord], factor: f64) -> Vec<CheckoutRecord> {
    let mut records = checkouts.to_vec();
    records.sort_unstable();
    let first = records.first().map_or(0, |record| record.arrived_us);
    for record in &mut records {
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let since_us = ((record.arrived_us - first) as f64 / factor.max(0.01)) as u64;
        record.arrived_us = since_us;
    }
    records
}

/// Servers busy on average: held time over elapsed time (Little's law).
#[allow(clippy::cast_precision_loss)]
fn busy_mean(records: &[CheckoutRecord]) -> f64 {
    let held: u64 = records.iter().map(|record| record.held_us).sum();
    let span = records.last().map_or(1, |record| record.arrived_us).max(1);
    held as f64 / span as f64
}

/// Replays the record through a warm pool of `size` servers; the 95th percentile of the wait in ms.
fn wait_p95_ms(records: &[CheckoutRecord], size: u32) -> f64 {
    let far_us = u64::MAX / 4;
    let mut pool = Pool::new(Limits {
        max: size,
        min: size,
        idle_timeout_us: far_us,
        acquire_timeout_us: far_us,
        lifetime_us: far_us,
    });
    let mut ends: BinaryHeap<Reverse<(u64, u32)>> = BinaryHeap::new();
    let mut servers: HashMap<u32, ServerId> = HashMap::new();
    let mut waits_us = Vec::with_capacity(records.len());
    let mut next = 0;
    while next < records.len() || !ends.is_empty() {
        let arrival = records.get(next).map(|record| record.arrived_us);
        let end = ends.peek().map(|Reverse((at, _))| *at);
        let (now, freed) = match (arrival, end) {
            (Some(arrival), Some(end)) if end <= arrival => (end, true),
            (Some(arrival), _) => (arrival, false),
            (None, Some(end)) => (end, true),
            (None, None) => break,
        };
        let given = if freed {
            let Some(Reverse((_, server))) = ends.pop() else { break };
            let server = servers[&server];
            next_of(pool.release(server, now), server)
        } else {
            let client = ClientId(next as u64);
            next += 1;
            match pool.acquire(client, now) {
                Acquired::Server(server) => Some((client, 0, server)),
                // The model's servers open at once: what is asked is how many, not how fast they start.
                Acquired::Queued { open: Some(server), .. } => next_of(pool.opened(server, now), server),
                Acquired::Queued { open: None, .. } => None,
            }
        };
        if let Some((client, waited_us, server)) = given {
            waits_us.push(waited_us);
            let held_us =
                usize::try_from(client.0).ok().and_then(|c| records.get(c)).map_or(0, |r| r.held_us);
            servers.insert(server.0, server);
            ends.push(Reverse((now + held_us, server.0)));
        }
    }
    waits_us.resize(records.len(), NEVER_US);
    waits_us.sort_unstable();
    #[allow(clippy::cast_precision_loss)]
    let wait_ms = waits_us[(waits_us.len() * 95 / 100).min(waits_us.len() - 1)] as f64 / 1000.0;
    wait_ms
}

fn next_of(released: Released, server: ServerId) -> Option<(ClientId, u64, ServerId)> {
    match released {
        Released::Next { client, waited_us, .. } => Some((client, waited_us, server)),
        Released::Idle | Released::Close(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pool(gap_us: u64, held_us: u64) -> PoolSnapshot {
        let checkouts =
            (0..2_000).map(|n| CheckoutRecord { arrived_us: n * gap_us, waited_us: 0, held_us }).collect();
        PoolSnapshot { checkouts, max: 20, ..PoolSnapshot::default() }
    }

    #[test]
    fn a_light_load_needs_few_servers_and_the_curve_falls() {
        let advice = pool_size(&pool(10_000, 9_000), &Targets::default());
        assert!(advice.max <= 4, "{advice:?}");
        assert!(advice.min <= advice.max);
        assert!(advice.curve.windows(2).all(|pair| pair[0].1 >= pair[1].1));
        assert_eq!((advice.idle_timeout_ms, advice.query_timeout_ms), (30_000, 10_000));
    }

    #[test]
    fn a_load_beyond_the_ceiling_gets_the_ceiling_and_is_told() {
        let advice = pool_size(&pool(1_000, 100_000), &Targets::default());
        assert_eq!((advice.max, advice.min), (15, 5));
        assert!(advice.reason.contains("no size up to 15"));
    }

    #[test]
    fn without_a_record_the_defaults_stand() {
        let advice = pool_size(&PoolSnapshot::default(), &Targets::default());
        assert_eq!((advice.max, advice.min, advice.curve.len()), (15, 5, 0));
    }
}
