//! The shards of all workers, and how they become a [`Snapshot`](crate::Snapshot).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cells::{Execution, FingerprintCells, HistogramCells, Lazy, Outcome, PoolCells};
use crate::histogram::{all_bounds, extra_bounds};
use crate::{CHECKOUTS_MAX, Depth, FingerprintSnapshot, Histogram, PoolSnapshot};

/// Sizes, fixed for the life of a [`Registry`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Shards. One more than there are worker threads gives the login side its own.
    pub workers: usize,
    /// Most pools; indexes beyond are not counted. A pool costs memory only once used.
    pub pools: usize,
    /// Most fingerprints (catalog slots above 0).
    pub fingerprints_max: u32,
    /// Bounds in µs to count at beside the classic ones, for example latency targets: at most four.
    pub extra_bounds_us: Vec<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self { workers: 1, pools: 256, fingerprints_max: 5_000, extra_bounds_us: Vec::new() }
    }
}

#[derive(Debug)]
struct Cells {
    pools: Box<[Lazy<Box<PoolCells>>]>,
    bounds_us: Vec<u64>,
    fingerprints_max: u32,
}

/// All counters of a process.
#[derive(Debug)]
pub struct Registry {
    shards: Vec<Arc<Cells>>,
    extra_us: Vec<u64>,
}

/// The writing end of one worker. Must have a single writer at a time: it is not `Clone`, and asking the
/// registry twice for one worker's shard loses counts.
#[derive(Debug)]
pub struct Shard(Arc<Cells>);

/// What the catalog knows of a slot.
#[derive(Clone, Debug, Default)]
pub struct FingerprintFacts {
    /// 16 hexadecimal digits, or `other`.
    pub id: String,
    /// Normalised text.
    pub query: String,
    /// Command word.
    pub command: String,
    /// Tables named.
    pub tables: Vec<String>,
}

impl Registry {
    /// Empty counters.
    pub fn new(config: Config) -> Self {
        let extra_us = extra_bounds(&config.extra_bounds_us);
        let cells = || {
            Arc::new(Cells {
                pools: (0..config.pools).map(|_| Lazy::new()).collect(),
                bounds_us: all_bounds(&extra_us),
                fingerprints_max: config.fingerprints_max,
            })
        };
        Self { shards: (0..config.workers.max(1)).map(|_| cells()).collect(), extra_us }
    }

    /// The shard of a worker; numbers beyond the configured ones share the last.
    pub fn shard(&self, worker: usize) -> Shard {
        Shard(Arc::clone(&self.shards[worker.min(self.shards.len() - 1)]))
    }

    /// Counters and histograms of a pool over all workers. Names, limits and gauges are the caller's to fill.
    pub fn pool(&self, pool: u16) -> PoolSnapshot {
        let mut sum = PoolSnapshot::default();
        for cells in self.cells(pool) {
            for (name, count) in Outcome::NAMES.iter().zip(&cells.transactions) {
                *sum.transactions.entry((*name).to_owned()).or_default() += count.get();
            }
            sum.queries += cells.queries.get();
            sum.rows += cells.rows.get();
            sum.client_in_bytes += cells.client_in_bytes.get();
            sum.client_out_bytes += cells.client_out_bytes.get();
            sum.server_in_bytes += cells.server_in_bytes.get();
            sum.server_out_bytes += cells.server_out_bytes.get();
            sum.created += cells.created.get();
            cells.errors.read(&mut sum.errors);
            cells.closed.read(&mut sum.closed);
            cells.connect_failures.read(&mut sum.connect_failures);
            self.merge(&mut sum.acquire_wait, &cells.acquire_wait);
            self.merge(&mut sum.query, &cells.query);
            self.merge(&mut sum.transaction, &cells.transaction);
            self.merge(&mut sum.checkout, &cells.checkout);
            self.merge(&mut sum.transaction_idle, &cells.transaction_idle);
            self.merge(&mut sum.connect, &cells.connect);
            cells.checkouts.read(&mut sum.checkouts);
        }
        sum.checkouts.sort_unstable();
        let surplus = sum.checkouts.len().saturating_sub(CHECKOUTS_MAX);
        sum.checkouts.drain(..surplus);
        sum
    }

    /// The fingerprints of a pool over all workers; `facts` looks a slot up in the catalog.
    pub fn fingerprints(
        &self,
        pool: u16,
        name: &str,
        mut facts: impl FnMut(u32) -> FingerprintFacts,
    ) -> Vec<FingerprintSnapshot> {
        let mut found: BTreeMap<u32, Vec<&FingerprintCells>> = BTreeMap::new();
        for (slot, cells) in self.cells(pool).flat_map(PoolCells::fingerprints) {
            found.entry(slot).or_default().push(cells);
        }
        let mut all = Vec::with_capacity(found.len());
        for (slot, cells) in found {
            let known = facts(slot);
            let mut sum = FingerprintSnapshot {
                pool: name.to_owned(),
                id: known.id,
                query: known.query,
                command: known.command,
                tables: known.tables,
                ..FingerprintSnapshot::default()
            };
            self.add(&mut sum, &cells);
            sum.bursts.parent = parent(&cells).map(|(slot, runs)| {
                sum.bursts.parent_calls = runs;
                facts(slot).id
            });
            all.push(sum);
        }
        all
    }

    fn cells(&self, pool: u16) -> impl Iterator<Item = &PoolCells> {
        self.shards
            .iter()
            .filter_map(move |shard| shard.pools.get(usize::from(pool))?.get())
            .map(|cells| &**cells)
    }

    fn merge(&self, sum: &mut Histogram, cells: &HistogramCells) {
        sum.merge(&cells.read(&self.extra_us));
    }

    fn add(&self, sum: &mut FingerprintSnapshot, all: &[&FingerprintCells]) {
        let mut bits = [0u64; 128];
        for cells in all {
            sum.calls += cells.calls.get();
            sum.errors += cells.errors.get();
            sum.rows += cells.rows.get();
            sum.bytes += cells.bytes.get();
            sum.max_rows = sum.max_rows.max(cells.max_rows.get());
            sum.hold_us += cells.hold_us.get();
            self.merge(&mut sum.acquire_wait, &cells.acquire_wait);
            self.merge(&mut sum.server_time, &cells.server_time);
            sum.bursts.runs += cells.runs.get();
            sum.bursts.calls_in_runs += cells.calls_in_runs.get();
            sum.bursts.longest_run = sum.bursts.longest_run.max(cells.longest_run.get());
            sum.bursts.distinct_binds_in_runs += cells.distinct_binds_in_runs.get();
            sum.repeats.hits += cells.repeat_hits.get();
            sum.repeats.calls += cells.repeat_calls.get();
            if cells.offset_count.get() > 0 {
                let depth = sum.offset.get_or_insert(Depth { min: u64::MAX, ..Depth::default() });
                depth.min = depth.min.min(cells.offset_min.get());
                depth.max = depth.max.max(cells.offset_max.get());
                depth.sum += cells.offset_sum.get();
                depth.count += cells.offset_count.get();
                depth.climbing += cells.offset_climbing.get();
            }
            cells.bind_bits(&mut bits);
        }
        sum.binds = estimate(&bits);
    }
}

/// The fingerprint that came before most runs, when it came before the half of them at least.
fn parent(all: &[&FingerprintCells]) -> Option<(u32, u64)> {
    let mut votes: BTreeMap<u64, u64> = BTreeMap::new();
    for (slot, count) in all.iter().flat_map(|cells| &cells.parents).filter(|(slot, _)| slot.get() > 0) {
        *votes.entry(slot.get()).or_default() += count.get();
    }
    let runs: u64 = all.iter().map(|cells| cells.runs.get()).sum();
    let (slot, count) = votes.into_iter().max_by_key(|(_, count)| *count)?;
    (count * 2 >= runs && count > 0).then_some((slot as u32 - 1, count))
}

/// Linear counting: how many different hashes set these bits.
fn estimate(bits: &[u64; 128]) -> u64 {
    let size = 128.0 * 64.0;
    let set: u32 = bits.iter().map(|word| word.count_ones()).sum();
    let empty = (size - f64::from(set)).max(1.0);
    (size * (size / empty).ln()).round() as u64
}

impl Shard {
    /// A statement ended.
    pub fn execution(&mut self, execution: Execution) {
        let bounds = &self.0.bounds_us;
        let Some(pool) = self.pool(execution.pool) else { return };
        pool.queries.add(1);
        pool.rows.add(execution.rows);
        pool.query.record(execution.server_us, bounds);
        let cells = pool.fingerprint(execution.slot, self.0.fingerprints_max);
        cells.calls.add(1);
        cells.rows.add(execution.rows);
        cells.bytes.add(execution.bytes);
        cells.max_rows.rise_to(execution.rows);
        cells.hold_us.add(execution.hold_us);
        cells.acquire_wait.record(execution.wait_us, bounds);
        cells.server_time.record(execution.server_us, bounds);
        if let Some(sqlstate) = execution.error {
            pool.errors.count(sqlstate);
            cells.errors.add(1);
        }
    }

    /// A server came back. Times in µs; `arrived_us` of the monotonic clock.
    pub fn checkout(&mut self, pool: u16, arrived_us: u64, waited_us: u64, held_us: u64) {
        let bounds = &self.0.bounds_us;
        let Some(pool) = self.pool(pool) else { return };
        pool.acquire_wait.record(waited_us, bounds);
        pool.checkout.record(held_us, bounds);
        pool.checkouts.push(arrived_us, waited_us, held_us);
    }

    /// A waiter gave up after `waited_us`.
    pub fn gave_up(&mut self, pool: u16, waited_us: u64) {
        let bounds = &self.0.bounds_us;
        if let Some(pool) = self.pool(pool) {
            pool.acquire_wait.record(waited_us, bounds);
        }
    }

    /// A transaction ended; `idle_us` of its length the application was thinking.
    pub fn transaction(&mut self, pool: u16, outcome: Outcome, length_us: u64, idle_us: u64) {
        let bounds = &self.0.bounds_us;
        let Some(pool) = self.pool(pool) else { return };
        pool.transactions[outcome as usize].add(1);
        pool.transaction.record(length_us, bounds);
        pool.transaction_idle.record(idle_us, bounds);
    }

    /// An error that belongs to no execution, for example an acquire time-out.
    pub fn error(&mut self, pool: u16, sqlstate: [u8; 5]) {
        if let Some(pool) = self.pool(pool) {
            pool.errors.count(sqlstate);
        }
    }

    /// A server connection was made in `connect_us`.
    pub fn server_created(&mut self, pool: u16, connect_us: u64) {
        let bounds = &self.0.bounds_us;
        let Some(pool) = self.pool(pool) else { return };
        pool.created.add(1);
        pool.connect.record(connect_us, bounds);
    }

    /// A server connection was closed, for this reason.
    pub fn server_closed(&mut self, pool: u16, reason: &str) {
        if let Some(pool) = self.pool(pool) {
            pool.closed.count(reason);
        }
    }

    /// A server connection could not be made.
    pub fn connect_failed(&mut self, pool: u16, sqlstate: [u8; 5]) {
        if let Some(pool) = self.pool(pool) {
            pool.connect_failures.count(&String::from_utf8_lossy(&sqlstate));
        }
    }

    /// Bytes read from and written to clients.
    pub fn client_bytes(&mut self, pool: u16, read: u64, written: u64) {
        if let Some(pool) = self.pool(pool) {
            pool.client_in_bytes.add(read);
            pool.client_out_bytes.add(written);
        }
    }

    /// Bytes read from and written to servers.
    pub fn server_bytes(&mut self, pool: u16, read: u64, written: u64) {
        if let Some(pool) = self.pool(pool) {
            pool.server_in_bytes.add(read);
            pool.server_out_bytes.add(written);
        }
    }

    pub(crate) fn fingerprint(&self, pool: u16, slot: u32) -> Option<&FingerprintCells> {
        Some(self.pool(pool)?.fingerprint(slot, self.0.fingerprints_max))
    }

    fn pool(&self, pool: u16) -> Option<&PoolCells> {
        Some(self.0.pools.get(usize::from(pool))?.get_or_init(Box::default))
    }
}
