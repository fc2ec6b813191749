//! The highest rate that is held. A rate is *held* when at least 99 % of the operations were answered, none failed,
//! the backlog did not grow, and P95 stayed under the target. The rate is searched for: doubled while held, then
//! halved between the highest held and the lowest not held.

use std::future::Future;

use crate::load::{LoadError, LoadResult};

/// The outcome of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sustained {
    /// Highest held rate, operations a second.
    pub ops: f64,
    /// Statements a second at that rate.
    pub qps: f64,
}

/// Whether `result` held its rate under `target_p95_ms`.
#[must_use]
pub fn held(result: &LoadResult, target_p95_ms: f64) -> bool {
    !result.saturated && result.errors == 0 && result.p(0.95).is_some_and(|p95| p95 < target_p95_ms)
}

/// Searches with at most `tries` runs, beginning at `first_ops` operations a second. `measure` runs one rate (at
/// least 10 s, for a proof). `None` when no tried rate was held.
///
/// # Errors
/// Those of `measure`.
pub async fn search<F, Fut>(
    first_ops: f64,
    tries: u32,
    target_p95_ms: f64,
    mut measure: F,
) -> Result<Option<Sustained>, LoadError>
where
    F: FnMut(f64) -> Fut,
    Fut: Future<Output = Result<LoadResult, LoadError>>,
{
    let (mut best, mut lost): (Option<Sustained>, Option<f64>) = (None, None);
    let mut rate = first_ops;
    for _ in 0..tries {
        let result = measure(rate).await?;
        if held(&result, target_p95_ms) {
            best = Some(Sustained { ops: rate, qps: result.qps });
        } else {
            lost = Some(rate);
        }
        rate = match (best, lost) {
            (Some(best), None) => best.ops * 2.0,
            (Some(best), Some(lost)) => f64::midpoint(best.ops, lost),
            (None, _) => rate / 2.0,
        };
        if let (Some(best), Some(lost)) = (best, lost)
            && lost <= best.ops * 1.1
        {
            break;
        }
    }
    Ok(best)
}
