//! Phase 1: the pool as the team has it, under the load.

use super::{idle_memory, phase, rates, sustained};
use crate::optimize::session::Session;
use crate::report::model::{Phase, PhaseName, SlowQuery};

/// Measures the baseline: both rates, the sustained rate, and the memory of the team's idle connections alone.
///
/// # Errors
/// A sentence for the user.
pub async fn run(session: &mut Session) -> Result<(Phase, Vec<SlowQuery>), String> {
    session.begin(PhaseName::Baseline).await?;
    let rates = rates(session).await?;
    let (mut phase, slow) = phase(session, PhaseName::Baseline, &rates);
    sustained(session, &mut phase, &rates, session.pace.tries_baseline).await?;
    phase.idle_memory_bytes = idle_memory(session, false).await?;
    Ok((phase, slow))
}
