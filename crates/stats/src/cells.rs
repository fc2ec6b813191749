//! The atomics that one worker writes and the registry reads.
//!
//! Single writer: a load and a store instead of an atomic addition.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::histogram::{BOUNDS_US, CHUNKS, EXTRA_BOUNDS_MAX, STEPS, index_of};
use crate::ring::Ring;
use crate::{Counts, Histogram, LIMIT_US};

/// Memory that is allocated at first use, in a field.
///
/// Fields only: a pure crate makes no static of it.
#[allow(clippy::disallowed_types)]
pub(crate) type Lazy<T> = std::sync::OnceLock<T>;

/// One statement that ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Execution {
    /// Index of the pool.
    pub pool: u16,
    /// The fingerprint's slot in the catalog; 0 is `other`.
    pub slot: u32,
    /// Time its client queued right before it, in µs; 0 inside a checkout.
    pub wait_us: u64,
    /// From its sending to the end of its answer, in µs.
    pub server_us: u64,
    /// Time in µs for which it kept its server busy or held; mostly `server_us`.
    pub hold_us: u64,
    /// Rows returned or affected.
    pub rows: u64,
    /// Bytes of its answer.
    pub bytes: u64,
    /// SQLSTATE, when it failed.
    pub error: Option<[u8; 5]>,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// COMMIT, or a statement on its own.
    Commit,
    /// ROLLBACK, or a failure.
    Rollback,
    /// Its client left.
    Abandoned,
}

impl Outcome {
    pub(crate) const NAMES: [&'static str; 3] = ["commit", "rollback", "abandoned"];
}

/// A counter with a single writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    pub fn rise_to(&self, value: u64) {
        if value > self.0.load(Relaxed) {
            self.0.store(value, Relaxed);
        }
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

type Chunk = Box<[Counter; STEPS]>;

/// [`Histogram`] as it is written: octaves are allocated when first met.
#[derive(Debug)]
pub(crate) struct HistogramCells {
    chunks: [Lazy<Chunk>; CHUNKS],
    classic: [Counter; BOUNDS_US.len() + EXTRA_BOUNDS_MAX + 1],
    sum_us: Counter,
    max_us: Counter,
}

impl Default for HistogramCells {
    fn default() -> Self {
        Self {
            chunks: [const { Lazy::new() }; CHUNKS],
            classic: Default::default(),
            sum_us: Counter::default(),
            max_us: Counter::default(),
        }
    }
}

impl HistogramCells {
    /// `bounds_us` are all classic bounds, ascending.
    pub fn record(&self, us: u64, bounds_us: &[u64]) {
        let us = us.min(LIMIT_US);
        let index = index_of(us);
        let chunk =
            self.chunks[index / STEPS].get_or_init(|| Box::new(std::array::from_fn(|_| Counter::default())));
        chunk[index % STEPS].add(1);
        self.classic[bounds_us.partition_point(|bound| *bound < us)].add(1);
        self.sum_us.add(us);
        self.max_us.rise_to(us);
    }

    pub fn read(&self, extra_us: &[u64]) -> Histogram {
        let mut buckets = Vec::new();
        for (octave, chunk) in self.chunks.iter().enumerate() {
            let Some(chunk) = chunk.get() else { continue };
            for (step, count) in chunk.iter().enumerate().filter(|(_, count)| count.get() > 0) {
                buckets.push(((octave * STEPS + step) as u16, count.get()));
            }
        }
        if buckets.is_empty() {
            return Histogram::with_bounds(extra_us);
        }
        let classic = self.classic[..=BOUNDS_US.len() + extra_us.len()].iter().map(Counter::get).collect();
        Histogram::from_parts(buckets, extra_us.to_vec(), classic, self.sum_us.get(), self.max_us.get())
    }
}

/// Errors by class of SQLSTATE: two characters of 36.
#[derive(Debug, Default)]
pub(crate) struct ErrorCells(Lazy<Box<[Counter]>>);

impl ErrorCells {
    pub fn count(&self, sqlstate: [u8; 5]) {
        let cells = self.0.get_or_init(|| (0..36 * 36).map(|_| Counter::default()).collect());
        let digit = |byte: u8| usize::try_from(char::from(byte).to_digit(36).unwrap_or(0)).unwrap_or(0);
        cells[digit(sqlstate[0]) * 36 + digit(sqlstate[1])].add(1);
    }

    pub fn read(&self, counts: &mut Counts) {
        let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
        for (at, count) in self.0.get().into_iter().flat_map(|cells| cells.iter().enumerate()) {
            if count.get() > 0 {
                let class = String::from_iter([char::from(digits[at / 36]), char::from(digits[at % 36])]);
                *counts.entry(class).or_default() += count.get();
            }
        }
    }
}

/// Counts by name, for what happens seldom (connections that open, close or fail).
#[derive(Debug, Default)]
pub(crate) struct SeldomCells(Mutex<BTreeMap<String, u64>>);

/// Names beyond this many are counted as `other`.
const NAMES_MAX: usize = 64;

impl SeldomCells {
    pub fn count(&self, name: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if counts.contains_key(name) || counts.len() < NAMES_MAX { name } else { "other" };
        *counts.entry(name.to_owned()).or_default() += 1;
    }

    pub fn read(&self, counts: &mut Counts) {
        for (name, count) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            *counts.entry(name.clone()).or_default() += count;
        }
    }
}

/// One pool on one worker.
#[derive(Debug, Default)]
pub(crate) struct PoolCells {
    pub transactions: [Counter; 3],
    pub queries: Counter,
    pub rows: Counter,
    pub client_in_bytes: Counter,
    pub client_out_bytes: Counter,
    pub server_in_bytes: Counter,
    pub server_out_bytes: Counter,
    pub created: Counter,
    pub errors: ErrorCells,
    pub closed: SeldomCells,
    pub connect_failures: SeldomCells,
    pub acquire_wait: HistogramCells,
    pub query: HistogramCells,
    pub transaction: HistogramCells,
    pub checkout: HistogramCells,
    pub transaction_idle: HistogramCells,
    pub connect: HistogramCells,
    pub checkouts: Ring,
    fingerprints: Lazy<Box<[FingerprintPage]>>,
}

const PAGE: usize = 64;

type FingerprintPage = Lazy<Box<[Lazy<Box<FingerprintCells>>; PAGE]>>;

impl PoolCells {
    /// The cells of the fingerprint in `slot`; slots above `slots_max` are 0, `other`.
    pub fn fingerprint(&self, slot: u32, slots_max: u32) -> &FingerprintCells {
        let slot = if slot > slots_max { 0 } else { slot as usize };
        let pages =
            self.fingerprints.get_or_init(|| (0..=slots_max as usize / PAGE).map(|_| Lazy::new()).collect());
        let page = pages[slot / PAGE].get_or_init(|| Box::new([const { Lazy::new() }; PAGE]));
        page[slot % PAGE].get_or_init(Box::default)
    }

    /// All fingerprints that this worker met, with their slots.
    pub fn fingerprints(&self) -> impl Iterator<Item = (u32, &FingerprintCells)> {
        let pages = self.fingerprints.get().into_iter().flat_map(|pages| pages.iter().enumerate());
        pages.flat_map(|(at, page)| {
            let cells = page.get().into_iter().flat_map(|page| page.iter().enumerate());
            cells.filter_map(move |(n, cell)| Some(((at * PAGE + n) as u32, &**cell.get()?)))
        })
    }
}

/// Candidates for the fingerprint before runs.
pub(crate) const PARENTS: usize = 4;

/// One fingerprint in one pool on one worker.
#[derive(Debug, Default)]
pub(crate) struct FingerprintCells {
    pub calls: Counter,
    pub errors: Counter,
    pub rows: Counter,
    pub bytes: Counter,
    pub max_rows: Counter,
    pub hold_us: Counter,
    pub acquire_wait: HistogramCells,
    pub server_time: HistogramCells,
    pub runs: Counter,
    pub calls_in_runs: Counter,
    pub longest_run: Counter,
    pub distinct_binds_in_runs: Counter,
    /// Slot + 1 and count of runs it preceded.
    pub parents: [(Counter, Counter); PARENTS],
    pub repeat_hits: Counter,
    pub repeat_calls: Counter,
    pub offset_count: Counter,
    pub offset_min: Counter,
    pub offset_max: Counter,
    pub offset_sum: Counter,
    pub offset_climbing: Counter,
    /// Hash and time in µs of the first values: most fingerprints of an application that writes literals into its
    /// texts are run once, and need no more.
    pub first_bind: (Counter, Counter),
    pub binds: Lazy<Box<BindCells>>,
}

/// Memory of bind values: no value, only parts of keyed hashes.
#[derive(Debug)]
pub(crate) struct BindCells {
    /// Upper half: part of the hash; lower half: when, in ms + 1.
    pub seen: [Counter; 1024],
    /// Linear counting.
    pub bits: [Counter; 128],
}

impl Default for BindCells {
    fn default() -> Self {
        Self {
            seen: std::array::from_fn(|_| Counter::default()),
            bits: std::array::from_fn(|_| Counter::default()),
        }
    }
}

const REPEAT_MS: u32 = 60_000;

/// Callers may hash with something weak.
fn spread(hash: u64) -> u64 {
    hash.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The bit of a spread hash, for linear counting.
fn bit_of(hash: u64) -> usize {
    (hash >> 40) as usize % (128 * 64)
}

impl BindCells {
    /// Notes the values; true when they were seen in the 60 s before.
    fn seen_before(&self, hash: u64, now_us: u64) -> bool {
        let hash = spread(hash);
        let (tag, now_ms) = ((hash >> 32) as u32, (now_us / 1000) as u32);
        let cell = &self.seen[(hash >> 20) as usize % self.seen.len()];
        let (old_tag, old_ms) = ((cell.get() >> 32) as u32, cell.get() as u32);
        cell.set(u64::from(tag) << 32 | u64::from(now_ms.wrapping_add(1).max(1)));
        let bit = bit_of(hash);
        let word = &self.bits[bit / 64];
        word.set(word.get() | 1 << (bit % 64));
        old_ms != 0 && old_tag == tag && now_ms.wrapping_sub(old_ms.wrapping_sub(1)) < REPEAT_MS
    }
}

impl FingerprintCells {
    /// Counts an execution with these values.
    pub fn bind(&self, hash: u64, now_us: u64) {
        self.repeat_calls.add(1);
        if self.repeat_calls.get() == 1 {
            self.first_bind.0.set(hash);
            return self.first_bind.1.set(now_us);
        }
        let cells = self.binds.get_or_init(Box::default);
        if self.repeat_calls.get() == 2 {
            cells.seen_before(self.first_bind.0.get(), self.first_bind.1.get());
        }
        self.repeat_hits.add(u64::from(cells.seen_before(hash, now_us)));
    }

    /// Adds the bits of the values seen to those of other workers.
    pub fn bind_bits(&self, bits: &mut [u64; 128]) {
        match self.binds.get() {
            Some(cells) => bits.iter_mut().zip(&cells.bits).for_each(|(sum, word)| *sum |= word.get()),
            None if self.repeat_calls.get() > 0 => {
                let bit = bit_of(spread(self.first_bind.0.get()));
                bits[bit / 64] |= 1 << (bit % 64);
            }
            None => {}
        }
    }

    pub fn offset(&self, offset: u64, climbing: bool) {
        if self.offset_count.get() == 0 || offset < self.offset_min.get() {
            self.offset_min.set(offset);
        }
        self.offset_max.rise_to(offset);
        self.offset_sum.add(offset);
        self.offset_climbing.add(u64::from(climbing));
        self.offset_count.add(1);
    }

    /// Counts a run that `slot` came before; the rarest candidate gives way to a new one.
    pub fn parent(&self, slot: u32) {
        let key = u64::from(slot) + 1;
        if let Some((_, count)) = self.parents.iter().find(|(parent, _)| parent.get() == key) {
            return count.add(1);
        }
        let Some(least) = self.parents.iter().min_by_key(|(_, count)| count.get()) else { return };
        if least.1.get() <= 1 {
            least.0.set(key);
            least.1.set(1);
        } else {
            least.1.set(least.1.get() - 1);
        }
    }
}
