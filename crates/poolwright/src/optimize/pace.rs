//! How long each part takes: a full run stays under six minutes on two cores, a quick one under one.

use std::time::Duration;

/// Durations and counts of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Pace {
    /// Small data and short runs: not a proof.
    pub quick: bool,
    /// A run at the workload's own rate.
    pub own: Duration,
    /// The same in the baseline: long enough to be a try of its search.
    pub own_baseline: Duration,
    /// A run at the target's rate.
    pub target: Duration,
    /// One try of the search for the sustained rate.
    pub search: Duration,
    /// Tries in the baseline, a run already made for at least as long as a try included.
    pub tries_baseline: u32,
    /// Tries in verify, a run already made for at least as long as a try included.
    pub tries_verify: u32,
    /// Idle time-out that replaces the advised one; `None` leaves it.
    pub idle_timeout_ms: Option<u64>,
    /// Idle time-out of the team's pool, which keeps all its connections anyway.
    pub idle_before_ms: u64,
}

impl Pace {
    /// For a proof: 1,000 samples at 50 operations a second, and 10 s for every rate that may count as sustained.
    pub fn full() -> Self {
        Self {
            quick: false,
            own: Duration::from_secs(5),
            own_baseline: Duration::from_secs(10),
            target: Duration::from_secs(21),
            search: Duration::from_secs(10),
            tries_baseline: 2,
            tries_verify: 3,
            idle_timeout_ms: None,
            idle_before_ms: 10_000,
        }
    }

    /// To see that the parts work.
    pub fn quick() -> Self {
        Self {
            quick: true,
            own: Duration::from_secs(2),
            own_baseline: Duration::from_secs(2),
            target: Duration::from_secs(4),
            search: Duration::from_secs(2),
            tries_baseline: 1,
            tries_verify: 3,
            idle_timeout_ms: Some(2_000),
            idle_before_ms: 2_000,
        }
    }
}
