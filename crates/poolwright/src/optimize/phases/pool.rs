//! Phase 2: sizes and time-outs from what was recorded, applied while it runs.

use super::{phase, rates};
use crate::optimize::session::Session;
use crate::report::evidence::CurvePoint;
use crate::report::model::{Phase, PhaseName, PoolSettings, SlowQuery};

/// Sizes the pool by the recorded checkouts, applies it, and measures.
///
/// # Errors
/// A sentence for the user.
pub async fn run(session: &mut Session) -> Result<(Phase, Vec<SlowQuery>), String> {
    session.begin(PhaseName::Pool).await?;
    let snapshot = session.snapshot(true).await?;
    let pool = snapshot.pools.first().ok_or("the pooler has no pool")?;
    let advice = advisor::pool_size(pool, &advisor::Targets::default());
    session.evidence.curve = advice
        .curve
        .iter()
        .map(|(size, wait_p95_ms)| CurvePoint { size: *size, wait_p95_ms: *wait_p95_ms })
        .collect();
    session.evidence.pool_reason.clone_from(&advice.reason);
    let mut settings = session.pooler.settings().clone();
    settings.limits = PoolSettings {
        max: advice.max,
        min: advice.min,
        idle_timeout_ms: session.pace.idle_timeout_ms.unwrap_or(advice.idle_timeout_ms),
        query_timeout_ms: advice.query_timeout_ms,
    };
    session.pooler.apply(settings).await.map_err(|error| error.to_string())?;
    session.event("pool", &format!("max {} min {}", advice.max, advice.min)).await?;
    let rates = rates(session).await?;
    Ok(phase(session, PhaseName::Pool, &rates))
}
