//! What a run measured. Histograms are HDR: microseconds, three significant digits, up to an hour.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::LoadPlan;

/// Fewest samples from which a P99 is given.
const P99_SAMPLES: u64 = 1_000;
/// Kinds of error messages that are kept.
const ERRORS_KEPT: usize = 8;

/// Latencies in microseconds.
#[derive(Clone, Debug)]
pub struct Histogram(hdrhistogram::Histogram<u64>);

impl Default for Histogram {
    fn default() -> Self {
        let made = hdrhistogram::Histogram::new_with_bounds(1, 3_600_000_000, 3);
        Self(made.expect("1 µs to an hour at three digits is a valid range"))
    }
}

impl Histogram {
    /// Adds one duration; longer than an hour counts as an hour.
    pub fn record(&mut self, duration: Duration) {
        self.0.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// The value below which a share `q` (0 to 1) of the samples lies, in milliseconds; `None` without samples, and
    /// above 0.98 from fewer than 1,000.
    #[must_use]
    pub fn quantile_ms(&self, q: f64) -> Option<f64> {
        let enough = self.0.len() >= if q > 0.98 { P99_SAMPLES } else { 1 };
        #[allow(clippy::cast_precision_loss)]
        enough.then(|| self.0.value_at_quantile(q) as f64 / 1000.0)
    }

    /// As [`Histogram::quantile_ms`], from however few samples: for what judges a run, not the database.
    #[must_use]
    pub fn any_quantile_ms(&self, q: f64) -> Option<f64> {
        #[allow(clippy::cast_precision_loss)]
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(q) as f64 / 1000.0)
    }

    /// Samples.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Distribution as (milliseconds, share of samples at or below), for drawing.
    #[must_use]
    pub fn curve(&self) -> Vec<(f64, f64)> {
        #[allow(clippy::cast_precision_loss)]
        self.0
            .iter_quantiles(4)
            .map(|step| (step.value_iterated_to() as f64 / 1000.0, step.quantile_iterated_to()))
            .collect()
    }
}

/// One second of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tick {
    /// Seconds since the run began.
    pub t_s: f64,
    /// P95 of the operations answered in it, in milliseconds.
    pub p95_ms: Option<f64>,
    /// Operations answered.
    pub completed: u64,
    /// Operations under way at its end.
    pub backlog: u64,
}

/// One kind of operation.
#[derive(Clone, Debug)]
pub struct OperationResult {
    /// Its name in the workload.
    pub name: String,
    /// Latency from the intended time.
    pub latency: Histogram,
    /// Operations that failed.
    pub errors: u64,
}

/// What a run gave.
#[derive(Clone, Debug)]
pub struct LoadResult {
    /// Operations a second that were offered.
    pub offered_ops: f64,
    /// How long they arrived, in seconds.
    pub duration_s: f64,
    /// Operations that arrived.
    pub offered: u64,
    /// Operations answered without error.
    pub completed: u64,
    /// Operations that failed.
    pub errors: u64,
    /// The first few kinds of error.
    pub error_samples: Vec<String>,
    /// Operations answered a second.
    pub ops: f64,
    /// Statements answered a second.
    pub qps: f64,
    /// Latency of operations from their intended time. Those never answered count with the time waited so far.
    pub latency: Histogram,
    /// Latency of statements from their sending.
    pub query_latency: Histogram,
    /// How late the generator itself began, against the intended times.
    pub lateness: Histogram,
    /// Mean operations under way in each third of the run.
    pub backlog_thirds: [f64; 3],
    /// The rate was not held: under 99 % answered, or the backlog grew from the first third to the last.
    pub saturated: bool,
    /// False when the generator's own lateness (P99) is over 1 ms and over a tenth of the measured P95.
    pub valid: bool,
    /// Second by second.
    pub timeline: Vec<Tick>,
    /// Operation by operation.
    pub operations: Vec<OperationResult>,
}

impl LoadResult {
    /// Percentile of the operations' latency in milliseconds.
    #[must_use]
    pub fn p(&self, q: f64) -> Option<f64> {
        self.latency.quantile_ms(q)
    }
}

#[derive(Default)]
struct Numbers {
    latency: Histogram,
    query: Histogram,
    lateness: Histogram,
    operations: Vec<OperationResult>,
    error_samples: Vec<String>,
    second: Histogram,
    second_completed: u64,
    timeline: Vec<Tick>,
    /// (seconds since the beginning, operations under way)
    backlog: Vec<(f64, u64)>,
    /// Intended times of those under way, in no order.
    under_way: Vec<Instant>,
}

/// Collects what operations report. One lock, held for a histogram's increment.
pub(super) struct Measure {
    numbers: Mutex<Numbers>,
    duration: Duration,
    arrived: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    queries: AtomicU64,
}

impl Measure {
    pub fn new(names: Vec<String>, duration: Duration) -> Self {
        let operations = names
            .into_iter()
            .map(|name| OperationResult { name, latency: Histogram::default(), errors: 0 })
            .collect();
        Self {
            numbers: Mutex::new(Numbers { operations, ..Numbers::default() }),
            duration,
            arrived: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            queries: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn arrived(&self) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
    }

    pub fn sent(&self, intended: Instant) {
        let mut numbers = self.lock();
        numbers.lateness.record(intended.elapsed());
        numbers.under_way.push(intended);
    }

    pub fn query(&self, sent: Instant) {
        self.queries.fetch_add(1, Ordering::Relaxed);
        self.lock().query.record(sent.elapsed());
    }

    pub fn completed(&self, operation: usize, intended: Instant) {
        let took = intended.elapsed();
        let mut numbers = self.lock();
        numbers.latency.record(took);
        numbers.second.record(took);
        numbers.second_completed += 1;
        numbers.operations[operation].latency.record(took);
        leave(&mut numbers, intended);
        self.completed.fetch_add(1, Ordering::Release);
    }

    pub fn failed(&self, operation: usize, intended: Instant, message: &str) {
        let mut numbers = self.lock();
        numbers.operations[operation].errors += 1;
        if numbers.error_samples.len() < ERRORS_KEPT && !numbers.error_samples.iter().any(|m| m == message) {
            numbers.error_samples.push(message.to_owned());
        }
        leave(&mut numbers, intended);
        self.failed.fetch_add(1, Ordering::Release);
    }

    pub fn answered(&self) -> u64 {
        self.completed.load(Ordering::Acquire) + self.failed.load(Ordering::Acquire)
    }

    pub fn note_backlog(&self, started: Instant) {
        let backlog = self.arrived.load(Ordering::Relaxed).saturating_sub(self.answered());
        let at = started.elapsed().as_secs_f64();
        let mut numbers = self.lock();
        numbers.backlog.push((at, backlog));
        let whole = numbers.timeline.last().map_or(1.0, |tick| tick.t_s + 1.0);
        if at >= whole {
            let second = std::mem::take(&mut numbers.second);
            let completed = std::mem::take(&mut numbers.second_completed);
            numbers.timeline.push(Tick {
                t_s: at.floor(),
                p95_ms: second.quantile_ms(0.95),
                completed,
                backlog,
            });
        }
    }

    pub fn result(&self, plan: &LoadPlan, offered: u64) -> LoadResult {
        let mut numbers = std::mem::take(&mut *self.lock());
        for intended in std::mem::take(&mut numbers.under_way) {
            numbers.latency.record(intended.elapsed());
        }
        let duration_s = self.duration.as_secs_f64();
        let (completed, errors) =
            (self.completed.load(Ordering::Acquire), self.failed.load(Ordering::Acquire));
        let thirds = thirds(&numbers.backlog, duration_s);
        let grew = thirds[2] > thirds[0] * 1.5 + 2.0;
        let p95 = numbers.latency.quantile_ms(0.95).unwrap_or(0.0);
        let late = numbers.lateness.0.value_at_quantile(0.99);
        #[allow(clippy::cast_precision_loss)]
        LoadResult {
            offered_ops: plan.rate_ops,
            duration_s,
            offered,
            completed,
            errors,
            error_samples: numbers.error_samples,
            ops: completed as f64 / duration_s,
            qps: self.queries.load(Ordering::Relaxed) as f64 / duration_s,
            saturated: (completed as f64) < 0.99 * offered as f64 || grew,
            valid: !(late > 1_000 && late as f64 / 1000.0 > p95 / 10.0),
            latency: numbers.latency,
            query_latency: numbers.query,
            lateness: numbers.lateness,
            backlog_thirds: thirds,
            timeline: numbers.timeline,
            operations: numbers.operations,
        }
    }
}

fn leave(numbers: &mut Numbers, intended: Instant) {
    if let Some(place) = numbers.under_way.iter().position(|i| *i == intended) {
        numbers.under_way.swap_remove(place);
    }
}

fn thirds(backlog: &[(f64, u64)], duration_s: f64) -> [f64; 3] {
    [0, 1, 2].map(|third| {
        let (from, to) = (duration_s * f64::from(third) / 3.0, duration_s * f64::from(third + 1) / 3.0);
        let part: Vec<u64> =
            backlog.iter().filter(|(t, _)| (from..to).contains(t)).map(|(_, n)| *n).collect();
        #[allow(clippy::cast_precision_loss)]
        let mean = part.iter().sum::<u64>() as f64 / part.len().max(1) as f64;
        mean
    })
}
