//! A log-linear histogram of microseconds.
//!
//! 64 linear steps per power of two: a bucket is at most 1/64 (1.6 %) of its value wide, and values under 128 µs
//! are exact. Beside the fine buckets it counts at the classic Prometheus bounds exactly, so that nothing is
//! interpolated twice.

use serde::{Deserialize, Serialize};

/// The classic upper bounds in µs, inclusive; the last bucket, +Inf, is implied.
pub const BOUNDS_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// Most bounds that can be configured on top of [`BOUNDS_US`].
pub const EXTRA_BOUNDS_MAX: usize = 4;

/// Values above this are counted as this: a little over 71 minutes.
pub const LIMIT_US: u64 = (1 << 32) - 1;

pub(crate) const STEPS: usize = 64;
pub(crate) const CHUNKS: usize = 27;

/// Number of the fine bucket that `us` falls into.
pub(crate) fn index_of(us: u64) -> usize {
    let us = us.min(LIMIT_US);
    if us < STEPS as u64 {
        return us as usize;
    }
    let shift = 63 - us.leading_zeros() as usize - 6;
    shift * STEPS + (us >> shift) as usize
}

/// Largest value that falls into fine bucket `index`.
fn highest_of(index: usize) -> u64 {
    if index < 2 * STEPS {
        return index as u64;
    }
    let shift = index / STEPS - 1;
    let step = (index - shift * STEPS) as u64;
    ((step + 1) << shift) - 1
}

/// Microseconds, as a distribution. The default is empty, with the classic bounds only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// Non-empty fine buckets, ascending by index.
    #[serde(rename = "b", default)]
    buckets: Vec<(u16, u64)>,
    /// Configured bounds, ascending, none of them in [`BOUNDS_US`].
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty")]
    extra_us: Vec<u64>,
    /// Counts per classic bucket, not cumulative, +Inf last; empty when nothing was recorded.
    #[serde(rename = "c", default)]
    classic: Vec<u64>,
    #[serde(rename = "s", default)]
    sum_us: u64,
    #[serde(rename = "m", default)]
    max_us: u64,
}

impl Histogram {
    /// An empty histogram that also counts at `extra_us`: at most [`EXTRA_BOUNDS_MAX`] of them are used.
    pub fn with_bounds(extra_us: &[u64]) -> Self {
        Self { extra_us: extra_bounds(extra_us), ..Self::default() }
    }

    /// Counts one value of `us` microseconds.
    pub fn record(&mut self, us: u64) {
        self.add(index_of(us) as u16, 1);
        let bounds = self.bounds();
        self.classic.resize(bounds.len() + 1, 0);
        self.classic[bounds.partition_point(|bound| *bound < us)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        self.max_us = self.max_us.max(us);
    }

    /// Adds all that `other` counted. Where the bounds differ, `other`'s are adapted from its fine buckets.
    pub fn merge(&mut self, other: &Histogram) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() && self.extra_us.is_empty() {
            self.extra_us.clone_from(&other.extra_us);
        }
        let classic =
            if self.extra_us == other.extra_us { other.classic.clone() } else { self.rebucket(other) };
        self.classic.resize(self.bounds().len() + 1, 0);
        for (mine, theirs) in self.classic.iter_mut().zip(&classic) {
            *mine += theirs;
        }
        for (index, count) in &other.buckets {
            self.add(*index, *count);
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.max_us = self.max_us.max(other.max_us);
    }

    /// What was counted since `earlier`, a former state of this histogram. After a restart (a count went down)
    /// the whole of `self`. The maximum is exact when it rose since, else the edge of the highest bucket.
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let before = |index: u16| {
            earlier.buckets.binary_search_by_key(&index, |b| b.0).map_or(0, |at| earlier.buckets[at].1)
        };
        let restarted =
            earlier.count() > self.count() || earlier.extra_us != self.extra_us && !earlier.is_empty();
        if restarted || earlier.is_empty() {
            return self.clone();
        }
        let buckets: Vec<(u16, u64)> = self
            .buckets
            .iter()
            .map(|(index, count)| (*index, count.saturating_sub(before(*index))))
            .filter(|(_, count)| *count > 0)
            .collect();
        let top = buckets.last().map_or(0, |(index, _)| highest_of(usize::from(*index)));
        let classic = self
            .classic
            .iter()
            .enumerate()
            .map(|(at, count)| count.saturating_sub(earlier.classic.get(at).copied().unwrap_or(0)))
            .collect();
        Histogram {
            max_us: if self.max_us > earlier.max_us { self.max_us } else { top.min(self.max_us) },
            sum_us: self.sum_us.saturating_sub(earlier.sum_us),
            extra_us: self.extra_us.clone(),
            buckets,
            classic,
        }
    }

    /// The value in µs that the share `q` (0 to 1) of all values does not exceed; `None` when empty. At most
    /// 1.6 % above the true value, never above the maximum.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        for (index, bucket) in &self.buckets {
            seen += bucket;
            if seen >= rank {
                return Some(highest_of(usize::from(*index)).min(self.max_us));
            }
        }
        Some(self.max_us)
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// True when nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Sum of all values in µs.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// Largest value in µs, 0 when empty.
    pub fn max_us(&self) -> u64 {
        self.max_us
    }

    /// Mean in µs, 0 when empty.
    pub fn mean_us(&self) -> f64 {
        let count = self.count();
        if count == 0 { 0.0 } else { self.sum_us as f64 / count as f64 }
    }

    /// Upper bounds in µs with the number of values not above each; +Inf is [`Self::classic_count`].
    pub fn classic(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut cumulative = 0;
        self.bounds().into_iter().enumerate().map(move |(at, bound)| {
            cumulative += self.classic.get(at).copied().unwrap_or(0);
            (bound, cumulative)
        })
    }

    /// How many values the classic buckets hold. In a histogram that was read while it was written this may differ
    /// from [`Self::count`] by those under way.
    pub fn classic_count(&self) -> u64 {
        self.classic.iter().sum()
    }

    /// The fine buckets: highest value in µs and count, ascending, empty ones left out.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.buckets.iter().map(|(index, count)| (highest_of(usize::from(*index)), *count))
    }

    pub(crate) fn from_parts(
        buckets: Vec<(u16, u64)>,
        extra_us: Vec<u64>,
        classic: Vec<u64>,
        sum_us: u64,
        max_us: u64,
    ) -> Self {
        Self { buckets, extra_us, classic, sum_us, max_us }
    }

    fn add(&mut self, index: u16, count: u64) {
        match self.buckets.binary_search_by_key(&index, |bucket| bucket.0) {
            Ok(at) => self.buckets[at].1 += count,
            Err(at) => self.buckets.insert(at, (index, count)),
        }
    }

    fn bounds(&self) -> Vec<u64> {
        all_bounds(&self.extra_us)
    }

    /// `other`'s counts at the bounds of `self`, from the fine buckets.
    fn rebucket(&self, other: &Histogram) -> Vec<u64> {
        let bounds = self.bounds();
        let mut counts = vec![0; bounds.len() + 1];
        for (value, count) in other.buckets() {
            counts[bounds.partition_point(|bound| *bound < value)] += count;
        }
        counts
    }
}

/// `extra_us` sorted, without doubles and without what [`BOUNDS_US`] has.
pub(crate) fn extra_bounds(extra_us: &[u64]) -> Vec<u64> {
    let mut extra: Vec<u64> = extra_us.iter().copied().filter(|b| *b > 0 && !BOUNDS_US.contains(b)).collect();
    extra.sort_unstable();
    extra.dedup();
    extra.truncate(EXTRA_BOUNDS_MAX);
    extra
}

/// [`BOUNDS_US`] and `extra_us`, ascending.
pub(crate) fn all_bounds(extra_us: &[u64]) -> Vec<u64> {
    let mut bounds = BOUNDS_US.to_vec();
    bounds.extend_from_slice(extra_us);
    bounds.sort_unstable();
    bounds
}
